"""Bounds: calls per principal, agents given up at once, what is remembered of the past; and who gets no offers."""

import msgspec
import pytest
from master_stage import Framework, Stage, agent_info, bundle, want

from corral.lib.errors import Unavailable
from corral.master.agent_entry import AgentState
from corral.master.core import Input
from corral.master.spec import GetCluster, GetFrameworks, GetMetrics, MasterConfig, SchedulerCall
from corral.model import calls, events
from corral.model.rates import Rate, RateLimits
from corral.model.task import TaskState
from corral.runtime.core import Asked, Effect, Refuse, Reply

# Calls.


def limited(**principals: Rate) -> Stage:
    return Stage(MasterConfig(least_refuse_s=0.0, rate_limits=RateLimits(principals=principals)))


def ask(framework: Framework, number: int, call: calls.Call) -> list[Effect]:
    """The answers among the effects of a call, by its number."""
    stage = framework.stage
    input: Input = Asked(number, SchedulerCall(call=call, stream=framework.stream))
    return [e for e in stage.give(input) if isinstance(e, Reply | Refuse)]


def suppress(framework: Framework) -> calls.Call:
    return calls.Suppress(framework_id=framework.id)


def revive(framework: Framework) -> calls.Call:
    return calls.Revive(framework_id=framework.id)


def test_calls_beyond_the_rate_wait_in_their_order_and_are_answered_in_their_turn() -> None:
    stage = limited(ads=Rate(qps=2.0))
    framework = stage.framework(principal="ads")
    assert [type(e) for e in ask(framework, 101, suppress(framework))] == [Reply]
    assert ask(framework, 102, revive(framework)) == []
    assert ask(framework, 103, suppress(framework)) == []
    assert framework.entry().suppressed == {"*"}
    stage.run(0.6)
    assert framework.entry().suppressed == set()
    stage.run(0.6)
    assert framework.entry().suppressed == {"*"}
    assert stage.ask(GetMetrics())["master/calls_throttled"] == 2


def test_a_call_that_is_not_right_any_more_in_its_turn_is_refused_then() -> None:
    stage = limited(ads=Rate(qps=2.0))
    framework = stage.framework(principal="ads", failover_timeout_s=60.0)
    ask(framework, 101, suppress(framework))
    assert ask(framework, 102, revive(framework)) == []
    framework.close()
    stage.run(1)
    assert not stage.core.state.lanes["=ads"].waiting
    framework.subscribe()
    assert [type(e) for e in ask(framework, 103, suppress(framework))] == [Reply]


def test_a_call_beyond_the_capacity_is_dropped_and_ends_the_stream_with_an_error() -> None:
    stage = limited(ads=Rate(qps=2.0, capacity=1))
    framework = stage.framework(principal="ads", failover_timeout_s=60.0)
    stream = framework.stream
    ask(framework, 101, suppress(framework))
    assert ask(framework, 102, revive(framework)) == []
    (refused,) = ask(framework, 103, revive(framework))
    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, Unavailable)
    assert "principal ads wait already at 2 a second" in refused.error.message
    assert [e.message for e in framework.take(events.Error)] == [refused.error.message]
    assert stream in stage.ended
    assert framework.entry().stream is None
    assert stage.ask(GetMetrics())["master/calls_dropped"] == 1
    framework.subscribe()
    assert framework.entry().connected, "the subscription itself is never held back"


def test_who_is_not_listed_shares_one_rate_and_who_has_none_is_free() -> None:
    limits = RateLimits(principals={"free": Rate()}, rest=Rate(qps=1.0))
    stage = Stage(MasterConfig(least_refuse_s=0.0, rate_limits=limits))
    nobody, other, free = stage.framework(), stage.framework(principal="other"), stage.framework(principal="free")
    assert ask(nobody, 101, suppress(nobody))
    assert ask(other, 102, suppress(other)) == []
    for number in range(200, 210):
        assert ask(free, number, suppress(free))
    stage.run(1.1)
    assert other.entry().suppressed == {"*"}


# Agents that are given up.


