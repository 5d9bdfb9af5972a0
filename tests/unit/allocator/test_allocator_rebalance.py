"""Which moves are planned: few, allowed by their owners, and good for something."""

import msgspec

from corral.allocator.rebalance import MOVABLE, rebalance
from corral.allocator.view import AgentView, Hold, View, WantView
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, normal, scalar
from corral.model.role import RoleSettings

F = FrameworkId("f")


def bundle(cpus: float, mem: float = 512) -> Resources:
    return normal((scalar("cpus", cpus), scalar("mem", mem)))


def agents(*cpus: float) -> list[AgentView]:
    return [AgentView(id=AgentId(f"a{i}"), hostname=f"h{i}", total=bundle(n, 64_000)) for i, n in enumerate(cpus)]


def task(name: str, agent: int, cpus: float, *, movable: bool = True, group: str = "") -> Hold:
    return Hold(
        key=f"task/{name}", framework_id=F, role="r", agent_id=AgentId(f"a{agent}"), resources=bundle(cpus),
        group=group, tags=(MOVABLE,) if movable else (),
    )  # fmt: skip


def big(cpus: float) -> WantView:
    want = Want(id=WantId("big"), role="r", count=1, resources=bundle(cpus))
    return WantView(want=want, framework_id=F, missing=1, since_at=0.0)


def test_room_is_made_for_a_want_that_only_pieces_keep_waiting() -> None:
    holds = [task("a", 0, 2), task("b", 1, 2), task("c", 1, 1)]
    moves = rebalance(View(agents=agents(4, 4), holds=holds, wants=[big(4)]), 1.0, 1)
    assert [(move.key, move.from_host, move.to_host) for move in moves] == []
    moves = rebalance(View(agents=agents(4, 6), holds=holds, wants=[big(4)]), 1.0, 5)
    assert [(move.key, move.from_host, move.to_host) for move in moves] == [("task/a", "h0", "h1")]
    assert "big" in moves[0].why


def test_what_its_owner_does_not_allow_stays() -> None:
    holds = [task("a", 0, 2, movable=False), task("b", 1, 2, movable=False)]
    assert rebalance(View(agents=agents(4, 6), holds=holds, wants=[big(4.5)]), 1.0) == ()


def test_full_agents_are_evened_out_within_the_bound() -> None:
    holds = [task(f"t{i}", 0, 1) for i in range(8)]
    view = View(agents=agents(8, 8), holds=holds)
    assert len(rebalance(view, 1.0, 2)) == 2
    assert len(rebalance(view, 1.0, 50)) == 4
    assert rebalance(view, 1.0, 50) == rebalance(view, 1.0, 50)


def test_siblings_are_not_brought_together() -> None:
    holds = [task("a", 0, 3, group="web"), task("b", 1, 1, group="web"), task("c", 0, 4, movable=False)]
    assert rebalance(View(agents=agents(8, 8), holds=holds), 1.0) == ()


def test_what_would_only_come_back_is_not_moved() -> None:
    """Two of four siblings are on each: another one is placed where more room is, which is where it came from."""
    web = [task(f"w{i}", i % 2, 0.5, group="web") for i in range(4)]
    pin = task("pin", 1, 1, movable=False)
    assert rebalance(View(agents=agents(4, 4), holds=[*web, pin], wants=[big(3.5)]), 1.0) == ()
    three = [task(f"w{i}", 0, 0.5, group="web") for i in range(2)]
    moves = rebalance(View(agents=agents(4, 4), holds=[*three, pin], wants=[big(3.5)]), 1.0)
    assert [(move.key, move.to_host) for move in moves] == [("task/w0", "h1")]


def test_a_role_that_packs_tightly_gets_its_moves_where_it_is_tightest() -> None:
    holds = [task("a", 0, 1), task("b", 2, 3, movable=False)]
    view = View(agents=agents(4, 3.5, 4.5), holds=holds, wants=[big(4)])
    (spread,) = rebalance(view, 1.0)
    assert spread.to_host == "h1"
    (packed,) = rebalance(msgspec.structs.replace(view, roles={"r": RoleSettings(strategy="binpack")}), 1.0)
    assert packed.to_host == "h2"


def test_nothing_is_moved_to_or_from_nowhere() -> None:
    assert rebalance(View(agents=[]), 1.0) == ()
