"""What every framework needs besides its own decisions: subscription, acknowledgement, reconciliation, liveness.

`Session` is a core around the framework's core. The framework's core sees events only while subscribed, never
acknowledges by hand, and has its tasks reconciled after each subscription until every one has been answered for, then
now and again. Any trouble with the master has one cure: subscribe anew.
Source: Mesos v1 scheduler API; the recommended reconciliation loop.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from corral.lib.backoff import grow_delay_s
from corral.model import calls, events
from corral.model.framework import FrameworkInfo
from corral.model.ids import FrameworkId, TaskId
from corral.model.task import TaskState
from corral.runtime.core import Core, Effect, Loaded, Note, Persist, SetTimer, Stop, Tick
from corral.sdk.effects import Call, Connect, Disconnect

RECORD = "sdk/framework"
CONNECT = "sdk/connect"
SILENCE = "sdk/silence"
UNHEARD = "sdk/unheard"
RECONCILE = "sdk/reconcile"

RECONCILE_FIRST_S = 5.0
RECONCILE_MOST_S = 60.0
RECONCILE_EVERY_S = 600.0
RECONCILE_CHUNK = 1000
AWAY = "sdk/away"
AWAY_EVERY_S = 60.0
"""How often it is asked what became of tasks whose agent was away: a new master may not know that it has to tell."""
MISSED_HEARTBEATS = 5
UNHEARD_INTERVALS = 3
"""For so many heartbeats what waits may go without an offer and without a reason, twice as many at each time anew."""
MOST_UNHEARD_TRIES = 5
LEAST_UNHEARD_S = 30.0
CONNECT_FIRST_S = 0.25
CONNECT_MOST_S = 15.0
STEADY_S = 30.0
"""A connection that lasted so long was a good one: the next tries start anew."""


class FrameworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What has to outlive the process so that the master knows us again."""

    framework_id: FrameworkId


class Disconnected(msgspec.Struct, frozen=True, tag="Disconnected"):
    """The event stream ended or never came to be."""

    connection: int
    why: str = ""


class CallFailed(msgspec.Struct, frozen=True, tag="CallFailed"):
    """The master did not take a call that was made on this connection, or nobody knows whether it did.

    Shapes: it surely did not, as the caller may not have that, where it is `forbidden`.
    """

    call: calls.Call
    why: str
    connection: int
    forbidden: bool = False


class FrameworkCore(Core, Protocol):
    """What the session asks of a framework's core beside `handle` and `invariants`.

    Shapes: a core may have `reads`, the types of commands that change nothing: these are answered, marked as stale,
    while its records cannot be written. One that keeps `Patience` has `unheard_s(now)`, the seconds for which something
    has waited without an offer and without a reason. One that changes its roles has `take_forbidden(failed, now)`: told
    that it may not be in some of those of an UPDATE_FRAMEWORK, it goes on with others.
    """

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        """All tasks that were launched and have not been heard to end."""

    def is_live(self, task_id: TaskId) -> bool: ...


