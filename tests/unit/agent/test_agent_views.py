"""What the agent's API shows."""

import msgspec
import pytest
from agent_driver import FRAMEWORK, Driver, make_framework, make_task

from corral.agent.spec import FindTask, ListTasks, ReadState
from corral.agent.state import MOST_COMPLETED
from corral.mesos.legacy_agent import write_agent_state
from corral.model.ids import FrameworkId, TaskId
from corral.model.orders import RunTask
from corral.model.task import GROUP_LABEL, CommandInfo, Label, TaskState, Uri
from corral.runtime.core import Asked, Refuse


def test_tasks_are_listed_with_what_people_ask_for(agent: Driver) -> None:
    agent.run(make_task("t1", "cpus:1;ports:[31000-31001]", labels=(Label(key=GROUP_LABEL, value="/web"),)))
    agent.run(make_task("t2"))
    agent.exit("t2", code=3)
    agent.acknowledge_all("t2")
    first, second = agent.ask(ListTasks())
    assert (first.id, first.group, first.state, first.ports, first.pid) == (
        "t1", "/web", TaskState.RUNNING, (31000, 31001), 77,
    )  # fmt: skip
    assert (second.id, second.state, second.message) == ("t2", TaskState.FAILED, "Command exited with status 3")
    assert [t.id for t in agent.ask(ListTasks(completed=False))] == ["t1"]


def test_a_task_is_found_by_its_id_also_after_its_end(agent: Driver) -> None:
    agent.run(make_task())
    sandbox = agent.task().sandbox
    agent.exit(code=0)
    agent.acknowledge_all()
    assert agent.ask(FindTask(TaskId("t1"))).sandbox == sandbox


def test_the_newest_run_of_an_id_is_found(agent: Driver) -> None:
    for _ in range(2):
        agent.run(make_task())
        agent.exit(code=0)
        newest = agent.task().container_id
        agent.acknowledge_all()
    assert agent.ask(FindTask(TaskId("t1"))).container == newest


@pytest.mark.parametrize(("command", "words"), [("nope", "has no task nope"), ("t1", "say which by")])
def test_a_task_that_is_not_one_is_refused(agent: Driver, command: str, words: str) -> None:
    agent.run(make_task())
    other = msgspec.structs.replace(make_framework(), id=FrameworkId("m-0001"))
    agent.order(RunTask(agent.epoch, other, "web", make_task()))
    agent.tell(Asked(1, FindTask(TaskId(command))))
    (effect,) = agent.effects
    assert isinstance(effect, Refuse)
    assert words in effect.error.message
    assert agent.ask(FindTask(TaskId("t1"), FRAMEWORK)).framework == FRAMEWORK


def test_the_mesos_state_shows_queued_running_and_completed_tasks(agent: Driver) -> None:
    agent.run(make_task("t1"))
    agent.launch(make_task("t2", command=CommandInfo(value="x", uris=(Uri(value="http://x"),))))
    agent.run(make_task("t3"))
    agent.exit("t3", code=0)
    agent.acknowledge_all("t3")
    state = write_agent_state(agent.ask(ReadState()).snapshot, "1.11.0")
    (framework,) = state["frameworks"]
    by_id = {e["id"]: e for e in framework["executors"] + framework["completed_executors"]}
    assert [len(by_id[t][k]) for t, k in (("t1", "tasks"), ("t2", "queued_tasks"), ("t3", "completed_tasks"))] == [
        1
    ] * 3
    assert by_id["t1"]["directory"] == agent.task("t1").sandbox
    assert state["id"] == "m-S0"
    assert state["flags"]["work_dir"] == "/var/corral"


def test_the_view_counts(agent: Driver) -> None:
    agent.run(make_task("t1"))
    agent.run(make_task("t2"))
    agent.exit("t2", code=1)
    agent.now += 5
    view = agent.ask(ReadState())
    assert (view.live, view.unacknowledged, view.counters["failed"], view.counters["launched"]) == (1, 1, 1, 2)
    assert view.uptime_s == 5.0
    assert [r.why for r in view.runtimes] == [None, None]


def test_only_so_many_ended_tasks_are_remembered(agent: Driver) -> None:
    for n in range(MOST_COMPLETED + 5):
        agent.run(make_task(f"t{n}"))
        agent.exit(f"t{n}", code=0)
        agent.acknowledge(f"t{n}")
    assert len(agent.ask(ListTasks())) == MOST_COMPLETED
    assert agent.core.state.by_container == {}
    assert len(agent.core.state.deadlines) == 0
