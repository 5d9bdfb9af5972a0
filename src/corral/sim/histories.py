"""Histories of a whole cluster, each drawn from one number: hours of bad luck in a fraction of a second.

A history has one master or three, agents with their nodes, the services framework and one that runs tasks which end,
often cron and batch as well. People change apps and submit jobs meanwhile, and everything breaks: processes die at any
step of a turn, networks are cut, held or healed, nodes lose power, commits are lost or not acknowledged, a leader is
frozen until another leads. After that it must come to rest, and throughout it these must hold:

- no task runs twice, and of an only instance there are never two;
- an app that nobody touches is never ended by anything but its node's loss of power;
- of a job each occurrence and each acknowledged submission comes to an end, and none that may run once runs twice;
- an acknowledged write stays, an end that a node has seen is told as it was, and in the end everybody agrees;
- no epoch belongs to two lives of the master, resources add up, and whatever else a core asserts of itself.

Run many with `python -m corral.sim.histories`; one alone with `--first N --count 1 --seconds S --story`.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from os import cpu_count
from random import Random
from typing import Any

import msgspec

from corral.frameworks.services import Config, build
from corral.frameworks.services.app_spec import AppSpec, Unreachable
from corral.frameworks.services.command_spec import AppUpdate, DeleteApp, KillTasks, RestartApp, UpdateApps
from corral.frameworks.services.state import task_id_of
from corral.lib.errors import CorralError
from corral.master.spec import MasterConfig
from corral.model.execution import Execution
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import TaskId
from corral.model.partition import STOP_AFTER_LABEL
from corral.model.resources import add, scalar
from corral.model.task import TERMINAL, TaskState
from corral.runtime.core import Core, Note
from corral.sdk.scheduler import Session
from corral.sim.chaos import Trouble, trouble
from corral.sim.cluster import NODE, Cluster
from corral.sim.containers import Behaviour, Container
from corral.sim.jobs import MAKERS, CronPart, Part, make_part
from corral.sim.keeper import Keep, KeeperCore, Restart
from corral.sim.world import Answer, Pace

MASTER = MasterConfig(
    agent_timeout_s=4.0,
    ping_s=1.0,
    heartbeat_s=4.0,
    reregister_timeout_s=12.0,
    recovery_grace_s=6.0,
    session_timeout_s=3.0,
    want_offer_timeout_s=5.0,
)
KEEPER = FrameworkInfo(
    user="root",
    name="keeper",
    failover_timeout_s=3600.0,
    roles=("*",),
    capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE),
)
PLAN = Trouble(
    every_s=1.2, cut_s=14.0, crash=1.5, cut=2.0, isolate=1.0, reset=0.4, errand=5.0, step=3.0, hold=2.0, freeze=1.0,
    freeze_s=25.0, commit=1.5, store=0.7,
)  # fmt: skip
TROUBLE_S = 40.0
SETTLE_S = 600.0
LOOK_S = 0.25
STEADY, ONLY = "steady", "only"
CHANGED = ("/a", "/b")
APPS = frozenset({STEADY, ONLY, "a", "b"})
PARTS = ((), (), (), ("cron",), ("batch",), ("cron", "batch"))
ROOMY = add(NODE, (scalar("disk", 65536.0),))
ZERO = {"minimum_health_capacity": 0.0, "maximum_over_capacity": 0.0}


_WRONG = (
    AssertionError,
    CorralError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a history may end with: a promise that was broken, or a core that was."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a history came to. Shapes: `why` is empty when all held; `story` the last lines of one that failed."""

    seed: int
    turns: int
    starts: int
    why: str = ""
    story: str = ""


