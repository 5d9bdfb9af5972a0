"""Health checks on an agent: when a probe is made, what is told of it, and when a task has failed too often."""

from typing import Any

import msgspec
import pytest
from agent_driver import Driver, make_task
from hypothesis import given
from hypothesis import strategies as st

from corral.agent import effects as fx
from corral.agent.health import judge
from corral.agent.spec import Disconnected, Probed
from corral.model.command import CommandInfo
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ContainerId
from corral.model.task import Reason, TaskState, TaskStatus

WEB = HealthCheck(
    kind=CheckKind.HTTP, port=8080, path="/up", delay_s=2, interval_s=5, timeout_s=1, consecutive_failures=3, grace_s=20
)
C = ContainerId("c")
UPDATED = Reason.TASK_HEALTH_CHECK_STATUS_UPDATED


def run(agent: Driver, *checks: HealthCheck, **task: Any) -> None:
    agent.run(make_task(health_checks=checks, **task))


def restart(agent: Driver) -> None:
    """The agent's process ends and another one takes up its task, which runs."""
    found = agent.found()
    agent.start()
    agent.recover(found)
    agent.recover(runtime="docker")
    agent.register()


def answer(agent: Driver, index: int = 0, **said: Any) -> None:
    agent.tell(Probed(agent.task().container_id, index, **(said or {"code": 200})))


def fail(agent: Driver, index: int = 0) -> None:
    answer(agent, index, code=500)


def probe(agent: Driver, seconds: float) -> list[fx.Probe]:
    agent.wait(seconds)
    return agent.all(fx.Probe)


def told(agent: Driver) -> TaskStatus:
    """The one update of the last input, acknowledged."""
    effects = agent.effects
    status = agent.status()
    agent.acknowledge()
    agent.effects = effects
    return status


def test_the_first_probe_comes_after_the_delay_and_the_next_after_the_interval(agent: Driver) -> None:
    run(agent, WEB)
    assert probe(agent, 1.9) == []
    (first,) = probe(agent, 0.1)
    assert (first.index, first.check, first.address) == (0, WEB, "127.0.0.1")
    answer(agent)
    assert probe(agent, 4.9) == []
    assert len(probe(agent, 0.1)) == 1


def test_no_second_probe_of_a_check_is_made_while_one_is_under_way(agent: Driver) -> None:
    run(agent, WEB)
    assert len(probe(agent, 2)) == 1
    assert probe(agent, 60) == []
    answer(agent)
    assert len(probe(agent, 0.1)) == 1, "it is late already"


def test_a_task_without_checks_is_never_probed(agent: Driver) -> None:
    run(agent)
    assert probe(agent, 600) == []
    assert agent.task().healthy is None


def test_a_task_becomes_healthy_by_its_first_success_and_that_is_told_once(agent: Driver) -> None:
    run(agent, WEB)
    probe(agent, 2)
    answer(agent)
    status = told(agent)
    assert (status.state, status.healthy, status.reason) == (TaskState.RUNNING, True, UPDATED)
    assert status.message == "HTTP check of port 8080 at /up passed"
    (result,) = status.health
    assert (result.alive, result.first_success_at, result.last_failure_at) == (True, agent.now, None)
    probe(agent, 5)
    answer(agent)
    assert agent.statuses() == []


def test_failures_within_the_grace_count_as_nothing_before_the_first_success(agent: Driver) -> None:
    run(agent, WEB)
    probe(agent, 2)
    for _ in range(3):
        fail(agent)
        assert agent.effects == [] or agent.none(fx.Send, fx.Kill)
        probe(agent, 5)
    assert agent.task().checks[0].failures == 0
    agent.wait(5)
    fail(agent)
    status = told(agent)
    assert (status.healthy, status.health[0].consecutive_failures) == (False, 1)


