"""`corral drain` and `corral maintenance` on a real cluster of two nodes: the work moves, and stays away."""

from collections.abc import Iterator
from typing import Any

import pytest
from corral_daemons import Answer, Daemon, Site, ask, run_corral, wait_running, wait_until

APP = {"id": "/web", "cmd": "while sleep 0.2; do true; done", "cpus": 0.1, "mem": 32, "instances": 2}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Site(tmp_path_factory.mktemp("pair")) as site:
        dev = site.dev("--agents", "2")
        assert ask(dev.url, "POST", "/v2/apps", APP)[0] == 201
        wait_running(dev.url, "web", 2)
        yield dev


def nodes(dev: Daemon) -> dict[str, dict[str, Any]]:
    return {n["id"]: n for n in ask(dev.url, "GET", "/corral/v1/nodes")[1]["nodes"]}


def busy(dev: Daemon) -> set[str]:
    found = ask(dev.url, "GET", "/corral/v1/tasks")[1]["tasks"]
    return {t["agent"] for t in found if t["state"] == "TASK_RUNNING"}


def run(dev: Daemon, *words: str) -> Answer:
    return run_corral(dev.url, *words)


def test_the_instances_of_a_drained_node_start_on_the_other_one(pair: Daemon) -> None:
    first, second = sorted(nodes(pair))
    assert busy(pair) == {first, second}
    drained = run(pair, "drain", first, "--grace", "1s", "--wait")
    assert (drained.code, drained.out) == (0, "")
    assert "is empty" in drained.err
    assert nodes(pair)[first]["state"] == "drained"
    wait_running(pair.url, "web", 2)
    assert busy(pair) == {second}
    again = run(pair, "undrain", first)
    assert again.code == 0, again.err
    assert nodes(pair)[first]["state"] == "reachable"
    twice = run(pair, "undrain", first)
    assert (twice.code, twice.err) == (2, f"corral: agent {first} is active already\n")
    assert run(pair, "drain", "nowhere").code == 3


def test_a_machine_goes_down_and_comes_up_as_it_was_planned(pair: Daemon) -> None:
    (agent_id,) = busy(pair)
    host = nodes(pair)[agent_id]["hostname"]
    early = run(pair, "maintenance", "down", host)
    assert (early.code, "is not scheduled" in early.err) == (2, True)
    assert run(pair, "maintenance", "schedule", host, "--start", "+1h", "--for", "30m").code == 0
    (window,) = run(pair, "maintenance", "schedule", "-o", "json").json
    assert window["machine_ids"] == [{"hostname": host}]
    assert window["unavailability"]["duration"] == {"nanoseconds": 1800 * 10**9}
    assert run(pair, "maintenance", "schedule").out.splitlines()[1].split()[::2] == [host, "1800s"]
    wait_until(lambda: "=accept" in run(pair, "maintenance", "status").out, "the answer of services")
    assert run(pair, "maintenance", "schedule", host, "--cancel").code == 0
    assert run(pair, "maintenance", "schedule", "-o", "json").json == []
    assert run(pair, "maintenance", "schedule", host).code == 0
    assert run(pair, "maintenance", "down", host).code == 0
    assert agent_id not in nodes(pair)
    wait_running(pair.url, "web", 2)
    assert agent_id not in busy(pair)
    assert run(pair, "maintenance", "status").out.splitlines()[1].split() == [host, "down", "-"]
    assert run(pair, "maintenance", "up", host).code == 0
    assert ask(pair.url, "GET", "/maintenance/status") == (200, {})
    address = run(pair, "maintenance", "schedule", "10.0.0.7", "DB-1=10.0.0.8", "db-2")
    assert (address.code, address.err) == (0, "10.0.0.7, db-1=10.0.0.8, db-2 are scheduled\n")
