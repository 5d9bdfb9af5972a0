"""Three masters, each a process of its own, over a real etcd: killed, stopped and hung, while tasks run."""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from corral_daemons import UNCOMPILED, Daemon, Site, ask, run_corral, wait_running, wait_until
from tests.own_ports import free_ports

from corral.runtime.election import LEADERSHIP_LOST
from etcd_servers import Etcd
from haproxy_server import require_haproxy

TTL_S = 2.0


class Cluster:
    """Shapes: `masters` by their address; `addresses` all of them, as agents and people are told."""

    def __init__(self, site: Site, etcd: Etcd) -> None:
        self.site = site
        self.store = f"{etcd.store}/{site.directory.name}"
        self.listen = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.addresses = ",".join(self.listen)
        self.masters = {each: self.start_master(each, ready=False) for each in self.listen}
        self.leader()
        self.agent = self.start_agent()

    def start_master(self, listen: str, *, ready: bool = True) -> Daemon:
        return self.site.start(
            "master", "--listen", listen, "--work-dir", str(self.site.directory / listen), "--store", self.store,
            "--set", f"kernel.lease_ttl_s={TTL_S}", "--set", "kernel.ping_s=1", "--set", "kernel.agent_timeout_s=30",
            *UNCOMPILED, ready=ready,
        )  # fmt: skip

    def start_agent(self) -> Daemon:
        return self.site.agent(self.addresses)

    def mend(self) -> None:
        """As a service manager: on a busy machine a lease of two seconds is lost now and then."""
        for address, one in self.masters.items():
            if one.process.poll() == LEADERSHIP_LOST:
                print(one.text)
                self.masters[address] = self.start_master(address)

    def restart(self, address: str) -> None:
        """Start this master again, unless that was done meanwhile."""
        if self.masters[address].process.poll() is not None:
            self.masters[address] = self.start_master(address)

    def leader(self) -> str:
        """The address of the one that says so."""

        def look() -> str:
            self.mend()
            found = [each for each, one in self.masters.items() if one.process.poll() is None and leads(each)]
            return found[0] if len(found) == 1 else ""

        try:
            return wait_until(look, "one leader", 60.0)
        except AssertionError:
            print(*(f"{each}: {one.text}" for each, one in self.masters.items()), sep="\n\n")
            raise

    def standby(self) -> str:
        leader = self.leader()
        assert any(each != leader and one.process.poll() is None for each, one in self.masters.items()), [
            (each, one.process.poll(), one.text) for each, one in self.masters.items()
        ]
        return next(each for each, one in self.masters.items() if each != leader and one.process.poll() is None)

    def write_until_taken(self, address: str, name: str) -> tuple[float, list[int]]:
        """Seconds until a write sent to this master was taken, and all statuses."""
        begun = time.monotonic()
        statuses: list[int] = []
        while 201 not in statuses:
            assert time.monotonic() - begun < 30.0, statuses
            status, _ = ask(f"http://{address}", "POST", "/v2/apps", app(name, 0))
            statuses.append(status)
            time.sleep(0.05)
        return time.monotonic() - begun, statuses


def leads(address: str) -> bool:
    try:
        return ask(f"http://{address}", "GET", "/health/leader", timeout_s=1.0)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def app(name: str, instances: int) -> dict[str, Any]:
    return {"id": name, "cmd": "exec sleep 1000", "cpus": 0.1, "mem": 16, "instances": instances}


def epoch(address: str) -> float:
    found: float = ask(f"http://{address}", "GET", "/metrics/snapshot")[1]["master/epoch"]
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, etcd: Etcd) -> Iterator[Cluster]:
    with Site(tmp_path_factory.mktemp("leader")) as site:
        made = Cluster(site, etcd)
        yield made
        for daemon in site.daemons:
            assert "a bug" not in daemon.text, daemon.text


@pytest.fixture(scope="module")
def running(cluster: Cluster) -> list[str]:
    """The pids of three instances that nothing here may touch."""
    status, _ = ask(f"http://{cluster.standby()}", "POST", "/v2/apps", app("steady", 3))
    assert status == 201
    wait_running(f"http://{cluster.standby()}", "steady", 3)
    return tasks(cluster)


def tasks(cluster: Cluster) -> list[str]:
    found = wait_running(f"http://{cluster.leader()}", "steady", 3)["tasks"]
    return sorted(f"{task['id']} {task['startedAt']}" for task in found)


