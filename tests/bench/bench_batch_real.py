"""Batch jobs as real processes of this machine: how many a second, and how many at once as far as memory allows.

One `corral dev` in a process of its own, whose agent is told that it has more than there is. Slurm does the same work
in turns with it, with a controller and a node on this machine; neither confines or accounts for what it runs.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.report import Measure
from tests.bench.slurm_cluster import slurm_cluster

from corral.client import BatchClient

BUDGET_RATE = 100.0
ROOM = "cpus:10000;mem:10000000;disk:10000000"
LEFT_MB = 2048
PORTION = 200
SLURM_CPUS = 64


def measure(*, short: bool) -> list[Measure]:
    jobs, rounds = (20, 1) if short else (1000, 3)
    with _cluster() as url, BatchClient(url) as client:
        _run(client, 10)
        rates, peers = [], []
        for _ in range(rounds):
            rates.append(_run(client, jobs))
            peers.append(_run_slurm(jobs))
        running = _fill(client, 40 if short else 4000)
        client.kill_many(state="RUNNING")
        # Tasks outlive the daemon that started them, and nothing shall be left behind.
        while client.stats().states["RUNNING"]:
            time.sleep(0.2)
    budget = None if short else BUDGET_RATE
    peer = statistics.median(peers)
    return [
        Measure(name="batch jobs as real processes", unit="jobs/s", runs=tuple(rates), budget=budget, at_least=True),
        Measure(
            name="batch jobs as real processes, against Slurm",
            unit="times",
            runs=tuple(rate / peer for rate in rates),
            note=f"Slurm on the same machine {peer:.1f} jobs/s, {SLURM_CPUS} at once",
        ),
        Measure(name="real processes at once", unit="jobs", runs=(float(running),), note="each `sleep`"),
    ]


def _run(client: BatchClient, count: int) -> float:
    began = time.perf_counter()
    pending = [job.id for job in client.submit([{"argv": ["true"], "cpus": 0.1, "mem": 1}] * count)]
    while pending:
        pending = client.wait(pending).pending
    return count / (time.perf_counter() - began)


def _run_slurm(count: int) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="cs-") as directory,
        slurm_cluster(Path(directory), cpus=SLURM_CPUS) as slurm,
    ):
        return slurm.run_jobs(count)


def _fill(client: BatchClient, most: int) -> int:
    """Start more and more until memory is short. Shapes: returns how many ran at once."""
    started = 0
    while started < most and _free_mb() > LEFT_MB:
        client.submit([{"argv": ["sleep", "3600"], "cpus": 0.1, "mem": 1}] * min(PORTION, most - started))
        started += min(PORTION, most - started)
        give_up_at = time.monotonic() + 120.0
        while (running := client.stats().states["RUNNING"]) < started:
            if time.monotonic() > give_up_at:
                return running
            time.sleep(0.2)
    return client.stats().states["RUNNING"]


def _free_mb() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024


@contextmanager
def _cluster() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as directory:
        command = [sys.executable, "-m", "corral.cli.main", "dev", "--set", "master.listen=127.0.0.1:0"]
        command += ["--set", f"master.work_dir={directory}", "--set", f"agent.resources={ROOM}"]
        command += ["--set", "log.level=error", "--set", "agent.listen=127.0.0.1:0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        try:
            assert process.stdout is not None
            line = next(each for each in process.stdout if each.startswith("ready url="))
            yield line.strip().removeprefix("ready url=")
        finally:
            process.terminate()
            process.wait(60)
