"""Executors as the master counts them, and the rules for executors and groups."""

from typing import Any

import msgspec
import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, bundle, task_info, want

from corral.master.spec import AgentOpened
from corral.model import calls, events
from corral.model.command import CommandInfo
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo, NetworkInfo, make_image
from corral.model.framework import Capability
from corral.model.health import CheckKind, CheckStatus, HealthCheck
from corral.model.ids import ExecutorId, FrameworkId
from corral.model.ledger import charged, lent
from corral.model.maintenance import DrainAgent
from corral.model.offer import Filters
from corral.model.orders import (
    AgentExecutor,
    ExecutorEnded,
    ExecutorMessage,
    MessageExecutor,
    Register,
    RunGroup,
    RunTask,
    ShutdownExecutor,
    ShutdownFramework,
)
from corral.model.resources import Identity, Resources, normal, scalar
from corral.model.task import ExecutorInfo, Reason, TaskInfo, TaskState

NO_WAIT = Filters(refuse_s=0)
CUSTOM = ExecutorInfo(
    executor_id=ExecutorId("e"), kind="CUSTOM", command=CommandInfo(value="./run"), resources=bundle(0.5, 64)
)
DEFAULT = ExecutorInfo(
    executor_id=ExecutorId("pod"), kind="DEFAULT", resources=normal([*bundle(0.1, 32), scalar("disk", 10)])
)


def info_with_disk() -> Any:
    info = agent_info()
    return msgspec.structs.replace(info, resources=normal([*info.resources, scalar("disk", 1000)]))


def of_executor(id: str, agent: Agent, executor: ExecutorInfo = CUSTOM, **more: Any) -> TaskInfo:
    return task_info(id, agent.id, command=None, executor=executor, **more)


class Scene:
    def __init__(self, **more: Any) -> None:
        self.stage = Stage()
        self.agent = self.stage.agent(info_with_disk())
        self.framework: Framework = self.stage.framework(**more)

    def launch(self, *infos: TaskInfo) -> list[RunTask]:
        self.framework.accept(self.framework.offers(), *infos, refuse_s=0)
        return self.agent.take(RunTask)

    def group(self, *infos: TaskInfo, executor: ExecutorInfo = DEFAULT) -> list[RunGroup]:
        offers = self.framework.offers()
        group = calls.LaunchGroup(executor=executor, tasks=infos)
        ids = tuple(offer.id for offer in offers)
        self.framework.call(
            calls.Accept(framework_id=self.framework.id, offer_ids=ids, operations=(group,), filters=NO_WAIT)
        )
        return self.agent.take(RunGroup)

    def used_milli(self, name: str = "cpus") -> int:
        total = {r.name: r.milli for r in self.agent.info.resources}
        self.stage.core.state.allocator.book.flush()
        held = sum(e.hold.resources and _milli(e.hold.resources, name) for e in self._holds())
        assert held <= total[name]
        return held

    def _holds(self) -> list[Any]:
        holds = self.stage.core.state.allocator.book.holds.values()
        return [e for e in holds if e.hold.key.startswith(("task/", "executor/", "orphan/"))]

    def ended(self, executor_id: str = "e", status: int | None = 0) -> None:
        self.agent.report(ExecutorEnded(self.framework.id, ExecutorId(executor_id), status))


def _milli(resources: Resources, name: str) -> int:
    return sum(r.milli for r in resources if r.name == name)


# Counting.


def test_an_executor_is_counted_once_with_its_first_task_and_freed_when_it_has_ended() -> None:
    scene = Scene()
    first, second = scene.launch(of_executor("t1", scene.agent), of_executor("t2", scene.agent))
    assert (first.starts_executor, second.starts_executor) == (True, False)
    assert first.info.executor == msgspec.structs.replace(CUSTOM, framework_id=scene.framework.id)
    assert scene.used_milli() == 2500
    (offer,) = scene.framework.offers()
    assert offer.executor_ids == ("e",)
    scene.framework.accept([offer], of_executor("t3", scene.agent), refuse_s=0)
    (third,) = scene.agent.take(RunTask)
    assert not third.starts_executor
    assert scene.used_milli() == 3500
    for id in ("t1", "t2", "t3"):
        uuid = scene.agent.update(id, TaskState.FINISHED, scene.framework.id)
        scene.framework.acknowledge(scene.agent, id, uuid)
    assert scene.used_milli() == 500
    scene.ended(status=256)
    assert scene.used_milli() == 0
    (failure,) = scene.framework.take(events.Failure)
    assert failure == events.Failure(agent_id=scene.agent.id, executor_id=ExecutorId("e"), status=256)
    (again,) = scene.launch(of_executor("t4", scene.agent))
    assert again.starts_executor


