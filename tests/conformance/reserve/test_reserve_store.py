"""The replicated store of the examples, and the operator's calls, against real daemons and process tasks."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from corral_daemons import Daemon, Site, ask, wait_until

STORE = Path(__file__).resolve().parents[3] / "examples" / "replicated_store.py"
DISK = {"name": "disk", "type": "SCALAR", "scalar": {"value": 100}}
RESERVED = DISK | {"reservations": [{"type": "DYNAMIC", "role": "ops"}]}
VOLUME = RESERVED | {"disk": {"persistence": {"id": "v"}, "volume": {"mode": "RW", "container_path": "v"}}}


def store(file: Path, *words: str) -> str:
    command = [sys.executable, str(STORE), *words, "--state", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return ended.stdout.strip() if ended.returncode == 0 else f"failed: {ended.stderr}"


def running(url: str) -> list[str]:
    found = ask(url, "GET", "/tasks")[1]["tasks"]
    return [t["id"] for t in found if t["state"] == "TASK_RUNNING"]


def operate(url: str, kind: str, **body: Any) -> int:
    return ask(url, "POST", "/api/v1", {"type": kind, kind.lower(): body})[0]


def kept(url: str) -> dict[str, Any]:
    (row,) = wait_until(lambda: [a for a in ask(url, "GET", "/slaves")[1]["slaves"] if a["active"]], "the agent")
    found: dict[str, Any] = row["reserved_resources_full"]
    return found


def test_the_store_keeps_its_data_through_restarts_of_agent_master_and_members(tmp_path: Path) -> None:
    file = tmp_path / "store.json"
    with Site(tmp_path) as site:
        master = site.master()
        agent = site.agent(master.url)
        scheduler = subprocess.Popen(
            [sys.executable, str(STORE), "run", "--master", master.url, "--state", str(file)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(lambda: len(running(master.url)) == 3, "three members")
            wait_until(lambda: store(file, "put", "colour", "blue") == "", "a write")
            first = running(master.url)
            _operate_by_hand(site, master)
            agent.kill()
            assert store(file, "get", "colour") == "blue", "members outlive their agent"
            again = site.agent(master.url)
            before = kept(master.url)
            assert sorted(before) == ["ops", "store"]
            listen = master.url.removeprefix("http://")
            master.kill()
            second = site.master(listen=listen)
            wait_until(lambda: len(running(second.url)) == 3, "the members at the new master")
            assert sorted(running(second.url)) == sorted(first)
            assert kept(second.url) == before
            assert store(file, "get", "colour") == "blue"
            place = json.loads(file.read_text())["places"]["1"]
            _kill_member(again, place["task"])
            renewed = wait_until(lambda: set(running(second.url)) - set(first), "another member in its place")
            assert len(renewed) == 1
            value = wait_until(lambda: read_member(place["address"], "colour"), "its answer at the same address", 60.0)
            assert value == "blue"
            _drain_and_reopen(second.url)
            wait_until(lambda: len(running(second.url)) == 3, "the members on the reopened agent")
            value = wait_until(lambda: read_member(place["address"], "colour"), "its answer after the drain")
            assert value == "blue"
            assert kept(second.url)["store"] == before["store"]
        finally:
            scheduler.kill()
            scheduler.wait(10)


def small(site: Site, master: Daemon, number: int) -> Daemon:
    """An agent that has room for one member, at a port that no other's has."""
    room = f"cpus:0.15;mem:40;disk:70;ports:[{31200 + number}-{31200 + number}]"
    return site.agent(master.url, "--work-dir", str(site.directory / f"agent{number}"), "--resources", room)


