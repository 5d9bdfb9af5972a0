"""What the API shows of the services framework, as plain JSON values with exactly the keys that clients know.

Source: Marathon's contract, sections 2, 8, 9, 10, 16 and 19.
"""

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from corral import __version__
from corral.frameworks.services import accepted, backoff
from corral.frameworks.services.checks import write_results
from corral.frameworks.services.command_spec import GetApps, GetGroup, GetQueue, GetTasks
from corral.frameworks.services.launch import safe_id
from corral.frameworks.services.names import read_selector
from corral.frameworks.services.pod_dialect import write_pod
from corral.frameworks.services.readiness import view_readiness, write_check_result
from corral.frameworks.services.record_spec import Action, Condition, Deployment, Instance
from corral.frameworks.services.shown import write_rule, write_versioned
from corral.frameworks.services.state import App, Phase, State, task_id_of
from corral.lib.errors import NotFound
from corral.lib.units import format_timestamp
from corral.model.offer import Explanation, Refusal
from corral.model.task import TaskState
from corral.sdk.nodes import Avoided

Json = Any

_STATES = {
    Condition.PROVISIONED: TaskState.STAGING,
    Condition.STAGING: TaskState.STAGING,
    Condition.STARTING: TaskState.STARTING,
    Condition.RUNNING: TaskState.RUNNING,
    Condition.KILLING: TaskState.KILLING,
    Condition.UNREACHABLE: TaskState.UNREACHABLE,
    Condition.INACTIVE: TaskState.UNREACHABLE,
}

_STAGED = (Condition.PROVISIONED, Condition.STAGING, Condition.STARTING)


def read_embed(texts: Iterable[str]) -> frozenset[str]:
    """What is to be embedded, whichever prefix clients put before it."""
    found: set[str] = set()
    for text in texts:
        word = text
        for prefix in ("group.apps.", "apps.", "app."):
            if text.startswith(prefix):
                word = text.removeprefix(prefix)
                break
        found.add(word)
    if "tasks" in found:
        found.add("deployments")
    if "failures" in found:
        found |= {"tasks", "lastTaskFailure", "deployments"}
    return frozenset(found)


# Apps.


def view_app(state: State, app: App, embed: Collection[str], now: float) -> dict[str, Json]:
    out = write_versioned(app.record)
    conditions = app.conditions
    out["tasksStaged"] = sum(conditions[c] for c in _STAGED)
    out["tasksRunning"] = conditions[Condition.RUNNING]
    out["tasksHealthy"] = app.health[True]
    out["tasksUnhealthy"] = app.health[False]
    if "deployments" in embed or "counts" in embed:
        lock = state.locks.get(app.spec.id)
        out["deployments"] = [] if lock is None else [{"id": lock}]
    if "tasks" in embed:
        out["tasks"] = [view_task(app, i) for i in app.instances.values() if i.staged_at is not None]
    if "lastTaskFailure" in embed:
        failure = state.failures.get(app.spec.id)
        if failure is not None:
            out["lastTaskFailure"] = {
                "appId": failure.app,
                "host": failure.hostname,
                "message": failure.message,
                "state": str(failure.state),
                "taskId": failure.task_id,
                "timestamp": format_timestamp(failure.at),
                "version": failure.version,
                "slaveId": failure.agent_id or "",
            }
    if "readiness" in embed:
        out["readinessCheckResults"] = view_readiness(app)
    if "taskStats" in embed:
        out["taskStats"] = _task_stats(app, now)
    return out


def view_apps(state: State, command: GetApps, now: float) -> list[Json]:
    """Errors: `Unprocessable` when the label selector makes no sense."""
    embed = read_embed(command.embed) | {"counts", "deployments"}
    matches = read_selector(command.label) if command.label else None
    cmd, part = (command.cmd or "").lower(), (command.id or "").lower()
    return [
        view_app(state, app, embed, now)
        for app in state.plain_apps(command.below)
        if (not cmd or cmd in (app.spec.cmd or "").lower())
        and (not part or part in app.spec.id.lower())
        and (matches is None or matches(app.spec.labels))
    ]


