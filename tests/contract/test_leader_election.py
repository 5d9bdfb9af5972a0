"""Elections over a store that several candidates share: one leads, and who has lost the lease does nothing more.

Leases here are short, and all of them count by the loop's own time, so that a busy machine ends none.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from leader_stores import SlowStore
from paced_loop import paced_clock

from corral.runtime.core import Asked, Effect, Loaded, Persist, Reply
from corral.runtime.election import LEADERSHIP_LOST, Candidate, LeadershipLost, leader_key
from corral.runtime.leader import Election, Tenure
from corral.runtime.loop import Loop
from corral.runtime.service import STORE_FAILED, run_services
from corral.store.base import StoreFailed
from corral.store.memory import MemoryStore

pytestmark = pytest.mark.paced

TTL_S = 1.0


class Row(msgspec.Struct, frozen=True):
    n: int


class Say(Effect, frozen=True):
    n: int


class Counting:
    """A core that writes and says each number it is told; `hang` makes it stay in its turn."""

    def __init__(self) -> None:
        self.hang: threading.Event | None = None
        self.loaded: list[str] = []

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Loaded():
                self.loaded = [record.key for record in input.records]
                return []
            case Asked(ask, int(n)):
                return [Persist(f"n{n}", Row(n)), Say(n), Reply(ask, n)]
            case int(n):
                return [Say(n)]
        return []

    def invariants(self) -> None: ...


class Mouth:
    def __init__(self) -> None:
        self.said: list[int] = []

    def perform(self, effect: Any) -> None:
        self.said.append(effect.n)

    def flush(self) -> None: ...


class Member:
    """One process of the cluster: it stands for election, and leads with one loop."""

    def __init__(
        self,
        name: str,
        store: MemoryStore,
        *,
        clock: Callable[[], float] | None = None,
        end_process: Callable[[int], Any] = lambda code: None,
    ) -> None:
        self.store = SlowStore(store)
        self.core, self.mouth = Counting(), Mouth()
        self.loop: Loop | None = None
        self.election = Election(
            self.store, "master", Candidate(id=name, url=f"http://{name}:1"), TTL_S, Random(name),
            clock=clock or paced_clock(),
            end_process=end_process,
        )  # fmt: skip
        self.leads = asyncio.Event()
        self.tenure: Tenure | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> int:
        self.tenure = tenure = await self.election.campaign()
        self.loop = loop = Loop(self.core, self.mouth, self.store, prefix="c/", fence=tenure)
        tenure.attend(loop)

        class Running:
            name = "loop"
            run = staticmethod(loop.run)
            stop = staticmethod(loop.stop)

        self.leads.set()
        return await run_services([tenure, Running()], grace_s=2.0, signals=False)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.election.withdraw()


Start = Callable[..., Coroutine[Any, Any, Member]]


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[MemoryStore, Start]]:
    store = MemoryStore(clock=paced_clock())
    members: list[Member] = []

    async def start(name: str, **more: Any) -> Member:
        members.append(Member(name, store, **more))
        return members[-1]

    yield store, start
    for member in members:
        await member.end()


async def test_one_of_many_candidates_leads_and_the_others_know_whom(cluster: tuple[MemoryStore, Start]) -> None:
    _, start = cluster
    members = [await start(name) for name in ("a", "b", "c")]
    await members[0].leads.wait()
    await asyncio.sleep(TTL_S)
    assert [m.leads.is_set() for m in members] == [True, False, False]
    assert {m.election.leader.url for m in members if m.election.leader} == {"http://a:1"}
    assert sorted(one.id for one in await members[1].election.members()) == ["a", "b", "c"]


async def test_a_leader_that_ends_in_order_is_followed_at_once(cluster: tuple[MemoryStore, Start]) -> None:
    _, start = cluster
    first = await start("a")
    await first.leads.wait()
    second = await start("b")
    await asyncio.sleep(0.05)
    assert first.loop is not None
    now = paced_clock()
    since = now()
    first.loop.stop()
    assert await first.task == 0
    await second.leads.wait()
    assert now() - since < TTL_S / 2
    assert second.loop is not None
    assert await second.loop.ask(1) == 1


async def test_a_leader_that_was_stopped_neither_writes_nor_speaks_when_it_wakes(
    cluster: tuple[MemoryStore, Start],
) -> None:
    """It still believes to lead, and its turn is already decided: the new leader's key forbids what it would do."""
    store, start = cluster
    first = await start("a")
    await first.leads.wait()
    assert first.loop is not None
    assert await first.loop.ask(1) == 1
    first.store.all.clear()  # nothing of it reaches the store, as of a process that is stopped
    second = await start("b")
    await asyncio.wait_for(second.leads.wait(), 4 * TTL_S)
    first.loop.tell(7)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(first.loop.ask(2), 0.1)
    first.store.all.set()
    assert await first.task == LEADERSHIP_LOST
    assert first.mouth.said == [1]
    assert [record.key for record in await store.list("c/")] == ["c/n1"]


