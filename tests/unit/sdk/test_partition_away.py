"""A framework goes on asking about tasks whose agent is away: a new master may not know that there is news to tell."""

from random import Random

from corral.model import calls, events
from corral.model.framework import FrameworkInfo
from corral.model.ids import FrameworkId, TaskId
from corral.model.task import Source, TaskState, TaskStatus
from corral.runtime.core import Effect, SetTimer, Tick
from corral.sdk.effects import Call
from corral.sdk.scheduler import AWAY, AWAY_EVERY_S, Session
from corral.sim.keeper import KeeperCore, Kept

MASTER = events.MasterInfo(id="m", hostname="master", ip="127.0.0.1", port=4680, version="1")


def make_session() -> tuple[Session, KeeperCore]:
    core = KeeperCore()
    core.kept = {TaskId("keep.1"): Kept("a1"), TaskId("keep.2"): Kept("a2")}  # type: ignore[arg-type]
    session = Session(FrameworkInfo(user="root", name="k"), core, Random(1))
    session.handle(events.Subscribed(framework_id=FrameworkId("F"), heartbeat_interval_s=15.0, master=MASTER), 0.0)
    return session, core


def tell(session: Session, task_id: str, state: TaskState, now: float) -> list[Effect]:
    status = TaskStatus(task_id=TaskId(task_id), state=state, at=now, source=Source.MASTER)
    return list(session.handle(events.Update(status=status), now))


def asked(effects: list[Effect]) -> list[str]:
    found = [e.call for e in effects if isinstance(e, Call) and isinstance(e.call, calls.Reconcile)]
    return [task.task_id for call in found for task in call.tasks]


def test_it_asks_every_minute_about_those_that_are_away_and_no_others() -> None:
    session, _ = make_session()
    effects = tell(session, "keep.1", TaskState.UNREACHABLE, 1.0)
    assert [e for e in effects if isinstance(e, SetTimer) and e.name == AWAY] == [
        SetTimer(AWAY, AWAY_EVERY_S, if_unset=True)
    ]
    for _ in range(3):
        effects = list(session.handle(Tick(AWAY), 60.0))
        assert asked(effects) == ["keep.1"]
        assert SetTimer(AWAY, AWAY_EVERY_S) in effects
    tell(session, "keep.1", TaskState.RUNNING, 200.0)
    assert session.handle(Tick(AWAY), 260.0) == []


def test_what_has_ended_meanwhile_is_not_asked_about() -> None:
    session, core = make_session()
    tell(session, "keep.1", TaskState.UNREACHABLE, 1.0)
    del core.kept[TaskId("keep.1")]
    assert session.handle(Tick(AWAY), 60.0) == []
