"""What the agents tell of the health of instances.

Rules: an instance with checks counts as healthy when all of them pass, and as not healthy as long as that is not
known. What was told last is kept with the instance, so a new leader knows it until something new is told.
Source: Marathon's contract, sections 8, 12 and 22.
"""

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.checks import write_health_check
from corral.frameworks.services.events import tell
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.state import App, State, replace, task_id_of
from corral.model.health import CheckResult
from corral.model.task import TaskState, TaskStatus


def take_health(instance: Instance, status: TaskStatus) -> Instance:
    """The instance with what a status says of its health; one that says nothing of it changes nothing."""
    if status.check is not None and status.check != instance.checked:
        instance = replace(instance, checked=status.check)
    if status.healthy is None and not status.health:
        return instance
    if instance.readiness:
        return replace(instance, healthy=_judge(instance.checks, status.health), health=status.health)
    return replace(instance, healthy=status.healthy, health=status.health) if instance.checks else instance


def _judge(checks: int, health: tuple[CheckResult, ...]) -> bool | None:
    """As the agent does, but of the health checks alone: a readiness check stands behind them and is none."""
    own = [result.alive for result in health if result.index < checks]
    if not all(own):
        return False
    return True if own and len(own) == checks else None


def is_health_kill(instance: Instance, status: TaskStatus) -> bool:
    """Whether the agent has ended the task because its checks failed."""
    if not instance.checks or status.state is not TaskState.KILLED or status.healthy is not False:
        return False
    return not instance.readiness or _judge(instance.checks, status.health) is False


# Events.


def tell_health(state: State, app: App, before: Instance, now: Instance) -> None:
    """Each new failure of a check, and the instance's health when it is another one."""
    if state.heard is None or before.health == now.health:
        return
    counted = {r.index: r.consecutive_failures for r in before.health}
    checks = app.spec.health_checks if now.config == app.record.config else ()
    for result in now.health:
        if result.consecutive_failures > counted.get(result.index, 0) and result.index < len(checks):
            tell(
                state, "failed_health_check_event",
                appId=now.app, taskId=task_id_of(now), instanceId=now.id,
                healthCheck=write_health_check(checks[result.index]),
            )  # fmt: skip
    if before.healthy is now.healthy:
        return
    tell(
        state, "instance_health_changed_event",
        instanceId=now.id, runSpecId=now.app, runSpecVersion=now.version, healthy=now.healthy,
    )  # fmt: skip
    if now.healthy is not None:
        tell(
            state, "health_status_changed_event",
            appId=now.app, instanceId=now.id, taskId=task_id_of(now), version=now.version, alive=now.healthy,
        )  # fmt: skip


def tell_health_kill(state: State, instance: Instance, status: TaskStatus) -> None:
    if state.heard is not None:
        tell(
            state, "unhealthy_instance_kill_event",
            appId=instance.app, taskId=status.task_id, instanceId=instance.id, version=instance.version,
            reason=status.message or "", host=instance.hostname, slaveId=instance.agent_id or "",
        )  # fmt: skip


def tell_checks(state: State, old: AppSpec | None, new: AppSpec | None, version: str) -> None:
    """The checks that an app has now and had not before, and that it had and has no more: without `new` it goes."""
    before, after = ((spec.health_checks if spec is not None else ()) for spec in (old, new))
    if state.heard is None or after == before:
        return
    for check in before:
        if old is not None and check not in after:
            tell(state, "remove_health_check_event", appId=old.id)
    for check in after:
        if new is not None and check not in before:
            tell(
                state, "add_health_check_event",
                appId=new.id, version=version, healthCheck=write_health_check(check),
            )  # fmt: skip
