"""What holds for every view: nothing is given twice, nobody waits who fits, explanations can be believed."""

import re
from collections import Counter

import msgspec
from corral.allocator.nodes import Nodes
from corral.allocator.shapes import Group, counting_mask
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.allocator.allocator import allocate
from corral.allocator.coarse import worth_offering
from corral.allocator.view import AgentView, Allocation, Filter, FrameworkView, HeldOffer, View, WantView
from corral.model.constraints import HOSTNAME, Constraint, Operator, allows, describe, field_value
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Want
from corral.model.resources import (
    Resource,
    ResourceKind,
    Resources,
    add,
    all_ranges,
    contains,
    count_range,
    normal,
    ports,
    scalar,
    subtract,
    total_milli,
)

NAMES = [f"a{i}" for i in range(5)]
ROLES = ["r", "s", "t"]
FRAMEWORKS = ["f", "g"]
GROUPS = ["", "web", "db"]


@st.composite
def bundles(draw: st.DrawFn, most: int = 6) -> Resources:
    found: list[Resource] = [
        scalar("cpus", draw(st.integers(0, most * 2)) / 2),
        scalar("mem", draw(st.integers(0, most)) * 64),
    ]
    if draw(st.booleans()):
        found.append(ports((10, 10 + draw(st.integers(0, 6)))))
    if draw(st.integers(0, 5)) == 0:
        found.append(scalar("gpus", draw(st.integers(1, 2))))
    return normal(found)


