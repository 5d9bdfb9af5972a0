"""What the agent knows of its tasks: collections that answer every question of a turn in constant time.

Rule: a container belongs to one task, a host port to one live task, and of a task's updates only the oldest is told.
"""

from collections import deque
from random import Random

import msgspec

from corral.agent.cutoff_state import CutOffState
from corral.agent.deadlines import Deadlines, Due
from corral.agent.execution import Plan
from corral.agent.executor_state import Executor, ExecutorKey
from corral.agent.oversubscription import SlackState
from corral.agent.spec import (
    AgentConfig,
    Ending,
    FrameworkRecord,
    Identity,
    RunRecord,
    Sandbox,
    Stage,
    TaskRecord,
)
from corral.agent.staged import Staged
from corral.agent.standalone_state import StandaloneContainers
from corral.lib.errors import Invalid
from corral.model.execution import Launched
from corral.model.framework import FrameworkInfo
from corral.model.health import CheckResult, CheckStatus, HealthCheck
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.model.partition import stop_after_s
from corral.model.resources import all_ranges
from corral.model.task import TERMINAL, TaskInfo, TaskState, TaskStatus
from corral.runtime.core import Effect, Persist

Key = tuple[FrameworkId, TaskId]

MOST_COMPLETED = 1000
MOST_ACKNOWLEDGED = 32


class CheckState:
    """What one health check of a task has shown. Shapes: `alive` None before the first probe that counts.

    `due_at` is when it is to be probed next; `failures` are those in a row.
    """

    __slots__ = (
        "alive", "cause", "check", "due_at", "failures", "first_success_at", "last_failure_at", "last_success_at",
        "probing",
    )  # fmt: skip

    def __init__(self, check: HealthCheck) -> None:
        self.check = check
        self.alive: bool | None = None
        self.failures = 0
        self.cause = ""
        self.first_success_at: float | None = None
        self.last_success_at: float | None = None
        self.last_failure_at: float | None = None
        self.due_at = 0.0
        self.probing = False

    def result(self, index: int) -> CheckResult:
        """Shapes: not to be asked for before the first probe that counts."""
        return CheckResult(
            index=index,
            alive=bool(self.alive),
            consecutive_failures=self.failures,
            first_success_at=self.first_success_at,
            last_success_at=self.last_success_at,
            last_failure_at=self.last_failure_at,
            cause=self.cause,
        )

    def take_up(self, result: CheckResult) -> None:
        """Go on from what an earlier process told; its failures in a row are not held against the task."""
        self.alive = result.alive
        self.cause = result.cause
        self.first_success_at = result.first_success_at
        self.last_success_at = result.last_success_at
        self.last_failure_at = result.last_failure_at