def view_version(state: State, app: App, version: str) -> Json:
    """Errors: `NotFound` when the app never had this version, or has it no longer."""
    if version == app.record.version:
        return write_versioned(app.record)
    record = state.versions.get(app.spec.id, {}).get(version)
    if record is None:
        raise NotFound(f"App '{app.spec.id}' has no version {version}; see /v2/apps{app.spec.id}/versions")
    return write_versioned(record)


def _task_stats(app: App, now: float) -> Json:
    tasks = [i for i in app.instances.values() if i.staged_at is not None]
    record = app.record
    sections = {
        "startedAfterLastScaling": [i for i in tasks if i.version >= record.scaled_at],
        "withLatestConfig": [i for i in tasks if i.version >= record.configured_at],
        "withOutdatedConfig": [i for i in tasks if i.version < record.configured_at],
        "totalSummary": tasks,
    }
    return {name: {"stats": _stats(members, now)} for name, members in sections.items() if members}


def _stats(members: list[Instance], now: float) -> Json:
    out: dict[str, Json] = {
        "counts": {
            "staged": sum(i.condition in _STAGED for i in members),
            "running": sum(i.condition is Condition.RUNNING for i in members),
            "healthy": sum(i.healthy is True and i.condition is Condition.RUNNING for i in members),
            "unhealthy": sum(i.healthy is False and i.condition is Condition.RUNNING for i in members),
        }
    }
    lives = [now - i.started_at for i in members if i.started_at is not None]
    if lives:
        out["lifeTime"] = {"averageSeconds": statistics.fmean(lives), "medianSeconds": statistics.median(lives)}
    return out


# Tasks.


def view_task(app: App, instance: Instance) -> dict[str, Json]:
    out: dict[str, Json] = {
        "appId": instance.app,
        "id": task_id_of(instance),
        "host": instance.hostname,
        "ports": [p for p in instance.ports if p],
        "slaveId": instance.agent_id or "",
        "state": str(_STATES.get(instance.condition, TaskState.STAGING)),
        "version": instance.version,
        "ipAddresses": [{"ipAddress": ip, "protocol": "IPv6" if ":" in ip else "IPv4"} for ip in instance.ips],
        "healthCheckResults": write_results(instance),
        "localVolumes": [
            {
                "runSpecId": instance.app,
                "containerPath": volume.container_path,
                "uuid": volume.uuid,
                "persistenceId": volume.persistence_id,
            }
            for volume in instance.volumes
        ],
        "role": instance.role,
    }
    if instance.checked is not None:
        out["checkResult"] = write_check_result(instance.checked)
    if instance.staged_at is not None:
        out["stagedAt"] = format_timestamp(instance.staged_at)
    if instance.started_at is not None:
        out["startedAt"] = format_timestamp(instance.started_at)
    return out


def view_tasks(state: State, pairs: Iterable[tuple[App, Instance]]) -> list[Json]:
    """Tasks with the service ports of their apps."""
    return [{**view_task(app, i), "servicePorts": list(app.spec.service_ports)} for app, i in pairs]


def select_tasks(state: State, command: GetTasks) -> list[tuple[App, Instance]]:
    if command.app is not None:
        app = state.visible(command.app)
        apps = [app] if app is not None else []
    else:
        apps = state.plain_apps(command.below or "/")
    wanted: set[Condition] | None = None
    if command.states:
        wanted = set()
        if "running" in command.states:
            wanted.add(Condition.RUNNING)
        if "staging" in command.states:
            wanted.update(_STAGED)
    return [
        (app, instance)
        for app in apps
        for instance in app.instances.values()
        if instance.staged_at is not None and (wanted is None or instance.condition in wanted)
    ]


