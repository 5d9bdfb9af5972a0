"""Tables as they go into a pipe."""

import time

import pytest

from corral.cli.output import show_table


def test_a_table_in_a_pipe_is_one_line_a_row_and_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["name", "why"], [("a", None), ("東京", "two\nlines"), ("b", "x" * 20_000)])
    head, *rows = capsys.readouterr().out.splitlines()
    assert (head.split(), [row.split() for row in rows[:2]]) == (
        ["NAME", "WHY"],
        [["a", "-"], ["東京", "two", "lines"]],
    )
    assert rows[1].startswith("東京  two"), "a wide character takes two places"
    assert rows[0].startswith("a     -")
    assert rows[2] == f"b     {'x' * 20_000}"


def test_ten_thousand_rows_are_shown_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.process_time()
    show_table(["wave", "step", "change"], ((n // 100, f"step-{n}", "added") for n in range(10_000)))
    assert time.process_time() - began < 1
    assert len(capsys.readouterr().out.splitlines()) == 10_001
