"""What the master tells its allocator, and what it does with the answer: evictions, gangs, guarantees, standing."""

from typing import Any

import msgspec
import pytest
from master_stage import Agent, Framework, Stage, bundle, task_info, told, want

from corral.lib.errors import Invalid
from corral.master import claims
from corral.master.spec import GetCluster, GetExplanations, GetMetrics, GetRoles, GetTasks, MasterConfig
from corral.master.timers import EXPLAIN
from corral.model import events
from corral.model.operator import SetRole
from corral.model.orders import KillTask, RunTask
from corral.model.resources import Resources, scalar
from corral.model.task import Claim, Reason, Source, TaskInfo, TaskState, TaskStatus


def cpus(n: float) -> Resources:
    return (scalar("cpus", n),)


def asking(stage: Stage, role: str = "*", **more: Any) -> Framework:
    return stage.framework(role=role, suppressed_roles=(role,), failover_timeout_s=1e6, name=f"of-{role}", **more)


def run_all(framework: Framework, agent: Agent, prefix: str) -> list[TaskInfo]:
    """Launch a task for every offer there is, named after the prefix, and let it run."""
    found: list[TaskInfo] = []
    for offer in framework.offers():
        framework.accept([offer], task_info(f"{prefix}{len(found)}", offer.agent_id, offer.resources))
        found += [run.info for run in agent.take(RunTask)]
    for info in found:
        uuid = agent.update(info.task_id, TaskState.RUNNING, framework.id)
        framework.acknowledge(agent, info.task_id, uuid)
    return found


def shown(stage: Stage, task_id: str) -> dict[str, Any]:
    (found,) = stage.ask(GetTasks(task=task_id))["tasks"]
    return dict(found)


@pytest.fixture
def crowded() -> tuple[Stage, Agent, Framework]:
    """An agent of 4 cpus full of 4 tasks that a want of priority -5 has been launched for."""
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("low", 4, resources=cpus(1), priority=-5))
    assert len(run_all(framework, agent, "low")) == 4
    return stage, agent, framework


# One hold from grant to task.


def test_a_launch_is_one_hold_from_its_offer_to_its_end() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("w", 1, resources=cpus(1), group="/g", tags=("t",), priority=7))
    (offer,) = framework.offers()
    holds = stage.core.state.allocator.book.holds
    assert list(holds) == [f"offer/{offer.id}"]
    entry = holds[f"offer/{offer.id}"]
    framework.accept([offer], task_info("t1", agent.id, cpus(1)))
    assert list(holds) == [f"task/{framework.id}/t1"]
    assert holds[f"task/{framework.id}/t1"] is entry, "nothing was counted anew"
    assert (entry.hold.group, entry.hold.tags, entry.hold.priority) == ("/g", ("t",), 7)
    agent.update("t1", TaskState.FINISHED, framework.id)
    assert not holds
    assert agent.free() == agent.info.resources


def test_a_task_smaller_than_its_offer_gives_back_the_rest_at_once() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    (offer,) = framework.offers()
    framework.accept([offer], task_info("t1", agent.id, bundle(1, 128)), task_info("t2", agent.id, bundle(2, 128)))
    assert len(agent.take(RunTask)) == 2
    held = claims.held(stage.core.state)
    assert held == {("*", framework.id): {"cpus": 3000, "mem": 256_000}}


def test_tasks_know_by_which_claim_they_hold_and_tell_every_later_master() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("w", 1, resources=cpus(1), group="/g", tags=("a", "b"), priority=3, run_s=60.0, revocable=True))
    (info,) = run_all(framework, agent, "t")
    assert info.claim == Claim(
        priority=3, revocable=True, group="/g", tags=("a", "b"), run_s=60.0, want_id=want("w").id
    )
    before = stage.core.state.allocator.book.holds[f"task/{framework.id}/t0"].hold
    later = stage.restart()
    agent.stage = framework.stage = later
    status = later_status(agent, info, stage.now)
    agent.connect([told(info, framework, status=status)], [framework.info])
    after = later.core.state.allocator.book.holds[f"task/{framework.id}/t0"].hold
    unlike = {"kind", "offer_id"}
    fields = [name for name in after.__struct_fields__ if name not in unlike]
    assert [getattr(after, name) for name in fields] == [getattr(before, name) for name in fields]
    assert after.ends_at == stage.now + 60