class History:
    """One history, from its seed on."""

    def __init__(self, seed: int, trouble_s: float = TROUBLE_S, plan: Trouble = PLAN) -> None:
        self.plan = plan
        self.trouble_s = trouble_s
        self.draw = Random(f"history {seed}")
        others = self.draw.choice(PARTS)
        self.cluster = Cluster(
            seed,
            {"services": make_services, "keeper": make_keeper, **{name: MAKERS[name] for name in others}},
            agents=self.draw.randint(2, 3),
            masters=self.draw.choice([1, 3]),
            lease_ttl_s=2.0,
            behave=self.behave,
            master=MASTER,
            node=ROOMY,
            pace=Pace(turn_s=0.004, commit_s=0.008, restart_s=1.0),
        )
        self.cluster.world.check_every = self.draw.choice([1, 15, 15, 15, 15, 15, 15, 15])
        self.parts = {name: make_part(name, self.cluster, self.draw) for name in others}
        self.wishes: dict[str, list[AppSpec | None]] = {}
        self.settled: dict[str, int] = {}
        self.goals: list[int] = [0]
        self.kept_from = 0
        self.told: dict[str, str] = {}
        ledger = self.cluster.ledger
        ledger.on_start, ledger.on_end = self._see_start, self._see_end
        self.cluster.frameworks["keeper"].on_note = self._hear_keeper

    # What runs, and what is asked for.

    def behave(self, execution: Execution) -> Behaviour:
        random = self.draw
        if execution.task_id.startswith("keep."):
            if random.random() < 0.05:
                return Behaviour(fails="no such image")
            return Behaviour(
                run_s=random.uniform(1.0, 30.0), code=random.choice([0, 0, 3]), term_s=random.uniform(0, 2)
            )
        part = self._part_of(execution.task_id)
        if part is not None:
            return part.behave(execution)
        name = app_of(execution.task_id)
        if name in (STEADY, ONLY) or random.random() < 0.9:
            return Behaviour(start_s=random.choice([0.05, 1.5]), term_s=random.choice([0.01, 2.0]))
        return Behaviour(run_s=random.uniform(0.5, 20.0), code=random.choice([0, 1]))

    def _part_of(self, task_id: str) -> Part | None:
        if CronPart.owns(task_id):
            return self.parts.get("cron")
        return None if app_of(task_id) in APPS or task_id.startswith("keep.") else self.parts.get("batch")

    def run(self) -> None:
        """Live through it. Errors: whatever did not hold, with the end of the story."""
        cluster = self.cluster
        cluster.start()
        for spec in (steady_app(), only_app()):
            self._put(spec)
        self._keep(2)
        for part in self.parts.values():
            part.begin()
        cluster.run(3.0)
        trouble(cluster, self.trouble_s, self._errand, self.plan)
        settled = self._settle()
        assert settled, f"it does not come to rest: {self.unsettled()}"
        self._check_end()

    def _settle(self) -> bool:
        """Live on until all is as wanted, looking only now and then."""
        world, end = self.cluster.world, self.cluster.world.now + SETTLE_S
        while world.now < end:
            self.cluster.run(LOOK_S)
            if not self.unsettled():
                return True
        return False

    def _errand(self) -> None:
        random, process = self.cluster.world.random, self.cluster.frameworks["services"]
        kinds = ["put", "put", "put", "delete", "restart", "kill", "only", "keep", "end"]
        match random.choice([*kinds, *(name for name in self.parts for _ in range(3))]):
            case "cron" | "batch" as name:
                self.parts[name].errand()
            case "put":
                self._put(changed_app(random.choice(CHANGED), random))
            case "delete":
                self._wish(random.choice(CHANGED), None)
            case "restart":
                process.ask(RestartApp(id=random.choice(CHANGED), force=True))
            case "kill":
                process.ask(KillTasks(app=random.choice(CHANGED)))
            case "only":
                process.ask(random.choice([RestartApp(id="/only", force=True), KillTasks(app="/only")]))
            case "keep":
                self._keep(random.randint(0, 3))
            case _:
                running = [t for t in self.cluster.running() if t.startswith("keep.")]
                if running:
                    self.cluster.frameworks["keeper"].ask(Restart((TaskId(random.choice(running)),)))

    def _put(self, spec: AppSpec) -> None:
        self._wish(spec.id, spec)

    def _wish(self, app: str, spec: AppSpec | None) -> None:
        """Ask for it; an answer settles all wishes before, silence leaves it possible."""
        wishes = self.wishes.setdefault(app, [None])
        wishes.append(spec)
        place = len(wishes) - 1

        def answered(answer: Answer) -> None:
            if answer.error is None:
                self.settled[app] = max(self.settled.get(app, 0), place)

        command: Any = DeleteApp(id=app)
        if spec is not None:
            update = AppUpdate(id=app, spec=spec, given=AppSpec.__struct_fields__[1:])
            command = UpdateApps(updates=(update,), force=True, single=True, partial=False)
        self.cluster.frameworks["services"].ask(command, answered)

    def _keep(self, count: int) -> None:
        goals = self.goals
        goals.append(count)
        place = len(goals)

        def answered(answer: Answer) -> None:
            if answer.error is None:
                self.kept_from = max(self.kept_from, place - 1)

        self.cluster.frameworks["keeper"].ask(Keep(count), answered)

    # What must hold.

    def _see_start(self, node: str, container: Container) -> None:
        task_id = container.execution.task_id
        if (part := self._part_of(task_id)) is not None:
            part.see_start(task_id, self.cluster.ledger.running())
        if app_of(task_id) == ONLY:
            others = [o.execution.task_id for o in self.cluster.ledger.running() if app_of(o.execution.task_id) == ONLY]
            assert not others, f"{task_id} starts on {node} while {others} run, of which there may be one"

    def _see_end(self, node: str, container: Container) -> None:
        task_id, exit = container.execution.task_id, container.exit
        assert exit is not None
        # What came up just after a restarted agent had asked what runs is told as dropped, and ended unseen.
        ended = container.heard and app_of(task_id) == STEADY
        assert not ended, f"{task_id} on {node} was healthy and ended with signal {exit.signal}"

    def _hear_keeper(self, note: Note) -> None:
        if note.what == "task ended":
            self.told[str(note.facts["task"])] = str(note.facts["state"])

    def unsettled(self) -> str:
        """What is not yet as wanted; empty when all is."""
        cluster = self.cluster
        if not all(process.up for process in cluster.processes):
            return "somebody is down"
        services, keeper = self._core("services").state, self._core("keeper")
        running = cluster.running()
        instances = [task_id_of(i) for a in services.apps.values() for i in a.instances.values()]
        wanted = sorted([*instances, *keeper.kept])
        agents = [agent.core.state for agent in cluster.agents.values()]  # type: ignore[attr-defined]
        told = sorted(task.info.task_id for one in agents for task in one.tasks.values())
        entries = [a.tasks for a in cluster.master.core.state.agents.values()]  # type: ignore[attr-defined]
        known = sorted(task_id for tasks in entries for _, task_id in tasks)
        if not running == wanted == told == known:
            return f"running {running}, frameworks {wanted}, agents {told}, master {known}"
        for name, app in services.apps.items():
            if app.record.stopping or len(app.instances) != app.record.spec.instances:
                return f"{name} wants {app.record.spec.instances} and has {len(app.instances)}"
        if len(keeper.kept) != keeper.goal.count or any(k.killing for k in keeper.kept.values()):
            return f"{keeper.goal.count} wanted to be kept, {len(keeper.kept)} are"
        for part in self.parts.values():
            if why := part.unsettled():
                return why
        return f"deployments {list(services.deployments)}" if services.deployments else ""

    def _check_end(self) -> None:
        services, keeper = self._core("services").state, self._core("keeper")
        for app, wishes in self.wishes.items():
            there = services.apps[app].record.spec if app in services.apps else None
            possible = wishes[self.settled.get(app, 0) :]
            found = [None if s is None else (s.instances, s.cmd) for s in possible]
            assert (None if there is None else (there.instances, there.cmd)) in found, (
                f"{app} is {there}, acknowledged or asked later were {found}"
            )
        assert keeper.goal.count in self.goals[self.kept_from :], f"{keeper.goal} is not among {self.goals}"
        self._check_exits(keeper)
        self._check_resources()
        for part in self.parts.values():
            part.check()

    def _check_exits(self, keeper: KeeperCore) -> None:
        for (_, task_id), runs in self.cluster.ledger.runs.items():
            for node, container in runs:
                told, exit = self.told.get(task_id), container.exit
                if exit is None or not task_id.startswith("keep."):
                    continue
                assert task_id not in keeper.kept, f"{task_id} has ended and is kept"
                if told is None or exit.code is None:
                    continue  # the process that heard it died before it could say so; or it was ended on purpose
                # A task that was to be ended is told as killed, however it ended.
                right = {TaskState.FINISHED if exit.code == 0 else TaskState.FAILED, TaskState.KILLED}
                # An end that its node took along with its power, nobody has seen.
                unseen = any(r.powerless_at >= exit.at for r in self.cluster.runtimes[node].values())
                assert told in right or unseen, f"{task_id} ended with {exit.code} and was told as {told}"

    def _check_resources(self) -> None:
        """What is held is what runs."""
        state = self.cluster.master.core.state  # type: ignore[attr-defined]
        if self.cluster.world.check_every == 1:
            state.allocator.invariants()
        for agent in state.agents.values():
            live = [e for e in agent.tasks.values() if e.state not in TERMINAL]
            assert len(live) == len(agent.tasks), f"{agent.id} holds what has ended"

    def _core(self, name: str) -> Any:
        return self.cluster.frameworks[name].core._core  # type: ignore[attr-defined]