async def test_a_commit_that_was_under_way_when_the_lease_ended_is_refused(cluster: tuple[MemoryStore, Start]) -> None:
    store, start = cluster
    first = await start("a")
    await first.leads.wait()
    first.store.commits.clear()
    assert first.loop is not None
    asked = asyncio.ensure_future(first.loop.ask(5))
    second = await start("b")
    await asyncio.wait_for(second.leads.wait(), 4 * TTL_S)
    first.store.commits.set()
    assert await first.task == LEADERSHIP_LOST
    with pytest.raises(Exception, match="has ended before it could answer"):
        await asked
    assert await store.list("c/") == []
    assert first.mouth.said == []


async def test_a_leader_whose_turn_does_not_end_loses_the_lease_although_its_process_lives(
    cluster: tuple[MemoryStore, Start],
) -> None:
    _, start = cluster
    first = await start("a")
    await first.leads.wait()
    first.store.commits.clear()
    assert first.loop is not None
    asked = asyncio.ensure_future(first.loop.ask(5))
    await asyncio.sleep(0)
    now = paced_clock()
    since = now()
    assert await first.task == LEADERSHIP_LOST
    assert now() - since < 3 * TTL_S + 2
    with pytest.raises(Exception, match="has ended"):
        await asked


async def test_a_deleted_registration_deposes_although_the_session_lives(cluster: tuple[MemoryStore, Start]) -> None:
    """And the other way round: whoever leads has both, or nothing."""
    store, start = cluster
    first = await start("a")
    await first.leads.wait()
    await store.commit({leader_key("master"): None})
    assert first.loop is not None
    with pytest.raises(Exception, match="has ended"):
        await first.loop.ask(1)
    assert await first.task == LEADERSHIP_LOST
    assert first.mouth.said == []


async def test_while_the_store_is_away_a_leader_does_not_act_and_its_reign_ends(
    cluster: tuple[MemoryStore, Start],
) -> None:
    store, start = cluster
    first = await start("a")
    await first.leads.wait()
    assert first.loop is not None
    assert first.tenure is not None
    assert await first.loop.ask(1) == 1
    stopped_at = paced_clock()()
    store._clock = lambda: stopped_at  # a store without a quorum ends no leases
    first.store.broken = True
    await asyncio.sleep(1.2 * TTL_S)
    assert not first.tenure.holds
    first.loop.tell(2)
    await asyncio.sleep(0.1)
    assert first.mouth.said == [1]
    assert await asyncio.wait_for(asyncio.shield(first.task), 4 * TTL_S) == STORE_FAILED
    first.store.broken = False
    first.election.stand_again()
    assert (await asyncio.wait_for(first.election.campaign(), 2 * TTL_S)).holds
    assert first.mouth.said == [1]


async def test_a_standby_without_the_store_forgets_who_leads(cluster: tuple[MemoryStore, Start]) -> None:
    _, start = cluster
    await (await start("a")).leads.wait()
    second = await start("b")
    await asyncio.sleep(0.1)
    assert second.election.leader is not None
    second.store.all.clear()
    await asyncio.sleep(1.4 * TTL_S)
    assert second.election.leader is None
    second.store.all.set()
    await asyncio.sleep(TTL_S)
    assert second.election.leader is not None


async def test_a_candidate_whose_answer_was_lost_finds_that_it_leads() -> None:
    store = MemoryStore(clock=paced_clock())
    member = Member("a", store)
    lost = False

    async def commit(writes: Mapping[str, bytes | None], guards: Any = (), lease: Any = None) -> int:
        nonlocal lost
        revision = await store.commit(writes, guards, lease)
        if leader_key("master") in writes and not lost:
            lost = True
            raise StoreFailed("its answer was made to get lost")
        return revision

    member.store.commit = commit  # type: ignore[method-assign]
    await asyncio.wait_for(member.leads.wait(), TTL_S)
    assert lost
    assert member.loop is not None
    assert await member.loop.ask(1) == 1
    await member.end()


async def test_an_event_loop_that_stands_still_ends_the_process() -> None:
    codes: list[int] = []
    ended = threading.Event()

    def end_process(code: int) -> None:
        codes.append(code)
        ended.set()

    member = Member("a", MemoryStore(), clock=time.monotonic, end_process=end_process)
    await member.leads.wait()
    await asyncio.sleep(0.1)
    assert ended.wait(60.0)  # and nothing else is done meanwhile
    assert codes == [LEADERSHIP_LOST]
    await member.end()


async def test_who_has_the_store_alone_leads_at_once_though_another_s_key_is_there() -> None:
    store = MemoryStore(clock=paced_clock())
    for name in ("a", "b"):
        election = Election(store, "master", Candidate(id=name), 10.0, Random(1))
        tenure = await election.claim()
        assert tenure.holds
    first = Tenure(store, "master", 1)
    first.lose("a guard did not hold")
    assert not first.holds
    with pytest.raises(LeadershipLost, match="a guard did not hold"):
        await first.settle()
