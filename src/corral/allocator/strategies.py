"""The ways to choose among agents that fit, by name, and the order that looks like chance.

`spread` (for services) puts siblings apart and takes the roomiest, `binpack` (for batch) the tightest, `least-tasks`
the one that runs least, `aligned` the one whose free resources lie along the demand, `random` any, `gpu` the one whose
GPUs stay most useful. Source: Swarm's strategies; Grandl et al., "Multi-resource packing", SIGCOMM'14, for `aligned`.
"""

STRATEGIES = ("spread", "binpack", "random", "least-tasks", "aligned", "gpu")


def mix(value: int) -> int:
    """A well-spread number below 2**40 for this one; equal input, equal output. Source: splitmix64's finish."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 24