def test_a_task_and_its_executor_must_fit_together_and_beside_it_the_task_alone() -> None:
    scene = Scene()
    assert scene.launch(of_executor("t1", scene.agent, resources=bundle(4, 128))) == []
    (status,) = scene.framework.updates()
    assert (status.state, status.reason) == (TaskState.ERROR, Reason.TASK_INVALID)
    assert "more than available" in (status.message or "")
    assert len(scene.launch(of_executor("t1", scene.agent, resources=bundle(3.5, 128)))) == 1
    assert scene.used_milli() == 4000


def test_a_group_is_one_order_and_its_executor_counted_once() -> None:
    scene = Scene()
    (order,) = scene.group(task_info("a", scene.agent.id), task_info("b", scene.agent.id))
    assert order.starts_executor
    assert [info.task_id for info in order.infos] == ["a", "b"]
    assert {info.executor for info in order.infos} == {
        msgspec.structs.replace(DEFAULT, framework_id=scene.framework.id)
    }
    assert scene.used_milli() == 2100
    (more,) = scene.group(task_info("c", scene.agent.id))
    assert not more.starts_executor
    assert scene.used_milli() == 3100
    assert scene.agent.entry().executors[scene.framework.id, "pod"].info.kind == "DEFAULT"


def test_a_group_that_does_not_fit_as_a_whole_is_refused_as_a_whole() -> None:
    scene = Scene()
    assert scene.group(task_info("a", scene.agent.id, bundle(2, 1)), task_info("b", scene.agent.id, bundle(2, 1))) == []
    assert [(s.task_id, s.state, s.reason) for s in scene.framework.updates()] == [
        (id, TaskState.ERROR, Reason.TASK_GROUP_INVALID) for id in ("a", "b")
    ]
    assert scene.used_milli() == 0


# Agents that come and go.


def test_what_an_agent_lists_is_what_there_is() -> None:
    scene = Scene(failover_timeout_s=1000.0)
    scene.launch(of_executor("t1", scene.agent))
    agent = scene.agent
    agent.close()
    agent.connect()  # it had never heard of the task, nor of the executor
    assert scene.used_milli() == 0
    assert agent.entry().executors == {}


def test_a_new_master_learns_the_executors_from_the_agents() -> None:
    scene = Scene(failover_timeout_s=1000.0)
    scene.launch(of_executor("t1", scene.agent))
    executor = scene.agent.entry().executors[scene.framework.id, "e"].info
    later = scene.stage.restart()
    agent = Agent(later, scene.agent.info)
    told = AgentExecutor(executor, scene.framework.id, "*")
    later.sessions += 1
    agent.session = f"session-{later.sessions}"
    later.give(AgentOpened(agent.session))
    agent.report(Register(agent.info, (), (scene.framework.info,), (told,)))
    assert agent.entry().executors[scene.framework.id, "e"].info == executor
    assert _milli(agent.free(), "cpus") == 3500


def test_an_unreachable_agent_keeps_no_executors_and_brings_them_back() -> None:
    scene = Scene(failover_timeout_s=1e6, capabilities=PARTITION_AWARE)
    scene.launch(of_executor("t1", scene.agent))
    scene.agent.silence()
    scene.stage.run(100)
    assert scene.agent.entry().executors == {}
    assert scene.used_milli() == 0


def test_an_agent_too_small_for_its_executors_is_refused() -> None:
    scene = Scene()
    small = Agent(scene.stage, agent_info("h2", cpus=0.2))
    told = AgentExecutor(msgspec.structs.replace(CUSTOM, framework_id=scene.framework.id), scene.framework.id, "*")
    scene.stage.sessions += 1
    small.session = f"session-{scene.stage.sessions}"
    scene.stage.give(AgentOpened(small.session))
    small.report(Register(small.info, (), (), (told,)))
    assert "agent refused" in scene.stage.what()


def test_a_removed_framework_has_its_executors_ended_and_their_room_freed_by_then() -> None:
    scene = Scene()
    scene.launch(of_executor("t1", scene.agent))
    uuid = scene.agent.update("t1", TaskState.FINISHED, scene.framework.id)
    scene.framework.acknowledge(scene.agent, "t1", uuid)
    scene.framework.call(calls.Teardown(framework_id=scene.framework.id))
    assert len(scene.agent.take(ShutdownFramework)) == 1
    assert scene.used_milli() == 500
    scene.ended()
    assert scene.used_milli() == 0


