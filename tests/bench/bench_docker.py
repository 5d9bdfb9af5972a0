"""What corral adds to a real Docker Engine: the time to RUNNING against `docker run` and against the Engine's own API.

Both sides start the same image with the same command, network and limits, in turns, on the Engine that
CORRAL_TEST_DOCKER or DOCKER_HOST names, else on a private one.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from tests.bench.dev_cluster import DevCluster
from tests.bench.report import Measure

from corral.docker.daemon import PrivateEngine, install_packages, missing_packages
from corral.docker.image import engine_answers, import_busybox

SINGLE_BUDGET = 1.3
MANY_BUDGET = 1.2
MANY = 20
IMAGE = "busybox:latest"
MEM_MB = 32
CPUS = 0.1
API = "http://docker/v1.41"


def measure(*, short: bool) -> list[Measure]:
    singles, manies = (3, 1) if short else (11, 5)
    with tempfile.TemporaryDirectory(prefix="cb-") as directory, _engine(Path(directory)) as engine:
        options = (
            "--runtime",
            "docker",
            "--docker-host",
            engine,
            "--resources",
            "cpus:64;mem:65536;ports:[31000-32000]",
        )
        with DevCluster(Path(directory), *options) as cluster:
            _run_app(cluster, "warm", 1)
            _docker_run(engine, "warm")
            ours, bare = [], []
            for number in range(singles):
                ours.append(_run_app(cluster, f"single{number}", 1))
                bare.append(_docker_run(engine, f"single{number}"))
            ours_many, bare_many = [], []
            for number in range(manies):
                ours_many.append(_run_app(cluster, f"many{number}", MANY))
                bare_many.append(asyncio.run(_ask_engine(engine, f"many{number}", MANY)))
    return [
        _ratio("one app to TASK_RUNNING against docker run -d", ours, bare, SINGLE_BUDGET),
        _ratio(f"{MANY} instances against the Engine asked directly", ours_many, bare_many, MANY_BUDGET),
        Measure(name="one app to TASK_RUNNING", unit="s", runs=tuple(ours)),
        Measure(name="docker run -d", unit="s", runs=tuple(bare)),
        Measure(name=f"{MANY} instances to TASK_RUNNING", unit="s", runs=tuple(ours_many)),
        Measure(name=f"{MANY} containers by the Engine's API", unit="s", runs=tuple(bare_many)),
    ]


def _ratio(name: str, ours: list[float], theirs: list[float], budget: float) -> Measure:
    """Each of our runs over the median of theirs."""
    against = statistics.median(theirs)
    return Measure(name=name, unit="times", runs=tuple(each / against for each in ours), budget=budget)


@contextlib.contextmanager
def _engine(directory: Path) -> Iterator[str]:
    given = os.environ.get("CORRAL_TEST_DOCKER") or os.environ.get("DOCKER_HOST")
    if given:
        assert engine_answers(given, 5.0), f"the Docker Engine at {given} does not answer"
        import_busybox(given, [IMAGE])
        yield given
        return
    with private_engine(directory) as url:
        yield url


@contextlib.contextmanager
def private_engine(directory: Path) -> Iterator[str]:
    """An Engine of its own with one image, which goes with all that ran on it."""
    install_packages(missing_packages())
    private = PrivateEngine(directory / "e")
    try:
        private.start()
        import_busybox(private.url, [IMAGE])
        yield private.url
    finally:
        private.stop()


def _run_app(cluster: DevCluster, name: str, instances: int) -> float:
    """Seconds from the request to all instances RUNNING."""
    app = {
        "id": f"/{name}", "args": ["sleep", "1000"], "instances": instances, "cpus": CPUS, "mem": MEM_MB,
        "container": {"type": "DOCKER", "docker": {"image": IMAGE, "network": "HOST"}},
    }  # fmt: skip
    begun = time.perf_counter()
    cluster.expect(201, "POST", "/v2/apps", app)
    cluster.wait_running(name, instances)
    took_s = time.perf_counter() - begun
    cluster.remove(name)
    return took_s


def _docker_run(engine: str, name: str) -> float:
    """Seconds of a bare `docker run -d`."""
    run = [
        "docker", "run", "-d", "--name", f"bench-{name}", "--network", "host", "--memory", f"{MEM_MB}m",
        "--memory-swap", f"{MEM_MB}m", "--cpu-shares", str(int(CPUS * 1024)), IMAGE, "sleep", "1000",
    ]  # fmt: skip
    environment = dict(os.environ, DOCKER_HOST=engine)
    begun = time.perf_counter()
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL, env=environment)
    took_s = time.perf_counter() - begun
    remove = ["docker", "rm", "-f", f"bench-{name}"]
    subprocess.run(remove, check=True, stdout=subprocess.DEVNULL, env=environment)
    return took_s


async def _ask_engine(engine: str, name: str, count: int) -> float:
    """Seconds to create and start so many containers, as many at once as corral's runtime has."""
    connector: aiohttp.BaseConnector = (
        aiohttp.UnixConnector(engine.removeprefix("unix://")) if engine.startswith("unix:") else aiohttp.TCPConnector()
    )
    body: dict[str, Any] = {
        "Image": IMAGE,
        "Cmd": ["sleep", "1000"],
        "HostConfig": {
            "NetworkMode": "host", "CpuShares": int(CPUS * 1024), "Memory": MEM_MB << 20, "MemorySwap": MEM_MB << 20,
        },
    }  # fmt: skip
    turns = asyncio.Semaphore(2 * (os.cpu_count() or 1))
    api = API if engine.startswith("unix:") else engine.replace("tcp://", "http://")
    async with aiohttp.ClientSession(connector=connector) as http:

        async def start(number: int) -> None:
            async with turns:
                params = {"name": f"bench-{name}-{number}"}
                async with http.post(f"{api}/containers/create", params=params, json=body) as created:
                    assert created.status == 201, await created.text()
                    made = (await created.json())["Id"]
                async with http.post(f"{api}/containers/{made}/start") as started:
                    assert started.status == 204, await started.text()

        async def remove(number: int) -> None:
            async with http.delete(f"{api}/containers/bench-{name}-{number}", params={"force": "true"}) as removed:
                assert removed.status == 204, await removed.text()

        begun = time.perf_counter()
        await asyncio.gather(*(start(number) for number in range(count)))
        took_s = time.perf_counter() - begun
        await asyncio.gather(*(remove(number) for number in range(count)))
    return took_s
