"""Builds the JSON of an agent's own `/state`, in which tools look for what runs there and for sandboxes.

Source: Mesos v1 contract, legacy HTTP endpoints.
"""

from collections.abc import Iterable

from corral.mesos.flat import Json, write_attributes, write_flat
from corral.mesos.legacy import write_agent_pid, write_flat_domain, write_task, write_total, write_version
from corral.mesos.operator import AGENT_CAPABILITIES
from corral.mesos.resources import ANY_ROLE
from corral.mesos.snapshot import (
    AgentFrameworkRow,
    AgentSnapshot,
    RunRow,
)
from corral.mesos.tasks import (
    seen_executor,
    seen_resources,
)
from corral.model.framework import Capability
from corral.model.resources import Resources, add


def write_agent_state(snapshot: AgentSnapshot, version: str) -> Json:
    """An agent's `/state`: tools find a task's sandbox in `executors[].directory`."""
    info = snapshot.info
    live, over = snapshot.by_life()
    return {
        **write_version(version),
        "start_time": snapshot.start_at,
        "id": info.id or "",
        "pid": write_agent_pid(info.ip, info.port),
        "hostname": info.hostname,
        "port": info.port,
        "capabilities": list(AGENT_CAPABILITIES),
        **write_total(info),
        "attributes": write_attributes(info.attributes),
        "master_hostname": snapshot.master_hostname,
        "flags": dict(snapshot.flags),
        "frameworks": [_write_agent_framework(f) for f in live],
        "completed_frameworks": [_write_agent_framework(f) for f in over],
        **write_flat_domain(info.domain),
    }


def _write_agent_framework(row: AgentFrameworkRow) -> Json:
    info = row.info
    live = {r.container_id for r in row.runs if not r.is_completed}
    framework: Json = {
        "id": info.id or "",
        "name": info.name,
        "user": info.user,
        "failover_timeout": info.failover_timeout_s,
        "checkpoint": info.checkpoint,
        "hostname": info.hostname or "",
        "executors": _write_executors([r for r in row.runs if r.container_id in live]),
        "completed_executors": _write_executors([r for r in row.runs if r.container_id not in live]),
    }
    if info.principal is not None:
        framework["principal"] = info.principal
    if info.can(Capability.MULTI_ROLE):
        framework["roles"] = info.roles
    else:
        framework["role"] = info.role or ANY_ROLE
    return framework


def _write_executors(rows: Iterable[RunRow]) -> list[Json]:
    """One entry for each executor, with all of its tasks among the rows and what it holds for those that live."""
    found: dict[str, Json] = {}
    held: dict[str, list[Resources]] = {}
    for row in rows:
        made = _write_run(row)
        known = found.setdefault(row.container_id, made)
        parts = held.setdefault(
            row.container_id, [seen_executor(row.executor).resources] if row.executor is not None else []
        )
        if row.executor is None or not row.is_completed:
            parts.append(seen_resources(row.task.info))
        if known is not made:
            for name in ("tasks", "queued_tasks", "completed_tasks"):
                known[name] += made[name]
    return [{**made, "resources": write_flat(add(*held[id]))} for id, made in found.items()]


def _write_run(row: RunRow) -> Json:
    """A command task counts as an executor of the same id with this one task, as Mesos shows it."""
    info, executor = row.task.info, row.executor
    task = write_task(row.task)
    return {
        "id": executor.executor_id if executor is not None else info.task_id,
        "name": (executor.name or "") if executor is not None else info.name,
        "source": (executor.source or "") if executor is not None else info.task_id,
        "container": row.container_id,
        "directory": row.directory,
        "role": row.task.role,
        "tasks": [task] if not row.queued and not row.is_completed else [],
        "queued_tasks": [task] if row.queued and not row.is_completed else [],
        "completed_tasks": [task] if row.is_completed else [],
    }
