"""Virtual time passes, instances wait, run and end, and whatever an allocator does wrong is noticed."""

from pathlib import Path
from random import Random

import msgspec
import pytest
from first_fit import FirstFit

from corral.allocator.view import AgentView, Allocation, Grant, View
from corral.lib.errors import Failed, Invalid, NotFound
from corral.model.constraints import Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resource, Resources, normal, ports
from corral.model.role import RoleSettings
from corral.sim.compare import Asked, as_json, compare, kind_of, load
from corral.sim.results import Result
from corral.sim.simulate import Plan, simulate
from corral.sim.trace import (
    AgentCame,
    AgentLeft,
    Arrived,
    Begin,
    Ended,
    Event,
    RoleSet,
    RoleUnset,
    Started,
    Withdrawn,
    write_trace,
)
from corral.sim.workload import Fate, Workload, cut, from_trace, inflate

F = FrameworkId("f")


def bundle(**milli: int) -> Resources:
    return normal(Resource(name=name, milli=value) for name, value in milli.items())


def came(at: float, name: str = "a1", ineligible: str = "", **milli: int) -> AgentCame:
    view = AgentView(id=AgentId(name), hostname=name, total=bundle(**milli), ineligible=ineligible)
    return AgentCame(at=at, agent=view)


def arrived(at: float, name: str, cpus: int = 1000, count: int = 1, run_s: float | None = 10.0) -> Arrived:
    want = Want(id=WantId(name), role="r", count=count, resources=bundle(cpus=cpus))
    return Arrived(at=at, framework_id=F, want=want, run_s=run_s)


def run(*events: Event, allocator: FirstFit | None = None, **plan: int) -> Result:
    return simulate(from_trace((Begin(), *events)), Plan(**plan), allocator or FirstFit())  # type: ignore[arg-type]


def test_what_does_not_fit_waits_until_something_ends() -> None:
    found = run(came(0.0, cpus=2000), arrived(1.0, "w", count=3))
    assert (found.waits.placed, found.counts.ended, found.never_placed) == (3, 3, 0)
    assert (found.waits.p50, found.waits.most) == (0.0, 10.0)
    assert found.last_at == 21.0
    assert found.peak_allocated == {"cpus": 1.0}


def test_what_never_fits_is_counted_to_the_end() -> None:
    found = run(came(0.0, cpus=2000), arrived(1.0, "huge", cpus=3000), arrived(2.0, "w"))
    assert (found.waits.placed, found.never_placed, found.roles[0].never_placed) == (1, 1, 1)


def test_an_agent_that_comes_later_takes_what_waits() -> None:
    found = run(came(0.0, ineligible="draining", cpus=2000), arrived(1.0, "w"), came(5.0, cpus=2000))
    assert found.waits.most == 4.0
    assert found.counts.ended == 1


def test_what_runs_on_an_agent_that_goes_is_lost() -> None:
    events = [came(0.0, cpus=2000), arrived(1.0, "w", count=2), AgentLeft(at=3.0, agent_id=AgentId("a1"))]
    found = run(*events, arrived(4.0, "late"))
    assert (found.counts.lost, found.counts.ended, found.never_placed) == (2, 0, 1)


def test_withdrawn_instances_leave_their_line_or_end_where_they_were_placed() -> None:
    taken_back = Withdrawn(at=4.0, framework_id=F, want_id=WantId("w"), count=2)
    found = run(came(0.0, cpus=2000), arrived(1.0, "w", count=3, run_s=None), taken_back)
    assert (found.counts.withdrawn, found.counts.ended, found.waits.placed) == (1, 1, 2)


def test_what_is_withdrawn_as_it_arrives_never_was() -> None:
    found = run(came(0.0, cpus=2000), arrived(1.0, "w"), Withdrawn(at=1.0, framework_id=F, want_id=WantId("w")))
    assert (found.counts.withdrawn, found.waits.placed, found.never_placed) == (1, 0, 0)


