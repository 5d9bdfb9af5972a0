"""GPUs are chosen as packing alone would choose them, exactly one by one, within all that the engine allows."""

from collections import Counter
from random import Random

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.allocator.allocator import Allocator
from corral.allocator.demands import strategy_of
from corral.allocator.engine import Mode
from corral.allocator.gpus import MODEL, NO_MODEL, GpuChooser, demand_of, models_named
from corral.allocator.packing import WHOLE, Cluster, Demand, Packer, Supply
from corral.allocator.packing_balance import Balance
from corral.allocator.view import AgentView, Filter, Grant, Hold, HoldKind, WantView
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.flags import parse_resources
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.role import RoleSettings
from corral.sim.packing import FRAMEWORK, ROLE, LivePacker

F = FrameworkId("f")

SUPPLIES = st.lists(
    st.builds(
        Supply,
        cpu_milli=st.sampled_from([8_000, 64_000, 96_000]),
        mem_mb=st.sampled_from([16_384, 262_144]),
        gpus=st.sampled_from([1, 2, 8]),
        model=st.sampled_from(["", "A", "B"]),
    ),
    min_size=1,
    max_size=6,
)
MODELS = st.sampled_from([(), (), ("A",), ("A", "B"), ("none such",)])
DEMANDS = st.one_of(
    st.builds(Demand, cpu_milli=st.sampled_from([500, 8_000]), mem_mb=st.sampled_from([0, 1_024, 30_000])),
    st.builds(
        Demand,
        cpu_milli=st.sampled_from([1_000, 4_000, 12_000]),
        mem_mb=st.sampled_from([1_024, 12_288]),
        gpus=st.just(1),
        gpu_milli=st.sampled_from([50, 320, 470, 810, WHOLE]),
        models=MODELS,
    ),
    st.builds(
        Demand,
        cpu_milli=st.sampled_from([8_000, 32_000]),
        mem_mb=st.just(4_096),
        gpus=st.sampled_from([2, 4, 8]),
        gpu_milli=st.just(WHOLE),
        models=MODELS,
    ),
)


def agent(name: str, resources: str, model: str = "", **fields: object) -> AgentView:
    attributes = {MODEL: model} if model else {}
    given = {"hostname": name, "attributes": attributes, **fields}
    return AgentView(id=AgentId(name), total=parse_resources(resources), **given)  # type: ignore[arg-type]


def want(name: str, resources: str, count: int = 1, **fields: object) -> WantView:
    stated = Want(id=WantId(name), role="r", count=count, resources=parse_resources(resources), **fields)  # type: ignore[arg-type]
    return WantView(want=stated, framework_id=F, missing=count, since_at=0.0)


def allocator(*agents: AgentView, mode: Mode = Mode.PLAIN, strategy: str = "") -> Allocator:
    found = Allocator(mode=mode)
    found.set_role("r", RoleSettings(strategy=strategy))
    for each in agents:
        found.set_agent(each)
    return found


