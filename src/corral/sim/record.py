"""Makes a trace of a live master: by looking at what its core is told and at what it decides, never at its memory.

The same look serves a master that runs (`--record FILE`) and a journal that one has left behind. A want is stated
absolutely, again and again; what arrives in a trace is what it states beyond what is known and not yet launched.
"""

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from corral.allocator.view import AgentView, Settings
from corral.lib.errors import Failed, Invalid
from corral.master.core import MasterCore
from corral.master.effects import SendEvent, SendOrder
from corral.master.spec import AgentRecord, AgentReported, SchedulerCall, SchedulerClosed
from corral.model import calls, events
from corral.model.agent import AgentInfo
from corral.model.attributes import format_value
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId, WantId
from corral.model.ledger import stripped
from corral.model.offer import Want
from corral.model.orders import Register, Registered, RunTask, UpdateTask
from corral.model.role import RoleSettings
from corral.model.task import TERMINAL, TaskInfo
from corral.runtime.core import Asked, Core, Effect, Loaded, Persist, Refuse
from corral.runtime.journal import Header, Replayable, replay, rotate
from corral.sim.trace import (
    AgentCame,
    AgentLeft,
    Arrived,
    Begin,
    Ended,
    Event,
    RoleSet,
    RoleUnset,
    SettingsSet,
    Started,
    Withdrawn,
    open_to_write,
    write_event,
)

_TaskKey = tuple[FrameworkId, TaskId]