def test_an_evicted_instance_runs_its_whole_time_again() -> None:
    class Evicting(FirstFit):
        def run(self, now: float, seed: int = 0, most: int = 0) -> Allocation:
            if now == 5.0 and not self.evict_next and len(self.seeds) == 1:
                self.evict_next = [next(iter(self.holds))]
            return super().run(now, seed, most)

    found = run(came(0.0, cpus=2000), arrived(1.0, "w"), arrived(5.0, "x"), allocator=Evicting())
    assert (found.counts.evicted, found.waits.placed, found.counts.ended) == (1, 3, 2)
    assert found.last_at == 15.0
    assert found.roles[0].evicted == 1


def test_a_want_that_arrives_again_grows_and_one_of_another_shape_is_told_apart() -> None:
    allocator = FirstFit()
    found = run(came(0.0, cpus=500), arrived(1.0, "w"), arrived(2.0, "w", count=2), arrived(3.0, "w", cpus=600),
                allocator=allocator)  # fmt: skip
    missing = {want_id: view.missing for (_, want_id), view in allocator.wants.items()}
    assert missing == {"w": 3, "w#2": 1}
    assert found.never_placed == 4


def test_roles_are_told_to_the_allocator_and_measured_against_their_fair_share() -> None:
    allocator = FirstFit()
    heavy = RoleSet(at=0.0, name="r", settings=RoleSettings(weight=3.0))
    other = Want(id=WantId("o"), role="other", count=8, resources=bundle(cpus=1000))
    found = run(
        came(0.0, cpus=8000), heavy, arrived(1.0, "w", count=8),
        Arrived(at=1.0, framework_id=F, want=other, run_s=10.0), arrived(9.0, "tail"), allocator=allocator,
    )  # fmt: skip
    assert allocator.roles["r"].weight == 3.0
    by_role = {one.role: one for one in found.roles}
    # First come, first served: the allocator of this test knows no fairness, and it shows.
    assert (by_role["r"].share, by_role["other"].share) == pytest.approx((1.0, 0.0), abs=0.01)
    assert (by_role["r"].fair, by_role["other"].fair) == pytest.approx((0.75, 0.25), abs=0.01)
    assert found.unfairness == pytest.approx(0.25, abs=0.01)


def test_a_role_that_is_unset_is_forgotten() -> None:
    allocator = FirstFit()
    role = RoleSet(at=0.0, name="r", settings=RoleSettings(weight=3.0))
    run(role, RoleUnset(at=0.5, name="r"), came(0.0, cpus=1000), arrived(1.0, "w"), allocator=allocator)
    assert allocator.roles == {}


def test_equal_seeds_give_equal_bytes_and_every_run_of_the_allocator_a_seed_of_its_own() -> None:
    events = [came(0.0, cpus=2000), *(arrived(float(n), f"w{n}") for n in range(1, 30))]
    allocators = [FirstFit(), FirstFit()]
    first, second = (run(*events, allocator=each, seed=3) for each in allocators)
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
    assert allocators[0].seeds == allocators[1].seeds
    assert len(set(allocators[0].seeds)) == len(allocators[0].seeds) > 20


def test_a_policy_is_the_strategy_of_every_want() -> None:
    class Watching(FirstFit):
        strategies: set[str] = set()

        def set_want(self, view: object) -> None:
            self.strategies.add(view.want.strategy)  # type: ignore[attr-defined]
            super().set_want(view)  # type: ignore[arg-type]

    workload = from_trace((Begin(), came(0.0, cpus=2000), arrived(1.0, "w")))
    assert simulate(workload, Plan(policy="binpack"), Watching()).policy == "binpack"
    assert Watching.strategies == {"binpack"}


class Cheating(FirstFit):
    """Grants what it was told to grant."""

    def __init__(self, **wrong: object) -> None:
        super().__init__()
        self._wrong = wrong

    def run(self, now: float, seed: int = 0, most: int = 0) -> Allocation:
        found = super().run(now, seed, most)
        return Allocation(grants=tuple(msgspec.structs.replace(each, **self._wrong) for each in found.grants))

    def _fits(self, agent_id: AgentId, view: object) -> bool:
        return True


