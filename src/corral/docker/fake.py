"""Runs tasks that exist in memory alone, behind the same contract as the real ones.

Shipped, not a test's mock: the simulator, the benchmarks and whoever tests a framework run a whole cluster on it. A
`FakeNode` is the machine and outlives the runtimes that look at it, as containers outlive an agent. Commands are read
by `foresee`: `true`, `false`, `exit N`, `sleep N`, `echo WORDS`, `kill -N $$`, `trap ... TERM` and rows of these do
what they say; every other command runs until it is killed. Time is the event loop's, so a loop of virtual time runs it
without waiting.
"""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from corral.lib.clock import Clock, system_clock
from corral.lib.errors import Conflict, Failed, NotFound
from corral.model.execution import Execution, Exit, Found, Launched
from corral.model.ids import ContainerId

SIGKILL, SIGTERM = 9, 15


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a command. Units: seconds.

    Shapes: `after_s` None never ends by itself; `missing` names a command that does not exist. On SIGTERM it dies,
    ends with `stop_code` after `stop_s`, or does not care.
    """

    after_s: float | None = None
    code: int | None = None
    signal: int | None = None
    out: str = ""
    err: str = ""
    missing: str | None = None
    ignores_stop: bool = False
    stop_code: int | None = None
    stop_s: float = 0.0


RUNS_ON = Fate()

_COMMAND = re.compile(r"""(?:'[^']*'|"[^"]*"|[^;&\n'"]|(?<!&)&(?!&))+""")
"""What stands between `;`, `&&` and the ends of lines, outside of quotes."""


def foresee(argv: Sequence[str]) -> Fate:
    """What becomes of this command, by the few words that are understood."""
    if not argv:
        return RUNS_ON
    if argv[0].startswith("no-such"):
        return Fate(missing=argv[0])
    if argv[0] in ("/bin/sh", "sh") and len(argv) > 2 and argv[1] == "-c":
        return _foresee_script(argv[2])
    return _foresee_script(shlex.join(argv))


def _foresee_script(script: str) -> Fate:
    after_s, code, out, err = 0.0, 0, "", ""
    stop: dict[str, object] = {}
    try:
        shlex.split(script)
    except ValueError:
        return RUNS_ON
    for command in _COMMAND.findall(script):
        words = shlex.split(command)
        if words[:1] == ["exec"]:
            words = words[1:]
        match words:
            case []:
                continue
            case ["true" | ":"]:
                code = 0
            case ["false"]:
                code = 1
            case ["exit"]:
                break
            case ["exit", number] if number.isdigit():
                code = int(number) & 0xFF
                break
            case ["sleep", seconds] if re.fullmatch(r"\d+(\.\d+)?", seconds):
                after_s += float(seconds)
                code = 0
            case ["echo", *rest] if rest and rest[-1] == ">&2":
                err += " ".join(rest[:-1]) + "\n"
                code = 0
            case ["echo", *rest]:
                out += " ".join(rest) + "\n"
                code = 0
            case ["kill", signum, "$$"] if signum[1:].isdigit():
                return Fate(after_s=after_s, signal=int(signum[1:]), out=out, err=err, **stop)  # type: ignore[arg-type]
            case ["trap", "", "TERM"]:
                stop = {"ignores_stop": True}
            case ["trap", reaction, "TERM"] if (then := _foresee_script(reaction)).after_s is not None:
                stop = {"stop_code": then.code, "stop_s": then.after_s}
            case _:
                return Fate(out=out, err=err, **stop)  # type: ignore[arg-type]
    return Fate(after_s=after_s, code=code, out=out, err=err, **stop)  # type: ignore[arg-type]


class _FakeRun:
    __slots__ = ("ended", "execution", "exit", "fate", "launched", "signals", "timers")

    def __init__(self, execution: Execution, fate: Fate, launched: Launched) -> None:
        self.execution = execution
        self.fate = fate
        self.launched = launched
        self.exit: Exit | None = None
        self.ended = asyncio.Event()
        self.timers: list[asyncio.TimerHandle] = []
        self.signals: list[int] = []