class Task(Staged):
    """One run of a task.

    Shapes: `pending` oldest first, its head `told` when it is on its way to the master. `boot` is the boot of the
    node in which it was started. `probes` are its health checks
    and then its check, if it has one. `custom` when its executor is the framework's own: then `executor` alone has a
    container; `acknowledged` are the newest of its updates that are told.
    """

    __slots__ = (
        "acknowledged",
        "boot",
        "check",
        "check_status",
        "checks",
        "container_id",
        "custom",
        "ending",
        "executor",
        "framework_id",
        "group",
        "info",
        "key",
        "latest",
        "launched",
        "pending",
        "plan",
        "ports",
        "probes",
        "role",
        "runtime",
        "sandbox",
        "started_at",
        "statuses",
        "stop_after_s",
        "told",
        "tries",
        "unsettled",
    )

    def __init__(self, record: TaskRecord) -> None:
        super().__init__()
        self.key: Key = (record.framework_id, record.info.task_id)
        self.framework_id = record.framework_id
        self.role = record.role
        self.info: TaskInfo = record.info
        self.container_id = record.container_id
        self.runtime = record.runtime
        self.sandbox = record.sandbox
        self.ports = host_ports(record.info)
        self.group = record.group
        self.executor: Executor | None = None
        self.custom = record.info.executor is not None and not record.info.executor.is_default
        self.acknowledged: deque[bytes] = deque(maxlen=MOST_ACKNOWLEDGED)
        # What a custom executor runs is for the executor to look at.
        self.checks = tuple(CheckState(check) for check in record.info.health_checks if not self.custom)
        check = record.info.check if not self.custom else None
        self.check = CheckState(check) if check is not None else None
        self.check_status = CheckStatus(kind=check.kind) if check is not None else None
        self.probes = self.checks if self.check is None else (*self.checks, self.check)
        self.stop_after_s = _stop_after_s(record.info)
        self.pending: deque[TaskStatus] = deque()
        self.latest: TaskStatus | None = None
        self.statuses: dict[TaskState, TaskStatus] = {}
        self.launched: Launched | None = None
        self.started_at: float | None = None
        self.ending: Ending | None = None
        self.told = 0
        """How many of `pending`, from its head, the master of this session was told."""
        self.tries = 0
        self.boot = ""
        self.plan: Plan | None = None
        """What the runtime will be given; kept until the start, which belongs to the process that took the order."""
        self.unsettled = False
        """Taken from the records of an earlier agent process; whether it still runs is not known yet."""

    @property
    def state(self) -> TaskState:
        return TaskState.STAGING if self.latest is None else self.latest.state

    @property
    def healthy(self) -> bool | None:
        """Whether all checks pass; None when that is not known, as of a task without any."""
        found = [each.alive for each in self.checks]
        if False in found:
            return False
        return None if not found or None in found else True

    def record(self) -> TaskRecord:
        return TaskRecord(
            self.framework_id, self.role, self.info, self.container_id, self.runtime, self.sandbox, self.group
        )

    def run_record(self) -> RunRecord:
        latest = self.latest
        if self.pending and self.pending[-1] is latest:
            latest = None
        return RunRecord(
            self.stage, tuple(self.pending), latest, self.launched, self.started_at, self.ending,
            tuple(self.acknowledged), self.boot,
        )  # fmt: skip

    def take_up(self, run: RunRecord) -> None:
        """Go on from where the record says that an earlier process was."""
        self.stage = run.stage
        self.pending = deque(run.pending)
        self.latest = run.latest or (run.pending[-1] if run.pending else None)
        for status in (*run.pending, *([run.latest] if run.latest else ())):
            self.statuses[status.state] = status
        self.launched = run.launched
        self.started_at = run.started_at
        self.ending = run.ending
        self.acknowledged.extend(run.acknowledged)
        self.boot = run.boot
        self.unsettled = self.live and not self.custom
        if self.check is not None and self.latest is not None and self.latest.check is not None:
            self.check_status = self.latest.check
        for result in self.latest.health if self.checks and self.latest is not None else ():
            self.checks[result.index].take_up(result)


class Runtime:
    """What is known of one runtime. Shapes: `why` says what keeps it from starting tasks, None when it is ready."""

    __slots__ = ("answered", "failures", "why")

    def __init__(self) -> None:
        self.why: str | None = "it has not been asked yet"
        self.answered = False
        self.failures = 0


