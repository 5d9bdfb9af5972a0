"""Offers: what is made, accepted, declined, filtered, rescinded, and what each refusal says."""

from typing import Any

import msgspec
import pytest
from master_stage import PARTITION_AWARE, Framework, Stage, agent_info, bundle, states, task_info, want

from corral.lib.errors import Invalid
from corral.master.spec import MasterConfig
from corral.model import calls
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo, NetworkMode, Volume
from corral.model.framework import Capability
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ExecutorId, OfferId, TaskId
from corral.model.ledger import charged
from corral.model.offer import Filters
from corral.model.operator import SetRole
from corral.model.orders import RunTask
from corral.model.resources import Identity, describe, normal, scalar
from corral.model.task import CommandInfo, ExecutorInfo, Reason, Source, TaskInfo, TaskState, Uri


def test_an_offer_carries_the_agents_whole_free_bundle_charged_to_the_role() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(role="web")
    (offer,) = framework.offers()
    assert offer.resources == charged(agent.info.resources, "web")
    assert (offer.role, offer.hostname, offer.port, offer.agent_id) == ("web", "h1", 4681, agent.id)
    assert offer.attributes == agent.info.attributes
    assert offer.id == f"{stage.core.state.master_id}-O0"
    assert offer.want_id is None


def test_nothing_is_offered_twice() -> None:
    stage = Stage()
    stage.agent()
    assert len(stage.framework(name="a").offers()) == 1
    assert stage.framework(name="b").offers() == []


def test_an_accepted_task_is_ordered_and_the_rest_is_offered_again_after_the_filter() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.accept(framework.offers(), task_info("t1", agent.id, bundle(1, 1024, (31000, 31001))), refuse_s=5)
    (run,) = agent.take(RunTask)
    assert run.framework.id == framework.id
    assert run.info.resources == charged(bundle(1, 1024, (31000, 31001)), "*")
    stage.run(4)
    assert framework.offers() == []
    stage.run(2)
    (offer,) = framework.offers()
    assert describe(offer.resources) == "cpus 3, mem 3072, ports 31002-31099"


def test_many_tasks_fit_into_one_accept_and_each_takes_its_part() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.accept(framework.offers(), *(task_info(f"t{i}", agent.id, bundle(1, 1024)) for i in range(5)))
    assert [r.info.task_id for r in agent.take(RunTask)] == ["t0", "t1", "t2", "t3"]
    (status,) = framework.updates()
    assert (status.task_id, status.state, status.reason) == ("t4", TaskState.ERROR, Reason.TASK_INVALID)
    assert "more than available" in (status.message or "")
    assert status.uuid is None
    assert status.source is Source.MASTER


def test_two_offers_of_one_agent_are_pooled() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.accept(framework.offers(), task_info("t1", agent.id, bundle(2, 2048)), refuse_s=0)
    (second,) = framework.offers()
    agent.update("t1", TaskState.FINISHED, framework.id)
    (third,) = framework.offers()
    framework.updates()
    framework.accept([second, third], task_info("t2", agent.id, bundle(4, 4096)))
    assert [r.info.task_id for r in agent.take(RunTask)] == ["t1", "t2"]


def bad_accepts() -> list[tuple[str, Any, str]]:
    unknown = OfferId("who-O9")
    return [
        ("none", lambda ids: (), "no offer"),
        ("unknown", lambda ids: (unknown,), "not known"),
        ("twice", lambda ids: (ids[0], ids[0]), "twice"),
        ("two agents", lambda ids: tuple(ids), "different agents"),
        ("one of two", lambda ids: (ids[0], unknown), "not known"),
    ]


@pytest.mark.parametrize(("name", "choose", "word"), bad_accepts(), ids=[b[0] for b in bad_accepts()])
@pytest.mark.parametrize("aware", [True, False])
def test_an_accept_of_offers_that_do_not_stand_tells_each_task(name: str, choose: Any, word: str, aware: bool) -> None:
    stage = Stage()
    agent = stage.agent(agent_info("h1"))
    stage.agent(agent_info("h2"))
    framework = stage.framework(capabilities=PARTITION_AWARE if aware else ())
    ids = [offer.id for offer in framework.offers()]
    chosen = choose(ids)
    launch = calls.Launch(tasks=(task_info("t1", agent.id), task_info("t2", agent.id)))
    framework.call(calls.Accept(framework_id=framework.id, offer_ids=chosen, operations=(launch,)))
    lost = TaskState.DROPPED if aware else TaskState.LOST
    found = framework.updates()
    assert states(found) == [("t1", lost, Reason.INVALID_OFFERS), ("t2", lost, Reason.INVALID_OFFERS)]
    assert all(word in (s.message or "") and s.uuid is None and s.source is Source.MASTER for s in found)
    assert not agent.take(RunTask)
    assert set(framework.entry().offers) == set(ids) - set(chosen), "valid offers of a bad accept are discarded"


