"""Three masters, each a process of its own, over a real etcd: killed, stopped and hung, while tasks run."""

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from corral_daemons import UNCOMPILED, Daemon, Site, ask, run_corral, wait_running, wait_until

from corral.runtime.election import LEADERSHIP_LOST
from etcd_servers import Etcd, free_ports

TTL_S = 2.0


class Cluster:
    """Shapes: `masters` by their address; `addresses` all of them, as agents and people are told."""

    def __init__(self, site: Site, etcd: Etcd) -> None:
        self.site = site
        self.store = f"{etcd.store}/{site.directory.name}"
        self.listen = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.addresses = ",".join(self.listen)
        self.masters = {each: self.start_master(each, ready=False) for each in self.listen}
        for each in self.masters.values():
            each.wait_ready()
        self.agent = self.start_agent()

    def start_master(self, listen: str, *, ready: bool = True) -> Daemon:
        return self.site.start(
            "master", "--listen", listen, "--work-dir", str(self.site.directory / listen), "--store", self.store,
            "--set", f"kernel.lease_ttl_s={TTL_S}", "--set", "kernel.ping_s=1", "--set", "kernel.agent_timeout_s=30",
            *UNCOMPILED, ready=ready,
        )  # fmt: skip

    def start_agent(self) -> Daemon:
        return self.site.agent(self.addresses)

    def leader(self) -> str:
        """The address of the one that says so."""

        def look() -> str:
            found = [each for each, one in self.masters.items() if one.process.poll() is None and leads(each)]
            return found[0] if len(found) == 1 else ""

        return wait_until(look, "one leader")

    def standby(self) -> str:
        leader = self.leader()
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
    assert took_s < TTL_S + 3.0, statuses
    assert set(statuses) <= {201, 503, 504}
    assert epoch(cluster.leader()) == before + 1
    assert tasks(cluster) == running
    cluster.masters[leader] = cluster.start_master(leader)


@pytest.mark.slow
def test_a_leader_that_was_stopped_ends_when_it_wakes_and_does_nothing(cluster: Cluster, running: list[str]) -> None:
    leader, standby = cluster.leader(), cluster.standby()
    stopped = cluster.masters[leader]
    stopped.process.send_signal(signal.SIGSTOP)
    took_s, _ = cluster.write_until_taken(standby, "after-stop")
    assert took_s < TTL_S + 4.0
    stopped.process.send_signal(signal.SIGCONT)
    assert stopped.process.wait(15) == LEADERSHIP_LOST
    status, found = ask(f"http://{cluster.leader()}", "GET", "/v2/apps/after-stop")
    assert (status, found["app"]["instances"]) == (200, 0)
    assert tasks(cluster) == running
    cluster.masters[leader] = cluster.start_master(leader)


@pytest.mark.slow
def test_an_agent_that_restarts_under_another_leader_keeps_its_tasks(cluster: Cluster, running: list[str]) -> None:
    cluster.agent.kill()
    leader = cluster.leader()
    assert cluster.masters[leader].stop() == 0
    cluster.agent = cluster.start_agent()
    cluster.masters[leader] = cluster.start_master(leader)
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
    cluster.masters[leader] = cluster.start_master(leader)


def leads_soon(cluster: Cluster, asked: str) -> bool:
    return ask(f"http://{asked}", "GET", "/v2/apps/midway")[0] == 200


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
