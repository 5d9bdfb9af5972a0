"""The fast placement engine: see `engine.py`."""

from corral.allocator.engine.engine import Engine, Placements, Reasons, Tuning
from corral.allocator.engine.modes import Mode

__all__ = ["Engine", "Mode", "Placements", "Reasons", "Tuning"]