def test_a_late_accept_learns_what_became_of_its_offer() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    (offer,) = framework.offers()
    agent.close()
    assert framework.rescinded() == [offer.id]
    framework.accept([offer], task_info("t1", agent.id))
    (status,) = framework.updates()
    assert status.reason is Reason.AGENT_DISCONNECTED
    assert offer.id in (status.message or "")
    assert "disconnected" in (status.message or "")


def mounting(path: str) -> ContainerInfo:
    return ContainerInfo(kind=ContainerKind.MESOS, volumes=(Volume(container_path=path, host_path="/tmp"),))


WEB = HealthCheck(kind=CheckKind.HTTP, port=80)
SECLUDED = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="x", network=NetworkMode.NONE))


def refusals() -> list[tuple[str, dict[str, Any], str]]:
    """A task that breaks one rule each, and a word of what is said to it."""
    executor = ExecutorInfo(executor_id=ExecutorId("x"), command=CommandInfo(value="run"))
    revocable = normal([scalar("cpus", 1, Identity(revocable=True))])
    return [
        ("empty id", {"id": ""}, "must not be empty"),
        ("slash in id", {"id": "a/b"}, "slash"),
        ("long id", {"id": "x" * 256}, "255"),
        ("other agent", {"agent": "other"}, "names agent other"),
        ("no resources", {"resources": ()}, "at least one is needed"),
        ("zero", {"resources": (scalar("cpus", 0),)}, "above 0"),
        ("negative", {"resources": (scalar("cpus", -1),)}, "above 0"),
        ("too many cpus", {"resources": bundle(5)}, "the offer holds 4"),
        ("port not offered", {"resources": bundle(1, 1, (80, 80))}, "ports 80"),
        ("unknown resource", {"resources": (scalar("gpus", 1),)}, "gpus 1"),
        ("revocable", {"resources": revocable}, "more than available"),
        ("other role", {"resources": charged(bundle(1), "other")}, "role other"),
        ("neither", {"command": None}, "exactly one of command and executor"),
        ("both", {"executor": executor}, "exactly one of command and executor"),
        ("unsupported", {"unsupported": ("container.mesos.image",)}, "container.mesos.image"),
        ("untyped health check", {"health_checks": (HealthCheck(),)}, "without a type"),
        ("one of two", {"health_checks": (WEB, msgspec.structs.replace(WEB, port=0))}, "of port 0"),
        ("high port", {"health_checks": (HealthCheck(kind=CheckKind.TCP, port=65536),)}, "65536"),
        ("relative path", {"health_checks": (msgspec.structs.replace(WEB, path="x"),)}, "starts with /"),
        ("scheme", {"health_checks": (msgspec.structs.replace(WEB, scheme="ftp"),)}, "http or https"),
        ("status", {"health_checks": (msgspec.structs.replace(WEB, statuses=(99,)),)}, "99"),
        ("interval", {"health_checks": (msgspec.structs.replace(WEB, interval_s=-1.0),)}, "interval is -1 s"),
        ("timeout", {"health_checks": (msgspec.structs.replace(WEB, timeout_s=float("nan")),)}, "timeout is nan"),
        ("failures", {"health_checks": (msgspec.structs.replace(WEB, consecutive_failures=-1),)}, "-1 failures"),
        ("no network", {"health_checks": (WEB,), "container": SECLUDED}, "container without any"),
        ("no command", {"health_checks": (HealthCheck(kind=CheckKind.COMMAND),)}, "without command.value"),
        ("untyped check", {"check": HealthCheck()}, "has a check without a type"),
        ("check of port 0", {"check": HealthCheck(kind=CheckKind.TCP)}, "has a check of port 0"),
        ("check by no command", {"check": HealthCheck(kind=CheckKind.COMMAND)}, "check of type COMMAND without"),
        ("check of a path", {"check": msgspec.structs.replace(WEB, path="x")}, "has a check with the path 'x'"),
        (
            "check interval",
            {"check": msgspec.structs.replace(WEB, interval_s=-1.0)},
            "has a check whose interval is -1",
        ),
        ("check without network", {"check": WEB, "container": SECLUDED}, "container without any"),
        ("kill grace", {"kill_grace_s": -1.0}, "kill grace"),
        ("completion time", {"max_completion_s": -1.0}, "max_completion_time"),
        ("docker", {"container": ContainerInfo(kind=ContainerKind.DOCKER)}, "docker.image"),
        ("no value", {"command": CommandInfo(value="")}, "without value"),
        ("nul", {"command": CommandInfo(value="a\0b")}, "NUL"),
        ("nul in user", {"command": CommandInfo(value="a", user="a\0b")}, "NUL"),
        ("nul in environment", {"command": CommandInfo(value="a", environment=(("A", "\0"),))}, "NUL"),
        ("nul in uri", {"command": CommandInfo(value="a", uris=(Uri(value="/a\0"),))}, "NUL"),
        ("nul in volume", {"container": mounting("a\0b")}, "NUL"),
        ("nameless variable", {"command": CommandInfo(value="a", environment=(("", "b"),))}, "without a name"),
        ("variable with =", {"command": CommandInfo(value="a", environment=(("A=B", "b"),))}, "= in its name"),
        ("limit below", {"limits": (("cpus", 500),)}, "below what it asks"),
        ("limit of disk", {"limits": (("disk", 5000),)}, "only cpus and mem"),
    ]


