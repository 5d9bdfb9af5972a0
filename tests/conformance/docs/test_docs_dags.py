"""The first steps of the page on DAGs are run as they are written there, against a real `corral dev`."""

import re
import shlex
from pathlib import Path

from corral_daemons import Site, run_corral

PAGE = (Path(__file__).parents[3] / "docs/frameworks/dags.md").read_text(encoding="utf-8")


def test_the_first_steps_with_dags_go_as_the_page_says(daemons: Site, tmp_path: Path) -> None:
    url = daemons.dev().url
    chapter = PAGE.split("## First steps\n")[1].split("\n## ")[0]
    (text,) = re.findall(r"^```json\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    told = {}
    for line in re.findall(r"^    (corral .*)$", chapter, re.MULTILINE):
        words = [str(tmp_path / w) if w == "report.json" else w for w in shlex.split(line.split("  ")[0])[1:]]
        answer = run_corral(url, *words)
        assert answer.code == 0, f"{line}: {answer.err}"
        told[words[1]] = answer
        if words[1] == "run":
            run = run_corral(url, "dag", "status", answer.out.strip(), "-o", "json").json
    assert set(told) == {"plan", "apply", "run", "status", "ls", "rm"}
    steps = {step["name"]: step for step in run["steps"]}
    assert {name: step["state"] for name, step in steps.items()} == {
        "list": "succeeded", "sum": "succeeded", "publish": "succeeded", "alarm": "skipped",
    }  # fmt: skip
    assert steps["sum"]["result"] == '["north of monday", "south of monday"]'
    assert [element["result"] for element in steps["sum"]["elements"]] == ["north of monday", "south of monday"]
    failed = run_corral(url, "dag", "run", "report")
    assert (failed.code, "there is no DAG 'report'" in failed.err) == (3, True), failed