class FakeNode:
    """A machine in memory: what runs on it, and what an experiment does to it."""

    def __init__(
        self,
        *,
        clock: Clock = system_clock,
        fate_of: Callable[[Execution], Fate] | None = None,
        start_s: float = 0.0,
        images: frozenset[str] | None = None,
    ) -> None:
        self.clock = clock
        self.fate_of = fate_of or (lambda execution: foresee(execution.argv))
        self.start_s = start_s
        self.images = images
        """The images that can be had; None has them all."""
        self.trouble: str | None = None
        """Why nothing can be started at present; what runs, runs on."""
        self.runs: dict[str, _FakeRun] = {}
        self._next_pid = 1000

    def end(self, container_id: str, *, code: int | None = None, signal: int | None = None, oom: bool = False) -> None:
        """Let a task end now, as if by itself."""
        run = self.runs.get(container_id)
        if run is None or run.exit is not None:
            return
        for timer in run.timers:
            timer.cancel()
        run.timers.clear()
        run.exit = Exit(container_id=run.execution.container_id, code=code, signal=signal, oom=oom, at=self.clock())
        run.ended.set()

    def begin(self, execution: Execution) -> Launched:
        """Errors: `Failed` as a real runtime says it: trouble, no such image, port taken, no such command."""
        there = self.runs.get(execution.container_id)
        if there is not None:
            return there.launched
        if self.trouble is not None:
            raise Failed(f"task {execution.task_id} was not started: {self.trouble}")
        docker = execution.docker
        if docker is not None and self.images is not None and docker.image not in self.images:
            raise Failed(f"image {docker.image}: not found on this node; check its name")
        fate = self.fate_of(execution)
        if fate.missing is not None:
            raise Failed(f"command {fate.missing!r} not found; check the command")
        self._check_ports(execution)
        self._next_pid += 1
        launched = Launched(container_id=execution.container_id, pid=self._next_pid, ip=self._address(execution))
        run = self.runs[execution.container_id] = _FakeRun(execution, fate, launched)
        _write_output(execution.sandbox, fate)
        if fate.after_s is not None:
            self._later(run, fate.after_s, fate.code, fate.signal)
        return launched

    def _address(self, execution: Execution) -> str | None:
        """That of the network it shares: its neighbours' there, or that of the first who comes."""
        if execution.shared is None:
            return None
        alive = (run for run in self.runs.values() if run.exit is None and run.execution.shared == execution.shared)
        neighbour = next(alive, None)
        return (
            neighbour.launched.ip
            if neighbour is not None
            else f"172.17.{self._next_pid >> 8 & 255}.{self._next_pid & 255}"
        )

    def stop(self, container_id: str, signum: int) -> None:
        """Send SIGTERM or SIGKILL."""
        run = self.runs.get(container_id)
        if run is None or run.exit is not None or (signum == SIGTERM and run.fate.ignores_stop):
            return
        if signum == SIGTERM and run.fate.stop_code is not None:
            self._later(run, run.fate.stop_s, run.fate.stop_code, None)
        else:
            self.end(container_id, signal=signum)

    def _later(self, run: _FakeRun, delay_s: float, code: int | None, signum: int | None) -> None:
        def end() -> None:
            self.end(run.execution.container_id, code=code, signal=signum)

        run.timers.append(asyncio.get_running_loop().call_later(delay_s, end))

    def _check_ports(self, execution: Execution) -> None:
        wanted = _host_ports(execution)
        for run in self.runs.values() if wanted else ():
            together = execution.shared is not None and run.execution.shared == execution.shared
            if run.exit is None and not together and (taken := wanted & _host_ports(run.execution)):
                raise Failed(f"port {min(taken)} on this host is taken by another program; free it")


def _host_ports(execution: Execution) -> set[int]:
    shared = execution.shared
    mappings = execution.port_mappings if shared is None else shared.port_mappings
    return {mapping.host_port for mapping in mappings if mapping.host_port}


def _write_output(sandbox: str, fate: Fate) -> None:
    for name, text in (("stdout", fate.out), ("stderr", fate.err)):
        if text and Path(sandbox).is_dir():
            with open(Path(sandbox, name), "a") as file:
                file.write(text)


