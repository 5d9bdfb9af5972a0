"""The services core, input by input: apps kept at their number through failures, changes, kills and restarts."""

import pytest

from corral.frameworks.services.command_spec import (
    CancelDeployment,
    DeleteApp,
    GetApp,
    GetDeployments,
    GetQueue,
    GetTasks,
    GetVersions,
    KillTasks,
    ResetDelay,
    RestartApp,
)
from corral.lib.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge, Unprocessable
from corral.model import calls, events
from corral.model.ids import OfferId
from corral.model.offer import Explanation, Refusal
from corral.model.task import Reason, TaskState


def test_a_created_app_is_persisted_before_it_is_answered_and_runs_when_offered(cluster) -> None:
    result = cluster.create(instances=2)
    assert "app/web" in cluster.records
    assert f"deployment/{result.deployment_id}" in cluster.records
    assert [w.count for w in cluster.wants.values()] == [2]
    tasks = cluster.run()
    assert len(tasks) == 2
    assert len(cluster.running()) == 2
    assert cluster.ask(GetDeployments()) == []
    assert cluster.wants == {}
    assert not any(k.startswith("deployment/") for k in cluster.records)


def test_the_deployment_is_open_until_every_instance_runs(cluster) -> None:
    cluster.create(instances=2)
    first, second = cluster.offer()
    cluster.update(first, TaskState.RUNNING)
    (deployment,) = cluster.ask(GetDeployments())
    assert deployment["currentStep"] == 2
    assert deployment["steps"][0]["actions"] == [{"action": "StartApplication", "app": "/web"}]
    assert deployment["currentActions"][0]["action"] == "ScaleApplication"
    cluster.update(second, TaskState.RUNNING)
    assert cluster.ask(GetDeployments()) == []


def test_an_app_of_no_instances_is_deployed_at_once(cluster) -> None:
    cluster.create(instances=0)
    assert cluster.ask(GetDeployments()) == []
    assert cluster.wants == {}


def test_a_second_app_of_the_same_name_is_refused(cluster) -> None:
    cluster.create()
    cluster.run()
    with pytest.raises(Conflict, match="already exists"):
        cluster.create()


def test_a_refused_app_leaves_no_trace(cluster) -> None:
    before = dict(cluster.records)
    with pytest.raises(Unprocessable):
        cluster.create(cpus=-1)
    assert cluster.records == before
    assert cluster.state.apps == {}
    assert not cluster.state.service_ports


def test_an_instance_that_fails_comes_back_under_its_id_after_its_backoff(cluster) -> None:
    cluster.create(backoffSeconds=2)
    (task,) = cluster.run()
    cluster.update(task, TaskState.FAILED, message="Command exited with status 3")
    assert cluster.wants == {}
    (item,) = cluster.ask(GetQueue())
    assert item["delay"] == {"timeLeftSeconds": 2, "overdue": False}
    cluster.advance(2.0)
    assert len(cluster.wants) == 1
    (again,) = cluster.run()
    assert again == task.removesuffix("1") + "2"
    failure = cluster.show()["lastTaskFailure"]
    assert failure["message"] == "Command exited with status 3"
    assert failure["state"] == "TASK_FAILED"


def test_backoff_grows_with_every_failure_and_stops_at_its_bound(cluster) -> None:
    cluster.create(backoffSeconds=1, backoffFactor=10, maxLaunchDelaySeconds=50)
    waits = []
    for _ in range(4):
        (task,) = cluster.run()
        cluster.update(task, TaskState.FAILED)
        (item,) = cluster.ask(GetQueue())
        waits.append(item["delay"]["timeLeftSeconds"])
        cluster.advance(waits[-1] + 0.1)
    assert waits == [1, 10, 50, 50]


def test_an_exit_of_zero_is_charged_and_repaired_too(cluster) -> None:
    cluster.create()
    (task,) = cluster.run()
    cluster.update(task, TaskState.FINISHED)
    assert cluster.wants == {}
    cluster.advance(1.1)
    assert len(cluster.run()) == 1


def test_a_kill_from_elsewhere_is_repaired_without_charge(cluster) -> None:
    cluster.create()
    (task,) = cluster.run()
    cluster.update(task, TaskState.KILLED)
    assert len(cluster.run()) == 1


