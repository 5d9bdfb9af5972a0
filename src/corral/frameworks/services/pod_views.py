"""What Marathon's API shows of pods. Source: Marathon's contract, section 6."""

from itertools import zip_longest
from typing import Any

from corral.frameworks.services.app_spec import AppSpec, Network
from corral.frameworks.services.command_spec import GetPod, GetPods
from corral.frameworks.services.commands import need_pod
from corral.frameworks.services.pod_dialect import write_pod
from corral.frameworks.services.record_spec import Condition, ContainerState, EndedPod, Goal, Instance
from corral.frameworks.services.shown import number
from corral.frameworks.services.state import App, Phase, State, phase_of
from corral.lib.errors import NotFound
from corral.lib.units import format_timestamp
from corral.model.task import TERMINAL, TaskState

Json = Any

_STATUS = {
    Condition.SCHEDULED: "PENDING",
    Condition.PROVISIONED: "STAGING",
    Condition.STAGING: "STAGING",
    Condition.STARTING: "STAGING",
    Condition.RUNNING: "STABLE",
}


def view_pods(state: State, command: GetPods, now: float) -> list[Json]:
    pods = [app for app in state.visible_apps() if app.spec.pod is not None]
    return [view_status(app, now) if command.status else write_pod(app.record) for app in pods]


def view_pod(state: State, command: GetPod, now: float) -> Json:
    """Errors: `NotFound` for a pod, or its version, that is not there."""
    app = need_pod(state, command.id)
    kept = state.versions.get(command.id, {})
    match command.what:
        case "status":
            return view_status(app, now)
        case "versions":
            return sorted([app.record.version, *kept], reverse=True)
        case "version":
            if command.version == app.record.version:
                return write_pod(app.record)
            if command.version not in kept:
                raise NotFound(f"Pod '{command.id}' has no version {command.version}")
            return write_pod(kept[command.version])
        case _:
            return write_pod(app.record)


def view_status(app: App, now: float) -> Json:
    instances = [view_instance(app, i) for i in app.instances.values() if i.staged_at is not None]
    stable = len(app.up_to_date[Phase.RUNNING]) == app.spec.instances == app.counted
    state = "TERMINAL" if app.record.stopping else "STABLE" if stable else "DEGRADED"
    changes = [c.since_at for i in app.instances.values() for c in i.containers]
    since = format_timestamp(max(changes, default=app.since_at))
    return {
        "id": app.spec.id,
        "spec": write_pod(app.record),
        "status": state,
        "statusSince": since,
        "instances": instances,
        "terminationHistory": [_view_ended(e) for e in reversed(app.ended)],
        "lastUpdated": format_timestamp(now),
        "lastChanged": since,
    }


def view_instance(app: App, instance: Instance) -> dict[str, Json]:
    if instance.goal is Goal.DECOMMISSIONED:
        status = "TERMINAL"
    else:
        status = _STATUS.get(instance.condition, "DEGRADED")
        if status == "STABLE" and phase_of(instance) is not Phase.RUNNING:
            status = "DEGRADED"
    since = max([c.since_at for c in instance.containers], default=instance.staged_at or instance.created_at)
    spec = app.spec
    out: dict[str, Json] = {
        "id": instance.id,
        "status": status,
        "statusSince": format_timestamp(since),
        "agentHostname": instance.hostname,
        "agentId": instance.agent_id or "",
        "resources": {"cpus": number(spec.cpus), "mem": number(spec.mem_mb), "disk": number(spec.disk_mb), "gpus": 0},
        "containers": [_view_container(app, instance, c) for c in instance.containers],
        "specReference": f"/v2/pods{spec.id}::versions/{instance.version}",
        "localVolumes": [],
        "role": instance.role,
        "lastUpdated": format_timestamp(since),
        "lastChanged": format_timestamp(since),
    }
    out["networks"] = _view_networks(spec, instance)
    return out


def _view_networks(spec: AppSpec, instance: Instance) -> list[Json]:
    """The pod's networks by name, each with the instance's address there."""
    if spec.network is not Network.CONTAINER:
        return [{"addresses": list(instance.ips)}] if instance.ips else []
    # In this order an agent tells them.
    networks = (spec.networks[0], *sorted(spec.networks[1:], key=lambda network: network.name or ""))
    found = zip_longest(networks, instance.ips[: len(networks)])
    return [{"name": network.name, "addresses": [ip] if ip else []} for network, ip in found]


def _view_container(app: App, instance: Instance, container: ContainerState) -> Json:
    spec = next((c for c in app.spec.pod.containers if c.name == container.name), None) if app.spec.pod else None
    out: dict[str, Json] = {
        "name": container.name,
        "status": str(container.state),
        "statusSince": format_timestamp(container.since_at),
        "conditions": [],
        "containerId": container.container_id or f"{instance.id}.{container.name}",
        "endpoints": [],
        "lastUpdated": format_timestamp(container.since_at),
        "lastChanged": format_timestamp(container.since_at),
    }
    if spec is not None and instance.config == app.record.config:
        out["resources"] = {
            "cpus": number(spec.cpus), "mem": number(spec.mem_mb), "disk": number(spec.disk_mb), "gpus": 0
        }  # fmt: skip
        checked = spec.check.endpoint if spec.check is not None else None
        for name, port in zip(_endpoint_names(app), instance.ports, strict=False):
            if name in [e.name for e in spec.endpoints]:
                shown: dict[str, Json] = {"name": name, "allocatedHostPort": port} if port else {"name": name}
                if name == checked and container.healthy is not None:
                    shown["healthy"] = container.healthy
                out["endpoints"].append(shown)
    if container.healthy is not None:
        out["conditions"] = [
            {
                "name": "healthy", "value": str(container.healthy).lower(), "reason": container.message,
                "lastUpdated": out["statusSince"], "lastChanged": out["statusSince"],
            }
        ]  # fmt: skip
    if container.state in TERMINAL:
        out["termination"] = _view_termination(container)
    return out


def _endpoint_names(app: App) -> list[str]:
    pod = app.spec.pod
    return [] if pod is None else [e.name for c in pod.containers for e in c.endpoints]


def _view_termination(container: ContainerState) -> Json:
    out: dict[str, Json] = {"message": container.message}
    if container.state is TaskState.FINISHED:
        return {"exitCode": 0, **out}
    words = container.message.split()
    told = words[words.index("status") + 1] if "status" in words[:-1] else ""
    return {"exitCode": int(told), **out} if told.isdecimal() else out


def _view_ended(ended: EndedPod) -> Json:
    return {
        "instanceID": ended.id,
        "startedAt": format_timestamp(ended.started_at),
        "terminatedAt": format_timestamp(ended.ended_at),
        "message": ended.message,
        "containers": [
            {"containerId": c.container_id or c.name, "name": c.name, "lastKnownState": str(c.state),
             "termination": _view_termination(c)}
            for c in ended.containers
        ],
    }  # fmt: skip