@pytest.mark.parametrize(
    ("allocator", "said"),
    [
        (Cheating(), "a1 with cpus 1 but only 0.5 is free"),
        (Cheating(agent_id=AgentId("a9")), "on agent a9, which is not there"),
        (Cheating(want_id=WantId("w9")), "to want w9, which wants nothing"),
        (Cheating(resources=bundle(cpus=1)), "with cpus 0.001 but 1 was asked"),
    ],
)
def test_a_placement_that_breaks_a_law_ends_the_simulation(allocator: Cheating, said: str) -> None:
    with pytest.raises(Failed, match=said):
        run(came(0.0, cpus=500), arrived(1.0, "w"), allocator=allocator)


def test_a_placement_on_an_agent_that_takes_nothing_ends_the_simulation() -> None:
    with pytest.raises(Failed, match="takes nothing new: it is draining"):
        run(came(0.0, ineligible="draining", cpus=9000), arrived(1.0, "w"), allocator=Cheating())


def test_a_placement_against_a_constraint_ends_the_simulation() -> None:
    wants = arrived(1.0, "w").want
    elsewhere = Constraint(field="@hostname", operator=Operator.UNEQUAL, values=("a1",))
    want = msgspec.structs.replace(wants, constraints=(elsewhere,))
    with pytest.raises(Failed, match=r"which @hostname != a1 forbids"):
        run(came(0.0, cpus=9000), Arrived(at=1.0, framework_id=F, want=want), allocator=Cheating())


def test_two_slices_of_more_than_one_gpu_end_the_simulation() -> None:
    wants = [Want(id=WantId(f"w{n}"), role="r", count=1, resources=bundle(gpus=600)) for n in (1, 2)]
    events = [Arrived(at=float(n), framework_id=F, want=want) for n, want in enumerate(wants)]

    class OneGpu(Cheating):
        def _grant(self, view: object, agent_id: AgentId) -> Grant:
            return msgspec.structs.replace(super()._grant(view, agent_id), devices=(0,))  # type: ignore[arg-type]

    with pytest.raises(Failed, match=r"whose GPUs \(0,\) have not that much left"):
        run(came(0.0, gpus=2000), *events, allocator=OneGpu())


def test_ports_that_are_taken_end_the_simulation() -> None:
    view = AgentView(id=AgentId("a1"), hostname="a1", total=normal((Resource(name="cpus", milli=9000), ports((1, 9)))))
    given = normal((Resource(name="cpus", milli=1000), ports((4, 4))))
    with pytest.raises(Failed, match=r"with ports \(\(4, 4\),\) but only \(\(1, 3\), \(5, 9\)\) are free"):
        run(AgentCame(at=0.0, agent=view), arrived(1.0, "w"), arrived(2.0, "x"), allocator=Cheating(resources=given))


def test_an_allocator_that_forgets_a_hold_is_found_out() -> None:
    class Forgetful(FirstFit):
        def view(self) -> View:
            found = super().view()
            return View(agents=(), holds=found.holds[1:])

    with pytest.raises(Failed, match="on agent a1 but the allocator counts"):
        run(came(0.0, cpus=2000), arrived(1.0, "w", run_s=None), allocator=Forgetful())


def test_an_allocator_that_never_has_enough_is_stopped() -> None:
    class Endless(FirstFit):
        def run(self, now: float, seed: int = 0, most: int = 0) -> Allocation:
            return Allocation(more=True)

    with pytest.raises(Failed, match="still more to do after"):
        run(came(0.0, cpus=1000), arrived(1.0, "w"), allocator=Endless())


# What a workload is made of.


