"""One allocator, one decision: plain Python, the arrays that are compiled, and machine code, over long random lives."""

import warnings

import msgspec
import pytest
from tests.sim.test_sim_allocator import life
from tests.unit.allocator import test_allocator_engine_modes as engines

from corral.allocator.allocator import Allocator
from corral.allocator.engine import Mode, Tuning
from corral.allocator.view import Allocation
from corral.sim.simulate import Plan, simulate

FORMS = [Mode.ARRAYS, Mode.COMPILED]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", FORMS)
@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.slow), 13])
def test_every_form_of_the_allocator_lives_alike(mode: Mode, seed: int) -> None:
    workload, plan = life(seed, steps=300), Plan(seed=seed, check_every=50)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)  # arrays tell of a number too large for them
        here = simulate(workload, plan, Allocator(mode=mode))
    assert here.waits.placed > 100
    assert msgspec.json.encode(here) == msgspec.json.encode(simulate(workload, plan, Allocator()))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("tuning", [Tuning(), Tuning(walk=0), Tuning(walk=2, remember=False), Tuning(retest=False)])
def test_machine_code_decides_as_plain_python(tuning: Tuning) -> None:
    here = engines.run(Mode.COMPILED, 9, nodes=40, turns=120, tuning=tuning, cache=True)
    assert here == engines.run(Mode.PLAIN, 9, nodes=40, turns=120, tuning=tuning)


class Turning(Allocator):
    """Becomes arrays before it decides for the fiftieth time."""

    runs = 0

    def run(self, now: float, seed: int = 0, most: int = 0) -> Allocation:
        self.runs += 1
        if self.runs == 50:
            self.use(Mode.ARRAYS)
            self.invariants()
        return super().run(now, seed, most)


def test_an_allocator_that_takes_another_form_amid_its_life_lives_alike() -> None:
    workload, plan = life(14, steps=120), Plan(seed=14, check_every=20)
    turning = Turning()
    here = simulate(workload, plan, turning)
    assert (turning.mode, turning.runs > 100) == (Mode.ARRAYS, True)
    assert msgspec.json.encode(here) == msgspec.json.encode(simulate(workload, plan, Allocator()))
