"""Builds the JSON of Mesos' older HTTP endpoints, which clients read for discovery, dashboards and sandboxes.

Every `write_x` takes a snapshot and gives plain values for the JSON encoder; the `plan_x` beside it gives the same as a
tree that is written in pieces. Here an agent is a *slave*, labels are bare arrays, instants float seconds and resources
flat objects. Source: Mesos v1 contract, legacy HTTP endpoints.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

from corral import MESOS_VERSION
from corral.mesos import wire
from corral.mesos.common import AGENT_PATH, write_domain, write_labels
from corral.mesos.events import MASTER_CAPABILITIES
from corral.mesos.flat import Json, by_reservation, write_attributes, write_flat, write_full
from corral.mesos.health import write_health_check
from corral.mesos.maintenance import flat_drain
from corral.mesos.offer_constraints import write_offer_constraints
from corral.mesos.operator import AGENT_CAPABILITIES
from corral.mesos.pieces import Plan, Rows, Tree, batches, whole, whole_of
from corral.mesos.quota import write_role_quota
from corral.mesos.resources import ANY_ROLE
from corral.mesos.snapshot import (
    AgentRow,
    ClusterSnapshot,
    ExecutorRow,
    FrameworkRow,
)
from corral.mesos.tasks import (
    seen_executor,
    seen_resources,
    write_container,
    write_container_status,
    write_discovery,
    write_limits,
)
from corral.model.agent import AgentInfo
from corral.model.domain import Domain
from corral.model.events import MasterInfo
from corral.model.framework import Capability
from corral.model.offer import Offer
from corral.model.resources import add, normal, subtract, with_allocation
from corral.model.task import Task, TaskInfo, TaskState, TaskStatus

DEFAULT_LIMIT = 100
_AT_ONCE = 500
"""How many rows are looked at between two pauses."""

_COUNTED = (
    TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING, TaskState.FINISHED, TaskState.KILLED,
    TaskState.FAILED, TaskState.LOST, TaskState.ERROR, TaskState.UNREACHABLE,
)  # fmt: skip


def write_version(version: str, *, build_user: str = "corral", build_date: str = "", build_time: float = 0.0) -> Json:
    """`/version`. Shapes: `version` is dotted integers, because clients turn each piece into a number."""
    return {"build_date": build_date, "build_time": build_time, "build_user": build_user, "version": version}


def write_flags(flags: Iterable[tuple[str, str]]) -> Json:
    """`/flags`."""
    return {"flags": dict(flags)}


def write_redirect(leader: MasterInfo) -> str:
    """The `Location` of `/redirect`: clients take host and port from it."""
    return f"//{leader.hostname}:{leader.port}"


# `/state` and its parts.


def write_state(snapshot: ClusterSnapshot, version: str) -> Json:
    """`/state`: everything."""
    return whole(plan_state(snapshot, version))  # type: ignore[no-any-return]


def plan_state(snapshot: ClusterSnapshot, version: str) -> Tree:
    known = [a for a in snapshot.agents if not a.recovered and a.unreachable_at is None]
    state: Json = {
        **write_version(version),
        "start_time": snapshot.start_at,
        "id": snapshot.master.id,
        "pid": _master_pid(snapshot.master),
        "hostname": snapshot.master.hostname,
        "capabilities": list(MASTER_CAPABILITIES),
        "activated_slaves": float(sum(1 for a in known if a.active)),
        "deactivated_slaves": float(sum(1 for a in known if not a.active)),
        "unreachable_slaves": float(sum(1 for a in snapshot.agents if a.unreachable_at is not None)),
        "flags": dict(snapshot.flags),
        **plan_slaves(snapshot),
        **plan_frameworks(snapshot),
        "orphan_tasks": Rows(chain.from_iterable(a.orphans for a in snapshot.agents), write_task),
    }
    if snapshot.elected_at is not None:
        state["elected_time"] = snapshot.elected_at
    if snapshot.cluster is not None:
        state["cluster"] = snapshot.cluster
    state |= write_flat_domain(snapshot.master.domain)
    if snapshot.leader is not None:
        leader = snapshot.leader
        pid = _master_pid(leader)
        state["leader"] = pid
        state["leader_info"] = {"id": leader.id, "pid": pid, "port": leader.port, "hostname": leader.hostname}
    return state


def _master_pid(master: MasterInfo) -> str:
    return f"master@{master.ip}:{master.port}"


def write_slaves(snapshot: ClusterSnapshot, slave_id: str = "") -> Json:
    """`/slaves`, all or the one of that id."""
    return whole(plan_slaves(snapshot, slave_id))  # type: ignore[no-any-return]


def plan_slaves(snapshot: ClusterSnapshot, slave_id: str = "") -> Tree:
    chosen = [a for a in snapshot.agents if not slave_id or a.id == slave_id]
    return {
        "slaves": Rows([a for a in chosen if not a.recovered and a.unreachable_at is None], _write_slave),
        "recovered_slaves": Rows([a for a in chosen if a.recovered], _write_recovered),
    }


def _write_recovered(row: AgentRow) -> Json:
    return {
        "id": row.id,
        "hostname": row.info.hostname,
        "port": row.info.port,
        "attributes": write_attributes(row.info.attributes),
        "resources": write_flat(row.info.resources),
    }


def _write_slave(row: AgentRow) -> Json:
    info = row.info
    slave = {
        "id": row.id,
        "hostname": info.hostname,
        "port": info.port,
        "attributes": write_attributes(info.attributes),
        "pid": write_agent_pid(info.ip, info.port),
        "registered_time": row.registered_at,
        **write_total(info),
        "used_resources": write_flat(row.used),
        "offered_resources": write_flat(row.offered),
        "active": row.active,
        "deactivated": row.deactivated,
        # What it speaks as an agent of Mesos; the release of corral is shown by the native API.
        "version": MESOS_VERSION,
        "capabilities": list(AGENT_CAPABILITIES),
        "used_resources_full": write_full(row.used),
        "offered_resources_full": write_full(row.offered),
        **flat_drain(row),
        **write_flat_domain(info.domain),
    }
    if row.reregistered_at is not None:
        slave["reregistered_time"] = row.reregistered_at
    return slave


def write_total(info: AgentInfo) -> Json:
    """What an agent has, all together, by reservation and not reserved."""
    total = with_allocation(info.resources, None)
    free = normal(r for r in total if not r.identity.reservations)
    reserved = by_reservation(total)
    return {
        "resources": write_flat(total),
        "reserved_resources": {role: write_flat(tuple(part)) for role, part in reserved.items()},
        "unreserved_resources": write_flat(free),
        "reserved_resources_full": {role: write_full(tuple(part)) for role, part in reserved.items()},
        "unreserved_resources_full": write_full(free),
    }


def write_flat_domain(domain: Domain | None) -> Json:
    return {} if domain is None else {"domain": write_domain(domain)}


def write_agent_pid(ip: str, port: int) -> str:
    """How Mesos names an agent's process."""
    return f"{AGENT_PATH.removeprefix('/')}@{ip}:{port}"