def where(grants: tuple[Grant, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [(str(grant.agent_id), grant.devices) for grant in grants]


def ask(found: Allocator, *wants: WantView, now: float = 0.0) -> list[tuple[str, tuple[int, ...]]]:
    for each in wants:
        found.set_want(each)
    grants = found.run(now).grants
    found.invariants()
    return where(grants)


def model(operator: Operator, *values: str, weight: int = 0) -> Constraint:
    return Constraint(field=MODEL, operator=operator, values=values, weight=weight)


def in_thousandths(supply: Supply) -> Supply:
    return Supply(cpu_milli=supply.cpu_milli, mem_mb=supply.mem_mb * 1000, gpus=supply.gpus, model=supply.model)


def alone(demand: Demand) -> Demand:
    """The demand as the engine counts it."""
    return Demand(
        cpu_milli=demand.cpu_milli, mem_mb=demand.mem_mb * 1000, gpus=demand.gpus, gpu_milli=demand.gpu_milli,
        models=demand.models,
    )  # fmt: skip


@given(supplies=SUPPLIES, demands=st.lists(DEMANDS, max_size=60), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_the_live_allocator_decides_as_packing_alone(supplies: list[Supply], demands: list[Demand], seed: int) -> None:
    cluster = Cluster([in_thousandths(each) for each in supplies])
    packer, live, random = Packer(cluster, Balance(cluster)), LivePacker(supplies), Random(seed)
    running = []
    for demand in demands:
        placement, grant = packer.place(alone(demand)), live.place(demand)
        assert (placement is None) == (grant is None)
        if placement is not None and grant is not None:
            assert (str(grant.agent_id), grant.devices) == (f"agent-{placement.agent}", placement.gpus)
            running.append((placement, grant))
        if running and random.random() < 0.3:
            placement, grant = running.pop(random.randrange(len(running)))
            packer.release(placement)
            live.release(grant)
    live.invariants()


def test_gpus_are_chosen_alike_over_arrays_and_lists() -> None:
    random = Random(5)
    kinds = [("cpus:64;mem:262144;gpus:8", "A"), ("cpus:32;mem:65536;gpus:2", "B"), ("cpus:16;mem:32768", "")]
    agents = [agent(f"a{i}", *random.choice(kinds)) for i in range(12)]
    shapes = ["cpus:4;mem:1024;gpus:0.5", "cpus:8;mem:8192;gpus:1", "cpus:16;mem:8192;gpus:4", "cpus:2;mem:512"]
    limits = [(), (model(Operator.EQUAL, "B"),), (Constraint(field=HOSTNAME, operator=Operator.UNIQUE),)]
    first, second = (allocator(*agents, mode=each, strategy="gpu") for each in (Mode.PLAIN, Mode.ARRAYS))
    keys: list[str] = []
    for i in range(30):
        asked = want(f"w{i}", random.choice(shapes), random.randint(1, 4), constraints=random.choice(limits))
        gone = keys.pop(random.randrange(len(keys))) if len(keys) > 8 else ""
        found = []
        for each in (first, second):
            each.release(gone)
            each.set_want(asked)
            found.append(each.run(float(i)).grants)
        assert found[0] == found[1]
        keys += [grant.key for grant in found[0]]
    assert first.decision_hash() == second.decision_hash()
    first.invariants()
    second.invariants()


@given(demands=st.lists(DEMANDS, min_size=1, max_size=40), supplies=SUPPLIES, seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_no_gpu_is_given_twice_and_nothing_that_fits_is_refused(
    demands: list[Demand], supplies: list[Supply], seed: int
) -> None:
    live, random = LivePacker(supplies), Random(seed)
    used: Counter[tuple[str, int]] = Counter()
    running: list[tuple[Grant, Demand]] = []
    for demand in demands:
        views = list(live.allocator.view().agents)
        shut = random.choice(views)
        live.allocator.set_agent(msgspec.structs.replace(shut, ineligible=random.choice(["", "draining"])))
        fits = _agents_that_fit(live, demand, used)
        grant = live.place(demand)
        assert (grant is not None) == bool(fits)
        if grant is None:
            continue
        assert str(grant.agent_id) in fits
        assert len(grant.devices) == demand.gpus
        for device in grant.devices:
            used[str(grant.agent_id), device] += demand.gpu_milli
        running.append((grant, demand))
        if random.random() < 0.2:
            grant, demand = running.pop(random.randrange(len(running)))
            live.release(grant)
            for device in grant.devices:
                used[str(grant.agent_id), device] -= demand.gpu_milli
        assert max(used.values(), default=0) <= WHOLE
    live.invariants()


def _agents_that_fit(live: LivePacker, demand: Demand, used: Counter[tuple[str, int]]) -> set[str]:
    """By hand, from what agents have and what was granted."""
    view = live.allocator.view()
    found = set()
    for each in view.agents:
        total = {r.name: r.milli for r in each.total}
        for hold in view.holds:
            if hold.agent_id == each.id:
                for r in hold.resources:
                    total[r.name] -= r.milli
        gpus = sum(r.milli for r in each.total if r.name == "gpus") // WHOLE
        room = sum(WHOLE - used[str(each.id), d] >= demand.gpu_milli for d in range(gpus))
        models = not demand.models or each.attributes.get(MODEL) in demand.models
        enough = total["cpus"] >= demand.cpu_milli and total["mem"] >= demand.mem_mb * 1000
        if not each.ineligible and models and enough and (not demand.gpus or room >= demand.gpus):
            found.add(str(each.id))
    return found


def test_slices_share_one_gpu_and_whole_gpus_are_whole() -> None:
    found = allocator(agent("a", "cpus:64;mem:65536;gpus:4"))
    assert ask(found, want("half", "cpus:1;mem:64;gpus:0.5", 2)) == [("a", (0,)), ("a", (0,))]
    assert ask(found, want("most", "cpus:1;mem:64;gpus:0.7", 2)) == [("a", (1,)), ("a", (2,))]
    assert ask(found, want("two", "cpus:1;mem:64;gpus:2")) == []
    assert ask(found, want("one", "cpus:1;mem:64;gpus:1")) == [("a", (3,))]
    assert ask(found, want("rest", "cpus:1;mem:64;gpus:0.3", 3)) == [("a", (1,)), ("a", (2,))]


def test_gpus_that_are_given_back_are_given_again() -> None:
    found = allocator(agent("a", "cpus:64;mem:65536;gpus:2"))
    found.set_want(want("w", "cpus:1;mem:64;gpus:1", 3))
    first, second = found.run(0.0).grants
    assert (first.devices, second.devices) == ((0,), (1,))
    found.release(first.key)
    assert where(found.run(1.0).grants) == [("a", (0,))]


def test_the_gpus_of_a_task_told_from_outside_are_left_alone() -> None:
    found = allocator(agent("a", "cpus:64;mem:65536;gpus:3"))
    held = Hold(
        key="t", framework_id=F, role="r", agent_id=AgentId("a"), resources=parse_resources("cpus:1;gpus:2"),
        devices=(0, 2),
    )  # fmt: skip
    found.hold(held)
    assert ask(found, want("w", "cpus:1;mem:64;gpus:1", 2)) == [("a", (1,))]


def test_a_model_is_asked_by_the_attribute_of_agents() -> None:
    box = "cpus:64;mem:65536;gpus:1"
    found = allocator(agent("a", box, "A100"), agent("b", box, "H100"), agent("c", box), agent("d", box, "V100"))
    assert ask(found, want("in", "cpus:1;gpus:1", constraints=(model(Operator.IN, "H100", "H200"),))) == [("b", (0,))]
    assert ask(found, want("like", "cpus:1;gpus:1", 3, constraints=(model(Operator.MATCH, "[AH]100"),))) == [
        ("a", (0,))
    ]
    assert ask(found, want("none", "cpus:1;gpus:1", constraints=(model(Operator.EQUAL, "T4"),))) == []
    assert ask(found, want("any", "cpus:1;gpus:1", 5)) == [("c", (0,)), ("d", (0,))]


def test_models_are_named_by_constraints_even_if_no_agent_has_them() -> None:
    there = ("A", "B")
    assert models_named([], there) == ()
    assert models_named([Constraint(field="zone", operator=Operator.EQUAL, values=("A",))], there) == ()
    assert models_named([model(Operator.IN, "B", "C")], there) == ("B", "C")
    assert models_named([model(Operator.UNEQUAL, "B")], there) == ("A",)
    assert models_named([model(Operator.IN, "B", "C"), model(Operator.UNEQUAL, "B")], there) == ("C",)
    assert models_named([model(Operator.MATCH, "X.*")], there) == NO_MODEL


def test_a_demand_is_read_from_thousandths() -> None:
    slice_of_one = Demand(cpu_milli=500, mem_mb=64_000, gpus=1, gpu_milli=250)
    assert demand_of({"cpus": 500, "mem": 64_000, "gpus": 250}, (), ()) == slice_of_one
    assert demand_of({"cpus": 1, "gpus": 3000}, (), ()) == Demand(cpu_milli=1, mem_mb=0, gpus=3, gpu_milli=WHOLE)
    assert demand_of({"cpus": 1, "disk": 7}, (), ()) == Demand(cpu_milli=1, mem_mb=0)


def test_tasks_without_gpus_keep_off_agents_with_gpus_as_long_as_others_have_room() -> None:
    agents = agent("g", "cpus:8;mem:4096;gpus:2"), agent("wide", "cpus:8;mem:4096"), agent("tight", "cpus:5;mem:4096")
    found = allocator(*agents, strategy="gpu")
    assert ask(found, want("w", "cpus:4;mem:64", 6)) == [
        ("tight", ()), ("wide", ()), ("wide", ()), ("g", ()), ("g", ()),
    ]  # fmt: skip
    default = allocator(*agents)
    assert {name for name, _ in ask(default, want("w", "cpus:4;mem:64", 2))} == {"wide", "tight"}


def test_a_want_says_how_its_agents_are_chosen_else_its_role_else_what_it_asks() -> None:
    gpus, cpus = want("w", "cpus:1;gpus:1").want, want("w", "cpus:1").want
    assert (gpus.strategy, strategy_of(gpus, ""), strategy_of(cpus, "")) == ("", "gpu", "spread")
    assert (strategy_of(gpus, "binpack"), strategy_of(cpus, "gpu")) == ("binpack", "gpu")
    stated = want("w", "cpus:1;gpus:1", strategy="random").want
    assert strategy_of(stated, "binpack") == "random"


def test_agents_come_change_and_go() -> None:
    found = allocator(agent("a", "cpus:8;mem:4096;gpus:1", "A"))
    asked = want("w", "cpus:1;mem:64;gpus:1", 40)
    assert ask(found, asked) == [("a", (0,))]
    assert ask(found) == []
    found.set_agent(agent("a", "cpus:8;mem:4096;gpus:3", "A"))
    assert ask(found) == [("a", (1,)), ("a", (2,))]
    found.set_agent(agent("b", "cpus:8;mem:4096;gpus:16", "never seen"))
    assert ask(found) == [("b", (i,)) for i in range(8)]
    found.remove_agent(AgentId("b"))
    assert ask(found) == []
    found.set_agent(agent("plain", "cpus:8;mem:4096"))
    assert ask(found) == []
    found.set_agent(agent("plain", "cpus:8;mem:4096;gpus:1"))
    assert ask(found) == [("plain", (0,))]
    for i in range(20):
        found.set_agent(agent(f"many{i}", "cpus:8;mem:4096;gpus:1"))
    assert sorted(name for name, _ in ask(found)) == sorted(f"many{i}" for i in range(20))


def test_an_agent_that_has_shrunk_below_what_runs_there_takes_nothing() -> None:
    found = allocator(agent("a", "cpus:8;mem:4096;gpus:4"))
    assert len(ask(found, want("w", "cpus:3;mem:64;gpus:1", 2))) == 2
    found.set_agent(agent("a", "cpus:4;mem:4096;gpus:1"))
    assert ask(found, want("x", "mem:64;gpus:0.5")) == []
    found.set_agent(agent("a", "cpus:8;mem:4096;gpus:4"))
    assert ask(found) == [("a", (2,))]


def test_rules_that_count_tasks_hold_at_each_pick() -> None:
    box = "cpus:64;mem:65536;gpus:4"
    unique = Constraint(field=HOSTNAME, operator=Operator.UNIQUE)
    found = allocator(*(agent(name, box) for name in "abc"))
    places = ask(found, want("w", "cpus:1;mem:64;gpus:1", 5, constraints=(unique,)))
    assert sorted(name for name, _ in places) == ["a", "b", "c"]


def test_a_soft_constraint_goes_before_what_a_placement_spoils() -> None:
    box = "cpus:64;mem:65536;gpus:2"
    found = allocator(agent("a", box, "A"), agent("b", box, "B"))
    liked = model(Operator.EQUAL, "B", weight=10)
    places = ask(found, want("w", "cpus:1;mem:64;gpus:1", 3, constraints=(liked,)))
    assert places == [("b", (0,)), ("b", (1,)), ("a", (0,))]


def test_an_agent_that_was_refused_is_left_out_until_the_filter_ends() -> None:
    box = "cpus:8;mem:4096;gpus:1"
    found = allocator(agent("a", box), agent("b", box))
    asked = want("w", "cpus:1;mem:64;gpus:1", 2)
    refused = Filter(
        framework_id=F, role="r", agent_id=AgentId("a"), resources=parse_resources(box), until_at=5.0
    )  # fmt: skip
    found.set_filters(F, "r", AgentId("a"), [refused])
    assert ask(found, asked, now=1.0) == [("b", (0,))]
    assert ask(found, now=6.0) == [("a", (0,))]


def test_ports_and_disk_count_for_gpu_wants_too() -> None:
    found = allocator(
        agent("a", "cpus:8;mem:4096;gpus:2;disk:10"), agent("b", "cpus:8;mem:4096;gpus:2;disk:100;ports:[31000-31000]")
    )
    assert ask(found, want("w", "cpus:1;mem:64;gpus:1;disk:20", 2, ports=1)) == [("b", (0,))]


def learned(found: Allocator) -> dict[int, int]:
    """How often so many thousandths of GPUs were asked, as far as is remembered."""
    usual: Counter[int] = Counter()
    for demand, count in found.view().usual:
        usual[demand.asked_milli] += count
    return dict(usual)


def test_an_instance_is_learned_once_however_often_it_is_tried_and_given_back() -> None:
    found = allocator(agent("a", "cpus:64;mem:65536;gpus:2"))
    asked = want("w", "cpus:1;mem:64;gpus:1", 3)
    found.set_want(asked)
    assert learned(found) == {1000: 3}
    first, second = found.run(0.0).grants
    found.run(1.0)
    # One instance is launched, the offer for the other declined.
    task = Hold(
        key="task", framework_id=F, role="r", agent_id=first.agent_id, resources=first.resources, want_id=WantId("w"),
        devices=first.devices, kind=HoldKind.TASK,
    )  # fmt: skip
    found.hold(task, instead_of=first.key)
    found.release(second.key)
    found.set_want(WantView(want=asked.want, framework_id=F, missing=2, since_at=0.0))
    assert learned(found) == {1000: 3}
    found.set_want(WantView(want=asked.want, framework_id=F, missing=4, since_at=0.0))
    assert learned(found) == {1000: 5}
    found.release("task")
    assert learned(found) == {1000: 5}
    found.set_want(want("cpu", "cpus:1;mem:64", 7))
    assert learned(found) == {1000: 5}


def test_what_is_usual_outlasts_a_new_resource_and_goes_along_with_a_view() -> None:
    box = "cpus:64;mem:65536;gpus:4"
    agents = agent("scarce", box, "S"), agent("common", box, "C")
    found = allocator(*agents)
    assert ask(found, want("s", "cpus:1;gpus:0.5", 4, constraints=(model(Operator.EQUAL, "S"),)))
    found.set_agent(agent("other", "cpus:1;mem:64;licences:3"))
    assert learned(found) == {500: 4}
    copy = Allocator.of(found.view())
    assert learned(copy) == {500: 4}
    asked = want("any", "cpus:1;gpus:0.5", 2)
    places = ask(copy, asked)
    assert places == ask(found, asked)
    assert {name for name, _ in places} == {"common"}


def test_without_gpus_anywhere_nothing_is_found() -> None:
    assert ask(allocator(), want("w", "cpus:1;gpus:1")) == []
    assert ask(allocator(agent("a", "cpus:8;mem:4096")), want("w", "cpus:1;gpus:1")) == []


def test_the_chooser_says_what_it_chose_and_leaves_booking_to_the_engine() -> None:
    found = allocator(agent("a", "cpus:8;mem:4096;gpus:2"))
    engine = found.engine
    chooser = GpuChooser()
    chooser.attach(engine)
    cls = engine.intern_class({"cpus": 1000, "gpus": 1000}, strategy="gpu")
    before = engine.columns().gpu.copy()
    assert [chooser.choose(cls) for _ in range(2)] == [(0, 1), (0, 1)]
    np.testing.assert_array_equal(engine.columns().gpu, before)
    engine.drop_class(cls)


def test_a_live_packer_knows_its_role() -> None:
    live = LivePacker([Supply(cpu_milli=8000, mem_mb=4096, gpus=2, model="A")])
    grant = live.place(Demand(cpu_milli=1000, mem_mb=64, gpus=1, gpu_milli=300, models=("A", "B")))
    assert grant is not None
    assert (grant.role, grant.framework_id, grant.devices) == (ROLE, FRAMEWORK, (0,))
    assert live.place(Demand(cpu_milli=1000, mem_mb=64, gpus=1, gpu_milli=300, models=("B",))) is None
    assert not live.allocator.view().wants
    live.release(grant)
    assert not live.allocator.view().holds
    live.invariants()