def test_a_lost_race_for_an_offer_is_not_charged_to_the_app(cluster) -> None:
    cluster.create()
    (task,) = cluster.offer()
    cluster.update(task, TaskState.DROPPED, reason=Reason.INVALID_OFFERS)
    assert len(cluster.run()) == 1


def test_a_delay_is_forgotten_when_asked_for(cluster) -> None:
    cluster.create(backoffSeconds=100)
    (task,) = cluster.run()
    cluster.update(task, TaskState.FAILED)
    assert cluster.wants == {}
    cluster.ask(ResetDelay(id="/web"))
    cluster.settle()
    assert len(cluster.run()) == 1
    with pytest.raises(NotFound, match="not found in tasks queue"):
        cluster.ask(ResetDelay(id="/other"))


def test_scaling_up_keeps_what_runs(cluster) -> None:
    cluster.create(instances=2)
    first = set(cluster.run())
    cluster.update_app(instances=4)
    assert len(cluster.run()) == 2
    assert first <= set(cluster.task_ids())
    assert cluster.killed == []
    info = cluster.show()["versionInfo"]
    assert info["lastScalingAt"] > info["lastConfigChangeAt"]


def test_scaling_down_ends_the_youngest(cluster) -> None:
    cluster.create(instances=1)
    (oldest,) = cluster.run()
    cluster.advance(10)
    cluster.update_app(instances=3)
    young = cluster.run()
    cluster.update_app(instances=1)
    assert sorted(cluster.killed) == sorted(young)
    cluster.bury()
    assert cluster.task_ids() == [oldest]
    assert cluster.ask(GetDeployments()) == []


def test_scaling_down_ends_the_oldest_when_the_app_says_so(cluster) -> None:
    cluster.create(instances=1, killSelection="OLDEST_FIRST")
    (oldest,) = cluster.run()
    cluster.advance(10)
    cluster.update_app(instances=2)
    cluster.run()
    cluster.update_app(instances=1)
    assert cluster.killed == [oldest]


def test_what_was_never_launched_goes_first_and_needs_no_kill(cluster) -> None:
    cluster.create(instances=3)
    cluster.run(most=2)
    cluster.update_app(instances=2, force=True)
    assert cluster.killed == []
    assert cluster.wants == {}
    assert len(cluster.running()) == 2


def test_an_equal_update_changes_nothing(cluster) -> None:
    created = cluster.create(instances=1)
    cluster.run()
    before = dict(cluster.records)
    result = cluster.update_app(instances=1)
    assert result.version == created.version
    assert result.deployment_id
    assert cluster.records == before
    assert cluster.killed == []


def test_a_body_that_was_fetched_can_be_sent_back(cluster) -> None:
    cluster.create(instances=1)
    cluster.run()
    body = cluster.show()
    body.pop("version")
    before = dict(cluster.records)
    cluster.update_app(**body)
    assert cluster.records == before


