"""The doing halves of master, agent and framework in the simulated world: what they say travels over its network.

They mirror the real ones message for message: an agent's session is a link with a hello, a framework's subscription a
link whose first message is SUBSCRIBE; a side learns of a break when the network lets it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from corral.agent import effects as agent_effects
from corral.agent.spec import (
    ClockRead,
    Connected,
    Disconnected,
    DiskMeasured,
    Exited,
    Fetched,
    MeasuredTask,
    Ordered,
    Probed,
    Recovered,
    RuntimeChecked,
    Scanned,
    Started,
    StartFailed,
    UsageMeasured,
    VolumeDeleted,
    WaitFailed,
)
from corral.lib.ids import mint_uuid
from corral.master import effects as master_effects
from corral.master.spec import AgentClosed, AgentOpened, AgentReported, SchedulerCall, SchedulerClosed, SubscribeStream
from corral.model import calls
from corral.model.execution import Exit, Launched
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ContainerId
from corral.model.orders import Report
from corral.runtime.core import Effect
from corral.sdk import effects as sdk_effects
from corral.sdk import scheduler
from corral.sim.containers import SimRuntime
from corral.sim.network import Link, Network
from corral.sim.world import EPOCH_S, Alarm, Answer, Process

REDIAL_S = 0.5


class Hello(msgspec.Struct, frozen=True):
    """An agent opens a session."""

    session: str


class Welcome(msgspec.Struct, frozen=True):
    """The master has opened it."""


class Said(msgspec.Struct, frozen=True):
    """A framework's call, or its refusal on the way back."""

    call: calls.Call
    why: str = ""


class MasterDoor:
    """The master's shell: one link per agent session and per framework stream."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._tell = process.teller()
        self._random = process.world.random
        self._sessions: dict[str, Link] = {}
        self._streams: dict[str, Link] = {}

    def perform(self, effect: Effect) -> None:
        name = self._process.name
        match effect:
            case master_effects.SendEvent(stream, event):
                if (link := self._streams.get(stream)) is not None:
                    link.send(name, event)
            case master_effects.SendOrder(session, order):
                self._process.world.see_reign(order.epoch, name, self._process.incarnation)
                if (link := self._sessions.get(session)) is not None:
                    link.send(name, order)
            case master_effects.CloseStream(stream, why):
                if (link := self._streams.pop(stream, None)) is not None:
                    link.close(name, why)
            case master_effects.CloseSession(session, why):
                if (link := self._sessions.pop(session, None)) is not None:
                    link.close(name, why)
            case _:
                raise TypeError(f"the simulated master cannot perform {type(effect).__name__}")

    def flush(self) -> None: ...

    def accept(self, link: Link) -> None:
        """Somebody dials; the first message says who."""
        link.attach(self._process.name, partial(self._greet, link), lambda why: None)

    def _greet(self, link: Link, message: Any) -> None:
        name = self._process.name
        if isinstance(message, Hello):
            session = message.session
            self._sessions[session] = link
            self._tell(AgentOpened(session, link.a))
            link.attach(name, partial(self._report, session), partial(self._end_session, session))
            link.send(name, Welcome())
        else:
            stream = mint_uuid(self._random)
            self._streams[stream] = link
            link.attach(name, partial(self._call, stream, link), partial(self._end_stream, stream))
            self._process.ask(SubscribeStream(stream=stream, call=message), partial(self._subscribed, stream))

    def _report(self, session: str, message: tuple[Report, ...]) -> None:
        self._tell(AgentReported(session, message))

    def _end_session(self, session: str, why: str) -> None:
        if self._sessions.pop(session, None) is not None:
            self._tell(AgentClosed(session, why))

    def _call(self, stream: str, link: Link, message: Said) -> None:
        def answered(answer: Answer) -> None:
            if answer.error is not None:
                link.send(self._process.name, Said(message.call, answer.error.message))

        self._process.ask(SchedulerCall(call=message.call, stream=stream), answered)

    def _subscribed(self, stream: str, answer: Answer) -> None:
        if answer.error is not None and (link := self._streams.pop(stream, None)) is not None:
            link.close(self._process.name, answer.error.message)

    def _end_stream(self, stream: str, why: str) -> None:
        if self._streams.pop(stream, None) is not None:
            self._tell(SchedulerClosed(stream, why))


class Dialler:
    """How a process reaches the master: a new link, unless the master is down or cut off."""

    def __init__(self, process: Process, network: Network, master: Callable[[], Process]) -> None:
        self._process = process
        self._network = network
        self._master = master

    @property
    def master(self) -> str:
        return self._master().name

    def dial(self) -> Link | None:
        master = self._master()
        if not master.up or master.frozen:
            return None
        link = self._network.open(self._process.name, master.name)
        if link is not None:
            assert isinstance(master.shell, MasterDoor)
            master.shell.accept(link)
        return link


class FrameworkHands:
    """A framework's shell: subscribes, calls, and turns what comes into inputs."""

    def __init__(self, process: Process, network: Network, master: Callable[[], Process]) -> None:
        self._process = process
        self._tell = process.teller()
        self._dialler = Dialler(process, network, master)
        self._link: Link | None = None
        self._connection = 0

    def perform(self, effect: Effect) -> None:
        match effect:
            case sdk_effects.Call(call):
                if self._link is None or not self._link.whole:
                    self._tell(scheduler.CallFailed(call, "the connection is broken", self._connection))
                else:
                    self._link.send(self._process.name, Said(call))
            case sdk_effects.Connect(connection, subscribe):
                self._connect(connection, subscribe)
            case sdk_effects.Disconnect(connection, why):
                if connection == self._connection and self._link is not None:
                    self._link.close(self._process.name, why)
                    self._link = None
            case sdk_effects.Publish():
                pass
            case sdk_effects.Notify(id=notice_id):
                self._tell(sdk_effects.Notified(notice_id))
            case sdk_effects.Signal(task_id=task_id):
                self._tell(sdk_effects.Signalled(task_id))
            case _:
                raise TypeError(f"a simulated framework cannot perform {type(effect).__name__}")

    def flush(self) -> None: ...

    def _connect(self, connection: int, subscribe: calls.Subscribe) -> None:
        name, self._connection = self._process.name, connection
        link = self._link = self._dialler.dial()
        if link is None:
            self._process.tell_after(REDIAL_S, scheduler.Disconnected(connection, "no master answers"))
            return

        def take(message: Any) -> None:
            if isinstance(message, Said):
                message = scheduler.CallFailed(message.call, message.why, connection)
            self._tell(message)

        link.attach(name, take, lambda why: self._tell(scheduler.Disconnected(connection, why)))
        link.send(name, subscribe)


