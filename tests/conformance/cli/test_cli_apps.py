"""Starting, changing and stopping apps."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from corral_daemons import CORRAL, Answer, Daemon, clean_environment, read_app
from tests.own_ports import task_ports

Run = Callable[..., Answer]


def test_an_app_is_run_scaled_and_stopped(run: Run) -> None:
    started = run("run", "--process", "--name", "life", "-p", "0", "-e", "WORD=x", "--", "sh", "-c", "sleep 1000")
    assert started.code == 0
    assert "app /life accepted" in started.err
    assert "app /life: 1/1 running" in started.err
    (line,) = started.out.splitlines()
    task, where = line.split()
    assert task.startswith("life.instance-")
    host, _, port = where.partition(":")
    assert (host, int(port) in task_ports()) == ("127.0.0.1", True)

    scaled = run("scale", "life", "2")
    assert scaled.code == 0
    assert len(scaled.out.splitlines()) == 2
    assert len(run("status", "life", "-o", "json").json["tasks"]) == 2

    again = run("run", "--process", "--name", "life", "--", "true")
    assert again.code == 4
    assert "app /life exists already" in again.err
    assert "corral scale" in again.err

    stopped = run("stop", "life")
    assert (stopped.code, stopped.err) == (0, "app /life stopped\n")
    assert run("status", "life").code == 3
    assert [t for t in run("ps", "-o", "json").json if t["group"] == "/life"] == []


def test_run_tells_while_it_waits_and_at_the_end_why_nothing_runs(run: Run) -> None:
    answer = run("run", "--process", "--name", "wide", "--cpus", "99", "--timeout", "1", "--", "true")
    assert answer.code == 1
    waits, ended = [line for line in answer.err.splitlines() if "wants cpus 99" in line]
    assert waits.startswith("app /wide waits: ")
    assert "could ever hold one" in waits
    assert ended.startswith("corral: app /wide has 0/1 running after 1 s: ")
    run("stop", "wide")


def test_run_of_an_image_without_docker_says_what_is_missing(run: Run) -> None:
    answer = run("run", "busybox", "--name", "boxed", "--timeout", "1")
    assert answer.code == 1
    assert "wants the runtime docker, 127.0.0.1 runs process" in answer.err
    assert "fits if runtime process" in run("explain", "boxed").out
    run("stop", "boxed")


def test_ctrl_c_while_following_leaves_the_app(cluster: Daemon, run: Run) -> None:
    command = [*CORRAL, "run", "--process", "--name", "left", "--cpus", "99", "--", "true"]
    following = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment(CORRAL_ADDR=cluster.url),
    )  # fmt: skip
    assert following.stderr is not None
    while "waits" not in following.stderr.readline():
        assert following.poll() is None
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=10)
    assert following.returncode == 130
    assert err.endswith("corral: interrupted\n")
    assert "Traceback" not in err
    assert read_app(cluster.url, "left")["instances"] == 1
    run("stop", "left")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--process", "--name", "Bad Name", "--", "true"), "segments are lower-case letters"),
        (("run", "--process", "--cpus", "-1", "--name", "x", "--", "true"), "must be 0 or more"),
        (("run", "--process", "--constraint", "rack", "--name", "x", "--", "true"), "[field, operator]"),
        (("run", "--process", "--timeout", "inf", "--", "true"), "not in the range"),
        (("scale", "ticker", "-1"), "--help"),
        (("logs", "ticker", "-n", "-3"), "is not in the range"),
        (("nodes", "-o", "xml"), "is not one of"),
        (("app", "apply", "/does/not/exist.json"), "does not exist"),
    ],
)
def test_words_that_are_wrong_are_exit_code_2(run: Run, words: tuple[str, ...], message: str) -> None:
    answer = run(*words)
    assert answer.code == 2, answer
    assert message in answer.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id":"x","cmd":"true"', "is not JSON"),
        ("[1]", "without an id"),
        ('{"cmd":"true"}', "without an id"),
        ('{"id":"x","cmd":"true","instances":"three"}', "/instances: must be a whole number"),
        ('{"id":"x"}', "cmd"),
    ],
)
def test_an_app_file_that_is_wrong_names_the_place(run: Run, text: str, message: str) -> None:
    answer = run("app", "apply", "-", stdin=text)
    assert answer.code == 2, answer
    assert answer.err.startswith("corral: ")
    assert message in answer.err


def test_an_app_file_is_applied_changed_and_destroyed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "app.json"
    app = {"id": "filed", "cmd": "sleep 1000", "cpus": 0.1, "mem": 16, "instances": 1}
    file.write_text(json.dumps(app))
    assert run("app", "apply", str(file)).code == 0
    before = run("status", "filed", "-o", "json").json["tasks"][0]["id"]
    unchanged = run("app", "apply", str(file))
    assert unchanged.code == 0
    assert before in unchanged.out
    file.write_text(json.dumps([{**app, "cmd": "sleep 2000"}]))
    changed = run("app", "apply", str(file))
    assert changed.code == 0
    assert before not in changed.out
    assert run("app", "destroy", "filed").code == 0
