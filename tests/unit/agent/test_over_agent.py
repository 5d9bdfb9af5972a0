"""An agent that oversubscribes tells what its tasks leave unused, and ends revocable work when it is in need."""

import os
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from agent_driver import Driver, make_task

from corral.agent import effects as fx
from corral.agent.link import Link
from corral.agent.routes import flatten_metrics
from corral.agent.shell import AgentShell
from corral.agent.slack import TIMER
from corral.agent.spec import MeasuredTask, ReadState, UsageMeasured
from corral.docker.fake import FakeNode, FakeRuntime
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo
from corral.model.execution import Execution
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.model.orders import Slack
from corral.model.resources import Identity, Resources, scalar
from corral.model.task import Claim, Reason, TaskInfo, TaskState
from corral.runtime.core import Tick

Make = Callable[..., Driver]


@pytest.fixture
def over(make_driver: Make) -> Driver:
    return make_driver(oversubscribe=True).ready()


def borrower(id: str) -> TaskInfo:
    lent = Identity(revocable=True)
    return msgspec.structs.replace(
        make_task(id, claim=Claim(revocable=True)), resources=(scalar("cpus", 1, lent), scalar("mem", 32, lent))
    )


def pass_time(agent: Driver, seconds: float, **cpus: float) -> list[Resources]:
    """Let tasks use so many cpus for a while; what was told of slack."""
    told = []
    start, until = dict.fromkeys(cpus, 0.0), agent.now + seconds
    ids = {name: agent.task(name).container_id for name in cpus}
    for name, id in ids.items():
        known = agent.core.state.slack.samples.get(id)
        start[name] = known[-1].cpu_s if known else 0.0
    while agent.now < until:
        agent.now += 5.0
        agent.timers.pop(TIMER, None)
        (effect,) = agent.tell(Tick(TIMER))
        assert isinstance(effect, fx.MeasureUsage)
        found = []
        for name, rate in cpus.items():
            start[name] += 5.0 * rate
            if ids[name] in dict(effect.tasks):
                found.append(MeasuredTask(ids[name], start[name], 28.0))
        agent.tell(UsageMeasured(tuple(found)))
        told += [e.report.resources for e in agent.all(fx.Send) if isinstance(e.report, Slack)]
        if agent.statuses() or agent.all(fx.Kill):
            break
    return told


def test_nothing_is_measured_unless_it_is_asked(agent: Driver) -> None:
    assert TIMER not in agent.timers


def test_slack_is_told_after_the_window_and_falls_at_once(over: Driver) -> None:
    over.run(make_task("t1", "cpus:2;mem:1000"))
    assert pass_time(over, 55, t1=0.5) == []
    assert pass_time(over, 30, t1=0.5) == [(scalar("cpus", 1.3), scalar("mem", 832))]
    assert pass_time(over, 5, t1=1.5) == [(scalar("cpus", 0.3), scalar("mem", 832))]


def test_a_new_master_is_told_again_and_a_task_that_ended_lends_nothing(over: Driver) -> None:
    over.run(make_task("t1", "cpus:2;mem:1000"))
    pass_time(over, 70, t1=0.5)
    over.register()
    reports = [e.report for e in over.all(fx.Send)]
    assert Slack((scalar("cpus", 1.3), scalar("mem", 832))) in reports
    over.exit("t1", code=0)
    assert pass_time(over, 5) == [()]


def test_what_may_be_lent_and_is_lent_is_counted_apart(over: Driver) -> None:
    over.run(make_task("t1", "cpus:2;mem:1000"))
    pass_time(over, 70, t1=0.5)
    over.run(borrower("b1"))
    found = flatten_metrics(over.ask(ReadState()))
    assert (found["slave/cpus_revocable_total"], found["slave/cpus_revocable_used"]) == (1.3, 1)
    assert (found["slave/mem_revocable_total"], found["slave/mem_revocable_used"]) == (832, 32)
    assert found["slave/cpus_revocable_percent"] == pytest.approx(1 / 1.3)
    assert found["slave/cpus_used"] == 2, "what is lent besides is no part of it"
    assert found["slave/gpus_revocable_percent"] == 0


def test_tasks_that_are_not_seen_lend_nothing(over: Driver) -> None:
    over.run(make_task("t1", "cpus:2;mem:1000"))
    assert pass_time(over, 120) == []


def test_only_the_newest_task_that_borrows_ends_under_pressure_that_lasts(over: Driver) -> None:
    over.run(make_task("firm", "cpus:4;mem:1000"))
    over.run(borrower("old"))
    over.now += 1
    over.run(borrower("new"))
    over.now += 1
    over.run(make_task("loan", "cpus:0.1;mem:32", claim=Claim(revocable=True)))
    assert pass_time(over, 65, firm=1.0, old=0.5, loan=0.1, new=1.0)[-1][0] == scalar("cpus", 2.6)
    began = over.now
    pass_time(over, 60, firm=2.6, old=0.5, loan=0.1, new=1.0)
    assert over.now - began == 20.0, "one measurement sees it, and it has to last for 15 s"
    kill = over.one(fx.Kill)
    assert kill.container_id == over.task("new").container_id
    assert kill.grace_s == over.config.kill_grace_s
    over.exit("new", signal=15)
    status = over.status()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.CONTAINER_PREEMPTED)
    assert "above 95%" in status.message
    assert over.core.state.counters["preempted"] == 1
    pass_time(over, 60, firm=2.6, old=0.5, loan=0.1)
    assert over.none(fx.Kill)


def test_pressure_of_work_that_is_not_revocable_ends_nothing(over: Driver) -> None:
    over.run(make_task("firm", "cpus:4;mem:1000"))
    pass_time(over, 120, firm=6.0)
    assert over.none(fx.Kill)
    assert over.task("firm").ending is None


async def test_the_shell_measures_real_processes_and_leaves_out_those_that_are_gone() -> None:
    shell = AgentShell({}, Link(["http://127.0.0.1:1"], Random(1)))
    tasks = ((ContainerId("a"), os.getpid()), (ContainerId("b"), 2**30))
    performed = shell.perform(fx.MeasureUsage(tasks))
    assert performed is not None
    (own,) = (await performed).found
    assert own.container_id == "a"
    assert own.cpu_s > 0
    assert own.mem_mb > 1


def test_tasks_in_docker_containers_lend_like_others_once_they_are_measured(over: Driver) -> None:
    box = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox"))
    over.run(make_task("t1", "cpus:2;mem:1000", container=box))
    assert over.task("t1").runtime == "docker"
    assert pass_time(over, 70, t1=0.5) == [(scalar("cpus", 1.3), scalar("mem", 832))]


async def test_the_shell_leaves_out_what_runs_on_another_machine() -> None:
    node = FakeNode()
    a = ContainerId("a")
    node.begin(Execution(container_id=a, task_id=TaskId("t"), framework_id=FrameworkId("f"), sandbox=""))
    shell = AgentShell({"docker": FakeRuntime(node)}, Link(["http://127.0.0.1:1"], Random(1)))
    performed = shell.perform(fx.MeasureUsage(((a, os.getpid()),)))
    assert performed is not None
    assert (await performed).found == ()