def test_starts_and_ends_become_the_fates_of_the_instances_in_order() -> None:
    def started(at: float, task: str, want_id: str | None = "w") -> Started:
        return Started(
            at=at, framework_id=F, task=task, agent_id=AgentId("a1"), role="r",
            resources=normal((*bundle(cpus=500), ports((1, 3)))), want_id=WantId(want_id) if want_id else None,
        )  # fmt: skip

    found = from_trace(
        (
            Begin(source="s"), arrived(1.0, "w", count=3, run_s=None), started(2.0, "t1"), started(3.0, "t2"),
            Withdrawn(at=4.0, framework_id=F, want_id=WantId("w"), count=5), Ended(at=6.0, framework_id=F, task="t2"),
            started(7.0, "alone", None), Ended(at=9.5, framework_id=F, task="alone"),
            Ended(at=10.0, framework_id=F, task="unknown"),
        )
    )  # fmt: skip
    wanted, alone = found.batches
    assert wanted.fates == (Fate(None), Fate(3.0), Fate(None, 4.0))
    assert (alone.at, alone.fates) == (7.0, (Fate(2.5),))
    assert (alone.want.id, alone.want.ports, alone.want.resources) == ("task/alone", 3, bundle(cpus=500))


def workload(count: int) -> Workload:
    return from_trace((Begin(), came(0.0, cpus=2000), *(arrived(float(n), f"w{n}", count=2) for n in range(count))))


def test_a_limit_takes_the_first_instances() -> None:
    found = cut(workload(10), 5)
    assert found.instances == 5
    assert [(batch.want.id, batch.want.count) for batch in found.batches] == [("w0", 2), ("w1", 2), ("w2", 1)]


def test_an_inflated_workload_has_more_of_the_same_in_order() -> None:
    before = workload(10)
    found = inflate(before, 1.5, Random(1))
    assert found == inflate(before, 1.5, Random(1))
    assert found != inflate(before, 1.5, Random(2))
    assert len(found.batches) == 15
    assert [batch.at for batch in found.batches] == sorted(batch.at for batch in found.batches)
    assert len({batch.want.id for batch in found.batches}) == 15
    with pytest.raises(Invalid, match=r"inflated 0.5 times; give 1 to 1000"):
        inflate(before, 0.5, Random(1))


# Files.

NODES = "name,cpu_milli,memory_mib,gpu,model\nn1,8000,1000,2,T4\nn2,4000,1000,0,\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,creation_time,deletion_time,scheduled_time\n"


def written(folder: Path, pods: str, nodes: str = NODES) -> Asked:
    (folder / "nodes.csv").write_text(nodes)
    (folder / "pods.csv").write_text(PODS + pods)
    return Asked(trace=folder / "pods.csv", nodes=folder / "nodes.csv")


def test_pods_run_from_their_scheduling_or_creation_to_their_deletion(tmp_path: Path) -> None:
    asked = written(tmp_path, "p2,1,1,0,0,,LS,5,9,\np1,1,1,1,460,T4|P4,BE,2,9,4\np3,1,1,2,1000,,,7,,\n")
    found = load(asked, dict)
    assert [(b.want.id, b.at, b.fates, b.want.role) for b in found.batches] == [
        ("p1", 2.0, (Fate(5.0),), "BE"), ("p2", 5.0, (Fate(4.0),), "LS"), ("p3", 7.0, (Fate(None),), "no-qos"),
    ]  # fmt: skip
    slice_, none, whole = (batch.want for batch in found.batches)
    assert slice_.resources == bundle(cpus=1, mem=1000, gpus=460)
    assert slice_.constraints == (Constraint(field="gpu_model", operator=Operator.IN, values=("P4", "T4")),)
    assert none.resources == bundle(cpus=1, mem=1000)
    assert whole.resources == bundle(cpus=1, mem=1000, gpus=2000)
    agents = [fact.agent for fact in found.facts if isinstance(fact, AgentCame)]
    assert [(a.id, a.attributes) for a in agents] == [("n1", {"gpu_model": "T4"}), ("n2", {})]


def test_pods_without_times_come_one_a_second_and_run_for_ever(tmp_path: Path) -> None:
    found = load(written(tmp_path, "p1,1,1,0,0,,,,,\np2,1,1,0,0,,,,9,\n"), dict)
    assert {batch.want.role for batch in found.batches} == {"no-qos"}
    assert [(batch.at, batch.fates) for batch in found.batches] == [(1.0, (Fate(None),)), (2.0, (Fate(None),))]