class AgentState:
    __slots__ = (
        "by_container",
        "completed",
        "config",
        "connecting",
        "counters",
        "cutoff",
        "deadlines",
        "discards",
        "disk_usage",
        "doomed",
        "ended",
        "executor_containers",
        "executors",
        "fates",
        "frameworks",
        "heard_at",
        "identity",
        "life",
        "loaded_at",
        "master",
        "ping_s",
        "ports",
        "random",
        "registered",
        "resources",
        "runtimes",
        "session",
        "slack",
        "spoke_at",
        "standalone",
        "tasks",
    )

    def __init__(self, config: AgentConfig, random: Random) -> None:
        self.config = config
        self.random = random
        self.identity = Identity()
        self.resources = config.resources
        self.doomed: dict[str, None] = {}
        self.frameworks: dict[FrameworkId, FrameworkInfo] = {}
        self.tasks: dict[Key, Task] = {}
        self.by_container: dict[ContainerId, Task] = {}
        self.executors: dict[ExecutorKey, Executor] = {}
        self.executor_containers: dict[ContainerId, Executor] = {}
        self.standalone = StandaloneContainers()
        self.fates: deque[Task] = deque()
        """Tasks of groups that have just ended: their siblings, and their executor, are to be looked at."""
        self.ports: dict[int, Task] = {}
        self.completed: deque[Task] = deque(maxlen=MOST_COMPLETED)
        self.ended: deque[Sandbox] = deque()
        self.runtimes: dict[str, Runtime] = {name: Runtime() for name in config.runtimes}
        self.deadlines = Deadlines()
        self.discards: dict[ContainerId, str] = {}
        self.session: str | None = None
        self.life = ""  # the name of the first session of this process
        self.master = ""
        self.registered = False
        self.connecting = False
        self.ping_s = 15.0
        self.heard_at = 0.0
        self.spoke_at = 0.0
        self.loaded_at = 0.0
        self.disk_usage = 0.0
        self.slack = SlackState()
        self.cutoff = CutOffState()
        self.counters: dict[str, int] = dict.fromkeys(
            (
                "launched",
                "finished",
                "failed",
                "killed",
                "lost",
                "errors",
                "launch_errors",
                "sessions",
                "updates",
                "preempted",
                "executors_ended",
            ),
            0,
        )

    def add(self, task: Task) -> None:
        self.tasks[task.key] = task
        self.by_container[task.container_id] = task
        info = task.info.executor
        task.executor = self.executors.get((task.framework_id, info.executor_id)) if info is not None else None
        if task.executor is not None:
            task.executor.tasks[task.info.task_id] = task
        if task.live:
            for port in task.ports:
                self.ports[port] = task

    def free_ports(self, task: Task) -> None:
        for port in task.ports:
            if self.ports.get(port) is task:
                del self.ports[port]

    def forget(self, task: Task) -> list[Effect]:
        """The task has ended and the master knows: only the memory for views keeps it."""
        del self.tasks[task.key]
        del self.by_container[task.container_id]
        if task.executor is not None:
            task.executor.tasks.pop(task.info.task_id, None)
        self.deadlines.forget(task.container_id)
        self.completed.append(task)
        return [Persist(task_path(task.key), None), Persist(run_path(task.key), None)]

    def save_run(self, task: Task) -> Persist:
        return Persist(run_path(task.key), task.run_record())

    def add_executor(self, executor: Executor) -> None:
        self.executors[executor.key] = executor
        self.executor_containers[executor.container_id] = executor

    def forget_executor(self, executor: Executor) -> list[Effect]:
        """The executor has ended, and all its tasks."""
        del self.executors[executor.key]
        del self.executor_containers[executor.container_id]
        self.deadlines.forget(executor.container_id)
        return executor.erase()

    def uses(self, framework_id: FrameworkId) -> bool:
        """Whether anything of the framework is left here."""
        return any(key[0] == framework_id for key in (*self.tasks, *self.executors))

    def invariants(self) -> None:
        self._check_tasks()
        self._check_executors()
        self.standalone.invariants()

    def _check_executors(self) -> None:
        assert not self.fates, "the siblings of an ended task were not looked at"
        assert len(self.executors) == len(self.executor_containers), "a container and an executor each for the other"
        streams = [executor.stream for executor in self.executors.values() if executor.stream is not None]
        assert len(set(streams)) == len(streams), "two executors listen to one stream"
        for key, executor in self.executors.items():
            assert executor.key == key
            assert self.executor_containers.get(executor.container_id) is executor, f"container of executor {key}"
            assert executor.framework_id in self.frameworks, f"framework of executor {key} is known"
            assert executor.stage is not Stage.ENDED, f"executor {key} has ended and is not forgotten"
            assert not executor.is_default or executor.live_tasks, f"default executor {key} has nothing to do"
            waits = executor.stage is Stage.RUNNING and executor.stream is None and executor.ending is None
            if waits and not executor.is_default and not executor.unsettled:
                assert self.deadlines.at(executor.container_id, Due.REGISTER) is not None, (
                    f"{key} may be silent for ever"
                )
            for task_id, task in executor.tasks.items():
                assert self.tasks.get((executor.framework_id, task_id)) is task, f"{task_id} of executor {key}"
        for name, task in self.tasks.items():
            if task.info.executor is not None and task.live:
                own = task.executor
                assert own is not None, f"{name} has no executor"
                assert self.executors.get(own.key) is own, f"executor of {name} has gone"
                assert task.info.task_id in own.tasks, f"{name} is not with its executor"
                waits = task.custom and task.stage is Stage.STAGING
                assert not waits or own.stream is None or own.ending is not None, f"{name} is not handed over"

    def _check_tasks(self) -> None:
        assert len(self.by_container) == len(self.tasks), "a container and a task each for the other"
        held: dict[int, Task] = {}
        for key, task in self.tasks.items():
            assert task.key == key
            assert self.by_container.get(task.container_id) is task, f"container of {key}"
            assert task.framework_id in self.frameworks, f"framework of {key} is known"
            assert task.told <= len(task.pending), f"{key} tells an update that it has not"
            assert not task.told or self.registered, f"{key} tells an update to nobody"
            assert not (self.registered and task.pending) or task.told, f"an update of {key} is not told"
            assert task.live == (task.state not in TERMINAL), f"{key} is {task.stage} and {task.state}"
            assert task.live or task.pending, f"{key} has ended, is acknowledged and not forgotten"
            assert task.stage is not Stage.RUNNING or task.launched is not None, f"{key} runs where"
            uuids = [status.uuid for status in task.pending]
            assert len(set(uuids)) == len(uuids), f"updates of {key} are told apart"
            terminal = [status.state in TERMINAL for status in task.pending]
            assert not any(terminal[:-1]), f"an update of {key} follows its last"
            if task.probes and task.stage is Stage.RUNNING and not task.unsettled and task.ending is None:
                probed = all(each.probing for each in task.probes)
                assert probed or self.deadlines.at(task.container_id, Due.PROBE) is not None, (
                    f"{key} is watched no more"
                )
            bound = task.live and task.stop_after_s is not None
            assert not bound or task.container_id in self.cutoff.tasks, f"{key} has a bound that nobody looks at"
            if task.told:
                assert self.deadlines.at(task.container_id, Due.UPDATE) is not None, f"{key} is told once only"
            if task.live:
                for port in task.ports:
                    assert port not in held, f"port {port} of {key} is also of {held[port].key}"
                    held[port] = task
        assert held == self.ports, "ports are held by live tasks"
        assert not self.registered or self.session is not None


