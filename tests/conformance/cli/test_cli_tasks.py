"""Reaching into tasks: logs and exec."""

import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable

from corral_daemons import CORRAL, Answer, Daemon, clean_environment
from tests.own_ports import task_ports

Run = Callable[..., Answer]


def start(addr: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*CORRAL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment(CORRAL_ADDR=addr),
    )  # fmt: skip


def test_logs_show_standard_output_and_standard_error_apart(run: Run) -> None:
    out = run("logs", "ticker")
    assert out.code == 0
    first, port = out.out.split()[:2]
    assert (first, int(port) in task_ports()) == ("first", True)
    assert "warning" not in out.out
    assert run("logs", "ticker", "--stderr").out == "warning\n"
    assert run("logs", "ticker", "-n", "2").out == "tick\ntick\n"


def test_logs_follow_until_ctrl_c(cluster: Daemon) -> None:
    following = start(cluster.url, "logs", "-f", "ticker")
    assert following.stdout is not None
    assert following.stdout.readline().startswith("first")
    before = time.monotonic()
    lines = [following.stdout.readline() for _ in range(400) if time.monotonic() - before < 1.5]
    assert lines[-1] == "tick\n"
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=10)
    assert following.returncode == 130
    assert err.strip() == "corral: interrupted"


def test_logs_into_a_reader_that_has_enough_end_quietly(cluster: Daemon) -> None:
    following = start(cluster.url, "logs", "-f", "ticker")
    assert following.stdout is not None
    following.stdout.readline()
    following.stdout.close()
    assert following.wait(10) == 0
    assert following.stderr is not None
    assert following.stderr.read() == ""


def test_logs_of_a_task_by_its_id_end_with_the_task(cluster: Daemon, run: Run) -> None:
    (task,) = [t for t in run("ps", "-a", "-o", "json").json if t["group"] == "/ticker"]
    assert run("logs", task["id"], "-n", "1").out == "tick\n"


def test_exec_passes_output_exit_code_and_arguments(run: Run) -> None:
    answer = run("exec", "ticker", "--", "sh", "-c", "echo out; echo err >&2; echo $1; exit 7", "x", "a b")
    assert answer.code == 7
    assert answer.out == "out\na b\n"
    assert answer.err == "err\n"


def test_exec_sees_the_environment_of_the_task(run: Run) -> None:
    assert run("exec", "ticker", "--", "sh", "-c", "echo $MARATHON_APP_ID").out == "/ticker\n"


def test_exec_passes_standard_input_only_when_asked(run: Run) -> None:
    data = "line\n" * 20_000
    answer = run("exec", "-i", "ticker", "--", "sh", "-c", "wc -c", stdin=data)
    assert (answer.code, answer.out.strip()) == (0, str(len(data)))
    assert run("exec", "ticker", "--", "cat", stdin="ignored").out == ""


def test_exec_of_a_command_that_does_not_exist_is_127(run: Run) -> None:
    answer = run("exec", "ticker", "--", "no-such-command")
    assert answer.code == 127
    assert "no-such-command" in answer.err


def test_exec_of_a_command_ended_by_a_signal_is_128_and_the_signal(run: Run) -> None:
    assert run("exec", "ticker", "--", "sh", "-c", "kill -9 $$").code == 137


def test_exec_in_an_app_without_a_running_instance_says_so(run: Run) -> None:
    answer = run("exec", "broken", "--", "true")
    assert answer.code == 3
    assert "no instance of 'broken' is running now" in answer.err


def test_exec_with_a_terminal_needs_one(run: Run) -> None:
    answer = run("exec", "-t", "ticker", "--", "true")
    assert answer.code == 2
    assert "leave -t out" in answer.err


def test_exec_ends_with_ctrl_c_and_so_does_its_command(cluster: Daemon, run: Run) -> None:
    session = start(cluster.url, "exec", "ticker", "--", "sh", "-c", "echo begun; exec sleep 4321")
    assert session.stdout is not None
    assert session.stdout.readline() == "begun\n"
    session.send_signal(signal.SIGINT)
    _, err = session.communicate(timeout=10)
    assert session.returncode == 130
    assert "Traceback" not in err
    for _ in range(100):
        if run("exec", "ticker", "--", "sh", "-c", "ps ax | grep -c '[s]leep 4321'").out.strip() == "0":
            return
        time.sleep(0.1)
    raise AssertionError("the command of a session that was left runs on")


def test_exec_with_a_terminal_is_one_inside_as_well(cluster: Daemon) -> None:
    ours, theirs = pty.openpty()
    session = subprocess.Popen(
        [*CORRAL, "exec", "-it", "ticker", "--", "sh", "-c", "tty; read x; echo got $x; exit 3"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=clean_environment(CORRAL_ADDR=cluster.url),
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while b"/dev/pts/" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"word\r")
        while b"got word" not in seen:
            seen += os.read(ours, 4096)
        assert session.wait(10) == 3
    finally:
        session.kill()
        session.wait(5)
        os.close(ours)
