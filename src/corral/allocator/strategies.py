"""The ways to choose among agents that fit, by name, and the order that looks like chance.

`spread` (for services) puts siblings apart and takes the roomiest, `binpack` (for batch) the tightest, `least-tasks`
the one that runs least, `aligned` the one whose free resources lie along the demand, `random` any, `gpu` the one whose
GPUs stay most useful. Source: Swarm's strategies; Grandl et al., "Multi-resource packing", SIGCOMM'14, for `aligned`.
"""

import numpy as np

Numbers = np.ndarray[tuple[int], np.dtype[np.uint64]]

STRATEGIES = ("spread", "binpack", "random", "least-tasks", "aligned", "gpu")


def mix(values: Numbers) -> Numbers:
    """A well-spread number below 2**40 for each; equal input, equal output. Source: splitmix64's finish."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (values ^ (values >> np.uint64(31))) >> np.uint64(24)