@pytest.mark.parametrize(("name", "change", "word"), refusals(), ids=[r[0] for r in refusals()])
def test_a_task_that_breaks_a_rule_is_an_error_and_its_neighbour_runs(
    name: str, change: dict[str, Any], word: str
) -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    change = dict(change)
    id, agent_id = change.pop("id", "bad"), change.pop("agent", agent.id)
    bad = task_info(id, agent_id, change.pop("resources", bundle(1, 128)), **change)
    framework.accept(framework.offers(), bad, task_info("good", agent.id, bundle(1)))
    (status,) = framework.updates()
    assert (status.task_id, status.state, status.reason) == (id, TaskState.ERROR, Reason.TASK_INVALID)
    assert word in (status.message or "")
    assert [r.info.task_id for r in agent.take(RunTask)] == ["good"]


def test_a_task_id_in_use_is_refused_and_one_that_has_ended_may_be_used_again() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent, "t1")
    framework.accept(framework.offers(), task_info("t1", agent.id), refuse_s=0)
    (status,) = framework.updates()
    assert "in use" in (status.message or "")
    uuid = agent.update("t1", TaskState.FINISHED, framework.id)
    framework.acknowledge(agent, "t1", uuid)
    framework.updates()
    framework.launch(agent, "t1")


def test_limits_above_the_request_and_without_bound_are_taken() -> None:
    stage = Stage()
    agent = stage.agent()
    stage.framework().launch(agent, limits=(("cpus", 2000), ("mem", None)))


def test_a_docker_task_may_leave_its_command_to_the_image() -> None:
    stage = Stage()
    agent = stage.agent()
    container = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox"))
    stage.framework().launch(agent, command=CommandInfo(shell=False), container=container)


def test_a_task_group_is_refused_as_a_whole() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    (offer,) = framework.offers()
    executor = ExecutorInfo(executor_id=ExecutorId("x"))
    group = calls.LaunchGroup(executor=executor, tasks=(task_info("a", agent.id), task_info("b", agent.id)))
    framework.call(calls.Accept(framework_id=framework.id, offer_ids=(offer.id,), operations=(group,)))
    group_invalid = Reason.TASK_GROUP_INVALID
    assert states(framework.updates()) == [
        ("a", TaskState.ERROR, group_invalid), ("b", TaskState.ERROR, group_invalid),
    ]  # fmt: skip


def test_an_operation_that_is_not_carried_out_is_said_and_the_launch_after_it_goes_on() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    (offer,) = framework.offers()
    operations = (calls.Unsupported(kind="RESERVE"), calls.Launch(tasks=(task_info("t1", agent.id),)))
    framework.call(calls.Accept(framework_id=framework.id, offer_ids=(offer.id,), operations=operations))
    assert "operation dropped" in stage.what()
    assert len(agent.take(RunTask)) == 1


def declined(stage: Stage, framework: Framework, refuse_s: float) -> float:
    """After how many seconds a refused offer comes again."""
    framework.decline(*framework.offers(), refuse_s=refuse_s)
    start = stage.now
    while not framework.offers():
        stage.run(0.1)
        assert stage.now - start < 100
    return stage.now - start


@pytest.mark.parametrize(("refuse_s", "least", "most"), [(0, 0, 0.5), (2, 2, 2.5), (-3, 5, 5.5), (7.5, 7.5, 8)])
def test_refused_resources_are_offered_again_when_the_filter_ends(refuse_s: float, least: float, most: float) -> None:
    stage = Stage()
    stage.agent()
    assert least <= declined(stage, stage.framework(), refuse_s) <= most


