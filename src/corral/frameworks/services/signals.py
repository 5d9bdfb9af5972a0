"""Tells running instances by a signal that a value they use is another one, and goes on until each has heard it.

An app that is being told has one record, so that the next leader goes on; a signal may then come twice. An instance
that was launched later has the new value anyway. Source: corral's own, after what templates of other schedulers do.
"""

from corral.frameworks.services.names import read_task_id
from corral.frameworks.services.record_spec import Condition, Goal, Instance
from corral.frameworks.services.secrets import users_of
from corral.frameworks.services.signal_spec import SignalRecord, Telling
from corral.frameworks.services.state import App, State, task_ids_of
from corral.lib.backoff import grow_delay_s
from corral.model.ids import FrameworkId, TaskId
from corral.runtime.core import Effect, Loaded, Note, Persist, SetTimer, decode_records
from corral.sdk.effects import Signal, Signalled

SIGNAL = "signal/"
RECORD = "signal"
FIRST_S = 1.0
MOST_S = 60.0
MOST_TRIES = 10


def begin(state: State, app: App, signal: str, source: str, now: float) -> list[Effect]:
    """A value has changed: every instance there is gets the signal."""
    record = SignalRecord(app=app.spec.id, signal=signal, source=source, at=now)
    told = Telling(record)
    effects = _send_to_all(state, app, told)
    if not told.waiting:
        return []
    state.signalling[app.spec.id] = told
    facts = {"app": app.spec.id, "signal": signal, "instances": len(told.waiting)}
    return [
        Persist(RECORD + app.spec.id, record),
        Note("app is signalled", f"{source} has changed", facts=facts),
        *effects,
    ]


def take_up(state: State, loaded: Loaded) -> list[Effect]:
    """Go on with what the last life had begun."""
    effects: list[Effect] = []
    for record in decode_records(loaded, RECORD + "/", SignalRecord).values():
        app = state.apps.get(record.app)
        told = Telling(record)
        found = _send_to_all(state, app, told) if app is not None else []
        if told.waiting:
            state.signalling[record.app] = told
            effects += found
        else:
            effects.append(Persist(RECORD + record.app, None))
    return effects


def signalled(state: State, input: Signalled) -> list[Effect]:
    """One task has heard it, or has not and is told again while it lives."""
    found = _find(state, input.task_id)
    if found is None:
        return []
    told, app = found
    if input.why and _lives(app, input.task_id):
        told.waiting[input.task_id] += 1
        tries = told.waiting[input.task_id]
        if tries < MOST_TRIES:
            delay_s = grow_delay_s(tries, first_s=FIRST_S, factor=2.0, most_s=MOST_S)
            return [SetTimer(SIGNAL + input.task_id, delay_s)]
        facts = {"app": told.record.app, "task": input.task_id, "signal": told.record.signal}
        why = f"{tries} tries failed: {input.why}; restart it, so that it has the new {told.record.source}"
        return [Note("task not signalled", why, "warning", facts), *_done(state, told, input.task_id)]
    return _done(state, told, input.task_id)


def tick(state: State, task_id: TaskId) -> list[Effect]:
    """Try again."""
    found = _find(state, task_id)
    if found is None:
        return []
    told, app = found
    instance = _lives(app, task_id)
    if instance is None:
        return _done(state, told, task_id)
    return [_signal(state, told, instance, task_id)]


def _send_to_all(state: State, app: App, told: Telling) -> list[Effect]:
    effects: list[Effect] = []
    users = users_of(app.spec, told.record.source) if app.spec.pod is not None else None
    for instance in app.instances.values():
        if _is_told(instance) and (instance.staged_at or 0.0) <= told.record.at:
            for task_id in task_ids_of(instance):
                if users is not None and _container_of(task_id) not in users:
                    continue
                told.waiting[task_id] = 0
                effects.append(_signal(state, told, instance, task_id))
    return effects


def _container_of(task_id: TaskId) -> str:
    name = read_task_id(task_id)
    return name.container if name is not None else ""


def _is_told(instance: Instance) -> bool:
    return instance.condition is not Condition.SCHEDULED and instance.goal is Goal.RUNNING


def _signal(state: State, told: Telling, instance: Instance, task_id: TaskId) -> Effect:
    return Signal(
        node=instance.node, framework_id=state.framework_id or FrameworkId(""), task_id=task_id,
        signal=told.record.signal, renew=True,
    )  # fmt: skip


def _find(state: State, task_id: TaskId) -> tuple[Telling, App] | None:
    name = read_task_id(task_id)
    told = state.signalling.get(name.app) if name is not None else None
    app = state.apps.get(name.app) if name is not None else None
    return (told, app) if told is not None and app is not None and task_id in told.waiting else None


def _lives(app: App, task_id: TaskId) -> Instance | None:
    """The instance that this task is the present launch of."""
    name = read_task_id(task_id)
    instance = app.instances.get(name.instance) if name is not None else None
    alive = instance is not None and _is_told(instance) and task_id in task_ids_of(instance)
    return instance if alive else None


def _done(state: State, told: Telling, task_id: TaskId) -> list[Effect]:
    del told.waiting[task_id]
    if told.waiting:
        return []
    del state.signalling[told.record.app]
    return [Persist(RECORD + told.record.app, None)]
