"""Jobs of a Chronos are taken over: from a live one (another corral speaks its API), and from an exported file."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from corral_daemons import CORRAL, Answer, Daemon, Site, ask, clean_environment, run_corral
from pretended_chronos import Job, list_new, list_old, serve_chronos

Run = Callable[..., Answer]
FAR = "R/2040-01-01T00:00:00Z/P1D"
WORK = {"cpus": 0.1, "mem": 16, "disk": 1}


def verdicts(answer: Answer) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in answer.json}


def test_a_listing_is_judged_taken_over_and_then_the_same(run: Run, tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = [
        {"name": "imp-child", "command": "true", "parents": ["imp-root"], **WORK},
        {"name": "imp-root", "command": "true", "schedule": FAR, **WORK},
        {"name": "imp-bad", "command": "true", "schedule": FAR, "scheduleTimeZone": "Mars/Base", **WORK},
        {"name": "imp-orphan", "command": "true", "parents": ["imp-bad"], **WORK},
    ]
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps(jobs), encoding="utf-8")
    plan = run("import", "chronos", str(file), "--plan", "-o", "json")
    assert (plan.code, verdicts(plan)["imp-root"], verdicts(plan)["imp-bad"]) == (1, "new", "refused")
    assert (verdicts(plan)["imp-orphan"], plan.json[-1]["notes"]) == ("refused", ["its parent imp-bad is refused"])
    assert "2 of 4 can be taken over" in plan.err
    assert "imp-root" not in run("job", "ls").out, "a plan changes nothing"
    taken = run("import", "chronos", str(file))
    assert taken.code == 1
    assert "its parent imp-bad is refused" in taken.out
    assert "2 of 4 are taken over" in taken.err
    again = run("import", "chronos", str(file), "--plan", "-o", "json")
    assert (verdicts(again)["imp-root"], verdicts(again)["imp-child"]) == ("same", "same")
    run("job", "rm", "imp-root")
    run("job", "rm", "imp-child")


def test_a_live_chronos_is_read(run: Run, cluster: Daemon, daemons: Any) -> None:
    run("job", "add", "-", stdin=json.dumps({"name": "imp-live", "command": "true", "schedule": FAR, **WORK}))
    there = daemons.dev().url
    answer = run_corral(there, "import", "chronos", cluster.url, "--disabled")
    assert answer.code == 0, answer.err
    assert run_corral(there, "job", "show", "imp-live", "-o", "json").json["disabled"] is True
    run("job", "rm", "imp-live")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a cluster without jobs."""
    with Site(tmp_path_factory.mktemp("empty")) as site:
        yield site.dev().url


@pytest.fixture(autouse=True)
def _leave_no_jobs(empty: str) -> Iterator[None]:
    yield
    for one in ask(empty, "GET", "/scheduler/jobs")[1]:
        run_corral(empty, "job", "rm", one["name"])


def jobs_of(url: str) -> dict[str, Job]:
    return {one["name"]: one for one in ask(url, "GET", "/scheduler/jobs")[1]}


UNUSUAL = (
    {"name": "parked", "schedule": "R0/2014-03-08T20:00:00.000Z/P"},
    {"name": "off", "disabled": True, "schedule": "R/2014-03-08T20:00:00.000Z/PT2H", "successCount": 190,
     "errorCount": 3, "lastSuccess": "2014-03-08T16:57:17.507Z", "lastError": "2014-03-01T00:10:15.957Z"},
    {"name": "three left", "schedule": "R3/2040-01-01T02:30:00.000Z/P1M", "scheduleTimeZone": "PST"},
    {"name": "north # 1", "parents": ["three left"], "softError": True, "highPriority": True},
    {"name": "docker", "container": {
        "type": "DOCKER", "image": "busybox", "network": "HOST", "networkInfos": [], "forcePullImage": False,
        "volumes": [{"containerPath": "/in", "hostPath": "/srv", "mode": "RO"}], "parameters": []}},
    {"name": "kept", "constraints": [["rack", "LIKE", "r[12]"]], "runAsUser": "nobody",
     "environmentVariables": [{"name": "A", "value": "b c"}], "arguments": ["x"], "cpus": 0.5},
)  # fmt: skip