def later_status(agent: Agent, info: TaskInfo, at: float) -> TaskStatus:
    return TaskStatus(task_id=info.task_id, state=TaskState.RUNNING, at=at, source=Source.EXECUTOR, agent_id=agent.id)


def test_the_stated_run_time_counts_from_the_moment_that_a_task_runs() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("w", 1, resources=cpus(1), run_s=60.0))
    (offer,) = framework.offers()
    framework.accept([offer], task_info("t", agent.id, cpus(1)))
    stage.run(5)
    agent.update("t", TaskState.RUNNING, framework.id)
    assert stage.core.state.allocator.book.holds[f"task/{framework.id}/t"].hold.ends_at == stage.now + 60


def test_what_a_framework_says_of_its_own_claim_is_not_believed() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    (offer,) = framework.offers()
    info = msgspec.structs.replace(task_info("t", agent.id, cpus(1)), claim=Claim(priority=511))
    framework.accept([offer], info)
    assert [run.info.claim for run in agent.take(RunTask)] == [None]


# Making room.


def test_a_want_of_higher_priority_has_the_least_tasks_of_its_role_ended(
    crowded: tuple[Stage, Agent, Framework],
) -> None:
    stage, agent, framework = crowded
    framework.want(want("low", 0, resources=cpus(1), priority=-5), want("high", 1, resources=cpus(2), priority=5))
    assert framework.offers() == []
    kills = agent.take(KillTask)
    assert len(kills) == 2
    assert {(k.grace_s, k.reason) for k in kills} == {(None, Reason.CONTAINER_PREEMPTED)}
    assert all("priority -5 made room for priority 5" in k.why and "high of " in k.why for k in kills)
    assert [note.facts["want"] for note in stage.notes if note.what == "task evicted"] == ["high", "high"]
    victim = shown(stage, kills[0].task_id)["preempted_by"]
    assert (victim["framework"], victim["role"], victim["want"]) == (framework.id, "*", "high")
    stage.run(100)
    assert agent.take(KillTask) == [], "a task is asked once"
    assert stage.ask(GetMetrics())["master/tasks_evicted"] == 2
    agent.update(kills[0].task_id, TaskState.KILLED, framework.id)
    assert framework.offers() == [], "half of the room is not enough"
    agent.update(kills[1].task_id, TaskState.KILLED, framework.id)
    (offer,) = framework.offers()
    assert (offer.want_id, offer.resources[0].milli) == ("high", 2000)


def test_the_end_of_an_evicted_task_says_why_in_every_view(crowded: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, framework = crowded
    framework.want(want("high", 1, resources=cpus(1), priority=5))
    stage.run()
    (kill,) = agent.take(KillTask)
    framework.updates()
    agent.update(kill.task_id, TaskState.KILLED, framework.id, message=f"{kill.why}: signal 15", reason=kill.reason)
    (status,) = framework.updates()
    assert (status.reason, status.state) == (Reason.CONTAINER_PREEMPTED, TaskState.KILLED)
    found = shown(stage, kill.task_id)
    assert (found["reason"], found["message"]) == ("REASON_CONTAINER_PREEMPTED", f"{kill.why}: signal 15")
    (row,) = stage.ask(GetCluster()).frameworks
    (task,) = [t for t in row.tasks if t.info.task_id == kill.task_id]
    assert kill.why in task.statuses[-1].message


def test_equal_priority_and_other_roles_are_left_alone(crowded: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, framework = crowded
    other = asking(stage, "web")
    other.want(want("high", 1, role="web", resources=cpus(1), priority=500))
    framework.want(want("same", 1, resources=cpus(1), priority=-5))
    stage.run(100)
    assert agent.take(KillTask) == []


def test_evictions_keep_to_what_the_operator_allows_per_minute() -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, evictions_per_minute=2))
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("low", 4, resources=cpus(1), priority=-5))
    run_all(framework, agent, "low")
    framework.want(*(want(f"high{i}", 2, resources=cpus(1), priority=5) for i in range(2)))
    stage.run(1)
    assert len(agent.take(KillTask)) == 2
    stage.run(50)
    assert agent.take(KillTask) == []
    stage.run(15)
    assert len(agent.take(KillTask)) == 2, "the minute is over, though nothing else has happened"


