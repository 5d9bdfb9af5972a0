"""The containers of a pod's instance, from their launch to their end, seen as one.

An instance runs when all its containers do and is over when all of them have ended; the first to end is the cause, and
takes the others with it. Source: Marathon's contract, section 6.
"""

from msgspec.structs import replace

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.record_spec import ContainerState, EndedPod, Instance
from corral.frameworks.services.state import App
from corral.model.task import TERMINAL, TaskState, TaskStatus

MOST_ENDED = 10

_ORDER = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING)


def make_containers(spec: AppSpec, now: float) -> tuple[ContainerState, ...]:
    """As they are when they are launched; none for an app that is no pod."""
    return () if spec.pod is None else tuple(ContainerState(name=c.name, since_at=now) for c in spec.pod.containers)


def count_checks(spec: AppSpec) -> int:
    if spec.pod is not None:
        return sum(c.check is not None for c in spec.pod.containers)
    return len(spec.health_checks)


def take_container(instance: Instance, name: str, status: TaskStatus) -> tuple[Instance, TaskStatus]:
    """The instance with what was told of one container, and what that says of the instance as a whole.

    Shapes: the same instance when it is no news.
    """
    old = next(c for c in instance.containers if c.name == name)
    if old.state in TERMINAL or _goes_back(old.state, status.state):
        return instance, status
    container_id = status.container_status.container_id if status.container_status is not None else None
    new = replace(
        old,
        state=status.state if status.state is not TaskState.UNKNOWN else TaskState.GONE,
        since_at=status.at if status.state is not old.state else old.since_at,
        message=status.message or "",
        healthy=old.healthy if status.healthy is None else status.healthy,
        container_id=container_id or old.container_id,
    )
    back = instance.unreachable_at is not None
    if new == old and not back:
        return instance, status
    containers = tuple(new if c is old else c for c in instance.containers)
    return replace(instance, containers=containers), _sum_up(instance, containers, status)


def _goes_back(now: TaskState, told: TaskState) -> bool:
    if now is TaskState.KILLING:
        return told in _ORDER
    return now in _ORDER and told in _ORDER and _ORDER.index(told) < _ORDER.index(now)


def _sum_up(instance: Instance, containers: tuple[ContainerState, ...], status: TaskStatus) -> TaskStatus:
    judged = [c.healthy for c in containers if c.healthy is not None]
    healthy = False if False in judged else True if judged and len(judged) >= instance.checks else None
    told = replace(status, healthy=healthy if instance.checks else None, health=())
    ended = [c for c in containers if c.state in TERMINAL]
    if len(ended) == len(containers):
        first = min(ended, key=lambda c: (c.since_at, c.state is TaskState.KILLED))
        return replace(told, state=first.state, message=f"container {first.name}: {first.message or first.state}")
    if ended or any(c.state is TaskState.KILLING for c in containers):
        return replace(told, state=TaskState.KILLING)
    return replace(told, state=min((c.state for c in containers), key=_ORDER.index))


def bury(app: App, instance: Instance, why: str, at: float) -> None:
    """Keep what became of an instance, as long as there are not too many newer ones."""
    app.ended.append(
        EndedPod(
            id=f"{instance.id}.{instance.incarnation}",
            started_at=instance.started_at or instance.created_at,
            ended_at=max([at, *(c.since_at for c in instance.containers)]),
            hostname=instance.hostname,
            message=why,
            containers=instance.containers,
        )
    )
    del app.ended[:-MOST_ENDED]
