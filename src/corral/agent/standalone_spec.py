"""What the agent remembers and is asked of standalone containers: those that no framework stands behind.

A standalone container is two records, as a task is: what was asked for, written once, and how far it has come. Keys:
`containers/ID`, `container-runs/ID`.
"""

import msgspec

from corral.agent.spec import Stage
from corral.model.execution import Exit, Launched
from corral.model.ids import ContainerId
from corral.model.task import TaskInfo

# Records.


class StandaloneRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What was asked for. Shapes: `info` bears the container's id; `inner` is that by which its runtime knows it."""

    info: TaskInfo
    inner: ContainerId
    runtime: str
    sandbox: str


class StandaloneRun(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How far it has come. Shapes: `exit` once it has ended; `doomed` once it is to be ended."""

    stage: Stage
    launched: Launched | None = None
    exit: Exit | None = None
    doomed: bool = False


# Commands. Errors of all but `LaunchContainer`: `NotFound` when there is no standalone container of this id.


class LaunchContainer(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Answered when it runs, by whether it was made: False when there is a container of this id already.

    Errors: `Invalid` for what cannot be meant or has no runtime here; `Unavailable` while the runtime is not ready or
    no master knows this agent; `Failed` when it did not start, and then there is none.
    """

    info: TaskInfo


class EndContainer(msgspec.Struct, frozen=True, gc=False, tag=True):
    """End it at once, with all that it has started, also while it is only about to run."""

    id: ContainerId


class AwaitContainer(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Answered when it has ended, by its `Exit`."""

    id: ContainerId


class RemoveContainer(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Forget one that has ended, with its sandbox. Errors: `Conflict` while it has not."""

    id: ContainerId


StandaloneCommand = LaunchContainer | EndContainer | AwaitContainer | RemoveContainer
