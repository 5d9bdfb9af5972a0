"""DAGs of any shape through any luck: failures, crashes, kills and resumes, each drawn from a seed.

No step begins before those it comes after are over, nothing is begun that still stands, every run comes to an end, and
after a crash all is as it was.
"""

from random import Random
from typing import Any

import pytest
from cron_driver import Cluster

from corral.frameworks.cron.dags.dialect import read_dag
from corral.frameworks.cron.dags.spec import GetDagRun, KillDag, PutDag, ResumeDag, StartDag
from corral.lib.errors import Conflict
from corral.model.task import TaskState

Json = Any
OVER = {"succeeded", "failed", "skipped", "killed"}
RESULTS = (b"[]", b'["a"]', b'["a", "b"]', b"x", None, b"\xff")
MOST_TURNS = 400


def draw_steps(luck: Random) -> list[Json]:
    steps: list[Json] = []
    for number in range(luck.randint(1, 9)):
        after = [step["name"] for step in steps if luck.random() < 0.4]
        step: Json = {
            "name": f"s{number}", "command": "x", "after": after, "retries": luck.choice([0, 0, 1]), "retryDelay": 1,
            "when": luck.choice(["success", "success", "no-failure", "failure", "always"]),
            "softError": luck.random() < 0.2, "result": luck.random() < 0.5,
        }  # fmt: skip
        told = [each["name"] for each in steps if each["name"] in after and each["result"]]
        if luck.random() < 0.4:
            kind = {"from": luck.choice(told)} if told and luck.random() < 0.6 else {"count": luck.randint(1, 4)}
            step["array"] = {**kind, "maxRunning": luck.choice([0, 1, 2])}
        if told and luck.random() < 0.3:
            step["if"] = [{"step": luck.choice(told), luck.choice(["equals", "differs"]): luck.choice(["[]", "x"])}]
        steps.append(step)
    return steps


def show(cluster: Cluster, run_id: str) -> Json:
    return cluster.ask(GetDagRun(run=run_id))


def outcome(run: Json) -> list[tuple[str, str, str | None, str]]:
    return [(step["name"], step["state"], step.get("result"), step["why"]) for step in run["steps"]]


def take_turn(cluster: Cluster, run_id: str, steps: dict[str, Json], luck: Random) -> None:
    match luck.choices(["crash", "kill", "launch", "end", "wait"], [8, 2, 40, 40, 10])[0]:
        case "crash":
            cluster.recover()
        case "kill":
            cluster.ask(KillDag(run=run_id))
            cluster.settle()
            cluster.bury()
        case "launch":
            before = {step["name"]: step for step in show(cluster, run_id)["steps"]}
            for task_id in cluster.start(most=luck.choice([1, 2, None])):
                name = task_id.split(":")[3].partition(".")[2].partition("@")[0]
                assert all(before[each]["state"] in OVER for each in steps[name]["after"]), f"{name} is too early"
                index = int(cluster.environment(task_id).get("CORRAL_ARRAY_INDEX", 0))
                stood = [e["index"] for e in before[name].get("elements", ()) if e["state"] == "succeeded"]
                assert index not in stood, f"element {index} of {name} had succeeded"
        case "end" if cluster.tasks:
            state = luck.choices([TaskState.FINISHED, TaskState.FAILED], [2, 1])[0]
            data = luck.choice(RESULTS) if state is TaskState.FINISHED else None
            cluster.update(luck.choice(list(cluster.tasks)), state, data=data)
        case _:
            cluster.advance(2)


@pytest.mark.parametrize("seed", range(150))
def test_a_run_comes_to_its_end_whatever_happens(seed: int) -> None:
    luck = Random(seed)
    steps = draw_steps(luck)
    cluster = Cluster()
    cluster.subscribe()
    cluster.ask(PutDag(spec=read_dag({"name": "d", "steps": steps})))
    run_id, _ = cluster.ask(StartDag(name="d"))
    cluster.settle()
    resumes = 0
    for _ in range(MOST_TURNS):
        run = show(cluster, run_id)
        if run["state"] == "running":
            take_turn(cluster, run_id, {step["name"]: step for step in steps}, luck)
            continue
        assert run["state"] == "killed" or all(step["state"] in OVER for step in run["steps"])
        if resumes == 3 or luck.random() < 0.3:
            break
        resumes += 1
        try:
            cluster.ask(ResumeDag(run=run_id, step=luck.choice(["", luck.choice(steps)["name"]])))
        except Conflict:
            cluster.bury()
        cluster.settle()
    run = show(cluster, run_id)
    assert run["state"] != "running", f"it is stuck: {outcome(run)}"
    cluster.recover()
    assert outcome(show(cluster, run_id)) == outcome(run)