def test_a_changed_definition_replaces_instances_within_the_upgrade_strategy(cluster) -> None:
    cluster.create(instances=4, upgradeStrategy={"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0})
    old = set(cluster.run())
    cluster.update_app(cmd="sleep 2000")
    least = most = 4
    for _ in range(50):
        alive = [t for t in cluster.tasks if t not in cluster.killed]
        least, most = min(least, len(cluster.running())), max(most, len(cluster.tasks))
        assert len(alive) >= 2
        cluster.run(most=1)
        cluster.bury()
    assert most == 4
    assert not old & set(cluster.tasks)
    assert len(cluster.running()) == 4
    assert cluster.ask(GetDeployments()) == []


def test_a_label_change_restarts_like_any_other_change(cluster) -> None:
    cluster.create()
    (old,) = cluster.run()
    cluster.update_app(labels={"a": "b"})
    cluster.work()
    assert old not in cluster.tasks
    assert cluster.tasks[cluster.task_ids()[0]].labels[1].key == "a"


def test_restart_replaces_everything_and_makes_a_version(cluster) -> None:
    cluster.create(instances=2)
    old = set(cluster.run())
    before = cluster.show()["version"]
    cluster.ask(RestartApp(id="/web"))
    cluster.work()
    assert not old & set(cluster.tasks)
    assert cluster.show()["version"] > before
    assert cluster.show()["versionInfo"]["lastConfigChangeAt"] == cluster.show()["version"]
    assert len(cluster.ask(GetVersions(id="/web"))) == 2


def test_a_rollback_to_a_version_is_a_new_version_of_the_old_definition(cluster) -> None:
    first = cluster.create(cmd="sleep 1111")
    cluster.run()
    cluster.update_app(cmd="sleep 2222")
    cluster.work()
    cluster.update_app(version=first.version)
    cluster.work()
    assert cluster.show()["cmd"] == "sleep 1111"
    assert cluster.show()["version"] > first.version
    assert len(cluster.ask(GetVersions(id="/web"))) == 3
    with pytest.raises(NotFound, match="has no version"):
        cluster.update_app(version="1999-01-01T00:00:00.000Z")


def test_a_rollback_halfway_keeps_the_instances_that_are_right_already(cluster) -> None:
    first = cluster.create(instances=3, upgradeStrategy={"minimumHealthCapacity": 1, "maximumOverCapacity": 0})
    old = set(cluster.run())
    cluster.update_app(cmd="sleep 2222")
    cluster.offer(most=1)
    cluster.update_app(version=first.version, force=True)
    cluster.work()
    assert old == set(cluster.tasks)


def test_a_locked_app_refuses_changes_and_names_the_deployment(cluster) -> None:
    result = cluster.create()
    before = dict(cluster.records)
    with pytest.raises(Conflict) as caught:
        cluster.update_app(instances=5)
    assert caught.value.blockers == (result.deployment_id,)
    assert "force=true" in caught.value.message
    assert cluster.records == before


def test_force_takes_the_place_of_the_deployment_under_way(cluster) -> None:
    cluster.create(instances=3)
    cluster.run(most=1)
    result = cluster.update_app(instances=2, force=True)
    (deployment,) = cluster.ask(GetDeployments())
    assert deployment["id"] == result.deployment_id
    cluster.work()
    assert len(cluster.running()) == 2
    assert cluster.ask(GetDeployments()) == []


def test_force_in_the_middle_of_a_restart_leaves_no_debris(cluster) -> None:
    cluster.create(instances=4, cmd="sleep 1001")
    cluster.run()
    cluster.update_app(cmd="sleep 1002")
    cluster.run(most=2)
    cluster.update_app(instances=3, force=True)
    cluster.work()
    commands = {t.command.value for t in cluster.tasks.values()}
    assert commands == {"sleep 1002"}
    assert len(cluster.tasks) == 3


def test_cancelling_a_deployment_without_force_undoes_it(cluster) -> None:
    cluster.create(instances=2)
    cluster.run()
    result = cluster.update_app(instances=5)
    cluster.offer(most=1)
    back = cluster.ask(CancelDeployment(id=result.deployment_id))
    assert back.deployment_id != result.deployment_id
    cluster.work()
    assert cluster.show()["instances"] == 2
    assert len(cluster.tasks) == 2


def test_cancelling_the_creation_of_an_app_removes_it(cluster) -> None:
    result = cluster.create(instances=2)
    cluster.offer(most=1)
    cluster.ask(CancelDeployment(id=result.deployment_id))
    cluster.work()
    assert cluster.tasks == {}
    with pytest.raises(NotFound):
        cluster.show()
    assert [k for k in cluster.lasting() if not k.startswith("group")] == []


def test_cancelling_by_force_leaves_everything_as_it_is(cluster) -> None:
    result = cluster.create(instances=2)
    assert cluster.ask(CancelDeployment(id=result.deployment_id, force=True)) is None
    assert cluster.ask(GetDeployments()) == []
    assert cluster.show()["instances"] == 2
    cluster.work()
    assert len(cluster.tasks) == 2
    with pytest.raises(NotFound):
        cluster.ask(CancelDeployment(id=result.deployment_id))


def test_cancelling_a_deletion_brings_the_app_back_with_what_still_runs(cluster) -> None:
    cluster.create(instances=2)
    cluster.run()
    result = cluster.ask(DeleteApp(id="/web"))
    cluster.ask(CancelDeployment(id=result.deployment_id))
    cluster.work()
    assert len(cluster.tasks) == 2
    assert cluster.show()["instances"] == 2


def test_more_deployments_than_allowed_are_refused(make_cluster) -> None:
    from corral.frameworks.services import Config

    cluster = make_cluster(Config(most_deployments=2))
    cluster.create(id="/a")
    cluster.create(id="/b")
    with pytest.raises(Forbidden, match="2 deployments"):
        cluster.create(id="/c")
    assert "/c" not in cluster.state.apps


def test_too_many_apps_in_one_request_are_refused(make_cluster) -> None:
    from corral.frameworks.services import Config
    from corral.frameworks.services.command_spec import UpdateApps
    from corral.frameworks.services.marathon import read_updates

    cluster = make_cluster(Config(most_apps_per_request=1))
    updates, _ = read_updates([{"id": "/a", "cmd": "sleep 9"}, {"id": "/b", "cmd": "sleep 9"}])
    with pytest.raises(TooLarge):
        cluster.ask(UpdateApps(updates=updates))


def test_a_deleted_app_is_gone_at_once_and_its_tasks_end(cluster) -> None:
    cluster.create(instances=2)
    tasks = cluster.run()
    cluster.ask(DeleteApp(id="/web"))
    with pytest.raises(NotFound):
        cluster.show()
    cluster.settle()
    assert sorted(cluster.killed) == sorted(tasks)
    assert "app/web" in cluster.records
    cluster.bury()
    assert cluster.lasting() == {}
    assert not cluster.state.service_ports
    assert cluster.ask(GetDeployments()) == []


def test_deleting_an_app_forgets_its_versions_and_its_failure(cluster) -> None:
    cluster.create()
    cluster.run()
    cluster.update_app(cmd="sleep 2222")
    cluster.work()
    cluster.update(cluster.task_ids()[0], TaskState.FAILED)
    cluster.ask(DeleteApp(id="/web"))
    cluster.work()
    assert cluster.lasting() == {}


def test_an_app_can_be_made_again_once_the_old_one_is_gone(cluster) -> None:
    cluster.create()
    cluster.run()
    cluster.ask(DeleteApp(id="/web"))
    with pytest.raises(Conflict, match="locked"):
        cluster.create()
    cluster.work()
    cluster.create()
    cluster.work()
    assert len(cluster.tasks) == 1


def test_an_app_made_again_by_force_does_not_inherit_dying_tasks(cluster) -> None:
    cluster.create(instances=2, cmd="sleep 1111")
    old = cluster.run()
    cluster.ask(DeleteApp(id="/web"))
    cluster.create(instances=2, cmd="sleep 2222", force=True)
    cluster.work()
    assert not set(old) & set(cluster.tasks)
    assert {t.command.value for t in cluster.tasks.values()} == {"sleep 2222"}
    assert len(cluster.tasks) == 2


def test_killing_a_task_replaces_it_without_charge(cluster) -> None:
    cluster.create(instances=2)
    victim, other = cluster.run()
    shown = cluster.ask(KillTasks(app="/web", instances=(victim.removesuffix("._app.1"),)))
    assert [t["id"] for t in shown] == [victim]
    cluster.work()
    assert victim not in cluster.tasks
    assert other in cluster.tasks
    assert len(cluster.tasks) == 2


def test_killing_with_scale_lowers_the_number_and_ends_exactly_those(cluster) -> None:
    cluster.create(instances=3)
    victim, *others = cluster.run()
    result = cluster.ask(KillTasks(app="/web", instances=(victim.removesuffix("._app.1"),), scale=True))
    assert result.deployment_id
    cluster.work()
    assert cluster.show()["instances"] == 2
    assert sorted(cluster.tasks) == sorted(others)
    assert cluster.killed == [victim]


def test_killing_by_host_takes_only_the_tasks_there(cluster) -> None:
    cluster.create(instances=3)
    cluster.run()
    host = cluster.running()[0].hostname
    shown = cluster.ask(KillTasks(app="/web", host=host))
    assert {t["host"] for t in shown} == {host}
    assert len(cluster.ask(KillTasks(app="/web", host="*"))) == 2


def test_scale_together_with_wipe_is_refused(cluster) -> None:
    cluster.create()
    with pytest.raises(Invalid):
        cluster.ask(KillTasks(app="/web", scale=True, wipe=True))


def test_unknown_tasks_in_a_list_are_passed_over(cluster) -> None:
    cluster.create()
    (task,) = cluster.run()
    known = task.removesuffix("._app.1")
    shown = cluster.ask(KillTasks(instances=(known, "web.instance-none", "other.instance-x")))
    assert [t["id"] for t in shown] == [task]
    with pytest.raises(NotFound):
        cluster.ask(KillTasks(app="/web", instances=("web.instance-none",), strict=True))
    with pytest.raises(NotFound):
        cluster.ask(KillTasks(instances=("web.instance-none",), scale=True))


def test_more_kills_than_one_turn_may_write_are_all_carried_out(make_cluster) -> None:
    from corral.frameworks.services import Config

    cluster = make_cluster(Config(most_writes=4))
    cluster.subscribe()
    cluster.create(instances=30)
    tasks = cluster.run()
    assert len(tasks) == 30
    cluster.ask(KillTasks(app="/web", scale=True))
    cluster.settle()
    assert sorted(cluster.killed) == sorted(tasks)
    cluster.work()
    assert cluster.show()["instances"] == 0


def test_no_input_writes_more_records_than_a_transaction_takes(make_cluster) -> None:
    from corral.frameworks.services import Config
    from corral.runtime.core import Persist

    cluster = make_cluster(Config(most_writes=8))
    cluster.subscribe()
    inner = cluster.core.handle
    most = 0

    class Counting:
        def handle(self, input, now):
            nonlocal most
            effects = inner(input, now)
            most = max(most, sum(isinstance(e, Persist) for e in effects))
            return effects

        def __getattr__(self, name):
            return getattr(cluster_core, name)

    cluster_core = cluster.core
    cluster.core = Counting()
    cluster.create(instances=100)
    assert len(cluster.run()) == 100
    cluster.update_app(cmd="sleep 9999")
    cluster.work()
    cluster.ask(DeleteApp(id="/web"))
    cluster.work()
    assert cluster.lasting() == {}
    assert most <= 16


def test_a_kill_that_nobody_answers_is_repeated(cluster) -> None:
    cluster.create()
    (task,) = cluster.run()
    cluster.update_app(instances=0)
    assert cluster.killed == [task]
    cluster.advance(36)
    assert cluster.killed == [task, task]
    cluster.bury()
    cluster.advance(100)
    assert cluster.killed == [task, task]


def test_a_launch_that_never_runs_is_ended_and_replaced(cluster) -> None:
    cluster.create()
    (stuck,) = cluster.offer()
    cluster.advance(310)
    assert cluster.killed == [stuck]
    assert len(cluster.run()) == 1


def test_nothing_ticks_when_everything_runs(cluster) -> None:
    cluster.create(instances=3)
    cluster.run()
    cluster.advance(60)
    assert cluster.timers == {}


def test_an_unreachable_instance_is_replaced_and_given_up_at_once_by_default(cluster) -> None:
    cluster.create()
    (task,) = cluster.run()
    cluster.update(task, TaskState.UNREACHABLE)
    assert len(cluster.run()) == 1
    assert task not in cluster.task_ids()
    cluster.update(task, TaskState.RUNNING)
    assert cluster.killed == [task]


def test_the_unreachable_strategy_is_followed_to_the_second(cluster) -> None:
    cluster.create(unreachableStrategy={"inactiveAfterSeconds": 30, "expungeAfterSeconds": 90})
    (task,) = cluster.run()
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.advance(29)
    assert cluster.wants == {}
    cluster.advance(1.1)
    assert len(cluster.wants) == 1
    assert task in cluster.task_ids()
    cluster.advance(60)
    assert task not in cluster.task_ids()


def test_an_instance_that_comes_back_in_time_counts_again(cluster) -> None:
    cluster.create(unreachableStrategy={"inactiveAfterSeconds": 10, "expungeAfterSeconds": 90})
    (task,) = cluster.run()
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.advance(20)
    (replacement,) = cluster.run()
    cluster.update(task, TaskState.RUNNING)
    cluster.bury()
    assert len(cluster.tasks) == 1
    assert cluster.killed in ([task], [replacement])


def test_an_app_that_waits_for_ever_is_not_replaced(cluster) -> None:
    cluster.create(unreachableStrategy="disabled")
    (task,) = cluster.run()
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.advance(100_000)
    assert cluster.wants == {}
    assert cluster.task_ids() == [task]


def test_a_lost_task_may_come_back_or_not_as_its_reason_says(cluster) -> None:
    cluster.create(instances=2, unreachableStrategy="disabled")
    first, second = cluster.run()
    cluster.update(first, TaskState.LOST, reason=Reason.AGENT_REMOVED)
    assert [i.condition for i in cluster.app().instances.values()].count("Unreachable") == 1
    cluster.update(second, TaskState.LOST, reason=Reason.CONTAINER_LAUNCH_FAILED)
    cluster.advance(1.1)
    assert len(cluster.run()) == 1


def test_killing_an_unreachable_instance_gives_it_up(cluster) -> None:
    cluster.create(unreachableStrategy="disabled")
    (task,) = cluster.run()
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.ask(KillTasks(app="/web"))
    cluster.settle()
    assert task not in cluster.task_ids()
    assert len(cluster.run()) == 1


def test_a_task_nobody_knows_is_killed(cluster) -> None:
    cluster.update("other.instance-6a8e4a2c-0000-11ee-8000-010203040506._app.1", TaskState.RUNNING)
    cluster.update("strange", TaskState.RUNNING)
    assert len(cluster.killed) == 2


def test_updates_of_an_earlier_incarnation_do_not_touch_the_present_one(cluster) -> None:
    cluster.create()
    (task,) = cluster.run()
    cluster.update(task, TaskState.FAILED)
    cluster.advance(1.1)
    (again,) = cluster.run()
    cluster.update(task, TaskState.FAILED)
    assert cluster.task_ids() == [again]
    assert len(cluster.running()) == 1


def test_an_old_answer_does_not_set_an_instance_back(cluster) -> None:
    cluster.create()
    (task,) = cluster.run()
    cluster.update(task, TaskState.STAGING, reason=Reason.RECONCILIATION)
    assert len(cluster.running()) == 1


def test_offers_for_what_is_no_longer_wanted_are_declined(cluster) -> None:
    cluster.create(instances=2)
    stale = cluster.make_offers()
    cluster.ask(DeleteApp(id="/web"))
    cluster.send(events.Offers(offers=stale))
    assert len(cluster.declined) == 2
    assert cluster.launched == []
    decline = cluster.calls[-1]
    assert isinstance(decline, calls.Decline)
    assert decline.filters.refuse_s == 0


def test_offers_beyond_the_number_wanted_are_declined(cluster) -> None:
    cluster.create(instances=2)
    offers = cluster.make_offers() + cluster.make_offers()
    cluster.send(events.Offers(offers=offers))
    assert len(cluster.launched) == 2
    assert len(cluster.declined) == 2


def test_a_rescinded_offer_that_still_waits_is_not_used(make_cluster) -> None:
    from corral.frameworks.services import Config

    cluster = make_cluster(Config(most_writes=1))
    cluster.subscribe()
    cluster.create(instances=2)
    offers = cluster.make_offers()
    cluster.send(events.Offers(offers=offers))
    cluster.send(events.Rescind(offer_id=OfferId(offers[1].id)))
    cluster.settle()
    assert len(cluster.launched) == 1


def test_wants_are_stated_once_for_many_changes(cluster) -> None:
    for n in range(5):
        from corral.frameworks.services.command_spec import CreateApp
        from corral.frameworks.services.marathon import read_app

        cluster.ask(CreateApp(spec=read_app({"id": f"/app{n}", "cmd": "sleep 9"}).spec))
    cluster.settle()
    requests = [c for c in cluster.calls if isinstance(c, calls.Request)]
    assert len(requests[-1].wants or ()) == 5
    assert len(requests) == 2


def test_a_launch_is_no_reason_to_state_wants_again(cluster) -> None:
    cluster.create(instances=4)
    before = len([c for c in cluster.calls if isinstance(c, calls.Request)])
    cluster.offer(most=2)
    assert len([c for c in cluster.calls if isinstance(c, calls.Request)]) == before
    assert [w.count for w in cluster.wants.values()] == [2]


def test_everything_unsaid_is_said_again_after_a_new_subscription(cluster) -> None:
    cluster.create(instances=3)
    cluster.run(most=1)
    cluster.disconnect()
    cluster.update_app(instances=0, force=True)
    assert cluster.killed == []
    cluster.subscribe()
    assert len(cluster.killed) == 1
    cluster.update_app(instances=2, force=True)
    assert [w.count for w in cluster.wants.values()] == [2]


@pytest.mark.parametrize("steps", range(8))
def test_a_crash_at_any_step_loses_no_app_and_doubles_no_task(make_cluster, steps) -> None:
    cluster = make_cluster()
    cluster.subscribe()
    script = [
        lambda: cluster.create(instances=3),
        lambda: cluster.offer(most=2),
        lambda: [cluster.update(t, TaskState.RUNNING) for t in list(cluster.tasks)],
        lambda: cluster.run(),
        lambda: cluster.update_app(cmd="sleep 2222"),
        lambda: cluster.offer(most=1),
        lambda: cluster.bury(),
        lambda: cluster.update_app(instances=2, force=True),
    ]
    for act in script[: steps + 1]:
        act()
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    for act in script[steps + 1 :]:
        act()
    cluster.work()
    assert cluster.show()["instances"] == 2
    assert {t.command.value for t in cluster.tasks.values()} == {"sleep 2222"}
    assert len(cluster.tasks) == 2
    assert cluster.ask(GetDeployments()) == []
    assert len(cluster.running()) == 2


def test_a_launch_that_the_master_never_heard_of_is_made_again_after_a_crash(cluster) -> None:
    cluster.create()
    cluster.offer()
    cluster.tasks.clear()
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    cluster.advance(1.1)
    assert len(cluster.run()) == 1
    assert len(cluster.running()) == 1


def test_a_deletion_goes_on_after_a_crash(cluster) -> None:
    cluster.create(instances=2)
    cluster.run()
    cluster.ask(DeleteApp(id="/web"))
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    cluster.work()
    assert cluster.lasting() == {}
    assert cluster.tasks == {}


def test_versions_never_go_back_even_if_the_clock_does(cluster) -> None:
    first = cluster.create(instances=0)
    cluster.crash()
    cluster.now -= 1000
    second = cluster.update_app(cmd="sleep 2222", force=True)
    assert second.version > first.version


def test_dependencies_are_deployed_in_order(cluster) -> None:
    from corral.frameworks.services.command_spec import UpdateApps
    from corral.frameworks.services.marathon import read_updates

    body = [
        {"id": "/site/web", "cmd": "sleep 9", "dependencies": ["db"]},
        {"id": "/site/db", "cmd": "sleep 9"},
    ]
    updates, _ = read_updates(body)
    cluster.ask(UpdateApps(updates=updates))
    cluster.settle()
    assert [w.group for w in cluster.wants.values()] == ["/site/db"]
    cluster.run()
    assert [w.group for w in cluster.wants.values()] == ["/site/web"]
    cluster.run()
    assert cluster.ask(GetDeployments()) == []


def test_a_circle_of_dependencies_is_refused(cluster) -> None:
    cluster.create(id="/a", dependencies=["/b"])
    with pytest.raises(Unprocessable) as caught:
        cluster.create(id="/b", dependencies=["/a"])
    assert "/a -> /b" in caught.value.details["/dependencies"][0]
    assert "/b" not in cluster.state.apps


def test_an_app_cannot_live_below_another_app(cluster) -> None:
    cluster.create(id="/a")
    with pytest.raises(Unprocessable):
        cluster.create(id="/a/b")


def test_an_app_cannot_take_the_name_of_a_group_that_holds_apps(cluster) -> None:
    cluster.create(id="/a/b")
    with pytest.raises(Unprocessable):
        cluster.create(id="/a")
    cluster.run()
    cluster.ask(DeleteApp(id="/a/b"))
    cluster.work()
    cluster.create(id="/a")
    assert "group/a" not in cluster.records


def test_service_ports_are_given_once_and_kept_across_updates(cluster) -> None:
    cluster.create(id="/a", ports=[0, 0])
    cluster.create(id="/b", ports=[0])
    assert cluster.app("/a").spec.service_ports == (10000, 10001)
    assert cluster.app("/b").spec.service_ports == (10002,)
    cluster.update_app("/a", force=True, ports=[0, 8080, 0])
    assert cluster.app("/a").spec.service_ports == (10000, 8080, 10001)


def test_an_exhausted_range_of_service_ports_is_an_error(make_cluster) -> None:
    from corral.frameworks.services import Config

    cluster = make_cluster(Config(first_service_port=10000, last_service_port=10001))
    cluster.create(id="/a", ports=[0, 0])
    with pytest.raises(Unprocessable) as caught:
        cluster.create(id="/b")
    assert "10000 to 10001" in next(iter(caught.value.details.values()))[0]


def test_an_explanation_is_shown_until_the_app_waits_no_more(cluster) -> None:
    cluster.create()
    want = next(iter(cluster.wants.values()))
    explanation = Explanation(
        want_id=want.id,
        framework_id="F",
        role="*",
        waiting=1,
        since_at=cluster.now,
        agents=5,
        refusals=(Refusal(reason="mem", detail="needs 32 MB, most free is 8", agents=5, best="host4"),),
        never=True,
    )
    cluster.send(events.Explanations(explanations=(explanation,)))
    (item,) = cluster.ask(GetQueue())
    summary = item["processedOffersSummary"]
    assert summary["never"] is True
    assert summary["rejectSummaryLastOffers"][5] == {"reason": "InsufficientMemory", "declined": 5, "processed": 5}
    (embedded,) = cluster.ask(GetQueue(embed=("lastUnusedOffers",)))
    (unused,) = embedded["lastUnusedOffers"]
    assert (unused["offer"]["hostname"], unused["reason"]) == ("host4", ["InsufficientMemory"])
    assert [n.what for n in cluster.notes if n.level == "warning"] == ["app can never run"]
    cluster.run()
    assert cluster.ask(GetQueue()) == []


def test_tasks_are_listed_with_the_service_ports_of_their_app(cluster) -> None:
    cluster.create(id="/grp/web", ports=[8080])
    cluster.run()
    (task,) = cluster.ask(GetTasks())
    assert task["servicePorts"] == [8080]
    assert task["state"] == "TASK_RUNNING"
    assert task["ports"] == [31000]
    assert cluster.ask(GetTasks(states=("staging",))) == []
    assert cluster.ask(GetTasks(as_text=True)) == f"grp_web\t8080\t{task['host']}:31000\t\n"
    with pytest.raises(NotFound):
        cluster.ask(GetTasks(app="/none"))


def test_counts_follow_what_instances_do(cluster) -> None:
    cluster.create(instances=2)
    first, _ = cluster.offer()
    cluster.update(first, TaskState.RUNNING)
    shown = cluster.ask(GetApp(id="/web"))
    assert (shown["tasksStaged"], shown["tasksRunning"]) == (1, 1)


def test_a_task_that_ended_before_is_not_mistaken_for_its_replacement(cluster) -> None:
    cluster.create()
    (old,) = cluster.run()
    cluster.update(old, TaskState.FAILED)
    cluster.advance(1.1)
    cluster.run()
    instance = old.removesuffix("._app.1")
    assert cluster.ask(KillTasks(instances=(instance,), incarnations={instance: 1})) == []
    assert len(cluster.ask(KillTasks(instances=(instance,), incarnations={instance: 2}))) == 1


def test_fields_that_nobody_knows_are_noted(cluster) -> None:
    from corral.frameworks.services.command_spec import CreateApp
    from corral.frameworks.services.marathon import read_app

    found = read_app({"id": "/a", "cmd": "sleep 9", "colour": "red"})
    cluster.ask(CreateApp(spec=found.spec, ignored=found.unknown))
    assert [n.why for n in cluster.notes if n.what == "fields ignored"] == ["nobody knows /colour"]
