"""corral beside Docker's swarm mode: create, scale, update and remove a service, on one private Engine and one image.

Both are asked over their APIs and looked at every few milliseconds; nobody waits for a client to be sure. Everything
happens in a network namespace of its own, which goes with all that swarm mode makes in it. Each side updates as it does
by default: swarm mode one instance after the other, corral with all new instances beside the old. What the Engine
itself takes for as many containers, asked directly with several at once, is the least that either can take.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench.dev_cluster import DevCluster
from tests.bench.report import Measure

from corral.docker.daemon import PrivateEngine, install_packages, missing_packages
from corral.docker.image import engine_call, import_busybox

IMAGE = "busybox:latest"
REPLICAS, MORE = 20, 40
GRACE_S = 1
STEPS = ("create", "scale", "update", "remove")
BUDGETS = {"create": 0.5, "scale": 0.5, "update": 0.7, "remove": 0.7}
TIMEOUT_S = 180.0
POLL_S = 0.02
AT_ONCE = 4


def measure(*, short: bool) -> list[Measure]:
    replicas, more = (4, 8) if short else (REPLICAS, MORE)
    install_packages(missing_packages())
    prepare = (
        "ip link set lo up && ip link add eth9 type bridge && ip addr add 10.99.9.1/24 dev eth9 && ip link set eth9 up"
    )
    inside = [sys.executable, "-m", "tests.bench.bench_swarm", str(replicas), str(more)]
    unshare = shutil.which("unshare")
    assert unshare is not None, "unshare is missing; install util-linux"
    command = [unshare, "--net", "--", "/bin/sh", "-c", f'{prepare} && exec "$@"', "sh", *inside]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    measures = []
    names = {"create": f"create {replicas}", "scale": f"scale to {more}", "update": f"update {replicas}",
             "remove": f"remove {replicas}"}  # fmt: skip
    for step in STEPS:
        ours, theirs = found["corral"][step], found["swarm"][step]
        note = f"corral {ours:.2f} s, swarm mode {theirs:.2f} s; grace {GRACE_S} s"
        if step in found["bare"]:
            bare = found["bare"][step]
            note += f"; the Engine asked directly {bare:.2f} s, {bare / theirs:.2f} of swarm mode's"
        budget = None if short else BUDGETS[step]
        measures.append(
            Measure(
                name=f"{names[step]}, against swarm mode", unit="times", runs=(ours / theirs,), budget=budget, note=note
            )
        )
    return measures


# Inside the namespace.


def _run(replicas: int, more: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="cs-") as directory:
        engine = PrivateEngine(Path(directory) / "e", live_restore=False)
        try:
            engine.start()
            import_busybox(engine.url, [IMAGE])
            bare = _time_bare(engine.url, replicas, more)
            ours = _time_corral(Path(directory), engine.url, replicas, more)
            theirs = _time_swarm(engine.url, replicas, more)
        finally:
            engine.stop()
    return {"corral": ours, "swarm": theirs, "bare": bare}


def _timed(begin: Callable[[], Any], done: Callable[[], bool]) -> float:
    """Seconds from the request to its effect."""
    begun = time.perf_counter()
    begin()
    give_up_at = begun + TIMEOUT_S
    while not done():
        assert time.perf_counter() < give_up_at, "it does not come to an end"
        time.sleep(POLL_S)
    return time.perf_counter() - begun


def _containers(engine: str) -> int:
    return len(_ask(engine, "GET", "/containers/json"))


def _ask(engine: str, method: str, path: str, body: Any = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    answer = engine_call(engine, method, path, content, headers, timeout_s=60.0)
    return json.loads(answer) if answer else None


def _time_bare(engine: str, replicas: int, more: int) -> dict[str, float]:
    """The same containers with nobody to look after them."""
    body = {
        "Image": IMAGE, "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": "host", "Memory": 32 << 20, "MemorySwap": 32 << 20, "CpuShares": 102},
    }  # fmt: skip

    def start(number: int) -> None:
        id = _ask(engine, "POST", f"/containers/create?name=bare{number}", body)["Id"]
        _ask(engine, "POST", f"/containers/{id}/start")

    def remove(number: int) -> None:
        _ask(engine, "DELETE", f"/containers/bare{number}?force=true")

    with ThreadPoolExecutor(AT_ONCE) as pool:

        def all_of(work: Callable[[int], None], first: int, end: int) -> Callable[[], Any]:
            return lambda: list(pool.map(work, range(first, end)))

        found = {"create": _timed(all_of(start, 0, replicas), lambda: _containers(engine) == replicas)}
        found["scale"] = _timed(all_of(start, replicas, more), lambda: _containers(engine) == more)
        all_of(remove, 0, more)()
    return found


def _time_corral(directory: Path, engine: str, replicas: int, more: int) -> dict[str, float]:
    options = ("--runtime", "docker", "--docker-host", engine, "--resources", "cpus:64;mem:65536;ports:[31000-32000]")
    with DevCluster(directory, *options) as cluster:

        def settled(count: int) -> Callable[[], bool]:
            def look() -> bool:
                app = cluster.expect(200, "GET", "/v2/apps/side")["app"]
                return not app["deployments"] and app["tasksRunning"] == count

            return look

        body = {
            "id": "/side", "args": ["sleep", "1000"], "instances": replicas, "cpus": 0.1, "mem": 32,
            "taskKillGracePeriodSeconds": GRACE_S,
            "container": {"type": "DOCKER", "docker": {"image": IMAGE, "network": "HOST"}},
        }  # fmt: skip
        found = {"create": _timed(lambda: cluster.expect(201, "POST", "/v2/apps", body), settled(replicas))}
        path = "/v2/apps/side"
        found["scale"] = _timed(lambda: cluster.expect(200, "PUT", path, {"instances": more}), settled(more))
        _timed(lambda: cluster.expect(200, "PUT", path, {"instances": replicas}), settled(replicas))
        found["update"] = _timed(lambda: cluster.expect(200, "PUT", path, {"env": {"A": "b"}}), settled(replicas))
        found["remove"] = _timed(lambda: cluster.expect(200, "DELETE", path), lambda: _containers(engine) == 0)
    return found


def _time_swarm(engine: str, replicas: int, more: int) -> dict[str, float]:
    _ask(engine, "POST", "/swarm/init", {"ListenAddr": "10.99.9.1:2377", "AdvertiseAddr": "10.99.9.1"})
    spec: dict[str, Any] = {
        "Name": "side",
        "TaskTemplate": {
            "ContainerSpec": {"Image": IMAGE, "Args": ["sleep", "1000"], "StopGracePeriod": GRACE_S * 10**9},
            "Resources": {"Limits": {"MemoryBytes": 32 << 20}},
            "Networks": [{"Target": "host"}],
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }

    def running(count: int, **env: str) -> Callable[[], bool]:
        wanted = [f"{k}={v}" for k, v in env.items()]

        def look() -> bool:
            tasks = _ask(engine, "GET", "/tasks")
            up = [t for t in tasks if t["Status"]["State"] == "running" and t["DesiredState"] == "running"]
            fresh = [t for t in up if t["Spec"]["ContainerSpec"].get("Env", []) == wanted]
            return len(up) == len(fresh) == count and _containers(engine) == count

        return look

    def update() -> None:
        version = _ask(engine, "GET", "/services/side")["Version"]["Index"]
        _ask(engine, "POST", f"/services/side/update?version={version}", spec)

    try:
        found = {"create": _timed(lambda: _ask(engine, "POST", "/services/create", spec), running(replicas))}
        spec["Mode"]["Replicated"]["Replicas"] = more
        found["scale"] = _timed(update, running(more))
        spec["Mode"]["Replicated"]["Replicas"] = replicas
        _timed(update, running(replicas))
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["A=b"]
        found["update"] = _timed(update, running(replicas, A="b"))
        found["remove"] = _timed(lambda: _ask(engine, "DELETE", "/services/side"), lambda: _containers(engine) == 0)
    finally:
        _ask(engine, "POST", "/swarm/leave?force=true")
    return found


if __name__ == "__main__":
    os.environ.pop("DOCKER_HOST", None)
    print(json.dumps(_run(int(sys.argv[1]), int(sys.argv[2]))))
