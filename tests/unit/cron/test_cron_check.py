"""What would become of job definitions: each is judged as putting it would judge it, and nothing is changed."""

import time
from typing import Any

import pytest
from cron_driver import Cluster

from corral.frameworks.cron.check import CheckJobs
from corral.frameworks.cron.chronos import read_job


def check(cluster: Cluster, *bodies: dict[str, Any]) -> list[tuple[str, str, str]]:
    before = dict(cluster.records)
    jobs = tuple((body["name"], read_job({"command": "echo", **body})) for body in bodies)
    rows = cluster.ask(CheckJobs(jobs=jobs))
    assert cluster.records == before
    return [(row["name"], row["verdict"], "; ".join(row["notes"])) for row in rows]


def test_jobs_are_new_changed_or_the_same(cluster: Cluster) -> None:
    daily = {"name": "a", "command": "echo a", "schedule": "R/2026-02-01T00:00:00Z/P1D"}
    cluster.put(**daily)
    assert check(cluster, daily) == [("a", "same", "")]
    assert check(cluster, {**daily, "command": "echo b"}) == [("a", "changed", "command 'echo a' -> 'echo b'")]
    later = "R/2026-03-01T00:00:00Z/P1D"
    assert check(cluster, {**daily, "schedule": later}) == [
        ("a", "changed", f"schedule '{daily['schedule']}' -> '{later}'")
    ]
    ((_, verdict, why),) = check(cluster, {"name": "a", "command": "x" * 99, "parents": ["a2"], "cpus": 2, "mem": 3,
                                           "retries": 9, "owner": "ada"}, {**daily, "name": "a2"})[:1]  # fmt: skip
    assert verdict == "changed"
    assert f"command 'echo a' -> '{'x' * 59}…" in why
    assert why.endswith("3 more fields change"), why
    assert check(cluster, {**daily, "name": "b"}) == [("b", "new", "")]
    past = {"name": "c", "schedule": "R/2014-03-01T00:00:00Z/P1D"}
    assert check(cluster, past)[0][1:] == (
        "new",
        "its start has passed, so it runs once as soon as it is here and enabled",
    )
    cluster.put(command="echo", **past)
    assert check(cluster, past) == [("c", "same", "")]


def test_a_parent_may_stand_among_the_jobs(cluster: Cluster) -> None:
    root = {"name": "root", "schedule": "R/2026-02-01T00:00:00Z/PT1H"}
    assert check(cluster, {"name": "child", "parents": ["root"]}, root) == [("child", "new", ""), ("root", "new", "")]
    ((_, verdict, why),) = check(cluster, {"name": "child", "parents": ["root"]})
    assert (verdict, why) == ("refused", "job 'child' names the parents root, which do not exist; create them first")


def test_jobs_that_would_wait_for_one_another_are_refused_with_the_path(cluster: Cluster) -> None:
    found = check(cluster, {"name": "a", "parents": ["b"]}, {"name": "b", "parents": ["a"]})
    assert [verdict for _, verdict, _ in found] == ["refused", "refused"]
    assert "a -> b -> a" in found[0][2]


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ({"schedule": "R/2026-02-01T09:00:00/PT1H"}, "its start has no offset"),
        ({"schedule": "R/2026-02-28T09:00:00Z/P1M"}, "months count from the start"),
        ({"schedule": "R0/2026-02-28T09:00:00Z/P1D"}, "no firing left"),
        ({"schedule": "R/2014-02-28T09:00:00Z/P1D"}, "it runs once as soon as it is here and enabled"),
        ({"schedule": "R/2026-02-28T09:00:00Z/P1D", "epsilon": "PT60S"}, "more than PT60S late is skipped"),
        ({"schedule": "R/2026-02-28T09:00:00Z/P1D", "color": "red"}, "nobody knows color"),
    ],
)
def test_what_means_something_else_here_is_noted(cluster: Cluster, body: dict[str, Any], note: str) -> None:
    ((_, verdict, why),) = check(cluster, {"name": "a", **body})
    assert (verdict, note in why) == ("new", True), why


@pytest.mark.parametrize(
    "body",
    [
        {"schedule": "R/2026-02-28T09:00:00Z/P1D", "scheduleTimeZone": "Mars/Base"},
        {"schedule": "R/2026-02-28T09:00:00Z/P1D", "constraints": [["rack", "NEAR", "x"]]},
        {"schedule": "R/2026-02-28T09:00:00Z/PT0S"},
    ],
)
def test_what_would_be_refused_is_refused(cluster: Cluster, body: dict[str, Any]) -> None:
    ((_, verdict, why),) = check(cluster, {"name": "a", **body})
    assert verdict == "refused"
    assert why


def test_what_comes_after_what_is_refused_is_refused_too_unless_that_is_here(cluster: Cluster) -> None:
    hourly = "R/2026-02-01T00:00:00Z/PT1H"
    bad = {"schedule": hourly, "scheduleTimeZone": "Mars/Base"}
    cluster.put("here", schedule=hourly)
    found = check(
        cluster,
        {"name": "third", "parents": ["second"]},
        {"name": "second", "parents": ["first"]},
        {"name": "first", **bad},
        {"name": "here", **bad},
        {"name": "below", "parents": ["here"]},
    )
    assert [(name, verdict) for name, verdict, _ in found] == [
        ("third", "refused"), ("second", "refused"), ("first", "refused"), ("here", "refused"), ("below", "new"),
    ]  # fmt: skip
    assert [why for _, _, why in found[:2]] == ["its parent second is refused", "its parent first is refused"]


def test_of_two_jobs_of_one_name_the_second_is_refused(cluster: Cluster) -> None:
    job = {"name": "a", "schedule": "R/2026-02-01T00:00:00Z/PT1H"}
    assert check(cluster, job, job) == [
        ("a", "new", ""),
        ("a", "refused", "job 'a' is there twice; leave one of them out"),
    ]


def test_ten_thousand_jobs_behind_a_circle_are_judged_at_once(cluster: Cluster) -> None:
    circle = [{"name": "a", "parents": ["b"]}, {"name": "b", "parents": ["a"]}]
    chain = [{"name": f"c{n}", "parents": [f"c{n - 1}" if n else "a"]} for n in range(9_998)]
    jobs = tuple((one["name"], read_job({"command": "echo", **one})) for one in reversed([*circle, *chain]))
    began = time.process_time()
    rows = cluster.ask(CheckJobs(jobs=jobs))
    assert time.process_time() - began < 3, "it stands still for everybody meanwhile"
    assert {row["verdict"] for row in rows} == {"refused"}
    assert "a -> b -> a" in rows[-1]["notes"][0] or "b -> a -> b" in rows[-1]["notes"][0]