def test_the_role_of_a_pod_may_be_its_app(tmp_path: Path) -> None:
    asked = written(tmp_path, "p1,1,1,0,0,,LS,1,2,\n")
    asked.trace.write_text(asked.trace.read_text().replace("qos", "app").replace("LS", "train"))
    by_app = msgspec.structs.replace(asked, role_by="app")
    assert load(by_app, dict).batches[0].want.role == "train"
    with pytest.raises(Invalid, match="names no qos for any of its 1 pods; use --role-by app"):
        load(asked, dict)


def test_nodes_replace_the_agents_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "life.trace"
    gone = AgentLeft(at=2.0, agent_id=AgentId("a1"))
    write_trace(path, (Begin(), came(0.0, cpus=1000), arrived(1.0, "w"), gone))
    (tmp_path / "nodes.csv").write_text(NODES)
    found = load(Asked(trace=path, nodes=tmp_path / "nodes.csv"), dict)
    assert [fact.agent.id for fact in found.facts if isinstance(fact, AgentCame)] == ["n1", "n2"]
    assert len(found.facts) == 2


@pytest.mark.parametrize(
    ("pods", "nodes", "said"),
    [
        ("", NODES, "nothing arrives in"),
        ("p1,1,1,0,0,,LS,1,2,\n", NODES.splitlines()[0] + "\n", "no agent comes in"),
        ("p1,1,1,0,0,,LS,1,2,\n" * 2, NODES, "names p1 twice"),
        ("p1,1,1,0,0,,LS,1,2,\n", NODES + "n1,1,1,0,\n", "names n1 twice"),
        ("p1,1,1,0,0,,-LS,1,2,\n", NODES, "must not have a level that starts with a dash"),
        ("p1,1,x,0,0,,LS,1,2,\n", NODES, "line 2 column memory_mib is 'x'"),
    ],
)
def test_files_that_cannot_be_simulated_say_why(tmp_path: Path, pods: str, nodes: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        load(written(tmp_path, pods, nodes), dict)


def test_pods_need_nodes_and_every_file_must_be_there(tmp_path: Path) -> None:
    asked = written(tmp_path, "p1,1,1,0,0,,LS,1,2,\n")
    with pytest.raises(Invalid, match="names no agents; add --nodes FILE"):
        load(msgspec.structs.replace(asked, nodes=None), dict)
    with pytest.raises(NotFound, match="no trace file at"):
        load(msgspec.structs.replace(asked, trace=tmp_path / "nowhere"), dict)
    with pytest.raises(NotFound, match="no trace file at"):
        load(msgspec.structs.replace(asked, nodes=tmp_path / "nowhere"), dict)
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8bnot really")
    with pytest.raises(Invalid, match="get the file anew"):
        kind_of(tmp_path / "broken.gz")


def test_policies_are_compared_on_equal_terms_and_clocks_are_kept_apart(tmp_path: Path) -> None:
    asked = written(tmp_path, "".join(f"p{n},1000,10,0,0,,LS,{n},{n + 30},\n" for n in range(50)))
    asked = msgspec.structs.replace(asked, policies=("spread", "binpack", "spread"))
    steps: dict[str, int] = {}

    def advance(policy: str, done: int) -> None:
        steps[policy] = steps.get(policy, 0) + done

    found = [as_json(compare(asked, load(asked, dict), FirstFit, advance)) for _ in range(2)]
    assert steps == {"spread": 200, "binpack": 200}, "each instance is placed once and ends once, in both comparisons"
    assert [one["policy"] for one in found[0]["runs"]] == ["spread", "binpack"]
    measured = [each.pop("measured") for each in found]
    assert [one["policy"] for one in measured[0]["runs"]] == ["spread", "binpack"]
    assert measured[0]["hardware"]
    assert msgspec.json.encode(found[0]) == msgspec.json.encode(found[1])
    with pytest.raises(Invalid, match="there is no policy 'best'; there are spread, binpack"):
        compare(msgspec.structs.replace(asked, policies=("best",)), load(asked, dict), FirstFit)