@pytest.mark.parametrize("recovered", [True, False])
def test_agents_become_unreachable_one_after_the_other_and_may_come_back_meanwhile(recovered: bool) -> None:
    config = MasterConfig(least_refuse_s=0.0, agent_timeout_s=30, removal_every_s=120.0, reregister_timeout_s=30)
    stage = Stage(config)
    agents = [stage.agent(agent_info(name)) for name in ("h1", "h2", "h3")]
    if recovered:
        stage = stage.restart()
        for agent in agents:
            agent.stage = stage
    else:
        for agent in agents:
            agent.close()

    def unreachable() -> int:
        return sum(a.state is AgentState.UNREACHABLE for a in stage.core.state.agents.values())

    stage.run(45)
    assert unreachable() == 1
    assert stage.ask(GetMetrics())["master/slaves_awaiting_removal"] == 2
    assert stage.what().count("agent awaits its removal") == 2
    agents[2].connect()
    assert stage.ask(GetMetrics())["master/slaves_awaiting_removal"] == 1
    stage.run(200)
    assert unreachable() == 2
    assert agents[2].entry().state is AgentState.REACHABLE


# What is remembered.


@pytest.mark.parametrize("most", [0, 1, 2])
def test_as_many_ended_tasks_and_removed_frameworks_are_shown_as_configured(most: int) -> None:
    config = MasterConfig(least_refuse_s=0.0, most_completed_tasks=most, most_completed_frameworks=most)
    stage = Stage(config)
    agent = stage.agent()
    frameworks = [stage.framework(name=name) for name in ("a", "b", "c")]
    for framework in frameworks[1:]:
        framework.call(suppress(framework))
    last = frameworks[0]
    for id in ("t1", "t2", "t3"):
        last.launch(agent, id)
        last.acknowledge(agent, id, agent.update(id, TaskState.FINISHED, last.id))
    (row, *_) = stage.ask(GetCluster()).frameworks
    assert [t.info.task_id for t in row.completed_tasks] == ["t1", "t2", "t3"][3 - most :]
    for framework in frameworks:
        framework.call(calls.Teardown(framework_id=framework.id))
    assert [f.info.name for f in stage.ask(GetCluster()).completed_frameworks] == ["a", "b", "c"][3 - most :]
    again = Framework(stage, msgspec.structs.replace(last.info, id=last.id))
    again.subscribe()
    assert "removed" in again.take(events.Error)[0].message, "an id that is shown no more is removed all the same"


# Who gets no offers.


def waits(stage: Stage, framework: Framework) -> float:
    found = stage.ask(GetMetrics())[f"master/frameworks/{framework.id}/seconds_since_offer"]
    assert isinstance(found, float)
    return found


def test_a_framework_that_asks_and_gets_nothing_is_told_of_once_with_the_reason() -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, starving_s=60.0))
    agent = stage.agent()
    hoarder = stage.framework(name="hoarder")
    assert len(hoarder.offers()) == 1
    late = stage.framework(name="late")
    stage.run(50)
    assert 50 <= waits(stage, late) < 51
    shown = {f["name"]: f["seconds_since_offer"] for f in stage.ask(GetFrameworks())["frameworks"]}
    assert shown == {"hoarder": 0, "late": waits(stage, late)}
    assert waits(stage, hoarder) == 0, "who sits on offers waits for nobody"
    assert "framework gets no offers" not in stage.what()
    stage.run(100)
    (note,) = [n for n in stage.notes if n.what == "framework gets no offers"]
    assert note.facts["framework"] == late.id
    assert "of 1 agents 0 take nothing new, 1 have nothing free" in note.why
    assert stage.ask(GetMetrics())["master/frameworks_starving"] == 1
    hoarder.call(calls.Teardown(framework_id=hoarder.id))
    assert len(late.offers()) == 1
    assert waits(stage, late) == 0
    assert agent.free() == ()


def test_a_want_that_starves_is_told_with_what_it_lacks() -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, starving_s=60.0))
    stage.agent()
    framework = stage.framework()
    framework.want(want(resources=bundle(64, 128)))
    stage.run(120)
    (note,) = [n for n in stage.notes if n.what == "framework gets no offers"]
    assert "want w1 waits for 1 instances: cpus on 1" in note.why


def test_a_framework_that_asks_for_nothing_does_not_starve() -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, starving_s=60.0))
    framework = stage.framework(suppressed_roles=("*",))
    stage.run(200)
    assert waits(stage, framework) == 0
    framework.call(revive(framework))
    assert waits(stage, framework) < 16, "the time counts from when it began to ask, as of the last look"
    assert "framework gets no offers" not in stage.what()


def test_wants_are_served_while_another_framework_hoards_everything() -> None:
    stage = Stage()
    for name in ("h1", "h2"):
        stage.agent(agent_info(name))
    hoarder = stage.framework(name="hoarder")
    assert len(hoarder.offers()) == 2
    framework = stage.framework(name="wants")
    framework.want(want(count=3))
    stage.run(1)
    assert len(framework.offers()) == 3
    assert hoarder.rescinded()