def test_any_address_serves_the_cluster_to_people_and_to_mesos_clients(cluster: Cluster, running: list[str]) -> None:
    standby, leader = cluster.standby(), cluster.leader()
    assert ask(f"http://{standby}", "GET", "/v2/apps/steady")[1]["app"]["instances"] == 3
    assert run_corral(f"127.0.0.1:1,{standby}", "status", "steady", "-o", "json").code == 0
    assert run_corral(standby, "nodes", "-o", "json").json
    parts = urlsplit(f"http://{standby}/api/v1/scheduler")
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=5)
    connection.request("POST", parts.path, json.dumps({"type": "SUBSCRIBE"}), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (307, f"//{leader}/api/v1/scheduler")
    connection.close()


def test_a_leader_that_is_killed_is_followed_within_the_time_of_its_lease(cluster: Cluster, running: list[str]) -> None:
    leader, standby = cluster.leader(), cluster.standby()
    before = epoch(leader)
    cluster.masters[leader].kill()
    took_s, statuses = cluster.write_until_taken(standby, "after-kill")
    assert took_s < TTL_S + 8.0, statuses  # a quiet machine takes less than half; the benchmark says how long
    assert set(statuses) <= {201, 503, 504}
    assert epoch(cluster.leader()) == before + 1
    assert tasks(cluster) == running
    cluster.restart(leader)


@pytest.fixture
def balancer(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """The one address of a HAProxy with the configuration that the docs show."""
    page = (Path(__file__).parents[3] / "docs" / "operate" / "high-availability.md").read_text(encoding="utf-8")
    found = re.search(r"^    backend corral\n(?:      .*\n)+", page, re.MULTILINE)
    assert found is not None
    text = found[0]
    for number, address in enumerate(cluster.listen, start=1):
        text = text.replace(f"10.0.0.{number}:4680", address)
    (port,) = free_ports(1)
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 1h\n"
        f"frontend all\n  bind 127.0.0.1:{port}\n  default_backend corral\n{text}"
    )
    process = subprocess.Popen([require_haproxy(), "-db", "-f", str(config)])
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_one_address_behind_a_load_balancer_serves_on_over_the_death_of_the_leader(
    cluster: Cluster, running: list[str], balancer: str
) -> None:
    leader = cluster.leader()
    # Until its checks have failed it takes all for good, and asks them in turn.
    wait_until(lambda: all(leads(balancer) for _ in range(6)), "the balancer to find the leader")
    for path in ("/v2/info", "/corral/v1/masters", "/state"):
        assert ask(f"http://{balancer}", "GET", path)[0] == 200
    assert run_corral(balancer, "status", "steady", "-o", "json").code == 0
    with urllib.request.urlopen(f"http://{balancer}/corral/v1/events?follow=true", timeout=10) as events:
        assert events.status == 200  # without being sent elsewhere: it is the leader who answers here
        assert events.url.startswith(f"http://{balancer}/")
        cluster.masters[leader].kill()
        _, statuses = cluster.write_until_taken(balancer, "behind-balancer")
    assert set(statuses) <= {201, 502, 503, 504}
    assert run_corral(balancer, "scale", "behind-balancer", "1").code == 0
    assert tasks(cluster) == running
    cluster.restart(leader)


@pytest.mark.slow
def test_a_leader_that_was_stopped_ends_when_it_wakes_and_does_nothing(cluster: Cluster, running: list[str]) -> None:
    leader, standby = cluster.leader(), cluster.standby()
    stopped = cluster.masters[leader]
    stopped.process.send_signal(signal.SIGSTOP)
    took_s, _ = cluster.write_until_taken(standby, "after-stop")
    assert took_s < TTL_S + 8.0
    stopped.process.send_signal(signal.SIGCONT)
    assert stopped.process.wait(15) == LEADERSHIP_LOST
    status, found = ask(f"http://{cluster.leader()}", "GET", "/v2/apps/after-stop")
    assert (status, found["app"]["instances"]) == (200, 0)
    assert tasks(cluster) == running
    cluster.restart(leader)


@pytest.mark.slow
def test_an_agent_that_restarts_under_another_leader_keeps_its_tasks(cluster: Cluster, running: list[str]) -> None:
    cluster.agent.kill()
    leader = cluster.leader()
    assert cluster.masters[leader].stop() == 0
    cluster.agent = cluster.start_agent()
    cluster.restart(leader)
    assert tasks(cluster) == running


@pytest.mark.slow
def test_an_app_that_was_being_started_when_its_leader_died_is_finished_by_the_next(cluster: Cluster) -> None:
    standby = cluster.standby()
    status, _ = ask(f"http://{standby}", "POST", "/v2/apps", app("midway", 5))
    assert status == 201
    leader = cluster.leader()
    cluster.masters[leader].kill()
    found = wait_until(lambda: leads_soon(cluster, standby), "another leader")
    assert found
    wait_running(f"http://{standby}", "midway", 5)
    cluster.restart(leader)


def leads_soon(cluster: Cluster, asked: str) -> bool:
    return ask(f"http://{asked}", "GET", "/v2/apps/midway")[0] == 200


@pytest.mark.slow
def test_every_process_is_renewed_under_load_and_no_task_notices(cluster: Cluster, running: list[str]) -> None:
    leader = cluster.leader()
    plan = run_corral(cluster.addresses, "upgrade", "--plan", "--force", "-o", "json").json["steps"]
    assert [step["url"] for step in plan if step["what"] == "master"][-1] == f"http://{leader}"
    assert len(plan) == 4
    pids = [each.process.pid for each in (*cluster.masters.values(), cluster.agent)]
    before = [read_instance(url) for url in [*(f"http://{each}" for each in cluster.listen), cluster.agent.url]]
    over, statuses = threading.Event(), []

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            address = cluster.listen[number % 3]
            try:
                statuses.append(ask(f"http://{address}", "POST", "/v2/apps", app(f"load{number}", 0))[0])
            except (OSError, http.client.HTTPException):
                statuses.append(0)  # this one was just away
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = run_corral(cluster.addresses, "upgrade", "--force", timeout_s=120)
    finally:
        over.set()
        writer.join()
    assert done.code == 0, done.err
    after = [read_instance(url) for url in [*(f"http://{each}" for each in cluster.listen), cluster.agent.url]]
    assert not set(before) & set(after)
    assert [each.process.pid for each in (*cluster.masters.values(), cluster.agent)] == pids
    assert set(statuses) <= {201, 503, 504, 0}
    assert statuses[-1] == 201
    assert statuses.count(201) > len(statuses) / 3
    taken = statuses.count(201)
    assert len(ask(f"http://{leader}", "GET", "/v2/apps")[1]["apps"]) >= taken
    assert tasks(cluster) == running
    assert zombies(cluster.agent.process.pid) == []


def read_instance(url: str) -> str:
    return str(ask(url, "GET", "/corral/v1/process")[1]["instance"])


def zombies(parent: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state == "Z" and int(ppid) == parent:
                found.append(entry.name)
    return found


@pytest.mark.slow
def test_a_process_that_could_not_start_again_is_not_ended(cluster: Cluster, tmp_path: Path) -> None:
    """What is installed is asked first; here the configuration file has become wrong since the start."""
    file = tmp_path / "agent.toml"
    file.write_text("[agent]\nname = 'second'\n")
    with Site(tmp_path) as site:
        agent = site.agent(cluster.addresses, "--config", str(file))
        file.write_text("[agent]\nnam = 'second'\n")
        status, found = ask(agent.url, "POST", "/corral/v1/process/renew")
        assert status == 409
        assert "agent.nam" in found["error"]["message"]
        assert agent.process.poll() is None
        file.write_text("[agent]\nname = 'second'\n")
        instance = read_instance(agent.url)
        assert ask(agent.url, "POST", "/corral/v1/process/renew")[0] == 202
        wait_until(lambda: renewed(agent.url, instance), "the renewed agent at its address")


def renewed(url: str, instance: str) -> bool:
    try:
        return read_instance(url) != instance
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.slow
def test_two_masters_over_one_file_are_refused(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        first = site.master()
        second = site.start(
            "master", "--listen", "127.0.0.1:0", "--work-dir", str(tmp_path / "master"), *UNCOMPILED, ready=False
        )
        assert second.process.wait(20) == 70
        assert "in use" in second.text or "holds" in second.text or "used" in second.text, second.text
        assert leads(first.url.removeprefix("http://"))
        assert os.path.exists(tmp_path / "master")


@pytest.mark.slow
def test_a_framework_that_runs_twice_is_led_by_one_and_taken_over_by_the_other(tmp_path: Path, etcd: Etcd) -> None:
    """Its apps, its tasks and its id at the master go on; either address serves."""
    config = tmp_path / "corral.toml"
    config.write_text("[master]\nframeworks = []\n")
    store = f"{etcd.store}/{tmp_path.name}"
    with Site(tmp_path) as site:
        master = site.master("--config", str(config))
        site.agent(master.url)
        lease = ("--store", store, "--set", f"kernel.lease_ttl_s={TTL_S}")
        first = site.services(master.url, *lease)
        second = site.services(master.url, *lease, "--work-dir", str(tmp_path / "second"))
        assert ask(first.url, "GET", "/health/leader")[0] + ask(second.url, "GET", "/health/leader")[0] >= 503
        assert ask(second.url, "POST", "/v2/apps", app("twice", 2))[0] == 201
        before = sorted(task["id"] for task in wait_running(second.url, "twice", 2)["tasks"])
        first.kill()
        wait_until(lambda: leads(second.url.removeprefix("http://")), "the second to lead")
        assert sorted(task["id"] for task in wait_running(second.url, "twice", 2)["tasks"]) == before
        assert ask(second.url, "PUT", "/v2/apps/twice", {"instances": 3})[0] == 200
        wait_running(second.url, "twice", 3)
        frameworks = ask(master.url, "GET", "/corral/v1/frameworks")[1]["frameworks"]
        assert len(frameworks) == 1
