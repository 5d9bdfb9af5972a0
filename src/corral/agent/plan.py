"""Decides the next steps of one task from what is wanted of it and how far it is, each with its reason.

Rule: the plan is made anew from the state after every input; interrupted anywhere, the next plan is still right.
"""

from enum import StrEnum

import msgspec

from corral.agent.spec import Stage
from corral.agent.state import Task


class Do(StrEnum):
    FETCH = "fetch"
    CANCEL_FETCH = "cancel fetch"
    START = "start"
    ABORT = "abort"
    KILL = "kill"
    END = "end"


class Step(msgspec.Struct, frozen=True):
    do: Do
    why: str


def steps(task: Task, *, fetched: bool = False) -> tuple[Step, ...]:
    """What is to be done for the task now, in order; nothing while an answer is awaited.

    Shapes: `fetched` when its sandbox holds everything that was to fetch.
    """
    if task.ending is not None:
        return _steps_to_end(task, task.ending.why)
    match task.stage:
        case Stage.STAGING if task.info.command is not None and task.info.command.uris:
            return (Step(Do.FETCH, f"{len(task.info.command.uris)} uris come before the start"),)
        case Stage.STAGING:
            return (Step(Do.START, "the master ordered it and nothing is to fetch"),)
        case Stage.FETCHING if fetched:
            return (Step(Do.START, "all uris are fetched"),)
        case _:
            return ()


def _steps_to_end(task: Task, why: str) -> tuple[Step, ...]:
    match task.stage:
        case Stage.STAGING:
            return (Step(Do.END, why),)
        case Stage.FETCHING:
            return (Step(Do.CANCEL_FETCH, why), Step(Do.END, why))
        case Stage.STARTING:
            return (Step(Do.ABORT, why),)
        case Stage.RUNNING:
            return (Step(Do.KILL, why),)
        case Stage.ENDED:
            return ()
