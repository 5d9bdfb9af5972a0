"""Executors on an agent: brought up, told of tasks, listened to, lost, found again, ended."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from agent_driver import AGENT, FRAMEWORK, Driver, make_framework, make_task

from corral.agent import effects as fx
from corral.agent.routes import flatten_metrics
from corral.agent.spec import (
    ExecutorClosed,
    Exited,
    Fetched,
    FindTask,
    ReadState,
    Stage,
    Started,
    StartFailed,
    SubscribeExecutor,
    TakeCall,
    WaitFailed,
)
from corral.lib.errors import CorralError, Forbidden, Invalid
from corral.model import executor as api
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo, NetworkInfo
from corral.model.execution import Exit, Found, Launched
from corral.model.flags import parse_resources
from corral.model.ids import ContainerId, ExecutorId, FrameworkId, TaskId
from corral.model.orders import (
    ExecutorEnded,
    ExecutorMessage,
    MessageExecutor,
    Register,
    Registered,
    RunGroup,
    RunTask,
    ShutdownExecutor,
    ShutdownFramework,
)
from corral.model.task import (
    CommandInfo,
    ContainerStatus,
    ExecutorInfo,
    Reason,
    Source,
    TaskInfo,
    TaskState,
    TaskStatus,
    Uri,
)
from corral.runtime.core import Asked, Refuse

EXECUTOR = ExecutorInfo(
    executor_id=ExecutorId("e"),
    framework_id=FRAMEWORK,
    command=CommandInfo(value="./run"),
    resources=parse_resources("cpus:0.5;mem:64"),
    kind="CUSTOM",
)
KEY = (FRAMEWORK, ExecutorId("e"))


def of_executor(task_id: str = "t1", executor: ExecutorInfo = EXECUTOR, **more: Any) -> TaskInfo:
    return make_task(task_id, command=None, executor=executor, **more)


def status(task_id: str, state: TaskState, uuid: int = 1, **more: Any) -> TaskStatus:
    return TaskStatus(
        task_id=TaskId(task_id), state=state, at=999.0, source=Source.EXECUTOR, uuid=uuid.to_bytes(16, "big"), **more
    )


class Desk:
    """An agent, and the words of one executor to it."""

    def __init__(self, agent: Driver) -> None:
        self.agent = agent
        self.stream = ""
        self._streams = 0

    def launch(self, *infos: TaskInfo, starts: bool = True, **options: Any) -> None:
        for index, info in enumerate(infos):
            framework = make_framework(**options)
            self.agent.order(RunTask(self.agent.epoch, framework, "web", info, starts and index == 0))

    @property
    def container(self) -> ContainerId:
        return self.agent.core.state.executors[KEY].container_id

    def up(self) -> None:
        self.agent.tell(Started(Launched(container_id=self.container, pid=55)))

    def subscribe(self, *known: str, updates: tuple[TaskStatus, ...] = ()) -> list[api.Event]:
        self._streams += 1
        self.stream = f"x{self._streams}"
        call = api.Subscribe(
            framework_id=FRAMEWORK, executor_id=ExecutorId("e"), task_ids=tuple(map(TaskId, known)), updates=updates
        )
        self.ask(SubscribeExecutor(self.stream, call))
        return self.told()

    def ready(self, *infos: TaskInfo, **options: Any) -> "Desk":
        self.launch(*infos, **options)
        self.up()
        self.subscribe()
        return self

    def ask(self, command: Any) -> None:
        self.agent.tell(Asked(1, command))
        for effect in self.agent.effects:
            if isinstance(effect, Refuse):
                raise effect.error

    def update(self, task_id: str, state: TaskState, uuid: int = 1, **more: Any) -> None:
        found = status(task_id, state, uuid, **more)
        self.ask(TakeCall(api.Update(framework_id=FRAMEWORK, executor_id=ExecutorId("e"), status=found)))

    def told(self) -> list[api.Event]:
        """What the last input put onto the newest stream."""
        return [e.event for e in self.agent.all(fx.TellExecutor) if e.stream == self.stream]

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.told()]

    def exit(self, **how: Any) -> None:
        self.agent.tell(Exited(Exit(container_id=self.container, at=self.agent.now, **how)))

    def ended(self) -> list[ExecutorEnded]:
        return [e.report for e in self.agent.all(fx.Send) if isinstance(e.report, ExecutorEnded)]

    def found(self, exit: Exit | None = None, up: bool = True) -> Found:
        """What a runtime would say of the executor now."""
        launched = Launched(container_id=self.container, pid=55) if up else None
        return Found(
            container_id=self.container, task_id=TaskId("e"), framework_id=FRAMEWORK, launched=launched, exit=exit
        )


@pytest.fixture
def desk(agent: Driver) -> Desk:
    return Desk(agent)


# Coming up.


def test_the_first_task_brings_its_executor_up_and_is_handed_over_when_that_listens(desk: Desk) -> None:
    desk.launch(of_executor())
    execution = desk.agent.execution()
    environment = dict(execution.environment)
    assert execution.argv == ("/bin/sh", "-c", "./run")
    assert (environment["MESOS_EXECUTOR_ID"], environment["MESOS_FRAMEWORK_ID"]) == ("e", FRAMEWORK)
    assert environment["MESOS_AGENT_ENDPOINT"] == "10.0.0.1:4681"
    assert environment["MESOS_DIRECTORY"] == environment["MESOS_SANDBOX"] == execution.sandbox
    assert execution.sandbox.endswith(f"/executors/e/runs/{desk.container}")
    assert environment["MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"] == "5secs"
    assert environment["MESOS_CHECKPOINT"] == "0"
    assert not {"MESOS_TASK_ID", "CORRAL_TASK_ID", "MESOS_RECOVERY_TIMEOUT"} & set(environment)
    desk.up()
    assert desk.agent.statuses() == []
    subscribed, launch = desk.subscribe()
    assert isinstance(subscribed, api.Subscribed)
    assert (subscribed.executor, subscribed.agent.id, subscribed.container_id) == (EXECUTOR, AGENT, desk.container)
    assert launch == api.Launch(task=of_executor())


def test_what_a_checkpointing_framework_may_rely_on_is_in_the_environment(desk: Desk) -> None:
    grace = msgspec.structs.replace(EXECUTOR, shutdown_grace_s=90.0)
    desk.launch(of_executor(executor=grace), checkpoint=True)
    environment = dict(desk.agent.execution().environment)
    assert environment["MESOS_CHECKPOINT"] == "1"
    assert environment["MESOS_RECOVERY_TIMEOUT"] == "15mins"
    assert environment["MESOS_SUBSCRIPTION_BACKOFF_MAX"] == "2secs"
    assert environment["MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"] == "90secs"


def test_the_container_has_room_for_the_executor_and_its_tasks_and_keeps_its_memory(desk: Desk) -> None:
    desk.launch(of_executor("t1"))
    execution = desk.agent.execution()
    assert (execution.cpu_milli, execution.mem_mb) == (1500, 192)
    desk.up()
    desk.subscribe()
    desk.launch(of_executor("t2"), starts=False)
    grown = desk.agent.one(fx.Resize)
    assert (grown.container_id, grown.cpu_milli, grown.mem_mb) == (desk.container, 2500, 320)
    desk.update("t1", TaskState.FINISHED)
    shrunk = desk.agent.one(fx.Resize)
    assert (shrunk.cpu_milli, shrunk.mem_mb) == (1500, 320)
    desk.launch(of_executor("t3"), starts=False)
    assert desk.agent.one(fx.Resize).mem_mb == 320


def test_a_limit_of_a_task_counts_instead_of_what_it_asked(desk: Desk) -> None:
    desk.launch(of_executor("t1", limits=(("mem", 256_000),)))
    assert desk.agent.execution().mem_mb == 320
    desk.up()
    desk.subscribe()
    desk.launch(of_executor("t2", limits=(("mem", None),)), starts=False)
    assert (desk.agent.one(fx.Resize).mem_mb or 0) > 1_000_000


def test_later_tasks_go_to_the_executor_that_runs(desk: Desk) -> None:
    desk.ready(of_executor("t1"), of_executor("t2"))
    desk.launch(of_executor("t3"), starts=False)
    assert desk.agent.none(fx.Start)
    assert desk.told() == [api.Launch(task=of_executor("t3"))]


def test_the_uris_of_an_executor_are_fetched_first(desk: Desk) -> None:
    command = CommandInfo(value="./run", uris=(Uri(value="/run"),))
    desk.launch(of_executor(executor=msgspec.structs.replace(EXECUTOR, command=command)))
    assert desk.agent.one(fx.Fetch).uris == command.uris
    desk.agent.tell(Fetched(desk.container))
    assert desk.agent.execution().argv == ("/bin/sh", "-c", "./run")


def test_an_executor_with_an_image_is_a_container(desk: Desk) -> None:
    docker = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="mine:1"))
    desk.launch(of_executor(executor=msgspec.structs.replace(EXECUTOR, container=docker)))
    assert desk.agent.one(fx.Start).runtime == "docker"
    execution = desk.agent.execution()
    assert execution.docker == docker.docker
    assert dict(execution.environment)["MESOS_SANDBOX"] == "/mnt/mesos/sandbox"


def failures() -> list[tuple[str, Callable[[Desk], None], Reason]]:
    """A way to lose an executor with its task, and the reason that is told."""

    def fetch(desk: Desk) -> None:
        desk.agent.tell(Fetched(desk.container, "404"))

    def start(desk: Desk) -> None:
        desk.agent.tell(Fetched(desk.container))
        desk.agent.tell(StartFailed(desk.container, "no such file"))

    def silent(desk: Desk) -> None:
        desk.agent.tell(Fetched(desk.container))
        desk.up()
        desk.agent.wait(61)
        assert desk.agent.one(fx.Kill).container_id == desk.container
        desk.exit(signal=9)

    def exit(desk: Desk) -> None:
        desk.agent.tell(Fetched(desk.container))
        desk.up()
        desk.exit(code=1)

    def memory(desk: Desk) -> None:
        desk.agent.tell(Fetched(desk.container))
        desk.up()
        desk.exit(signal=9, oom=True)

    def slow_fetch(desk: Desk) -> None:
        desk.agent.wait(901)
        assert desk.agent.one(fx.CancelFetch)

    def slow_start(desk: Desk) -> None:
        desk.agent.tell(Fetched(desk.container))
        desk.agent.wait(301)
        assert desk.agent.one(fx.Abort)

    def forgotten(desk: Desk) -> None:
        desk.agent.tell(Fetched(desk.container))
        desk.up()
        desk.agent.tell(WaitFailed(desk.container, "no such container", gone=True))

    return [
        ("fetch", fetch, Reason.CONTAINER_LAUNCH_FAILED),
        ("start", start, Reason.CONTAINER_LAUNCH_FAILED),
        ("silent", silent, Reason.EXECUTOR_REGISTRATION_TIMEOUT),
        ("exit", exit, Reason.EXECUTOR_TERMINATED),
        ("memory", memory, Reason.CONTAINER_LIMITATION_MEMORY),
        ("slow fetch", slow_fetch, Reason.CONTAINER_LAUNCH_FAILED),
        ("slow start", slow_start, Reason.CONTAINER_LAUNCH_FAILED),
        ("forgotten", forgotten, Reason.EXECUTOR_TERMINATED),
    ]


@pytest.mark.parametrize(("name", "lose", "reason"), failures(), ids=[f[0] for f in failures()])
def test_an_executor_that_does_not_come_up_fails_its_tasks_with_the_reason(
    desk: Desk, name: str, lose: Callable[[Desk], None], reason: Reason
) -> None:
    command = CommandInfo(value="./run", uris=(Uri(value="/run"),))
    desk.launch(of_executor(executor=msgspec.structs.replace(EXECUTOR, command=command)))
    lose(desk)
    found = desk.agent.status()
    assert (found.state, found.source, found.reason) == (TaskState.FAILED, Source.AGENT, reason)
    assert len(desk.ended()) == 1
    assert KEY not in desk.agent.core.state.executors
    assert not [key for key in desk.agent.records if key.startswith("executor")]


# Refusals.


@pytest.mark.parametrize(
    ("info", "starts", "state", "reason"),
    [
        (of_executor(), False, TaskState.DROPPED, Reason.EXECUTOR_TERMINATED),
        (of_executor(unsupported=("x",)), True, TaskState.ERROR, Reason.TASK_INVALID),
        (
            of_executor(executor=msgspec.structs.replace(EXECUTOR, command=CommandInfo())),
            True, TaskState.ERROR, Reason.TASK_INVALID,
        ),
        (msgspec.structs.replace(of_executor(), agent_id="other"), True, TaskState.ERROR, Reason.TASK_INVALID),
        (of_executor(resources="ports:[31000-31000]"), True, TaskState.DROPPED, Reason.RESOURCES_UNKNOWN),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_taken_is_told_so_and_its_executor_holds_nothing(
    desk: Desk, info: TaskInfo, starts: bool, state: TaskState, reason: Reason
) -> None:
    desk.agent.run(make_task("other", "ports:[31000-31000]"))
    desk.launch(info, starts=starts, aware=True)
    found = desk.agent.status()
    assert (found.state, found.reason, found.source) == (state, reason, Source.AGENT)
    assert [e.status for e in desk.ended()] == ([None] if starts else [])
    assert not desk.agent.core.state.executors
    desk.agent.acknowledge_all()


def test_an_executor_whose_runtime_is_missing_is_a_failed_launch(make_driver: Callable[..., Driver]) -> None:
    agent = make_driver(runtimes=("process",))
    agent.recover(runtime="process")
    agent.register()
    desk = Desk(agent)
    docker = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="mine:1"))
    desk.launch(of_executor(executor=msgspec.structs.replace(EXECUTOR, container=docker)))
    assert (agent.status().state, agent.status().reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)


# Updates.


def test_an_update_is_on_disk_and_told_with_what_the_agent_knows(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.update("t1", TaskState.RUNNING, data=b"up", healthy=True)
    found = desk.agent.status()
    assert (found.state, found.data, found.healthy, found.uuid) == (TaskState.RUNNING, b"up", True, bytes(15) + b"\1")
    assert (found.agent_id, found.executor_id) == (AGENT, "e")
    network = (NetworkInfo(ip_addresses=("10.0.0.1",)),)
    assert found.container_status == ContainerStatus(
        container_id=desk.container, network_infos=network, executor_pid=55
    )
    assert f"runs/{FRAMEWORK}/t1" in desk.agent.records


def test_an_acknowledgement_goes_on_to_the_executor_and_repeated_updates_are_known(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.update("t1", TaskState.RUNNING)
    desk.update("t1", TaskState.RUNNING)
    assert desk.agent.statuses() == []
    desk.agent.acknowledge()
    done = api.Acknowledged(task_id=TaskId("t1"), uuid=bytes(15) + b"\1")
    assert desk.told() == [done]
    desk.update("t1", TaskState.RUNNING)
    assert desk.told() == [done]
    assert desk.agent.statuses() == []


def test_after_its_end_a_task_takes_no_update_and_the_executor_is_told_to_forget_it(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.update("t1", TaskState.FINISHED)
    desk.update("t1", TaskState.RUNNING, 2)
    assert desk.told() == [api.Acknowledged(task_id=TaskId("t1"), uuid=bytes(15) + b"\2")]
    desk.agent.acknowledge_all()
    desk.update("t1", TaskState.FINISHED)
    assert desk.told() == [api.Acknowledged(task_id=TaskId("t1"), uuid=bytes(15) + b"\1")]


def test_what_no_executor_may_say_is_refused_and_changes_nothing(desk: Desk) -> None:
    desk.launch(of_executor())
    before = dict(desk.agent.records)
    heartbeat = api.Heartbeat(framework_id=FRAMEWORK, executor_id=ExecutorId("other"))
    update = api.Update(framework_id=FRAMEWORK, executor_id=ExecutorId("e"), status=status("t1", TaskState.RUNNING))
    cases: list[tuple[Any, type[CorralError]]] = [
        (TakeCall(update), Forbidden),
        (TakeCall(heartbeat), Invalid),
        (TakeCall(msgspec.structs.replace(heartbeat, framework_id=FrameworkId("nobody"))), Invalid),
        (SubscribeExecutor("s", api.Subscribe(framework_id=FRAMEWORK, executor_id=ExecutorId("other"))), Invalid),
    ]  # fmt: skip
    for command, error in cases:
        with pytest.raises(error):
            desk.ask(command)
    assert desk.agent.records == before


def test_messages_go_both_ways(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.ask(TakeCall(api.Message(framework_id=FRAMEWORK, executor_id=ExecutorId("e"), data=b"hi")))
    assert desk.agent.one(fx.Send).report == ExecutorMessage(FRAMEWORK, ExecutorId("e"), b"hi")
    desk.agent.order(MessageExecutor(1, FRAMEWORK, ExecutorId("e"), b"ho"))
    assert desk.told() == [api.Told(data=b"ho")]
    desk.agent.order(MessageExecutor(1, FRAMEWORK, ExecutorId("other"), b"ho"))
    assert desk.agent.notes() == ["message dropped"]


# Killing.


def test_a_kill_goes_to_the_executor_which_says_when_it_is_done(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.update("t1", TaskState.RUNNING)
    desk.agent.acknowledge()
    desk.agent.kill(grace_s=7.0, why="moved", reason=Reason.CONTAINER_PREEMPTED)
    assert desk.told() == [api.Kill(task_id=TaskId("t1"), grace_s=7.0)]
    desk.update("t1", TaskState.KILLED, 2)
    found = desk.agent.status()
    assert (found.state, found.reason, found.message) == (TaskState.KILLED, Reason.CONTAINER_PREEMPTED, "moved")


def test_an_executor_that_keeps_a_task_which_has_to_go_is_ended_with_it(desk: Desk) -> None:
    desk.ready(of_executor("t1"), of_executor("t2"))
    desk.update("t1", TaskState.RUNNING)
    desk.agent.kill("t1", grace_s=2.0, why="it makes room", reason=Reason.CONTAINER_PREEMPTED)
    desk.agent.wait(16)
    assert desk.agent.none(fx.TellExecutor, fx.Kill)
    desk.agent.wait(2)
    assert desk.told() == [api.Shutdown()]
    desk.agent.wait(6)
    assert desk.agent.one(fx.Kill).container_id == desk.container
    desk.exit(signal=9)
    assert {t.state for t in desk.agent.core.state.tasks.values()} == {TaskState.FAILED}
    assert {s.task_id: s.reason for s in desk.agent.statuses()}["t1"] is Reason.CONTAINER_PREEMPTED


def test_a_kill_by_the_framework_itself_is_left_to_the_executor(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.agent.kill("t1", grace_s=1.0)
    desk.agent.wait(600)
    assert desk.agent.none(fx.Kill)


def test_a_task_that_waits_for_its_executor_is_killed_at_once_and_the_executor_with_the_last(desk: Desk) -> None:
    desk.launch(of_executor("t1"), of_executor("t2"))
    desk.up()
    desk.agent.kill("t1")
    found = desk.agent.status()
    assert (found.state, found.reason) == (TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH)
    assert desk.agent.none(fx.Kill)
    desk.agent.kill("t2")
    assert desk.agent.one(fx.Kill).container_id == desk.container
    desk.exit(signal=15)
    assert len(desk.ended()) == 1


# Shutting down.


def test_a_shutdown_is_asked_for_and_forced_when_its_grace_is_over(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.agent.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId("e")))
    assert desk.told() == [api.Shutdown()]
    assert desk.agent.none(fx.Kill)
    desk.launch(of_executor("t2"), starts=False, aware=True)
    assert (desk.agent.status().state, desk.agent.status().reason) == (TaskState.DROPPED, Reason.EXECUTOR_TERMINATED)
    desk.agent.wait(5.1)
    assert desk.agent.one(fx.Kill).grace_s == 0
    desk.exit(signal=9)
    found = desk.agent.status()
    assert (found.task_id, found.state, found.reason) == ("t1", TaskState.FAILED, Reason.EXECUTOR_TERMINATED)
    assert [e.status for e in desk.ended()] == [9]


def test_a_removed_framework_takes_its_executors_along(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.agent.order(ShutdownFramework(1, FRAMEWORK))
    assert desk.told() == [api.Shutdown()]
    desk.exit(code=0)
    found = desk.agent.status()
    assert (found.state, found.reason) == (TaskState.KILLED, Reason.FRAMEWORK_REMOVED)
    desk.agent.acknowledge()
    desk.agent.order(ShutdownFramework(1, FRAMEWORK))
    assert FRAMEWORK not in desk.agent.core.state.frameworks


def test_an_executor_may_end_when_its_tasks_have(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.update("t1", TaskState.FINISHED)
    desk.agent.acknowledge_all()
    desk.exit(code=0)
    assert desk.agent.statuses() == []
    assert [e.status for e in desk.ended()] == [0]
    assert desk.agent.one(fx.Remove)


# A stream that breaks.


@pytest.mark.parametrize(("checkpoint", "wait_s"), [(True, 900), (False, 5)])
def test_an_executor_has_a_while_to_come_back_when_its_stream_broke(
    desk: Desk, checkpoint: bool, wait_s: float
) -> None:
    desk.ready(of_executor(), checkpoint=checkpoint)
    desk.agent.tell(ExecutorClosed(desk.stream, "cut"))
    desk.agent.wait(wait_s - 1)
    assert desk.agent.none(fx.Kill)
    desk.agent.wait(1.1)
    assert desk.agent.one(fx.Kill).container_id == desk.container
    desk.exit(signal=9)
    assert desk.agent.status().reason is Reason.EXECUTOR_REREGISTRATION_TIMEOUT


def test_a_second_subscription_ends_the_first_stream(desk: Desk) -> None:
    desk.ready(of_executor())
    old = desk.stream
    desk.subscribe("t1")
    assert desk.agent.one(fx.CloseExecutor).stream == old
    assert desk.kinds() == ["Subscribed"]
    desk.agent.tell(ExecutorClosed(old, "cut"))
    desk.update("t1", TaskState.RUNNING)
    assert desk.agent.status().state is TaskState.RUNNING


def test_kills_and_tasks_that_came_meanwhile_are_told_to_an_executor_that_is_back(desk: Desk) -> None:
    desk.ready(of_executor("t1"))
    desk.update("t1", TaskState.RUNNING)
    desk.agent.acknowledge()
    desk.agent.tell(ExecutorClosed(desk.stream, "cut"))
    desk.agent.kill("t1", grace_s=10.0)
    desk.launch(of_executor("t2"), starts=False)
    assert desk.agent.none(fx.TellExecutor)
    desk.subscribe("t1")
    assert desk.kinds() == ["Subscribed", "Kill", "Launch"]


# A restart of the agent.


def restarted(desk: Desk, found: Callable[[], Found] | None = None) -> None:
    """A new agent process; the runtimes say what they hold."""
    one = found() if found is not None else None
    desk.agent.start()
    desk.agent.recover(*([one] if one is not None else []))
    desk.agent.recover(runtime="docker")
    desk.agent.register()


def test_an_executor_that_comes_back_in_time_goes_on_where_it_was(desk: Desk) -> None:
    desk.ready(of_executor("t1"), of_executor("t2"), checkpoint=True)
    desk.update("t1", TaskState.RUNNING)
    restarted(desk, desk.found)
    assert [s.state for s in desk.agent.statuses()] == [TaskState.RUNNING]
    told = desk.subscribe("t1", "t2", updates=(status("t1", TaskState.RUNNING), status("t2", TaskState.RUNNING, 2)))
    assert [type(event) for event in told] == [api.Subscribed]
    assert [s.task_id for s in desk.agent.statuses()] == ["t2"]
    desk.agent.wait(20)
    assert desk.agent.none(fx.Kill)


def test_an_update_acknowledged_while_the_executor_was_away_is_told_to_it_then(desk: Desk) -> None:
    desk.ready(of_executor(), checkpoint=True)
    desk.update("t1", TaskState.RUNNING)
    restarted(desk, desk.found)
    desk.agent.acknowledge()
    restarted(desk, desk.found)
    told = desk.subscribe("t1", updates=(status("t1", TaskState.RUNNING),))
    assert told[1:] == [api.Acknowledged(task_id=TaskId("t1"), uuid=bytes(15) + b"\1")]
    assert desk.agent.statuses() == []


def test_an_executor_that_stays_away_after_a_restart_is_ended(desk: Desk) -> None:
    desk.ready(of_executor(), checkpoint=True)
    restarted(desk, desk.found)
    desk.agent.wait(15.1)
    assert desk.agent.one(fx.Kill).container_id == desk.container
    desk.exit(signal=9)
    found = desk.agent.status()
    assert (found.state, found.reason) == (TaskState.FAILED, Reason.EXECUTOR_REREGISTRATION_TIMEOUT)


def test_a_launch_that_may_not_have_arrived_is_lost_and_one_that_waits_is_made(desk: Desk) -> None:
    desk.ready(of_executor("t1"), aware=True)
    desk.agent.tell(ExecutorClosed(desk.stream, "cut"))
    desk.launch(of_executor("t2"), starts=False, aware=True)
    restarted(desk, desk.found)
    told = desk.subscribe()
    assert [type(event) for event in told] == [api.Subscribed, api.Launch]
    assert told[1] == api.Launch(task=of_executor("t2"))
    found = desk.agent.status()
    assert (found.task_id, found.state, found.reason) == ("t1", TaskState.DROPPED, Reason.AGENT_RESTARTED)


@pytest.mark.parametrize(
    ("stage", "state", "reason"),
    [
        (Stage.RUNNING, TaskState.FAILED, Reason.EXECUTOR_TERMINATED),
        (Stage.STARTING, TaskState.DROPPED, Reason.AGENT_RESTARTED),
    ],
)
def test_an_executor_that_its_runtime_does_not_know_takes_its_tasks_along(
    desk: Desk, stage: Stage, state: TaskState, reason: Reason
) -> None:
    desk.launch(of_executor(), aware=True)
    if stage is Stage.RUNNING:
        desk.up()
    restarted(desk)
    found = desk.agent.status()
    assert (found.state, found.reason) == (state, reason)
    assert not desk.agent.core.state.executors


def test_an_executor_that_ended_or_came_up_unseen_is_found_so(desk: Desk) -> None:
    desk.launch(of_executor())
    restarted(desk, desk.found)
    assert desk.agent.core.state.executors[KEY].stage is Stage.RUNNING
    restarted(desk, lambda: desk.found(exit=Exit(container_id=desk.container, code=2)))
    assert desk.agent.status().message == "Executor exited with status 2"


def test_a_shutdown_under_way_goes_on_after_a_restart(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.agent.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId("e")))
    found = desk.found()
    desk.agent.start()
    desk.agent.recover(found)
    assert desk.agent.one(fx.Kill).container_id == found.container_id
    assert desk.subscribe("t1")[-1] == api.Shutdown()


def test_what_an_agent_has_of_executors_is_in_its_registration(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.agent.open()
    register = desk.agent.one(fx.Send).report
    assert isinstance(register, Register)
    assert [(e.info, e.framework_id, e.role) for e in register.executors] == [(EXECUTOR, FRAMEWORK, "web")]
    assert [f.id for f in register.frameworks] == [FRAMEWORK]
    desk.agent.order(Registered(1, AGENT, 15.0, (FRAMEWORK,)))
    assert desk.told() == [api.Shutdown()]


def test_a_task_of_an_executor_is_looked_at_in_the_executors_container(desk: Desk) -> None:
    desk.ready(of_executor())
    view = desk.agent.ask(FindTask(TaskId("t1")))
    assert (view.container, view.pid, view.runtime) == (desk.container, 55, "process")
    assert view.sandbox.endswith(f"/executors/e/runs/{desk.container}")


def test_executors_are_counted_by_how_far_they_are_with_what_they_hold(desk: Desk) -> None:
    desk.launch(of_executor())
    view = desk.agent.ask(ReadState())
    assert view.executors == {"registering": 1, "running": 0, "terminating": 0}
    assert view.overhead == EXECUTOR.resources
    desk.up()
    desk.subscribe()
    assert desk.agent.ask(ReadState()).executors["running"] == 1
    desk.agent.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId("e")))
    assert desk.agent.ask(ReadState()).executors["terminating"] == 1


# Groups for a custom executor.


def test_a_group_reaches_a_custom_executor_in_one_event(desk: Desk) -> None:
    infos = (make_task("a", executor=EXECUTOR), make_task("b", executor=EXECUTOR))
    desk.agent.order(RunGroup(1, make_framework(), "web", infos, True))
    desk.up()
    told = desk.subscribe()
    assert told[1:] == [api.LaunchGroup(tasks=infos)]
    desk.update("a", TaskState.FAILED)
    assert not desk.agent.core.state.tasks[FRAMEWORK, TaskId("b")].ending  # what comes of it is the executor's


def test_killing_one_of_a_group_that_waits_ends_them_all(desk: Desk) -> None:
    infos = (make_task("a", executor=EXECUTOR), make_task("b", executor=EXECUTOR))
    desk.agent.order(RunGroup(1, make_framework(), "web", infos, True))
    desk.agent.kill("b")
    assert [(s.task_id, s.reason) for s in desk.agent.statuses()] == [
        ("a", Reason.TASK_KILLED_DURING_LAUNCH), ("b", Reason.TASK_KILLED_DURING_LAUNCH),
    ]  # fmt: skip


def test_an_executor_that_makes_room_ends_its_tasks_as_killed_with_the_reason_it_was_given(desk: Desk) -> None:
    desk.ready(of_executor())
    desk.agent.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId("e"), "the owner is back", Reason.CONTAINER_PREEMPTED))
    assert desk.told() == [api.Shutdown()]
    desk.exit(code=0)
    found = desk.agent.status()
    assert (found.state, found.reason) == (TaskState.KILLED, Reason.CONTAINER_PREEMPTED)
    assert "the owner is back" in found.message


def test_executors_that_have_ended_are_counted(desk: Desk) -> None:
    desk.ready(of_executor())
    assert flatten_metrics(desk.agent.ask(ReadState()))["slave/executors_terminated"] == 0
    desk.exit(code=0)
    found = flatten_metrics(desk.agent.ask(ReadState()))
    assert (found["slave/executors_terminated"], found["slave/executors_running"]) == (1, 0)
    assert found["slave/executors_preempted"] == 0