def test_room_of_an_executor_that_is_never_heard_to_end_is_freed_in_time() -> None:
    scene = Scene()
    scene.launch(of_executor("t1", scene.agent))
    scene.framework.call(calls.Teardown(framework_id=scene.framework.id))
    scene.stage.run(100)
    assert scene.used_milli() == 0


def test_a_drained_agent_is_rid_of_its_executors_too() -> None:
    scene = Scene()
    scene.launch(of_executor("t1", scene.agent))
    scene.stage.ask(DrainAgent(agent_id=scene.agent.id))
    assert scene.agent.take(ShutdownExecutor) == []
    uuid = scene.agent.update("t1", TaskState.KILLED, scene.framework.id)
    scene.framework.acknowledge(scene.agent, "t1", uuid)
    scene.stage.run(1)
    assert [o.executor_id for o in scene.agent.take(ShutdownExecutor)] == ["e"]
    scene.ended()
    assert scene.used_milli() == 0


# Words between frameworks and executors.


def test_messages_and_shutdowns_reach_the_agent_of_a_known_executor_alone() -> None:
    scene = Scene()
    scene.launch(of_executor("t1", scene.agent))
    ids: dict[str, Any] = {"framework_id": scene.framework.id, "agent_id": scene.agent.id}
    for executor_id in (ExecutorId("e"), ExecutorId("other")):
        scene.framework.call(calls.Message(**ids, executor_id=executor_id, data=b"hi"))
        scene.framework.call(calls.Shutdown(**ids, executor_id=executor_id))
    assert [(o.executor_id, o.data) for o in scene.agent.take(MessageExecutor)] == [("e", b"hi")]
    assert [o.executor_id for o in scene.agent.take(ShutdownExecutor)] == ["e"]
    scene.agent.report(ExecutorMessage(scene.framework.id, ExecutorId("e"), b"ho"))
    (message,) = scene.framework.take(events.Message)
    assert (message.agent_id, message.executor_id, message.data) == (scene.agent.id, "e", b"ho")
    scene.agent.report(ExecutorMessage(FrameworkId("gone"), ExecutorId("e"), b"ho"))


# The rules.


def bad_executors() -> list[tuple[str, dict[str, Any], str]]:
    """A custom executor that breaks one rule each, and a word of what is said to it."""
    docker = ContainerInfo(kind=ContainerKind.DOCKER)
    return [
        ("empty id", {"executor_id": ""}, "must not be empty"),
        ("slash in id", {"executor_id": "a/b"}, "slash"),
        ("long id", {"executor_id": "x" * 256}, "255"),
        ("framework", {"framework_id": "other"}, "names framework other"),
        ("default", {"kind": "DEFAULT"}, "use LAUNCH_GROUP"),
        ("no command", {"command": None}, "has no command"),
        ("no value", {"command": CommandInfo(value="")}, "without value"),
        ("nul", {"command": CommandInfo(value="a\0b")}, "NUL"),
        ("nameless variable", {"command": CommandInfo(value="a", environment=(("", "b"),))}, "without a name"),
        ("no image", {"container": docker}, "docker.image"),
        ("grace", {"shutdown_grace_s": -1.0}, "negative shutdown_grace_period"),
        ("zero", {"resources": (scalar("cpus", 0),)}, "above 0"),
        ("other role", {"resources": charged(bundle(0.1), "other")}, "role other"),
        ("too large", {"resources": bundle(4)}, "more than available"),
        ("same ports", {"resources": bundle(0.1, 1, (31000, 31000))}, "more than available"),
        ("lent in part", {"resources": normal([scalar("cpus", 0.1, Identity(revocable=True))])}, "more than available"),
    ]


@pytest.mark.parametrize(("name", "change", "word"), bad_executors(), ids=[r[0] for r in bad_executors()])
def test_an_executor_that_breaks_a_rule_makes_its_task_an_error_and_changes_nothing(
    name: str, change: dict[str, Any], word: str
) -> None:
    scene = Scene()
    executor = msgspec.structs.replace(CUSTOM, **change)
    resources = bundle(1, 128, (31000, 31000))
    assert scene.launch(of_executor("t1", scene.agent, executor, resources=resources)) == []
    (status,) = scene.framework.updates()
    assert (status.state, status.reason) == (TaskState.ERROR, Reason.TASK_INVALID)
    assert word in (status.message or "")
    assert scene.agent.entry().executors == {}
    assert scene.used_milli() == 0


