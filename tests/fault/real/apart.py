"""Faults with work of their own beside the scene: only instances, a framework in its own process, a cluster of trust.

What they start they end, so that the scene's count of tasks is its own.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance.corral_daemons import Daemon, Site, run_corral
from tests.fault.real.cluster import CLOCKED, TIMEOUT_S, call, wait_for
from tests.fault.real.scene import LOOP, Diary, Outcome, Scene

STOP_AFTER_S = 4
FRAMEWORK_PORT = 4690


def fence_by_supervisor(scene: Scene) -> Outcome:
    """An agent is stopped whose only instances may be replaced: somebody else has to end them before."""
    cluster = scene.cluster
    host = next(name for name in reversed(cluster.names) if name != cluster.leader())
    with _diary(scene) as diary:
        apps = [f"only-{kind}" for kind in scene.kinds]
        try:
            for app, kind in zip(apps, scene.kinds, strict=True):
                _put(scene, _only(app, kind, diary, host))
            first = {app: wait_for(lambda app=app: _running(scene, app), f"the instance of {app}") for app in apps}  # type: ignore[misc]
            # Where the next one runs is free.
            for app, kind in zip(apps, scene.kinds, strict=True):
                _put(scene, {**_only(app, kind, diary, ""), "id": f"/{app}"}, force=False)
            scene.begin()
            with cluster.stopped(host, "agent"):
                for task in first.values():
                    wait_for(lambda task=task: not diary.alive(task), f"the end of {task}")  # type: ignore[misc]
                wait_for(lambda: len(diary.starts()) == 2 * len(apps), "others in their place", TIMEOUT_S * 6)
                replaced_s = time.monotonic() - scene.hurt_at
                _never_two(diary, first)
            took_s = scene.settle()
        finally:
            for app in apps:
                cluster.ask("DELETE", f"/v2/apps/{app}?force=true", timeout_s=10.0)
            wait_for(lambda: not any(_running(scene, app) for app in apps), "the end of the apps")
    return Outcome(
        f"their supervisors ended its {len(apps)} only instances, others ran in their place after {replaced_s:.1f} s, "
        "and there were never two",
        took_s,
    )


def _only(app: str, kind: str, diary: Diary, host: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": f"/{app}", "cmd": LOOP.replace("{diary}", str(diary.directory)), "cpus": 0.05, "mem": 32, "instances": 1,
        "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true", "corral.stop-after": f"{STOP_AFTER_S}s"},
        "upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0},
        "taskKillGracePeriodSeconds": 1, "backoffSeconds": 1,
        "unreachableStrategy": {"inactiveAfterSeconds": 1, "expungeAfterSeconds": 600},
        "constraints": [["hostname", "LIKE", host or ".*"]],
    }  # fmt: skip
    if kind == "docker":
        path = str(diary.directory)
        found["container"] = {
            "type": "DOCKER", "docker": {"image": "busybox:latest", "network": "HOST"},
            "volumes": [{"containerPath": path, "hostPath": path, "mode": "RW"}],
        }  # fmt: skip
    return found


def _never_two(diary: Diary, first: dict[str, str]) -> None:
    """The last sign of life of each was before the start of the one in its place."""
    for app, task in first.items():
        (other,) = [found for found in diary.starts() if found.startswith(f"{app}.") and found != task]
        last = (diary.directory / f"{task}.beat").stat().st_mtime
        began = (diary.directory / f"{other}.starts").stat().st_mtime
        assert last < began, f"{other} began {last - began:.1f} s before the last sign of {task}"


def kill_framework(scene: Scene) -> Outcome:
    """A framework of a process of its own dies, and one of its tasks ends meanwhile."""
    cluster = scene.cluster
    host = next(name for name in reversed(cluster.names) if name != cluster.leader())
    url = f"{cluster.ips[host]}:{FRAMEWORK_PORT}"
    masters = ",".join(f"http://{cluster.ips[name]}:4680" for name in cluster.masters)
    before = _frameworks(scene)
    cluster._run(host, "framework", [
        sys.executable, str(CLOCKED), "framework", "services", "--insecure", "--master", masters, "--listen", url,
        "--work-dir", str(cluster.directory / "framework"),
    ])  # fmt: skip
    with _diary(scene) as diary:
        try:
            (own,) = wait_for(lambda: _frameworks(scene) - before, "the framework")
            app = {
                "id": "/own", "cmd": LOOP.replace("{diary}", str(diary.directory)), "cpus": 0.05, "mem": 32,
                "instances": 3, "backoffSeconds": 1,
            }  # fmt: skip
            wait_for(lambda: call(url, "PUT", "/v2/apps/own?force=true", app, 10.0)[0] < 300, "the app of its own")
            wait_for(lambda: len(_alive(diary)) == 3, "its tasks")
            tasks = _alive(diary)
            scene.begin()
            with cluster.down(host, "framework"):
                diary.end(tasks[0], 7)
                time.sleep(5.0)
                assert _alive(diary) == tasks[1:] or tasks[0] in _alive(diary), "its tasks run on"
            wait_for(lambda: own in _connected(scene), "the framework under its id")
            back_s = time.monotonic() - scene.hurt_at
            wait_for(lambda: len(_alive(diary)) == 3, "another task in place of the ended one")
            assert set(tasks[1:]) < set(_alive(diary)), "tasks were replaced that ran on"
            assert [diary.starts()[task] for task in tasks] == [1, 1, 1]
            assert _frameworks(scene) - before == {own}, "it has come back as another"
            took_s = scene.settle()
        finally:
            with contextlib.suppress(OSError):
                call(url, "DELETE", "/v2/apps/own?force=true", timeout_s=10.0)
            wait_for(lambda: not _alive(diary), "the end of its tasks")
            cluster.held.add((host, "framework"))
            cluster.lab.signal(host, "framework")
            for framework in _frameworks(scene) - before:
                cluster.ask("POST", "/api/v1", {"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework}}})
    return Outcome(
        f"its tasks ran on; started again it was back under its id after {back_s:.1f} s, and replaced the 1 task that "
        "had exited meanwhile, alone",
        took_s,
    )


def revoke_node(scene: Scene) -> Outcome:
    """A node of a cluster that speaks TLS is revoked while it works."""
    with tempfile.TemporaryDirectory(prefix="corral-fault-") as place, Site(Path(place)) as site:
        master = site.master("--set", "trust.tls=on")
        trust = Path(place) / "master" / "trust"
        given = {"CORRAL_CACERT": str(trust / "ca.pem"), "CORRAL_TOKEN": f"@{trust / 'operator.token'}"}

        def corral(*words: str) -> Any:
            answer = run_corral(master.url, *words, **given)
            assert answer.code == 0, answer.err
            return answer

        token = corral("token", "create").out.strip()
        agent: Daemon = site.start(
            "join", f"{token}@{master.url.removeprefix('https://')}", "--work-dir", f"{place}/node", "--name", "node",
            "--listen", "127.0.0.1:0", "--runtime", "process", "--resources", "cpus:4;mem:2048;ports:[31000-31099]",
        )  # fmt: skip
        beat = Path(place) / "beat"
        corral("run", "--process", "--name", "on", "--", "sh", "-c", f"while :; do touch {beat}; sleep 0.2; done")
        wait_for(beat.exists, "the task on the node")
        scene.begin()
        corral("ca", "revoke", "node")
        wait_for(lambda: "agent disconnected" in master.text, "the cut link", 10.0, pause_s=0.02)
        cut_s = time.monotonic() - scene.hurt_at
        wait_for(lambda: "was revoked at" in agent.text, "the refused dial", 20.0)
        now = time.time()
        wait_for(lambda: beat.stat().st_mtime > now, "the task, which runs on", 5.0)
        again = corral("token", "create").out.strip()
        joined = run_corral("", "join", f"{again}@{master.url.removeprefix('https://')}", "--work-dir", f"{place}/node",
                            "--name", "node", "--no-start")  # fmt: skip
        assert joined.code == 0, joined.err
        wait_for(lambda: corral("nodes", "-o", "json").json[0]["state"] == "reachable", "the node back", 60.0)
        took_s = time.monotonic() - scene.hurt_at
    return Outcome(
        f"its link was cut within {cut_s:.1f} s and its dials were refused; its task ran on, and was known again when "
        "the node had joined anew",
        took_s,
    )


@contextlib.contextmanager
def _diary(scene: Scene) -> Iterator[Diary]:
    """A diary beside the scene's, for tasks that are no part of it."""
    directory = scene.cluster.directory / "apart"
    directory.mkdir(mode=0o777, exist_ok=True)
    directory.chmod(0o777)
    for path in directory.iterdir():
        path.unlink()
    yield Diary(directory)


def _alive(diary: Diary) -> list[str]:
    return sorted(task for task in diary.starts() if diary.alive(task))


def _put(scene: Scene, app: dict[str, Any], *, force: bool = True) -> None:
    path = f"/v2/apps{app['id']}" + ("?force=true" if force else "")
    status, answer = scene.cluster.ask("PUT", path, app, timeout_s=10.0)
    assert status < 300, answer


def _running(scene: Scene, app: str) -> str:
    """Its running task; empty when there is none, or no such app."""
    status, answer = scene.cluster.ask("GET", f"/v2/apps/{app}")
    if status != 200:
        return ""
    return next((task["id"] for task in answer["app"]["tasks"] if task["state"] == "TASK_RUNNING"), "")


def _frameworks(scene: Scene) -> set[str]:
    found = scene.cluster.get("/corral/v1/frameworks")["frameworks"]
    return {one["id"] for one in found if one["state"] != "removed"}


def _connected(scene: Scene) -> set[str]:
    found = scene.cluster.get("/corral/v1/frameworks")["frameworks"]
    return {one["id"] for one in found if one["state"] == "connected"}
