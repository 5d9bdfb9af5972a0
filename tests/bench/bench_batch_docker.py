"""Short containers by the hundred: batch jobs of corral against the same Docker Engine asked directly.

Both sides make, start, wait for and remove equal containers, as many at once, in turns on one private Engine. Who asks
it directly keeps no record, reads no output and waits on the same socket: nothing that runs a container does less.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from tests.bench.bench_docker import IMAGE, private_engine
from tests.bench.dev_cluster import DevCluster
from tests.bench.report import Measure

from corral.client import BatchClient

API = "http://docker/v1.41"
BUDGET = 0.9
AT_ONCE = 8
MEM_MB = 32


def measure(*, short: bool) -> list[Measure]:
    count, rounds = (6, 1) if short else (100, 4)
    ours: list[float] = []
    direct: list[float] = []
    with tempfile.TemporaryDirectory(prefix="cb-") as directory, private_engine(Path(directory)) as engine:
        room = f"cpus:{AT_ONCE};mem:65536"
        options = ("--runtime", "docker", "--docker-host", engine, "--resources", room)
        with DevCluster(Path(directory), *options) as cluster, BatchClient(cluster.url) as client:
            _run_jobs(client, AT_ONCE)
            asyncio.run(_ask_engine(engine, AT_ONCE))
            for number in range(rounds):
                # Who goes first alternates, as the Engine grows slower or faster while it works.
                for side in (("corral", "direct"), ("direct", "corral"))[number % 2]:
                    if side == "corral":
                        ours.append(_run_jobs(client, count))
                    else:
                        direct.append(asyncio.run(_ask_engine(engine, count)))
    against = statistics.median(direct)
    note = f"{count} containers that end at once, {AT_ONCE} at once; "
    note += f"corral {statistics.median(ours):.1f}, the Engine asked directly {against:.1f} a second"
    return [
        Measure(
            name="Docker batch jobs a second, against the Engine asked directly", unit="times",
            runs=tuple(each / against for each in ours), budget=None if short else BUDGET, at_least=True, note=note,
        )
    ]  # fmt: skip


def _run_jobs(client: BatchClient, count: int) -> float:
    """Jobs a second, from the request to the last end."""
    job = {"argv": ["true"], "container": {"image": IMAGE, "network": "host"}, "cpus": 1, "mem": MEM_MB}
    begun = time.perf_counter()
    pending = [made.id for made in client.submit([job] * count)]
    while pending:
        pending = client.wait(pending).pending
    took_s = time.perf_counter() - begun
    states = client.stats().states
    assert not states.get("FAILED", 0) + states.get("KILLED", 0), states
    return count / took_s


async def _ask_engine(engine: str, count: int) -> float:
    """Containers a second that the Engine alone makes, starts, waits for and removes."""
    body: dict[str, Any] = {
        "Image": IMAGE,
        "Cmd": ["true"],
        "HostConfig": {
            "NetworkMode": "host", "CpuShares": 1024, "Memory": MEM_MB << 20, "MemorySwap": MEM_MB << 20,
        },
    }  # fmt: skip
    turns = asyncio.Semaphore(AT_ONCE)
    connector = aiohttp.UnixConnector(engine.removeprefix("unix://"), limit=4 * AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def run() -> None:
            async with turns:
                async with http.post(f"{API}/containers/create", json=body) as created:
                    assert created.status == 201, await created.text()
                    made = (await created.json())["Id"]
                async with http.post(f"{API}/containers/{made}/start") as started:
                    assert started.status == 204, await started.text()
                async with http.post(f"{API}/containers/{made}/wait") as waited:
                    assert (await waited.json())["StatusCode"] == 0
                async with http.delete(f"{API}/containers/{made}") as removed:
                    assert removed.status == 204, await removed.text()

        begun = time.perf_counter()
        await asyncio.gather(*(run() for _ in range(count)))
        return count / (time.perf_counter() - begun)
