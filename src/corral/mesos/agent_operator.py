"""Reads operator calls to an agent and writes their answers: the reads of the Mesos v1 agent API.

A command task counts as an executor of the same id with this one task, as in the agent's `/state`. Empty lists are left
out of answers. Source: Mesos v1, agent operator API.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos import daemon, operator, wire
from corral.mesos.common import write_agent_info, write_framework_info
from corral.mesos.daemon import DaemonCall
from corral.mesos.lenient import LenientDecoder
from corral.mesos.pieces import Rows, Tree
from corral.mesos.snapshot import AgentFrameworkRow, AgentSnapshot, RunRow
from corral.mesos.tasks import seen_executor, seen_resources, write_executor
from corral.model.ids import ExecutorId
from corral.model.task import ExecutorInfo

PATHS = ("/api/v1", "/api/v1/{rest*}", "/slave(1)/api/v1", "/slave(1)/api/v1/{rest*}")


class AgentCall(StrEnum):
    """The calls that read."""

    GET_HEALTH = "GET_HEALTH"
    GET_FLAGS = "GET_FLAGS"
    GET_VERSION = "GET_VERSION"
    GET_METRICS = "GET_METRICS"
    GET_STATE = "GET_STATE"
    GET_FRAMEWORKS = "GET_FRAMEWORKS"
    GET_EXECUTORS = "GET_EXECUTORS"
    GET_OPERATIONS = "GET_OPERATIONS"
    GET_TASKS = "GET_TASKS"
    GET_AGENT = "GET_AGENT"
    GET_RESOURCE_PROVIDERS = "GET_RESOURCE_PROVIDERS"


KNOWN = frozenset(
    {
        *AgentCall, *daemon.CALLS, "UNKNOWN", "GET_CONTAINERS", "LAUNCH_CONTAINER", "WAIT_CONTAINER", "KILL_CONTAINER",
        "REMOVE_CONTAINER", "LAUNCH_NESTED_CONTAINER", "WAIT_NESTED_CONTAINER", "KILL_NESTED_CONTAINER",
        "REMOVE_NESTED_CONTAINER", "LAUNCH_NESTED_CONTAINER_SESSION", "ATTACH_CONTAINER_INPUT",
        "ATTACH_CONTAINER_OUTPUT", "ADD_RESOURCE_PROVIDER_CONFIG", "UPDATE_RESOURCE_PROVIDER_CONFIG",
        "REMOVE_RESOURCE_PROVIDER_CONFIG", "MARK_RESOURCE_PROVIDER_GONE", "PRUNE_IMAGES",
    }
)  # fmt: skip
"""All calls of the API, answered or not."""

_calls = LenientDecoder(daemon.WireDaemonCall, "agent::Call")


def read_call(body: bytes) -> AgentCall | DaemonCall:
    """A read by its name, or what is asked of the daemon itself.

    Errors: `Invalid` without a known type or without its member; `Unimplemented` for what this release does not do.
    """
    call = _calls.decode(body)
    kind = call.type
    if kind is None or kind not in KNOWN:
        given = f"; found {kind!r}, which is no call" if kind is not None else ""
        raise Invalid(f"Failed to validate agent::Call: Expecting 'type' to be present{given}")
    if kind in daemon.CALLS:
        found = daemon.read_call(call)
        if found is None:
            raise Invalid(f"Failed to validate agent::Call: Expecting '{kind.lower()}' to be present")
        return found
    try:
        return AgentCall(kind)
    except ValueError:
        raise Unimplemented(
            f"agent call {kind} is not part of this release; {', '.join((*AgentCall, *daemon.CALLS))} are"
        ) from None


def plan_response(
    call: AgentCall, snapshot: AgentSnapshot, version: str, metrics: Mapping[str, float] | None = None
) -> Tree:
    """The answer's JSON body as a tree: `{"type": T, "<t>": {...}}`. Shapes: `metrics` for GET_METRICS alone."""
    return {"type": call.value, call.value.lower(): _write_body(call, snapshot, version, metrics or {})}


