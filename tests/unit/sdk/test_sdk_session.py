"""The session around a framework's core: subscription, acknowledgement, reconciliation and liveness."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from corral.model import calls, events
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.task import Source, TaskState, TaskStatus
from corral.runtime.core import Asked, Effect, Loaded, Persist, SetTimer, Stop, Stored, Tick, encode_record
from corral.sdk.effects import Call, Connect, Disconnect
from corral.sdk.scheduler import (
    CONNECT,
    RECONCILE,
    RECONCILE_EVERY_S,
    SILENCE,
    CallFailed,
    Disconnected,
    FrameworkRecord,
    Session,
)

MASTER = events.MasterInfo(id="m", hostname="master", ip="127.0.0.1", port=4680, version="1")
SUBSCRIBED = events.Subscribed(framework_id=FrameworkId("F1"), heartbeat_interval_s=15.0, master=MASTER)


class Recorder:
    """A framework's core that takes down what reaches it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.tasks: list[str] = []

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        self.seen.append(input)
        if isinstance(input, events.Update):
            return [Persist("task", FrameworkRecord(framework_id=FrameworkId("any")))]
        return ()

    def invariants(self) -> None:
        pass

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        return [calls.ReconcileTask(task_id=TaskId(t)) for t in self.tasks]

    def is_live(self, task_id: TaskId) -> bool:
        return task_id in self.tasks


def make(records: tuple[Stored, ...] = (), tasks: Iterable[str] = ()) -> tuple[Session, Recorder, list[Effect]]:
    core = Recorder()
    core.tasks = list(tasks)
    session = Session(FrameworkInfo(user="root", name="f", role="dev"), core, Random(1))
    return session, core, list(session.handle(Loaded(records), 0.0))


def connected(tasks: Iterable[str] = ()) -> tuple[Session, Recorder, list[Effect]]:
    session, core, _ = make(tasks=tasks)
    return session, core, list(session.handle(SUBSCRIBED, 0.0))


def update(task: str, uuid: bytes | None = b"u" * 16) -> events.Update:
    status = TaskStatus(
        task_id=TaskId(task), state=TaskState.RUNNING, at=1.0, source=Source.AGENT, agent_id=AgentId("A"), uuid=uuid
    )
    return events.Update(status=status)


def calls_of(effects: Sequence[Effect]) -> list[calls.Call]:
    return [e.call for e in effects if isinstance(e, Call)]


def timers_of(effects: Sequence[Effect]) -> dict[str, float]:
    return {e.name: e.delay_s for e in effects if isinstance(e, SetTimer)}


def test_the_first_thing_a_framework_does_is_to_subscribe_without_coarse_offers() -> None:
    _, core, effects = make()
    (connect,) = [e for e in effects if isinstance(e, Connect)]
    assert connect.subscribe.info.id is None
    assert connect.subscribe.suppressed_roles == ("dev",)
    assert isinstance(core.seen[0], Loaded)


def test_the_id_that_the_master_gave_is_kept_and_used_again() -> None:
    _, _, effects = connected()
    record = next(e for e in effects if isinstance(e, Persist))
    assert record.record is not None
    stored = Stored(record.key, encode_record(record.record))
    session, core, effects = make((stored, Stored("other", b"")))
    (connect,) = [e for e in effects if isinstance(e, Connect)]
    assert connect.subscribe.info.id == "F1"
    assert [r.key for r in core.seen[0].records] == ["other"]
    assert not any(isinstance(e, Persist) for e in session.handle(SUBSCRIBED, 0.0))


def test_an_update_is_acknowledged_after_its_record_and_only_if_it_asks() -> None:
    session, _, _ = connected()
    effects = list(session.handle(update("t"), 1.0))
    assert isinstance(effects[0], Persist)
    (acknowledge,) = calls_of(effects)
    assert isinstance(acknowledge, calls.Acknowledge)
    assert (acknowledge.task_id, acknowledge.uuid) == ("t", b"u" * 16)
    assert calls_of(session.handle(update("t", None), 1.0)) == []


def test_tasks_are_asked_about_until_each_has_been_answered_for() -> None:
    session, _, effects = connected(tasks=["a", "b"])
    (asked,) = calls_of(effects)
    assert isinstance(asked, calls.Reconcile)
    assert [t.task_id for t in asked.tasks] == ["a", "b"]
    session.handle(update("a", None), 1.0)
    first = timers_of(effects)[RECONCILE]
    effects = list(session.handle(Tick(RECONCILE), 2.0))
    (again,) = calls_of(effects)
    assert isinstance(again, calls.Reconcile)
    assert [t.task_id for t in again.tasks] == ["b"]
    assert timers_of(effects)[RECONCILE] > first


def test_after_a_round_there_is_rest() -> None:
    session, _, _ = connected(tasks=["a"])
    session.handle(update("a", None), 1.0)
    effects = session.handle(Tick(RECONCILE), 2.0)
    assert timers_of(effects)[RECONCILE] == RECONCILE_EVERY_S
    (asked,) = calls_of(session.handle(Tick(RECONCILE), 700.0))
    assert isinstance(asked, calls.Reconcile)
    assert [t.task_id for t in asked.tasks] == ["a"]


def test_many_tasks_are_asked_about_in_parts() -> None:
    _, _, effects = connected(tasks=[f"t{n}" for n in range(2500)])
    assert [len(c.tasks) for c in calls_of(effects) if isinstance(c, calls.Reconcile)] == [1000, 1000, 500]


