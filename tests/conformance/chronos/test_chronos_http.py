"""Chronos' API as plain HTTP: status codes, both prefixes, retries, asynchronous runs, a killed framework."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from chronos_site import CronSite
from corral_daemons import Site, ask, wait_until

FAR = "R/2040-01-01T00:00:00Z/P1D"
PREFIXES = ("/v1/scheduler", "/scheduler")


def job(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": "true", "cpus": 0.1, "mem": 16, "disk": 1, "schedule": FAR, **more}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_route_answers_with_its_status_under_both_prefixes(site: CronSite, prefix: str) -> None:
    def status(method: str, path: str, body: Any = None) -> int:
        return site.ask(method, prefix + path, body)[0]

    child = {k: v for k, v in job("kid").items() if k != "schedule"}
    assert status("POST", "/iso8601", job("one")) == 204
    assert status("PUT", "/iso8601", job("one", command="false")) == 204
    assert status("POST", "/dependency", {**child, "parents": ["one"]}) == 204
    assert status("PUT", "/dependency", {**child, "parents": ["one"]}) == 204
    for path in ("/jobs", "/jobs/search?any=one", "/jobs/summary", "/job/one", "/job/one/next?count=2", "/job/stat/one",
                 "/job/one/history", "/graph/dot", "/graph/csv", "/stats/median", "/leader", "/metrics"):  # fmt: skip
        assert status("GET", path) == 200, path
    code, text = site.ask("PUT", f"{prefix}/job/success/kid")
    assert (code, text) == (200, "marked job kid as successful: true")
    assert site.ask("PUT", f"{prefix}/job/success/nobody") == (200, "marked job nobody as successful: false")
    assert status("DELETE", "/task/kill/one") == 204
    assert status("DELETE", "/task/all") == 204
    assert status("PUT", "/task/ct%3A1%3A0%3Aone%3A%3A1", {"statusCode": 0}) == 400
    assert status("POST", "/job/one/task/ct%3A1/progress", {"numAdditionalElementsProcessed": 1}) == 400
    assert status("POST", "/job/one") == 405
    assert status("GET", "/job/nobody") == 400
    assert status("POST", "/iso8601", b"{") == 400
    assert status("POST", "/iso8601", {**job("two"), "parents": ["one"]}) == 400
    assert status("DELETE", "/job/kid") == 204
    assert status("DELETE", "/job/one") == 204
    assert status("DELETE", "/job/one") == 400


def test_errors_are_one_clear_sentence_in_chronos_form(site: CronSite) -> None:
    code, body = site.ask("POST", "/v1/scheduler/iso8601", job("bad", schedule="R/x/P1D"))
    assert code == 400
    assert body["status"] == "Bad Request"
    assert body["message"].startswith("schedule 'R/x/P1D' starts at 'x'")


def test_ping_and_leader_are_served_without_a_prefix(site: CronSite) -> None:
    assert site.ask("GET", "/ping") == (200, "pong")
    assert site.ask("GET", "/leader")[1]["leader"] == site.url.removeprefix("http://")


def test_a_failing_job_is_retried_with_growing_attempts(site: CronSite) -> None:
    site.ask("POST", "/v1/scheduler/iso8601", job("flaky", command='test "$CHRONOS_JOB_RUN_ATTEMPT" = 2'))
    site.ask("PUT", "/v1/scheduler/job/flaky")
    site.wait_count("flaky", "successCount", 1)
    rows = site.history("flaky")["attempts"]
    assert [(row["attempt"], row["result"]) for row in rows] == [(2, "success"), (1, "failure"), (0, "failure")]
    assert site.job("flaky")["errorCount"] == 0
    site.ask("DELETE", "/v1/scheduler/job/flaky")


def test_a_run_takes_its_arguments_and_parameters_to_the_task(site: CronSite) -> None:
    body = job("args", command='test "$day" = monday -a', parameters=[{"name": "day", "default": "sunday"}], retries=0)
    site.ask("POST", "/v1/scheduler/iso8601", body)
    code, _ = site.ask(
        "PUT", "/v1/scheduler/job/args", {"arguments": "1 = 1", "parameters": {"day": "monday"}}
    )  # fmt: skip
    assert code == 204
    site.wait_count("args", "successCount", 1)
    site.ask("PUT", f"/v1/scheduler/job/args?arguments={quote('1 = 1')}")
    site.wait_count("args", "errorCount", 1)
    site.ask("DELETE", "/v1/scheduler/job/args")


def test_what_each_attempt_wrote_is_there(site: CronSite) -> None:
    command = 'echo "attempt $CHRONOS_JOB_RUN_ATTEMPT"; echo wrong >&2; test "$CHRONOS_JOB_RUN_ATTEMPT" = 1'
    site.ask("POST", "/v1/scheduler/iso8601", job("wordy", command=command))
    assert site.ask("GET", "/v1/scheduler/job/wordy/log")[0] == 400
    site.ask("PUT", "/v1/scheduler/job/wordy")
    site.wait_count("wordy", "successCount", 1)
    first = quote(site.history("wordy")["attempts"][1]["taskId"])
    for prefix in PREFIXES:
        path = f"{prefix}/job/wordy/log"
        assert site.ask("GET", path) == (200, "attempt 1\n")
        assert site.ask("GET", f"{path}?task={first}") == (200, "attempt 0\n")
        assert site.ask("GET", f"{path}?stream=stderr&offset=1&length=4") == (200, "rong")
        assert site.ask("GET", f"{path}?follow=true") == (200, "attempt 1\n")
        for query in ("stream=noise", "task=ct:1", "offset=-1", "length=x"):
            code, body = site.ask("GET", f"{path}?{query}")
            assert (code, body["status"]) == (400, "Bad Request"), query
    site.ask("DELETE", "/v1/scheduler/job/wordy")


def test_an_asynchronous_job_reports_its_own_end(site: CronSite) -> None:
    site.ask("POST", "/scheduler/iso8601", job("later", **{"async": True}))
    site.ask("PUT", "/scheduler/job/later")
    (run,) = wait_until(
        lambda: [r for r in site.history("later")["unfinished"] if r["state"] == "reporting"], "the end of the process"
    )
    assert site.state("later") == "1 running"
    path = f"/scheduler/task/{quote(run['taskId'], safe='')}"
    for code in (None, True, 0.5, 10**30, "much", []):
        status, body = site.ask("PUT", path, {"statusCode": code})
        assert (status, body["status"]) == (400, "Bad Request"), code
    assert site.state("later") == "1 running"
    assert site.ask("PUT", path, {"statusCode": 0})[0] == 204
    assert site.wait_count("later", "successCount", 1)
    assert site.ask("PUT", path, {"statusCode": 0})[0] == 400
    site.ask("DELETE", "/scheduler/job/later")


def test_a_job_of_every_second_keeps_its_pace(site: CronSite) -> None:
    site.ask("POST", "/v1/scheduler/iso8601", job("pace", schedule="R5//PT1S"))
    site.wait_count("pace", "successCount", 5)
    dues = sorted(row["due"] for row in site.history("pace")["attempts"])
    millis = {due[-4:-1] for due in dues}
    assert len(millis) == 1, "the grid has drifted"
    assert site.ask("GET", "/v1/scheduler/job/stat/pace")[1]["histogram"]["95thPercentile"] < 1000
    wait_until(lambda: site.job("pace")["disabled"], "its last firing")
    site.ask("DELETE", "/v1/scheduler/job/pace")


def test_a_backfill_runs_what_was_missed(site: CronSite) -> None:
    site.ask("POST", "/v1/scheduler/iso8601", job("fill", schedule="R/2026-01-01T03:00:00Z/P1D", misfirePolicy="skip"))
    code, body = site.ask(
        "POST", "/v1/scheduler/job/fill/backfill", {"from": "2026-01-02T00:00:00Z", "to": "2026-01-05T00:00:00Z"}
    )
    assert (code, body) == (202, {"runs": 3})
    site.wait_count("fill", "successCount", 3)
    assert site.ask("GET", "/scheduler/job/stat/fill")[1]["histogram"]["99thPercentile"] < 60_000
    assert site.ask("DELETE", "/v1/scheduler/job/fill/backfill")[0] == 400
    dues = {row["due"][:10] for row in site.history("fill")["attempts"] if row["cause"] == "backfill"}
    assert dues == {"2026-01-02", "2026-01-03", "2026-01-04"}
    site.ask("DELETE", "/v1/scheduler/job/fill")


def test_a_killed_framework_finds_its_runs_again_and_goes_on(tmp_path: Path) -> None:
    with Site(tmp_path) as daemons:
        master = daemons.dev("--set", "master.frameworks=")

        def start() -> Any:
            return daemons.start(
                "framework", "cron", "--master", master.url, "--listen", "127.0.0.1:0",
                "--work-dir", str(tmp_path / "cron"),
            )  # fmt: skip

        cron = start()
        marks = tmp_path / "marks"
        command = f"echo $CHRONOS_JOB_RUN_TIME >> {marks}; sleep 2"
        assert ask(cron.url, "POST", "/scheduler/iso8601", job("slow", command=command))[0] == 204
        assert ask(cron.url, "PUT", "/scheduler/job/slow")[0] == 204
        wait_until(lambda: marks.exists() and marks.read_text(), "the run")
        cron.kill()
        cron = start()

        def shown() -> Any:
            return ask(cron.url, "GET", "/scheduler/job/slow")[1]

        wait_until(lambda: shown()["successCount"] == 1, "its success")
        assert len(marks.read_text().splitlines()) == 1, "it ran twice"
        assert shown()["errorCount"] == 0


def test_what_an_attempt_wrote_is_there_after_everything_was_started_anew(tmp_path: Path) -> None:
    with Site(tmp_path) as daemons:
        first = daemons.dev()
        assert ask(first.url, "POST", "/scheduler/iso8601", job("kept", command="echo kept"))[0] == 204
        ask(first.url, "PUT", "/scheduler/job/kept")
        wait_until(lambda: ask(first.url, "GET", "/scheduler/job/kept")[1]["successCount"], "its success")
        (node,) = ask(first.url, "GET", "/corral/v1/nodes")[1]["nodes"]
        words = list(first.arguments)
        words[words.index("--agent-listen") + 1] = node["url"].removeprefix("http://")
        first.stop()
        again = daemons.start(*words)
        assert wait_until(lambda: ask(again.url, "GET", "/scheduler/job/kept/log")[1] == "kept\n", "the log")
