"""Tasks: updates and acknowledgements, kills, the end and what is remembered of it."""

from master_stage import PARTITION_AWARE, Stage, agent_info, bundle, states, task_info

from corral.master.spec import MasterConfig
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.orders import AcknowledgeUpdate, AgentTask, KillTask, RunTask, ShutdownFramework, UpdateTask
from corral.model.task import Reason, Source, TaskState, TaskStatus


def test_an_update_is_passed_on_with_its_uuid_and_the_acknowledgement_goes_down_to_the_agent() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    uuid = agent.update("t1", TaskState.RUNNING, framework.id, message="up")
    (status,) = framework.updates()
    assert (status.uuid, status.state, status.agent_id, status.message) == (uuid, TaskState.RUNNING, agent.id, "up")
    framework.acknowledge(agent, "t1", uuid)
    (order,) = agent.take(AcknowledgeUpdate)
    assert (order.framework_id, order.task_id, order.uuid) == (framework.id, "t1", uuid)


def test_a_status_without_agent_id_gets_it_from_the_master() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    status = TaskStatus(task_id=TaskId("t1"), state=TaskState.RUNNING, at=1.0, source=Source.EXECUTOR, uuid=b"u" * 16)
    agent.report(UpdateTask(framework.id, status, TaskState.RUNNING))
    assert framework.updates()[0].agent_id == agent.id


def test_resources_are_free_as_soon_as_the_end_is_known_and_the_task_stays_until_it_is_acknowledged() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    uuid = agent.update("t1", TaskState.FINISHED, framework.id)
    assert agent.free() == agent.info.resources
    ((_, state, _),) = states(framework.updates())
    assert state is TaskState.FINISHED
    assert "t1" in framework.entry().tasks
    assert framework.reconcile()[0].state is TaskState.FINISHED
    framework.acknowledge(agent, "t1", uuid)
    assert "t1" not in framework.entry().tasks
    assert [e.info.task_id for e in framework.entry().completed] == ["t1"]
    assert framework.reconcile() == []


def test_a_repeated_update_is_passed_on_again_and_a_second_acknowledgement_does_no_harm() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    uuid = agent.update("t1", TaskState.FINISHED, framework.id)
    agent.update("t1", TaskState.FINISHED, framework.id, uuid=uuid)
    assert [s.uuid for s in framework.updates()] == [uuid, uuid]
    framework.acknowledge(agent, "t1", uuid)
    framework.acknowledge(agent, "t1", uuid)
    assert len(agent.take(AcknowledgeUpdate)) == 2
    assert stage.core.state.ended[TaskState.FINISHED] == 1


def test_updates_that_come_ahead_of_acknowledgements_have_their_turns_in_order() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    sent = [
        (state, agent.update("t1", state, framework.id))
        for state in (TaskState.STARTING, TaskState.RUNNING, TaskState.FINISHED)
    ]
    for state, uuid in sent:
        assert [s.uuid for s in framework.updates()] == [uuid], "the next is told when this one is acknowledged"
        agent.update("t1", state, framework.id, uuid=uuid)
        if state is not TaskState.FINISHED:
            agent.update("t1", TaskState.FINISHED, framework.id, uuid=sent[-1][1])
        assert [s.uuid for s in framework.updates()] == [uuid], "only the oldest is told again"
        framework.acknowledge(agent, "t1", uuid)
        assert len(agent.take(AcknowledgeUpdate)) == 1
        assert ("t1" in framework.entry().tasks) == (state is not TaskState.FINISHED)
    assert framework.updates() == []


def test_an_agent_that_comes_back_tells_anew_what_was_not_acknowledged() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    info = framework.launch(agent)
    first = agent.update("t1", TaskState.STARTING, framework.id)
    later = agent.update("t1", TaskState.RUNNING, framework.id)
    framework.acknowledge(agent, "t1", first)
    assert [s.uuid for s in framework.updates()] == [first, later]
    agent.close()
    agent.connect([AgentTask(info, framework.id, "*", TaskState.RUNNING)], [framework.info])
    for uuid, state in ((first, TaskState.STARTING), (later, TaskState.RUNNING)):
        agent.update("t1", state, framework.id, uuid=uuid)
    assert [s.uuid for s in framework.updates()] == [first], "its acknowledgement was lost with the link"
    framework.acknowledge(agent, "t1", first)
    assert [s.uuid for s in framework.updates()] == [later]


