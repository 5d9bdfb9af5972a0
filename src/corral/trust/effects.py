"""What the keeper of trust wants done, beside records, replies, timers and notes. Performed by `trust/shell.py`.

| effect  | what happens                             | comes back as |
|---------|------------------------------------------|---------------|
| `Issue` | the authority signs a node's certificate | `Issued`      |
| `Recheck` | whoever is connected is looked at again |               |
"""

from corral.runtime.core import Effect


class Issue(Effect, frozen=True, gc=False):
    """Sign what is asked for in `request`, a PEM, for these names. Units: seconds."""

    ask: int
    name: str
    names: tuple[str, ...]
    request: bytes
    life_s: float
    now: float


class Recheck(Effect, frozen=True, gc=False):
    """Cut off those under way who would not be let in any more."""
