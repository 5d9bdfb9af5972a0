"""Apps with persistent volumes: reserved once, started again on the same, freed when they are wiped or deleted."""

from random import Random
from typing import Any

import pytest

from corral.frameworks.services import Config, build
from corral.frameworks.services.command_spec import DeleteApp, GetQueue, KillTasks
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.shown import write_app
from corral.lib.errors import Unprocessable
from corral.model import calls
from corral.model.ids import TaskId
from corral.model.operations import is_volume
from corral.model.resources import total_milli
from corral.model.task import Reason, TaskState

DATA = {"containerPath": "data", "mode": "RW", "persistent": {"size": 100}}
APP: dict[str, Any] = {
    "cpus": 0.5, "mem": 64, "disk": 10,
    "container": {"type": "MESOS", "volumes": [
        DATA, {"containerPath": "log", "mode": "RW", "persistent": {"size": 5}}]},
}  # fmt: skip


def names(task: Any) -> list[str]:
    """The volumes that a task has."""
    return sorted(r.identity.disk.persistence_id for r in task.resources if is_volume(r))


def test_the_form_is_read_and_shown_with_what_follows_from_volumes(cluster: Any) -> None:
    cluster.create(**APP)
    shown = cluster.show()
    assert shown["container"]["volumes"][0] == {**DATA, "persistent": {"size": 100, "type": "root"}}
    assert shown["upgradeStrategy"] == {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0}
    assert shown["unreachableStrategy"] == "disabled"
    assert shown["residency"] == {"relaunchEscalationTimeoutSeconds": 3600, "taskLostBehavior": "WAIT_FOREVER"}
    assert cluster.update_app(**{k: v for k, v in shown.items() if k in write_app(read_app(shown).spec)})
    assert not [d for d in cluster.state.deployments.values() if len(d.steps) == 1], "nothing has changed"


def test_the_first_launch_reserves_all_and_makes_the_volumes(cluster: Any) -> None:
    cluster.create(**APP)
    (want,) = cluster.wants.values()
    assert (want.role, total_milli(want.resources, "disk")) == ("services", 115_000)
    cluster.work()
    (task,) = cluster.launched
    assert total_milli(task.resources, "disk") == 115_000
    assert [r.milli for r in task.resources if is_volume(r)] == [100_000, 5_000]
    assert all(r.identity.reservations[-1].role == "services" for r in task.resources)
    (shown,) = cluster.show()["tasks"]
    assert {v["containerPath"] for v in shown["localVolumes"]} == {"data", "log"}
    assert sorted(v["persistenceId"] for v in shown["localVolumes"]) == names(task)
    assert all(v["uuid"] in v["persistenceId"] and v["runSpecId"] == "/web" for v in shown["localVolumes"])
    assert cluster.revived, "from now on what is reserved is offered"


@pytest.mark.parametrize("ended_as", [TaskState.FAILED, TaskState.FINISHED, TaskState.GONE])
@pytest.mark.parametrize("crashes", [False, True])
def test_an_instance_that_ends_is_started_again_on_its_volumes(
    cluster: Any, ended_as: TaskState, crashes: bool
) -> None:
    cluster.create(**APP)
    cluster.work()
    (first,) = cluster.launched
    cluster.revived.clear()
    cluster.update(first.task_id, ended_as, reason=Reason.AGENT_REMOVED)
    if crashes:
        cluster.crash()
        cluster.subscribe()
    assert not cluster.wants, "it waits for its own"
    cluster.advance(2)
    assert cluster.revived
    (second,) = cluster.offer_reserved()
    task = cluster.launched[-1]
    assert (task.resources, task.agent_id) == (first.resources, first.agent_id)
    assert second.rpartition(".")[0] == first.task_id.rpartition(".")[0], "it is the same instance"
    assert cluster.show()["tasks"][0]["ports"] == [p for r in first.resources for p, _ in r.ranges]
    cluster.update(second, TaskState.RUNNING)
    assert len(cluster.running()) == 1


