"""The fast placement engine: see `engine.py`."""

from corral.allocator.engine.engine import Engine, Placements, Tuning
from corral.allocator.engine.modes import Mode
from corral.allocator.engine.readings import Counts, Held, Reasons
from corral.allocator.engine.tallying import AGENT, Rule, Tally

__all__ = ["AGENT", "Counts", "Engine", "Held", "Mode", "Placements", "Reasons", "Rule", "Tally", "Tuning"]