def write_text(state: State, command: GetTasks) -> str:
    """One line per port of each app: name, service port, where it runs; the form of the first HAProxy bridge."""
    if command.app is not None:
        only = state.visible(command.app)
        apps = [only] if only is not None else []
    else:
        apps = state.plain_apps(command.below or "/")
    lines: list[str] = []
    for app in apps:
        name = safe_id(app.spec.id)
        running = [i for i in app.instances.values() if i.condition is Condition.RUNNING]
        service_ports = app.spec.service_ports
        if not service_ports:
            lines.append(f"{name}\t \t" + "".join(f"{i.hostname}\t" for i in running))
        for index, service_port in enumerate(service_ports):
            places = "".join(f"{i.hostname}:{i.ports[index]}\t" for i in running if len(i.ports) > index)
            lines.append(f"{name}\t{service_port}\t{places}")
    return "".join(line + "\n" for line in lines)


# Queue.

_ROWS = (
    "UnfulfilledRole", "UnfulfilledConstraint", "NoCorrespondingReservationFound", "AgentMaintenance",
    "InsufficientCpus", "InsufficientMemory", "InsufficientDisk", "InsufficientGpus", "InsufficientPorts",
    "DeclinedScarceResources",
)  # fmt: skip
"""Every item shows all rows, in this order; each row looks only at the agents that the rows before let through."""

_ROW_OF = {
    "role": "UnfulfilledRole",
    "limit": "UnfulfilledRole",
    "quota": "UnfulfilledRole",
    "constraint": "UnfulfilledConstraint",
    "runtime": "UnfulfilledConstraint",
    "reservation": "NoCorrespondingReservationFound",
    "draining": "AgentMaintenance",
    "maintenance": "AgentMaintenance",
    "unreachable": "AgentMaintenance",
    "disconnected": "AgentMaintenance",
    "recovered": "AgentMaintenance",
    "cpus": "InsufficientCpus",
    "mem": "InsufficientMemory",
    "disk": "InsufficientDisk",
    "disk-path": "InsufficientDisk",
    "disk-mount": "InsufficientDisk",
    "gpus": "InsufficientGpus",
    "ports": "InsufficientPorts",
    "port taken": "InsufficientPorts",
}


def view_queue(state: State, command: GetQueue, now: float) -> list[Json]:
    """What waits to be launched, and what was held back after a failure."""
    offers = "lastUnusedOffers" in command.embed
    out: list[Json] = []
    for app in state.visible_apps():
        count = len(app.up_to_date[Phase.SCHEDULED])
        wait_s = backoff.wait_s(app, now)
        if not count and wait_s <= 0:
            continue
        explanation = accepted.explain(state, app)
        item: dict[str, Json] = {
            **({"app": write_versioned(app.record)} if app.spec.pod is None else {"pod": write_pod(app.record)}),
            "count": count,
            "since": format_timestamp(app.since_at),
            "delay": {"timeLeftSeconds": math.ceil(wait_s), "overdue": wait_s <= 0},
            "processedOffersSummary": _offers_summary(explanation, state.nodes.avoided(app.spec.id, now)),
        }
        if app.spec.volumes:
            _add_reserved(item["processedOffersSummary"], app)
        if explanation is app.explanation and (refusals := accepted.list_refusals(state, app)):
            item["processedOffersSummary"].setdefault("reasons", []).extend(map(_write_refusal, refusals))
        if offers:
            item["lastUnusedOffers"] = _unused_offers(explanation)
        out.append(item)
    return out


def _unused_offers(explanation: Explanation | None) -> list[Json]:
    """Where the instances came nearest to fitting, in the form of offers: one per reason, without their resources."""
    if explanation is None:
        return []
    at = format_timestamp(explanation.since_at)
    return [
        {
            "offer": {
                "id": f"explained-{index}", "hostname": refusal.best, "agentId": refusal.best, "resources": [],
                "attributes": [],
            },
            "reason": [_ROW_OF.get(refusal.reason, "DeclinedScarceResources")],
            "timestamp": at,
        }
        for index, refusal in enumerate(explanation.refusals)
        if refusal.best
    ]  # fmt: skip