@pytest.mark.parametrize("version", ["2.4.0", "3.0.2"])
def test_unusual_jobs_come_over_as_they_are_listed(empty: str, version: str) -> None:
    write = list_old if version[0] == "2" else list_new
    fetch = [{"uri": "http://files/x.tgz", "executable": False, "cache": False, "extract": True}]
    there = [write(**job) for job in reversed(UNUSUAL)]
    there.append(list_new("fetched", fetch=fetch) if write is list_new else list_old("fetched", uris=["http://x/y"]))
    with serve_chronos(version, there) as chronos:
        first = run_corral(empty, "import", "chronos", chronos.url)
        again = run_corral(empty, "import", "chronos", chronos.url + "/", "-o", "json")
    assert (first.code, first.err.splitlines()[-1]) == (0, "7 of 7 are taken over"), first.err
    assert (again.code, set(verdicts(again).values())) == (0, {"same"})
    here = jobs_of(empty)
    for job in there:
        kept = {k: v for k, v in job.items() if k not in ("schedule", "uris", "fetch", "runAsUser")}
        assert {k: here[job["name"]][k] for k in kept} == kept
    assert here["three left"]["schedule"].startswith("R3/2040-01-01T02:30:00.000-08:00/P1M")
    assert here["parked"]["schedule"].startswith("R0/")
    assert here["north # 1"]["parents"] == ["three left"]


def test_what_cannot_be_taken_over_is_listed_with_its_reason_and_all_else_is(empty: str) -> None:
    there = [
        list_new("after-loop", parents=["loop-b"]),
        list_new("loop-a", parents=["loop-b"]),
        list_new("loop-b", parents=["loop-a"]),
        list_new("lost", parents=["gone"]),
        list_new("custom", executor="/usr/bin/executor"),
        list_new("after-custom", parents=["custom", "fine"]),
        list_new("mesos", container={"type": "MESOS", "image": "busybox"}),
        list_new("child", parents=["fine"]),
        list_new("fine"),
        {"name": "odd", "command": "true", "schedule": "every day"},
        {"name": None, "command": "true"},
    ]
    with serve_chronos("3.0.2", there) as chronos:
        plan = run_corral(empty, "import", "chronos", chronos.url, "--plan", "-o", "json")
        assert (plan.code, jobs_of(empty)) == (1, {})
        taken = run_corral(empty, "import", "chronos", chronos.url)
    why = {row["name"]: "; ".join(row["notes"]) for row in plan.json if row["verdict"] == "refused"}
    assert "loop-a -> loop-b -> loop-a" in why["loop-a"]
    assert why["after-loop"] == "its parent loop-b is refused"
    assert why["lost"] == "job 'lost' names the parents gone, which do not exist; create them first"
    assert "runs no custom executors" in why["custom"]
    assert why["after-custom"] == "its parent custom is refused"
    assert "MESOS" in why["mesos"]
    assert "every day" in why["odd"]
    assert why[""] == "name must be given"
    assert (
        plan.err.splitlines()[-1] == taken.err.splitlines()[-1].replace("are", "can be") == "2 of 11 can be taken over"
    )
    assert (taken.code, sorted(jobs_of(empty))) == (1, ["child", "fine"])


def test_a_chronos_that_asks_who_calls_is_told_by_the_url_and_shown_to_nobody(empty: str) -> None:
    with serve_chronos("2.4.0", [list_old("known")], secret="ada:p@ss:w/rd") as chronos:
        place = chronos.url.removeprefix("http://")
        nobody = run_corral(empty, "import", "chronos", chronos.url)
        wrong = run_corral(empty, "import", "chronos", f"http://ada:guess@{place}")
        right = run_corral(empty, "import", "chronos", f"http://ada:p%40ss%3Aw%2Frd@{place}")
    assert (nobody.code, "asks for a user and a password; give them as http://USER:PASSWORD@" in nobody.err) == (
        6,
        True,
    )
    assert (wrong.code, "refuses this user and password" in wrong.err, "guess" in wrong.err) == (6, True, False)
    assert (right.code, "1 of 1 are taken over" in right.err) == (0, True), right.err
    told = run_corral(empty, "import", "chronos", "http://ada:guess@host:port")
    assert (told.code, "http://ada:***@host:port" in told.err, "guess" in told.err) == (2, True, False)


