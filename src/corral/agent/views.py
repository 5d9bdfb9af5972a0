"""What the agent's API shows of its state: its tasks, the run behind a task's name, the whole for Mesos' endpoints."""

import msgspec

from corral.agent import standalone, updates
from corral.agent.session import describe_agent
from corral.agent.spec import (
    AgentView,
    ContainerView,
    FindSecretFiles,
    FindTask,
    ListTasks,
    RuntimeView,
    Stage,
    TaskView,
)
from corral.agent.state import AgentState, Task
from corral.lib.errors import Conflict, NotFound
from corral.mesos.snapshot import AgentFrameworkRow, AgentSnapshot, RunRow
from corral.model.ids import ContainerId, FrameworkId
from corral.model.resources import add
from corral.model.task import ContainerStatus, group_of
from corral.model.task import Task as TaskModel


def list_tasks(state: AgentState, command: ListTasks) -> list[TaskView]:
    """All tasks in the order of their names, then those that ended lately, newest first."""
    found = [view_task(state, task) for _, task in sorted(state.tasks.items())]
    if command.completed:
        found += [view_task(state, task) for task in reversed(state.completed)]
    return found


def view_task(state: AgentState, task: Task) -> TaskView:
    info, latest = task.info, task.latest
    own = task.executor if task.executor is not None and task.custom else task
    launched = own.launched
    return TaskView(
        id=info.task_id,
        name=info.name,
        group=group_of(info),
        framework=task.framework_id,
        role=task.role,
        agent=state.identity.agent_id,
        hostname=state.config.hostname,
        state=task.state,
        message=latest.message if latest is not None else None,
        reason=latest.reason if latest is not None else None,
        healthy=latest.healthy if latest is not None else None,
        at=latest.at if latest is not None else 0.0,
        container=own.container_id,
        runtime=task.runtime,
        sandbox=task.sandbox,
        pid=launched.pid if launched is not None else None,
        ip=launched.ip if launched is not None else None,
        ports=task.ports,
        started_at=task.started_at,
        unacknowledged=len(task.pending),
    )


def find_task(state: AgentState, command: FindTask) -> TaskView:
    if command.framework_id:
        task = state.tasks.get((FrameworkId(command.framework_id), command.task_id))
        found = [task] if task is not None else []
    else:
        found = [task for key, task in state.tasks.items() if key[1] == command.task_id]
    if len(found) > 1:
        names = ", ".join(sorted(task.framework_id for task in found))
        raise Conflict(f"task {command.task_id} is of frameworks {names}; say which by ?framework=ID")
    if found:
        return view_task(state, found[0])
    for task in reversed(state.completed):
        if task.info.task_id == command.task_id and command.framework_id in ("", task.framework_id):
            return view_task(state, task)
    host = state.config.hostname
    raise NotFound(f"agent {host} has no task {command.task_id}; corral ps says where it is")


def find_secret_files(state: AgentState, command: FindSecretFiles) -> tuple[str, ...]:
    """Shapes: empty when it has none, or is not there."""
    task = state.tasks.get((FrameworkId(command.framework_id), command.task_id))
    container = task.info.container if task is not None else None
    return tuple(v.secret for v in container.volumes if v.secret is not None) if container is not None else ()


def list_containers(state: AgentState) -> list[ContainerView]:
    """Executors in the order of their names, each with the containers of its tasks, then command tasks, then the
    standalone ones."""
    found = []
    for _, executor in sorted(state.executors.items()):
        live = executor.live_tasks
        launched = executor.launched
        found.append(
            ContainerView(
                id=executor.container_id,
                inner=executor.container_id,
                parent=None,
                framework=executor.framework_id,
                executor=executor.info.executor_id,
                name=executor.info.name or "",
                runtime=executor.runtime,
                sandbox=executor.sandbox,
                runs=launched is not None or executor.is_default,
                status=ContainerStatus(
                    container_id=executor.container_id, executor_pid=launched.pid if launched is not None else None
                ),
                resources=add(executor.info.resources, *(task.info.resources for task in live)),
                source=executor.info.source or "",
                role=executor.role,
            )
        )
        found += [_view_container(state, task, executor.container_id) for task in live if not task.custom]
    tasks = (task for _, task in sorted(state.tasks.items()) if task.live and task.info.executor is None)
    return found + [_view_container(state, task, None) for task in tasks] + standalone.list_views(state)


