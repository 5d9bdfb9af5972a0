"""Checks that interpret nothing: what each has shown is told as it changes, and ends no task."""

from typing import Any

import pytest
from agent_driver import Driver, make_task

from corral.agent import effects as fx
from corral.agent.spec import Probed
from corral.model.health import CheckKind, CheckStatus, HealthCheck
from corral.model.task import CommandInfo, Reason, TaskState

TIMES: dict[str, Any] = {"delay_s": 2.0, "interval_s": 5.0, "timeout_s": 1.0}
TCP = HealthCheck(kind=CheckKind.TCP, port=80, **TIMES)
HTTP = HealthCheck(kind=CheckKind.HTTP, port=80, **TIMES)
COMMAND = HealthCheck(kind=CheckKind.COMMAND, command=CommandInfo(value="test -e ready"), **TIMES)


def probe(agent: Driver, **shown: Any) -> None:
    """Let the next probe be made, and show this."""
    agent.wait(5.0)
    found = agent.one(fx.Probe)
    agent.tell(Probed(found.container_id, found.index, **shown))


@pytest.mark.parametrize("check", [TCP, HTTP, COMMAND], ids=["tcp", "http", "command"])
def test_the_status_is_there_and_empty_from_the_first_update(agent: Driver, check: HealthCheck) -> None:
    agent.launch(make_task(check=check))
    assert agent.status().state is TaskState.STARTING
    assert agent.status().check == CheckStatus(kind=check.kind)
    agent.acknowledge()
    agent.started()
    assert agent.status().check == CheckStatus(kind=check.kind)


@pytest.mark.parametrize(
    ("check", "shown", "found"),
    [
        (TCP, {}, CheckStatus(kind=CheckKind.TCP, succeeded=True)),
        (TCP, {"why": "refused"}, CheckStatus(kind=CheckKind.TCP, succeeded=False)),
        (HTTP, {"code": 503}, CheckStatus(kind=CheckKind.HTTP, code=503)),
        (COMMAND, {"code": 7, "said": "no"}, CheckStatus(kind=CheckKind.COMMAND, code=7)),
    ],
)
def test_what_a_check_has_shown_is_told_once(
    agent: Driver, check: HealthCheck, shown: dict[str, Any], found: CheckStatus
) -> None:
    agent.run(make_task(check=check))
    probe(agent, **shown)
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.RUNNING, Reason.TASK_CHECK_STATUS_UPDATED)
    assert (status.check, status.healthy) == (found, None)
    agent.acknowledge()
    probe(agent, **shown)
    assert agent.statuses() == []
    assert agent.none(fx.Kill)


def test_no_answer_is_an_empty_status_again(agent: Driver) -> None:
    agent.run(make_task(check=HTTP))
    probe(agent, code=200)
    agent.acknowledge()
    probe(agent, why="there was no answer within 1 s")
    assert agent.status().check == CheckStatus(kind=CheckKind.HTTP)


def test_a_probe_that_could_not_be_made_says_nothing(agent: Driver) -> None:
    agent.run(make_task(check=TCP))
    probe(agent, why="the agent is short of files", void=True)
    assert agent.statuses() == []
    probe(agent)
    assert agent.status().check == CheckStatus(kind=CheckKind.TCP, succeeded=True)


def test_check_and_health_check_of_one_task_stand_side_by_side(agent: Driver) -> None:
    health = HealthCheck(kind=CheckKind.TCP, port=81, delay_s=2.0, interval_s=5.0)
    agent.run(make_task(check=TCP, health_checks=(health,)))
    agent.wait(5.0)
    first, second = agent.all(fx.Probe)
    assert (first.check, second.check) == (health, TCP)
    agent.tell(Probed(first.container_id, first.index))
    assert agent.status().reason is Reason.TASK_HEALTH_CHECK_STATUS_UPDATED
    agent.acknowledge()
    agent.tell(Probed(second.container_id, second.index, why="refused"))
    status = agent.status()
    assert (status.healthy, status.check) == (True, CheckStatus(kind=CheckKind.TCP, succeeded=False))


def test_updates_that_nobody_was_told_are_replaced_by_what_is_newer(agent: Driver) -> None:
    agent.run(make_task(check=COMMAND))
    for code in range(1, 30):
        probe(agent, code=code)
    assert [status.check and status.check.code for status in agent.task().pending] == [*range(1, 9), 29]
    agent.acknowledge()
    assert [status.check and status.check.code for status in agent.statuses()] == [29]


def test_a_restarted_agent_goes_on_from_what_it_told_last(agent: Driver) -> None:
    agent.run(make_task(check=HTTP))
    probe(agent, code=200)
    agent.acknowledge()
    found = agent.found()
    agent.start()
    agent.recover(found)
    agent.recover(runtime="docker")
    agent.register()
    probe(agent, code=200)
    assert agent.statuses() == []
    probe(agent, code=500)
    assert agent.status().check == CheckStatus(kind=CheckKind.HTTP, code=500)


def test_the_last_word_of_the_check_is_in_the_terminal_update(agent: Driver) -> None:
    agent.run(make_task(check=COMMAND))
    probe(agent, code=0)
    agent.acknowledge()
    agent.exit(code=0)
    assert agent.status().check == CheckStatus(kind=CheckKind.COMMAND, code=0)