def test_a_follower_answers_for_its_leader(empty: str) -> None:
    with (
        serve_chronos("2.4.0", [list_old("led")]) as leader,
        serve_chronos("2.4.0", [], leader=leader.url) as follower,
    ):
        answer = run_corral(empty, "import", "chronos", follower.url)
        assert (answer.code, follower.asked) == (0, ["/v1/scheduler/jobs", "/scheduler/jobs"])
        assert list(jobs_of(empty)) == ["led"]
    with serve_chronos("3.0.2", [], leader=leader.url) as follower:
        lost = run_corral(empty, "import", "chronos", follower.url)
    assert (lost.code, "answered 500 to GET /v1/scheduler/jobs" in lost.err) == (5, True)


def test_more_than_one_request_holds_is_judged_in_parts_that_hang_together(empty: str) -> None:
    text = "x" * 60_000
    there = [
        list_new(f"part-{n}", description=text, **({"parents": [f"part-{n - 1}"]} if n % 3 else {})) for n in range(60)
    ]
    chain = [list_new(f"one-{n}", description=text, **({"parents": [f"one-{n - 1}"]} if n else {})) for n in range(80)]
    with serve_chronos("3.0.2", [*reversed(there), *reversed(chain)]) as chronos:
        plan = run_corral(empty, "import", "chronos", chronos.url, "--plan", "-o", "json")
    assert (plan.code, set(verdicts(plan).values()), len(plan.json)) == (0, {"new"}, 140), plan.err


def test_one_family_is_taken_over_and_the_others_are_left_as_they_are(empty: str) -> None:
    there = [
        list_new("load", parents=["extract", "fetch"]),
        list_new("report", parents=["load"]),
        list_new("extract"),
        list_new("fetch"),
        list_new("other"),
        list_new("below", parents=["other"]),
    ]
    with serve_chronos("3.0.2", there) as chronos:
        one = run_corral(empty, "import", "chronos", chronos.url, "--job", "fetch", "--disabled")
        assert (one.code, sorted(jobs_of(empty))) == (0, ["extract", "fetch", "load", "report"])
        run_corral(empty, "job", "enable", "extract")
        two = run_corral(empty, "import", "chronos", chronos.url, "--job", "other", "--disabled")
        none = run_corral(empty, "import", "chronos", chronos.url, "--job", "nobody")
        again = run_corral(empty, "import", "chronos", chronos.url, "--plan", "-o", "json")
    assert (two.code, two.err.splitlines()[-1]) == (0, "2 of 2 are taken over")
    assert {name: one["disabled"] for name, one in jobs_of(empty).items()}["extract"] is False
    assert (none.code, "has no job 'nobody'" in none.err) == (2, True)
    (row,) = [row for row in again.json if row["name"] == "load"]
    assert row["notes"] == ["disabled True -> False"]


def test_a_chronos_without_jobs_is_none_the_less_one(empty: str) -> None:
    with serve_chronos("3.0.2", []) as chronos:
        answer = run_corral(empty, "import", "chronos", chronos.url)
    assert (answer.code, "0 of 0 are taken over" in answer.err) == (0, True), answer.err


def test_an_import_that_breaks_off_says_how_far_it_came_and_goes_on(daemons: Any) -> None:
    here = daemons.dev()
    there = [list_new(f"many-{n}") for n in range(400)]
    with serve_chronos("3.0.2", there) as chronos:
        words = [*CORRAL, "import", "chronos", chronos.url]
        environment = clean_environment(CORRAL_ADDR=here.url)
        with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as importing:
            assert importing.stderr is not None
            assert importing.stderr.readline().startswith(b"job many-0 accepted")
            here.kill()
            rest = importing.stderr.read().decode()
    assert importing.returncode == 5
    assert "were taken over until now; the same command goes on from there" in rest
    assert "Traceback" not in rest


def test_what_is_no_chronos_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "apps.json").write_text('{"apps": []}', encoding="utf-8")
    for source, why in (
        (str(tmp_path / "apps.json"), "holds no jobs"),
        (str(tmp_path / "nope.json"), "there is no file"),
        ("http://127.0.0.1:1", "no Chronos answers"),
    ):
        answer = run("import", "chronos", source)
        assert answer.code != 0
        assert why in answer.err
        assert "Traceback" not in answer.err
