"""What the commands that only look show, in each form."""

import time
from collections.abc import Callable

import pytest
import yaml
from corral_daemons import Answer, Daemon, run_corral

Run = Callable[..., Answer]


@pytest.mark.parametrize(
    ("words", "expected", "more_when_wide"),
    [
        (("nodes",), ["127.0.0.1", "reachable", "process"], ["rack=r1", "http://127.0.0.1:"]),
        (("ps",), ["ticker.instance-", "running"], ["-S0", "-0000"]),
        (("status",), ["/ticker", "/huge", "/broken"], ["not found in PATH"]),
        (("status", "ticker"), ["1/1 running", "ticker.instance-"], ["-S0"]),
        (("explain",), ["huge", "could ever hold one", "fits if mem"], []),
    ],
)
def test_a_view_has_a_table_a_wide_table_json_and_yaml(
    run: Run, words: tuple[str, ...], expected: list[str], more_when_wide: list[str]
) -> None:
    table, wide, data, document = (run(*words, *form) for form in ((), ("-o", "wide"), ("-o", "json"), ("-o", "yaml")))
    assert [a.code for a in (table, wide, data, document)] == [0, 0, 0, 0]
    for text in expected:
        assert text in table.out
        assert text in wide.out
    for text in more_when_wide:
        assert text in wide.out
    assert type(data.json) is type(yaml.safe_load(document.out))
    assert data.json
    for answer in (table, wide, data, document):
        assert "\x1b" not in answer.out


def test_an_app_of_a_terabyte_says_node_by_node_why_it_never_fits(run: Run) -> None:
    answer = run("explain", "huge")
    assert answer.code == 0
    assert "no agent of this cluster could ever hold one" in answer.out
    assert "wants mem 1000000" in answer.out
    assert "127.0.0.1" in answer.out
    assert "fits if mem" in answer.out
    (one,) = run("explain", "huge", "-o", "json").json
    assert one["never"] is True
    assert one["waiting"] == 1
    assert sum(r["agents"] for r in one["refusals"]) == one["agents"] == 1
    assert "wants mem 1000000" in run("status", "huge").out


def test_explain_of_an_app_that_runs_or_fails_says_so(run: Run) -> None:
    assert "/ticker does not wait for resources: 1/1 running" in run("explain", "ticker").out
    assert "'no-such-command' not found in PATH" in run("explain", "broken").out


def test_the_last_failure_of_a_command_that_does_not_exist_is_shown(run: Run) -> None:
    answer = run("status", "broken")
    assert "last failure  failed on 127.0.0.1: command 'no-such-command' not found in PATH" in answer.out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("status", "nope"), "corral status lists the apps"),
        (("scale", "nope", "2"), "corral status lists the apps"),
        (("stop", "nope"), "corral status lists the apps"),
        (("app", "destroy", "nope"), "corral status lists the apps"),
        (("explain", "nope"), "corral status lists the apps"),
        (("logs", "nope"), "corral ps lists the tasks"),
        (("exec", "nope", "--", "true"), "corral ps lists the tasks"),
    ],
)
def test_a_name_that_does_not_exist_is_exit_code_3_with_the_next_step(
    run: Run, words: tuple[str, ...], hint: str
) -> None:
    answer = run(*words)
    assert answer.code == 3
    assert answer.err.startswith("corral: ")
    assert answer.err.count("\n") == 1
    assert hint in answer.err


def test_events_tell_what_happened_and_why(run: Run) -> None:
    lines = run("events").out.splitlines()
    assert any("app can never run" in line and "why=" in line for line in lines)
    assert any("task launched" in line and "app=/ticker" in line for line in lines)
    first = run("events", "-o", "json").out.splitlines()[0]
    assert '"component"' in first
    assert '"why"' in first


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    answer = run_corral("", "completion", shell)
    assert answer.code == 0
    assert "_CORRAL_COMPLETE" in answer.out


def test_completion_offers_the_commands() -> None:
    answer = run_corral("", _CORRAL_COMPLETE="bash_complete", COMP_WORDS="corral sta", COMP_CWORD="1")
    assert answer.out.strip() == "plain,status"


def test_a_view_is_shown_again_until_ctrl_c(cluster: Daemon) -> None:
    import signal
    import subprocess

    from corral_daemons import CORRAL, clean_environment

    watching = subprocess.Popen(
        [*CORRAL, "ps", "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment(CORRAL_ADDR=cluster.url),
    )  # fmt: skip
    assert watching.stdout is not None
    seen = 0
    deadline = time.monotonic() + 15
    while seen < 2 and time.monotonic() < deadline:
        seen += "ticker.instance-" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=10)
    assert seen == 2
    assert watching.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err
