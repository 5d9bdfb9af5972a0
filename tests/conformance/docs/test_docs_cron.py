"""The first steps of the page on cron are run as they are written there, against a real `corral dev`."""

import re
import shlex
from pathlib import Path

from corral_daemons import Site, run_corral, wait_until

PAGE = (Path(__file__).parents[3] / "docs/frameworks/cron.md").read_text(encoding="utf-8")


def test_the_first_steps_go_as_the_page_says(daemons: Site, tmp_path: Path) -> None:
    url = daemons.dev().url
    chapter = PAGE.split("## First steps\n")[1].split("\n## ")[0]
    (jobs,) = re.findall(r"^```json\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)
    (tmp_path / "jobs.json").write_text(jobs, encoding="utf-8")
    told = {}
    for line in re.findall(r"^    (corral .*)$", chapter, re.MULTILINE):
        words = shlex.split(line.split("  ")[0])[1:]
        if "jobs.json" in words:
            words[words.index("jobs.json")] = str(tmp_path / "jobs.json")
        answer = run_corral(url, *words)
        assert answer.code == 0, f"{line}: {answer.err}"
        told[words[1]] = answer
        if words[1] == "run":
            task = answer.err.split()[-1]
            assert run_corral(url, "logs", task).out == "got monday\n"
            wait_until(lambda: run_corral(url, "job", "show", "load", "-o", "json").json["successCount"], "the child")
    assert set(told) == {"add", "ls", "show", "run", "history", "logs", "backfill", "kill", "rm"}
    assert told["logs"].out == "got monday\n"
    assert "after extract" in told["ls"].out
    assert "next  2040-01-01T03:00:00.000+01:00" in told["show"].out
    assert "success" in told["history"].out
    assert "runs 2 times more" in told["backfill"].err
