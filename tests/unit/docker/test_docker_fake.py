"""What the fake node makes of a command."""

import pytest

from corral.docker.fake import RUNS_ON, Fate, foresee


def script(text: str) -> Fate:
    return foresee(("/bin/sh", "-c", text))


@pytest.mark.parametrize(
    ("argv", "fate"),
    [
        (("true",), Fate(after_s=0.0, code=0)),
        (("false",), Fate(after_s=0.0, code=1)),
        (("sleep", "2.5"), Fate(after_s=2.5, code=0)),
        (("sh", "-c", "exit 3"), Fate(after_s=0.0, code=3)),
        (("no-such-command", "x"), Fate(missing="no-such-command")),
        (("python", "-m", "app"), RUNS_ON),
        ((), RUNS_ON),
    ],
)
def test_a_few_commands_are_understood_and_all_others_run_on(argv: tuple[str, ...], fate: Fate) -> None:
    assert foresee(argv) == fate


def test_a_row_of_commands_adds_up() -> None:
    assert script("echo a 'b c'; sleep 1 && sleep 2; echo oops >&2; exit 300") == Fate(
        after_s=3.0, code=44, out="a b c\n", err="oops\n"
    )


def test_a_loop_runs_on_with_what_it_said_before() -> None:
    assert script("echo up; while sleep 10; do date -u +%T; done") == Fate(out="up\n")


def test_a_signal_of_its_own_ends_it() -> None:
    assert script("sleep 1; kill -9 $$") == Fate(after_s=1.0, signal=9)


def test_a_trap_says_what_becomes_of_a_stop() -> None:
    assert script("trap '' TERM; sleep 60").ignores_stop
    caught = script("trap 'sleep 0.5; exit 7' TERM; cat")
    assert (caught.after_s, caught.stop_code, caught.stop_s) == (None, 7, 0.5)


def test_words_that_no_shell_reads_run_on() -> None:
    assert script("echo 'open").after_s is None
