"""`kill -9` of master, agent and framework, each a process of its own, while they launch and while tasks run.

Promises: an app that was acknowledged is never lost, no task runs twice, and an exit that nobody watched is told.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corral_daemons import (
    Daemon,
    Site,
    active_tasks,
    ask,
    read_app,
    run_corral,
    wait_running,
    wait_until,
)

MOMENTS_S = (0.0, 0.05, 0.3)
"""When after the acknowledgement of an app something is killed: asked, starting, running."""


PATIENT = ("--set", "kernel.agent_timeout_s=20")
"""A busy machine may need seconds to start an agent again, whose tasks are not to be replaced meanwhile."""


class Trio:
    """A master and an agent, each a process of its own, and what the tasks themselves say."""

    def __init__(self, site: Site, *, frameworks: bool = True) -> None:
        self.site = site
        self.more = PATIENT if frameworks else (*PATIENT, "--config", str(_no_frameworks(site.directory)))
        self.master = site.master(*self.more)
        self.listen = self.master.url.removeprefix("http://")
        self.agent = site.agent(self.master.url)
        self.diary = site.directory / "diary"
        self.diary.mkdir()

    def restart_master(self) -> None:
        self.master.kill()
        self.master = self.site.master(*self.more, listen=self.listen)

    def restart_agent(self) -> None:
        self.agent.kill()
        self.agent = self.site.agent(self.master.url)

    def app(self, name: str, instances: int, command: str = "exec sleep 1000") -> dict[str, Any]:
        """An app whose every start leaves a file with its pid, named after the task."""
        write = f'echo $$ > "{self.diary}/{name}.$MESOS_TASK_ID"'
        return {"id": name, "cmd": f"{write}; {command}", "cpus": 0.1, "mem": 16, "instances": instances,
                "backoffSeconds": 1}  # fmt: skip

    def alive(self, name: str) -> list[str]:
        """The task ids of living processes of an app, as the operating system knows them."""
        found = []
        for file in self.diary.glob(f"{name}.*"):
            text = file.read_text().strip()
            if text and Path("/proc", text).exists():
                found.append(file.name.removeprefix(f"{name}."))
        return sorted(found)

    def check(self, url: str, name: str, count: int) -> list[str]:
        """The app runs so many instances: for itself, for the kernel and for the operating system."""

        def same() -> list[str]:
            # What is told may be a moment behind what has just died, so both are looked at together.
            ids = sorted(t["id"] for t in wait_running(url, name, count)["tasks"])
            return ids if self.alive(name) == ids else []

        ids = wait_until(same, f"{count} processes of {name} that are those the app tells of")
        wait_until(
            lambda: sorted(t["id"] for t in active_tasks(self.master.url, name)) == ids, "the kernel to know the same"
        )
        return ids


def _no_frameworks(directory: Path) -> Path:
    file = directory / "corral.toml"
    file.write_text("[master]\nframeworks = []\n")
    return file


def post_app(url: str, app: dict[str, Any]) -> None:
    status, answer = ask(url, "POST", "/v2/apps", app)
    assert status == 201, answer


def kill_at(moment_s: float, kill: Callable[[], None], url: str, apps: list[dict[str, Any]]) -> list[str]:
    """Ask for apps one after the other, kill so long after the first was acknowledged; which were acknowledged."""
    taken: list[str] = []
    first = threading.Event()

    def post() -> None:
        for app in apps:
            try:
                if ask(url, "POST", "/v2/apps", app)[0] == 201:
                    taken.append(app["id"])
                    first.set()
            except OSError:
                return

    poster = threading.Thread(target=post)
    poster.start()
    assert first.wait(15)
    time.sleep(moment_s)
    kill()
    poster.join(20)
    assert not poster.is_alive()
    return taken


@pytest.mark.parametrize("who", ["master", "agent"])
def test_no_acknowledged_app_is_lost_and_no_task_runs_twice(daemons: Site, who: str) -> None:
    trio = Trio(daemons)
    post_app(trio.master.url, trio.app("old", 2))
    old = trio.check(trio.master.url, "old", 2)
    for index, moment_s in enumerate(MOMENTS_S):
        apps = [trio.app(f"{who}{index}x{number}", 2) for number in range(3)]
        daemon = trio.master if who == "master" else trio.agent
        taken = kill_at(moment_s, daemon.kill, trio.master.url, apps)
        if who == "master":
            trio.restart_master()
        else:
            assert taken == [app["id"] for app in apps]
            trio.restart_agent()
        for name in taken:
            trio.check(trio.master.url, name, 2)
        for app in apps:
            # What was not acknowledged may be there or not, but whole.
            status, _ = ask(trio.master.url, "DELETE", f"/v2/apps/{app['id']}?force=true")
            assert status in (200, 404)
        for app in apps:
            wait_until(lambda name=app["id"]: trio.alive(name) == [], f"the end of {app['id']}")
    assert trio.check(trio.master.url, "old", 2) == old


def test_exits_that_nobody_watched_are_told(daemons: Site) -> None:
    trio = Trio(daemons)
    flag = daemons.directory / "flag"
    command = f'n=0; while [ ! -e "{flag}.{{}}" ]; do sleep 0.05; done; exit 7'
    for name in ("agentless", "masterless", "alone"):
        app = trio.app(name, 1, command.format(name))
        post_app(trio.master.url, {**app, "backoffSeconds": 60})
    before = {name: trio.check(trio.master.url, name, 1) for name in ("agentless", "masterless", "alone")}

    def end(name: str) -> None:
        Path(f"{flag}.{name}").touch()
        wait_until(lambda: trio.alive(name) == [], f"the exit of {name}")

    def told(name: str) -> None:
        failure = wait_until(lambda: read_app(trio.master.url, name).get("lastTaskFailure"), f"word of {name}")
        assert failure["taskId"] == before[name][0]
        assert failure["state"] == "TASK_FAILED"
        assert "7" in failure["message"]

    trio.agent.kill()
    end("agentless")
    trio.restart_agent()
    told("agentless")
    trio.master.kill()
    end("masterless")
    trio.restart_master()
    told("masterless")
    trio.master.kill()
    trio.agent.kill()
    end("alone")
    trio.restart_master()
    trio.restart_agent()
    told("alone")


def test_tasks_that_are_to_end_while_the_agent_is_dead_end_when_it_is_back(daemons: Site) -> None:
    trio = Trio(daemons)
    post_app(trio.master.url, trio.app("shrink", 3))
    trio.check(trio.master.url, "shrink", 3)
    trio.agent.kill()
    assert ask(trio.master.url, "PUT", "/v2/apps/shrink?force=true", {"instances": 1})[0] == 200
    time.sleep(0.5)
    assert len(trio.alive("shrink")) == 3
    trio.restart_agent()
    trio.check(trio.master.url, "shrink", 1)


def test_services_as_a_process_of_its_own_live_the_same_life(daemons: Site) -> None:
    trio = Trio(daemons, frameworks=False)
    services = daemons.services(trio.master.url)
    url = services.url
    post_app(url, trio.app("web", 1))
    (first,) = trio.check(url, "web", 1)
    assert ask(url, "PUT", "/v2/apps/web", {"instances": 3})[0] == 200
    assert first in trio.check(url, "web", 3)
    assert run_corral(trio.master.url, "ps").out.count("web.instance-") == 3

    os.kill(int((trio.diary / f"web.{first}").read_text()), 9)
    wait_until(lambda: first not in trio.alive("web"), "the end of a killed instance")
    again = trio.check(url, "web", 3)
    assert first not in again

    services = restart_services(daemons, trio, services)
    assert services.url == url
    assert trio.check(url, "web", 3) == again
    trio.restart_master()
    assert trio.check(url, "web", 3) == again
    post_app(url, trio.app("later", 1))
    trio.check(url, "later", 1)

    for name in ("web", "later"):
        assert ask(url, "DELETE", f"/v2/apps/{name}")[0] == 200
        wait_until(lambda name=name: trio.alive(name) == [], f"the end of {name}")
    assert ask(url, "GET", "/v2/apps/web")[0] == 404


def restart_services(daemons: Site, trio: Trio, services: Daemon) -> Daemon:
    services.kill()
    return daemons.services(trio.master.url, listen=services.url.removeprefix("http://"))


@pytest.mark.slow
def test_services_killed_while_they_launch_lose_and_double_nothing(daemons: Site) -> None:
    trio = Trio(daemons, frameworks=False)
    services = daemons.services(trio.master.url)
    for index, moment_s in enumerate(MOMENTS_S):
        apps = [trio.app(f"s{index}x{number}", 2) for number in range(3)]
        taken = kill_at(moment_s, services.kill, services.url, apps)
        services = restart_services(daemons, trio, services)
        for name in taken:
            trio.check(services.url, name, 2)
        for app in apps:
            assert ask(services.url, "DELETE", f"/v2/apps/{app['id']}?force=true")[0] in (200, 404)
        for app in apps:
            wait_until(lambda name=app["id"]: trio.alive(name) == [], f"the end of {app['id']}")