def _offers_summary(explanation: Explanation | None, avoided: tuple[Avoided, ...]) -> Json:
    """The kernel's explanation as Marathon's funnel, with its own words beside it, and what is avoided on purpose."""
    rows = reject_rows(explanation)
    refused = sum(row["declined"] for row in rows)
    out: dict[str, Json] = {
        "processedOffersCount": explanation.agents if explanation is not None else 0,
        "unusedOffersCount": refused,
        "rejectSummaryLastOffers": rows,
        "rejectSummaryLaunchAttempt": rows,
    }
    if explanation is not None:
        out["lastUnusedOfferAt"] = format_timestamp(explanation.since_at)
        out["reasons"] = [_write_refusal(each) for each in explanation.refusals]
        out["fitsIf"] = list(explanation.fits_if)
        out["never"] = explanation.never
    if avoided:
        out.setdefault("reasons", []).extend(
            {"reason": "avoided", "agents": 1, "detail": f"{one.hostname} is used last: {one.why}"} for one in avoided
        )
    return out


def _write_refusal(refusal: Refusal) -> Json:
    best = {"best": refusal.best} if refusal.best else {}
    return {"reason": refusal.reason, "agents": refusal.agents, "detail": refusal.detail, **best}


def _add_reserved(summary: dict[str, Json], app: App) -> None:
    """Instances that have volumes wait for the one agent that these are on."""
    hosts = Counter(i.hostname for i in app.up_to_date[Phase.SCHEDULED].values() if i.kept)
    for host, count in sorted(hosts.items()):
        what = "an instance waits" if count == 1 else f"{count} instances wait"
        detail = f"{what} for {host}, where their volumes are; DELETE its tasks with wipe=true to give these up"
        summary.setdefault("reasons", []).append({"reason": "reserved", "agents": 1, "detail": detail, "best": host})
    if hosts:
        rows = summary["rejectSummaryLastOffers"]  # both summaries are of the same rows
        row = next(r for r in rows if r["reason"] == "NoCorrespondingReservationFound")
        row["declined"] += len(hosts)
        for each in rows[: rows.index(row) + 1]:
            each["processed"] += len(hosts)
        summary["processedOffersCount"] += len(hosts)
        summary["unusedOffersCount"] += len(hosts)


def view_avoided(state: State, now: float) -> list[Json]:
    """The nodes that apps use only when nothing else fits. Shapes: without `app`, all apps do."""
    return [
        {
            "hostname": each.hostname,
            "why": each.why,
            "until": format_timestamp(each.until_at),
            **({"app": each.subject} if each.subject is not None else {}),
        }
        for each in state.nodes.avoided(None, now)
    ]


def reject_rows(explanation: Explanation | None) -> list[dict[str, Json]]:
    """Agents turned away per reason. Shapes: all ten rows, `processed` falling by what the row before declined."""
    declined = dict.fromkeys(_ROWS, 0)
    for refusal in explanation.refusals if explanation is not None else ():
        declined[_ROW_OF.get(refusal.reason, "DeclinedScarceResources")] += refusal.agents
    left = explanation.agents if explanation is not None else 0
    rows = []
    for row in _ROWS:
        number = min(declined[row], left)
        rows.append({"reason": row, "declined": number, "processed": left})
        left -= number
    return rows


# Deployments, groups, the framework itself.


def view_deployment(state: State, deployment: Deployment) -> Json:
    current = deployment.steps[deployment.step] if deployment.step < len(deployment.steps) else ()
    return {
        "id": deployment.id,
        "version": deployment.version,
        "affectedApps": [a for a in deployment.apps if a not in deployment.pods],
        "affectedPods": sorted(deployment.pods),
        "steps": [{"actions": [view_action(a) for a in step]} for step in deployment.steps],
        "currentActions": [{**view_action(a), "readinessCheckResults": _readiness(state, a)} for a in current],
        "currentStep": deployment.step + 1,
        "totalSteps": len(deployment.steps),
    }


def _readiness(state: State, action: Action) -> list[Json]:
    app = state.apps.get(action.app)
    return [] if app is None else view_readiness(app)


def view_action(action: Action) -> dict[str, Json]:
    if action.pod:
        return {"action": str(action.kind).replace("Application", "Pod"), "pod": action.app}
    return {"action": str(action.kind), "app": action.app}


def view_deployments(state: State) -> list[Json]:
    return [view_deployment(state, d) for d in sorted(state.deployments.values(), key=lambda d: (d.version, d.id))]


