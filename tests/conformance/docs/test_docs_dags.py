"""The first steps of the page on DAGs are run as they are written there, against a real `corral dev`."""

import json
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


def test_a_failed_step_is_mended_as_the_page_says(daemons: Site, tmp_path: Path) -> None:
    url = daemons.dev().url
    small = {"cpus": 0.1, "mem": 16, "disk": 1, "retries": 0}
    steps = [
        {"name": "list", "command": "true", **small},
        {"name": "sum", "command": f"echo looking; test -e {tmp_path}/there", "after": ["list"], **small},
        {"name": "publish", "command": "true", "after": ["sum"], **small},
    ]
    assert run_corral(url, "dag", "apply", "-", stdin=json.dumps({"name": "report", "steps": steps})).code == 0
    chapter = PAGE.split("## When a step fails\n")[1].split("\n## ")[0]
    run_id = task = ""
    codes = []
    for line in re.findall(r"^    (corral .*)$", chapter, re.MULTILINE):
        words = [{"RUN": run_id, "TASK": task}.get(w, w) for w in shlex.split(line.split("  ")[0])[1:]]
        answer = run_corral(url, *words)
        codes.append(answer.code)
        match words[1]:
            case "run":
                run_id = answer.out.strip()
                assert "step sum failed: Command exited with status 1" in answer.err
            case "status":
                (task,) = [each for each in answer.out.split() if ".sum@" in each]
            case _ if words[0] == "logs":
                assert answer.out == "looking\n"
                (tmp_path / "there").touch()
    assert codes == [1, 0, 0, 0, 0, 0]
    shown = run_corral(url, "dag", "status", run_id, "-o", "json").json
    assert (shown["state"], shown["resumes"]) == ("succeeded", 2)