class Observer:
    """Turns what a master's core was told, and what it decided, into events of a trace.

    Shapes: `_wanted` maps wants by framework to their statement and how many of each are not launched; `_offered` maps
    offers that are out to their stream and the want they are shaped to; `_running` maps tasks to their agents.
    """

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008 - a constant
        self._settings = settings
        self._start_at: float | None = None
        self._at = 0.0
        self._agents: dict[AgentId, AgentView] = {}
        self._infos: dict[AgentId, AgentInfo] = {}
        self._wanted: dict[FrameworkId, dict[WantId, tuple[Want, int]]] = {}
        self._offered: dict[OfferId, tuple[str, WantId]] = {}
        self._running: dict[_TaskKey, AgentId] = {}
        self._closed: dict[AgentId, str] = {}

    def observe(self, input: Any, now: float, effects: Sequence[Effect]) -> Iterator[Event]:
        """What has happened with this input. Shapes: the first call yields `Begin` before anything else."""
        if self._start_at is None:
            self._start_at = now
            yield Begin(source="corral master", start_at=now)
            if self._settings != Settings():
                yield SettingsSet(at=0.0, settings=self._settings)
        # A clock that was set back does not turn back a trace.
        self._at = max(self._at, round(now - self._start_at, 6))
        launching: list[WantId] = []
        match input:
            case Loaded():
                yield from self._load(input)
            case AgentReported():
                yield from self._hear(input, effects)
            case SchedulerClosed():
                self._offered = {id: o for id, o in self._offered.items() if o[0] != input.stream}
            case Asked(command=SchedulerCall(call=call)) if not any(isinstance(e, Refuse) for e in effects):
                launching = yield from self._call(call)
        for effect in effects:
            yield from self._follow(effect, launching)

    def _load(self, loaded: Loaded) -> Iterator[Event]:
        for stored in loaded.records:
            kind, _, name = stored.key.partition("/")
            if kind == "roles":
                yield self._set_role(name, msgspec.msgpack.decode(stored.value, type=RoleSettings))

    def _hear(self, input: AgentReported, effects: Sequence[Effect]) -> Iterator[Event]:
        taken_in = [
            e.order.agent_id
            for e in effects
            if isinstance(e, SendOrder) and e.session == input.session and isinstance(e.order, Registered)
        ]
        for report in input.reports:
            match report:
                case Register() if taken_in:
                    yield from self._register(taken_in.pop(0), report)
                case UpdateTask() if report.latest in TERMINAL:
                    yield from self._end((report.framework_id, report.status.task_id), str(report.latest))

    def _register(self, agent_id: AgentId, report: Register) -> Iterator[Event]:
        self._infos[agent_id] = report.info
        yield from self._show(agent_id, self._closed.get(agent_id, ""))
        told = {(one.framework_id, one.info.task_id): one for one in report.tasks}
        for key in [key for key, where in self._running.items() if where == agent_id]:
            one = told.get(key)
            if one is None or one.state in TERMINAL:
                yield from self._end(key, str(one.state) if one is not None else "TASK_LOST")
        for (framework_id, _), one in told.items():
            if one.state not in TERMINAL:
                yield from self._start(framework_id, agent_id, one.role, one.info, None)

    def _show(self, agent_id: AgentId, ineligible: str) -> Iterator[Event]:
        info = self._infos[agent_id]
        view = AgentView(
            id=agent_id,
            hostname=info.hostname,
            total=stripped(info.resources),
            attributes={a.name: format_value(a) for a in info.attributes},
            runtimes=info.runtimes,
            unready_runtimes=info.unready_runtimes,
            ineligible=ineligible,
        )
        if self._agents.get(agent_id) != view:
            self._agents[agent_id] = view
            yield AgentCame(at=self._at, agent=view)

    def _call(self, call: calls.Call) -> Generator[Event, None, list[WantId]]:
        """Returns the wants that the offers of an ACCEPT were shaped to, in order."""
        match call:
            case calls.Request(wants=wants) if wants is not None:
                yield from self._request(call.framework_id, {want.id: want for want in wants})
            case calls.Accept() | calls.Decline():
                taken = [self._offered.pop(offer_id, ("", WantId(""))) for offer_id in call.offer_ids]
                return [want_id for _, want_id in taken if want_id]
        return []

    def _request(self, framework_id: FrameworkId, stated: Mapping[WantId, Want]) -> Iterator[Event]:
        wanted = self._wanted.pop(framework_id, {})
        for want_id, (old, left) in list(wanted.items()):
            new = stated.get(want_id)
            kept = new.count if new is not None and _same_shape(old, new) else 0
            if kept < left:
                yield Withdrawn(at=self._at, framework_id=framework_id, want_id=want_id, count=left - kept)
            if kept == 0:
                del wanted[want_id]
        for want_id, want in stated.items():
            _, left = wanted.get(want_id, (want, 0))
            if want.count > left:
                more = msgspec.structs.replace(want, count=want.count - left)
                yield Arrived(at=self._at, framework_id=framework_id, want=more)
        if stated:
            self._wanted[framework_id] = {want_id: (want, want.count) for want_id, want in stated.items() if want.count}

    def _follow(self, effect: Effect, launching: list[WantId]) -> Iterator[Event]:
        match effect:
            case SendEvent(event=events.Offers(offers=offers)):
                for offer in offers:
                    if offer.want_id is not None:
                        self._offered[offer.id] = (effect.stream, offer.want_id)
            case SendEvent(event=events.Rescind(offer_id=offer_id)):
                self._offered.pop(offer_id, None)
            case SendOrder(order=RunTask(framework=framework, role=role, info=info)) if framework.id is not None:
                want_id = launching.pop(0) if launching else None
                yield from self._start(framework.id, info.agent_id, role, info, want_id)
            case Persist(key=key, record=record):
                kind, _, name = key.partition("/")
                yield from self._remember(kind, name, record)

    def _remember(self, kind: str, name: str, record: Any) -> Iterator[Event]:
        match kind:
            case "agents" if record is None:
                self._closed.pop(AgentId(name), None)
                yield from self._lose(AgentId(name))
            case "agents" if isinstance(record, AgentRecord) and record.unreachable_at is not None:
                self._infos.setdefault(AgentId(name), record.info)
                yield from self._show(AgentId(name), "unreachable")
            case "agents" if isinstance(record, AgentRecord):
                word = record.drain.state.lower() if record.drain is not None else ""
                word = word or ("deactivated" if record.deactivated else "")
                if word != self._closed.get(AgentId(name), ""):
                    self._closed[AgentId(name)] = word
                    self._infos.setdefault(AgentId(name), record.info)
                    yield from self._show(AgentId(name), word)
            case "roles" if isinstance(record, RoleSettings):
                yield self._set_role(name, record)
            case "roles":
                yield RoleUnset(at=self._at, name=name)
            case "frameworks" if record is None:
                yield from self._request(FrameworkId(name), {})

    def _set_role(self, name: str, settings: RoleSettings) -> Event:
        return RoleSet(at=self._at, name=name, settings=settings)

    def _lose(self, agent_id: AgentId) -> Iterator[Event]:
        for key in [key for key, where in self._running.items() if where == agent_id]:
            yield from self._end(key, "TASK_GONE")
        self._infos.pop(agent_id, None)
        if self._agents.pop(agent_id, None) is not None:
            yield AgentLeft(at=self._at, agent_id=agent_id)

    def _start(
        self, framework_id: FrameworkId, agent_id: AgentId, role: str, info: TaskInfo, want_id: WantId | None
    ) -> Iterator[Event]:
        key = (framework_id, info.task_id)
        if key in self._running:
            return
        self._running[key] = agent_id
        if want_id is not None:
            wanted = self._wanted.get(framework_id, {})
            want, left = wanted.pop(want_id, (None, 0))
            if want is None:
                want_id = None
            elif left > 1:
                wanted[want.id] = (want, left - 1)
        yield Started(
            at=self._at,
            framework_id=framework_id,
            task=info.task_id,
            agent_id=agent_id,
            role=role,
            resources=stripped(info.resources),
            want_id=want_id,
        )

    def _end(self, key: _TaskKey, state: str) -> Iterator[Event]:
        if self._running.pop(key, None) is not None:
            yield Ended(at=self._at, framework_id=key[0], task=key[1], state=state)


