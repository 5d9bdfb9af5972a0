"""What an agent said over a link that it has long given up counts for nothing once it has come by a newer one."""

from typing import Any

import pytest
from master_stage import Stage, told

from corral.master.agent_entry import AgentState
from corral.master.spec import AgentClosed
from corral.model.ids import AgentId


def come(agent: Any, life: str, number: int, **more: Any) -> str:
    """A link of this agent; returns its name."""
    agent.connect(**more, life=life, number=number)
    return str(agent.session)


def session_of(stage: Stage, id: AgentId) -> str | None:
    return stage.core.state.agents[id].session


@pytest.mark.parametrize(("newer", "late"), [(("a", 2), ("a", 1)), (("b", 1), ("a", 9))])
def test_a_registration_that_comes_late_ends_no_link_and_no_task(newer: tuple[str, int], late: tuple[str, int]) -> None:
    """Its list of tasks is from before: what was launched since would be told as lost."""
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    come(agent, "a", 0)
    link = come(agent, *newer)
    info = framework.launch(agent)
    session = come(agent, *late)
    assert session in stage.ended
    assert (session_of(stage, agent.id), link in stage.ended) == (link, False)
    assert stage.core.state.agents[agent.id].state is AgentState.REACHABLE
    assert framework.updates() == []
    assert (framework.id, info.task_id) in stage.core.state.agents[agent.id].tasks
    stage.give(AgentClosed(session, "cut"))
    assert session_of(stage, agent.id) == link


def test_the_same_process_comes_back_by_its_next_link_and_another_after_it() -> None:
    stage = Stage()
    agent = stage.agent()
    for life, number in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
        assert session_of(stage, agent.id) != come(agent, life, number) == session_of(stage, agent.id)


def test_one_that_was_followed_may_come_back_when_the_other_has_gone() -> None:
    stage = Stage()
    agent = stage.agent()
    come(agent, "a", 1)
    come(agent, "b", 1)
    agent.close()
    assert come(agent, "a", 2) == session_of(stage, agent.id)


def test_an_agent_of_an_older_release_is_as_new_as_it_comes() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=60.0)
    info = framework.launch(agent)
    come(agent, "a", 3)
    assert come(agent, "", 0, tasks=[told(info, framework)]) == session_of(stage, agent.id)
