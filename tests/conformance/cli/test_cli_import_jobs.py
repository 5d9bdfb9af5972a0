"""Jobs of a Chronos are taken over: from a live one (another corral speaks its API), and from an exported file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corral_daemons import Answer, Daemon, run_corral

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
    assert "3 of 4 can be taken over" in plan.err
    assert "imp-root" not in run("job", "ls").out, "a plan changes nothing"
    taken = run("import", "chronos", str(file))
    assert taken.code == 1
    assert "job imp-orphan was not taken over: its parent imp-bad was not" in taken.err
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
