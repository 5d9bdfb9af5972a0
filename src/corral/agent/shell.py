"""Performs the agent's effects on the link, the runtimes and the sandboxes, and says by an input how each went.

Rules: whatever fails with words becomes an input with these words; nothing here decides what comes of it. A start can
be taken back only through the shell, which therefore remembers those under way.
"""

import asyncio
import glob
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec

from corral.agent import effects as fx
from corral.agent import volumes
from corral.agent.fetcher import Fetcher
from corral.agent.link import Link
from corral.agent.nested import NestedContainers
from corral.agent.probes import Prober
from corral.agent.results import read_result
from corral.agent.runtimes import ExecSession, TaskRuntime
from corral.agent.sandbox import LATEST, Sandboxes
from corral.agent.secrets import SecretFiles
from corral.agent.spec import (
    ClockRead,
    DiscardFailed,
    DiskMeasured,
    Exited,
    Fetched,
    KillFailed,
    MeasuredTask,
    Probed,
    Recovered,
    RuntimeChecked,
    Scanned,
    Started,
    StartFailed,
    TaskView,
    UsageMeasured,
    VolumeDeleted,
    WaitFailed,
)
from corral.agent.streams import ExecutorStreams
from corral.agent.usage import measure_usage
from corral.lib.clock import read_boot_id, steady_clock
from corral.lib.contact import ContactFile
from corral.lib.errors import CorralError, Failed, NotFound, Unavailable
from corral.lib.log import get_logger
from corral.model.execution import Execution, Exit, Launched
from corral.model.orders import Report

log = get_logger("agent")

READY_TIMEOUT_S = 15.0
RECOVER_TIMEOUT_S = 120.0
TAKE_DOWN_TIMEOUT_S = 60.0

EXECUTOR_TOKEN = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"  # noqa: S105  the name of a variable

Perform = Callable[[Any], Awaitable[Any] | None]

Mint = Callable[[str, str, str], str]
"""Makes the token of an executor from the ids of its framework, itself and its container."""