def part_of(total: Resources, draw: st.DrawFn) -> Resources:
    """Some of a bundle, scalars and ranges cut at will."""
    kept = []
    for r in total:
        if r.kind is ResourceKind.SCALAR:
            kept.append(msgspec.structs.replace(r, milli=draw(st.integers(0, r.milli // 500)) * 500))
        else:
            low, high = r.ranges[0]
            kept.append(msgspec.structs.replace(r, ranges=((low, draw(st.integers(low, high))),)))
    return normal(kept)


@st.composite
def agents(draw: st.DrawFn) -> list[AgentView]:
    found = []
    for name in NAMES[: draw(st.integers(0, len(NAMES)))]:
        total = draw(bundles())
        attributes = {"rack": draw(st.sampled_from(["r1", "r2"]))} if draw(st.booleans()) else {}
        found.append(
            AgentView(
                id=AgentId(name),
                hostname="h-" + name,
                total=total,
                free=draw(st.sampled_from([total, part_of(total, draw)])),
                attributes=attributes,
                runtimes=draw(st.sampled_from([("docker", "process"), ("process",)])),
                ineligible=draw(st.sampled_from(["", "", "", "draining"])),
                tasks=draw(st.integers(0, 3)),
            )
        )
    return found


constraint_lists = st.lists(
    st.one_of(
        st.builds(
            Constraint,
            field=st.sampled_from(["rack", HOSTNAME]),
            operator=st.sampled_from([Operator.UNIQUE, Operator.CLUSTER, Operator.GROUP_BY]),
        ),
        st.builds(
            Constraint,
            field=st.just("rack"),
            operator=st.sampled_from([Operator.MAX_PER, Operator.GROUP_BY]),
            count=st.integers(1, 3),
        ),
        st.builds(
            Constraint,
            field=st.just("rack"),
            operator=st.sampled_from([Operator.EQUAL, Operator.UNEQUAL, Operator.MATCH, Operator.MISMATCH]),
            values=st.sampled_from([("r1",), ("r2",)]),
        ),
    ),
    max_size=2,
).map(tuple)


@st.composite
def wants(draw: st.DrawFn) -> list[WantView]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        count = draw(st.integers(0, 5))
        want = Want(
            id=WantId(f"w{number}"),
            role=draw(st.sampled_from(ROLES)),
            count=count,
            resources=draw(bundles(2)) if draw(st.booleans()) else (scalar("cpus", 0.5),),
            ports=draw(st.sampled_from([0, 0, 0, 1, 2])),
            fixed_ports=draw(st.sampled_from([(), (), (), (), (10,), (11, 12)])),
            constraints=draw(constraint_lists),
            strategy=draw(st.sampled_from(["spread", "binpack", "random", "least-tasks"])),
            priority=draw(st.integers(0, 1)),
            group=draw(st.sampled_from(GROUPS)),
            group_size=draw(st.integers(0, 6)),
            runtime=draw(st.sampled_from(["", "", "docker"])),
        )
        # A want that names ports both as resources and as numbers could ask the same port twice.
        if any(r.name == "ports" for r in want.resources):
            want = msgspec.structs.replace(want, fixed_ports=())
        found.append(
            WantView(
                want=want,
                framework_id=FrameworkId(draw(st.sampled_from(FRAMEWORKS))),
                missing=count,
                since_at=float(draw(st.integers(0, 2))),
            )
        )
    return found


@st.composite
def views(draw: st.DrawFn) -> View:
    there = draw(agents())
    ids = [a.id for a in there]
    placed = st.lists(st.sampled_from([*ids, AgentId("elsewhere")]), max_size=4)
    filters = [
        Filter(
            framework_id=FrameworkId(draw(st.sampled_from(FRAMEWORKS))),
            role=draw(st.sampled_from(ROLES)),
            agent_id=AgentId(draw(st.sampled_from(NAMES))),
            resources=draw(bundles()),
            until_at=draw(st.sampled_from([5.0, 50.0])),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    held = []
    for number, agent in enumerate(there):
        used = subtract(agent.total, agent.free)
        if used and draw(st.booleans()):
            held.append(
                HeldOffer(
                    id=OfferId(f"o{number}"),
                    framework_id=FrameworkId("g"),
                    role="s",
                    agent_id=agent.id,
                    resources=used,
                    made_at=float(number),
                )
            )
    return View(
        agents=there,
        frameworks=[
            FrameworkView(
                id=FrameworkId(name),
                coarse_roles=tuple(draw(st.lists(st.sampled_from(ROLES), max_size=2, unique=True))),
                gpus=draw(st.booleans()),
            )
            for name in FRAMEWORKS
        ],
        wants=draw(wants()),
        filters=filters,
        held=held,
        weights=draw(st.dictionaries(st.sampled_from(ROLES), st.sampled_from([0.5, 2.0]))),
        allocated={role: draw(bundles(2)) for role in draw(st.lists(st.sampled_from(ROLES), unique=True))},
        siblings={
            (FrameworkId(name), group): draw(placed)
            for name in FRAMEWORKS
            for group in ("web", "db")
            if draw(st.booleans())
        },
        seed=draw(st.integers(0, 1 << 40)),
    )


NOW = 10.0


def left_after(view: View, allocation: Allocation) -> dict[str, Resources]:
    left = {agent.id: agent.free for agent in view.agents}
    for grant in allocation.grants:
        assert contains(left[grant.agent_id], grant.resources), "given twice"
        left[grant.agent_id] = subtract(left[grant.agent_id], grant.resources)
    return left


class Placed:
    """Siblings as the rules see them, followed grant by grant."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.agents = {agent.id: agent for agent in view.agents}
        self.by_group: dict[tuple[str, str], list[AgentId]] = {}

    def of(self, want: WantView) -> list[AgentId]:
        key = (want.framework_id, want.want.group or "want " + want.want.id)
        if key not in self.by_group:
            start = self.view.siblings.get((want.framework_id, want.want.group), ()) if want.want.group else ()
            self.by_group[key] = [a for a in start if a in self.agents]
        return self.by_group[key]

    def allow(self, want: WantView, agent: AgentView, group_size: int) -> bool:
        def text(field: str, each: AgentView) -> str | None:
            return field_value(field, each.hostname, each.attributes)

        return all(
            allows(
                c,
                text(c.field, agent),
                [text(c.field, self.agents[a]) for a in self.of(want)],
                len({text(c.field, a) for a in self.view.agents} - {None}),
                group_size,
            )
            for c in want.want.constraints
        )


def group_size(view: View, want: WantView) -> int:
    return want.want.group_size or len(Placed(view).of(want)) + want.missing


def fits(want: Want, free: Resources) -> bool:
    fixed = (ports(*((p, p) for p in want.fixed_ports)),) if want.fixed_ports else ()
    asked = add(want.resources, fixed)
    return contains(free, asked) and count_range(all_ranges(free, "ports")) >= want.ports + count_range(
        all_ranges(asked, "ports")
    )


def refused(view: View, want: WantView, agent: AgentView) -> bool:
    scalars = tuple(r for r in want.want.resources if r.kind is ResourceKind.SCALAR)
    return any(
        f.until_at > NOW
        and (f.framework_id, f.role, f.agent_id) == (want.framework_id, want.want.role, agent.id)
        and contains(f.resources, scalars)
        for f in view.filters
    )


@settings(max_examples=70, deadline=None)
@given(views())
def test_nothing_is_given_that_is_not_free_or_given_twice(view: View) -> None:
    left_after(view, allocate(view, NOW))


@settings(max_examples=100, deadline=None)
@given(views())
def test_equal_views_give_equal_answers(view: View) -> None:
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(view.agents), type=list[AgentView])
    assert allocate(view, NOW) == allocate(msgspec.structs.replace(view, agents=copy), NOW)


@settings(max_examples=70, deadline=None)
@given(views())
def test_each_want_gets_its_shape_at_most_as_often_as_it_is_missing_and_the_rest_is_explained(view: View) -> None:
    allocation = allocate(view, NOW)
    by_id = {w.want.id: w for w in view.wants}
    given_out = Counter(g.want_id for g in allocation.grants if g.want_id)
    for grant in allocation.grants:
        if grant.want_id is None:
            continue
        want = by_id[grant.want_id].want
        asked = count_range(all_ranges(want.resources, "ports")) + len(want.fixed_ports) + want.ports
        assert [r for r in grant.resources if r.name != "ports"] == [r for r in want.resources if r.name != "ports"]
        assert count_range(all_ranges(grant.resources, "ports")) == asked
        assert grant.role == want.role
    waiting = {e.want_id: e.waiting for e in allocation.explanations}
    for want_view in view.wants:
        assert given_out[want_view.want.id] + waiting.get(want_view.want.id, 0) == want_view.missing


@settings(max_examples=70, deadline=None)
@given(views())
def test_every_grant_of_a_want_keeps_its_constraints_runtime_and_filters(view: View) -> None:
    placed = Placed(view)
    by_id = {w.want.id: w for w in view.wants}
    for grant in allocate(view, NOW).grants:
        if grant.want_id is None:
            continue
        want = by_id[grant.want_id]
        agent = placed.agents[grant.agent_id]
        assert not agent.ineligible
        assert not want.want.runtime or want.want.runtime in agent.runtimes
        assert placed.allow(want, agent, group_size(view, want))
        assert not refused(view, want, agent)
        placed.of(want).append(grant.agent_id)


@settings(max_examples=70, deadline=None)
@given(views())
def test_no_want_waits_while_an_agent_could_take_it(view: View) -> None:
    allocation = allocate(msgspec.structs.replace(view, frameworks=[]), NOW)
    left = left_after(view, allocation)
    placed = Placed(view)
    by_id = {w.want.id: w for w in view.wants}
    for grant in allocation.grants:
        if grant.want_id is not None:
            placed.of(by_id[grant.want_id]).append(grant.agent_id)
    for explanation in allocation.explanations:
        want = by_id[explanation.want_id]
        for agent in view.agents:
            could = (
                not agent.ineligible
                and (not want.want.runtime or want.want.runtime in agent.runtimes)
                and fits(want.want, left[agent.id])
                and placed.allow(want, agent, group_size(view, want))
                and not refused(view, want, agent)
            )
            assert not could, f"{want.want.id} waits though {agent.id} could take it"


@settings(max_examples=70, deadline=None)
@given(views())
def test_coarse_offers_are_worth_having_unfiltered_and_one_per_agent(view: View) -> None:
    allocation = allocate(view, NOW)
    coarse = [g for g in allocation.grants if g.want_id is None]
    assert len({g.agent_id for g in coarse}) == len(coarse)
    agents_by_id = {a.id: a for a in view.agents}
    frameworks = {f.id: f for f in view.frameworks}
    for grant in coarse:
        agent = agents_by_id[grant.agent_id]
        assert not agent.ineligible
        assert worth_offering(grant.resources)
        assert grant.role in frameworks[grant.framework_id].coarse_roles
        assert frameworks[grant.framework_id].gpus or total_milli(agent.total, "gpus") == 0
        assert not any(
            f.until_at > NOW
            and (f.framework_id, f.role, f.agent_id) == (grant.framework_id, grant.role, grant.agent_id)
            and contains(f.resources, grant.resources)
            for f in view.filters
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(1, 30), st.integers(1, 4))
def test_backlogged_equal_roles_differ_by_one_task_at_most(roles: int, slots: int, boxes: int) -> None:
    total = (scalar("cpus", slots), scalar("mem", 64.0 * slots))
    there = [AgentView(id=AgentId(f"a{i}"), hostname=f"a{i}", total=total, free=total) for i in range(boxes)]
    stated = [
        WantView(
            want=Want(id=WantId(f"w{i}"), role=f"r{i}", count=1000, resources=(scalar("cpus", 1), scalar("mem", 64))),
            framework_id=FrameworkId("f"),
            missing=1000,
            since_at=float(-i),
        )
        for i in range(roles)
    ]
    got = Counter(g.role for g in allocate(View(agents=there, wants=stated), NOW).grants)
    assert sum(got.values()) == slots * boxes
    assert max(got.values()) - min(got[f"r{i}"] for i in range(roles)) <= 1


@settings(max_examples=100, deadline=None)
@given(views())
def test_a_rescind_lets_a_waiting_want_fit_and_none_is_useless(view: View) -> None:
    allocation = allocate(view, NOW)
    if not allocation.rescind:
        return
    by_id = {offer.id: offer for offer in view.held}
    back: dict[str, Resources] = {}
    for offer_id in allocation.rescind:
        offer = by_id[offer_id]
        back[offer.agent_id] = add(back.get(offer.agent_id, ()), offer.resources)
    left = left_after(view, allocation)
    returned = [
        msgspec.structs.replace(a, free=add(left[a.id], back.get(a.id, ())))
        if a.id in back
        else msgspec.structs.replace(a, free=())
        for a in view.agents
    ]
    still = {e.want_id: e.waiting for e in allocation.explanations}
    assert {g.agent_id for g in allocation.grants if g.want_id is None}.isdisjoint(back), "kept for the wants"
    placed = Placed(view)
    wants_by_id = {w.want.id: w for w in view.wants}
    for grant in allocation.grants:
        if grant.want_id is not None:
            placed.of(wants_by_id[grant.want_id]).append(grant.agent_id)
    again = allocate(
        msgspec.structs.replace(
            view,
            agents=returned,
            held=(),
            frameworks=(),
            siblings={(FrameworkId(f), g): a for (f, g), a in placed.by_group.items()}
            | {k: v for k, v in view.siblings.items() if k not in placed.by_group},
            wants=[
                msgspec.structs.replace(
                    w, missing=still[w.want.id], want=msgspec.structs.replace(w.want, group_size=group_size(view, w))
                )
                for w in view.wants
                if w.want.id in still
            ],
        ),
        NOW,
    )
    assert {g.agent_id for g in again.grants} == set(back)


@settings(max_examples=100, deadline=None)
@given(views())
def test_what_an_explanation_names_would_make_it_fit(view: View) -> None:
    """Each hint is followed to the letter, and then an instance of the want is placed."""
    view = msgspec.structs.replace(view, frameworks=[], held=[])
    allocation = allocate(view, NOW)
    left = left_after(view, allocation)
    placed = Placed(view)
    by_id = {w.want.id: w for w in view.wants}
    for grant in allocation.grants:
        if grant.want_id is not None:
            placed.of(by_id[grant.want_id]).append(grant.agent_id)
    siblings = {k: tuple(v) for k, v in view.siblings.items()} | {
        (FrameworkId(f), g): tuple(a) for (f, g), a in placed.by_group.items()
    }
    there = [msgspec.structs.replace(a, free=left[a.id]) for a in view.agents]
    for explanation in allocation.explanations:
        want = by_id[explanation.want_id]
        kept = msgspec.structs.replace(
            want.want, group_size=group_size(view, want), group=want.want.group or "want " + want.want.id
        )
        for hint in explanation.fits_if:
            changed, changed_agents, changed_filters = follow(hint, kept, there, list(view.filters))
            after = View(
                agents=changed_agents,
                wants=[msgspec.structs.replace(want, want=changed, missing=1)],
                filters=changed_filters,
                siblings=siblings,
            )
            assert len(allocate(after, NOW).grants) == 1, hint


def follow(
    hint: str, want: Want, there: list[AgentView], filters: list[Filter]
) -> tuple[Want, list[AgentView], list[Filter]]:
    replace = msgspec.structs.replace
    if found := re.fullmatch(r"ports ≤ (\d+)", hint):
        fixed = len(want.fixed_ports) + count_range(all_ranges(want.resources, "ports"))
        return replace(want, ports=int(found[1]) - fixed), there, filters
    if found := re.fullmatch(r"(\w+) ≤ ([\d.]+)", hint):
        resources = tuple(scalar(r.name, float(found[2])) if r.name == found[1] else r for r in want.resources)
        return replace(want, resources=resources), there, filters
    if found := re.fullmatch(r"without the constraint (.+)", hint):
        kept = tuple(c for c in want.constraints if describe(c) != found[1])
        return replace(want, constraints=kept), there, filters
    if found := re.fullmatch(r"runtime (.+)", hint):
        return replace(want, runtime=found[1].split(" or ")[0]), there, filters
    if found := re.fullmatch(r"h-(\w+) is no longer draining", hint):
        return want, [replace(a, ineligible="") if a.id == found[1] else a for a in there], filters
    if found := re.fullmatch(r"the filter on h-(\w+) expires", hint):
        return want, there, [f for f in filters if f.agent_id != found[1]]
    if found := re.fullmatch(r"port ([\d,-]+) is free on h-(\w+)", hint):
        missing = [tuple(map(int, (span.split("-") * 2)[:2])) for span in found[1].split(",")]
        return (
            want,
            [replace(a, free=add(a.free, (ports(*missing),))) if a.id == found[2] else a for a in there],  # type: ignore[arg-type]
            filters,
        )
    raise AssertionError(f"a hint of an unknown form: {hint}")


@settings(max_examples=120, deadline=None)
@given(
    agents(),
    st.lists(st.integers(0, 4), max_size=8),
    st.sampled_from([Operator.UNIQUE, Operator.MAX_PER, Operator.CLUSTER, Operator.GROUP_BY]),
    st.sampled_from(["rack", HOSTNAME]),
    st.one_of(st.none(), st.integers(1, 3)),
    st.sampled_from([(), ("r1",)]),
    st.integers(0, 8),
)
def test_counting_for_all_agents_at_once_says_what_the_rule_says_for_each(
    there: list[AgentView],
    rows: list[int],
    operator: Operator,
    field: str,
    count: int | None,
    values: tuple[str, ...],
    size: int,
) -> None:
    constraint = Constraint(field=field, operator=operator, count=count, values=values)
    nodes = Nodes(there, (), 0)
    rows = [row for row in rows if row < len(there)]
    group = Group(nodes, [there[row].id for row in rows[: len(rows) // 2]])
    group.counts(field)
    for row in rows[len(rows) // 2 :]:
        group.add(row)
    texts = [field_value(field, a.hostname, a.attributes) for a in there]
    expected = [
        allows(constraint, text, [texts[row] for row in rows], len(set(texts) - {None}), size) for text in texts
    ]
    assert list(counting_mask(nodes, constraint, group, size)) == expected
