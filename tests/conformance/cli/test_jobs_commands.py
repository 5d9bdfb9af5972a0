"""The commands about jobs, DAGs and batch jobs that other tests leave out, and what they say of nonsense."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from corral_daemons import CORRAL, Answer, Site, clean_environment, run_corral, wait_until

Run = Callable[..., Answer]
FAR = "R/2040-01-01T00:00:00Z/P1D"


def add(run: Run, *jobs: dict[str, object]) -> None:
    body = [{"command": "true", "cpus": 0.1, "mem": 16, "disk": 1, **job} for job in jobs]
    answer = run("job", "add", "-", stdin=json.dumps(body))
    assert answer.code == 0, answer.err


def successes(run: Run, name: str) -> int:
    count: int = run("job", "show", name, "-o", "json").json["successCount"]
    return count


# Jobs.


def test_a_marked_job_has_its_children_run_without_running_itself(run: Run) -> None:
    add(run, {"name": "top", "schedule": FAR}, {"name": "sub", "parents": ["top"]})
    assert run("job", "mark", "top").err == "job top is marked as succeeded\n"
    wait_until(lambda: successes(run, "sub") == 1, "the child")
    assert run("job", "history", "top", "-o", "json").json["attempts"] == []
    assert "does not exist" in run("job", "mark", "nobody").err
    for name in ("sub", "top"):
        run("job", "rm", name)


def test_a_job_is_disabled_and_enabled_and_keeps_all_else(run: Run) -> None:
    add(run, {"name": "still", "schedule": FAR, "retries": 7})
    before = run("job", "show", "still", "-o", "json").json
    assert run("job", "disable", "still").code == 0
    assert "disabled" in run("job", "ls").out
    refused = run("job", "run", "still", "--wait", "--timeout", "5")
    assert refused.code == 1
    assert "is disabled" in refused.err
    assert run("job", "enable", "still").code == 0
    assert run("job", "show", "still", "-o", "json").json == before
    assert run("job", "run", "still", "--wait").code == 0
    run("job", "rm", "still")


def test_the_graph_and_the_statistics_are_printed(run: Run) -> None:
    add(run, {"name": "one", "schedule": FAR}, {"name": "two", "parents": ["one"]})
    dot = run("job", "graph").out
    assert dot.startswith("digraph G {")
    assert 'label="two"' in dot
    assert "link,one,two" in run("job", "graph", "--csv").out.splitlines()
    assert run("job", "run", "one", "--wait").code == 0
    (row,) = [row for row in run("job", "stats", "-o", "json").json if row["job"] == "one"]
    assert 0 < row["median"] <= row["p95"] <= row["p99"]
    assert "one" in run("job", "stats").out
    for name in ("two", "one"):
        run("job", "rm", name)


def test_a_job_shows_what_became_of_its_last_attempt(run: Run) -> None:
    add(run, {"name": "sour", "schedule": FAR, "command": "exit 4", "retries": 0})
    run("job", "run", "sour", "--wait")
    shown = run("job", "show", "sour").out
    assert "last error  20" in shown
    assert "Command exited with status 4" in shown
    run("job", "rm", "sour")


def test_fields_that_nobody_knows_are_told_of(run: Run) -> None:
    body = {"name": "odd", "command": "true", "cpus": 0.1, "mem": 16, "disk": 1, "schedule": FAR, "colour": "red"}
    answer = run("job", "add", "-", stdin=json.dumps(body))
    assert answer.code == 0
    assert "fields that nobody knows are left out: colour" in answer.err
    run("job", "rm", "odd")


@pytest.mark.parametrize(
    "command", [("job", "add"), ("dag", "apply"), ("dag", "plan"), ("batch", "submit", "--file"), ("app", "apply")]
)
def test_a_file_that_is_no_text_or_no_json_is_refused_in_words(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "given"
    file.write_bytes(b"\xff\xfe")
    answer = run(*command, str(file))
    assert (answer.code, "is no text in UTF-8: byte 0 is 0xff" in answer.err) == (2, True), answer.err
    file.write_text("{")
    answer = run(*command, str(file))
    assert (answer.code, "JSON" in answer.err) == (2, True), answer.err


def test_an_empty_list_of_jobs_is_no_success(run: Run) -> None:
    answer = run("job", "add", "-", stdin="[]")
    assert (answer.code, answer.err) == (2, "corral: - holds no jobs\n")


# DAGs.


def test_a_dag_is_shown_as_it_can_be_applied_again(run: Run, tmp_path: Path) -> None:
    small = {"command": "true", "cpus": 0.1, "mem": 16, "disk": 1}
    steps = [
        {"name": "list", **small, "result": True},
        {
            "name": "each",
            **small,
            "after": ["list"],
            "array": {"from": "list"},
            "if": [{"step": "list", "differs": "x"}],
        },
        {"name": "alarm", **small, "after": ["each"], "when": "failure"},
    ]  # fmt: skip
    body = {"name": "round", "schedule": FAR, "parameters": [{"name": "day", "default": "t"}], "steps": steps}
    assert run("dag", "apply", "-", stdin=json.dumps(body)).code == 0
    file = tmp_path / "round.json"
    file.write_text(run("dag", "show", "round").out)
    planned = run("dag", "plan", str(file), "-o", "json").json
    assert (planned["new"], planned["added"], planned["changed"], planned["removed"]) == (False, [], [], [])
    assert run("dag", "apply", str(file)).code == 0
    assert run("dag", "show", "round").out == file.read_text()
    assert run("dag", "show", "nobody").code == 3
    run("dag", "rm", "round")


def test_a_dag_that_could_never_run_is_refused_and_taken_on_request_says_why_it_waits(run: Run) -> None:
    steps = [
        {"name": "huge", "command": "true", "mem": 99_000_000},
        {"name": "then", "command": "true", "after": ["huge"]},
    ]
    body = json.dumps({"name": "giant", "steps": steps})
    refused = run("dag", "apply", "-", stdin=body)
    assert refused.code == 2
    assert "'huge' is not taken, as no agent could ever run it: wants mem 99000000" in refused.err
    planned = run("dag", "plan", "-", stdin=body)
    assert planned.code == refused.code
    assert "step 'huge' would not be taken, as no agent could ever run it: wants mem 99000000" in planned.err
    assert [line.split()[:2] for line in planned.out.splitlines()[1:]] == [["1", "huge"], ["2", "then"]]
    assert run("dag", "plan", "-", "--no-check", stdin=body).code == 0
    assert run("dag", "apply", "-", "--no-check", stdin=body).code == 0
    started = run("dag", "run", "giant").out.strip()
    wait_until(lambda: "wants mem 99000000" in run("dag", "status", started).out, "the reason")
    assert "it comes after huge" in run("dag", "status", started).out
    assert run("dag", "run", "giant", "--wait", "--timeout", "1").code == 1
    assert run("dag", "rm", "giant", "--force").code == 0


def test_a_run_that_fails_is_followed_told_of_and_resumed(run: Run, tmp_path: Path) -> None:
    small = {"cpus": 0.1, "mem": 16, "disk": 1}
    mark = tmp_path / "mark"
    steps = [
        {"name": "a", "command": "true", **small},
        {"name": "b", "command": f"test -e {mark}", "after": ["a"], "retries": 1, "retryDelay": 1, **small},
        {"name": "c", "command": "true", "after": ["b"], **small},
    ]
    assert run("dag", "apply", "-", stdin=json.dumps({"name": "mend", "steps": steps})).code == 0
    failed = run("dag", "run", "mend", "--wait")
    run_id = failed.out.strip()
    assert failed.code == 1
    assert "attempt 1 failed: Command exited with status 1" in failed.err, "the wait for the next attempt is told of"
    assert "c  skipped  step b failed" in failed.err
    assert f"resume it with corral dag resume {run_id}" in failed.err
    mark.touch()
    resumed = run("dag", "resume", run_id, "--wait")
    assert (resumed.code, resumed.err.splitlines()[-1]) == (0, f"run {run_id} succeeded")
    assert run("dag", "resume", run_id).code == 4
    run("dag", "rm", "mend")


def test_a_long_or_unprintable_result_leaves_the_table_readable(run: Run) -> None:
    small = {"cpus": 0.1, "mem": 16, "disk": 1, "result": True}
    steps = [
        {"name": "long", "command": "printf '%0500d' 0 > result", **small},
        {"name": "odd", "command": "printf 'a\\033[31m\\nb' > result", **small},
    ]
    assert run("dag", "apply", "-", stdin=json.dumps({"name": "show", "steps": steps})).code == 0
    run_id = run("dag", "run", "show", "--wait").out.strip()
    table = run("dag", "status", run_id).out
    assert "\033" not in table
    assert "a?[31m?b" in table
    assert f" {'0' * 60}… " in table
    assert f" {'0' * 500} " in run("dag", "status", run_id, "-o", "wide").out
    assert run("dag", "status", run_id, "-o", "json").json["steps"][0]["result"] == "0" * 500
    run("dag", "rm", "show")


def test_a_run_is_followed_over_the_death_of_its_master(daemons: Site, tmp_path: Path) -> None:
    master = daemons.master()
    daemons.agent(master.url)
    step = {
        "name": "a",
        "command": f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done",
        "cpus": 0.1,
        "mem": 16,
        "disk": 1,
    }
    body = json.dumps({"name": "long", "steps": [step]})
    assert run_corral(master.url, "dag", "apply", "--no-check", "-", stdin=body).code == 0
    words = [*CORRAL, "dag", "run", "long", "--wait"]
    environment = clean_environment(CORRAL_ADDR=master.url)
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as following:
        assert following.stderr is not None
        wait_until(lambda: b"a  running" in following.stderr.readline(), "the start")
        master.kill()
        wait_until(lambda: b"the run goes on, and is waited for" in following.stderr.readline(), "the silence")
        daemons.master(listen=master.url.removeprefix("http://"))
        (tmp_path / "go").touch()
        rest = following.stderr.read().decode()
    assert (following.returncode, "succeeded" in rest) == (0, True), rest


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("apply",), 2, "'sales/eu' is no name of a DAG"),
        (("run", "sales/eu"), 2, "'sales/eu' is no name of a DAG"),
        (("show", ""), 2, "'' is no name of a DAG"),
        (("kill", "a/b"), 2, "'a/b' is no name of a run of a DAG"),
        (("status", "nobody"), 3, "there is no DAG and no run 'nobody'"),
        (("resume", "nobody"), 3, "there is no run 'nobody' of a DAG"),
    ],
)
def test_what_can_be_no_dag_is_told_in_words(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    body = json.dumps({"name": "sales/eu", "steps": [{"name": "a", "command": "true"}]})
    answer = run("dag", *words, *(["-"] if words == ("apply",) else []), stdin=body)
    assert (answer.code, said in answer.err) == (code, True), answer.err


# Batch.


def test_all_that_a_batch_job_may_say_can_be_said_on_the_command_line(run: Run) -> None:
    answer = run(
        "batch", "submit", "--name", "full", "--owner", "ada", "--cpus", "0.1", "--mem", "16", "--disk", "1",
        "--priority", "3", "--retries", "2", "--retry-delay", "1.5", "--timeout", "60", "--queue-timeout", "600",
        "--at-most-once", "--array", "3", "--max-running", "1", "--constraint", "hostname:LIKE:.*", "--env", "A=b=c",
        "--label", "night=monday", "--wait", "--", "test $A = b=c",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "1 job succeeded" in answer.err
    found = run("batch", "show", answer.out.strip(), "-o", "json").json
    assert found["array"] == {"count": 3, "max_running": 1}
    assert (found["delivery"], found["retry_delay"], found["queue_timeout"]) == ("at-most-once", 1.5, 600.0)
    assert (found["constraints"], found["env"]) == ([["hostname", "LIKE", ".*"]], {"A": "b=c"})


def test_a_batch_job_that_waits_says_why_everywhere_and_can_be_given_another_priority(run: Run) -> None:
    job = run("batch", "submit", "--cpus", "99", "--no-check", "--", "true").out.strip()
    why = "no agent could ever run it: wants cpus 99"
    wait_until(lambda: why in run("batch", "ls").out, "the reason")
    assert why in run("batch", "show", job).out
    log = run("batch", "logs", job)
    assert log.code == 3
    assert f"job {job} has not been launched yet, so there is no log: {why}" in log.err
    waited = run("batch", "wait", job, "--timeout", "1")
    assert waited.code == 1
    assert f"1 job not over after 1 s; {job} is QUEUED: {why}" in waited.err
    assert run("batch", "prioritize", job, "7").err == f"job {job} has priority 7\n"
    assert run("batch", "prioritize", job, "700").code == 2
    assert run("batch", "cancel", job, job).err == "1 job is ended\n"
    assert run("batch", "prioritize", job, "7").code == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("submit",), "give a command behind --"),
        (("submit", "--max-running", "2", "--", "true"), "is for the elements of an --array"),
        (("submit", "--constraint", "rack", "--", "true"), "is not of the form FIELD:OPERATOR:VALUE"),
        (("submit", "--env", "A", "--", "true"), "'A' is not of the form NAME=VALUE"),
        (("submit", "--priority", "500", "--", "true"), "500 is outside of -100 to 100"),
        (("submit", "--array", "0", "--", "true"), "0 is outside of 1 to"),
        (("cancel",), "name jobs, or give --owner, --label or --state"),
        (("cancel", "--state", "LOST"), "state 'LOST' is not known; there are QUEUED"),
        (("ls", "--state", "LOST"), "state 'LOST' is not known; there are QUEUED"),
        (("owner", "ada", "--weight", "-1"), "weight is -1"),
    ],
)
def test_what_cannot_be_meant_of_batch_jobs_is_told(run: Run, words: tuple[str, ...], said: str) -> None:
    answer = run("batch", *words)
    assert (answer.code, said in answer.err) == (2, True), answer.err
