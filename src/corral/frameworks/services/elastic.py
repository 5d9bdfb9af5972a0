"""Elastic services at work: measures what is watched, scales what has rules, answers those who ask to grow or shrink.

Rules: an app is measured while it has rules, or for a while after somebody asked. What an app asks for itself stays
within its bounds and needs its token. Source: Gaia's Monitoring, Expand and Shrink.
"""

from collections import deque
from typing import Any

from corral.frameworks.services.commands import need_app
from corral.frameworks.services.deployments import Change, deploy
from corral.frameworks.services.record_spec import Condition, Instance
from corral.frameworks.services.scaling import average, bounds_at, decide, remember
from corral.frameworks.services.scaling_spec import (
    MEASURE,
    MEASURE_S,
    GetScaling,
    GetUsage,
    Metric,
    Moved,
    Push,
    Resize,
    Sample,
    ScalingCommand,
    ScalingRecord,
    SetScaling,
)
from corral.frameworks.services.state import App, State, replace, task_id_of
from corral.lib.errors import Conflict, CorralError, Forbidden, NotFound, Unprocessable
from corral.lib.ids import mint_uuid
from corral.lib.units import format_timestamp
from corral.net.auth import OF_AN_APP
from corral.runtime.core import Effect, Note, Persist, Reply, SetTimer
from corral.sdk.effects import Measure, Measured

Json = Any

YOUNG_S = 2.0
WATCH_S = 600.0
STALE_S = 60.0
MOST_SAMPLES = 60


def command(state: State, ask: int, asked: ScalingCommand, now: float) -> list[Effect]:
    """Errors: `NotFound` for the app, `Forbidden` for a wrong token; as each says."""
    match asked:
        case GetUsage():
            app = _need(state, asked.id, asked.token)
            state.elastic.watched_until[asked.id] = now + WATCH_S
            return [*_start(state), Reply(ask, _view_usage(state, app))]
        case GetScaling():
            _need(state, asked.id, asked.token)
            return [Reply(ask, _view_scaling(_need_record(state, asked.id)))]
        case SetScaling():
            return _set(state, ask, asked)
        case Push():
            _need(state, asked.id, asked.token)
            state.elastic.pushed.setdefault((asked.id, asked.metric), {})[asked.source] = (now, asked.value)
            return [*_start(state), Reply(ask, None)]
        case Resize():
            return _resize(state, ask, asked, now)


def _need(state: State, app_id: str, token: str | None) -> App:
    app = need_app(state, app_id)
    record = state.elastic.records.get(app_id)
    if token is not None and (record is None or token != record.token):
        raise Forbidden(f"the token is not that of app {app_id}; its tasks have it as CORRAL_SCALING_TOKEN")
    return app


def _need_record(state: State, app_id: str) -> ScalingRecord:
    record = state.elastic.records.get(app_id)
    if record is None:
        raise NotFound(f"App '{app_id}' has no rules of scaling; PUT /corral/v1/scaling{app_id} gives it some")
    return record


def _set(state: State, ask: int, asked: SetScaling) -> list[Effect]:
    need_app(state, asked.id)
    old = state.elastic.records.get(asked.id)
    key = f"scaling{asked.id}"
    if asked.record is None:
        _need_record(state, asked.id)
        del state.elastic.records[asked.id]
        note = Note("app is scaled no more", "somebody asked for it", facts={"app": asked.id})
        return [Persist(key, None), note, Reply(ask, None)]
    if asked.record.most > state.config.most_instances:
        most = state.config.most_instances
        raise Unprocessable("Object is not valid", {"/max": [f"this installation takes at most {most} of one app"]})
    token = old.token if old is not None else f"{OF_AN_APP}{mint_uuid(state.random)}"
    record = replace(asked.record, token=token, history=old.history if old is not None else ())
    state.elastic.records[asked.id] = record
    # Tasks that start from now on find the token in their environment.
    state.apps[asked.id].template = None
    note = Note("app is scaled", f"between {record.least} and {record.most}", facts={"app": asked.id})
    return [Persist(key, record), note, SetTimer(MEASURE, 0.1), Reply(ask, _view_scaling(record))]


