"""Tasks are packed within what agents have, the same way every time, and kept costs equal freshly computed ones."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.allocator.packing import (
    WHOLE,
    Cluster,
    Demand,
    Packer,
    Placement,
    Plain,
    Ranking,
    Strategy,
    Supply,
    after,
    check_demand,
    rows_of,
    tightest,
)
from corral.allocator.packing_balance import FORGET, Balance, wanted_by_name
from corral.allocator.packing_mix import Usual
from corral.allocator.packing_published import (
    DotProduct,
    Fgd,
    Shuffled,
    bestfit,
    gpu_clustering,
    gpu_packing,
    typical,
)
from corral.lib.errors import Conflict, Invalid

NAMES = ("first-fit", "bestfit", "gpu-packing", "gpu-clustering", "dotprod", "fgd", "random", "balance")
DETERMINED = tuple(name for name in NAMES if name != "random")

SUPPLIES = st.lists(
    st.builds(
        Supply,
        cpu_milli=st.sampled_from([8_000, 64_000, 96_000]),
        mem_mb=st.sampled_from([16_384, 262_144]),
        gpus=st.sampled_from([0, 1, 2, 8]),
        model=st.sampled_from(["A", "B", "C"]),
    ),
    min_size=1,
    max_size=6,
)
MODELS = st.sampled_from([(), (), ("A",), ("A", "B"), ("none such",)])
DEMANDS = st.one_of(
    st.builds(Demand, cpu_milli=st.sampled_from([0, 500, 8_000]), mem_mb=st.sampled_from([0, 1_024, 30_000])),
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


def node(gpus: int = 2, *, cpu_milli: int = 64_000, mem_mb: int = 262_144, model: str = "A") -> Supply:
    return Supply(cpu_milli=cpu_milli, mem_mb=mem_mb, gpus=gpus, model=model)


def task(
    gpus: int = 1, gpu_milli: int = WHOLE, *, cpu_milli: int = 1_000, mem_mb: int = 1_024, models: tuple[str, ...] = ()
) -> Demand:
    return Demand(cpu_milli=cpu_milli, mem_mb=mem_mb, gpus=gpus, gpu_milli=gpu_milli if gpus else 0, models=models)


def build(name: str, supplies: list[Supply], demands: list[Demand], seed: int = 1) -> Packer:
    cluster = Cluster(supplies)
    strategies: dict[str, Strategy] = {
        "first-fit": Strategy(),
        "bestfit": Plain(bestfit),
        "gpu-packing": Plain(gpu_packing),
        "gpu-clustering": Plain(gpu_clustering),
        "dotprod": DotProduct(),
        "fgd": Fgd(cluster, Counter(demands)),
        "random": Shuffled(Random(seed)),
        "balance": Balance(cluster),
    }
    return Packer(cluster, strategies[name])


def fresh_costs(packer: Packer, demand: Demand) -> np.ndarray:
    """Computed at once for every agent, nothing kept."""
    return Packer(packer.cluster, packer.strategy).costs(demand)


def by_hand(cluster: Cluster, agent: int, demand: Demand) -> bool:
    """Whether the task fits, written as one would say it."""
    if cluster.cpu_free[agent] < demand.cpu_milli or cluster.mem_free[agent] < demand.mem_mb:
        return False
    if demand.gpus and demand.models and cluster.models[cluster.model[agent]] not in demand.models:
        return False
    free = [milli for milli in cluster.gpu_free[agent].tolist() if milli >= demand.gpu_milli]
    return demand.gpus == 0 or len(free) >= demand.gpus


@pytest.mark.parametrize("name", NAMES)
@given(supplies=SUPPLIES, demands=st.lists(DEMANDS, max_size=40), data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_capacity_is_exceeded_and_nothing_that_fits_is_refused(
    name: str, supplies: list[Supply], demands: list[Demand], data: st.DataObject
) -> None:
    packer = build(name, supplies, demands)
    cluster, running = packer.cluster, []
    for demand in demands:
        fits = [by_hand(cluster, agent, demand) for agent in range(len(cluster))]
        placement = packer.place(demand)
        assert (placement is not None) == any(fits)
        if placement is not None:
            assert fits[placement.agent]
            assert len(set(placement.gpus)) == demand.gpus
            running.append(placement)
        if running and data.draw(st.integers(0, 3)) == 0:
            packer.release(running.pop(data.draw(st.integers(0, len(running) - 1))))
        cluster.invariants()
        assert cluster.gpu_milli - cluster.gpu_free.sum() == sum(p.demand.asked_milli for p in running)
    for placement in running:
        packer.release(placement)
    assert (cluster.cpu_free == cluster.cpu).all()
    assert (cluster.mem_free == cluster.mem).all()
    assert cluster.gpu_free.sum() == cluster.gpu_milli
    assert cluster.kinds.sum() == 0


@pytest.mark.parametrize("name", DETERMINED)
@given(supplies=SUPPLIES, demands=st.lists(DEMANDS, min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_kept_costs_equal_a_full_recomputation(name: str, supplies: list[Supply], demands: list[Demand]) -> None:
    packer = build(name, supplies, demands)
    for demand in demands:
        packer.place(demand)
        other = demands[len(packer.cluster.models) % len(demands)]
        for asked in (demand, other):
            np.testing.assert_array_equal(packer.costs(asked), fresh_costs(packer, asked))


@pytest.mark.parametrize("name", NAMES)
@given(supplies=SUPPLIES, demands=st.lists(DEMANDS, max_size=30))
@settings(max_examples=10, deadline=None)
def test_equal_input_is_packed_equally(name: str, supplies: list[Supply], demands: list[Demand]) -> None:
    first, second = build(name, supplies, demands), build(name, supplies, demands)
    assert [first.place(demand) for demand in demands] == [second.place(demand) for demand in demands]


@given(supplies=SUPPLIES, demands=st.lists(DEMANDS, min_size=1, max_size=30))
@settings(max_examples=15, deadline=None)
def test_costs_are_kept_right_when_the_list_of_changes_overflows(supplies: list[Supply], demands: list[Demand]) -> None:
    long = build("bestfit", supplies, demands)
    short = Packer(Cluster(supplies), Plain(bestfit), most_touches=2)
    assert [short.place(demand) for demand in demands] == [long.place(demand) for demand in demands]


def test_a_slice_lies_within_one_gpu() -> None:
    packer = build("first-fit", [node(2)], [])
    for _ in range(2):
        assert packer.place(task(1, 600)) is not None
    assert packer.cluster.gpu_free.tolist() == [[400, 400]]
    assert packer.place(task(1, 600)) is None
    assert packer.place(task(1, 400)) is not None


def test_slices_share_the_gpu_that_is_fullest() -> None:
    packer = build("first-fit", [node(3)], [])
    packer.place(task(1, 300))
    packer.place(task(1, 800))
    placement = packer.place(task(1, 200))
    assert placement is not None
    assert placement.gpus == (1,)
    assert packer.cluster.gpu_free.tolist() == [[700, 0, 1000]]


def test_several_gpus_are_several_whole_gpus_of_one_agent() -> None:
    packer = build("first-fit", [node(2), node(4)], [])
    packer.place(task(1, 100))
    placement = packer.place(task(2))
    assert placement is not None
    assert (placement.agent, placement.gpus) == (1, (0, 1))
    assert packer.place(task(4)) is None


def test_a_task_runs_only_on_the_models_it_names() -> None:
    packer = build("first-fit", [node(1, model="A"), node(1, model="B"), node(1, model="C")], [])
    agents = [packer.place(task(models=("B", "C"))) for _ in range(3)]
    assert [p.agent if p else None for p in agents] == [1, 2, None]


def test_models_do_not_matter_without_gpus() -> None:
    packer = build("first-fit", [node(0, model="A")], [])
    assert packer.place(task(0, models=("B",))) is not None


def test_agents_without_gpus_run_what_asks_none() -> None:
    packer = build("balance", [node(0), node(0)], [])
    assert packer.place(task(1, 10)) is None
    assert packer.place(task(0)) is not None


def test_an_empty_cluster_takes_nothing() -> None:
    assert build("bestfit", [], []).place(task(0)) is None


def test_a_booking_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    cluster = Cluster([node(2, cpu_milli=4_000)])
    for wrong in (
        Placement(demand=task(1), agent=0),
        Placement(demand=task(2), agent=0, gpus=(0, 0)),
        Placement(demand=task(0, cpu_milli=5_000), agent=0),
        Placement(demand=task(1, models=("B",)), agent=0, gpus=(0,)),
    ):
        with pytest.raises(Conflict):
            cluster.take(wrong)
    assert cluster.gpu_free.tolist() == [[1000, 1000]]
    assert cluster.cpu_free.tolist() == [4_000]


def test_a_task_is_given_back_once() -> None:
    cluster = Cluster([node(2)])
    placement = Placement(demand=task(1, 500), agent=0, gpus=(1,))
    cluster.take(placement)
    cluster.give_back(placement)
    with pytest.raises(Conflict, match="give back each task once"):
        cluster.give_back(placement)


@pytest.mark.parametrize(
    "wrong",
    [
        Demand(cpu_milli=-1, mem_mb=0),
        Demand(cpu_milli=0, mem_mb=-1),
        Demand(cpu_milli=0, mem_mb=0, gpus=-1),
        Demand(cpu_milli=0, mem_mb=0, gpu_milli=5),
        Demand(cpu_milli=0, mem_mb=0, gpus=1),
        Demand(cpu_milli=0, mem_mb=0, gpus=1, gpu_milli=1001),
    ],
)
def test_a_demand_that_means_nothing_is_refused(wrong: Demand) -> None:
    with pytest.raises(Invalid):
        check_demand(wrong)
    with pytest.raises(Invalid):
        build("bestfit", [node()], []).place(wrong)


def test_bestfit_takes_the_agent_with_the_least_left() -> None:
    packer = build("bestfit", [node(8, cpu_milli=128_000), node(2), node(4)], [])
    costs = packer.costs(task(1, 500, cpu_milli=4_000))
    assert costs.tolist() == pytest.approx([0.5 * 124 / 128 + 0.5 * 7.5 / 8, 30 / 128 + 1.5 / 16, 30 / 128 + 3.5 / 16])
    assert costs.argmin() == 1


def test_gpu_packing_prefers_shared_gpus_then_agents_in_use() -> None:
    packer = build("gpu-packing", [node(2), node(2), node(2)], [])
    packer.cluster.take(Placement(demand=task(1), agent=1, gpus=(0,)))
    packer.cluster.take(Placement(demand=task(1, 300), agent=2, gpus=(0,)))
    assert packer.costs(task(1, 500)).tolist() == [-31, -49, -93]
    assert packer.costs(task(1)).tolist() == [-31, -49, -49]
    assert packer.costs(task(0)).tolist() == [0, 0, 0]


def test_gpu_clustering_keeps_tasks_of_one_kind_together() -> None:
    packer = build("gpu-clustering", [node(4), node(4), node(4), node(4)], [])
    for agent, first, second in ((1, task(1, 500), task(1, 500)), (2, task(1, 500), task(1)), (3, task(1), task(1))):
        packer.cluster.take(Placement(demand=first, agent=agent, gpus=(0,)))
        packer.cluster.take(Placement(demand=second, agent=agent, gpus=(1,)))
    order = np.argsort(packer.costs(task(1, 100)), kind="stable").tolist()
    assert order == [1, 2, 0, 3]


def test_fgd_avoids_leaving_a_rest_that_typical_tasks_cannot_use() -> None:
    usual = [task(1, 500)] * 10
    packer = build("fgd", [node(2), node(2)], usual)
    packer.cluster.take(Placement(demand=task(1, 500), agent=0, gpus=(0,)))
    placement = packer.place(task(1, 500))
    assert placement is not None
    assert placement.gpus == (0,)
    small = packer.place(task(1, 100))
    assert small is not None
    assert small.gpus == (1,) or small.agent == 1


def test_typical_demands_are_the_most_frequent() -> None:
    often, seldom, never = task(1, 810), task(1, 470), task(1, 50)
    assert typical({seldom: 30, never: 1, often: 69}) == {often: 69, seldom: 30}


def test_what_is_usable_counts_places_that_also_get_cpu_and_mem() -> None:
    cluster = Cluster([node(2, cpu_milli=10_000, mem_mb=100_000), node(2, cpu_milli=64_000, mem_mb=1_000)])
    usual = Usual(cluster, {task(1, 400, cpu_milli=4_000, mem_mb=1_000): 3, task(2, cpu_milli=0, mem_mb=0): 1})
    rows = rows_of(cluster, np.array([0, 1]))
    assert usual.usable(rows).tolist() == [3 * 1000 + 2000, 3 * 400 + 2000]


def test_what_is_unusable_is_the_rest_too_small_or_everything_without_cpu() -> None:
    cluster = Cluster([node(2, cpu_milli=10_000)])
    cluster.take(Placement(demand=task(1, 700, cpu_milli=0), agent=0, gpus=(0,)))
    rows = rows_of(cluster, np.array([0]))
    fits, starved, without = task(1, 400), task(1, 100, cpu_milli=11_000), task(0)
    assert Usual(cluster, {fits: 1}).unusable(rows).tolist() == [300]
    assert Usual(cluster, {starved: 1}).unusable(rows).tolist() == [1300]
    assert Usual(cluster, {fits: 2, starved: 1, without: 1}).unusable(rows).tolist() == [2 * 300 + 1300 + 1300]


def test_usual_demands_count_only_on_models_that_will_do() -> None:
    cluster = Cluster([node(1, model="A"), node(1, model="B")])
    usual = Usual(cluster, {task(1, models=("A",)): 2, task(1): 1})
    assert usual.usable(rows_of(cluster, np.array([0, 1]))).tolist() == [3000, 1000]


def test_balance_spares_a_model_that_others_ask_for_by_name() -> None:
    packer = build("balance", [node(4, model="scarce"), node(4, model="common")], [])
    packer.place(task(1, models=("scarce",)))
    placements = [packer.place(task(1)) for _ in range(4)]
    assert [p.agent for p in placements if p] == [1, 1, 1, 1]


def test_how_much_a_model_is_wanted_by_name_is_a_part_of_its_gpus() -> None:
    cluster = Cluster([node(2, model="A"), node(6, model="B")])
    wanted = wanted_by_name(cluster, {task(1, models=("A",)): 1, task(1): 3, task(1, models=("A", "B")): 4})
    assert wanted.tolist() == [1 / 8 * 8 / 2, 0.0]


def test_balance_forgets_what_was_usual_long_ago() -> None:
    cluster = Cluster([node(4, model="scarce"), node(4, model="common")])
    strategy = Balance(cluster)
    packer = Packer(cluster, strategy)
    strategy.arrived(task(1, models=("scarce",)))
    assert packer.costs(task(1)).argmin() == 1
    for _ in range(3 * FORGET):
        strategy.arrived(task(1, 500, models=("common",)))
    assert packer.costs(task(1)).argmin() == 0


def test_balance_goes_on_with_another_cluster_as_if_it_had_known_it_all_along() -> None:
    small = Cluster([node(4, model="scarce")])
    large = Cluster([node(4, model="scarce"), node(4, model="common")])
    moved, stayed = Balance(small), Balance(large)
    for strategy in (moved, stayed):
        strategy.arrived(task(1, models=("scarce",)), 20)
        strategy.arrived(task(0), 1000)
    moved.bind(large)
    assert moved.usual == stayed.usual == {task(1, models=("scarce",)): 20}
    costs = [Packer(large, strategy).costs(task(1)) for strategy in (moved, stayed)]
    np.testing.assert_array_equal(*costs)
    assert costs[0].argmin() == 1


def test_many_arrivals_at_once_are_forgotten_as_if_they_had_come_one_by_one() -> None:
    strategy = Balance(Cluster([node(4)]))
    strategy.arrived(task(1, 300), 10)
    strategy.arrived(task(1, 500), 8 * FORGET)
    assert set(strategy.usual) == {task(1, 500)}
    assert FORGET // 4 <= strategy.usual[task(1, 500)] < FORGET


def test_another_agent_stands_in_a_row_if_there_is_room_for_its_gpus_and_model() -> None:
    cluster = Cluster([node(2, model="A"), node(1, model="B")])
    ranking = Ranking(cluster, Plain(bestfit))
    assert ranking.costs(task(2)).tolist()[1] == np.inf
    assert cluster.describe(1, node(2, cpu_milli=32_000, model="A"))
    ranking.note([1])
    assert ranking.costs(task(2)).argmin() == 1
    assert not cluster.describe(0, node(4, model="A"))
    assert not cluster.describe(0, node(2, model="C"))
    assert cluster.gpu_milli == 4000
    cluster.invariants()


def test_balance_keeps_the_cpu_that_idle_gpus_need() -> None:
    rich, poor = node(2, cpu_milli=64_000), node(2, cpu_milli=24_000)
    packer = build("balance", [poor, rich], [])
    packer.place(task(1, cpu_milli=12_000))
    packer.release(Placement(demand=task(1, cpu_milli=12_000), agent=1, gpus=(0,)))
    placement = packer.place(task(0, cpu_milli=8_000))
    assert placement is not None
    assert placement.agent == 1


def test_the_tightest_gpus_are_the_first_of_those_with_the_least_free() -> None:
    gpu = np.array([[500, 1000, 400, 500], [1000, 1000, 1000, 0]])
    assert tightest(gpu, task(1, 450)).tolist() == [[0], [0]]
    assert tightest(gpu[1:], task(2)).tolist() == [[0, 1]]


def test_a_trial_booking_leaves_the_cluster_alone() -> None:
    cluster = Cluster([node(2)])
    rows = rows_of(cluster, np.array([0]))
    then = after(rows, task(1, 300, cpu_milli=4_000), np.array([[1]]))
    assert then.gpu.tolist() == [[1000, 700]]
    assert then.cpu.tolist() == [60_000]
    assert cluster.gpu_free.tolist() == [[1000, 1000]]
