"""A framework that states wants is served while another sits on every plain offer there is."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import mesos_client

EXAMPLE = Path(__file__).parents[3] / "examples/patient.py"


def test_the_patient_example_runs_while_another_framework_hoards_every_offer(
    cluster: Any, scheduler: mesos_client.Subscription
) -> None:
    (held, *_) = scheduler.next("OFFERS")["offers"]["offers"]
    cpus = {r["name"]: r.get("scalar") for r in held["resources"]}["cpus"]
    assert cpus == {"value": 4.0}, "all of the node"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), cluster.url, "3", "true"], text=True, capture_output=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("run-")] == ["TASK_FINISHED"] * 3
    assert scheduler.next("RESCIND")["rescind"]["offer_id"] == held["id"]


def test_the_patient_example_is_short_and_needs_the_standard_library_alone() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 100
    modules = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert modules <= sys.stdlib_module_names