def test_the_newest_state_frees_resources_even_when_an_older_update_is_still_under_way() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent, resources=bundle(4, 128))
    uuid = agent.update("t1", TaskState.RUNNING, framework.id, latest=TaskState.FINISHED)
    assert agent.free() == agent.info.resources
    assert framework.reconcile()[0].state is TaskState.RUNNING, "no answer runs ahead of the updates"
    framework.acknowledge(agent, "t1", uuid)
    assert "t1" in framework.entry().tasks
    last = agent.update("t1", TaskState.FINISHED, framework.id)
    framework.acknowledge(agent, "t1", last)
    assert "t1" not in framework.entry().tasks


def test_an_acknowledgement_before_any_update_is_dropped() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    framework.acknowledge(agent, "t1", b"x" * 16)
    assert agent.take(AcknowledgeUpdate) == []


def test_an_acknowledgement_for_an_agent_that_is_away_is_dropped() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    uuid = agent.update("t1", TaskState.FINISHED, framework.id)
    agent.close()
    framework.acknowledge(agent, "t1", uuid)
    assert agent.take(AcknowledgeUpdate) == []
    assert "t1" in framework.entry().tasks


def test_a_framework_that_was_away_gets_the_update_as_soon_as_it_is_back() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.launch(agent)
    framework.close()
    uuid = agent.update("t1", TaskState.RUNNING, framework.id)
    framework.subscribe()
    assert [s.uuid for s in framework.updates()] == [uuid]
    assert framework.reconcile(("t1", None))[0].state is TaskState.RUNNING
    agent.update("t1", TaskState.RUNNING, framework.id, uuid=uuid)
    assert [s.uuid for s in framework.updates()] == [uuid]
    framework.acknowledge(agent, "t1", uuid)
    assert [o.uuid for o in agent.take(AcknowledgeUpdate)] == [uuid]


def test_what_was_not_acknowledged_is_told_again_after_a_failover_and_what_was_is_not() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    framework.launch(agent, "t1", resources=bundle(1, 128))
    framework.launch(agent, "t2", resources=bundle(1, 128))
    first, second = (agent.update(id, TaskState.FINISHED, framework.id) for id in ("t1", "t2"))
    assert [s.uuid for s in framework.updates()] == [first, second]
    framework.acknowledge(agent, "t1", first)
    framework.subscribe()
    assert [s.uuid for s in framework.updates()] == [second]
    framework.acknowledge(agent, "t2", second)
    framework.subscribe()
    assert framework.updates() == []


def test_states_that_a_framework_does_not_know_are_told_as_lost() -> None:
    stage = Stage()
    agent = stage.agent()
    plain, aware = stage.framework(name="plain"), stage.framework(name="aware", capabilities=PARTITION_AWARE)
    for framework, wanted in ((plain, TaskState.LOST), (aware, TaskState.DROPPED)):
        agent.report(
            UpdateTask(
                framework.id,
                TaskStatus(task_id=TaskId("x"), state=TaskState.DROPPED, at=1.0, source=Source.AGENT, uuid=b"u" * 16),
                TaskState.DROPPED,
            )
        )
        assert [s.state for s in framework.updates()] == [wanted]


def test_a_running_task_that_the_master_does_not_know_is_told_and_ordered_to_end() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    uuid = agent.update("ghost", TaskState.RUNNING, framework.id)
    assert [s.task_id for s in framework.updates()] == ["ghost"]
    (order,) = agent.take(KillTask)
    assert order.task_id == "ghost"
    framework.acknowledge(agent, "ghost", uuid)
    assert len(agent.take(AcknowledgeUpdate)) == 1


def test_an_update_of_a_framework_that_nobody_knows_is_acknowledged_and_the_framework_shut_down() -> None:
    stage = Stage()
    agent = stage.agent()
    uuid = agent.update("t1", TaskState.RUNNING, "nobody")
    assert [o.framework_id for o in agent.take(ShutdownFramework)] == ["nobody"]
    assert [o.uuid for o in agent.take(AcknowledgeUpdate)] == [uuid]