def _write_body(call: AgentCall, snapshot: AgentSnapshot, version: str, metrics: Mapping[str, float]) -> Tree:
    match call:
        case AgentCall.GET_HEALTH:
            return {"healthy": True}
        case AgentCall.GET_FLAGS:
            return operator.write_flags(snapshot.flags)
        case AgentCall.GET_VERSION:
            return operator.write_version(version)
        case AgentCall.GET_METRICS:
            return operator.write_metrics(metrics)
        case AgentCall.GET_STATE:
            return {
                "get_tasks": write_tasks(snapshot),
                "get_executors": write_executors(snapshot),
                "get_frameworks": write_frameworks(snapshot),
            }
        case AgentCall.GET_FRAMEWORKS:
            return write_frameworks(snapshot)
        case AgentCall.GET_EXECUTORS:
            return write_executors(snapshot)
        case AgentCall.GET_TASKS:
            return write_tasks(snapshot)
        case AgentCall.GET_AGENT:
            info = snapshot.info
            return {"agent_info": write_agent_info(info)}
        case AgentCall.GET_OPERATIONS | AgentCall.GET_RESOURCE_PROVIDERS:
            return {}


def write_frameworks(snapshot: AgentSnapshot) -> Tree:
    """Shapes: a framework whose runs here have all ended is completed."""
    live, over = snapshot.by_life()
    found = {"frameworks": Rows(live, _write_framework) if live else None}
    found["completed_frameworks"] = Rows(over, _write_framework) if over else None
    return _present(found)


def _write_framework(row: AgentFrameworkRow) -> Tree:
    return {"framework_info": write_framework_info(row.info)}


def write_executors(snapshot: AgentSnapshot) -> Tree:
    """Shapes: an executor once, however many tasks it has; one with a task that lives is no completed one."""
    live = {r.container_id: (f, r) for f, r in _runs(snapshot) if not r.is_completed}
    over = {r.container_id: (f, r) for f, r in _runs(snapshot) if r.container_id not in live}
    return _present(
        {
            "executors": Rows(list(live.values()), _write_executor) if live else None,
            "completed_executors": Rows(list(over.values()), _write_executor) if over else None,
        }
    )


def _write_executor(found: tuple[AgentFrameworkRow, RunRow]) -> Tree:
    framework, run = found
    info = run.task.info
    executor = run.executor or info.executor or ExecutorInfo(
        executor_id=ExecutorId(info.task_id), command=info.command, name=info.name,
        resources=seen_resources(info),
    )  # fmt: skip
    made = write_executor(seen_executor(executor), refinement=True, allocation=run.task.role, both=True)
    made.framework_id = wire.Id(value=framework.info.id or "")
    return {"executor_info": made}


def write_tasks(snapshot: AgentSnapshot) -> Tree:
    """Shapes: queued until it has been started, launched while it lives, terminated until its end is acknowledged."""
    kinds: dict[str, list[RunRow]] = {"queued_tasks": [], "launched_tasks": [], "terminated_tasks": [],
                                      "completed_tasks": []}  # fmt: skip
    for _, run in _runs(snapshot):
        if run.is_completed:
            kinds["completed_tasks" if run.is_forgotten else "terminated_tasks"].append(run)
        else:
            kinds["queued_tasks" if run.queued else "launched_tasks"].append(run)
    return {name: Rows(runs, _write_run) for name, runs in kinds.items() if runs}


def _write_run(run: RunRow) -> object:
    return operator.write_task(run.task)


def _runs(snapshot: AgentSnapshot) -> Iterator[tuple[AgentFrameworkRow, RunRow]]:
    for framework in (*snapshot.frameworks, *snapshot.completed_frameworks):
        for run in framework.runs:
            yield framework, run


def _present(found: dict[str, Rows | None]) -> Tree:
    return {name: rows for name, rows in found.items() if rows is not None}