def test_after_the_first_success_the_grace_protects_no_more(agent: Driver) -> None:
    run(agent, WEB)
    probe(agent, 2)
    answer(agent)
    told(agent)
    probe(agent, 5)
    fail(agent)
    assert told(agent).healthy is False
    probe(agent, 5)
    answer(agent)
    status = told(agent)
    assert status.healthy is True
    assert status.health[0].consecutive_failures == 0
    assert status.health[0].last_failure_at == agent.now - 5


def test_a_task_that_fails_too_often_in_a_row_is_killed_and_says_why(agent: Driver) -> None:
    run(agent, msgspec.structs.replace(WEB, grace_s=0), kill_grace_s=7.0)
    probe(agent, 2)
    for count in (1, 2):
        fail(agent)
        assert told(agent).health[0].consecutive_failures == count
        probe(agent, 5)
    fail(agent)
    kill = agent.one(fx.Kill)
    assert kill.grace_s == 7.0
    assert agent.statuses() == []
    assert "task is ended for its health" in agent.notes()
    assert probe(agent, 10) == [], "its health is of no interest any more"
    agent.exit(signal=15)
    status = agent.status()
    assert (status.state, status.healthy, status.reason) == (TaskState.KILLED, False, None)
    assert status.message == (
        "HTTP check of port 8080 at /up failed 3 times in a row, last because it answered 500, wanted is 200 to 399: "
        "Command terminated with signal Terminated"
    )


@pytest.mark.parametrize("most", [0, 1])
def test_no_or_one_failure_allowed_both_kill_on_the_first(agent: Driver, most: int) -> None:
    run(agent, msgspec.structs.replace(WEB, grace_s=0, consecutive_failures=most))
    probe(agent, 2)
    fail(agent)
    assert "failed once" in agent.one(fx.Kill).why


def test_a_check_that_spares_its_task_tells_only_what_changes(agent: Driver) -> None:
    run(agent, msgspec.structs.replace(WEB, grace_s=0, spares=True))
    probe(agent, 2)
    fail(agent)
    assert told(agent).healthy is False
    for _ in range(20):
        probe(agent, 5)
        fail(agent)
        assert agent.none(fx.Send, fx.Kill)
    assert agent.task().checks[0].failures == 21


def test_a_task_is_healthy_only_when_all_its_checks_pass(agent: Driver) -> None:
    run(agent, WEB, HealthCheck(kind=CheckKind.TCP, port=1, delay_s=2, grace_s=0, consecutive_failures=9))
    assert [p.index for p in probe(agent, 2)] == [0, 1]
    answer(agent, 0)
    assert told(agent).healthy is None, "the other one is not known yet"
    fail_tcp = {"why": "nobody listens"}
    answer(agent, 1, **fail_tcp)
    status = told(agent)
    assert status.healthy is False
    assert [(r.index, r.alive) for r in status.health] == [(0, True), (1, False)]
    assert status.health[1].cause == "nobody listens"
    agent.wait(10)
    answer(agent, 1, code=None)
    assert told(agent).healthy is True


def test_a_killed_task_is_probed_no_more_and_a_late_answer_is_passed_over(agent: Driver) -> None:
    run(agent, WEB)
    probe(agent, 2)
    agent.kill()
    answer(agent)
    assert agent.none(fx.Send)
    assert probe(agent, 30) == []
    agent.exit(signal=15)
    status = agent.status()
    assert (status.state, status.healthy, status.health) == (TaskState.KILLED, None, ())
    agent.tell(Probed(C, 0, code=200))
    assert agent.effects == []


def test_a_restarted_agent_knows_what_it_told_and_holds_no_failure_against_the_task(agent: Driver) -> None:
    run(agent, msgspec.structs.replace(WEB, grace_s=0))
    probe(agent, 2)
    answer(agent)
    told(agent)
    for _ in range(2):
        probe(agent, 5)
        fail(agent)
        told(agent)
    restart(agent)
    assert agent.task().healthy is False
    assert probe(agent, 1.9) == []
    assert len(probe(agent, 0.1)) == 1
    fail(agent)
    assert agent.none(fx.Kill), "two failures of before do not count"
    assert told(agent).health[0].consecutive_failures == 1
    probe(agent, 5)
    answer(agent)
    status = told(agent)
    assert status.healthy is True
    assert status.health[0].first_success_at == 1002.0


