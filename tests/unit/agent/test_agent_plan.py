"""The steps of a task, from what is wanted and how far it is."""

import pytest
from agent_driver import FRAMEWORK, make_task

from corral.agent.plan import Do, steps
from corral.agent.spec import STAGES, Ending, Event, Stage, TaskRecord
from corral.agent.state import Task
from corral.model.ids import ContainerId
from corral.model.task import CommandInfo, Uri

WITH_URI = CommandInfo(value="x", uris=(Uri(value="http://x/y"),))


def make(stage: Stage, *, ending: bool = False, uris: bool = False) -> Task:
    info = make_task(command=WITH_URI) if uris else make_task()
    task = Task(TaskRecord(FRAMEWORK, "web", info, ContainerId("c"), "process", "/s"))
    task.stage = stage
    task.ending = Ending(10.0, why="scaled down") if ending else None
    return task


@pytest.mark.parametrize(
    ("stage", "uris", "fetched", "plan"),
    [
        (Stage.STAGING, False, False, [Do.START]),
        (Stage.STAGING, True, False, [Do.FETCH]),
        (Stage.FETCHING, True, False, []),
        (Stage.FETCHING, True, True, [Do.START]),
        (Stage.STARTING, False, False, []),
        (Stage.RUNNING, False, False, []),
        (Stage.ENDED, False, False, []),
    ],
)
def test_a_wanted_task_is_brought_up(stage: Stage, uris: bool, fetched: bool, plan: list[Do]) -> None:
    assert [s.do for s in steps(make(stage, uris=uris), fetched=fetched)] == plan


@pytest.mark.parametrize(
    ("stage", "plan"),
    [
        (Stage.STAGING, [Do.END]),
        (Stage.FETCHING, [Do.CANCEL_FETCH, Do.END]),
        (Stage.STARTING, [Do.ABORT]),
        (Stage.RUNNING, [Do.KILL]),
        (Stage.ENDED, []),
    ],
)
def test_a_task_that_shall_end_is_ended_from_wherever_it_is(stage: Stage, plan: list[Do]) -> None:
    found = steps(make(stage, ending=True))
    assert [s.do for s in found] == plan
    assert all(s.why == "scaled down" for s in found)


def test_every_step_says_why() -> None:
    for stage in Stage:
        for uris in (True, False):
            for ending in (True, False):
                assert all(s.why for s in steps(make(stage, ending=ending, uris=uris), fetched=True))


def test_every_stage_but_the_last_can_end_and_nothing_leaves_the_last() -> None:
    assert {stage for stage, event in STAGES if event is Event.END} == set(Stage) - {Stage.ENDED}
    assert not any(stage is Stage.ENDED for stage, _ in STAGES)


def test_an_illegal_transition_changes_nothing() -> None:
    task = make(Stage.ENDED)
    assert not task.move(Event.STARTED)
    assert task.stage is Stage.ENDED