def app_of(task_id: str) -> str:
    return task_id.partition(".")[0]


def make_services(random: Random) -> Core:
    framework = build(Config(single_stop_after_s=4.0, launch_timeout_s=60.0, kill_retry_s=3.0), random)
    return Session(framework.info, framework.core, random)


def make_keeper(random: Random) -> Core:
    return Session(KEEPER, KeeperCore(), random)


def steady_app() -> AppSpec:
    return AppSpec(id="/steady", cmd="serve", instances=2, cpus=0.2, mem_mb=32.0, unreachable=None)


def only_app() -> AppSpec:
    labels = {"MARATHON_SINGLE_INSTANCE_APP": "true", STOP_AFTER_LABEL: "4s"}
    return AppSpec(id="/only", cmd="serve", cpus=0.2, mem_mb=32.0, labels=labels, kill_grace_s=1)


def changed_app(app: str, random: Random) -> AppSpec:
    labels = random.choice([{}, {"corral.on-return": random.choice(["old", "new", "best"])}])
    unreachable = random.choice([None, Unreachable(), Unreachable(inactive_after_s=2, expunge_after_s=10)])
    return AppSpec(
        id=app, cmd=f"serve {random.randint(1, 3)}", instances=random.randint(0, 4), cpus=0.2, mem_mb=32.0,
        labels=labels, unreachable=unreachable,
    )  # fmt: skip