class FakeRuntime:
    """The contract of a task runtime on a `FakeNode`. `name` is the one under which the agent shall know it."""

    def __init__(self, node: FakeNode | None = None, *, name: str = "docker") -> None:
        self.node = node or FakeNode()
        self.name = name

    async def ready(self) -> str | None:
        return self.node.trouble

    async def start(self, execution: Execution) -> Launched:
        if self.node.start_s:
            await asyncio.sleep(self.node.start_s)
        return self.node.begin(execution)

    async def wait(self, container_id: str) -> Exit:
        run = self.node.runs.get(container_id)
        if run is None:
            raise NotFound(f"container {container_id} is not known here")
        await run.ended.wait()
        assert run.exit is not None
        return run.exit

    async def kill(self, container_id: str, grace_s: float) -> None:
        run = self.node.runs.get(container_id)
        if run is None:
            return
        if grace_s > 0:
            self.node.stop(container_id, SIGTERM)
            if run.exit is None:
                waiting = asyncio.ensure_future(run.ended.wait())
                try:
                    await asyncio.wait({waiting}, timeout=grace_s)
                finally:
                    waiting.cancel()
        self.node.stop(container_id, SIGKILL)

    async def resize(self, container_id: str, cpu_milli: int, mem_mb: int | None) -> None:
        run = self.node.runs.get(container_id)
        if run is not None and run.exit is None:
            run.execution = msgspec.structs.replace(
                run.execution, cpu_milli=cpu_milli, mem_mb=run.execution.mem_mb if mem_mb is None else mem_mb
            )

    async def signal(self, container_id: str, number: int) -> None:
        run = self.node.runs.get(container_id)
        if run is None or run.exit is not None:
            raise NotFound(f"container {container_id} does not run, so that no signal reaches it")
        run.signals.append(number)

    async def recover(self) -> Sequence[Found]:
        return [
            Found(
                container_id=run.execution.container_id,
                task_id=run.execution.task_id,
                framework_id=run.execution.framework_id,
                launched=run.launched if run.exit is None else None,
                exit=run.exit,
            )
            for run in self.node.runs.values()
        ]

    async def remove(self, container_id: str) -> None:
        """Errors: `Conflict` while it runs."""
        run = self.node.runs.get(container_id)
        if run is None:
            return
        if run.exit is None:
            raise Conflict(f"container {container_id} runs; kill it before it is removed")
        del self.node.runs[container_id]

    def is_elsewhere(self, container_id: str) -> bool:
        return container_id in self.node.runs

    def exec(self, container_id: str, argv: Sequence[str], *, tty: bool) -> "FakeExec":
        return FakeExec(self.node, ContainerId(container_id), argv)

    async def close(self) -> None:
        """The node runs on."""


class FakeExec:
    """A further command: `cat` gives back what is written, all others do what `foresee` says, at once."""

    def __init__(self, node: FakeNode, container_id: ContainerId, argv: Sequence[str]) -> None:
        self._node = node
        self._container_id = container_id
        self._argv = list(argv)
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self.size: tuple[int, int] | None = None
        self._signal: int | None = None

    async def __aenter__(self) -> "FakeExec":
        """Errors: `NotFound` when there is no such task, `Conflict` when it does not run."""
        run = self._node.runs.get(self._container_id)
        if run is None:
            raise NotFound(f"container {self._container_id} is not known here")
        if run.exit is not None:
            raise Conflict(f"container {self._container_id} does not run")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._input.put_nowait(b"")

    async def output(self) -> AsyncIterator[tuple[str, bytes]]:
        if self._argv == ["cat"]:
            while data := await self._input.get():
                yield "stdout", data
            return
        fate = foresee(self._argv)
        for name, text in (("stdout", fate.out), ("stderr", fate.err)):
            if text:
                yield name, text.encode()
        while fate.after_s is None and await self._input.get():
            pass

    async def write(self, data: bytes) -> None:
        self._input.put_nowait(data)

    async def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)

    async def signal(self, number: int) -> None:
        """It ends by any."""
        self._signal = number
        self._input.put_nowait(b"")

    async def exit_code(self) -> int:
        if self._signal is not None:
            return 128 + self._signal
        fate = foresee(self._argv)
        if fate.missing is not None:
            return 127
        return fate.code if fate.code is not None else 128 + fate.signal if fate.signal is not None else 0