def test_a_silent_agent_keeps_everybody_waiting_and_nobody_is_evicted_twice(
    crowded: tuple[Stage, Agent, Framework],
) -> None:
    stage, agent, framework = crowded
    framework.want(want("high", 1, resources=cpus(1), priority=5))
    stage.run()
    (kill,) = agent.take(KillTask)
    agent.close()
    stage.run(5)
    infos = [told(entry.info, framework) for entry in framework.entry().tasks.values()]
    agent.connect(infos)
    (again,) = agent.take(KillTask)
    assert (again.task_id, again.reason, again.why) == (kill.task_id, Reason.CONTAINER_PREEMPTED, kill.why)
    stage.run(10)
    assert agent.take(KillTask) == []


def test_an_evicted_task_that_was_out_of_reach_comes_back_evicted(crowded: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, framework = crowded
    framework.want(want("high", 1, resources=cpus(1), priority=5))
    stage.run()
    (kill,) = agent.take(KillTask)
    infos = [told(entry.info, framework) for entry in framework.entry().tasks.values()]
    agent.silence()
    stage.run(100)
    agent.connect(infos)
    (again,) = agent.take(KillTask)
    assert (again.task_id, again.reason) == (kill.task_id, Reason.CONTAINER_PREEMPTED)
    assert shown(stage, kill.task_id)["preempted_by"]["want"] == "high"


def test_a_task_that_its_framework_is_ending_is_not_ended_once_more(crowded: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, framework = crowded
    for i in range(4):
        framework.kill(f"low{i}")
    agent.take(KillTask)
    framework.want(want("high", 1, resources=cpus(1), priority=5))
    stage.run()
    assert agent.take(KillTask) == []
    assert all(shown(stage, f"low{i}")["preempted_by"] is None for i in range(4))


# Guarantees.


def test_what_is_guaranteed_is_kept_free_and_lent_to_those_who_give_it_back() -> None:
    stage = Stage()
    agent = stage.agent()
    stage.ask(SetRole(role="prod", guarantee=cpus(3)))
    batch = asking(stage, "batch")
    batch.want(want("firm", 4, role="batch", resources=cpus(1)))
    assert len(run_all(batch, agent, "firm")) == 1, "three are kept for prod"
    batch.want(want("lent", 4, role="batch", resources=cpus(1), revocable=True))
    offers = batch.offers()
    assert len(offers) == 3
    assert all(r.identity.revocable for offer in offers for r in offer.resources)
    for i, offer in enumerate(offers):
        batch.accept([offer], task_info(f"lent{i}", agent.id, offer.resources))
    launched = [run.info for run in agent.take(RunTask)]
    assert [info.claim.revocable for info in launched if info.claim is not None] == [True] * 3
    assert not any(r.identity.revocable for info in launched for r in info.resources), "agents count plain resources"
    prod = asking(stage, "prod")
    prod.want(want("p", 2, role="prod", resources=cpus(1)))
    assert prod.offers() == []
    kills = agent.take(KillTask)
    assert len(kills) == 2
    assert all("lent resources, which role prod takes back" in k.why for k in kills)
    for kill in kills:
        agent.update(kill.task_id, TaskState.KILLED, batch.id)
    assert len(prod.offers()) == 2


def test_one_reserve_for_all_guarantees_keeps_no_more_than_that() -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, headroom=cpus(1)))
    stage.agent()
    stage.ask(SetRole(role="prod", guarantee=cpus(3)))
    batch = asking(stage, "batch")
    batch.want(want("firm", 4, role="batch", resources=cpus(1)))
    assert len(batch.offers()) == 3


def test_a_revocable_offer_cannot_be_made_firm_by_what_is_launched_from_it() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("lent", 1, resources=cpus(2), revocable=True), want("firm", 1, resources=cpus(1)))
    offers = {str(offer.want_id): offer for offer in framework.offers()}
    framework.accept([offers["firm"], offers["lent"]], task_info("t", agent.id, cpus(3)))
    assert agent.take(RunTask) == []
    assert "revocable in part" in str(framework.updates()[-1].message)
    lent = next(offer for offer in framework.offers() if offer.want_id == "lent")
    framework.accept([lent], task_info("a", agent.id, cpus(1)), task_info("b", agent.id, cpus(1)))
    assert [run.info.claim is not None and run.info.claim.revocable for run in agent.take(RunTask)] == [True, True]


# Gangs.