def test_a_terminal_status_without_uuid_needs_no_acknowledgement() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    status = TaskStatus(task_id=TaskId("t1"), state=TaskState.FAILED, at=1.0, source=Source.AGENT)
    agent.report(UpdateTask(framework.id, status, TaskState.FAILED))
    assert "t1" not in framework.entry().tasks


def test_a_kill_is_ordered_with_its_grace() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    framework.kill("t1", grace_s=2.5)
    framework.kill("t1")
    assert [(o.task_id, o.grace_s) for o in agent.take(KillTask)] == [("t1", 2.5), ("t1", None)]


def test_a_kill_that_names_another_agent_is_ignored() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    framework.kill("t1", agent_id=AgentId("other"))
    assert agent.take(KillTask) == []
    assert framework.updates() == []


def test_a_kill_of_a_task_that_has_ended_is_ignored() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    agent.update("t1", TaskState.FINISHED, framework.id)
    framework.kill("t1")
    assert agent.take(KillTask) == []


def test_a_kill_of_an_unknown_task_is_answered_like_a_reconciliation() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE)
    framework.kill("ghost")
    framework.kill("ghost", agent_id=agent.id)
    reconciled = Reason.RECONCILIATION
    assert states(framework.updates()) == [
        ("ghost", TaskState.UNKNOWN, reconciled), ("ghost", TaskState.GONE, reconciled),
    ]  # fmt: skip


def test_a_kill_for_an_agent_that_is_away_is_ordered_when_it_is_back() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    info = framework.launch(agent)
    agent.close()
    framework.kill("t1", grace_s=1.0)
    agent.connect([AgentTask(info, framework.id, "*", TaskState.RUNNING)])
    assert [(o.task_id, o.grace_s) for o in agent.take(KillTask)] == [("t1", 1.0)]


def test_a_kill_whose_delivery_is_unsure_is_repeated_at_each_registration_until_the_task_ends() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    info = framework.launch(agent)
    framework.kill("t1")
    agent.close()
    agent.connect([AgentTask(info, framework.id, "*", TaskState.RUNNING)])
    assert len(agent.take(KillTask)) == 1
    agent.update("t1", TaskState.KILLED, framework.id)
    agent.close()
    agent.connect([AgentTask(info, framework.id, "*", TaskState.KILLED)])
    assert agent.take(KillTask) == []


def test_a_kill_for_a_task_that_a_new_master_has_not_seen_is_ordered_when_its_agent_registers() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=600.0)
    info = framework.launch(agent)
    later = stage.restart()
    framework.stage = agent.stage = later
    framework.subscribe()
    framework.kill("t1", agent_id=agent.id)
    assert framework.updates() == []
    agent.connect([AgentTask(info, framework.id, "*", TaskState.RUNNING)])
    assert [o.task_id for o in agent.take(KillTask)] == ["t1"]


def test_the_memory_of_ended_tasks_is_bounded() -> None:
    stage = Stage(MasterConfig(most_completed_tasks=3))
    agent = stage.agent()
    framework = stage.framework()
    for i in range(6):
        framework.launch(agent, f"t{i}")
        uuid = agent.update(f"t{i}", TaskState.FINISHED, framework.id)
        framework.acknowledge(agent, f"t{i}", uuid)
    assert [e.info.task_id for e in framework.entry().completed] == ["t3", "t4", "t5"]


def test_the_last_status_of_each_state_is_kept_in_the_order_of_arrival() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    agent.update("t1", TaskState.RUNNING, framework.id, healthy=False)
    agent.update("t1", TaskState.KILLING, framework.id)
    agent.update("t1", TaskState.RUNNING, framework.id, healthy=True)
    entry = framework.entry().tasks["t1"]
    assert [(s.state, s.healthy) for s in entry.statuses.values()] == [
        (TaskState.KILLING, None), (TaskState.RUNNING, True),
    ]  # fmt: skip


def test_an_update_for_a_task_of_another_agent_is_no_news_of_it() -> None:
    stage = Stage()
    first, second = stage.agent(agent_info("h1")), stage.agent(agent_info("h2"))
    framework = stage.framework()
    framework.accept([o for o in framework.offers() if o.agent_id == first.id], task_info("t1", first.id))
    assert len(first.take(RunTask)) == 1
    second.update("t1", TaskState.FINISHED, framework.id)
    assert framework.entry().tasks["t1"].state is TaskState.STAGING
    assert FrameworkId(framework.id) in stage.core.state.frameworks
