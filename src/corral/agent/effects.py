"""What the agent wants done; `shell.py` performs each, and says how it went by an input.

| effect            | performed by                         | answered by                          |
|-------------------|--------------------------------------|--------------------------------------|
| `Connect`         | the link to the master               | `Connected`, `Disconnected`, `Ordered` |
| `Reconnect`       | the link                             | `Disconnected`                       |
| `Send`            | the link, all of a turn in one write |                                      |
| `Recover`         | the runtime                          | `Recovered`                          |
| `CheckRuntime`    | the runtime                          | `RuntimeChecked`                     |
| `Fetch`           | sandbox and fetcher                  | `Fetched`                            |
| `CancelFetch`     | the shell                            |                                      |
| `Start`           | sandbox, then the runtime            | `Started`, `StartFailed`             |
| `Abort`           | the shell, for a start under way     | `Started`, `StartFailed` of the start |
| `Wait`            | the runtime                          | `Exited`, `WaitFailed`               |
| `Kill`            | the runtime                          | `KillFailed`, or the end by `Wait`   |
| `Resize`          | the runtime                          |                                      |
| `Probe`           | `probes.py`, or the runtime for a command | `Probed`                        |
| `TellExecutor`    | the shell, on the executor's stream  |                                      |
| `CloseExecutor`   | the shell                            |                                      |
| `Remove`          | the runtime                          |                                      |
| `Discard`         | the runtime: kill, then remove       | `DiscardFailed`                      |
| `ScanSandboxes`   | the sandboxes                        | `Scanned`                            |
| `MeasureDisk`     | the sandboxes                        | `DiskMeasured`                       |
| `MeasureUsage`    | the process table                    | `UsageMeasured`                      |
| `ReadClock`       | the node's steady clock              | `ClockRead`                          |
| `KeepContact`     | the contact file                     |                                      |
| `DeleteSandbox`   | the sandboxes                        |                                      |
| `DeleteVolume`    | `volumes.py`                         | `VolumeDeleted`                      |
"""

from corral.model.execution import Execution
from corral.model.executor import Event
from corral.model.health import HealthCheck
from corral.model.ids import ContainerId
from corral.model.orders import Report
from corral.model.task import Uri
from corral.runtime.core import Effect


class Connect(Effect, frozen=True):
    """Start to look for the leading master, and keep a session with it from now on."""


class Reconnect(Effect, frozen=True):
    """End the session, if any, and dial again after `delay_s`."""

    why: str
    delay_s: float = 0.0


class Send(Effect, frozen=True):
    report: Report


class Recover(Effect, frozen=True):
    """Ask a runtime what it holds."""

    runtime: str
    why: str = ""


class CheckRuntime(Effect, frozen=True):
    runtime: str


class Fetch(Effect, frozen=True):
    """Make the sandbox and fetch into it, one after the other. Shapes: the files shall belong to `user`."""

    container_id: ContainerId
    sandbox: str
    uris: tuple[Uri, ...]
    user: str | None
    why: str = ""


class CancelFetch(Effect, frozen=True):
    container_id: ContainerId
    why: str = ""


class Start(Effect, frozen=True):
    """Make the sandbox, the `directories` in it and the `volumes` if they are missing, then start.

    Shapes: absolute paths.
    """

    runtime: str
    execution: Execution
    directories: tuple[str, ...] = ()
    owner: str | None = None
    why: str = ""
    volumes: tuple[str, ...] = ()


class Abort(Effect, frozen=True):
    """Take back a start that has not ended yet; one that has just ended stands."""

    container_id: ContainerId
    why: str = ""


class Wait(Effect, frozen=True):
    """Shapes: `result` is a path in the `sandbox`; what stands there after a success comes with the `Exited`."""

    runtime: str
    container_id: ContainerId
    sandbox: str = ""
    result: str = ""


class Kill(Effect, frozen=True):
    runtime: str
    container_id: ContainerId
    grace_s: float
    why: str = ""


class Resize(Effect, frozen=True):
    """Let a running container weigh as much, and have as much memory, as what runs in it. Units: as `Execution`."""

    runtime: str
    container_id: ContainerId
    cpu_milli: int
    mem_mb: int | None
    why: str = ""


class Probe(Effect, frozen=True):
    """Look once whether the task at `address` is healthy; given up when its container is removed."""

    runtime: str
    container_id: ContainerId
    index: int
    check: HealthCheck
    address: str


class TellExecutor(Effect, frozen=True):
    """Put an event onto an executor's stream; nothing when the stream has gone."""

    stream: str
    event: Event


class CloseExecutor(Effect, frozen=True):
    """End the stream after what is already on it."""

    stream: str
    why: str = ""


class Remove(Effect, frozen=True):
    """Let the runtime forget an ended container; the sandbox stays."""

    runtime: str
    container_id: ContainerId


class Discard(Effect, frozen=True):
    """End and remove a container that no task stands behind."""

    runtime: str
    container_id: ContainerId
    why: str = ""


class ScanSandboxes(Effect, frozen=True):
    pass


class MeasureDisk(Effect, frozen=True):
    pass


class MeasureUsage(Effect, frozen=True):
    """Shapes: containers with the process that each was started as."""

    tasks: tuple[tuple[ContainerId, int], ...]


class ReadClock(Effect, frozen=True):
    """Ask the clock that nobody sets."""


class KeepContact(Effect, frozen=True):
    """Say to those who end tasks without this agent when a master last heard of it.

    Units: `at` by the steady clock of the boot `boot`.
    """

    boot: str
    at: float


class DeleteSandbox(Effect, frozen=True):
    path: str
    why: str = ""


class DeleteVolume(Effect, frozen=True):
    """Delete the data of a destroyed volume."""

    path: str
    why: str = ""