def tell_history(seed: int, trouble_s: float = TROUBLE_S, *, story: int = 80) -> Outcome:
    """Live through the history of a seed and say what came of it. Units: trouble lasts `trouble_s` virtual seconds."""
    history = History(seed, trouble_s)
    why = ""
    try:
        history.run()
    except _WRONG as error:
        why = f"{type(error).__name__}: {error}"
    cluster = history.cluster
    turns = sum(process.turns for process in cluster.processes)
    lines = cluster.world.tell_story(story) if why else ""
    return Outcome(seed=seed, turns=turns, starts=len(cluster.ledger.runs), why=why, story=lines)


def tell_histories(first: int, count: int, trouble_s: float = TROUBLE_S, jobs: int = 1) -> Iterator[Outcome]:
    """Many of them, in order."""
    tell, seeds = partial(tell_history, trouble_s=trouble_s), range(first, first + count)
    if jobs <= 1:
        yield from map(tell, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(tell, seeds, chunksize=8)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m corral.sim.histories", description="Histories of a whole cluster.")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first one")
    parser.add_argument("--count", type=int, default=200, help="how many")
    parser.add_argument("--seconds", type=float, default=TROUBLE_S, help="how long each has trouble, in virtual time")
    parser.add_argument(
        "--jobs", type=int, default=cpu_count(), help="how many processes work on it; all cores if unset"
    )
    parser.add_argument("--story", action="store_true", help="print the whole story of those that fail")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.jobs < 1:
        parser.error("--count and --jobs are at least 1")
    began, told, turns, starts = time.monotonic(), 0, 0, 0
    failed: list[int] = []
    for outcome in tell_histories(options.first, options.count, options.seconds, options.jobs):
        told += 1
        turns += outcome.turns
        starts += outcome.starts
        if told % 500 == 0:
            print(f"{told} told after {time.monotonic() - began:.0f} s, {len(failed)} failed so far", flush=True)
        if outcome.why:
            failed.append(outcome.seed)
            print(f"seed {outcome.seed} failed: {outcome.why}", flush=True)
            if options.story:
                print(outcome.story)
    took_s = time.monotonic() - began
    each = max(1, told)
    print(
        f"{told} of {options.count} histories told, {turns / each:.0f} turns and {starts / each:.0f} tasks each, "
        f"in {took_s:.1f} s with {options.jobs} processes: {told / took_s:.1f} a second; {len(failed)} failed"
    )
    for seed in failed[:20]:
        again = f"--first {seed} --count 1 --seconds {options.seconds:g} --story"
        print(f"again: python -m corral.sim.histories {again}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