def _resize(state: State, ask: int, asked: Resize, now: float) -> list[Effect]:
    """Errors: `Unprocessable` beyond the bounds; `NotFound` for an instance; `Conflict` while a deployment goes on."""
    app = _need(state, asked.id, asked.token)
    record = state.elastic.records.get(asked.id)
    before = app.spec.instances
    after = before + asked.by
    least, most, origin = (
        bounds_at(record, now)
        if record is not None
        else (0, state.config.most_instances, "what the installation takes")
    )
    if not least <= after <= most:
        told = f"app {asked.id} has {before} instances and would have {after}, outside of {least} to {most}, {origin}"
        raise Unprocessable("Object is not valid", {"/by": [told]})
    missing = [i for i in asked.instances if i not in app.instances]
    if missing:
        raise NotFound(f"App '{asked.id}' has no instance {missing[0]}; GET /corral/v1/usage{asked.id} lists them")
    by = "operator" if asked.token is None else "app"
    why = asked.why or f"the {by} asked for {abs(asked.by)} {'more' if asked.by > 0 else 'fewer'}"
    result, effects = _scale(state, app, after, by, why, now, force=asked.force)
    for instance_id in asked.instances:
        state.sentenced[instance_id] = why
    return [*effects, Reply(ask, (result, {"id": asked.id, "before": before, "instances": after}))]


def _scale(
    state: State, app: App, instances: int, by: str, why: str, now: float, *, force: bool = False
) -> tuple[Any, list[Effect]]:
    app_id, before = app.spec.id, app.spec.instances
    change = Change(id=app_id, spec=replace(app.spec, instances=instances))
    result, effects = deploy(state, [change], force=force, why=why, now=now)
    record = state.elastic.records.get(app_id)
    if record is not None:
        moved = Moved(at=now, before=before, after=instances, by=by, why=why)
        record = state.elastic.records[app_id] = remember(record, moved)
        effects.append(Persist(f"scaling{app_id}", record))
    effects.append(Note("app scaled", why, facts={"app": app_id, "before": before, "after": instances, "by": by}))
    return result, effects


# Measuring.


def _start(state: State) -> list[Effect]:
    return [SetTimer(MEASURE, 0.1 if not state.elastic.samples else MEASURE_S, if_unset=True)]


def tick(state: State, now: float) -> list[Effect]:
    """Ask the nodes of what is watched, and scale by what is known."""
    elastic = state.elastic
    for app_id in [a for a, until in elastic.watched_until.items() if until <= now]:
        del elastic.watched_until[app_id]
    watched = sorted({*elastic.records, *elastic.watched_until} & state.apps.keys())
    effects: list[Effect] = []
    nodes: dict[str, None] = {}
    alive: set[str] = set()
    for app_id in watched:
        for instance in state.apps[app_id].instances.values():
            if instance.condition is Condition.RUNNING and instance.node:
                nodes[instance.node] = None
                alive.add(instance.id)
    for gone in elastic.samples.keys() - alive:
        del elastic.samples[gone]
    for app_id in watched:
        effects += _autoscale(state, app_id, now)
    if watched:
        # Nothing can be said of processors before the second sample.
        young = any(len(elastic.samples.get(each, ())) < 2 for each in alive)
        effects.append(SetTimer(MEASURE, YOUNG_S if young else MEASURE_S))
    if nodes and not elastic.measuring:
        elastic.measuring = True
        effects.append(Measure(nodes=tuple(nodes)))
    return effects


def measured(state: State, input: Measured, now: float) -> list[Effect]:
    """What the nodes told, by task."""
    state.elastic.measuring = False
    for app_id in {*state.elastic.records, *state.elastic.watched_until} & state.apps.keys():
        for instance in state.apps[app_id].instances.values():
            found = input.usage.get(task_id_of(instance))
            if found is not None:
                _take_sample(state, instance, now, *found)
    return []


def _take_sample(state: State, instance: Instance, now: float, cpu_s: float, mem_bytes: int) -> None:
    kept = state.elastic.samples.setdefault(instance.id, deque(maxlen=MOST_SAMPLES))
    last = kept[-1] if kept else None
    if last is not None and now - last.at < 1.0:
        return
    cpus = None
    if last is not None and cpu_s >= last.cpu_s:
        cpus = (cpu_s - last.cpu_s) / (now - last.at)
    kept.append(Sample(at=now, cpus=cpus, mem_bytes=mem_bytes, cpu_s=cpu_s))


