"""The packing experiment follows the published steps: inflate, shuffle, place once, count."""

from collections import Counter
from random import Random

import pytest

from corral.allocator.packing import Demand, Supply
from corral.lib.errors import Invalid, NotFound
from corral.sim.packing import NAMES, build_packer, inflate, repeat_experiment, run_packing

GPU = Demand(cpu_milli=4000, mem_mb=1024, gpus=1, gpu_milli=1000)
HALF = Demand(cpu_milli=4000, mem_mb=1024, gpus=1, gpu_milli=500)
PLAIN = Demand(cpu_milli=8000, mem_mb=1024)
SUPPLIES = [Supply(cpu_milli=64000, mem_mb=65536, gpus=4, model="A") for _ in range(4)]


def test_a_workload_is_inflated_by_draws_of_its_own_tasks_until_enough_is_asked() -> None:
    chosen = inflate([GPU, HALF, PLAIN], 20_000, Random(3))
    asked = sum(demand.asked_milli for demand in chosen)
    assert 20_000 <= asked <= 20_500
    assert set(chosen) == {GPU, HALF, PLAIN}
    assert chosen != sorted(chosen, key=lambda demand: demand.asked_milli)
    assert Counter(inflate([GPU, HALF, PLAIN], 20_000, Random(3))) == Counter(chosen)


def test_a_workload_that_asks_enough_is_only_shuffled() -> None:
    demands = [GPU] * 5 + [PLAIN] * 5
    assert Counter(inflate(demands, 1000, Random(1))) == Counter(demands)


def test_a_workload_without_gpus_cannot_be_inflated() -> None:
    with pytest.raises(Invalid, match="none of the 1 tasks asks a GPU"):
        inflate([PLAIN], 1000, Random(1))


def test_a_run_counts_what_arrived_and_what_was_placed() -> None:
    packer = build_packer("bestfit", [Supply(cpu_milli=8000, mem_mb=4096, gpus=2)], [], Random(1))
    run = run_packing(packer, [GPU, PLAIN, HALF, GPU])
    assert [(point.arrived, point.allocated) for point in run.points] == [
        (0.5, 0.5),
        (0.5, 0.5),
        (0.75, 0.75),
        (1.25, 0.75),
    ]
    assert run.dropped == 2
    assert run.allocated_at(0.75) == 0.75
    with pytest.raises(Invalid, match="before 130%"):
        run.allocated_at(1.3)


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_runs_the_experiment_and_repeats_it_from_its_seed(name: str) -> None:
    demands = [GPU, HALF, HALF, PLAIN]
    first, again = (repeat_experiment(name, SUPPLIES, demands, 7) for _ in range(2))
    assert first == again
    assert first.points[-1].arrived >= 1.3
    assert 0.5 < first.allocated_at(1.0) <= 1.0


def test_an_unknown_strategy_is_answered_with_the_names() -> None:
    with pytest.raises(NotFound, match="bestfit"):
        build_packer("best", SUPPLIES, [], Random(1))