def test_the_queue_says_where_the_volumes_are_that_an_instance_waits_for(cluster: Any) -> None:
    cluster.create(**APP, backoffSeconds=30)
    cluster.work()
    (task,) = cluster.launched
    cluster.update(task.task_id, TaskState.FAILED)
    (item,) = cluster.ask(GetQueue())
    (reason,) = item["processedOffersSummary"]["reasons"]
    assert (reason["reason"], reason["best"]) == ("reserved", task.agent_id.removeprefix("agent-"))
    rows = {r["reason"]: r for r in item["processedOffersSummary"]["rejectSummaryLastOffers"]}
    assert rows["NoCorrespondingReservationFound"]["declined"] == 1
    assert rows["UnfulfilledRole"]["processed"] == rows["NoCorrespondingReservationFound"]["processed"] == 1
    assert rows["InsufficientCpus"]["processed"] == 0


def test_what_is_reserved_waits_for_the_backoff_of_its_app(cluster: Any) -> None:
    cluster.create(**APP, backoffSeconds=30)
    cluster.work()
    cluster.update(cluster.launched[0].task_id, TaskState.FAILED)
    cluster.advance(1)
    assert cluster.offer_reserved() == []
    cluster.revived.clear()
    cluster.advance(30)
    assert cluster.revived
    assert len(cluster.offer_reserved()) == 1


def test_a_launch_that_never_ran_is_made_anew_and_what_it_reserved_is_freed(cluster: Any) -> None:
    cluster.create(**APP)
    (first,) = cluster.offer()
    cluster.update(first, TaskState.DROPPED, reason=Reason.INVALID_OFFERS)
    assert len(cluster.wants) == 1
    assert cluster.offer_reserved() == []
    assert cluster.reserved == {}, "freed"
    cluster.work()
    assert len(cluster.reserved) == 1


def test_an_agent_that_is_gone_for_good_takes_its_volumes_with_it(cluster: Any) -> None:
    cluster.create(**APP)
    cluster.work()
    (first,) = cluster.launched
    cluster.update(first.task_id, TaskState.GONE_BY_OPERATOR)
    cluster.work()
    assert names(cluster.launched[-1]) != names(first)


def test_scaling_down_keeps_the_volumes_for_scaling_up(cluster: Any) -> None:
    cluster.create(**APP, instances=2)
    cluster.work()
    before = {t.task_id.rpartition(".")[0]: names(t) for t in cluster.launched}
    cluster.update_app(instances=0)
    cluster.bury()
    assert (len(cluster.reserved), cluster.show()["tasks"], cluster.show()["instances"]) == (2, [], 0)
    assert not cluster.state.deployments
    assert cluster.offer_reserved() == []
    cluster.crash()
    cluster.subscribe()
    cluster.update_app(instances=2)
    assert not cluster.wants
    for task_id in cluster.offer_reserved():
        cluster.update(task_id, TaskState.RUNNING)
    after = {t.task_id.rpartition(".")[0]: names(t) for t in cluster.launched[-2:]}
    assert after == before
    assert not cluster.state.deployments


def test_an_offer_for_one_more_is_never_taken_for_one_that_has_volumes(cluster: Any) -> None:
    cluster.create(**APP)
    cluster.work()
    cluster.update_app(instances=0)
    cluster.bury()
    (kept,) = cluster.reserved
    cluster.update_app(instances=2)
    assert [w.count for w in cluster.wants.values()] == [1]
    cluster.run()
    cluster.offer_reserved()
    assert kept in cluster.reserved
    assert len(cluster.tasks) == 2


