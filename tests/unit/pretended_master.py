"""A framework's core with a pretended master beside it: what it persists, asks for and is answered, in virtual time."""

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from corral.lib.errors import CorralError
from corral.model import calls, events
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId
from corral.model.offer import Offer, Want
from corral.model.task import Reason, Source, TaskInfo, TaskState, TaskStatus
from corral.runtime.core import (
    Asked,
    CancelTimer,
    Loaded,
    Note,
    Persist,
    Refuse,
    Reply,
    SetTimer,
    Stored,
    Tick,
    decide,
    encode_record,
)
from corral.sdk.effects import Call, Notified, Notify, Publish
from corral.sdk.scheduler import Disconnected, FrameworkCore

FRAMEWORK = FrameworkId("F")
MASTER = events.MasterInfo(id="m", hostname="master", ip="127.0.0.1", port=4680, version="1.9.0")
START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
ALIVE = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING, TaskState.UNREACHABLE)


class PretendedMaster:
    """Shapes: `records` survive `crash`; `tasks` are those the pretended master runs, by id, in order of launch."""

    def __init__(self, make_core: Callable[[Random], FrameworkCore], now: float = START) -> None:
        self.make_core = make_core
        self.records: dict[str, bytes] = {}
        self.now = now
        self.seed = 1
        self.core: Any = make_core(Random(self.seed))
        self.timers: dict[str, float] = {}
        self.calls: list[calls.Call] = []
        self.notes: list[Note] = []
        self.sent: list[Notify] = []
        self.published: list[Publish] = []
        self.wants: dict[str, Want] = {}
        self.tasks: dict[TaskId, TaskInfo] = {}
        self.launched: list[TaskInfo] = []
        self.ever: set[TaskId] = set()
        self.killed: list[TaskId] = []
        self.declined: list[str] = []
        self.replies: dict[int, Any] = {}
        self.turns = 0
        self.most_written = 0
        self._asks = 0
        self._offers = 0
        self._offered: dict[str, Offer] = {}
        self.send(Loaded())

    # Turns.

    def send(self, input: Any) -> None:
        effects = decide(self.core, input, self.now)
        self.core.invariants()
        self.turns += 1
        self.most_written = max(self.most_written, len({e.key for e in effects if isinstance(e, Persist)}))
        for effect in effects:
            match effect:
                case Persist(key=key, record=None):
                    self.records.pop(key, None)
                case Persist(key=key, record=record):
                    assert record is not None
                    self.records[key] = encode_record(record)
                case Reply(ask=ask, value=value):
                    self.replies[ask] = value
                case Refuse(ask=ask, error=error):
                    self.replies[ask] = error
                case SetTimer(name=name, delay_s=delay_s, if_unset=if_unset):
                    if not (if_unset and name in self.timers):
                        self.timers[name] = self.now + delay_s
                case CancelTimer(name=name):
                    self.timers.pop(name, None)
                case Note():
                    self.notes.append(effect)
                case Notify():
                    self.sent.append(effect)
                case Publish():
                    self.published.append(effect)
                case Call(call=call):
                    self.calls.append(call)
                    self._hear(call)
                case _:
                    raise AssertionError(f"unexpected effect {effect}")

    def advance(self, seconds: float) -> None:
        """Let time pass, every timer going off at its instant."""
        end = self.now + seconds
        while self.timers:
            name, at = min(self.timers.items(), key=lambda pair: pair[1])
            if at > end:
                break
            del self.timers[name]
            self.now = max(self.now, at)
            self.send(Tick(name))
        self.now = end

    def set_clock(self, seconds: float) -> None:
        """Somebody sets the wall clock, which timers do not go by."""
        self.now += seconds
        self.timers = {name: at + seconds for name, at in self.timers.items()}

    def settle(self) -> None:
        """Let everything happen that waits for less than a moment."""
        self.advance(0.05)

    def subscribe(self) -> None:
        self.wants.clear()
        self.send(events.Subscribed(framework_id=FRAMEWORK, heartbeat_interval_s=15.0, master=MASTER))
        self.settle()

    def disconnect(self) -> None:
        self.send(Disconnected(1, "cut"))

    def crash(self, away_s: float = 0.0) -> None:
        """The process dies and comes back with its records; timers and everything in memory are gone."""
        self.seed += 1
        self.timers.clear()
        self._offered.clear()
        self.now += away_s
        self.core = self.make_core(Random(self.seed))
        self.send(Loaded(tuple(Stored(k, v) for k, v in sorted(self.records.items()))))

    def recover(self, away_s: float = 0.0) -> None:
        """Crash, come back, subscribe and reconcile."""
        self.crash(away_s)
        self.subscribe()
        self.reconcile()

    def reconcile(self) -> None:
        """What the session does after a subscription: ask for what is known, then for everything."""
        for task in list(self.core.live_tasks()):
            known = task.task_id in self.tasks
            state = TaskState.RUNNING if known else TaskState.GONE
            self.update(task.task_id, state, reason=Reason.RECONCILIATION)
        for task_id in list(self.tasks):
            self.update(task_id, TaskState.RUNNING, reason=Reason.RECONCILIATION)
        self.settle()

    # Commands.

    def ask(self, command: Any) -> Any:
        """Errors: as the core refuses."""
        self._asks += 1
        self.send(Asked(self._asks, command))
        found = self.replies.pop(self._asks)
        if isinstance(found, CorralError):
            raise found
        return found

    # The pretended master.

    def _hear(self, call: calls.Call) -> None:
        match call:
            case calls.Request(wants=wants):
                assert wants is not None
                self.wants = {w.id: w for w in wants}
            case calls.Accept(offer_ids=offer_ids, operations=operations):
                for offer_id in offer_ids:
                    offer = self._offered.pop(offer_id)
                    want = self.wants.pop(offer.want_id or "", None)
                    if want is not None and want.count > 1:
                        self.wants[want.id] = msgspec.structs.replace(want, count=want.count - 1)
                for operation in operations:
                    assert isinstance(operation, calls.Launch)
                    for task in operation.tasks:
                        assert task.task_id not in self.ever, f"{task.task_id} again"
                        self.ever.add(task.task_id)
                        self.tasks[task.task_id] = task
                        self.launched.append(task)
            case calls.Decline(offer_ids=offer_ids):
                for offer_id in offer_ids:
                    self._offered.pop(offer_id)
                    self.declined.append(offer_id)
            case calls.Kill(task_id=task_id):
                self.killed.append(task_id)
            case calls.AcceptInverseOffers():
                pass
            case _:
                raise AssertionError(f"unexpected call {call}")

    def make_offers(self, most: int | None = None) -> tuple[Offer, ...]:
        """Shaped offers for all that is wanted."""
        made: list[Offer] = []
        for want in self.wants.values():
            for _ in range(want.count):
                if most is not None and len(made) >= most:
                    break
                made.append(self._shape(want))
        return tuple(made)

    def _shape(self, want: Want) -> Offer:
        self._offers += 1
        host = f"host{self._offers % 3}"
        offer = Offer(
            id=OfferId(f"O{self._offers}"),
            framework_id=FRAMEWORK,
            agent_id=AgentId(f"agent-{host}"),
            hostname=host,
            ip="10.0.0.1",
            port=4681,
            role=want.role,
            resources=want.resources,
            want_id=want.id,
        )
        self._offered[offer.id] = offer
        return offer

    def offer(self, most: int | None = None) -> list[TaskId]:
        """Offer what is wanted; returns the tasks that were launched on it."""
        before = len(self.launched)
        self.send(events.Offers(offers=self.make_offers(most)))
        self.settle()
        return [t.task_id for t in self.launched[before:]]

    def update(
        self, task_id: TaskId, state: TaskState, *, reason: Reason | None = None, message: str = "",
        unreachable_at: float | None = None, data: bytes | None = None,
    ) -> None:  # fmt: skip
        agent_id = self.tasks[task_id].agent_id if task_id in self.tasks else AgentId("agent-host0")
        if state not in ALIVE:
            self.tasks.pop(task_id, None)
        status = TaskStatus(
            task_id=task_id, state=state, at=self.now, source=Source.EXECUTOR, reason=reason, message=message or None,
            agent_id=agent_id, unreachable_at=unreachable_at, data=data,
        )  # fmt: skip
        self.send(events.Update(status=status))
        self.settle()

    def start(self, most: int | None = None) -> list[TaskId]:
        """Launch what is wanted and let it run."""
        found = self.offer(most)
        for task_id in found:
            self.update(task_id, TaskState.RUNNING)
        return found

    def finish(self, *task_ids: TaskId, state: TaskState = TaskState.FINISHED) -> None:
        """End tasks; all that there are when none is named."""
        for task_id in task_ids or list(self.tasks):
            self.update(task_id, state)

    def fail(self, *task_ids: TaskId) -> None:
        self.finish(*task_ids, state=TaskState.FAILED)

    def bury(self) -> None:
        """Let everything that was killed die."""
        for task_id in [t for t in self.killed if t in self.tasks]:
            self.update(task_id, TaskState.KILLED)

    def deliver(self, why: str = "") -> list[Notify]:
        """The notices sent since the last call, all of them taken, or refused with a reason."""
        sent, self.sent = self.sent, []
        for notice in sent:
            self.send(Notified(notice.id, why))
        return sent

    # Looking.

    def wanted(self) -> int:
        return sum(want.count for want in self.wants.values())

    def environment(self, task_id: TaskId) -> dict[str, str]:
        (task,) = [t for t in self.launched if t.task_id == task_id]
        assert task.command is not None
        return dict(task.command.environment)

    def told(self, what: str) -> list[Note]:
        return [note for note in self.notes if note.what == what]
