"""Writes docs/states/ from the code: the tables of states are drawn, and what has no table is tried out and noted.

.venv/bin/python scripts/gen_states.py           # write the pages
.venv/bin/python scripts/gen_states.py --check   # say which are not up to date, and end with 1 if any
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from random import Random
from textwrap import dedent
from typing import Any

from corral.agent.spec import STAGES, Stage
from corral.frameworks.batch import spec as batch_spec
from corral.frameworks.cron.spec import RUN_STATES, RunState
from corral.frameworks.services import plan, updates
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.record_spec import ActionKind, AppRecord, Condition, Goal, Instance
from corral.frameworks.services.spec import Config
from corral.frameworks.services.state import App, State, phase_of, task_id_of
from corral.master.agent_entry import AGENT_STATES, AgentState
from corral.model import events
from corral.model.ids import AgentId, FrameworkId
from corral.model.task import TERMINAL, Source, TaskState, TaskStatus

PLACE = Path(__file__).parent.parent / "docs/states"
NOTICE = "Written by `scripts/gen_states.py`; change the code, then run it.\n"
WAITS = "waits anew"
GONE = "forgotten"

Table = Mapping[Any, StrEnum]
"""Keys are pairs of a state and an event."""


def pages() -> dict[str, str]:
    """All pages by file name."""
    return {
        "task-on-agent.md": task_on_agent(),
        "agent.md": agent(),
        "instance.md": instance(),
        "deployment.md": deployment(),
        "run.md": run(),
        "job.md": job(),
    }


# From tables.


def diagram(table: Table, first: Iterable[str], last: Iterable[str] = ()) -> str:
    lines = [f"    [*] --> {name}" for name in first]
    lines += [f"    {old.value} --> {new.value}: {event.value}" for (old, event), new in table.items()]
    lines += [f"    {name} --> [*]" for name in last]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


def grid(corner: str, rows: Mapping[str, Mapping[str, str]]) -> str:
    """A table whose cells are looked up by row and column; what is missing stays empty."""
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    out = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    out += [f"| {name} | {' | '.join(cells.get(c, '') for c in columns)} |" for name, cells in rows.items()]
    return "\n".join(out) + "\n"


def by_state(table: Table, states: Iterable[StrEnum]) -> dict[str, dict[str, str]]:
    names = list(dict.fromkeys(event.value for _, event in table))
    looked_up = {(old.value, event.value): new.value for (old, event), new in table.items()}
    return {state.value: {name: looked_up.get((state.value, name), "") for name in names} for state in states}


def page(text: str, **parts: str) -> str:
    """A page from its text, where `{name}` stands for a part."""
    return dedent(text).lstrip().format(notice=NOTICE, **parts)


def task_on_agent() -> str:
    return page(
        """
        # A task on its agent

        {notice}
        The table is `STAGES` in `agent/spec.py`. A pair that is missing changes nothing. ENDED with STARTED is acted on
        all the same: what came up too late is ended and removed. The states that frameworks see (`TASK_*`) follow from
        the stage and from how the task ended.

        {diagram}
        {grid}""",
        diagram=diagram(STAGES, [Stage.STAGING.value], [Stage.ENDED.value]),
        grid=grid("stage", by_state(STAGES, Stage)),
    )


def agent() -> str:
    return page(
        """
        # An agent, as the master sees it

        {notice}
        The table is `AGENT_STATES` in `master/agent_entry.py`. A new agent begins with its registration; one that the
        master remembers from its records begins as recovered. Silence ends no task.

        {diagram}
        {grid}""",
        diagram=diagram(AGENT_STATES, [AgentState.REACHABLE.value, AgentState.RECOVERED.value]),
        grid=grid("state", by_state(AGENT_STATES, AgentState)),
    )


def run() -> str:
    return page(
        """
        # A run of a job

        {notice}
        The table is `RUN_STATES` in `frameworks/cron/spec.py`. A firing that a schedule asks for begins with its
        launch; what was promised to somebody, or is due to parents, begins as queued. `again` is a retry, or a launch
        that is repeated because nobody saw it start; `exit` that of an asynchronous job, which then waits for its
        report. A run may end from every state, and is then history.

        {diagram}
        {grid}""",
        diagram=diagram(RUN_STATES, [RunState.QUEUED.value, RunState.LAUNCHED.value]),
        grid=grid("state", by_state(RUN_STATES, RunState)),
    )


def job() -> str:
    table, states = batch_spec.JOB_STATES, batch_spec.JobState
    return page(
        """
        # A batch job

        {notice}
        The table is `JOB_STATES` in `frameworks/batch/spec.py`. `again` is a retry, an attempt that was lost, or one
        that was ended for others. An array is queued until its first element is launched and running until its last is
        over.

        {diagram}
        {grid}""",
        diagram=diagram(table, [states.QUEUED.value], [s.value for s in states if s in batch_spec.TERMINAL]),
        grid=grid("state", by_state(table, states)),
    )


# By trying.

LIVE = (
    Condition.SCHEDULED, Condition.PROVISIONED, Condition.STAGING, Condition.STARTING, Condition.RUNNING,
    Condition.KILLING, Condition.UNREACHABLE, Condition.INACTIVE,
)  # fmt: skip
TOLD = (
    TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING, TaskState.UNREACHABLE,
    TaskState.FAILED,
)  # fmt: skip


def instance() -> str:
    def told(goal: Goal) -> dict[str, dict[str, str]]:
        return {
            condition.value: {_column(state): _told(condition, goal, state) for state in TOLD}
            for condition in LIVE
            if condition is not Condition.SCHEDULED
        }

    return page(
        """
        # An instance of an app

        {notice}
        An instance waits as Scheduled, is Provisioned when its launch is on the way, and then follows what is told of
        its task. Columns are status updates; END stands for every end of a task. An empty cell changes nothing. The
        cells were found by telling `frameworks/services/updates.py:update`.

        ## While it is wanted

        {wanted}
        *{waits}*: the same instance goes back to Scheduled with its next incarnation, after its backoff. An update that
        is older than what is known changes nothing, as answers to reconciliation may be. TASK_LOST because of an agent
        that may come back counts as UNREACHABLE.

        ## While it is to end for good

        {ending}
        ## What a plan sees

        {phases}
        An instance that is to end for good counts as leaving, whatever its condition.
        """,
        wanted=grid("condition", told(Goal.RUNNING)),
        waits=WAITS,
        ending=grid("condition", told(Goal.DECOMMISSIONED)),
        phases=grid(
            "condition", {c.value: {"counts as": phase_of(_instance(c, Goal.RUNNING)).name.lower()} for c in LIVE}
        ),
    )


def _column(state: TaskState) -> str:
    return "END" if state in TERMINAL else state.value.removeprefix("TASK_")


def _instance(condition: Condition, goal: Goal) -> Instance:
    return Instance(
        id="web.instance-1", app="/web", version="v1", config="v1", created_at=0.0, condition=condition, goal=goal,
        agent_id=AgentId("S0"), staged_at=1.0, unreachable_at=2.0 if "Unreachable" in condition.value else None,
    )  # fmt: skip


def _told(condition: Condition, goal: Goal, told: TaskState) -> str:
    """What becomes of an instance that is told this of its task; every terminal state must say the same."""
    ends = {_tell(condition, goal, t) for t in (TERMINAL if told in TERMINAL else {told})}
    assert len(ends) == 1, f"{condition} does not end alike: {ends}"
    return ends.pop()


def _tell(condition: Condition, goal: Goal, told: TaskState) -> str:
    state = State(Config(), Random(0))
    state.framework_id, state.connected = FrameworkId("F"), True
    # Silent instances are kept for as long as an app asks; here for ever.
    spec = AppSpec(id="/web", cmd="serve", unreachable=None)
    app = App(AppRecord(spec=spec, version="v1", config="v1", scaled_at="v1", configured_at="v1"), 0.0)
    state.apps["/web"] = app
    before = _instance(condition, goal)
    app.place(before)
    status = TaskStatus(
        task_id=task_id_of(before), state=told, at=3.0, source=Source.EXECUTOR, agent_id=AgentId("S0"), uuid=bytes(16)
    )
    updates.update(state, events.Update(status=status), 3.0)
    after = app.instances.get(before.id)
    if after is None:
        return GONE
    if after.incarnation > before.incarnation:
        return WAITS
    return "" if after.condition is condition else after.condition.value


def deployment() -> str:
    old = AppSpec(id="/web", cmd="serve", instances=2)
    changed = AppSpec(id="/web", cmd="serve --fast", instances=2)
    changes = {
        "a new app": plan.AppChange(id="/web", old=None, new=old),
        "fewer or more instances": plan.AppChange(id="/web", old=old, new=AppSpec(id="/web", cmd="serve", instances=5)),
        "0 instances": plan.AppChange(id="/web", old=old, new=AppSpec(id="/web", cmd="serve", instances=0)),
        "any other change of the definition": plan.AppChange(id="/web", old=old, new=changed),
        "a restart": plan.AppChange(id="/web", old=old, new=old, restart=True),
        "the definition it has": plan.AppChange(id="/web", old=old, new=old),
        "its deletion": plan.AppChange(id="/web", old=old, new=None),
    }
    depends = {"/db": (), "/api": ("/db",), "/web": ("/api",)}
    chain = [plan.AppChange(id=i, old=None, new=AppSpec(id=i, cmd="serve", dependencies=d)) for i, d in depends.items()]
    does = {
        ActionKind.START: "nothing; it is there because Marathon has it",
        ActionKind.SCALE: "ends what is too much, launches what is missing; done when all that is new runs",
        ActionKind.RESTART: "replaces outdated instances within the two capacities; done when none is left",
        ActionKind.STOP: "ends all instances; done when the last has gone, and then the app is forgotten",
    }
    return page(
        """
        # A deployment

        {notice}
        A deployment is a list of steps, one after the other; the actions of a step run side by side. It holds a lock on
        each of its apps until its last step is done, it is undone, or another takes its place by force. What an action
        needs next is computed from what is there (`frameworks/services/plan.py:plan_app`), so a deployment goes on
        after a restart wherever it was.

        {changes}
        The steps were found by asking `frameworks/services/plan.py:plan_deployment`.

        {actions}
        Three new apps, of which `/web` depends on `/api` and that on `/db`:

        {chain}
        """,
        changes=grid(
            "change of an app",
            {words: {"steps": ", then ".join(_steps(change)) or "none"} for words, change in changes.items()},
        ),
        actions=grid("action", {kind.value: {"does": does[kind]} for kind in ActionKind}),
        chain="\n".join(
            f"{number}. {', '.join(f'{a.kind.value} `{a.app}`' for a in step)}"
            for number, step in enumerate(plan.plan_deployment(chain, depends.__getitem__), 1)
        ),
    )


def _steps(change: plan.AppChange) -> list[str]:
    return [" and ".join(a.kind.value for a in step) for step in plan.plan_deployment([change], lambda app: ())]


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/states/ from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a page is not up to date")
    arguments = parser.parse_args()
    old = [name for name, text in pages().items() if not (PLACE / name).exists() or (PLACE / name).read_text() != text]
    for name in old:
        if not arguments.check:
            PLACE.mkdir(exist_ok=True)
            (PLACE / name).write_text(pages()[name])
        print(f"{'not up to date' if arguments.check else 'written'}: docs/states/{name}")
    return 1 if arguments.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