def test_a_bundle_larger_than_the_refused_one_is_offered_in_spite_of_the_filter() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.accept(framework.offers(), task_info("t1", agent.id, bundle(3, 128)), refuse_s=3600)
    stage.run(10)
    assert framework.offers() == []
    agent.update("t1", TaskState.FINISHED, framework.id)
    assert len(framework.offers()) == 1


def test_a_filter_holds_back_from_one_framework_only() -> None:
    stage = Stage()
    stage.agent()
    first, second = stage.framework(name="a"), stage.framework(name="b")
    (offer,) = [*first.offers(), *second.offers()]
    declining, other = (first, second) if offer.framework_id == first.id else (second, first)
    declining.decline(offer, refuse_s=3600)
    assert len(other.offers()) == 1


def test_declining_what_is_not_ones_own_is_ignored() -> None:
    stage = Stage()
    stage.agent()
    first = stage.framework(name="a")
    (offer,) = first.offers()
    second = stage.framework(name="b")
    second.decline(offer)
    assert offer.id in stage.core.state.offers


def test_filters_are_bounded_per_agent() -> None:
    stage = Stage(MasterConfig(most_filters=4))
    agent = stage.agent(cpus=100)
    framework = stage.framework()
    for i in range(20):
        offers = framework.offers()
        if offers:
            framework.accept(offers, task_info(f"t{i}", agent.id, bundle(1, 1)), refuse_s=1000 + i)
        agent.update(f"t{i}", TaskState.RUNNING, framework.id)
        framework.call(calls.Revive(framework_id=framework.id))
    assert len(list(stage.core.state.allocator.filters)) <= 4


def test_coarse_offers_stand_until_answered_unless_a_timeout_is_configured() -> None:
    stage = Stage()
    stage.agent()
    framework = stage.framework()
    framework.offers()
    stage.run(70)
    assert framework.rescinded() == []
    stage = Stage(MasterConfig(offer_timeout_s=20.0))
    stage.agent()
    framework = stage.framework()
    (offer,) = framework.offers()
    stage.run(21)
    assert offer.id in framework.rescinded()


def test_weights_decide_who_gets_more() -> None:
    stage = Stage()
    stage.ask(SetRole(role="big", weight=3.0))
    with pytest.raises(Invalid):
        stage.ask(SetRole(role="big", weight=0.0))
    with pytest.raises(Invalid):
        stage.ask(SetRole(role="-x", weight=1.0))
    frameworks = {role: stage.framework(name=role, role=role) for role in ("big", "small")}
    for i in range(8):
        stage.agent(agent_info(f"h{i}"))
    found = {role: len(framework.offers()) for role, framework in frameworks.items()}
    assert found == {"big": 6, "small": 2}
    assert stage.restart().core.state.weights == {"big": 3.0}


def test_agents_with_gpus_are_offered_only_to_frameworks_that_can_use_them() -> None:
    stage = Stage()
    info = agent_info()
    stage.agent(msgspec.structs.replace(info, resources=normal([*info.resources, scalar("gpus", 2)])))
    assert stage.framework(name="plain").offers() == []
    assert len(stage.framework(name="gpu", capabilities=(Capability.GPU_RESOURCES,)).offers()) == 1


def test_default_filters_are_five_seconds() -> None:
    assert Filters().refuse_s == 5.0


def test_resources_of_a_task_need_no_allocation_role_and_may_be_split() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    split = (scalar("cpus", 0.5), scalar("cpus", 0.5), scalar("mem", 10))
    info = TaskInfo(
        task_id=TaskId("t1"), name="t", agent_id=agent.id, resources=split, command=CommandInfo(value="true")
    )
    framework.accept(framework.offers(), info)
    (run,) = agent.take(RunTask)
    assert run.info.resources == charged(bundle(1, 10), "*")


def test_the_shorter_of_two_time_limits_is_kept_although_the_longer_was_first() -> None:
    stage = Stage(MasterConfig(offer_timeout_s=600.0, want_offer_timeout_s=30.0))
    stage.agent()
    coarse = stage.framework()
    assert len(coarse.offers()) == 1
    wanting = stage.framework(name="wanting")
    stage.agent(agent_info("h2"))
    wanting.want(want(resources=bundle(1)))
    (shaped,) = wanting.offers()
    stage.run(31)
    assert shaped.id in wanting.rescinded()


def test_filters_that_were_dropped_leave_nothing_behind_for_their_whole_time() -> None:
    stage = Stage()
    stage.agent()
    framework = stage.framework()
    for _ in range(5000):
        (offer,) = framework.offers()
        framework.decline(offer, refuse_s=1e9)
        framework.call(calls.Revive(framework_id=framework.id))
        stage.run(0.01)
    assert len(stage.core.state.filter_heap) <= 4096
