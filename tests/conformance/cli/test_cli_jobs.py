"""Jobs by the command line: added from files, run, shown, killed, backfilled, removed."""

import json
from collections.abc import Callable
from pathlib import Path

from corral_daemons import Answer, wait_until

Run = Callable[..., Answer]
FAR = "R/2040-01-01T00:00:00Z/P1D"


def add(run: Run, *jobs: dict[str, object], options: tuple[str, ...] = ()) -> Answer:
    body = [{"cpus": 0.1, "mem": 16, "disk": 1, **job} for job in jobs]
    return run("job", "add", "-", *options, stdin=json.dumps(body if len(body) > 1 else body[0]))


def test_a_file_of_jobs_is_added_parents_first_and_run_to_the_end_of_the_chain(run: Run, tmp_path: Path) -> None:
    answer = add(
        run,
        {"name": "load", "command": "echo loaded", "parents": ["extract"]},
        {"name": "extract", "command": "echo got $day", "schedule": FAR,
         "parameters": [{"name": "day", "default": "today"}]},
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "job extract accepted\njob load accepted\n")
    ran = run("job", "run", "extract", "-p", "day=monday", "--wait")
    assert ran.code == 0
    task = ran.err.splitlines()[-1].split()[-1]
    assert run("logs", task).out == "got monday\n"
    wait_until(lambda: run("job", "show", "load", "-o", "json").json["successCount"] == 1, "the child")
    listed = {row["name"]: row for row in run("job", "ls", "-o", "json").json}
    assert listed["load"]["parents"] == ["extract"]
    table = run("job", "ls", "-o", "wide").out
    assert "after extract" in table
    assert "echo loaded" in table
    shown = run("job", "show", "extract").out
    assert "next  2040-01-01T00:00:00.000Z" in shown
    assert run("job", "history", "extract").out.count("success") == 1
    assert "monday" not in run("job", "history", "extract").out
    assert "day=monday" in run("job", "history", "extract", "-o", "wide").out
    assert run("job", "rm", "extract").code == 0
    assert "schedule" in run("job", "show", "load", "-o", "json").json
    run("job", "rm", "load")


def test_a_run_that_fails_is_a_failure_of_the_command_that_waits_for_it(run: Run) -> None:
    add(run, {"name": "bad", "command": "exit 3", "schedule": FAR, "retries": 0})
    answer = run("job", "run", "bad", "--wait")
    assert answer.code == 1
    assert "job bad ended as failure" in answer.err
    run("job", "rm", "bad")


def test_a_job_that_nothing_can_hold_is_refused_and_taken_on_request_it_says_why_it_waits(run: Run) -> None:
    big = {"name": "big", "command": "true", "schedule": FAR, "cpus": 99}
    refused = add(run, big)
    assert refused.code == 2
    assert "no agent could ever run it: wants cpus 99, the most free is" in refused.err
    assert add(run, big, options=("--no-check",)).code == 0
    answer = run("job", "run", "big", "--wait", "--timeout", "2")
    assert answer.code == 1
    assert "wants cpus 99" in answer.err
    assert "waiting  no agent could ever run it: wants cpus 99" in run("job", "show", "big").out
    assert "wants cpus 99" in run("job", "ls").out
    run("job", "rm", "big")


def test_a_running_job_is_killed_and_a_range_is_run_once_more(run: Run) -> None:
    add(run, {"name": "long", "command": "sleep 1000", "schedule": FAR})
    run("job", "run", "long")
    wait_until(lambda: "running" in run("job", "show", "long").out, "the run")
    assert run("job", "kill", "long").code == 0
    wait_until(lambda: "killed" in run("job", "history", "long").out, "its end")
    run("job", "rm", "long")
    add(
        run,
        {
            "name": "fill",
            "command": "echo ${CORRAL_RUN_DUE%T*}",
            "schedule": "R/2026-01-01T00:00:00Z/P1D",
            "misfirePolicy": "skip",
        },
    )
    answer = run("job", "backfill", "fill", "2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z")
    assert answer.err == "job fill runs 2 times more\n"
    wait_until(lambda: run("job", "show", "fill", "-o", "json").json["successCount"] == 2, "both")
    tasks = [one["taskId"] for one in run("job", "history", "fill", "-o", "json").json["attempts"]]
    assert len(tasks) == 2
    assert {run("job", "logs", "fill").out, run("job", "logs", "fill", tasks[0]).out} == {"2026-01-03\n"}
    assert run("job", "logs", "fill", tasks[1]).out == "2026-01-02\n"
    assert "no attempt with the task" in run("job", "logs", "fill", "x").err
    stopped = run("job", "backfill", "fill", "--stop")
    assert (stopped.code, "has no backfill under way" in stopped.err) == (2, True)
    assert run("job", "backfill", "fill").code == 2
    run("job", "rm", "fill")


def test_what_is_wrong_is_said_in_one_line(run: Run) -> None:
    assert run("job", "add", "-", stdin="{").code == 2
    assert "job without a name" in run("job", "add", "-", stdin="[{}]").err
    refused = add(run, {"name": "bad", "command": "true", "schedule": "tomorrow"})
    assert refused.code == 2
    assert "neither R[n]/start/period" in refused.err
    circle = add(run, {"name": "a", "command": "x", "parents": ["b"]}, {"name": "b", "command": "x", "parents": ["a"]})
    assert "do not exist" in circle.err
    assert "'nobody' does not exist" in run("job", "show", "nobody").err
    assert "NAME=VALUE" in run("job", "run", "nobody", "-p", "x").err
