"""What happened, in the words of Marathon's event bus: the bodies of `GET /v2/events` and the frames they travel in.

While nobody listens `state.heard` is None and every `tell_...` returns at once. Otherwise they gather, in order, what
one input led to, and `take_heard` makes effects of it. Some types end the iteration of clients that do not know them;
those are sent only to a listener that names them.
Source: Marathon's contract, sections 18 and 19.
"""

from collections.abc import Collection, Sequence
from typing import Any

from corral.frameworks.services import webhooks
from corral.frameworks.services.command_spec import (
    Bound,
    Command,
    CreateApp,
    CreateGroup,
    DeleteApp,
    DeleteGroup,
    PatchGroup,
    RestartApp,
    UpdateApps,
    UpdateGroup,
)
from corral.frameworks.services.names import read_task_id
from corral.frameworks.services.record_spec import Condition, Deployment, Instance
from corral.frameworks.services.registry import CHANGED
from corral.frameworks.services.shown import write_versioned
from corral.frameworks.services.state import App, State
from corral.frameworks.services.validate import parent_id
from corral.frameworks.services.views import view_action
from corral.lib.errors import CorralError, NotFound
from corral.lib.units import format_timestamp
from corral.model import events
from corral.model.task import TaskState, TaskStatus
from corral.runtime.core import Effect, Refuse
from corral.sdk.effects import Publish

Json = Any

ATTACHED = "event_stream_attached"
DETACHED = "event_stream_detached"
KEEP_ALIVE = b":\n\n"
KEEP_ALIVE_S = 15.0

ONLY_WHEN_NAMED = frozenset(
    {"scheduler_registered_event", "scheduler_reregistered_event", "scheduler_disconnected_event", CHANGED}
)
"""The PyPI client gives up on types that it does not know."""

_ENDED = {
    TaskState.FINISHED: Condition.FINISHED,
    TaskState.FAILED: Condition.FAILED,
    TaskState.KILLED: Condition.KILLED,
    TaskState.ERROR: Condition.ERROR,
    TaskState.DROPPED: Condition.DROPPED,
    TaskState.GONE: Condition.GONE,
    TaskState.GONE_BY_OPERATOR: Condition.GONE,
    TaskState.LOST: Condition.GONE,
    TaskState.UNKNOWN: Condition.UNKNOWN,
}


# Gathered while an input is handled.


def tell(state: State, kind: str, **body: Json) -> None:
    """One event. Shapes: `body` without `eventType` and `timestamp`, which all have."""
    if state.heard is not None:
        state.heard.append((kind, body))


def take_heard(state: State, now: float) -> list[Effect]:
    """The events gathered since the last time."""
    heard = state.heard
    if not heard:
        return []
    state.heard = []
    effects: list[Effect] = []
    for kind, stated in heard:
        body = write_body(kind, now, stated)
        if state.followed:
            effects.append(Publish(kind, body))
        if kind not in ONLY_WHEN_NAMED:
            effects += webhooks.post(state, kind, body)
    return effects


def write_body(kind: str, now: float, body: dict[str, Json]) -> dict[str, Json]:
    """An event as its data shows it; what is unknown is left out."""
    stated = {key: value for key, value in body.items() if value is not None}
    return {**stated, "eventType": kind, "timestamp": format_timestamp(now)}


def refuse(state: State, ask: int, command: Command, error: CorralError, now: float) -> list[Effect]:
    """A refused command is an event too when it would have changed what is wanted."""
    # Each command checks everything first, so nothing can have been gathered that did not come to pass.
    group_id = _changed_group(command)
    if group_id is not None and not isinstance(error, NotFound):
        tell(state, "group_change_failed", groupId=group_id, version=format_timestamp(now), reason=error.message)
    return [Refuse(ask, error), *take_heard(state, now)]


def _changed_group(command: Command) -> str | None:
    match command:
        case Bound(command=command):
            return _changed_group(command)
        case CreateApp(spec=spec):
            return parent_id(spec.id)
        case DeleteApp(id=app_id) | RestartApp(id=app_id):
            return parent_id(app_id)
        case UpdateApps(updates=updates):
            return parent_id(updates[0].id) if len(updates) == 1 else "/"
        case CreateGroup(update=update) | UpdateGroup(update=update):
            return update.id
        case DeleteGroup(id=group_id) | PatchGroup(id=group_id):
            return group_id
        case _:
            return None


def tell_posted(state: State, app: App, client: str, uri: str) -> None:
    """Somebody gave this definition by the API."""
    if state.heard is not None and uri:
        tell(state, "api_post_event", clientIp=client, uri=uri, appDefinition=write_versioned(app.record))