def _autoscale(state: State, app_id: str, now: float) -> list[Effect]:
    record = state.elastic.records.get(app_id)
    app = state.visible(app_id)
    if record is None or app is None or not record.enabled or app_id in state.locks:
        return []
    decision = decide(record, app.spec.instances, values_of(state, app, now), now)
    if decision is None or decision.instances == app.spec.instances:
        return []
    try:
        return _scale(state, app, decision.instances, "auto", decision.why, now)[1]
    except Conflict:
        return []
    except CorralError as error:
        return [Note("app is not scaled", error.message, "warning", {"app": app_id})]


def values_of(state: State, app: App, now: float) -> dict[Metric, float]:
    """Each metric per instance, as far as it is known and fresh."""
    spec = app.spec
    last = [kept[-1] for i in app.instances if (kept := state.elastic.samples.get(i))]
    fresh = [sample for sample in last if now - sample.at <= STALE_S]
    found: dict[Metric, float | None] = {}
    if spec.cpus > 0:
        found[Metric.CPU] = average([s.cpus / spec.cpus * 100 for s in fresh if s.cpus is not None])
    if spec.mem_mb > 0:
        found[Metric.MEMORY] = average([s.mem_bytes / (spec.mem_mb * (1 << 20)) * 100 for s in fresh])
    for metric in (Metric.REQUESTS, Metric.QUEUE):
        told = [v for at, v in state.elastic.pushed.get((spec.id, metric), {}).values() if now - at <= STALE_S]
        told += _balanced(state, metric, spec.id).values()
        if told:
            found[metric] = sum(told) / max(1, spec.instances)
    return {metric: round(value, 3) for metric, value in found.items() if value is not None}


def _balanced(state: State, metric: Metric, app_id: str) -> dict[str, float]:
    """What balancers have measured of an app, by balancer."""
    found = state.discovery.traffic if metric is Metric.REQUESTS else state.discovery.queues
    return {balancer: values[app_id] for balancer, values in found.items() if app_id in values}


# Shown.


def _view_usage(state: State, app: App) -> Json:
    instances = []
    for instance in app.instances.values():
        kept = state.elastic.samples.get(instance.id)
        if instance.staged_at is None:
            continue
        instances.append(
            {
                "id": instance.id,
                "host": instance.hostname,
                "state": str(instance.condition),
                "history": [
                    {"at": format_timestamp(s.at), "cpus": _rounded(s.cpus), "memBytes": s.mem_bytes}
                    for s in kept or ()
                ],
            }
        )
    last = [kept[-1] for i in app.instances if (kept := state.elastic.samples.get(i))]
    return {
        "id": app.spec.id,
        "instances": instances,
        "asked": {"cpus": app.spec.cpus, "memBytes": round(app.spec.mem_mb * (1 << 20))},
        "total": {"cpus": _rounded(sum(s.cpus or 0.0 for s in last)), "memBytes": sum(s.mem_bytes for s in last)},
        "pushed": {
            str(metric): {source: value for source, (_, value) in told.items()}
            for (app_id, metric), told in state.elastic.pushed.items()
            if app_id == app.spec.id
        },
        "balanced": {
            str(metric): told
            for metric in (Metric.REQUESTS, Metric.QUEUE)
            if (told := _balanced(state, metric, app.spec.id))
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _view_scaling(record: ScalingRecord) -> Json:
    return {
        "id": record.app,
        "min": record.least,
        "max": record.most,
        "targets": {str(metric): target for metric, target in record.targets.items()},
        "schedule": [_view_window(window) for window in record.windows],
        "upCooldownSeconds": record.up_cooldown_s,
        "downCooldownSeconds": record.down_cooldown_s,
        "enabled": record.enabled,
        "history": [
            {"at": format_timestamp(m.at), "before": m.before, "after": m.after, "by": m.by, "why": m.why}
            for m in reversed(record.history)
        ],
    }


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _view_window(window: Any) -> Json:
    return {
        "from": f"{window.begin // 60:02}:{window.begin % 60:02}",
        "to": f"{window.end // 60:02}:{window.end % 60:02}",
        "days": [_DAYS[day] for day in window.days],
        "min": window.least,
        "max": window.most,
    }