class AgentHands:
    """An agent's shell: keeps a session with the master and works the node's runtime."""

    def __init__(
        self, process: Process, network: Network, master: Callable[[], Process], runtimes: dict[str, SimRuntime]
    ) -> None:
        self._process = process
        self._tell = process.teller()
        self._world = process.world
        self._dialler = Dialler(process, network, master)
        self._runtimes = runtimes
        self._link: Link | None = None
        self._session = ""
        self._connected = False
        self._unsent: list[Report] = []
        self._redial: Alarm | None = None
        self._starting: set[str] = set()
        self._fetches: dict[str, Alarm] = {}

    def flush(self) -> None:
        """What a turn says goes out in one or two pieces, as a stream may be cut anywhere between two frames."""
        if self._unsent and self._link is not None and self._connected:
            cut = self._world.random.randint(0, len(self._unsent))
            for piece in (self._unsent[:cut], self._unsent[cut:]):
                if piece:
                    self._link.send(self._process.name, tuple(piece))
        self._unsent.clear()

    def perform(self, effect: Effect) -> None:
        match effect:
            case agent_effects.Send(report):
                self._unsent.append(report)
            case agent_effects.Connect():
                self._dial()
            case agent_effects.Reconnect(why, delay_s):
                self._reconnect(why, delay_s)
            case agent_effects.Recover(runtime):
                self._later(lambda: Recovered(runtime, self._runtimes[runtime].recover()))
            case agent_effects.CheckRuntime(runtime):
                self._later(lambda: RuntimeChecked(runtime))
            case agent_effects.Fetch(container_id):
                self._fetches[container_id] = self._later(lambda: Fetched(container_id))
            case agent_effects.CancelFetch(container_id):
                if (fetch := self._fetches.pop(container_id, None)) is not None:
                    fetch.cancel()
            case agent_effects.Start():
                self._start(effect)
            case agent_effects.Abort(container_id):
                # Only a start that this very shell has under way can be taken back.
                if container_id in self._starting:
                    for each in self._runtimes.values():
                        each.abort(container_id)
            case agent_effects.Wait(runtime, container_id):
                self._wait(runtime, container_id, reads=bool(effect.result))
            case agent_effects.Kill(runtime, container_id, grace_s):
                self._process.after(
                    self._world.draw_s(0.002), lambda: self._runtimes[runtime].kill(container_id, grace_s)
                )
            case agent_effects.Resize():
                pass  # nothing here has limits
            case agent_effects.Probe(runtime, container_id, index, check):
                self._later(lambda: self._probe(runtime, container_id, index, check))
            case agent_effects.Remove(runtime, container_id):
                self._runtimes[runtime].remove(container_id)
            case agent_effects.Discard(runtime, container_id):
                self._runtimes[runtime].discard(container_id)
            case agent_effects.ScanSandboxes():
                self._later(Scanned)
            case agent_effects.MeasureDisk():
                self._later(lambda: DiskMeasured(0.1))
            case agent_effects.MeasureUsage(tasks):
                self._later(lambda: self._measure(tasks))
            case agent_effects.ReadClock():
                self._later(lambda: ClockRead(self._world.now - EPOCH_S, "boot"))
            case agent_effects.KeepContact(at=at):
                for each in self._runtimes.values():
                    each.contact_at = at
            case agent_effects.DeleteSandbox():
                pass
            case agent_effects.DeleteVolume(path):
                self._later(lambda: VolumeDeleted(path))
            case _:
                raise TypeError(f"a simulated agent cannot perform {type(effect).__name__}")

    def _later(self, make: Callable[[], Any]) -> Alarm:
        return self._process.after(self._world.draw_s(0.01), lambda: self._tell(make()))

    def _measure(self, tasks: tuple[tuple[ContainerId, int], ...]) -> UsageMeasured:
        found = []
        for container_id, _ in tasks:
            for runtime in self._runtimes.values():
                if (used := runtime.measure(container_id)) is not None:
                    found.append(MeasuredTask(container_id, *used))
        return UsageMeasured(tuple(found))

    def _start(self, effect: agent_effects.Start) -> None:
        container_id, runtime = effect.execution.container_id, self._runtimes[effect.runtime]
        self._starting.add(container_id)
        hear = self._process.bind(runtime.hear)

        def done(outcome: Launched | str) -> None:
            self._starting.discard(container_id)
            if isinstance(outcome, Launched):
                hear(container_id)
                self._tell(Started(outcome))
            else:
                aborted = outcome == "the start was taken back"
                self._tell(StartFailed(container_id, outcome, aborted=aborted))

        runtime.start(effect.execution, done)

    def _wait(self, runtime: str, container_id: ContainerId, *, reads: bool) -> None:
        def ended(exit: Exit) -> None:
            result = self._runtimes[runtime].left_by(container_id) if reads and exit.code == 0 else None
            self._tell(Exited(exit, result))

        if not self._runtimes[runtime].wait(container_id, ended):
            self._later(lambda: WaitFailed(container_id, f"{runtime} knows no such container", gone=True))

    def _probe(self, runtime: str, container_id: ContainerId, index: int, check: HealthCheck) -> Probed:
        if not self._runtimes[runtime].is_well(container_id):
            return Probed(container_id, index, why="nothing answers")
        return Probed(container_id, index, code=0 if check.kind is CheckKind.COMMAND else 200)

    def _dial(self) -> None:
        self._redial = None
        link = self._link = self._dialler.dial()
        if link is None:
            self._dial_later(REDIAL_S)
            return
        session = self._session = mint_uuid(self._world.random)
        bind = self._process.bind
        link.attach(self._process.name, bind(partial(self._take, session)), bind(partial(self._broken, session)))
        link.send(self._process.name, Hello(session))

    def _dial_later(self, delay_s: float) -> None:
        if self._redial is None:
            self._redial = self._process.after(delay_s + self._world.draw_s(REDIAL_S), self._dial)

    def _take(self, session: str, message: Any) -> None:
        if isinstance(message, Welcome):
            self._connected = True
            self._tell(Connected(session, self._dialler.master))
        else:
            self._tell(Ordered(session, message))

    def _broken(self, session: str, why: str) -> None:
        if session == self._session:
            self._end(session, why, 0.0)

    def _reconnect(self, why: str, delay_s: float) -> None:
        if self._link is not None and self._session:
            self._link.close(self._process.name, why)
            self._end(self._session, why, delay_s)

    def _end(self, session: str, why: str, delay_s: float) -> None:
        was_connected, self._connected = self._connected, False
        self._session, self._link = "", None
        self._unsent.clear()
        if was_connected:
            self._tell(Disconnected(session, why))
        self._dial_later(delay_s)