def _view_container(state: AgentState, task: Task, parent: ContainerId | None) -> ContainerView:
    return ContainerView(
        id=task.container_id,
        inner=task.container_id,
        parent=parent,
        framework=task.framework_id,
        executor=updates.executor_id(task),
        name=task.info.name,
        runtime=task.runtime,
        sandbox=task.sandbox,
        runs=task.stage is Stage.RUNNING,
        status=updates.container_status(state, task),
        resources=task.info.resources,
        limits=task.info.limits,
        source=task.info.task_id,
        role=task.role,
    )


def read_state(state: AgentState, now: float) -> AgentView:
    live = sum(1 for task in state.tasks.values() if task.live)
    return AgentView(
        snapshot=_snapshot(state),
        epoch=state.identity.epoch,
        registered=state.registered,
        runtimes=tuple(RuntimeView(name=name, why=runtime.why) for name, runtime in state.runtimes.items()),
        live=live,
        unacknowledged=sum(len(task.pending) for task in state.tasks.values()),
        uptime_s=max(0.0, now - state.loaded_at),
        disk_usage=state.disk_usage,
        counters=dict(state.counters),
        executors=_count_executors(state),
        overhead=add(*(executor.info.resources for executor in state.executors.values())),
        lendable=dict(state.slack.told),
    )


def _count_executors(state: AgentState) -> dict[str, int]:
    counts = dict.fromkeys(("registering", "running", "terminating"), 0)
    for executor in state.executors.values():
        if executor.ending is not None:
            counts["terminating"] += 1
        else:
            counts["running" if executor.subscribed or executor.is_default else "registering"] += 1
    return counts


def _snapshot(state: AgentState) -> AgentSnapshot:
    runs: dict[FrameworkId, list[RunRow]] = {framework_id: [] for framework_id in sorted(state.frameworks)}
    for _, task in sorted(state.tasks.items()):
        if task.framework_id in runs:
            runs[task.framework_id].append(_view_run(task))
    for task in state.completed:
        if task.framework_id in runs:
            runs[task.framework_id].append(msgspec.structs.replace(_view_run(task), is_forgotten=True))
    config = state.config
    flags = {
        "work_dir": config.work_dir,
        "hostname": config.hostname,
        "ip": config.ip,
        "port": str(config.port),
        "containerizers": ",".join(config.runtimes),
        "switch_user": "true" if config.switch_user else "false",
        "gc_delay": f"{config.gc_delay_s:g}secs",
        "gc_disk_headroom": f"{config.gc_headroom:g}",
        "disk_watch_interval": f"{config.gc_check_s:g}secs",
    }
    return AgentSnapshot(
        info=describe_agent(state),
        start_at=state.loaded_at,
        master_hostname=state.master.split("://")[-1].rsplit(":", 1)[0],
        flags=tuple(sorted(flags.items())),
        frameworks=tuple(
            AgentFrameworkRow(info=state.frameworks[framework_id], runs=tuple(found))
            for framework_id, found in runs.items()
        ),
    )


def _view_run(task: Task) -> RunRow:
    executor = task.executor
    return RunRow(
        task=TaskModel(
            info=task.info,
            framework_id=task.framework_id,
            role=task.role,
            state=task.state,
            statuses=tuple(task.statuses.values()),
        ),
        container_id=executor.container_id if executor is not None else task.container_id,
        directory=executor.sandbox if executor is not None else task.sandbox,
        queued=task.stage in (Stage.STAGING, Stage.FETCHING),
        executor=executor.info if executor is not None else None,
    )