def test_an_executor_that_differs_from_the_one_that_runs_is_an_error() -> None:
    scene = Scene()
    scene.launch(of_executor("t1", scene.agent))
    other = msgspec.structs.replace(CUSTOM, data=b"x")
    assert scene.launch(of_executor("t2", scene.agent, other)) == []
    (status,) = scene.framework.updates()
    assert "differs from the executor of this id" in (status.message or "")
    unsaid = msgspec.structs.replace(CUSTOM, kind=None)
    assert len(scene.launch(of_executor("t3", scene.agent, unsaid))) == 1


def bad_groups() -> list[tuple[str, dict[str, Any], dict[str, Any], str]]:
    """A group that breaks one rule each: what of its executor, what of its second task, and a word of what is said."""
    docker = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="x"))
    networked = NetworkInfo(name="net")
    own = ContainerInfo(kind=ContainerKind.MESOS, network_infos=(networked,))
    imaged = ContainerInfo(kind=ContainerKind.MESOS, docker=make_image("x", ()))
    web = HealthCheck(kind=CheckKind.HTTP, port=80)
    disk = scalar("disk", 10)
    return [
        ("no type", {"kind": None}, {}, "has no type"),
        ("command", {"command": CommandInfo(value="x")}, {}, "type DEFAULT and has a command"),
        ("docker executor", {"container": docker}, {}, "type MESOS alone"),
        ("executor with an image", {"container": imaged}, {}, "type MESOS alone"),
        ("process on a network", {"container": own}, {"container": imaged}, "task a has no image"),
        ("custom without command", {"kind": "CUSTOM"}, {}, "has no command"),
        ("few cpus", {"resources": normal([*bundle(0.009, 32), disk])}, {}, "0.01 or more"),
        ("no cpus", {"resources": normal([scalar("mem", 32), disk])}, {}, "0 cpus"),
        ("little mem", {"resources": normal([*bundle(0.1, 31), disk])}, {}, "32 or more"),
        ("no disk", {"resources": bundle(0.1, 32)}, {}, "has no disk"),
        ("executor id", {"executor_id": "a/b"}, {}, "slash"),
        ("docker task", {}, {"container": docker}, "type DOCKER"),
        ("other executor", {}, {"executor": CUSTOM}, "differs from the group's"),
        ("same id", {}, {"id": "a"}, "in the group twice"),
        ("bad id", {}, {"id": "a/b"}, "slash"),
        ("other agent", {}, {"agent": "other"}, "names agent other"),
        ("no command in task", {}, {"command": None}, "has no command"),
        ("network of its own", {}, {"container": own, "health_checks": (web,)}, "network of its own"),
        ("check with network", {}, {"container": own, "check": web}, "network of its own"),
        ("limits", {}, {"limits": (("cpus", None),)}, "share_cgroups"),
        ("unsupported", {}, {"unsupported": ("container.mesos.image",)}, "container.mesos.image"),
        ("health check", {}, {"health_checks": (HealthCheck(),)}, "without a type"),
        ("no resources", {}, {"resources": ()}, "at least one is needed"),
        ("too many", {}, {"resources": bundle(3.5)}, "more than available"),
    ]


@pytest.mark.parametrize(("name", "of_group", "of_task", "word"), bad_groups(), ids=[r[0] for r in bad_groups()])
def test_a_group_that_breaks_a_rule_is_an_error_as_a_whole_and_changes_nothing(
    name: str, of_group: dict[str, Any], of_task: dict[str, Any], word: str
) -> None:
    scene = Scene()
    change = dict(of_task)
    id, agent_id = change.pop("id", "b"), change.pop("agent", scene.agent.id)
    second = task_info(id, agent_id, change.pop("resources", bundle(1, 128)), **change)
    executor = msgspec.structs.replace(DEFAULT, **of_group)
    assert scene.group(task_info("a", scene.agent.id), second, executor=executor) == []
    found = scene.framework.updates()
    assert [(s.task_id, s.state, s.reason) for s in found] == [
        (t, TaskState.ERROR, Reason.TASK_GROUP_INVALID) for t in ("a", id)
    ]
    assert all(word in (s.message or "") for s in found), found[0].message
    assert scene.agent.entry().executors == {}
    assert scene.used_milli() == 0


