"""A chosen place to the instance that is launched there, and to the operation that launches it.

Source: Marathon's contract, sections 10 and 15.
"""

from corral.frameworks.services import backoff, partition
from corral.frameworks.services.events import tell_instance
from corral.frameworks.services.launch import (
    build_task,
    counted_values,
    group_value,
    merge_environment,
    scaling_variables,
)
from corral.frameworks.services.pod_launch import build_group
from corral.frameworks.services.pod_tasks import count_checks, make_containers
from corral.frameworks.services.record_spec import Condition, Instance
from corral.frameworks.services.roles import is_enforced
from corral.frameworks.services.state import App, State, replace, task_id_of
from corral.model import calls
from corral.model.task import TaskInfo
from corral.runtime.core import Effect, Note, Persist
from corral.sdk.match import Placement


def place(
    state: State, app: App, waiting: Instance, placement: Placement, ports: tuple[int, ...], now: float
) -> Instance:
    """The instance with where it is launched."""
    offer = placement.offer
    instance = replace(
        waiting,
        version=app.record.version,
        condition=Condition.PROVISIONED,
        agent_id=offer.agent_id,
        hostname=offer.hostname,
        node_ip=offer.ip,
        role=offer.role,
        ports=ports,
        staged_at=now,
        group_value=group_value(app.spec, offer),
        values=counted_values(app.spec, offer),
        checks=count_checks(app.spec),
        readiness=app.spec.readiness is not None,
        containers=make_containers(app.spec, now),
        node=f"{offer.ip}:{offer.port}",
        single=partition.is_single(app.spec),
        fence_s=partition.fence_s(app.spec, state.config),
    )
    app.place(instance)
    tell_instance(state, instance)
    backoff.advance(app, now)
    state.watched[instance.id] = now + state.config.launch_timeout_s
    state.restless[app.spec.id] = None
    return instance


def tell_launch(app: App, instance: Instance, why: str) -> tuple[Effect, Effect]:
    """Write down that it is launched, and say so."""
    facts = {"task": task_id_of(instance), "agent": instance.agent_id, "app": app.spec.id}
    return Persist(f"instance/{instance.id}", instance), Note("task launched", why, facts=facts)


def make_launch(state: State, app: App, instance: Instance, placement: Placement) -> calls.Operation:
    """What launches a placed instance: its task, or the group of tasks of a pod."""
    enforced = ("MARATHON_APP_ENFORCE_GROUP_ROLE", str(is_enforced(state, app.spec.id)).upper())
    if app.spec.pod is not None:
        group = build_group(app, instance, placement, state.config)
        return replace(group, tasks=tuple(_with_variable(task, enforced) for task in group.tasks))
    record = state.elastic.records.get(app.spec.id)
    scaling = () if record is None else scaling_variables(app.spec.id, record.token, state.config)
    return calls.Launch(tasks=(build_task(app, instance, placement, state.config, (enforced, *scaling)),))


def _with_variable(task: TaskInfo, variable: tuple[str, str]) -> TaskInfo:
    assert task.command is not None, "containers of pods are commands"
    environment = merge_environment((variable,), task.command.environment)
    return replace(task, command=replace(task.command, environment=environment))