def view_group(state: State, command: GetGroup, now: float) -> Json:
    """The tree below a group; None when there is no such group."""
    if command.id != "/" and command.id not in state.groups:
        return None
    parts = {e for e in command.embed if e in ("group.apps", "group.groups", "group.pods")}
    apps_too = not parts or "group.apps" in parts
    groups_too = not parts or "group.groups" in parts
    embed = read_embed(e for e in command.embed if e.startswith("group.apps."))
    nodes: dict[str, dict[str, Json]] = {}
    prefix = command.id.rstrip("/") + "/"
    root_version = format_timestamp(state.last_version_at / 1000) if state.last_version_at else format_timestamp(now)
    for group_id in sorted({command.id, *(g for g in state.groups if g.startswith(prefix))}):
        record = state.groups.get(group_id)
        nodes[group_id] = {
            "id": group_id, "apps": [], "pods": [], "groups": [],
            "dependencies": list(record.dependencies) if record is not None else [],
            "version": record.version if record is not None else root_version,
            **write_rule(record),
        }  # fmt: skip
    for app in state.visible_apps(command.id) if not parts or "group.pods" in parts else ():
        if app.spec.pod is not None and (home := nodes.get(app.spec.id.rpartition("/")[0] or "/")) is not None:
            home["pods"].append(write_pod(app.record))
    if apps_too:
        for app in state.plain_apps(command.id):
            home = nodes.get(app.spec.id.rpartition("/")[0] or "/")
            if home is not None:
                home["apps"].append(view_app(state, app, embed, now) if embed else write_versioned(app.record))
    if groups_too:
        for group_id, node in nodes.items():
            if group_id != command.id:
                nodes[group_id.rpartition("/")[0] or "/"]["groups"].append(node)
    return nodes[command.id]


def view_info(state: State) -> Json:
    """Errors of clients are avoided by naming only keys that they know; corral's own facts have their own endpoint."""
    config = state.config
    host, _, port = config.address.rpartition(":")
    return {
        "name": "marathon",
        "version": "1.9.109",
        "buildref": f"corral-{__version__}",
        "elected": True,
        "leader": config.address,
        "frameworkId": state.framework_id or "",
        "marathon_config": {
            "access_control_allow_origin": [],
            "checkpoint": True,
            "decline_offer_duration": 120000,
            "default_network_name": config.default_network,
            "executor": "//cmd",
            "failover_timeout": int(config.failover_timeout_s),
            "features": ["external_volumes", "gpu_resources", "secrets", "task_killing"],
            "framework_name": config.name,
            "ha": False,
            "hostname": config.hostname or host,
            "launch_token": 100,
            "launch_token_refresh_interval": 30000,
            "leader_proxy_connection_timeout_ms": 5000,
            "leader_proxy_read_timeout_ms": 10000,
            "local_port_min": config.first_service_port,
            "local_port_max": config.last_service_port,
            "master": state.master,
            "max_instances_per_offer": 5,
            "mesos_bridge_name": "bridge",
            "mesos_heartbeat_failure_threshold": 5,
            "mesos_heartbeat_interval": 15000,
            "mesos_leader_ui_url": f"{config.scheme}://{config.address}/",
            "mesos_role": config.role,
            "mesos_user": config.user,
            "min_revive_offers_interval": 0,
            "offer_matching_timeout": 3000,
            "on_elected_prepare_timeout": 180000,
            "reconciliation_initial_delay": 0,
            "reconciliation_interval": 600000,
            "scale_apps_initial_delay": 0,
            "scale_apps_interval": 5000,
            "store_cache": True,
            "task_lost_expunge_initial_delay": 0,
            "task_lost_expunge_interval": 0,
            "task_reservation_timeout": 20000,
            "task_launch_timeout": int(config.launch_timeout_s * 1000),
            "task_launch_confirm_timeout": int(config.launch_timeout_s * 1000),
            "env_vars_prefix": config.env_prefix or None,
            "webui_url": f"{config.scheme}://{config.address}/ui/",
        },
        "zookeeper_config": {"zk_max_versions": config.most_versions},
        "http_config": {"http_port": int(port), "https_port": None},
    }
