"""The kernel: who may use which machine, decided by a pure core and carried out by a shell."""

from corral.master.core import MasterCore
from corral.master.spec import MasterConfig

__all__ = ["MasterConfig", "MasterCore"]
