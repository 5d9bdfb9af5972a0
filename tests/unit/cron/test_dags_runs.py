"""Runs of DAGs, step by step: order, conditions, arrays, results, failures, resumes, schedules, crashes."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cron_driver import START, Cluster

from corral.frameworks.cron.dags.dialect import read_dag, write_dag
from corral.frameworks.cron.dags.spec import (
    DeleteDag,
    GetDag,
    GetDagRun,
    GetDagRuns,
    GetDags,
    KillDag,
    PlanDag,
    PutDag,
    ResumeDag,
    StartDag,
)
from corral.frameworks.cron.dags.walk import check_graph
from corral.frameworks.cron.spec import GetJobs, PurgeQueue
from corral.lib.errors import Conflict, CorralError, Invalid, NotFound
from corral.model.ids import TaskId
from corral.model.task import RESULT_LABEL, TaskState

Json = Any


def step(name: str, *after: str, **more: Json) -> Json:
    return {"name": name, "command": f"echo {name}", "after": list(after), "retries": 0, **more}


DIAMOND = [step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")]


def put(cluster: Cluster, *steps: Json, name: str = "etl", **more: Json) -> None:
    cluster.ask(PutDag(spec=read_dag({"name": name, "steps": list(steps), **more})))
    cluster.settle()


def start(cluster: Cluster, name: str = "etl", **parameters: str) -> str:
    run_id, is_new = cluster.ask(StartDag(name=name, parameters=parameters))
    assert is_new
    cluster.settle()
    return str(run_id)


def show(cluster: Cluster, run_id: str) -> Json:
    return cluster.ask(GetDagRun(run=run_id))


def states(cluster: Cluster, run_id: str) -> dict[str, str]:
    return {row["name"]: row["state"] for row in show(cluster, run_id)["steps"]}


def step_of(task_id: TaskId) -> str:
    return task_id.split(":")[3].partition(".")[2].partition("@")[0]


def running(cluster: Cluster) -> list[str]:
    return sorted(step_of(task_id) for task_id in cluster.tasks)


def end(cluster: Cluster, name: str, state: TaskState = TaskState.FINISHED, data: bytes | None = None) -> None:
    """End the tasks of a step."""
    for task_id in [t for t in cluster.tasks if step_of(t) == name]:
        cluster.update(task_id, state, data=data)


def go(cluster: Cluster, results: dict[str, bytes] | None = None, failing: tuple[str, ...] = ()) -> list[list[str]]:
    """Run what is wanted until nothing is; returns the steps of each round."""
    rounds = []
    while cluster.start():
        names = running(cluster)
        rounds.append(names)
        for name in dict.fromkeys(names):
            state = TaskState.FAILED if name in failing else TaskState.FINISHED
            end(cluster, name, state, (results or {}).get(name))
    return rounds


def test_steps_run_after_those_they_come_after(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    run_id = start(cluster)
    assert go(cluster) == [["a"], ["b", "c"], ["d"]]
    found = show(cluster, run_id)
    assert (found["state"], set(states(cluster, run_id).values())) == ("succeeded", {"succeeded"})
    assert all(row["taskId"] and row["endedAt"] for row in found["steps"])


def test_a_failed_step_skips_what_needs_its_success_and_fails_the_run(cluster: Cluster) -> None:
    put(cluster, *DIAMOND, step("alarm", "b", when="failure"), step("tidy", "d", when="always"))
    run_id = start(cluster)
    assert go(cluster, failing=("b",)) == [["a"], ["b", "c"], ["alarm", "tidy"]]
    assert states(cluster, run_id) == {
        "a": "succeeded", "b": "failed", "c": "succeeded", "d": "skipped", "alarm": "succeeded", "tidy": "succeeded",
    }  # fmt: skip
    found = show(cluster, run_id)
    assert (found["state"], found["steps"][3]["why"]) == ("failed", "step b failed")
    assert found["why"].startswith("step b failed: ")


def test_a_failure_that_is_no_matter_is_a_success(cluster: Cluster) -> None:
    put(cluster, step("a", softError=True), step("b", "a"))
    run_id = start(cluster)
    assert go(cluster, failing=("a",)) == [["a"], ["b"]]
    assert show(cluster, run_id)["state"] == "succeeded"


def test_attempts_are_retried_as_those_of_jobs(cluster: Cluster) -> None:
    put(cluster, step("a", retries=1, retryDelay=10))
    run_id = start(cluster)
    cluster.start()
    cluster.fail()
    assert states(cluster, run_id) == {"a": "waiting"}
    assert cluster.start() == []
    cluster.advance(11)
    assert go(cluster) == [["a"]]
    assert show(cluster, run_id)["state"] == "succeeded"


def test_results_reach_the_steps_after_and_choose_among_them(cluster: Cluster) -> None:
    put(
        cluster, step("check", result=True),
        step("full", "check", **{"if": [{"step": "check", "equals": "full"}]}),
        step("delta", "check", **{"if": [{"step": "check", "matches": "delta-[0-9]+"}]}),
        step("rest", "check", **{"if": [{"step": "check", "in": ["x", "delta-7"]}, {"step": "check", "differs": "x"}]}),
        step("join", "full", "delta", "rest", when="no-failure"),
    )  # fmt: skip
    run_id = start(cluster)
    cluster.start()
    (task,) = cluster.tasks.values()
    assert [label.value for label in task.labels if label.key == RESULT_LABEL] == ["result"]
    end(cluster, "check", data=b"delta-7\n")
    assert cluster.start()
    assert running(cluster) == ["delta", "rest"]
    assert cluster.environment(next(iter(cluster.tasks)))["CORRAL_RESULT_CHECK"] == "delta-7"
    go(cluster)
    end(cluster, "delta")
    end(cluster, "rest")
    assert go(cluster) == [["join"]]
    found = {row["name"]: row for row in show(cluster, run_id)["steps"]}
    assert found["check"]["result"] == "delta-7"
    assert found["full"]["why"] == "step check has the result 'delta-7', which is not 'full'"
    assert show(cluster, run_id)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("data", "why"), [(None, "it left no result in out/x"), (b"\xff", "its result in out/x is no UTF-8 text")]
)
def test_a_step_without_the_result_it_owes_has_failed(cluster: Cluster, data: bytes | None, why: str) -> None:
    put(cluster, step("a", result="out/x"))
    run_id = start(cluster)
    cluster.start()
    end(cluster, "a", data=data)
    assert show(cluster, run_id)["state"] == "failed"
    assert why in show(cluster, run_id)["steps"][0]["why"]


def test_an_array_runs_as_many_elements_at_once_as_it_may(cluster: Cluster) -> None:
    put(cluster, step("a", array={"count": 5, "maxRunning": 2}, result=True), step("b", "a"))
    run_id = start(cluster)
    rounds = []
    while found := cluster.start():
        rounds.append(len(found))
        for task_id in found:
            index = cluster.environment(task_id).get("CORRAL_ARRAY_INDEX", "-")
            cluster.update(task_id, TaskState.FINISHED, data=f"r{index}".encode())
    assert rounds == [2, 2, 1, 1]
    found = show(cluster, run_id)
    assert found["state"] == "succeeded"
    assert json.loads(found["steps"][0]["result"]) == ["r0", "r1", "r2", "r3", "r4"]
    assert cluster.environment(cluster.launched[-1].task_id)["CORRAL_RESULT_A"] == found["steps"][0]["result"]


def test_an_array_fans_out_over_what_a_step_has_found(cluster: Cluster) -> None:
    put(cluster, step("list", result=True), step("each", "list", array={"from": "list"}), step("join", "each"))
    run_id = start(cluster)
    cluster.start()
    end(cluster, "list", data=b'["x", {"y": 1}]')
    tasks = cluster.start()
    items = {cluster.environment(t)["CORRAL_ARRAY_INDEX"]: cluster.environment(t)["CORRAL_ARRAY_ITEM"] for t in tasks}
    assert items == {"0": "x", "1": '{"y": 1}'}
    end(cluster, "each")
    assert go(cluster) == [["join"]]
    assert show(cluster, run_id)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"[]", "succeeded"), (b"no", "failed"), (b'{"a":1}', "failed"), (b'["\\ud800"]', "failed"),
        (b'["a", "b\\u0000"]', "failed"), (b"[" * 4000, "failed"), (b"1" * 4000, "failed"),
    ],
)  # fmt: skip
def test_an_array_of_nothing_is_over_and_one_of_no_list_has_failed(cluster: Cluster, data: bytes, state: str) -> None:
    put(cluster, step("list", result=True), step("each", "list", array={"from": "list"}))
    run_id = start(cluster)
    assert go(cluster, {"list": data}) == [["list"]]
    assert show(cluster, run_id)["state"] == state


def test_a_resumed_run_does_anew_only_what_did_not_succeed(cluster: Cluster) -> None:
    put(cluster, step("a"), step("each", "a", array={"count": 3}), step("d", "each"))
    run_id = start(cluster)
    cluster.start()
    end(cluster, "a")
    first, *others = cluster.start()
    cluster.fail(first)
    cluster.finish(*others)
    assert (states(cluster, run_id)["each"], show(cluster, run_id)["state"]) == ("failed", "failed")
    cluster.ask(ResumeDag(run=run_id))
    cluster.settle()
    again = cluster.start()
    assert [cluster.environment(t)["CORRAL_ARRAY_INDEX"] for t in again] == [
        cluster.environment(first)["CORRAL_ARRAY_INDEX"]
    ]
    cluster.finish()
    assert go(cluster) == [["d"]]
    found = show(cluster, run_id)
    assert (found["state"], found["resumes"]) == ("succeeded", 1)


def test_a_run_may_be_done_anew_from_a_step(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    run_id = start(cluster)
    go(cluster)
    cluster.ask(ResumeDag(run=run_id, step="b"))
    cluster.settle()
    assert go(cluster) == [["b"], ["d"]]
    assert show(cluster, run_id)["state"] == "succeeded"


def test_resumes_are_refused_where_they_mean_nothing(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    run_id = start(cluster)
    with pytest.raises(Conflict, match="is under way"):
        cluster.ask(ResumeDag(run=run_id))
    go(cluster)
    with pytest.raises(Conflict, match="nothing is to be resumed"):
        cluster.ask(ResumeDag(run=run_id))
    with pytest.raises(Invalid, match="has no step 'x'"):
        cluster.ask(ResumeDag(run=run_id, step="x"))
    with pytest.raises(NotFound, match="there is no run 'nope'"):
        cluster.ask(ResumeDag(run="nope"))


def test_a_killed_run_ends_its_tasks_and_begins_nothing_more(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    run_id = start(cluster)
    cluster.start()
    cluster.ask(KillDag(run=run_id))
    cluster.settle()
    assert len(cluster.killed) == 1
    with pytest.raises(Conflict, match="still has tasks"):
        cluster.ask(ResumeDag(run=run_id))
    cluster.bury()
    assert cluster.start() == []
    assert show(cluster, run_id)["state"] == "killed"
    cluster.ask(ResumeDag(run=run_id))
    cluster.settle()
    assert go(cluster) == [["a"], ["b", "c"], ["d"]]


def test_a_schedule_starts_runs_and_waits_for_the_one_before(cluster: Cluster) -> None:
    put(cluster, step("a"), schedule="R3/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(3601)
    assert cluster.start()
    cluster.advance(3 * 3600)
    assert cluster.start() == []
    end(cluster, "a")
    assert cluster.start(), "what was missed meanwhile is one run"
    end(cluster, "a")
    cluster.advance(3 * 3600)
    assert cluster.cycle()
    assert not cluster.start()
    runs = cluster.ask(GetDagRuns(name="etl"))["runs"]
    assert [run["due"][11:16] for run in runs] == ["05:00", "04:00", "01:00"], "R3 starts three runs"


def test_a_newer_run_replaces_the_one_before_where_it_may(cluster: Cluster) -> None:
    put(cluster, step("a"), schedule="R/2026-01-01T01:00:00Z/PT1H", concurrencyPolicy="replace")
    cluster.advance(3601)
    cluster.start()
    cluster.advance(3600)
    assert len(cluster.killed) == 1
    cluster.bury()
    assert cluster.start()
    runs = cluster.ask(GetDagRuns(name="etl"))["runs"]
    assert [run["state"] for run in runs] == ["running", "killed"]


def test_a_request_with_a_key_is_one_run(cluster: Cluster) -> None:
    put(cluster, step("a"), parameters=[{"name": "day"}])
    first = cluster.ask(StartDag(name="etl", parameters={"day": "1"}, key="k"))
    assert cluster.ask(StartDag(name="etl", parameters={"day": "1"}, key="k")) == (first[0], False)
    with pytest.raises(Conflict, match="with other parameters"):
        cluster.ask(StartDag(name="etl", parameters={"day": "2"}, key="k"))
    for given, why in (({}, "needs a value for day"), ({"day": "1", "x": "2"}, "has no parameter x")):
        with pytest.raises(Invalid, match=why):
            cluster.ask(StartDag(name="etl", parameters=given))
    cluster.settle()
    (task_id,) = cluster.start()
    assert cluster.environment(task_id)["day"] == "1"


def test_a_run_goes_on_as_it_was_defined_when_the_dag_changes(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    run_id = start(cluster)
    put(cluster, step("other"))
    assert go(cluster) == [["a"], ["b", "c"], ["d"]]
    assert show(cluster, run_id)["version"] == 1
    start(cluster)
    assert go(cluster) == [["other"]]


def test_steps_are_no_jobs_of_chronos(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    start(cluster)
    assert cluster.ask(GetJobs()) == []
    cluster.ask(PurgeQueue())
    assert go(cluster) == [["a"], ["b", "c"], ["d"]], "a purge of the queue of jobs is none of a DAG's"


def test_a_deleted_dag_leaves_nothing(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    start(cluster)
    cluster.start()
    with pytest.raises(Conflict, match="1 run"):
        cluster.ask(DeleteDag(name="etl"))
    cluster.ask(DeleteDag(name="etl", force=True))
    cluster.settle()
    cluster.bury()
    cluster.settle()
    assert [key for key in cluster.records if key.startswith(("dag", "run/"))] == []
    assert cluster.ask(GetDags()) == {"dags": []}
    put(cluster, step("new"))
    start(cluster)
    assert go(cluster) == [["new"]]


def test_runs_are_forgotten_with_time(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(START, history_s=1000.0)
    put(cluster, *DIAMOND)
    run_id = start(cluster)
    go(cluster)
    cluster.advance(3000)
    with pytest.raises(NotFound):
        show(cluster, run_id)
    assert [key for key in cluster.records if key.startswith(("dagrun", "dagend"))] == []


@pytest.mark.parametrize("crash_after", range(12))
def test_a_crash_anywhere_loses_and_doubles_no_step(cluster: Cluster, crash_after: int) -> None:
    put(
        cluster,
        step("list", result=True),
        step("each", "list", array={"from": "list", "maxRunning": 2}),
        step("d", "each"),
    )
    run_id = start(cluster)
    ran: list[str] = []
    done = 0
    while show(cluster, run_id)["state"] == "running":
        done += 1
        if done == crash_after:
            cluster.recover()
        found = cluster.start(most=1)
        ran += [step_of(task_id) for task_id in found]
        if done + 1 == crash_after:
            cluster.recover()
        for task_id in list(cluster.tasks)[:1]:
            cluster.update(task_id, TaskState.FINISHED, data=b'["x", "y", "z"]')
    assert sorted(ran) == ["d", "each", "each", "each", "list"]
    cluster.recover()
    assert show(cluster, run_id)["state"] == "succeeded"
    assert cluster.start() == []


def test_many_steps_are_begun_a_few_with_each_input(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(START, most_writes=64)
    put(cluster, step("a"), *[step(f"s{n}", "a") for n in range(500)])
    run_id = start(cluster)
    go(cluster)
    assert show(cluster, run_id)["state"] == "succeeded"
    assert cluster.most_written <= 64 + 8


BAD: list[tuple[Json, str]] = [
    ({"name": "x", "steps": []}, "has no steps"),
    ({"name": "x/y", "steps": [step("a")]}, "name of the DAG is 'x/y'"),
    ({"name": "x", "steps": [step("a"), step("a")]}, "two steps 'a'"),
    ({"name": "x", "steps": [step("a", "nope")]}, "step 'a' comes after nope, which the DAG does not have"),
    ({"name": "x", "steps": [step("a", "a")]}, "a -> a"),
    ({"name": "x", "steps": [step("a", "c"), step("b", "a"), step("c", "b")]}, "a -> b -> c -> a"),
    ({"name": "x", "steps": [step("a", schedule="R/2026-01-01T00:00:00Z/P1D")]}, "step 'a' has schedule"),
    ({"name": "x", "steps": [step("a", when="maybe")]}, r"steps\[0\].when is 'maybe'"),
    ({"name": "x", "steps": [step("a", array={})]}, "one of count, items and from"),
    ({"name": "x", "steps": [step("a", array={"count": 1001})]}, "it must be of 1 to 1000"),
    (
        {"name": "x", "steps": [step("a"), step("b", "a", array={"from": "a"})]},
        "looks at the result of 'a', which has none",
    ),
    ({"name": "x", "steps": [step("a", result=True), step("b", array={"from": "a"})]}, "name that in its after too"),
    ({"name": "x", "steps": [step("a", result=3)]}, "result must be true or the name of a file"),
    (
        {"name": "x", "steps": [step("a", "b", **{"if": [{"step": "b"}]}), step("b", result=True)]},
        "must have one of equals",
    ),
    (
        {"name": "x", "steps": [step("a", "b", **{"if": [{"step": "b", "matches": "("}]}), step("b", result=True)]},
        "'\\('",
    ),
    ({"name": "x", "steps": [step("a", constraints=[["x", "NO", "y"]])]}, "step 'a': constraint"),
    ({"name": "x", "steps": [{"name": "a"}]}, "step 'a' has neither a command nor .* nothing to run"),
    ({"name": "x", "steps": [step("a")], "schedule": "sometimes"}, "schedule"),
    ({"name": "x", "steps": [step("a")], "nope": 1}, "nobody knows: nope"),
    ({"name": "x", "steps": [step("a", nope=1)]}, r"nobody knows: steps\[0\].nope"),
    (
        {"name": "x", "steps": [step("a", result=True), step("A", result=True), step("b", "a", "A")]},
        "both be CORRAL_RESULT_A",
    ),
    ({"name": "x", "steps": [step("a"), step("b", cpus=0.0001)]}, "step 'b': cpus is 0.0001"),
    ({"name": "x", "steps": [step("a", result="/etc/passwd")]}, "must be a file of the sandbox"),
    ({"name": "x", "steps": [step("a", result="out/../../x")]}, "must be a file of the sandbox"),
    ({"name": "x", "steps": [step("a", result="a\0")]}, "must be a file of the sandbox"),
    ({"name": "x", "steps": [step("a", array={"items": ["a\0"]})]}, "an item with a NUL"),
    ({"name": "x", "steps": [step("a")], "parameters": [{"name": "p"}, {"name": "p"}]}, "two parameters 'p'"),
    ({"name": "x", "steps": [step("a")], "parameters": [{"name": "p", "default": "\0"}]}, "parameter 'p' has a NUL"),
]


@pytest.mark.parametrize(("body", "why"), BAD)
def test_what_is_no_dag_is_refused_with_words(cluster: Cluster, body: Json, why: str) -> None:
    before = dict(cluster.records)
    with pytest.raises(CorralError, match=why):
        cluster.ask(PutDag(spec=read_dag(body)))
    assert cluster.records == before


def test_what_is_written_is_read_as_the_same(cluster: Cluster) -> None:
    spec = read_dag({
        "name": "x", "schedule": "R/2026-01-01T00:00:00Z/P1D", "scheduleTimeZone": "Europe/Paris", "owner": "a@b.c",
        "parameters": [{"name": "p"}, {"name": "q", "default": "1"}], "concurrencyPolicy": "replace", "disabled": True,
        "steps": [
            step("a", result="out", retries=3, retryDelay=1.5, cpus=0.5, mem=64, softError=True, runAsUser="nobody"),
            step("b", "a", array={"from": "a", "maxRunning": 3}, when="always", result=True),
            step("c", "a", "b", **{"if": [{"step": "a", "in": ["1", "2"]}, {"step": "b", "matches": "x.*"}]}),
            step("d", array={"items": ["p", "q"]}, container={"type": "DOCKER", "image": "busybox"}),
            step("e", array={"count": 4}, environmentVariables=[{"name": "A", "value": "b"}]),
        ],
    })  # fmt: skip
    assert read_dag(write_dag(spec, cluster.config)) == spec


def test_a_plan_tells_the_waves_and_changes_nothing(cluster: Cluster) -> None:
    put(cluster, *DIAMOND)
    before = dict(cluster.records)
    changed = read_dag({"name": "etl", "steps": [step("a"), step("b", "a", cpus=2), step("e", "b")]})
    assert cluster.ask(PlanDag(spec=changed)) == {
        "name": "etl", "new": False, "steps": 3, "waves": [["a"], ["b"], ["e"]], "added": ["e"], "changed": ["b"],
        "removed": ["c", "d"], "fields": [], "never": {},
    }  # fmt: skip
    assert cluster.records == before
    assert [row["name"] for row in cluster.ask(GetDag(name="etl"))["steps"]] == ["a", "b", "c", "d"]


def test_a_dag_that_is_put_again_as_it_is_stays(cluster: Cluster) -> None:
    put(cluster, *DIAMOND, schedule="R//P1D")
    put(cluster, *DIAMOND)
    before = dict(cluster.records)
    put(cluster, *DIAMOND)
    assert cluster.records == before


def test_a_plan_names_what_changes_of_the_dag_as_a_whole(cluster: Cluster) -> None:
    put(cluster, *DIAMOND, schedule="0 9 * * *", description="x")
    body = {"name": "etl", "steps": DIAMOND, "schedule": "0 9 * * *", "description": "x"}
    assert cluster.ask(PlanDag(spec=read_dag(body)))["fields"] == []
    body |= {"scheduleTimeZone": "Europe/Paris", "parameters": [{"name": "p"}], "disabled": True}
    found = cluster.ask(PlanDag(spec=read_dag(body)))
    assert (found["fields"], found["changed"]) == (["scheduleTimeZone", "parameters", "disabled"], [])


def test_steps_without_results_need_no_variables_of_their_own(cluster: Cluster) -> None:
    put(cluster, step("a-b"), step("a.b"), step("c", "a-b", "a.b"))
    run_id = start(cluster)
    go(cluster)
    assert show(cluster, run_id)["state"] == "succeeded"


def test_a_circle_among_ten_thousand_steps_is_found_at_once() -> None:
    """All others come after the circle, and each of them would have to be followed back to it."""
    steps = [step("b", "a"), step("a", "b"), *(step(f"s{n}", f"s{n - 1}" if n else "a") for n in range(9_998))]
    spec = read_dag({"name": "x", "steps": list(reversed(steps))})
    began = time.process_time()
    with pytest.raises(Invalid, match="step 'a' would wait for itself: a -> b -> a; take out"):
        check_graph(spec.steps)
    assert time.process_time() - began < 3, "it stands still for everybody meanwhile"


def test_of_a_very_long_circle_the_middle_is_left_out() -> None:
    spec = read_dag({"name": "x", "steps": [step(f"s{n}", f"s{(n - 1) % 500}") for n in range(500)]})
    with pytest.raises(Invalid) as caught:
        check_graph(spec.steps)
    assert "s0 -> s1 -> s2" in caught.value.message
    assert "s19 -> (461 more) -> s481" in caught.value.message
    assert "s499 -> s0;" in caught.value.message


def test_a_result_that_is_longer_than_expressions_are_checked_for_matches_none(cluster: Cluster) -> None:
    matches = {"if": [{"step": "a", "matches": "x.*x.*"}]}
    put(cluster, step("a", result=True), step("b", "a", **matches))
    for length, state in ((256, "queued"), (257, "skipped")):
        run_id = start(cluster)
        cluster.start()
        end(cluster, "a", data=b"x" * length)
        assert states(cluster, run_id)["b"] == state
    assert "a result of 257 characters, of which 256 are the most to match" in show(cluster, run_id)["steps"][1]["why"]


def test_a_step_that_would_be_told_too_much_fails_with_the_reason(cluster: Cluster) -> None:
    many = [step(f"s{n}", result=True) for n in range(65)]
    put(cluster, *many, step("all", *(s["name"] for s in many)), step("most", *(s["name"] for s in many[:64])))
    run_id = start(cluster)
    assert go(cluster, {s["name"]: b"x" * 4096 for s in many})[-1] == ["most"]
    found = {row["name"]: row for row in show(cluster, run_id)["steps"]}
    assert (found["most"]["state"], found["all"]["state"]) == ("succeeded", "failed")
    assert "the results of the 65 steps before it come to 266240 bytes, 262144 are passed on" in found["all"]["why"]


class Weighed(Cluster):
    """Shapes: `heaviest` is the most that one input has written, in bytes."""

    heaviest = 0

    def send(self, input: Any) -> None:
        before = dict(self.records)
        super().send(input)
        written = sum(len(record) for key, record in self.records.items() if before.get(key) is not record)
        self.heaviest = max(self.heaviest, written)


def test_what_elements_are_told_is_written_a_bounded_part_with_each_input() -> None:
    """A store takes so many bytes in one transaction and no more."""
    cluster = Weighed()
    cluster.subscribe()
    sources = [step(f"s{n}", result=True) for n in range(60)]
    put(cluster, *sources, step("each", *(s["name"] for s in sources), array={"count": 100}))
    run_id = start(cluster)
    for task_id in cluster.start():
        cluster.update(task_id, TaskState.FINISHED, data=b"x" * 4096)
    cluster.settle()
    assert [row["running"] for row in show(cluster, run_id)["steps"] if row["name"] == "each"] == [100]
    assert cluster.heaviest < 10 << 20, "all of it is 24 MB"


def test_a_step_that_is_tried_again_says_how_it_failed(cluster: Cluster) -> None:
    put(cluster, step("a", retries=1, retryDelay=10))
    run_id = start(cluster)
    cluster.start()
    cluster.fail()
    (row,) = show(cluster, run_id)["steps"]
    assert "its attempt 2 is made at" in row["why"]
    assert "; attempt 1 failed: " in row["why"]


def test_after_a_resume_what_no_longer_counts_is_not_shown(cluster: Cluster) -> None:
    put(cluster, step("a", array={"count": 3}), step("alarm", "a", when="failure"))
    run_id = start(cluster)
    go(cluster, failing=("a",))
    assert states(cluster, run_id) == {"a": "failed", "alarm": "succeeded"}
    cluster.ask(ResumeDag(run=run_id))
    cluster.settle()
    a, _ = show(cluster, run_id)["steps"]
    assert (a["counts"]["failed"], a["elements"]) == (0, [])
    go(cluster)
    _, alarm = show(cluster, run_id)["steps"]
    assert (alarm["state"], alarm["why"], alarm.get("taskId")) == ("skipped", "no step before it failed", None)


def test_a_step_after_very_many_names_some_of_them(cluster: Cluster) -> None:
    many = [step(f"s{n}") for n in range(30)]
    put(cluster, *many, step("z", *(s["name"] for s in many)))
    run_id = start(cluster)
    last = show(cluster, run_id)["steps"][-1]
    assert last["why"] == f"it comes after {', '.join(f's{n}' for n in range(10))} and 20 more"


@pytest.mark.parametrize("file", ["out", "out/x", "./out", "a/../out", "..out"])
def test_a_result_may_be_any_file_of_the_sandbox(file: str) -> None:
    assert read_dag({"name": "x", "steps": [step("a", result=file)]}).steps[0].job.result == file


def test_a_run_is_not_started_with_what_no_task_can_be_told(cluster: Cluster) -> None:
    put(cluster, step("a"), parameters=[{"name": "day"}])
    before = dict(cluster.records)
    for value, key, why in (
        ("a\0", "", "parameter 'day' has a NUL"),
        ("x" * 65537, "", "come to 65537 bytes, 65536 are the most"),
        ("x", "k" * 257, "has 257 characters, 256 are the most"),
    ):
        with pytest.raises(Invalid, match=why):
            cluster.ask(StartDag(name="etl", parameters={"day": value}, key=key))
    assert cluster.records == before


@pytest.mark.parametrize("crashes", [False, True])
def test_what_succeeded_stands_also_where_a_step_before_it_is_done_anew(cluster: Cluster, crashes: bool) -> None:
    put(cluster, step("a"), step("b", "a", when="always"), step("c", "a", when="always", array={"count": 2}))
    run_id = start(cluster)
    cluster.start()
    end(cluster, "a", TaskState.FAILED)
    for task_id in cluster.start():
        good = step_of(task_id) == "b" or cluster.environment(task_id)["CORRAL_ARRAY_INDEX"] == "1"
        cluster.update(task_id, TaskState.FINISHED if good else TaskState.FAILED)
    assert states(cluster, run_id) == {"a": "failed", "b": "succeeded", "c": "failed"}
    cluster.ask(ResumeDag(run=run_id))
    cluster.settle()
    cluster.start()
    assert running(cluster) == ["a"]
    end(cluster, "a")
    if crashes:
        cluster.recover()
    (again,) = cluster.start()
    assert (step_of(again), cluster.environment(again)["CORRAL_ARRAY_INDEX"]) == ("c", "0")
    cluster.finish(again)
    assert show(cluster, run_id)["state"] == "succeeded"