def test_what_a_group_may_do_is_done() -> None:
    scene = Scene()
    apart = ContainerInfo(kind=ContainerKind.MESOS, share_cgroups=False)
    same = task_info("c", scene.agent.id, bundle(0.1, 1), executor=DEFAULT)
    limited = task_info("d", scene.agent.id, bundle(0.1, 1), container=apart, limits=(("cpus", None),))
    imaged = ContainerInfo(kind=ContainerKind.MESOS, docker=make_image("x", ()))
    boxed = task_info("e", scene.agent.id, bundle(0.1, 1), container=imaged)
    (order,) = scene.group(same, limited, boxed)
    assert [info.task_id for info in order.infos] == ["c", "d", "e"]


def test_the_tasks_of_a_group_may_share_a_network_when_all_have_images_or_networks_of_their_own() -> None:
    scene = Scene()
    networks = (NetworkInfo(name="net"),)
    executor = msgspec.structs.replace(
        DEFAULT, container=ContainerInfo(kind=ContainerKind.MESOS, network_infos=networks)
    )
    imaged = ContainerInfo(kind=ContainerKind.MESOS, docker=make_image("x", ()))
    apart = ContainerInfo(kind=ContainerKind.MESOS, docker=make_image("x", networks), network_infos=networks)
    web = HealthCheck(kind=CheckKind.HTTP, port=80)
    tasks = (
        task_info("c", scene.agent.id, bundle(0.1, 1), container=imaged, health_checks=(web,)),
        task_info("d", scene.agent.id, bundle(0.1, 1), container=apart),
    )
    (order,) = scene.group(*tasks, executor=executor)
    assert [info.task_id for info in order.infos] == ["c", "d"]


def test_an_empty_group_is_nothing() -> None:
    scene = Scene()
    assert scene.group() == []
    assert scene.framework.updates() == []
    assert scene.agent.entry().executors == {}


def test_a_group_from_offers_that_do_not_stand_is_lost_as_a_whole() -> None:
    scene = Scene(capabilities=PARTITION_AWARE)
    group = calls.LaunchGroup(executor=DEFAULT, tasks=(task_info("a", scene.agent.id), task_info("b", scene.agent.id)))
    scene.framework.call(calls.Accept(framework_id=scene.framework.id, offer_ids=(), operations=(group,)))
    assert [(s.task_id, s.state, s.reason) for s in scene.framework.updates()] == [
        (id, TaskState.DROPPED, Reason.INVALID_OFFERS) for id in ("a", "b")
    ]


# Wants.


def test_a_task_with_an_executor_is_launched_on_an_offer_for_a_want() -> None:
    scene = Scene()
    scene.framework.want(want(resources=bundle(1.5, 192)))
    (run,) = scene.launch(of_executor("t1", scene.agent))
    assert run.starts_executor
    assert run.info.claim is not None
    assert run.info.claim.want_id == "w1"
    assert scene.framework.offers() == []
    assert scene.used_milli() == 1500


def test_a_group_is_one_instance_of_a_want() -> None:
    scene = Scene()
    scene.framework.want(want(count=2, resources=normal([*bundle(2.1, 300), scalar("disk", 10)]), priority=7))
    (offer, *_) = scene.framework.offers()
    group = calls.LaunchGroup(executor=DEFAULT, tasks=(task_info("a", scene.agent.id), task_info("b", scene.agent.id)))
    scene.framework.call(calls.Accept(framework_id=scene.framework.id, offer_ids=(offer.id,), operations=(group,)))
    (order,) = scene.agent.take(RunGroup)
    assert [info.claim.priority for info in order.infos if info.claim is not None] == [7, 7]
    assert scene.stage.core.state.frameworks[scene.framework.id].wants["w1"].remaining == 1


def test_what_is_lent_may_be_marked_so_in_an_executor() -> None:
    scene = Scene(capabilities=(Capability.REVOCABLE_RESOURCES,))
    scene.framework.want(want(resources=bundle(1.5, 192), revocable=True))
    lent_one = msgspec.structs.replace(CUSTOM, resources=lent(CUSTOM.resources))
    (run,) = scene.launch(of_executor("t1", scene.agent, lent_one, resources=lent(bundle(1, 128))))
    assert run.info.executor is not None
    assert run.info.executor.resources == CUSTOM.resources
    assert scene.used_milli() == 1500


def test_what_a_check_has_shown_is_in_the_answer_to_a_reconciliation() -> None:
    scene = Scene()
    scene.framework.launch(scene.agent)
    shown = CheckStatus(kind=CheckKind.TCP, succeeded=True)
    scene.agent.update("t1", TaskState.RUNNING, scene.framework.id, check=shown)
    (status,) = scene.framework.reconcile(("t1", None))
    assert status.check == shown