def test_a_kill_for_health_is_told_as_such_also_by_a_restarted_agent(agent: Driver) -> None:
    run(agent, msgspec.structs.replace(WEB, grace_s=0, consecutive_failures=1))
    probe(agent, 2)
    fail(agent)
    restart(agent)
    assert probe(agent, 30) == []
    agent.exit(signal=9)
    status = agent.status()
    assert (status.state, status.healthy) == (TaskState.KILLED, False)


def test_updates_of_health_that_nobody_takes_do_not_pile_up(agent: Driver) -> None:
    run(agent, msgspec.structs.replace(WEB, grace_s=0, consecutive_failures=9))
    agent.tell(Disconnected("s1", "cut"))
    probe(agent, 2)
    for _ in range(50):
        answer(agent)
        probe(agent, 5)
        fail(agent)
        probe(agent, 5)
    assert len(agent.task().pending) <= 2
    assert agent.task().pending[-1].healthy is False


@pytest.mark.parametrize(
    ("container", "ip", "on_node", "address"),
    [
        (None, None, False, "127.0.0.1"),
        (None, None, True, "10.0.0.1"),
        (ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="x")), "172.17.0.5", False, "172.17.0.5"),
        (ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="x")), "172.17.0.5", True, "10.0.0.1"),
    ],
)
def test_a_probe_goes_to_the_task_s_own_address_or_to_the_node_s(
    agent: Driver, container: ContainerInfo | None, ip: str | None, on_node: bool, address: str
) -> None:
    agent.launch(make_task(container=container, health_checks=(msgspec.structs.replace(WEB, on_node=on_node),)))
    agent.started(ip=ip)
    (found,) = probe(agent, 2)
    assert found.address == address


SHELL = HealthCheck(kind=CheckKind.COMMAND, command=CommandInfo(value="true"))
TCP = HealthCheck(kind=CheckKind.TCP, port=1)


@pytest.mark.parametrize(
    ("check", "said", "passed"),
    [
        (WEB, {"code": 200}, True),
        (WEB, {"code": 399}, True),
        (WEB, {"code": 400}, False),
        (WEB, {"code": 199}, False),
        (msgspec.structs.replace(WEB, ignore_1xx=True), {"code": 101}, None),
        (msgspec.structs.replace(WEB, statuses=(404, 418)), {"code": 418}, True),
        (msgspec.structs.replace(WEB, statuses=(404, 418)), {"code": 200}, False),
        (WEB, {"why": "nobody listens"}, False),
        (WEB, {"why": "no file handles", "void": True}, None),
        (TCP, {}, True),
        (TCP, {"why": "refused"}, False),
        (SHELL, {"code": 0}, True),
        (SHELL, {"code": 1, "said": "no"}, False),
        (SHELL, {"why": "docker is away", "void": True}, None),
    ],
)
def test_what_an_answer_is_worth(check: HealthCheck, said: dict[str, Any], passed: bool | None) -> None:
    found, cause = judge(check, Probed(C, 0, **said))
    assert found is passed
    assert bool(cause) == (passed is False)


@given(st.lists(st.sampled_from(["pass", "fail", "void"]), max_size=25), st.integers(0, 4), st.booleans())
def test_only_so_many_failures_in_a_row_kill_and_no_others(answers: list[str], most: int, spares: bool) -> None:
    agent = Driver().ready()
    run(agent, msgspec.structs.replace(WEB, delay_s=0, grace_s=0, consecutive_failures=most, spares=spares))
    streak = 0
    for each in answers:
        agent.wait(5)
        match each:
            case "pass":
                answer(agent)
                streak = 0
            case "fail":
                fail(agent)
                streak += 1
            case _:
                answer(agent, why="away", void=True)
        dead = streak >= max(1, most) and not spares
        assert bool(agent.all(fx.Kill)) == dead
        while agent.task().pending:
            agent.acknowledge()
        if dead:
            return