def test_a_gang_is_offered_whole_once_there_is_room_and_what_it_gathers_is_shown_as_held() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("old", 2, resources=cpus(1)))
    run_all(framework, agent, "old")
    framework.want(want("gang", 4, resources=cpus(1), gang=4, gang_timeout_s=300.0))
    stage.run(1)
    assert framework.offers() == []
    assert claims.kept(stage.core.state)["*", framework.id] == (*cpus(1), *cpus(1))
    assert stage.ask(GetRoles(role="*"))["consumed"]["cpus"] == 4.0
    (row,) = stage.ask(GetCluster()).frameworks
    assert [r.milli for r in row.used] == [2000], "what is kept is used by nobody"
    agent.update("old0", TaskState.FINISHED, framework.id)
    assert framework.offers() == []
    agent.update("old1", TaskState.FINISHED, framework.id)
    assert [offer.want_id for offer in framework.offers()] == ["gang"] * 4


def test_a_gang_that_goes_leaves_what_it_has_gathered() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("old", 1, resources=cpus(1)))
    run_all(framework, agent, "old")
    gang = want("gang", 4, resources=cpus(1), gang=4)
    framework.want(gang)
    stage.run(1)
    framework.want(gang, want("one", 1, resources=cpus(3)))
    assert framework.offers() == [], "the gang keeps what it has found"
    framework.want(want("one", 1, resources=cpus(3)))
    assert [offer.want_id for offer in framework.offers()] == ["one"]


def test_a_gang_whose_framework_goes_away_leaves_what_it_has_gathered_too() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = asking(stage)
    framework.want(want("gang", 6, resources=cpus(1), gang=6))
    stage.run(1)
    assert claims.kept(stage.core.state)
    framework.close()
    assert not claims.kept(stage.core.state)
    assert agent.free() == agent.info.resources


# Explanations.


def test_explanations_are_worked_out_for_who_asks_and_a_few_at_a_time_for_those_who_listen() -> None:
    stage = Stage()
    stage.agent()
    framework = asking(stage)
    framework.want(*(want(f"w{i:03}", 1, resources=cpus(100 + i)) for i in range(80)))
    stage.run(0.004)
    assert framework.take(events.Explanations) == [], "the first part of them does not make the news"
    (asked,) = stage.ask(GetExplanations(want="w079"))["explanations"]
    assert asked["refusals"][0]["reason"] == "cpus"
    assert len(stage.ask(GetExplanations())["explanations"]) == 32
    stage.run(1)
    (told_once,) = framework.take(events.Explanations)
    assert [each.want_id for each in told_once.explanations] == [f"w{i:03}" for i in range(80)]
    assert len(stage.ask(GetExplanations())["explanations"]) == 80
    stage.run(30)
    assert EXPLAIN not in stage.timers, "nothing has changed since"


def test_a_want_larger_than_all_there_is_does_not_blame_guarantees() -> None:
    stage = Stage()
    stage.agent()
    stage.ask(SetRole(role="prod", guarantee=cpus(3)))
    framework = asking(stage)
    framework.want(want("huge", 1, resources=cpus(100)), want("kept", 1, resources=cpus(2)))
    stage.run()
    huge, kept = stage.ask(GetExplanations())["explanations"]
    assert [refusal["reason"] for refusal in huge["refusals"]] == ["cpus"]
    assert [refusal["reason"] for refusal in kept["refusals"]] == ["guarantees"]
    assert kept["refusals"][0]["detail"] == "what is free is kept for guarantees: cpus 3"


# What cannot be.


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"priority": 512}, "512 is outside of -512 to 511"),
        ({"priority": -513}, "-513 is outside"),
        ({"gang": 3}, "4 is no multiple of the gang of 3"),
        ({"gang": -1}, "gang: -1 is outside"),
        ({"gang": 2, "gang_timeout_s": 0.0}, "gang_timeout_s: 0 is not above 0"),
        ({"run_s": 0.0}, "run_s: 0 is not above 0"),
        ({"fixed_ports": tuple(range(1, 60))}, "59 ports are given"),
        ({"strategy": "best"}, "names the strategy 'best'"),
    ],
)
def test_a_want_that_could_not_be_decided_is_refused(more: dict[str, Any], said: str) -> None:
    stage = Stage()
    framework = asking(stage)
    with pytest.raises(Invalid, match=said):
        framework.want(want("w", 4, **more))
    assert not list(stage.core.state.allocator.lines)


def test_a_want_may_leave_its_strategy_to_the_role() -> None:
    stage = Stage()
    stage.agent()
    framework = asking(stage)
    framework.want(want("w", 1, strategy=""))
    assert len(framework.offers()) == 1