class AgentShell:
    """The doing half of one agent. Shapes: `runtimes` by their names; without `sandboxes` or `fetcher` no directory is
    made and nothing can be fetched, which is enough for runtimes that only pretend.
    """

    def __init__(
        self,
        runtimes: Mapping[str, TaskRuntime],
        link: Link,
        sandboxes: Sandboxes | None = None,
        fetcher: Fetcher | None = None,
        mint: Mint | None = None,
        secrets: SecretFiles | None = None,
        contact: ContactFile | None = None,
    ) -> None:
        self._contact = contact
        self._mint = mint
        self.runtimes = runtimes
        self.sandboxes = sandboxes
        self.secrets = secrets
        self._link = link
        self._fetcher = fetcher
        self._unsent: list[Report] = []
        self._boot = read_boot_id()
        self._alive: set[str] = set()
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, asyncio.Task[Launched]] = {}
        self._aborted: dict[str, str] = {}
        self._prober = Prober(self._exec)
        self._probes: dict[str, set[asyncio.Task[Probed]]] = {}
        self.executors = ExecutorStreams()
        self.nested = NestedContainers()
        self._performers: dict[type, Perform] = {
            fx.Send: self._send,
            fx.Connect: lambda effect: self._link.connect(),
            fx.Reconnect: lambda effect: self._link.reconnect(effect.why, effect.delay_s),
            fx.Recover: self._recover,
            fx.CheckRuntime: self._check_runtime,
            fx.Fetch: self._begin_fetch,
            fx.CancelFetch: self._cancel_fetch,
            fx.Start: self._begin_start,
            fx.Abort: self._abort,
            fx.Wait: self._begin_wait,
            fx.Kill: self._kill,
            fx.Resize: self._resize,
            fx.Probe: self._begin_probe,
            fx.TellExecutor: lambda effect: self.executors.tell(effect.stream, effect.event),
            fx.CloseExecutor: lambda effect: self.executors.close(effect.stream),
            fx.Remove: self._begin_remove,
            fx.Discard: self._discard,
            fx.ScanSandboxes: self._scan,
            fx.MeasureDisk: self._measure_disk,
            fx.MeasureUsage: self._measure_usage,
            fx.ReadClock: self._read_clock,
            fx.KeepContact: self._keep_contact,
            fx.DeleteSandbox: self._delete_sandbox,
            fx.DeleteVolume: self._delete_volume,
        }

    # Performing.

    def perform(self, effect: Any) -> Awaitable[Any] | None:
        return self._performers[effect.__class__](effect)

    def flush(self) -> None:
        if self._unsent:
            reports, self._unsent = self._unsent, []
            self._link.send(reports)

    async def close(self) -> None:
        """Let go of connections; every task runs on."""
        if self._fetcher is not None:
            await self._fetcher.close()
        await self.nested.close()
        await self._prober.close()
        for runtime in self.runtimes.values():
            await runtime.close()

    def _send(self, effect: fx.Send) -> None:
        self._unsent.append(effect.report)

    def _runtime(self, name: str) -> TaskRuntime:
        runtime = self.runtimes.get(name)
        if runtime is None:
            raise Failed(f"this agent has no {name or 'such'} runtime; start it with --runtime {name or 'NAME'}")
        return runtime

    # Runtimes.

    async def _recover(self, effect: fx.Recover) -> Recovered:
        try:
            runtime = self._runtime(effect.runtime)
            why = await self._ask_ready(runtime)
            if why is not None:
                return Recovered(effect.runtime, (), why)
            async with asyncio.timeout(RECOVER_TIMEOUT_S):
                return Recovered(effect.runtime, tuple(await runtime.recover()))
        except TimeoutError:
            return Recovered(
                effect.runtime, (), f"{effect.runtime} did not say within {RECOVER_TIMEOUT_S:g} s what runs"
            )
        except (CorralError, OSError) as error:
            return Recovered(effect.runtime, (), _words(error))

    async def _check_runtime(self, effect: fx.CheckRuntime) -> RuntimeChecked:
        return RuntimeChecked(effect.runtime, await self._ask_ready(self._runtime(effect.runtime)))

    async def _ask_ready(self, runtime: TaskRuntime) -> str | None:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return await runtime.ready()
        except TimeoutError:
            return f"{runtime.name} did not answer within {READY_TIMEOUT_S:g} s; look whether its daemon hangs"

    async def _read_clock(self, effect: fx.ReadClock) -> ClockRead:
        return ClockRead(steady_clock(), self._boot)

    def _keep_contact(self, effect: fx.KeepContact) -> None:
        if self._contact is None:
            return
        try:
            self._contact.write(effect.boot, effect.at)
        except OSError as error:
            why = f"{_words(error)}; tasks that may not outlive the contact are ended"
            log.warning("contact not kept", path=self._contact.path, why=why)

    # Fetching.

    def _begin_fetch(self, effect: fx.Fetch) -> Awaitable[Fetched | None]:
        self._alive.add(effect.container_id)
        fetch = self._fetches[effect.container_id] = asyncio.ensure_future(self._fetch(effect))
        return self._follow_fetch(effect, fetch)

    async def _fetch(self, effect: fx.Fetch) -> None:
        if self.sandboxes is not None:
            await self.sandboxes.make(effect.sandbox, effect.user)
        if self._fetcher is None:
            raise Failed(f"this agent fetches nothing; leave out {effect.uris[0].value}")
        await self._fetcher.fetch(effect.uris, effect.sandbox, effect.user)

    async def _follow_fetch(self, effect: fx.Fetch, fetch: "asyncio.Task[None]") -> Fetched | None:
        try:
            await _settle(fetch)
        finally:
            self._fetches.pop(effect.container_id, None)
        if fetch.cancelled():
            return None
        error = fetch.exception()
        if error is None:
            return Fetched(effect.container_id)
        self._alive.discard(effect.container_id)
        return Fetched(effect.container_id, _words(_expected(error)))

    def _cancel_fetch(self, effect: fx.CancelFetch) -> None:
        self._alive.discard(effect.container_id)
        fetch = self._fetches.get(effect.container_id)
        if fetch is not None:
            fetch.cancel()

    # Starting.

    def _begin_start(self, effect: fx.Start) -> Awaitable[Started | StartFailed]:
        container_id = effect.execution.container_id
        self._alive.add(container_id)
        start = self._starts[container_id] = asyncio.ensure_future(self._start(effect))
        return self._follow_start(effect, start)

    async def _start(self, effect: fx.Start) -> Launched:
        runtime = self._runtime(effect.runtime)
        if self.sandboxes is not None:
            await self.sandboxes.make(effect.execution.sandbox, effect.owner, effect.directories)
            await volumes.make(effect.volumes, effect.owner)
        return await runtime.start(self._with_token(await self._fill(effect.execution)))

    async def _fill(self, execution: Execution) -> Execution:
        if self.secrets is not None:
            return await self.secrets.fill(execution, execution.user)
        named = execution.docker is not None and execution.docker.pull_config
        if execution.secrets or execution.secret_files or named:
            raise Failed("this agent has no place for secrets; leave them out")
        return execution

    def _with_token(self, execution: Execution) -> Execution:
        """An executor of a framework's own gets what it has to show to this agent; it is in no record and no view."""
        environment = dict(execution.environment)
        if self._mint is None or environment.get("MESOS_HTTP_COMMAND_EXECUTOR") != "0":
            return execution
        token = self._mint(execution.framework_id, environment["MESOS_EXECUTOR_ID"], execution.container_id)
        environment[EXECUTOR_TOKEN] = token
        return msgspec.structs.replace(execution, environment=tuple(environment.items()))

    async def _follow_start(self, effect: fx.Start, start: "asyncio.Task[Launched]") -> Started | StartFailed:
        container_id = effect.execution.container_id
        try:
            await _settle(start)
        finally:
            self._starts.pop(container_id, None)
        if start.cancelled():
            why = self._aborted.pop(container_id, "the start was taken back")
            self._alive.discard(container_id)
            await self._take_down(effect.runtime, container_id)
            return StartFailed(container_id, why, aborted=True)
        self._aborted.pop(container_id, None)
        error = start.exception()
        if error is None:
            return Started(start.result())
        self._alive.discard(container_id)
        return StartFailed(container_id, _words(_expected(error)))

    def _abort(self, effect: fx.Abort) -> None:
        start = self._starts.get(effect.container_id)
        if start is not None and not start.done():
            self._aborted[effect.container_id] = effect.why
            start.cancel()

    async def _take_down(self, name: str, container_id: str) -> str | None:
        """End and remove a container; returns why it did not work."""
        try:
            runtime = self._runtime(name)
            async with asyncio.timeout(TAKE_DOWN_TIMEOUT_S):
                await runtime.kill(container_id, 0.0)
                try:
                    await runtime.wait(container_id)
                except NotFound:
                    return None
                await runtime.remove(container_id)
        except TimeoutError:
            return f"{name} did not end it within {TAKE_DOWN_TIMEOUT_S:g} s"
        except (CorralError, OSError) as error:
            return _words(error)
        return None

    # Running and ending.

    def _begin_wait(self, effect: fx.Wait) -> Coroutine[Any, Any, Exited | WaitFailed]:
        self._alive.add(effect.container_id)
        return self._wait(effect)

    async def _wait(self, effect: fx.Wait) -> Exited | WaitFailed:
        try:
            exit = await self._runtime(effect.runtime).wait(effect.container_id)
        except NotFound as error:
            self._alive.discard(effect.container_id)
            return WaitFailed(effect.container_id, error.message, gone=True)
        except (CorralError, OSError) as error:
            return WaitFailed(effect.container_id, _words(error))
        self._alive.discard(effect.container_id)
        if not effect.result or exit.code != 0:
            return Exited(exit)
        result, why = await asyncio.to_thread(read_result, effect.sandbox, effect.result)
        return Exited(exit, result, why)

    async def _kill(self, effect: fx.Kill) -> KillFailed | None:
        try:
            await self._runtime(effect.runtime).kill(effect.container_id, effect.grace_s)
        except (CorralError, OSError) as error:
            return KillFailed(effect.container_id, _words(error))
        return None

    async def _resize(self, effect: fx.Resize) -> None:
        try:
            await self._runtime(effect.runtime).resize(effect.container_id, effect.cpu_milli, effect.mem_mb)
        except OSError as error:
            raise Failed(_words(error)) from None

    def _begin_remove(self, effect: fx.Remove) -> Coroutine[Any, Any, DiscardFailed | None]:
        self._alive.discard(effect.container_id)
        for probe in self._probes.pop(effect.container_id, ()):
            probe.cancel()
        return self._remove(effect)

    async def _remove(self, effect: fx.Remove) -> DiscardFailed | None:
        if self.secrets is not None:
            self.secrets.clear(effect.container_id)
        try:
            await self._runtime(effect.runtime).remove(effect.container_id)
        except (CorralError, OSError) as error:
            return DiscardFailed(effect.runtime, effect.container_id, _words(error))
        return None

    async def _discard(self, effect: fx.Discard) -> DiscardFailed | None:
        why = await self._take_down(effect.runtime, effect.container_id)
        return None if why is None else DiscardFailed(effect.runtime, effect.container_id, why)

    # Health.

    def _begin_probe(self, effect: fx.Probe) -> Coroutine[Any, Any, Probed | None]:
        probe = asyncio.ensure_future(self._prober.probe(effect))
        self._probes.setdefault(effect.container_id, set()).add(probe)
        return self._follow_probe(effect, probe)

    async def _follow_probe(self, effect: fx.Probe, probe: "asyncio.Task[Probed]") -> Probed | None:
        try:
            await _settle(probe)
        finally:
            probes = self._probes.get(effect.container_id)
            if probes is not None:
                probes.discard(probe)
                if not probes:
                    self._probes.pop(effect.container_id, None)
        return None if probe.cancelled() else await self._excuse(effect, probe.result())

    async def _excuse(self, effect: fx.Probe, found: Probed) -> Probed:
        """A port of the node leads to a container by its runtime's means, which go with the runtime's daemon."""
        if found.why is None or found.void or not effect.check.on_node:
            return found
        away = await self._ask_ready(self._runtime(effect.runtime))
        return found if away is None else msgspec.structs.replace(found, void=True)

    def _exec(self, runtime: str, container_id: str, argv: Sequence[str]) -> ExecSession:
        return self._runtime(runtime).exec(container_id, argv, tty=False)

    # Sandboxes.

    async def _scan(self, effect: fx.ScanSandboxes) -> Scanned | None:
        return None if self.sandboxes is None else Scanned(await self.sandboxes.scan())

    async def _measure_disk(self, effect: fx.MeasureDisk) -> DiskMeasured:
        if self.sandboxes is None:
            return DiskMeasured(0.0)
        try:
            return DiskMeasured(await self.sandboxes.disk_usage())
        except OSError as error:
            raise Unavailable(f"the disk of the sandboxes cannot be measured: {_words(error)}") from None

    async def _measure_usage(self, effect: fx.MeasureUsage) -> UsageMeasured:
        runtimes = self.runtimes.values()
        here = [(id, pid) for id, pid in effect.tasks if not any(each.is_elsewhere(id) for each in runtimes)]
        try:
            used = await measure_usage([pid for _, pid in here])
        except OSError:
            return UsageMeasured()  # what is not measured counts as fully used
        return UsageMeasured(
            tuple(
                MeasuredTask(container_id, used[pid].user_s + used[pid].system_s, used[pid].rss_bytes / 2**20)
                for container_id, pid in here
                if pid in used
            )
        )

    async def _delete_sandbox(self, effect: fx.DeleteSandbox) -> None:
        if self.sandboxes is not None:
            await self.sandboxes.delete(effect.path)

    async def _delete_volume(self, effect: fx.DeleteVolume) -> VolumeDeleted:
        try:
            await volumes.delete(effect.path)
        except OSError as error:
            return VolumeDeleted(effect.path, _words(error))
        return VolumeDeleted(effect.path)

    # For the agent's API.

    def is_alive(self, container_id: str) -> bool:
        """Whether more output may come of it."""
        return container_id in self._alive

    def exec(self, task: TaskView, argv: Sequence[str], *, tty: bool) -> ExecSession:
        """Errors: `Failed` when the task's runtime is not enabled on this agent."""
        return self._runtime(task.runtime).exec(task.container, argv, tty=tty)

    async def signal(self, task: TaskView, number: int, sources: Sequence[str] | None) -> None:
        """Send a signal to a task; before that its files of secrets, in order of their `sources`, get newest values.

        Errors: `NotFound` when it does not run, `Unavailable` or `Failed` when the values cannot be had.
        """
        runtime = self._runtime(task.runtime)
        if sources and self.secrets is not None:
            await self.secrets.renew(task.framework, task.id, task.container, sources)
        await runtime.signal(task.container, number)

    async def wait_for_exit(self, runtime: str, container_id: str) -> Exit:
        """How it ended, when it has. Errors: `NotFound` when it is not known."""
        return await self._runtime(runtime).wait(container_id)

    async def signal_in(self, runtime: str, container_id: str, number: int) -> None:
        """Send a signal to what was started in a container. Errors: as `TaskRuntime.signal`."""
        await self._runtime(runtime).signal(container_id, number)

    def exec_in(self, runtime: str, container_id: str, argv: Sequence[str], *, tty: bool) -> ExecSession:
        """The same beside whatever runs in a container."""
        return self._runtime(runtime).exec(container_id, argv, tty=tty)

    def sandboxes_or_fail(self) -> Sandboxes:
        """Errors: `NotFound` when this agent keeps none."""
        if self.sandboxes is None:
            raise NotFound("this agent only pretends to run tasks and keeps no sandboxes")
        return self.sandboxes

    async def find_sandbox(self, work_dir: str, task_id: str, framework_id: str = "") -> str | None:
        """The last sandbox of a task that the agent itself has forgotten, while it is not yet deleted."""
        frameworks = glob.escape(framework_id) if framework_id else "*"
        executors = f"{glob.escape(work_dir)}/slaves/*/frameworks/{frameworks}/executors"
        name = glob.escape(task_id)
        found = await asyncio.to_thread(
            _newest, f"{executors}/{name}/runs/{LATEST}", f"{executors}/*/runs/{LATEST}/tasks/{name}"
        )
        return None if found is None else await asyncio.to_thread(os.path.realpath, found)


def _newest(*patterns: str) -> str | None:
    found = (path for pattern in patterns for path in glob.glob(pattern))
    return max(found, key=os.path.getmtime, default=None)


async def _settle(task: "asyncio.Task[Any]") -> None:
    """Wait for the task's end, whatever it is; who is cancelled here takes the task along."""
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        raise


def _expected(error: BaseException) -> CorralError | OSError:
    """Errors: the error itself when it is a bug, not a failure of the work."""
    if isinstance(error, CorralError | OSError):
        return error
    raise error


def _words(error: CorralError | OSError) -> str:
    if isinstance(error, CorralError):
        return error.message
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