def test_the_store_serves_on_while_one_of_three_agents_is_drained_or_silent_and_takes_its_member_up_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "store.json"
    with Site(tmp_path) as site:
        master = site.master()
        agents = [small(site, master, number) for number in range(3)]
        scheduler = subprocess.Popen(
            [sys.executable, str(STORE), "run", "--master", master.url, "--state", str(file)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(lambda: len(running(master.url)) == 3, "three members")
            first = running(master.url)
            wait_until(lambda: store(file, "put", "colour", "blue") == "", "a write")
            places = json.loads(file.read_text())["places"]
            assert len({place["agent"] for place in places.values()}) == 3
            drained = {"value": places["0"]["agent"]}
            assert operate(master.url, "DRAIN_AGENT", agent_id=drained) == 200
            wait_until(lambda: len(running(master.url)) == 2, "the drained member's end")
            assert store(file, "put", "colour", "green") == ""
            assert store(file, "get", "colour") == "green"
            wait_until(lambda: operate(master.url, "REACTIVATE_AGENT", agent_id=drained) == 200, "the drain's end")
            wait_until(lambda: len(running(master.url)) == 3, "the drained member again")
            assert wait_until(lambda: read_member(places["0"]["address"], "colour"), "its answer") == "blue", (
                "as it was"
            )
            assert store(file, "get", "colour") == "green"
            silent = _agent_of(agents, places["1"]["task"])
            silent.process.send_signal(signal.SIGSTOP)
            try:
                wait_until(lambda: len(running(master.url)) == 2, "the silent agent to be found unreachable")
                assert store(file, "get", "colour") == "green", "its member runs on"
            finally:
                silent.process.send_signal(signal.SIGCONT)
            wait_until(lambda: len(running(master.url)) == 3, "the silent agent's member again")
            assert places["1"]["task"] in set(running(master.url)) & set(first), "it is the very task"
            assert json.loads(file.read_text())["places"]["1"] == places["1"]
            _kill_member(silent, places["1"]["task"])
            wait_until(lambda: len(set(running(master.url)) - {places["1"]["task"]}) == 3, "another in its place")
            assert wait_until(lambda: read_member(places["1"]["address"], "colour"), "its answer") == "green"
        finally:
            scheduler.kill()
            scheduler.wait(10)


def _agent_of(agents: list[Daemon], task_id: str) -> Daemon:
    (found,) = [a for a in agents if task_id in {t["id"] for t in ask(a.url, "GET", "/corral/v1/tasks")[1]["tasks"]}]
    return found


def read_member(address: str, key: str) -> Any:
    """What one member alone knows; None while it does not answer."""
    try:
        return ask(f"http://{address}", "GET", f"/{key}")[1]["value"]
    except OSError:
        return None


def _drain_and_reopen(url: str) -> None:
    """All members end with their agent's drain; the volumes stay with it, and are there when it takes work again."""
    agent_id = {"value": ask(url, "GET", "/slaves")[1]["slaves"][0]["id"]}
    assert operate(url, "DRAIN_AGENT", agent_id=agent_id) == 200
    wait_until(lambda: _drain_state(url) == "DRAINED", "the drain's end")
    assert running(url) == []
    assert operate(url, "REACTIVATE_AGENT", agent_id=agent_id) == 200


def _drain_state(url: str) -> str | None:
    (row,) = ask(url, "GET", "/slaves")[1]["slaves"]
    found: str | None = row.get("drain_info", {}).get("state")
    return found


def _kill_member(agent: Daemon, task_id: str) -> None:
    (row,) = [t for t in ask(agent.url, "GET", "/corral/v1/tasks")[1]["tasks"] if t["id"] == task_id]
    subprocess.run(["kill", "-9", str(row["pid"])], check=True)


def _operate_by_hand(site: Site, master: Daemon) -> None:
    """Each operator's call and each older form once, with the answers they give."""
    url = master.url
    agent_id = {"value": ask(url, "GET", "/slaves")[1]["slaves"][0]["id"]}
    form = {"slaveId": agent_id["value"], "resources": json.dumps([RESERVED]), "volumes": json.dumps([VOLUME])}
    assert operate(url, "RESERVE_RESOURCES", agent_id=agent_id, resources=[RESERVED]) == 202
    assert operate(url, "CREATE_VOLUMES", agent_id=agent_id, volumes=[VOLUME]) == 202
    assert operate(url, "CREATE_VOLUMES", agent_id=agent_id, volumes=[VOLUME]) == 409
    assert operate(url, "UNRESERVE_RESOURCES", agent_id=agent_id, resources=[VOLUME]) == 400
    assert operate(url, "DESTROY_VOLUMES", agent_id=agent_id, volumes=[VOLUME]) == 202
    assert operate(url, "UNRESERVE_RESOURCES", agent_id=agent_id, resources=[RESERVED]) == 202
    assert "ops" not in kept(url)
    assert operate(url, "RESERVE_RESOURCES", agent_id={"value": "nobody"}, resources=[RESERVED]) == 400
    assert operate(url, "RESERVE_RESOURCES") == 400
    for path in ("/reserve", "/master/create-volumes", "/destroy-volumes", "/master/unreserve", "/reserve"):
        assert ask(url, "POST", path, urlencode(form))[0] == 202, path
    assert ask(url, "POST", "/unreserve", "slaveId=x")[0] == 400
    more = VOLUME | {"scalar": {"value": 150}}
    assert operate(url, "GROW_VOLUME", agent_id=agent_id, volume=VOLUME, addition=RESERVED) == 409
    assert operate(url, "CREATE_VOLUMES", agent_id=agent_id, volumes=[VOLUME | {"scalar": {"value": 50}}]) == 202
    half = VOLUME | {"scalar": {"value": 50}}
    addition = RESERVED | {"scalar": {"value": 50}}
    assert operate(url, "GROW_VOLUME", agent_id=agent_id, volume=half, addition=addition) == 202
    assert operate(url, "SHRINK_VOLUME", agent_id=agent_id, volume=VOLUME, subtract={"value": 20}) == 202
    assert operate(url, "SHRINK_VOLUME", agent_id=agent_id, volume=more, subtract={"value": 20}) == 409
