"""Long random lives of the allocator: no rule is broken, and every form of the engine answers alike.

A life of one seed is lived again with `CORRAL_SEED=N`; `World` in tests/unit/allocator tells what is checked.
"""

import importlib.util
import os

import pytest
from tests.unit.allocator.world import World

from corral.allocator.engine import Mode

COMPILES = importlib.util.find_spec("numba") is not None
SEEDS = [int(os.environ["CORRAL_SEED"])] if "CORRAL_SEED" in os.environ else list(range(1000, 1060))
SHORT = SEEDS[:6]


def live(seed: int, steps: int) -> World:
    world = World(seed)
    try:
        while world.turn < steps:
            world.live(10)
            world.settle()
    except AssertionError as error:
        error.add_note(f"seed {seed}, run {world.turn}, at {world.now}: {world.log[-2]}")
        raise
    return world


@pytest.mark.parametrize("seed", SHORT)
def test_a_life_breaks_no_rule(seed: int) -> None:
    assert live(seed, 60).turn >= 60


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_life_breaks_no_rule(seed: int) -> None:
    assert live(seed, 400).turn >= 400


def answers(seed: int, mode: Mode, steps: int) -> list[object]:
    """All that an allocator says in a life: grants with their ports and GPUs, evictions, who waits, and its digests."""
    world = World(seed, mode)
    world.live(steps)
    return world.log


@pytest.mark.parametrize("seed", SHORT[:3])
def test_arrays_answer_as_plain_numbers_do(seed: int) -> None:
    assert answers(seed, Mode.ARRAYS, 40) == answers(seed, Mode.PLAIN, 40)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS[::4])
def test_arrays_answer_as_plain_numbers_do_for_long(seed: int) -> None:
    assert answers(seed, Mode.ARRAYS, 200) == answers(seed, Mode.PLAIN, 200)


if COMPILES:

    @pytest.mark.slow
    @pytest.mark.timeout(1800)  # the first of them compiles
    @pytest.mark.parametrize("seed", SEEDS[::4])
    def test_machine_code_answers_as_plain_numbers_do(seed: int) -> None:
        assert answers(seed, Mode.COMPILED, 200) == answers(seed, Mode.PLAIN, 200)