def write_frameworks(snapshot: ClusterSnapshot, framework_id: str = "") -> Json:
    """`/frameworks`, all or the one of that id."""
    return whole(plan_frameworks(snapshot, framework_id))  # type: ignore[no-any-return]


def plan_frameworks(snapshot: ClusterSnapshot, framework_id: str = "") -> Tree:
    executors: dict[str, list[Json]] = {}
    for row in snapshot.executors:
        executors.setdefault(row.framework_id, []).append(_write_executor_row(row))

    def write(row: FrameworkRow) -> Tree:
        return {**_write_framework(row), "executors": executors.get(row.id, [])}

    def chosen(rows: Iterable[FrameworkRow]) -> Rows:
        return Rows([f for f in rows if framework_id in ("", f.id)], write)

    return {
        "frameworks": chosen(snapshot.frameworks),
        "completed_frameworks": chosen(snapshot.completed_frameworks),
        "unregistered_frameworks": [],
    }


def _write_executor_row(row: ExecutorRow) -> Json:
    info = row.info
    return {
        "executor_id": info.executor_id,
        "name": info.name or "",
        "source": info.source or "",
        "framework_id": row.framework_id,
        "slave_id": row.agent_id,
        "type": info.kind,
        "role": row.role,
        "resources": write_flat(seen_executor(info).resources),
    }


