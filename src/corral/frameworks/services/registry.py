"""The registry: which instances of which app are ready where, as everybody who sends traffic is shown it.

It is derived from what is so, and kept nowhere. An instance is ready when it runs, is meant to go on and passes all its
checks; one that is to end is draining until it has. Source: Marathon's contract, section 20.
"""

from typing import Any

from corral.frameworks.services.app_spec import AppSpec, Network, PortDefinition
from corral.frameworks.services.pace import weight_of
from corral.frameworks.services.record_spec import Condition, Goal, Instance
from corral.frameworks.services.role_spec import own_role
from corral.frameworks.services.state import App, State, task_id_of

Json = Any

CHANGED = "registry_changed"
"""The event that names an app whose part of the registry may be another one; only for listeners that name it."""

WEIGHT_LABEL = "CORRAL_WEIGHT"
MOST_WEIGHT = 256
DEFAULT_WEIGHT = 100


def view_registry(state: State, app_ids: tuple[str, ...] | None) -> list[Json]:
    """The apps with their instances, by id."""
    named = sorted(state.apps) if app_ids is None else sorted(set(app_ids))
    return [view_registered(state, state.apps[app_id]) for app_id in named if app_id in state.apps]


def view_registered(state: State, app: App) -> Json:
    spec = app.spec
    lock = state.locks.get(spec.id)
    deployment = state.deployments[lock] if lock is not None else None
    found = [_view_instance(app, i, weight_of(deployment, app, i)) for i in app.instances.values() if is_registered(i)]
    return {
        "id": spec.id,
        "role": own_role(spec, state.config),
        "version": app.record.version,
        "configuredAt": app.record.configured_at,
        "network": str(spec.network),
        "weight": read_weight(spec.labels.get(WEIGHT_LABEL, "")),
        "labels": spec.labels,
        "checks": [{"protocol": str(c.protocol), "path": c.path, "portIndex": c.port_index or 0}
                   for c in spec.health_checks],
        "ports": [_view_port(index, port) for index, port in enumerate(spec.ports)],
        "instances": sorted(found, key=lambda each: each["id"]),
    }  # fmt: skip


def is_registered(instance: Instance) -> bool:
    """Whether it has a task that is somewhere and not known to have ended."""
    return instance.condition not in (Condition.SCHEDULED, Condition.PROVISIONED) and instance.agent_id is not None


def is_ready(instance: Instance) -> bool:
    if instance.condition is not Condition.RUNNING or instance.goal is not Goal.RUNNING:
        return False
    return instance.ready and (not instance.checks or instance.healthy is True)


def is_draining(instance: Instance) -> bool:
    """It serves what it has begun and shall get nothing new."""
    return instance.leaves or instance.condition is Condition.KILLING


def read_weight(text: str) -> int:
    """An app's share of traffic beside other apps of its name. Shapes: what is no number from 0 to 256 is 100."""
    return min(int(text), MOST_WEIGHT) if text.isascii() and text.isdecimal() and len(text) < 6 else DEFAULT_WEIGHT


def _view_instance(app: App, instance: Instance, weight: int) -> Json:
    spec = app.spec
    return {
        "weight": weight,
        "id": instance.id,
        "task": task_id_of(instance),
        "host": instance.hostname,
        "node": instance.agent_id,
        "nodeIp": instance.node_ip,
        "ips": list(instance.ips),
        "endpoints": [_view_endpoint(spec, instance, index) for index in range(len(spec.ports))],
        "state": str(instance.condition),
        "healthy": instance.healthy,
        "ready": is_ready(instance),
        "draining": is_draining(instance),
        "version": instance.version,
        "startedAt": instance.started_at,
    }


def _view_endpoint(spec: AppSpec, instance: Instance, index: int) -> Json:
    """Where the port answers: on the node when it has a host port, else at the container's own address."""
    port = spec.ports[index]
    host_port = instance.ports[index] if index < len(instance.ports) else 0
    node = instance.node_ip or instance.hostname
    if host_port or isinstance(port, PortDefinition):
        return {"address": node, "port": host_port}
    own = instance.ips[0] if instance.ips and spec.network is not Network.HOST else node
    return {"address": own, "port": port.container_port}


def _view_port(index: int, port: Any) -> Json:
    service = port.port if isinstance(port, PortDefinition) else port.service_port
    return {"index": index, "name": port.name, "protocol": port.protocol, "servicePort": service, "labels": port.labels}
