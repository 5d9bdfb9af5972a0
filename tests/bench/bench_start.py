"""What `corral` costs before it does anything: start of a cluster, idle memory and processor time, the help page."""

import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.dev_cluster import CORRAL, DevCluster, cpu_s, rss_mb
from tests.bench.report import Measure

START_BUDGET_S = 2.0
RSS_BUDGET_MB = 150.0
CPU_BUDGET_PERCENT = 1.0
HELP_BUDGET_S = 0.25

SETTLE_S = 3.0


def measure(*, short: bool) -> list[Measure]:
    runs, idle_s = (2, 5.0) if short else (5, 30.0)
    started, memory, idle = [], [], []
    for number in range(runs):
        with tempfile.TemporaryDirectory(prefix="corral-bench-") as directory:
            begun = time.perf_counter()
            with DevCluster(Path(directory), "--runtime", "process") as cluster:
                cluster.expect(201, "POST", "/v2/apps", {"id": "/first", "cmd": "true", "instances": 0})
                started.append(time.perf_counter() - begun)
                if number and not short:
                    continue
                time.sleep(SETTLE_S)
                pids = cluster.pids
                before, since = cpu_s(pids), time.perf_counter()
                time.sleep(idle_s)
                idle.append(100 * (cpu_s(pids) - before) / (time.perf_counter() - since))
                memory.append(rss_mb(pids))
    return [
        Measure(name="corral dev to first accepted request", unit="s", runs=tuple(started), budget=START_BUDGET_S),
        Measure(
            name="idle memory, master and agent in one process", unit="MB", runs=tuple(memory), budget=RSS_BUDGET_MB
        ),
        Measure(
            name="idle processor time", unit="% of a core", runs=tuple(idle), budget=CPU_BUDGET_PERCENT,
            note=f"over {idle_s:g} s, {SETTLE_S:g} s after the start",
        ),
        Measure(name="corral --help", unit="s", runs=tuple(_help() for _ in range(2 * runs)), budget=HELP_BUDGET_S),
    ]  # fmt: skip


def _help() -> float:
    begun = time.perf_counter()
    subprocess.run([CORRAL, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun
