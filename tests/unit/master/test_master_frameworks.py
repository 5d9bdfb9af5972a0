"""Frameworks: subscription, the order of checks on calls, failover, removal, roles."""

import msgspec
import pytest
from master_stage import PARTITION_AWARE, Stage, agent_info, bundle, task_info

from corral.lib.errors import Conflict, Forbidden, Invalid
from corral.master.spec import Attempt, SchedulerCall, SchedulerClosed, SubscribeStream
from corral.model import calls, events
from corral.model.framework import Capability, FrameworkInfo, OfferFilter
from corral.model.ids import ExecutorId, FrameworkId, OfferId
from corral.model.orders import AcknowledgeUpdate, ShutdownFramework
from corral.model.task import Reason, TaskState

MULTI = (Capability.MULTI_ROLE,)


def test_a_new_framework_is_subscribed_and_gets_its_first_heartbeat_at_once() -> None:
    stage = Stage()
    framework = stage.framework()
    assert framework.id == f"{stage.core.state.master_id}-0000"
    assert [type(e) for e in framework.events] == [events.Heartbeat]
    stage.run(46)
    assert len(framework.take(events.Heartbeat)) == 4


def test_the_framework_is_durable_when_it_is_subscribed() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=60.0)
    assert f"frameworks/{framework.id}" in stage.store


def test_subscribing_twice_without_an_id_makes_two_frameworks() -> None:
    stage = Stage()
    assert stage.framework().id != stage.framework().id


@pytest.mark.parametrize(
    ("info", "suppressed", "word"),
    [
        ({"role": "-bad"}, (), "dash"),
        ({"role": "a b"}, (), "white space"),
        ({"roles": ("a",)}, (), "MULTI_ROLE"),
        ({"roles": ("a", "a"), "capabilities": MULTI}, (), "duplicate"),
        ({"role": "a", "roles": ("b",), "capabilities": MULTI}, (), "MULTI_ROLE"),
        ({"role": "a"}, ("b",), "suppressed"),
        ({"failover_timeout_s": -1.0}, (), "failover_timeout"),
        ({"id": "a/b"}, (), "slash"),
    ],
)
def test_what_is_wrong_with_a_framework_is_told_on_a_stream_that_then_ends(
    info: dict[str, object], suppressed: tuple[str, ...], word: str
) -> None:
    stage = Stage()
    described = FrameworkInfo(user="u", name="f", **info)  # type: ignore[arg-type]
    call = calls.Subscribe(info=described, suppressed_roles=suppressed)
    stage.ask(SubscribeStream(stream="s", call=call))
    (error,) = stage.events["s"]
    assert isinstance(error, events.Error)
    assert word in error.message
    assert "s" in stage.ended
    assert not stage.core.state.frameworks


def test_a_subscribe_with_a_stream_id_is_refused_and_leaves_no_trace() -> None:
    stage = Stage()
    call = calls.Subscribe(info=FrameworkInfo(user="u", name="f"))
    with pytest.raises(Invalid, match="Mesos-Stream-Id"):
        stage.ask(SubscribeStream(stream="s", call=call, given_stream="old"))
    assert not stage.core.state.frameworks
    assert not stage.events


def test_calls_are_checked_in_the_order_of_mesos() -> None:
    stage = Stage()
    framework = stage.framework(principal="p", failover_timeout_s=60.0)
    unknown = calls.Revive(framework_id=FrameworkId("nobody"))
    own = calls.Revive(framework_id=framework.id)

    def refusal(call: calls.Call, stream: str | None, principal: str | None = None) -> tuple[type, str]:
        with pytest.raises((Invalid, Forbidden)) as caught:
            stage.ask(SchedulerCall(call=call, stream=stream, principal=principal))
        return type(caught.value), caught.value.message

    assert refusal(unknown, None, "other")[0] is Invalid
    assert "cannot be found" in refusal(unknown, None, "other")[1]
    assert "principal" in refusal(own, None, "other")[1]
    assert "carries no Mesos-Stream-Id" in refusal(own, None)[1]
    assert "is not the newest" in refusal(own, "old")[1]
    framework.close()
    assert "principal" in refusal(own, None, "other")[1]
    assert refusal(own, None)[0] is Forbidden
    assert refusal(own, "old")[0] is Forbidden


def test_another_subscription_takes_over_and_the_older_stream_is_told_and_closed() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    info = framework.launch(agent)
    framework.offers()
    old = framework.stream
    framework.subscribe()
    assert isinstance(stage.events[old][-1], events.Error)
    assert stage.events[old][-1].message == "Framework failed over"
    assert old in stage.ended
    with pytest.raises(Invalid, match="is not the newest"):
        framework.call(calls.Revive(framework_id=framework.id), stream=old)
    assert [o.agent_id for o in framework.offers()] == [agent.id]
    assert framework.reconcile((info.task_id, None))[0].state is TaskState.STAGING


def test_a_subscribe_that_comes_late_takes_nothing_from_the_newer_one() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.subscribe(attempt=Attempt("a", 3))
    stream = framework.stream
    offers = framework.offers()
    for number in (1, 2, 3):
        with pytest.raises(Conflict, match="has subscribed anew since"):
            framework.subscribe(attempt=Attempt("a", number))
    assert (framework.stream, stream in stage.ended) == (stream, False)
    framework.accept(offers, task_info("t1", agent.id))
    framework.subscribe(attempt=Attempt("a", 4))
    assert stream in stage.ended


def test_a_subscribe_of_a_process_that_another_has_followed_comes_too_late_while_that_one_is_there() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.subscribe(attempt=Attempt("a", 1))
    framework.subscribe(attempt=Attempt("b", 1))
    with pytest.raises(Conflict, match="another process"):
        framework.subscribe(attempt=Attempt("a", 2))
    framework.close()
    framework.subscribe(attempt=Attempt("a", 2))
    framework.subscribe()  # who does not say it is as new as it comes
    with pytest.raises(Conflict, match="another process"):
        framework.subscribe(attempt=Attempt("a", 3))


def test_processes_without_number_are_forgotten_in_the_end() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=60.0)
    for n in range(200):
        framework.subscribe(attempt=Attempt(f"p{n}", 1))
    assert len(stage.core.state.frameworks[framework.id].attempts.past_lives) <= 32
    framework.subscribe(attempt=Attempt("p0", 1))


def test_offers_of_the_older_stream_cannot_be_accepted_after_a_failover() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0, capabilities=PARTITION_AWARE)
    (offer,) = framework.offers()
    framework.subscribe()
    framework.accept([offer], task_info("t1", agent.id))
    (status,) = framework.updates()
    assert (status.state, status.reason) == (TaskState.DROPPED, Reason.INVALID_OFFERS)
    assert "failed over" in (status.message or "")


def test_the_close_of_an_older_stream_does_not_disconnect_the_newer_one() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=60.0)
    old = framework.stream
    framework.subscribe()
    stage.give(SchedulerClosed(old))
    framework.call(calls.Revive(framework_id=framework.id))


def test_user_and_checkpoint_silently_stay_and_the_rest_of_a_framework_may_change() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.info = msgspec.structs.replace(
        framework.info, user="other", checkpoint=True, name="renamed", failover_timeout_s=30.0, role="new"
    )
    framework.subscribe()
    known = framework.entry().info
    assert (known.user, known.checkpoint, known.name, known.failover_timeout_s) == ("u", False, "renamed", 30.0)
    assert known.subscribed_roles == ("new",)


def test_a_principal_never_changes() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=60.0, principal="p")
    framework.info = msgspec.structs.replace(framework.info, principal="q")
    framework.subscribe()
    (error,) = framework.take(events.Error)
    assert "principal" in error.message


def test_a_framework_whose_stream_breaks_loses_its_offers_at_once_and_its_tasks_only_later() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.launch(agent)
    framework.offers()
    framework.close()
    assert not stage.core.state.offers
    stage.run(59)
    assert framework.id in stage.core.state.frameworks
    assert not agent.take(ShutdownFramework)
    stage.run(2)
    assert framework.id not in stage.core.state.frameworks
    assert [o.framework_id for o in agent.take(ShutdownFramework)] == [framework.id]


def test_a_framework_that_comes_back_in_time_keeps_its_tasks() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.launch(agent)
    framework.close()
    stage.run(50)
    framework.subscribe()
    stage.run(100)
    assert "t1" in framework.entry().tasks


def test_without_a_failover_timeout_a_broken_stream_removes_the_framework() -> None:
    stage = Stage()
    framework = stage.framework()
    framework.close()
    assert framework.id not in stage.core.state.frameworks
    assert f"frameworks/{framework.id}" not in stage.store
    framework.subscribe()
    (error,) = framework.take(events.Error)
    assert "removed" in error.message


def test_teardown_ends_the_stream_and_the_id_never_returns_even_after_a_restart() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.call(calls.Teardown(framework_id=framework.id))
    assert framework.stream in stage.ended
    later = stage.restart()
    again = later.framework(id=framework.id)
    assert "removed" in again.take(events.Error)[0].message


def test_the_tasks_of_a_removed_framework_hold_their_resources_until_they_have_ended() -> None:
    stage = Stage()
    agent = stage.agent()
    first = stage.framework()
    first.launch(agent, resources=bundle(3, 128))
    uuid = agent.update("t1", TaskState.RUNNING, first.id)
    first.call(calls.Teardown(framework_id=first.id))
    assert [(o.task_id, o.uuid) for o in agent.take(AcknowledgeUpdate)] == [("t1", uuid)]
    second = stage.framework(name="second")
    assert next(o.resources for o in second.offers())[0].milli == 1000
    ended = agent.update("t1", TaskState.KILLED, first.id)
    assert [o.uuid for o in agent.take(AcknowledgeUpdate)] == [ended]
    (rest,) = second.offers()
    assert rest.resources[0].milli == 3000


def test_resources_of_a_removed_framework_come_back_even_if_the_agent_never_says_a_word() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    framework.call(calls.Teardown(framework_id=framework.id))
    stage.run(60)
    assert agent.free() == agent.info.resources
    assert "resources freed without word from the agent" in stage.what()


def test_a_torn_down_frameworks_tasks_are_shown_as_killed_for_its_removal() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    framework.call(calls.Teardown(framework_id=framework.id))
    (entry,) = stage.core.state.completed[framework.id].completed
    assert entry.state is TaskState.KILLED
    assert entry.last_status is not None
    assert entry.last_status.reason is Reason.FRAMEWORK_REMOVED


def test_suppressed_roles_get_no_offers_until_they_are_revived() -> None:
    stage = Stage()
    stage.agent()
    framework = stage.framework(suppressed_roles=("*",))
    assert framework.offers() == []
    framework.call(calls.Revive(framework_id=framework.id))
    assert len(framework.offers()) == 1


def test_suppressing_leaves_offers_that_are_out_valid() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    (offer,) = framework.offers()
    framework.call(calls.Suppress(framework_id=framework.id))
    framework.accept([offer], task_info("t1", agent.id))
    assert "t1" in framework.entry().tasks
    stage.run(30)
    assert framework.offers() == []


@pytest.mark.parametrize("kind", [calls.Suppress, calls.Revive])
def test_a_role_that_is_not_the_frameworks_is_refused(kind: type[calls.Suppress]) -> None:
    framework = Stage().framework(role="a")
    with pytest.raises(Invalid, match="role 'b'"):
        framework.call(kind(framework_id=framework.id, roles=("b",)))


def test_revive_forgets_the_filters_and_offers_at_once() -> None:
    stage = Stage()
    stage.agent()
    framework = stage.framework()
    framework.decline(*framework.offers(), refuse_s=3600)
    assert framework.offers() == []
    framework.call(calls.Revive(framework_id=framework.id))
    assert len(framework.offers()) == 1


def test_update_framework_changes_roles_and_takes_back_the_offers_of_those_left() -> None:
    stage = Stage()
    stage.agent()
    framework = stage.framework(roles=("a",), capabilities=MULTI)
    (offer,) = framework.offers()
    changed = msgspec.structs.replace(framework.info, roles=("b",))
    framework.call(calls.UpdateFramework(info=changed))
    assert framework.rescinded() == [offer.id]
    assert [o.role for o in framework.offers()] == ["b"]


def test_an_update_that_would_be_refused_changes_nothing() -> None:
    stage = Stage()
    framework = stage.framework(roles=("a",), capabilities=MULTI)
    changed = msgspec.structs.replace(framework.info, roles=("-a",))
    with pytest.raises(Invalid, match="dash"):
        framework.call(calls.UpdateFramework(info=changed))
    assert framework.entry().info.roles == ("a",)


def test_a_framework_survives_the_masters_restart_and_its_failover_timeout_with_it() -> None:
    stage = Stage()
    framework = stage.framework(failover_timeout_s=600.0)
    later = stage.restart()
    assert later.core.state.frameworks[framework.id].recovered
    later.run(500)
    framework.stage = later
    framework.subscribe()
    assert not later.core.state.frameworks[framework.id].recovered
    later.run(1000)
    assert framework.id in later.core.state.frameworks


def test_a_framework_without_failover_timeout_gets_a_grace_when_the_master_was_away() -> None:
    stage = Stage()
    framework = stage.framework()
    later = stage.restart()
    later.run(70)
    assert framework.id in later.core.state.frameworks
    later.run(10)
    assert framework.id not in later.core.state.frameworks


def test_an_unknown_framework_id_is_accepted_as_it_is() -> None:
    framework = Stage().framework(id=FrameworkId("from-elsewhere"))
    assert framework.id == "from-elsewhere"


def test_calls_for_executors_are_accepted_and_do_nothing() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    before = list(agent.orders)
    x = ExecutorId("x")
    framework.call(calls.Message(framework_id=framework.id, agent_id=agent.id, executor_id=x, data=b""))
    framework.call(calls.Shutdown(framework_id=framework.id, agent_id=agent.id, executor_id=x))
    assert agent.orders == before


def test_the_memory_of_removed_frameworks_is_bounded() -> None:
    stage = Stage()
    stage.core.state.config = msgspec.structs.replace(stage.config, most_removed_ids=5, most_completed_frameworks=2)
    for _ in range(8):
        framework = stage.framework()
        framework.call(calls.Teardown(framework_id=framework.id))
    assert len(stage.core.state.completed) == 2
    assert len(stage.core.state.removed_ids) == 5


def test_an_offer_of_another_framework_is_not_to_be_had() -> None:
    stage = Stage()
    agent = stage.agent()
    first = stage.framework(name="first")
    (offer,) = first.offers()
    second = stage.framework(name="second")
    second.accept([offer], task_info("t1", agent.id))
    (status,) = second.updates()
    assert status.state is TaskState.LOST
    assert "another framework" in (status.message or "")
    assert OfferId(offer.id) in stage.core.state.offers


def test_a_framework_says_itself_what_is_worth_an_offer_and_may_change_its_mind() -> None:
    stage = Stage()
    stage.agent(agent_info(cpus=4))
    picky = (OfferFilter(role="*", least=((("cpus", 8000),),)),)
    framework = stage.framework(offer_filters=picky)
    assert framework.offers() == []
    info = msgspec.structs.replace(framework.info, offer_filters=())
    framework.call(calls.UpdateFramework(info=info))
    assert len(framework.offers()) == 1
