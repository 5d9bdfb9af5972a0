"""The page on cron shows what is so: its table of schedules and its worked example are tried."""

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cron_driver import Cluster, due_of

from corral.frameworks.cron.schedule import EPOCH, list_between, read_schedule, to_ms
from corral.lib.units import parse_timestamp

PAGE = (Path(__file__).parents[3] / "docs/frameworks/cron.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """The cells of the table below this heading row."""
    table = PAGE.split(f"| {head} |\n")[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize("row", rows("schedule | zone | fires at"), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_schedule_fires_as_the_table_shows(row: list[str]) -> None:
    grid = read_schedule(row[0].strip("`"), row[1])
    found = [datetime.fromisoformat(at) for at in re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?:Z|[+-]\d\d:\d\d)", row[2])]
    if "2 s later" in row[2]:
        found.append(found[0] + timedelta(seconds=2))
    start = to_ms(found[0])
    got = list_between(grid, start, start + 10 * 366 * 86_400_000, len(found))
    assert [EPOCH + timedelta(milliseconds=ms) for ms in got] == found
    for ms, shown in zip(got, found, strict=True):
        assert (EPOCH + timedelta(milliseconds=ms)).astimezone(grid.zone).utcoffset() == shown.utcoffset()


@pytest.mark.parametrize("row", rows("policy | at 05:30 | then"), ids=lambda row: row[0])
def test_missed_firings_are_made_good_as_the_example_says(row: list[str]) -> None:
    cluster = Cluster(now=parse_timestamp("2026-01-01T00:00:00Z"))
    cluster.subscribe()
    (policy,) = re.findall(r"`(once|all|skip)`", row[0])
    epsilon = re.findall(r"PT\d+[MH]", row[0])
    cluster.put(
        "a", schedule="R/2026-01-01T01:00:00Z/PT1H", misfirePolicy=policy, epsilon=epsilon[0] if epsilon else None
    )
    cluster.advance(3600)
    assert cluster.cycle() == ["a"]
    cluster.crash(parse_timestamp("2026-01-01T05:30:00Z") - cluster.now)
    cluster.subscribe()
    ran = []
    while cluster.wanted():
        (task,) = cluster.start()
        ran.append(due_of(task)[11:16])
        cluster.finish()
    assert ran == re.findall(r"\d\d:\d\d", row[1])
    cluster.advance(1800)
    (task,) = cluster.start()
    assert due_of(task)[11:16] == row[2]