def test_a_broken_stream_is_opened_again_ever_more_slowly() -> None:
    session, core, _ = make()
    delays = []
    for number in range(1, 12):
        effects = session.handle(Disconnected(2 * number - 1, "refused"), float(number))
        delays.append(timers_of(effects)[CONNECT])
        (connect,) = session.handle(Tick(CONNECT), float(number))
        assert isinstance(connect, Connect)
    assert delays[0] <= 0.25
    assert max(delays) <= 15.0
    assert delays[-1] > 7.0
    assert not any(isinstance(i, Disconnected) for i in core.seen)


def test_a_steady_connection_lets_the_next_try_start_anew() -> None:
    session, core, _ = make()
    for number in range(1, 8):
        session.handle(Disconnected(2 * number - 1, "refused"), 0.0)
        session.handle(Tick(CONNECT), 0.0)
    session.handle(SUBSCRIBED, 10.0)
    effects = session.handle(Disconnected(15, "cut"), 100.0)
    assert timers_of(effects)[CONNECT] <= 0.25
    assert isinstance(core.seen[-1], Disconnected)


def test_word_of_an_older_connections_end_changes_nothing() -> None:
    session, _, _ = connected()
    assert session.handle(Disconnected(0, "late"), 1.0) == ()
    assert session.connected


def test_a_silent_master_is_left() -> None:
    session, core, effects = connected()
    allowed = timers_of(effects)[SILENCE]
    session.handle(events.Heartbeat(), 50.0)
    effects = session.handle(Tick(SILENCE), allowed)
    assert timers_of(effects)[SILENCE] == pytest.approx(50.0)
    effects = session.handle(Tick(SILENCE), 50.0 + allowed)
    assert any(isinstance(e, Disconnect) for e in effects)
    assert CONNECT in timers_of(effects)
    assert isinstance(core.seen[-1], Disconnected)


@pytest.mark.parametrize("input", [Asked(1, "a question"), Tick("work")])
def test_nobody_but_the_master_is_word_of_the_master(input: object) -> None:
    session, _, effects = connected()
    allowed = timers_of(effects)[SILENCE]
    session.handle(input, allowed - 1.0)
    assert any(isinstance(e, Disconnect) for e in session.handle(Tick(SILENCE), allowed))


def test_a_call_that_is_not_taken_leads_to_a_new_subscription() -> None:
    session, _, _ = connected()
    call = calls.Revive(framework_id=FrameworkId("F1"))
    assert session.handle(CallFailed(call, "late word", 0), 1.0) == ()
    effects = session.handle(CallFailed(call, "refused", 1), 1.0)
    assert any(isinstance(e, Disconnect) for e in effects)
    assert not session.connected
    assert session.handle(CallFailed(call, "refused", 1), 1.0) == ()


class Mover(Recorder):
    """A core that changes its roles."""

    def take_forbidden(self, failed: CallFailed, now: float) -> Sequence[Effect]:
        self.seen.append(failed)
        return [SetTimer("other roles", 0.0)]


@pytest.mark.parametrize("forbidden", [True, False])
@pytest.mark.parametrize("kind", ["roles", "other"])
@pytest.mark.parametrize("core", [Mover(), Recorder()])
def test_who_changes_its_roles_goes_on_when_it_may_not_be_in_some(core: Recorder, kind: str, forbidden: bool) -> None:
    core.seen.clear()
    info = FrameworkInfo(user="root", name="f", role="dev")
    session = Session(info, core, Random(1))
    session.handle(Loaded(()), 0.0)
    session.handle(SUBSCRIBED, 0.0)
    call: calls.Call = calls.UpdateFramework(info=info)
    if kind == "other":
        call = calls.Revive(framework_id=FrameworkId("F1"))
    failed = CallFailed(call, "ads is bound to ads", 1, forbidden)
    effects = session.handle(failed, 1.0)
    goes_on = isinstance(core, Mover) and kind == "roles" and forbidden
    assert session.connected == goes_on
    assert (core.seen[-1] is failed) == goes_on
    assert ("other roles" in timers_of(effects)) == goes_on
    # What is said of a connection that is over is no news.
    late = msgspec.structs.replace(failed, connection=0)
    assert session.handle(late, 1.0) == ()


def test_a_framework_that_was_removed_comes_back_as_a_new_one() -> None:
    session, _, _ = connected()
    effects = session.handle(events.Error(message="Framework has been removed"), 1.0)
    assert Persist("sdk/framework", None) in effects
    (connect,) = session.handle(Tick(CONNECT), 2.0)
    assert isinstance(connect, Connect)
    assert connect.subscribe.info.id is None


def test_a_framework_that_was_taken_over_ends() -> None:
    session, _, _ = connected()
    (stop,) = session.handle(events.Error(message="Framework failed over"), 1.0)
    assert isinstance(stop, Stop)
    assert stop.code != 0


def test_another_error_is_tried_again() -> None:
    session, _, _ = connected()
    effects = session.handle(events.Error(message="role is not known"), 1.0)
    assert CONNECT in timers_of(effects)
    assert not any(isinstance(e, (Stop, Persist)) for e in effects)


def test_everything_else_reaches_the_framework_as_it_is() -> None:
    session, core, _ = connected()
    offers = events.Offers(offers=())
    session.handle(offers, 1.0)
    session.handle(Tick("own"), 1.0)
    assert core.seen[-2:] == [offers, Tick("own")]


def test_the_record_of_the_framework_is_what_it_was() -> None:
    record = FrameworkRecord(framework_id=FrameworkId("F1"))
    assert msgspec.msgpack.decode(encode_record(record), type=FrameworkRecord) == record
