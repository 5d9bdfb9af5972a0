"""The benchmarks still run and give their numbers; whether a budget is kept is for `make bench` to say, on a quiet
machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["control_plane", "services", "start", "etcd"])
def test_a_short_run_of_each_benchmark_gives_its_numbers(name: str, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.bench", "--short", "--json", str(found), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert found.exists(), done.stderr
    measures = json.loads(found.read_bytes())["measures"]
    assert [measure for measure in measures if measure["budget"] is not None]
    for measure in measures:
        assert measure["runs"], measure
        assert all(run >= 0 for run in measure["runs"]), measure