def _same_shape(old: Want, new: Want) -> bool:
    return msgspec.structs.replace(old, count=new.count, group_size=new.group_size) == new


class TraceRecorder:
    """Writes the trace of a master as it lives; the file of the run before becomes `path.1`.

    A failing file ends the recording, never the work. Shapes: a plain file is complete after every turn, a gzipped one
    when the recording ends. Errors: `OSError` when the file cannot be begun.
    """

    def __init__(self, path: Path, settings: Settings = Settings()) -> None:  # noqa: B008 - a constant
        self._path = path
        self._observer = Observer(settings)
        if path.is_file():
            # Never a device or a pipe.
            rotate(str(path), 2)
        self._file = open_to_write(path)
        self._ended: str | None = None
        self._open = True

    def record(self, input: Any, now: float, effects: Sequence[Effect] | None) -> None:
        if effects is None or not self._open:
            return
        try:
            for event in self._observer.observe(input, now, effects):
                self._file.write(write_event(event))
        except OSError as error:
            self._stop(error)

    def flush(self) -> str | None:
        if self._open and self._path.suffix != ".gz":
            try:
                self._file.flush()
            except OSError as error:
                self._stop(error)
        ended, self._ended = self._ended, None
        return ended

    def close(self) -> None:
        self._open = False
        # What a full disk has not taken it does not take now.
        with contextlib.suppress(OSError):
            self._file.close()

    def _stop(self, error: OSError) -> None:
        self.close()
        self._ended = f"{self._path} cannot be written: {error}"


def read_journal(path: Path, cores: Mapping[str, Replayable]) -> list[Event]:
    """The trace of a master by its journal, whose every input is decided anew.

    Errors: `Invalid` when it is no journal of a master; `Failed` when it is decided otherwise than it was.
    """
    if "master" not in cores:
        raise Invalid("a journal becomes a trace by the core of a master, and none was given")
    known, observer = cores["master"], Observer()
    found: list[Event] = []

    def build(header: Header) -> Core:
        nonlocal observer
        core = known.build(header)
        if isinstance(core, MasterCore):
            observer = Observer(core.state.allocator.settings)
        return core

    def watch(input: Any, now: float, effects: Sequence[Effect]) -> None:
        found.extend(observer.observe(input, now, effects))

    result = replay(str(path), {**cores, "master": Replayable(known.inputs, build)}, watch=watch)
    if result.component != "master":
        raise Invalid(f"{path} is the journal of component {result.component}; only a master's says what was wanted")
    if result.divergence is not None:
        raise Failed(f"{path}: {result.divergence}; simulate it with the release that wrote it")
    return found
