"""The records of the last life made into state again; recovery is nothing but this.

Instances that were waiting have no record: the app's number says how many are missing. Instances that were launched are
reconciled with the master by the session as soon as it is subscribed. Source: Marathon's contract, sections 7 to 9.
"""

from corral.frameworks.services import residency, signals
from corral.frameworks.services.draining import LEAVE
from corral.frameworks.services.pace import DEADLINE
from corral.frameworks.services.record_spec import (
    AppRecord,
    Condition,
    Deployment,
    FailureRecord,
    GroupRecord,
    HistoryRecord,
    Instance,
    OutcomeRecord,
    VersionRecord,
)
from corral.frameworks.services.role_spec import RESIDENCY, ResidentRecord
from corral.frameworks.services.scaling_spec import MEASURE, MEASURE_S, ScalingRecord
from corral.frameworks.services.state import App, State
from corral.frameworks.services.upkeep import apply_strategy, count_in, silence_timer
from corral.frameworks.services.webhook_spec import WEBHOOK, Webhook
from corral.lib.units import parse_timestamp
from corral.runtime.core import Effect, Loaded, Note, Persist, SetTimer, decode_records
from corral.sdk import notices


def load(state: State, loaded: Loaded, now: float) -> list[Effect]:
    """Errors: `msgspec.ValidationError` when a record is not of its kind; the process must not go on then."""
    effects: list[Effect] = []
    for app_id, record in decode_records(loaded, "app", AppRecord).items():
        state.apps[app_id] = App(record, now)
        count_in(state, state.apps[app_id])
    for key, version in decode_records(loaded, "version", VersionRecord).items():
        state.versions.setdefault(key.rpartition("@")[0], {})[version.version] = version
    state.groups.update(decode_records(loaded, "group", GroupRecord))
    state.history.update(decode_records(loaded, "history/", HistoryRecord))
    state.failures.update(decode_records(loaded, "failure", FailureRecord))
    for instance in decode_records(loaded, "instance/", Instance).values():
        effects.extend(_adopt(state, instance, now))
    for deployment in decode_records(loaded, "deployment/", Deployment).values():
        state.deployments[deployment.id] = deployment
        state.done[deployment.id] = set()
        state.locks.update(dict.fromkeys(deployment.apps, deployment.id))
        if deployment.policy.deadline_s and not deployment.paused:
            effects.append(SetTimer(DEADLINE + deployment.id, deployment.policy.deadline_s))
    state.elastic.records.update(decode_records(loaded, "scaling", ScalingRecord))
    if state.elastic.records:
        effects.append(SetTimer(MEASURE, MEASURE_S, if_unset=True))
    hooks = decode_records(loaded, WEBHOOK, Webhook).values()
    state.webhooks.update({hook.url: hook for hook in sorted(hooks, key=lambda hook: hook.since_at)})
    for role in decode_records(loaded, RESIDENCY, ResidentRecord):
        state.roles.reserve(role.removeprefix("/") or state.config.reserved_role)
    effects += signals.take_up(state, loaded)
    state.listen()
    effects += notices.take_up(state.outbox, loaded)
    outcomes = decode_records(loaded, "outcome/", OutcomeRecord).values()
    state.outcomes.update({o.id: o for o in sorted(outcomes, key=lambda o: o.ended_at)})
    versions = [app.record.version for app in state.apps.values()]
    versions += state.history
    versions += [d.version for d in state.deployments.values()]
    versions += [version for kept in state.versions.values() for version in kept]
    if versions:
        state.last_version_at = round(parse_timestamp(max(versions)) * 1000)
    effects += state.node_memory.load(loaded, now)
    state.touch(state.apps)
    if state.apps:
        facts = {"apps": len(state.apps), "deployments": len(state.deployments)}
        effects.append(Note("services recovered", "records of the last life", facts=facts))
    return effects


def _adopt(state: State, instance: Instance, now: float) -> list[Effect]:
    app = state.apps.get(instance.app)
    if app is None:
        # Its app is forgotten, so its task is unknown and will be killed when it is heard of.
        return [Persist(f"instance/{instance.id}", None)]
    app.place(instance)
    leave: list[Effect] = []
    if instance.leave_at is not None:
        leave.append(SetTimer(LEAVE + instance.id, max(instance.leave_at - now, 0.0)))
    if instance.unreachable_at is not None:
        # How long it was silent before this process lived, only a clock that may have been set could tell.
        silent = [SetTimer(silence_timer(instance), 0.0)]
        return [*leave, *(apply_strategy(state, app, instance, now) if instance.single else silent)]
    if leave:
        return leave
    if residency.is_parked(instance):
        return []
    if instance.leaves:
        state.watched[instance.id] = now + state.config.kill_retry_s
    elif instance.condition in (Condition.PROVISIONED, Condition.STAGING, Condition.STARTING):
        state.watched[instance.id] = now + state.config.launch_timeout_s
    return []