def tell_status(state: State, instance: Instance, status: TaskStatus) -> None:
    """The master told something new of a task; when it is the end, the instance has ended with it."""
    if state.heard is None:
        return
    tell(
        state,
        "status_update_event",
        slaveId=status.agent_id or instance.agent_id or "",
        taskId=status.task_id,
        taskStatus=str(status.state),
        message=status.message or "",
        appId=instance.app,
        host=instance.hostname,
        ipAddresses=[{"ipAddress": ip, "protocol": "IPv6" if ":" in ip else "IPv4"} for ip in instance.ips],
        ports=[p for p in instance.ports if p],
        version=instance.version,
    )
    if status.state in _ENDED:
        tell_instance(state, instance, _ENDED[status.state])


def tell_instance(state: State, instance: Instance, condition: Condition | None = None) -> None:
    """An instance stands otherwise than before: as it says, or as `condition` does when it is no more."""
    if state.heard is None:
        return
    tell(
        state,
        "instance_changed_event",
        instanceId=instance.id,
        condition=str(condition or instance.condition),
        runSpecId=instance.app,
        agentId=instance.agent_id,
        host=instance.hostname,
        runSpecVersion=instance.version,
    )


def tell_unknown(state: State, status: TaskStatus) -> None:
    """A task ended that no instance is a launch of."""
    if state.heard is None or status.state not in _ENDED:
        return
    name = read_task_id(status.task_id)
    tell(
        state,
        "unknown_instance_terminated_event",
        instanceId=name.instance if name is not None else status.task_id,
        runSpecId=name.app if name is not None else "",
        condition=str(_ENDED[status.state]),
    )


def tell_group(state: State, group_id: str, version: str) -> None:
    """What is wanted below this group has changed; how far it is carried out, the deployment tells."""
    tell(state, "group_change_success", groupId=group_id, version=version)


def tell_step(state: State, deployment: Deployment) -> None:
    """The deployment's present step begins."""
    if state.heard is not None:
        tell(state, "deployment_info", plan=view_plan(deployment), currentStep=_current_step(deployment))


def tell_step_done(state: State, deployment: Deployment) -> None:
    if state.heard is not None:
        tell(state, "deployment_step_success", plan=view_plan(deployment), currentStep=_current_step(deployment))


def tell_deployed(state: State, deployment: Deployment) -> None:
    if state.heard is not None:
        tell(state, "deployment_success", id=deployment.id, plan=view_plan(deployment))


def tell_cancelled(state: State, deployment: Deployment, why: str) -> None:
    if state.heard is not None:
        tell(state, "deployment_failed", id=deployment.id, plan=view_plan(deployment), reason=why)


def tell_message(state: State, message: events.Message) -> None:
    """An executor had something to say."""
    if state.heard is not None:
        text = message.data.decode("utf-8", "replace")
        tell(
            state, "framework_message_event",
            executorId=message.executor_id, slaveId=message.agent_id, message=text,
        )  # fmt: skip


def view_plan(deployment: Deployment) -> dict[str, Json]:
    """A deployment without the apps: clients look for the two trees, but how they are filled they can ask for."""
    steps = [{"actions": [view_action(action) for action in step]} for step in deployment.steps]
    return {
        "id": deployment.id,
        "version": deployment.version,
        "original": _stub(max((o.record.version for o in deployment.originals if o.record), default=_BEFORE_ALL)),
        "target": _stub(deployment.version),
        "steps": steps,
    }


_BEFORE_ALL = format_timestamp(0.0)


def _stub(version: str) -> dict[str, Json]:
    return {"id": "/", "version": version, "apps": [], "groups": [], "pods": [], "dependencies": []}


def _current_step(deployment: Deployment) -> dict[str, Json]:
    return {"actions": [view_action(action) for action in deployment.steps[deployment.step]]}


# On the wire.


def accepts(accept: str) -> bool:
    """Whether a request asks for a stream of events, as it must."""
    return any(part.partition(";")[0].strip().lower() == "text/event-stream" for part in accept.split(","))


def is_wanted(kind: str, kinds: Collection[str]) -> bool:
    """Whether a listener that named these types, or none, gets one of this type."""
    return kind in kinds if kinds else kind not in ONLY_WHEN_NAMED


def write_frame(event_id: str, kind: str, data: bytes) -> bytes:
    """One server-sent event. Shapes: `data` holds no line break, as JSON does not."""
    return b"event: %s\ndata: %s\nid: %s\n\n" % (kind.encode(), data, event_id.encode())


def write_comment(text: str) -> bytes:
    """What no client takes for an event."""
    return b": " + " ".join(text.split()).encode() + b"\n\n"


def write_attached(kind: str, remote: str, now: float) -> dict[str, Json]:
    """Shapes: `kind` is `ATTACHED` or `DETACHED`."""
    return write_body(kind, now, {"remoteAddress": remote})


def read_kinds(texts: Sequence[str]) -> frozenset[str]:
    """The types a listener names; several may stand in one text."""
    return frozenset(kind.strip() for text in texts for kind in text.split(",") if kind.strip())
