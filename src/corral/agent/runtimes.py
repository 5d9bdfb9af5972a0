"""The contract of everything that can run a task: the Docker Engine, plain supervised processes, and fakes of them.

The agent's shell holds them by name and knows nothing else of them; one contract suite is passed by all. A runtime
remembers nothing that the agent could not find again after a restart: `recover` looks at what really runs.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from corral.model.execution import Execution, Exit, Found, Launched


class TaskRuntime(Protocol):
    name: str

    async def ready(self) -> str | None:
        """None when tasks can be started, else the reason and what to do about it. Never raises, never hangs."""

    async def start(self, execution: Execution) -> Launched:
        """Start it; when this returns the task's own process runs.

        A second start of the same container id finds the first instead of doubling it.
        Errors: `Failed` with a reason a user understands (no such image, port taken, command not found).
        """

    async def wait(self, container_id: str) -> Exit:
        """Return when the task has ended, also when it ended long ago. An outage of the runtime is not an end.

        Errors: `NotFound` when nobody knows of it any more.
        """

    async def kill(self, container_id: str, grace_s: float) -> None:
        """SIGTERM to everything of the task, SIGKILL after the grace. Returns when both are sent or it is gone."""

    async def resize(self, container_id: str, cpu_milli: int, mem_mb: int | None) -> None:
        """Give what runs there another weight of processor and another memory limit; None leaves the limit alone.

        Nothing happens when it has ended. Errors: `Failed` when it cannot be done.
        """

    async def signal(self, container_id: str, number: int) -> None:
        """Send a signal to the task's own process, and to that alone.

        Errors: `NotFound` when it does not run; `Failed` when it cannot be sent.
        """

    async def recover(self) -> Sequence[Found]:
        """All that this agent ever started here and that has not been removed, running or ended."""

    async def remove(self, container_id: str) -> None:
        """Forget an ended task; its sandbox stays. Nothing happens when it is gone."""

    def is_elsewhere(self, container_id: str) -> bool:
        """Whether the processes of a task it runs are not surely this machine's: then their use cannot be measured."""

    def exec(self, container_id: str, argv: Sequence[str], *, tty: bool) -> "ExecSession":
        """Run a further command inside the task."""

    async def close(self) -> None:
        """Let go of connections. Tasks run on."""


class ExecSession(Protocol):
    """A command run inside a task, as an async context manager: leaving it ends the command."""

    async def __aenter__(self) -> "ExecSession": ...
    async def __aexit__(self, *_: object) -> None: ...

    def output(self) -> AsyncIterator[tuple[str, bytes]]:
        """Pairs of `stdout` or `stderr` and bytes, until the command ends."""

    async def write(self, data: bytes) -> None:
        """Feed the command's standard input; empty data closes it."""

    async def resize(self, rows: int, columns: int) -> None:
        """Give the terminal this size. Before the session is entered: the size with which it begins."""

    async def signal(self, number: int) -> None:
        """Send a signal to the command. Once that has ended by it or after it, what it has started ends too.

        Nothing happens when it has ended before. Errors: `Conflict` when its process is out of reach.
        """

    async def exit_code(self) -> int: ...