def test_an_upgrade_replaces_each_instance_in_its_place_and_keeps_half_of_them(cluster: Any) -> None:
    cluster.create(**APP, instances=4)
    cluster.work()
    before = {t.task_id.rpartition(".")[0]: names(t) for t in cluster.launched}
    cluster.update_app(cmd="sleep 2000")
    for _ in range(20):
        healthy = len(cluster.running())
        assert healthy >= 2, "half of them stay"
        assert len([i for i in cluster.app().instances.values() if i.condition == "Running"]) <= 4
        cluster.bury()
        assert not cluster.wants, "none starts elsewhere"
        for task_id in cluster.offer_reserved():
            cluster.update(task_id, TaskState.RUNNING)
        if not cluster.state.deployments:
            break
    assert not cluster.state.deployments
    assert {t.task_id.rpartition(".")[0]: names(t) for t in cluster.tasks.values()} == before
    assert all(t.command.value == "sleep 2000" for t in cluster.tasks.values())


def test_a_single_instance_with_volumes_stops_before_it_starts_in_its_place(cluster: Any) -> None:
    cluster.create(**APP)
    cluster.work()
    (first,) = cluster.launched
    cluster.update_app(cmd="sleep 2000")
    assert cluster.killed == [first.task_id]
    cluster.bury()
    (second,) = cluster.offer_reserved()
    cluster.update(second, TaskState.RUNNING)
    assert names(cluster.launched[-1]) == names(first)
    assert not cluster.state.deployments


@pytest.mark.parametrize("runs", [True, False])
def test_wiping_frees_the_volumes_and_starts_elsewhere(cluster: Any, runs: bool) -> None:
    cluster.create(**APP, backoffSeconds=60)
    cluster.work()
    (first,) = cluster.launched
    if not runs:
        cluster.update(first.task_id, TaskState.FAILED)
    (shown,) = cluster.ask(KillTasks(app="/web", wipe=True))
    assert shown["localVolumes"]
    cluster.bury()
    cluster.settle()
    assert cluster.offer_reserved() == []
    assert cluster.reserved == {}
    cluster.advance(61)
    cluster.work()
    assert names(cluster.launched[-1]) != names(first)


def test_killing_without_wiping_starts_again_on_the_same(cluster: Any) -> None:
    cluster.create(**APP)
    cluster.work()
    (first,) = cluster.launched
    cluster.ask(KillTasks(app="/web"))
    cluster.bury()
    cluster.settle()
    cluster.offer_reserved()
    assert names(cluster.launched[-1]) == names(first)
    assert len(cluster.launched) == 2


def test_deleting_the_app_frees_everything_also_what_was_stopped_and_on_an_agent_that_was_away(cluster: Any) -> None:
    cluster.create(**APP, instances=2)
    cluster.work()
    cluster.update_app(instances=1)
    cluster.bury()
    cluster.ask(DeleteApp(id="/web"))
    cluster.settle()
    cluster.bury()
    assert cluster.state.apps == {}
    cluster.crash()
    cluster.subscribe()
    assert cluster.revived
    cluster.offer_reserved()
    assert cluster.reserved == {}


def test_reservations_bear_the_name_of_the_token_that_the_framework_shows(make_cluster: Any) -> None:
    config = Config(principal="ci", role="web")
    framework = build(config, Random(1))
    assert (framework.info.principal, framework.info.roles) == ("ci", ("web",))
    cluster = make_cluster(config)
    cluster.subscribe()
    cluster.create(**APP)
    cluster.run()
    (task,) = cluster.launched
    (reserve, create, _) = next(c for c in cluster.calls if isinstance(c, calls.Accept)).operations
    assert {r.identity.reservations[-1].principal for r in (*reserve.resources, *create.volumes)} == {"ci"}
    assert {r.identity.disk.principal for r in task.resources if is_volume(r)} == {"ci"}


def test_the_role_of_reservations_is_taken_with_the_first_app_that_has_volumes_and_after_each_subscription(
    cluster: Any,
) -> None:
    cluster.create(id="/plain", cpus=0.1, mem=32)
    cluster.work()
    assert cluster.roles == ("*",)
    cluster.create(**APP)
    assert cluster.roles == ("*", "services")
    cluster.crash()
    cluster.subscribe()
    assert cluster.roles == ("*", "services")