def _write_framework(row: FrameworkRow) -> Tree:
    info = row.info
    framework: Json = {
        "id": row.id,
        "name": info.name,
        "used_resources": write_flat(row.used),
        "offered_resources": write_flat(row.offered),
        "capabilities": [c.value for c in info.capabilities],
        "hostname": info.hostname or "",
        "webui_url": info.webui_url or "",
        "active": row.active,
        "connected": row.connected,
        "recovered": row.recovered,
        "user": info.user,
        "failover_timeout": info.failover_timeout_s,
        "checkpoint": info.checkpoint,
        "registered_time": row.registered_at,
        "unregistered_time": row.unregistered_at or 0.0,
        "resources": write_flat(add(row.used, row.offered)),
        "tasks": Rows(row.tasks, write_task),
        "unreachable_tasks": Rows(row.unreachable_tasks, write_task),
        "completed_tasks": Rows(row.completed_tasks, write_task),
        "offers": Rows(row.offers, _write_offer),
    }
    if info.can(Capability.MULTI_ROLE):
        framework["roles"] = info.roles
    else:
        framework["role"] = info.role or ANY_ROLE
    if row.reregistered_at is not None:
        framework["reregistered_time"] = row.reregistered_at
    if row.offer_constraints:
        framework["offer_constraints"] = write_offer_constraints(row.offer_constraints)
    if info.principal is not None:
        framework["principal"] = info.principal
    if info.labels:
        framework["labels"] = _bare_labels(write_labels(info.labels))
    return framework


def _write_offer(offer: Offer) -> Json:
    return {
        "id": offer.id,
        "framework_id": offer.framework_id,
        "allocation_info": {"role": offer.role},
        "slave_id": offer.agent_id,
        "resources": write_flat(offer.resources),
    }


def write_task(task: Task) -> Json:
    """A task as `/state` and `/tasks` show it."""
    info = task.info
    made: Json = {
        "id": info.task_id,
        "name": info.name,
        "framework_id": task.framework_id,
        "executor_id": info.executor.executor_id if info.executor is not None else "",
        "slave_id": info.agent_id,
        "state": task.state.value,
        "resources": write_flat(seen_resources(info)),
        "role": task.role,
        "statuses": [_write_status(s) for s in task.statuses],
    }
    if info.command is not None and info.command.user is not None:
        made["user"] = info.command.user
    if info.labels:
        made["labels"] = _bare_labels(write_labels(info.labels))
    if info.discovery is not None:
        made["discovery"] = write_discovery(info.discovery)
    if info.container is not None:
        made["container"] = write_container(info.container)
    if info.health_checks:
        made["health_check"] = write_health_check(info.health_checks[0])
    if info.limits:
        made["limits"] = _flat_limits(info)
    return made


def _flat_limits(info: TaskInfo) -> Json:
    return {name: limit.value for name, limit in (write_limits(info.limits) or {}).items()}


def _write_status(status: TaskStatus) -> Json:
    made: Json = {"state": status.state.value, "timestamp": status.at}
    if status.labels:
        made["labels"] = _bare_labels(write_labels(status.labels))
    if status.container_status is not None:
        made["container_status"] = write_container_status(status.container_status)
    if status.healthy is not None:
        made["healthy"] = status.healthy
    return made


def _bare_labels(labels: wire.Labels | None) -> tuple[wire.Label, ...]:
    return labels.labels if labels is not None else ()


# The other reads.


def write_summary(snapshot: ClusterSnapshot) -> Json:
    """`/state-summary`: agents and frameworks with counts of their tasks instead of the tasks."""
    return whole_of(plan_summary(snapshot))  # type: ignore[no-any-return]


