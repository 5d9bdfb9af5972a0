"""Fair shares, fragmentation, waiting times and evenly spaced looks, against figures worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.allocator.view import AgentView
from corral.model.constraints import Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resource, Resources, normal
from corral.sim.books import Books
from corral.sim.metrics import Fragmentation, Look, Sampler, Waits, dominant, fair_shares, waits_of
from corral.sim.workload import Batch, Fate

TOTAL = {"cpus": 9000, "mem": 18000}


def bundle(**milli: int) -> Resources:
    return normal(Resource(name=name, milli=value) for name, value in milli.items())


def agent(name: str, model: str = "", **milli: int) -> AgentView:
    attributes = {"gpu_model": model} if model else {}
    return AgentView(id=AgentId(name), hostname=name, total=bundle(**milli), attributes=attributes)


def batch(count: int, *constraints: Constraint, **milli: int) -> Batch:
    want = Want(id=WantId("w"), role="r", count=count, resources=bundle(**milli), constraints=constraints)
    return Batch(at=0.0, framework_id=FrameworkId("f"), want=want, fates=(Fate(),) * count)


# Fair shares.


def test_two_roles_meet_where_drf_says_they_do() -> None:
    """The example of the DRF paper: tasks of 1 CPU, 4 GB against tasks of 3 CPUs, 1 GB end at two thirds each."""
    demands = {"a": {"cpus": 1000 * 1000, "mem": 4000 * 1000}, "b": {"cpus": 3000 * 1000, "mem": 1000 * 1000}}
    found = fair_shares(demands, {}, TOTAL)
    assert found == pytest.approx({"a": 2 / 3, "b": 2 / 3})


def test_a_role_that_asks_little_leaves_the_rest_to_the_others_by_weight() -> None:
    demands = {"small": {"cpus": 900}, "a": {"cpus": 90_000}, "b": {"cpus": 90_000}}
    found = fair_shares(demands, {"b": 2.0}, TOTAL)
    assert found == pytest.approx({"small": 0.1, "a": 0.3, "b": 0.6})


def test_roles_of_a_tree_share_the_weight_of_their_parent() -> None:
    much = {"cpus": 90_000}
    found = fair_shares({"a/x": much, "a/y": much, "b": much}, {"a/y": 3.0}, TOTAL)
    assert found == pytest.approx({"a/x": 0.125, "a/y": 0.375, "b": 0.5})


def test_a_parent_with_work_of_its_own_counts_as_one_more_child() -> None:
    much = {"cpus": 90_000}
    found = fair_shares({"a": much, "a/x": much}, {"a": 5.0, "a/x": 3.0}, TOTAL)
    assert found == pytest.approx({"a": 0.25, "a/x": 0.75})


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "a/x", "a/y", "b/z"]),
        st.fixed_dictionaries({"cpus": st.integers(0, 20_000), "mem": st.integers(0, 40_000)}),
    ),
    st.dictionaries(st.sampled_from(["a", "b", "a/x", "b/z"]), st.floats(0.1, 10)),
)
def test_fair_shares_fill_up_what_there_is_and_never_more(
    demands: dict[str, dict[str, int]], weights: dict[str, float]
) -> None:
    found = fair_shares(demands, weights, TOTAL)
    used = dict.fromkeys(TOTAL, 0.0)
    for role, share in found.items():
        wanted = dominant(demands[role], TOTAL)
        assert share <= wanted + 1e-9
        for name in TOTAL:
            used[name] += demands[role][name] / TOTAL[name] * (share / wanted if wanted else 0.0)
    assert all(part <= 1.0 + 1e-6 for part in used.values())
    for role, share in found.items():
        full = [name for name in TOTAL if used[name] > 1.0 - 1e-6 and demands[role][name]]
        assert share >= dominant(demands[role], TOTAL) - 1e-6 or full, "only a full resource stops a role"


# Fragmentation.


def test_gpus_beside_no_cpus_are_wasted_and_parts_of_gpus_for_those_who_ask_whole_ones() -> None:
    books = Books()
    books.set_agent(agent("busy", cpus=1000, mem=1000, gpus=2000))
    books.set_agent(agent("free", cpus=8000, mem=8000, gpus=2000))
    half = Want(id=WantId("h"), role="r", count=1, resources=bundle(gpus=400))
    books.start("t1", half, AgentId("free"), bundle(gpus=400), (1,))
    # Whole GPUs with 2 CPUs: of 3.6 free GPUs, one on `free` is usable.
    whole = Fragmentation([batch(3, cpus=2000, gpus=1000)])
    assert whole.measure(books)["gpus"] == pytest.approx(2.6 / 3.6, abs=1e-6)
    # A quarter of those who ask take slices of 0.6, which both GPUs on `free` still have, and both on `busy`.
    mixed = Fragmentation([batch(3, cpus=2000, gpus=1000), batch(1, cpus=1000, gpus=600)])
    assert mixed.measure(books)["gpus"] == pytest.approx(0.75 * 2.6 / 3.6, abs=1e-6)


def test_resources_that_only_some_agents_have_are_counted_whenever_these_come() -> None:
    books = Books()
    for n in range(9):
        books.set_agent(agent(f"a{n}", **{"cpus": 1000, f"kind{n % 4}": 10}, **({"gpus": 1000 * n} if n > 4 else {})))
    assert books.total == {"cpus": 9000, "kind0": 30, "kind1": 20, "kind2": 20, "kind3": 20, "gpus": 26000}
    assert {name: int(column.sum()) for name, column in books.free.items()} == books.total
    assert int(books.gpus.sum()) == 26000
    books.remove_agent(AgentId("a8"))
    assert int(books.gpus.sum()) == books.total["gpus"] == 18000
    books.check({})


def test_gpus_of_a_model_that_is_not_asked_are_wasted() -> None:
    books = Books()
    books.set_agent(agent("p100", "P100", cpus=8000, gpus=1000))
    books.set_agent(agent("t4", "T4", cpus=8000, gpus=3000))
    only_t4 = Constraint(field="gpu_model", operator=Operator.IN, values=("T4",))
    measured = Fragmentation([batch(1, only_t4, cpus=1000, gpus=1000)])
    assert measured.measure(books)["gpus"] == 0.25
    books.set_agent(agent("p100", "T4", cpus=8000, gpus=1000))
    assert measured.measure(books)["gpus"] == 0.0


def test_cpus_are_wasted_where_the_median_demand_finds_no_memory() -> None:
    books = Books()
    books.set_agent(agent("thin", cpus=3000, mem=100))
    books.set_agent(agent("fat", cpus=1000, mem=9000))
    measured = Fragmentation([batch(2, cpus=500, mem=1000), batch(1, cpus=8000, mem=1)])
    assert measured.measure(books) == {"cpus": 0.75, "gpus": None}


def test_nothing_free_is_nothing_wasted() -> None:
    assert Fragmentation([batch(1, cpus=1)]).measure(Books()) == {"cpus": None, "gpus": None}


# Waiting times and looks.


def test_waiting_times_are_ranked() -> None:
    found = waits_of([float(n) for n in range(100)])
    assert found == Waits(placed=100, mean=49.5, p50=50.0, p90=90.0, p99=99.0, most=99.0)
    assert waits_of([]) == Waits(placed=0)
    assert waits_of([3.0]) == Waits(placed=1, mean=3.0, p50=3.0, p90=3.0, p99=3.0, most=3.0)


def look(running: int) -> Look:
    return Look(running=running, waiting=0, allocated={}, fragmentation={}, shares={})


def test_a_look_serves_all_instants_until_something_happens() -> None:
    sampler = Sampler(10.0, 1.0, 100)
    assert not sampler.due(10.0)
    sampler.add(12.5, look(1))
    sampler.add(14.0, look(2))
    sampler.last(14.5, look(3))
    series = sampler.series(())
    assert series.at == (10.0, 11.0, 12.0, 13.0, 14.0, 14.5)
    assert series.running == (1, 1, 1, 2, 3, 3)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200), st.integers(2, 50))
def test_there_are_never_more_looks_than_asked_and_they_stay_in_order(steps: list[float], most: int) -> None:
    sampler = Sampler(0.0, 1.0, most)
    now = 0.0
    for number, step in enumerate(steps):
        now += step
        sampler.add(now, look(number))
    sampler.last(now, look(len(steps)))
    series = sampler.series(())
    assert len(series.at) <= most + 2
    assert list(series.at) == sorted(series.at)
    assert list(series.running) == sorted(series.running)
    assert series.running[-1] == len(steps)