def _stop_after_s(info: TaskInfo) -> float | None:
    try:
        return stop_after_s(info)
    except Invalid:
        return None  # the order is refused for it


def host_ports(info: TaskInfo) -> tuple[int, ...]:
    """The host ports that the task takes: those of its resources and those its container is mapped to."""
    found = {port for low, high in all_ranges(info.resources, "ports") for port in range(low, high + 1)}
    if info.container is not None and info.container.docker is not None:
        found.update(m.host_port for m in info.container.docker.port_mappings if m.host_port)
    return tuple(sorted(found))


def task_path(key: Key) -> str:
    return f"tasks/{key[0]}/{key[1]}"


def run_path(key: Key) -> str:
    return f"runs/{key[0]}/{key[1]}"


def framework_path(framework_id: FrameworkId) -> str:
    return f"frameworks/{framework_id}"


def save_identity(state: AgentState, **changes: object) -> list[Effect]:
    """Change what the agent is to masters, if it changes at all."""
    identity = msgspec.structs.replace(state.identity, **changes)
    if identity == state.identity:
        return []
    state.identity = identity
    return [Persist("identity", identity)]


def save_framework(state: AgentState, info: FrameworkInfo) -> list[Effect]:
    if info.id is None or state.frameworks.get(info.id) == info:
        return []
    state.frameworks[info.id] = info
    return [Persist(framework_path(info.id), FrameworkRecord(info))]
