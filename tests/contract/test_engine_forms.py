"""One allocator, one decision: plain Python, the arrays that are compiled, and machine code, over long random lives."""

import warnings

import msgspec
import pytest
from tests.sim.test_sim_allocator import life
from tests.unit.allocator import test_allocator_engine_modes as engines

from corral.allocator.allocator import Allocator
from corral.allocator.engine import Mode, Tuning
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