def plan_summary(snapshot: ClusterSnapshot) -> Plan:
    of_agent: dict[str, Counter[TaskState]] = {}
    frameworks_on: dict[str, set[str]] = {}
    counted: list[tuple[FrameworkRow, Counter[TaskState], set[str]]] = []
    for row in snapshot.frameworks:
        counts: Counter[TaskState] = Counter()
        agents: set[str] = set()
        for batch in batches(chain(row.tasks, row.unreachable_tasks, row.completed_tasks), _AT_ONCE):
            for task in batch:
                agent_id = task.info.agent_id
                counts[task.state] += 1
                agents.add(agent_id)
                of_agent.setdefault(agent_id, Counter())[task.state] += 1
                frameworks_on.setdefault(agent_id, set()).add(row.id)
            yield
        counted.append((row, counts, agents))

    def write_slave(row: AgentRow) -> Json:
        counts = _write_counts(of_agent.get(row.id, Counter()))
        return {**_write_slave(row), **counts, "framework_ids": sorted(frameworks_on.get(row.id, ()))}

    return {
        "hostname": snapshot.master.hostname,
        **({"cluster": snapshot.cluster} if snapshot.cluster is not None else {}),
        "slaves": Rows([a for a in snapshot.agents if not a.recovered and a.unreachable_at is None], write_slave),
        "frameworks": Rows(counted, _write_counted, at_once=1),
    }


def _write_counted(found: tuple[FrameworkRow, Counter[TaskState], set[str]]) -> Json:
    row, counts, agents = found
    shown = _write_framework(row)
    for name in ("tasks", "unreachable_tasks", "completed_tasks", "offers"):
        del shown[name]
    return {**shown, **_write_counts(counts), "slave_ids": sorted(agents)}


def _write_counts(counts: Mapping[TaskState, int]) -> Json:
    return {state.value: counts.get(state, 0) for state in _COUNTED}


def write_tasks(
    snapshot: ClusterSnapshot,
    *,
    limit: int = DEFAULT_LIMIT,
    offset: int = 0,
    ascending: bool = False,
    framework_id: str = "",
    task_id: str = "",
) -> Json:
    """`/tasks`: one page of all tasks, the newest first unless `ascending`."""
    plan = plan_tasks(
        snapshot, limit=limit, offset=offset, ascending=ascending, framework_id=framework_id, task_id=task_id
    )
    return whole_of(plan)  # type: ignore[no-any-return]


def plan_tasks(
    snapshot: ClusterSnapshot, *, limit: int, offset: int, ascending: bool, framework_id: str, task_id: str
) -> Plan:
    """Shapes: parts of the list are sorted one by one, and merged while they are written."""
    runs: list[list[Task]] = []
    for batch in batches(_choose(snapshot, framework_id, task_id), _AT_ONCE):
        runs.append(sorted(batch, key=_first_seen, reverse=not ascending))
        yield
    merged: Iterator[Task] = heapq.merge(*runs, key=_first_seen, reverse=not ascending)
    for _ in batches(islice(merged, max(offset, 0)), _AT_ONCE):
        yield
    return {"tasks": Rows(islice(merged, max(limit, 0)), write_task)}


def _choose(snapshot: ClusterSnapshot, framework_id: str, task_id: str) -> Iterator[Task]:
    for row in (*snapshot.frameworks, *snapshot.completed_frameworks):
        if framework_id in ("", row.id):
            for task in chain(row.tasks, row.unreachable_tasks, row.completed_tasks):
                if task_id in ("", task.info.task_id):
                    yield task


def _first_seen(task: Task) -> tuple[float, str]:
    return (task.statuses[0].at if task.statuses else 0.0, task.info.task_id)


def write_roles(snapshot: ClusterSnapshot) -> Json:
    """`/roles`. Shapes: what is reserved, and consumed of `quota`, includes the roles below; the rest does not."""
    return {
        "roles": [
            {
                "name": r.name,
                "weight": r.weight,
                "frameworks": r.frameworks,
                "resources": write_flat(r.allocated),
                "allocated": write_flat(subtract(normal(r.allocated), normal(r.offered))),
                "offered": write_flat(r.offered),
                "reserved": write_flat(r.reserved),
                "quota": write_role_quota(r),
            }
            for r in snapshot.roles
        ]
    }
