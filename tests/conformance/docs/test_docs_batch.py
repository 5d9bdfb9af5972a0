"""The first steps and the programs of the page on batch are run as they are written there, against a real cluster."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from corral_daemons import Site, clean_environment, run_corral

PAGE = (Path(__file__).parents[3] / "docs/frameworks/batch.md").read_text(encoding="utf-8")


def test_the_first_steps_and_the_programs_go_as_the_page_says(daemons: Site, tmp_path: Path) -> None:
    url = daemons.dev().url
    chapter = PAGE.split("## First steps\n")[1].split("\n## ")[0]
    (jobs,) = re.findall(r"^```json\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)
    (tmp_path / "jobs.json").write_text(jobs, encoding="utf-8")
    lines = re.findall(r"^    (corral .*)$", chapter, re.MULTILINE)
    assert len(lines) == 6
    ids: list[str] = []
    for line in lines:
        words = shlex.split(line.split("   #")[0])[1:]
        if "jobs.json" in words:
            words[words.index("jobs.json")] = str(tmp_path / "jobs.json")
        answer = run_corral(url, *words)
        assert answer.code == 0, f"{line}: {answer.err}"
        ids = ids or answer.out.split()
    assert run_corral(url, "batch", "logs", ids[0]).out == f"hello from {ids[0]}\n"
    assert run_corral(url, "batch", "logs", ids[1]).out == "no shell\nin between\n"
    assert run_corral(url, "batch", "logs", f"{ids[2]}[1]").out == "part 1\n"
    programs = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    executed = "0 SUCCEEDED\n1 SUCCEEDED\n2 SUCCEEDED\n3 1\n4 SUCCEEDED\n[0, 0]\n['north', 'south']\n"
    outputs = ["100 7\n", "2.0\nall seen\n", "SUCCEEDED no shell\n", executed]
    assert len(programs) == len(outputs)
    for program, output in zip(programs, outputs, strict=True):
        text = program.replace("http://127.0.0.1:4680", url)
        ran = subprocess.run(
            [sys.executable, "-c", text], env=clean_environment(), capture_output=True, text=True, timeout=60
        )  # fmt: skip
        assert ran.stdout == output, ran.stderr
