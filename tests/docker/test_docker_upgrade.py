"""An agent that becomes the installed version while containers and plain processes run on it: none of them notices."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.corral_daemons import RESOURCES, Daemon, Site, ask, processes_below, run_corral, wait_until

from corral.docker.daemon import PrivateEngine

KINDS = ("docker", "plain")
TOLD = [("TASK_FAILED", "Command exited with status 7")]
LOOP = (
    "echo >> {place}/$MESOS_TASK_ID.starts; "
    "while :; do touch {place}/$MESOS_TASK_ID.beat; "
    "if [ -f {place}/$MESOS_TASK_ID.end ]; then exit 7; fi; sleep 0.1; done"
)


def app(name: str, kind: str, place: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": f"/{name}-{kind}", "cmd": LOOP.replace("{place}", str(place)), "cpus": 0.1, "mem": 32, "instances": 2,
        "backoffSeconds": 1,
    }  # fmt: skip
    if kind == "docker":
        found["container"] = {
            "type": "DOCKER", "docker": {"image": "busybox:latest", "network": "HOST"},
            "volumes": [{"containerPath": str(place), "hostPath": str(place), "mode": "RW"}],
        }  # fmt: skip
    return found


def running(master: Daemon, name: str) -> list[str]:
    tasks = ask(master.url, "GET", f"/v2/apps/{name}")[1]["app"]["tasks"]
    return sorted(task["id"] for task in tasks if task["state"] == "TASK_RUNNING")


def ended(master: Daemon, task: str) -> list[tuple[str, str]]:
    found = ask(master.url, "GET", f"/corral/v1/tasks?task={task}")[1]["tasks"]
    return [(each["state"], each["message"]) for each in found]


@pytest.mark.timeout(180)
def test_containers_and_processes_run_on_and_what_ends_meanwhile_is_learned(
    tmp_path: Path, private_engine: PrivateEngine
) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    with Site(tmp_path) as site:
        # What is away for longer is lost and started elsewhere, and a loaded machine takes its time to start an agent.
        master = site.master("--set", "kernel.agent_timeout_s=60")
        agent = site.start(
            "agent", "--master", master.url.removeprefix("http://"), "--listen", "127.0.0.1:0", "--work-dir",
            str(tmp_path / "agent"), "--runtime", "docker,process", "--docker-host", private_engine.url,
            "--resources", RESOURCES,
        )  # fmt: skip
        names = [f"{what}-{kind}" for what in ("steady", "brief") for kind in KINDS]
        for what in ("steady", "brief"):
            for kind in KINDS:
                status, answer = ask(master.url, "POST", "/v2/apps", app(what, kind, place))
                assert status == 201, answer
        for name in names:
            wait_until(lambda name=name: len(running(master, name)) == 2, f"two of {name}", 60)  # type: ignore[misc]
        before = {name: running(master, name) for name in names}
        instance = ask(agent.url, "GET", "/corral/v1/process")[1]["instance"]
        brief = [before[f"brief-{kind}"][0] for kind in KINDS]

        def end_when_away() -> None:
            """The agent has let go and is not back yet when these end."""
            wait_until(lambda: "renewing" in agent.text, "the beginning of the upgrade")
            time.sleep(0.2)
            for task in brief:
                (place / f"{task}.end").touch()

        ending = threading.Thread(target=end_when_away)
        ending.start()
        done = run_corral(master.url, "upgrade", "--agents", "--force", timeout_s=120)
        ending.join()
        assert done.code == 0, done.err
        assert ask(agent.url, "GET", "/corral/v1/process")[1]["instance"] != instance
        for task in brief:
            wait_until(lambda task=task: ended(master, task) == TOLD, f"the exit of {task}", 60)  # type: ignore[misc]
        for name in names:
            wait_until(lambda name=name: len(running(master, name)) == 2, f"two of {name} again", 60)  # type: ignore[misc]
        for kind in KINDS:
            assert running(master, f"steady-{kind}") == before[f"steady-{kind}"]
            assert set(before[f"brief-{kind}"]) - set(running(master, f"brief-{kind}")) <= set(brief)
        starts = {path.name: path.read_text().count("\n") for path in place.glob("*.starts")}
        assert set(starts.values()) == {1}, "something was started again"
        assert len(starts) == 8 + len(brief)
        now = time.time()
        for kind in KINDS:
            for task in before[f"steady-{kind}"]:
                wait_until(lambda task=task: (place / f"{task}.beat").stat().st_mtime > now, f"a beat of {task}")  # type: ignore[misc]
        for name in names:
            ask(master.url, "DELETE", f"/v2/apps/{name}?force=true")
        wait_until(lambda: not list(processes_below(place)), "the end of all tasks", 60)