def test_what_others_have_reserved_is_left_alone(cluster: Any) -> None:
    cluster.create(**APP)
    cluster.work()
    (name,) = cluster.reserved
    agent_id, resources = cluster.reserved[name]
    cluster.core.state.framework_id = "another"
    cluster.tasks.clear()
    assert cluster.offer_reserved() == []
    assert cluster.reserved == {name: (agent_id, resources)}


def test_a_silent_agent_is_waited_for_unless_the_app_says_for_how_long(cluster: Any) -> None:
    cluster.create(**APP)
    cluster.work()
    cluster.update(cluster.launched[0].task_id, TaskState.UNREACHABLE)
    cluster.advance(100_000)
    assert (len(cluster.app().instances), cluster.wants) == (1, {})
    residency = {"taskLostBehavior": "RELAUNCH_AFTER_TIMEOUT", "relaunchEscalationTimeoutSeconds": 60}
    cluster.create(id="/other", **APP, residency=residency)
    cluster.work()
    cluster.update(cluster.launched[1].task_id, TaskState.UNREACHABLE)
    cluster.advance(59)
    assert not cluster.wants
    cluster.advance(2)
    assert len(cluster.wants) == 1


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/container/volumes", {"container": {"type": "MESOS", "volumes": [DATA]}}),
        ("/container/volumes", {"container": {"type": "MESOS", "volumes": []}}),
        ("/cpus", {"cpus": 1}), ("/mem", {"mem": 65}), ("/disk", {"disk": 11}),
        ("/requirePorts", {"requirePorts": True}),
    ],
)  # fmt: skip
def test_what_is_reserved_cannot_be_changed(cluster: Any, path: str, change: dict[str, Any]) -> None:
    cluster.create(**APP)
    with pytest.raises(Unprocessable) as caught:
        cluster.update_app(force=True, **change)
    assert path in caught.value.details


def volume(**more: Any) -> dict[str, Any]:
    return {"container": {"type": "MESOS", "volumes": [{**DATA, **more}]}}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/container/volumes(0)/containerPath", volume(containerPath="a/b")),
        ("/container/volumes(0)/containerPath", volume(containerPath="..")),
        ("/container/volumes(0)/mode", volume(mode="RO")),
        ("/container/volumes(0)/persistent/size", volume(persistent={"size": 0})),
        ("/container/volumes(0)/persistent/size", volume(persistent={})),
        ("/container/volumes(0)/persistent/type", volume(persistent={"size": 1, "type": "tape"})),
        ("/container/volumes(0)/persistent/maxSize", volume(persistent={"size": 1, "maxSize": 2})),
        ("/container/volumes(0)/persistent/constraints",
         volume(persistent={"size": 1, "constraints": [["path", "LIKE", "/a.*"]]})),
        ("/container/volumes(0)/containerPath", {"container": {"type": "MESOS", "volumes": [DATA, DATA]}}),
        ("/container/volumes(0)", volume(hostPath="/x")),
        ("/upgradeStrategy/maximumOverCapacity",
         {**volume(), "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.1}}),
        ("/unreachableStrategy",
         {**volume(), "unreachableStrategy": {"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2}}),
        ("/cpus", {**volume(), "cpus": 0.001, "mem": 16}),
    ],
)  # fmt: skip
def test_volumes_that_make_no_sense_are_refused_by_their_path(cluster: Any, path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as caught:
        cluster.create(**fields)
    assert path in caught.value.details


def test_a_task_of_an_app_without_volumes_takes_nothing_of_what_is_reserved(cluster: Any) -> None:
    cluster.create(**APP)
    cluster.work()
    cluster.update(cluster.launched[0].task_id, TaskState.FAILED)
    cluster.create(id="/plain", cpus=0.1, mem=32)
    assert [TaskId(t) for t in cluster.offer_reserved()] == []
