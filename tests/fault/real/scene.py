"""What is watched while something is hurt: the tasks' own diary, writes to the API, and when all is whole again.

Tasks write down by themselves that they started and that they live, so what counts as lost does not depend on what the
cluster believes.
"""

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.fault.real.cluster import Cluster, wait_for

BEAT_S = 0.5
FRESH_S = 4.0
"""A task whose last sign is older does not run."""

LOOP = (
    'f={diary}/$MESOS_TASK_ID; echo >> $f.starts; while :; do touch $f.beat; '
    'if [ -f $f.end ]; then exit $(cat $f.end); fi; sleep 0.5; done'
)  # fmt: skip


class Outcome(NamedTuple):
    """What came of a fault.

    Shapes: `happened` is a sentence; `ended` and `again` as `Scene.lost` takes them. Units: seconds until whole.
    """

    happened: str
    seconds: float
    ended: Sequence[str] = ()
    again: Sequence[str] = ()


class Diary:
    """What tasks have written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def starts(self) -> dict[str, int]:
        """How often each task was started, by task id."""
        found = {}
        for path in self.directory.glob("*.starts"):
            with contextlib.suppress(FileNotFoundError):
                found[path.name.removesuffix(".starts")] = path.read_text().count("\n")
        return found

    def alive(self, task_id: str) -> bool:
        try:
            return time.time() - (self.directory / f"{task_id}.beat").stat().st_mtime < FRESH_S
        except FileNotFoundError:
            return False

    def end(self, task_id: str, code: int) -> None:
        """Have a task exit by itself, wherever it is."""
        (self.directory / f"{task_id}.end").write_text(str(code))


class Writer:
    """Writes to the API all the time, and remembers what was acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.accepted: list[tuple[float, int]] = []
        self.tried = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(20)

    def _write(self) -> None:
        while not self._ending.wait(0.2):
            self.tried += 1
            body = {"id": "/ledger", "cmd": "exit 0", "instances": 0, "env": {"N": str(self.tried)}}
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                status, _ = self._cluster.ask("PUT", "/v2/apps/ledger?force=true", body, timeout_s=3.0)
                if status < 300:
                    self.accepted.append((time.monotonic(), self.tried))

    def outage_s(self, since: float) -> float:
        """The longest time without an accepted write since an instant."""
        times = [since, *(at for at, _ in self.accepted if at >= since), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))

    def lost(self) -> list[str]:
        """Whether the newest acknowledged write is there."""
        if not self.accepted:
            return ["no write was accepted at all"]
        newest = self.accepted[-1][1]  # before the look: writes go on meanwhile
        found = int(self._cluster.get("/v2/apps/ledger")["app"]["env"]["N"])
        return [] if found >= newest else [f"writes {found + 1} to {newest}, which were acknowledged"]


class Scene:
    """A cluster with work on it. Shapes: `kinds` of tasks are those that hosts can run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.diary = Diary(cluster.diary)
        self.writer = Writer(cluster)
        self.kinds = ("docker", "plain") if cluster.docker else ("plain",)
        self.hurt_at = 0.0
        self._before: dict[str, int] = {}

    # Work.

    def furnish(self) -> None:
        """Two tasks of each kind on each host that shall run through everything, and one that ends when told."""
        for kind in self.kinds:
            self.deploy(f"steady-{kind}", kind, 2 * len(self.cluster.names))
            self.deploy(f"brief-{kind}", kind, len(self.cluster.names), per_host=1)
        self.writer.start()
        wait_for(lambda: self.writer.accepted, "an accepted write")

    def deploy(self, name: str, kind: str, instances: int, *, per_host: int = 2, **more: Any) -> None:
        app: dict[str, Any] = {
            "id": f"/{name}", "cmd": LOOP.replace("{diary}", str(self.diary.directory)), "cpus": 0.05, "mem": 32,
            "instances": instances, "constraints": [["hostname", "MAX_PER", str(per_host)]], "backoffSeconds": 1,
            "unreachableStrategy": "disabled", **more,
        }  # fmt: skip
        if kind == "docker":
            path = str(self.diary.directory)
            app["container"] = {
                "type": "DOCKER", "docker": {"image": "busybox:latest", "network": "HOST"},
                "volumes": [{"containerPath": path, "hostPath": path, "mode": "RW"}],
            }  # fmt: skip
        status, answer = self.cluster.ask("PUT", f"/v2/apps/{name}?force=true", app, timeout_s=10.0)
        assert status < 300, answer
        self.wait_running([name])

    def apps(self) -> list[str]:
        return [f"{what}-{kind}" for what in ("steady", "brief") for kind in self.kinds]

    def tasks_of(self, name: str, host: str = "") -> list[str]:
        """Ids of an app's running tasks, of one host or all."""
        found = self.cluster.get(f"/v2/apps/{name}")["app"]["tasks"]
        return [task["id"] for task in found if task["state"] == "TASK_RUNNING" and host in ("", task["host"])]

    def wait_running(self, names: Sequence[str], timeout_s: float = 60.0) -> None:
        """Return when apps have all their instances, by the API and by the tasks' own signs of life."""
        for name in names:

            def look(name: str = name) -> bool:
                app = self.cluster.get(f"/v2/apps/{name}")["app"]
                running = self.tasks_of(name)
                return len(running) == app["instances"] == len(app["tasks"]) and all(map(self.diary.alive, running))

            wait_for(look, f"all instances of {name}", timeout_s)

    # Before and after.

    def begin(self) -> None:
        """From here on counts what is hurt."""
        self._before = self.diary.starts()
        self.hurt_at = time.monotonic()

    def settle(self, timeout_s: float = 90.0) -> float:
        """Wait until all is as it should be; seconds since the hurt began."""
        left = max(1.0, self.hurt_at + timeout_s - time.monotonic())
        self.cluster.wait_whole(left)
        newest = len(self.writer.accepted)
        wait_for(lambda: len(self.writer.accepted) > newest, "an accepted write", left)
        took_s = time.monotonic() - self.hurt_at
        self.wait_running(self.apps(), timeout_s)
        return took_s

    def lost(self, *, ended: Sequence[str] = (), again: Sequence[str] = ()) -> list[str]:
        """What is missing or was done twice.

        Shapes: `ended` are tasks that exited as they were told, each of which another has replaced; `again` those that
        had to be started a second time, such as on a host whose power was cut.
        """
        after = self.diary.starts()
        found = [
            f"task {task} was started again"
            for task, count in self._before.items()
            if after.get(task, 0) != count + (task in again)
        ]
        fresh = sorted(set(after) - set(self._before))
        if len(fresh) != len(ended):
            found.append(f"{len(fresh)} new tasks were started for {len(ended)} that ended: {', '.join(fresh)}")
        live = {task for name in self.apps() for task in self.tasks_of(name)}
        gone = [task for task in self._before if task not in ended and task not in live and self._was_live(task)]
        found += [f"task {task} is gone" for task in gone]
        return found + self.writer.lost()

    def _was_live(self, task: str) -> bool:
        return not (self.diary.directory / f"{task}.end").exists()

    def learned(self, task_id: str, code: int) -> bool:
        """Whether the cluster knows how a task ended."""
        found = self.cluster.get(f"/corral/v1/tasks?task={task_id}")["tasks"]
        return [(t["state"], t["message"]) for t in found] == [("TASK_FAILED", f"Command exited with status {code}")]
