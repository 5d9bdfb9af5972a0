"""Which of the agents that fit is taken: one score per agent, the lowest wins, the first of equals.

Each strategy is one expression that serves a single agent and a whole column of agents alike. Source: Swarm's
strategies; `spread` is for services, `binpack` for batch.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.int64]
N = TypeVar("N", int, Column)

STRATEGIES = ("spread", "binpack", "random", "least-tasks")

FREE_STEPS = (1 << 20) - 1
"""How finely the free part of an agent is told apart."""

MOST_TASKS = (1 << 20) - 1
"""Where counting tasks stops mattering."""

SIBLING = 1 << 40
"""What one sibling adds under `spread`: more than any number of other tasks."""

SPARE_GPU = 1 << 61
"""What GPUs that the instance has no use for add, under every strategy: more than anything else."""


def score(strategy: str, tasks: N, free: N, chance: N) -> N:
    """How little an agent suits, less than `SIBLING`.

    Shapes: `tasks` 0..MOST_TASKS, `free` 0..FREE_STEPS, `chance` 0..SIBLING-1; an unknown strategy counts as `spread`.
    """
    match strategy:
        case "binpack":
            return free + 0
        case "random":
            return chance + 0
        case "least-tasks":
            return tasks + 0
        case _:
            return tasks * (FREE_STEPS + 1) + (FREE_STEPS - free)


def mix(value: int) -> int:
    """A well-spread number below `SIBLING` for this one; equal input, equal output. Source: splitmix64's finish."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 24