class Session:
    """The core that a framework's loop really runs.

    Shapes: unless `coarse`, the framework's roles are suppressed at SUBSCRIBE: it is offered what it wants and no more.
    """

    __slots__ = (
        "_away", "_coarse", "_connected_at", "_connection", "_core", "_framework_id", "_heard_at", "_info",
        "_interval_s", "_random", "_reconcile_tries", "_round_is_over", "_tries", "_unanswered", "_unheard_tries",
        "connected",
    )  # fmt: skip

    def __init__(self, info: FrameworkInfo, core: FrameworkCore, random: Random, *, coarse: bool = False) -> None:
        self._info = info
        self._core = core
        self._random = random
        self._coarse = coarse
        self._framework_id: FrameworkId | None = info.id
        self._connection = 0
        self._tries = 0
        self._unheard_tries = 0
        self._heard_at = 0.0
        self._connected_at = 0.0
        self._interval_s = 15.0
        self._unanswered: dict[TaskId, None] = {}
        self._away: dict[TaskId, None] = {}
        self._reconcile_tries = 0
        self._round_is_over = False
        self.connected = False

    @property
    def reads(self) -> tuple[type, ...]:
        """The commands that change nothing, as far as the framework names them."""
        found: tuple[type, ...] = getattr(self._core, "reads", ())
        return found

    @property
    def framework_id(self) -> FrameworkId | None:
        return self._framework_id

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case events.Update():
                return self._update(input, now)
            case events.Heartbeat():
                self._heard_at = now
                return ()
            case events.Subscribed():
                return self._subscribed(input, now)
            case events.Error():
                return self._error(input, now)
            case Tick(name=name) if name.startswith("sdk/"):
                return self._tick(name, now)
            case Loaded():
                return self._load(input, now)
            case Disconnected():
                return self._disconnected(input, now)
            case CallFailed():
                return self._call_failed(input, now)
            case _:
                if isinstance(input, events.Event):
                    self._heard_at = now
                return self._core.handle(input, now)

    def invariants(self) -> None:
        self._core.invariants()
        assert not self.connected or self._framework_id is not None, "connected without a framework id"

    def _load(self, loaded: Loaded, now: float) -> Sequence[Effect]:
        own = [r for r in loaded.records if r.key == RECORD]
        if own:
            self._framework_id = msgspec.msgpack.decode(own[0].value, type=FrameworkRecord).framework_id
        rest = Loaded(tuple(r for r in loaded.records if not r.key.startswith("sdk/")))
        return [*self._core.handle(rest, now), self._connect()]

    def _connect(self) -> Effect:
        self._connection += 1
        info = msgspec.structs.replace(self._info, id=self._framework_id)
        suppressed = () if self._coarse else info.subscribed_roles
        return Connect(self._connection, calls.Subscribe(info=info, suppressed_roles=suppressed))

    def _subscribed(self, event: events.Subscribed, now: float) -> Sequence[Effect]:
        effects: list[Effect] = []
        if event.framework_id != self._framework_id:
            self._framework_id = event.framework_id
            effects.append(Persist(RECORD, FrameworkRecord(framework_id=event.framework_id)))
        self.connected = True
        self._connected_at = now
        self._heard_at = now
        self._interval_s = event.heartbeat_interval_s
        effects.append(
            Note("framework subscribed", f"connection {self._connection}", facts={"framework": event.framework_id})
        )
        effects.append(SetTimer(SILENCE, self._interval_s * MISSED_HEARTBEATS))
        if hasattr(self._core, "unheard_s"):
            effects.append(SetTimer(UNHEARD, self._interval_s))
        # Asked before the framework launches anything new: what it launches now needs no question.
        effects.extend(self._reconcile_all())
        effects.extend(self._core.handle(event, now))
        return effects

    def _update(self, event: events.Update, now: float) -> Sequence[Effect]:
        self._heard_at = now
        status = event.status
        if self._unanswered:
            self._unanswered.pop(status.task_id, None)
        effects = self._core.handle(event, now)
        if status.state is TaskState.UNREACHABLE:
            self._away[status.task_id] = None
            effects = [*effects, SetTimer(AWAY, AWAY_EVERY_S, if_unset=True)]
        elif self._away:
            self._away.pop(status.task_id, None)
        if status.uuid is None or status.agent_id is None or self._framework_id is None:
            return effects
        acknowledge = calls.Acknowledge(
            framework_id=self._framework_id, agent_id=status.agent_id, task_id=status.task_id, uuid=status.uuid
        )
        return [*effects, Call(acknowledge)]

    def _reconcile_all(self) -> list[Effect]:
        tasks = {t.task_id: t for t in self._core.live_tasks()}
        self._unanswered = dict.fromkeys(tasks)
        self._reconcile_tries = 0
        self._round_is_over = False
        if not tasks:
            return self._end_round()
        return [*self._ask_about(list(tasks.values())), SetTimer(RECONCILE, self._reconcile_delay_s())]

    def _end_round(self) -> list[Effect]:
        """Every task has been answered for; now what else does the master hold of ours? Then rest.

        A task that was given up while its agent was away may have come back while nobody listened.
        """
        assert self._framework_id is not None
        self._round_is_over = True
        implicit = calls.Reconcile(framework_id=self._framework_id)
        return [Call(implicit), SetTimer(RECONCILE, RECONCILE_EVERY_S)]

    def _ask_about_away(self) -> list[Effect]:
        left = [t for t in self._core.live_tasks() if t.task_id in self._away]
        self._away = {t.task_id: None for t in left}
        return [*self._ask_about(left), SetTimer(AWAY, AWAY_EVERY_S)] if left else []

    def _ask_about(self, tasks: Sequence[calls.ReconcileTask]) -> list[Effect]:
        assert self._framework_id is not None
        return [
            Call(calls.Reconcile(framework_id=self._framework_id, tasks=tuple(tasks[at : at + RECONCILE_CHUNK])))
            for at in range(0, len(tasks), RECONCILE_CHUNK)
        ]

    def _reconcile_delay_s(self) -> float:
        return grow_delay_s(self._reconcile_tries + 1, first_s=RECONCILE_FIRST_S, factor=2.0, most_s=RECONCILE_MOST_S)

    def _tick(self, name: str, now: float) -> Sequence[Effect]:
        if name == CONNECT:
            return () if self.connected else [self._connect()]
        if not self.connected:
            return ()
        if name == RECONCILE:
            if self._round_is_over:
                return self._reconcile_all()
            left = [t for t in self._core.live_tasks() if t.task_id in self._unanswered]
            self._unanswered = {t.task_id: None for t in left}
            if not left:
                return self._end_round()
            self._reconcile_tries += 1
            return [*self._ask_about(left), SetTimer(RECONCILE, self._reconcile_delay_s())]
        if name == AWAY:
            return self._ask_about_away()
        if name == UNHEARD:
            return self._listen(now)
        if name == SILENCE:
            allowed_s = self._interval_s * MISSED_HEARTBEATS
            silent_s = now - self._heard_at
            if silent_s < allowed_s:
                return [SetTimer(SILENCE, allowed_s - silent_s)]
            why = f"master silent for {silent_s:.0f} s, a heartbeat was due every {self._interval_s:g} s"
            return self._break(why, now)
        return ()

    def _listen(self, now: float) -> Sequence[Effect]:
        """What waits gets an offer or a reason; a master that gives neither does not know it, or has it twice."""
        unheard_s: float = self._core.unheard_s(now)  # type: ignore[attr-defined]
        allowed_s = max(UNHEARD_INTERVALS * self._interval_s, LEAST_UNHEARD_S) * 2**self._unheard_tries
        if unheard_s < allowed_s:
            if unheard_s == 0.0 and now - self._connected_at > 2 * allowed_s:
                self._unheard_tries = 0
            return [SetTimer(UNHEARD, self._interval_s)]
        self._unheard_tries = min(self._unheard_tries + 1, MOST_UNHEARD_TRIES)
        why = f"what waits has had neither an offer nor a reason for {unheard_s:.0f} s"
        return self._break(f"{why}; subscribed anew so that the master hears of it again", now)

    def _break(self, why: str, now: float) -> Sequence[Effect]:
        drop = Disconnect(self._connection, why)
        return [drop, *self._disconnected(Disconnected(self._connection, why), now)]

    def _disconnected(self, input: Disconnected, now: float) -> Sequence[Effect]:
        if input.connection != self._connection:
            return ()
        # From here on the number is taken: a second word of the same connection's end is no news.
        self._connection += 1
        was_connected, self.connected = self.connected, False
        if was_connected and now - self._connected_at >= STEADY_S:
            self._tries = 0
        self._tries += 1
        grown_s = grow_delay_s(self._tries, first_s=CONNECT_FIRST_S, factor=2.0, most_s=CONNECT_MOST_S)
        delay_s = grown_s * (0.5 + self._random.random() / 2)
        level = "warning" if was_connected or self._tries % 10 == 5 else "info"
        effects: list[Effect] = [Note("framework disconnected", input.why, level, {"retry_s": round(delay_s, 2)})]
        if was_connected:
            effects.extend(self._core.handle(input, now))
        effects.append(SetTimer(CONNECT, delay_s))
        return effects

    def _error(self, event: events.Error, now: float) -> Sequence[Effect]:
        """The master ended the subscription; what helps depends on why."""
        text = event.message.lower()
        if "failed over" in text:
            return [Stop(f"another instance of this framework took over: {event.message}", code=1)]
        effects: list[Effect] = [Note("framework refused", event.message, "error")]
        if "removed" in text or "completed" in text:
            # The master has killed its tasks and will never take this id again.
            self._framework_id = self._info.id
            effects.append(Persist(RECORD, None))
        return [*effects, *self._break(f"master said: {event.message}", now)]

    def _call_failed(self, input: CallFailed, now: float) -> Sequence[Effect]:
        if not self.connected or input.connection != self._connection:
            return ()
        if input.forbidden and isinstance(input.call, calls.UpdateFramework) and hasattr(self._core, "take_forbidden"):
            effects: Sequence[Effect] = self._core.take_forbidden(input, now)
            return effects
        kind = type(input.call).__struct_config__.tag
        return self._break(f"call {kind} was not taken: {input.why}", now)
