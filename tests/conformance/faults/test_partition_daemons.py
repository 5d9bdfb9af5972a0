"""Real daemons and a real network that goes silent: what runs on goes on, and of only instances there are never two."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from corral_daemons import Site, ask, read_app, wait_running, wait_until


class Wire:
    """A network between an agent and its master that can go silent: connections stay, nothing passes."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._listener.close()
        self.heal()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._whole.wait()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wires() -> Iterator[list[Wire]]:
    made: list[Wire] = []
    yield made
    for wire in made:
        wire.close()


def one_task(url: str, name: str) -> dict[str, Any]:
    (task,) = wait_running(url, name, 1, 60.0)["tasks"]
    return dict(task)


def diary(path: Path) -> list[str]:
    """Which task wrote each line, in order."""
    return path.read_text(encoding="ascii").split() if path.exists() else []


def test_a_node_that_goes_silent_keeps_its_work_and_ends_its_only_instances_first(
    daemons: Site, wires: list[Wire], tmp_path: Path
) -> None:
    master = daemons.master("--set", "kernel.ping_s=0.5", "--set", "kernel.agent_timeout_s=2")
    nodes = {}
    for number in (1, 2):
        wires.append(Wire(master.url))
        name = f"n{number}"
        nodes[name] = daemons.agent(
            wires[-1].address, "--work-dir", str(tmp_path / name), "--name", name, "--attributes", f"node:{name}"
        )
    plain = {"id": "/plain", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "unreachableStrategy": "disabled"}
    assert ask(master.url, "POST", "/v2/apps", plain)[0] == 201
    kept = one_task(master.url, "plain")

    # A frozen agent loses nothing.
    frozen = nodes[_node_of(master.url, kept)].process
    frozen.send_signal(signal.SIGSTOP)
    wait_until(lambda: read_app(master.url, "plain")["tasks"][0]["state"] == "TASK_UNREACHABLE", "the silence", 40.0)
    frozen.send_signal(signal.SIGCONT)
    assert one_task(master.url, "plain")["id"] == kept["id"]

    # Nor does one that is cut off, but for what says so; and that has ended before another starts.
    written = tmp_path / "written"
    loop = f"trap '' TERM; while true; do echo $MESOS_TASK_ID >> {written}; sleep 0.05; done"
    only = {
        "id": "/only", "cmd": loop, "cpus": 0.1, "mem": 32, "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"},
        "unreachableStrategy": {"inactiveAfterSeconds": 3, "expungeAfterSeconds": 60}, "taskKillGracePeriodSeconds": 0,
    }  # fmt: skip
    assert ask(master.url, "POST", "/v2/apps", only)[0] == 201
    first = one_task(master.url, "only")
    node = _node_of(master.url, first)
    beside = {**plain, "id": "/beside", "constraints": [["node", "LIKE", node]]}
    assert ask(master.url, "POST", "/v2/apps", beside)[0] == 201
    kept = one_task(master.url, "beside")
    on = wires[0] if node == "n1" else wires[1]
    on.cut()
    second = wait_until(lambda: _other(master.url, first["id"]), "another in its place", 60.0)
    assert second["slaveId"] != first["slaveId"]
    wait_until(lambda: second["id"] in diary(written), "its work")
    lines = diary(written)
    assert lines.index(second["id"]) > len(lines) - 1 - lines[::-1].index(first["id"]), "two wrote at once"
    on.heal()
    assert one_task(master.url, "beside")["id"] == kept["id"]
    assert one_task(master.url, "only")["id"] == second["id"]
    time.sleep(0.5)
    after = diary(written)
    assert set(after[after.index(second["id"]) :]) == {second["id"]}


def _node_of(url: str, task: dict[str, Any]) -> str:
    _, found = ask(url, "GET", "/corral/v1/nodes")
    return str(next(n["hostname"] for n in found["nodes"] if n["id"] == task["slaveId"]))


def _other(url: str, task_id: str) -> dict[str, Any] | None:
    tasks = [t for t in read_app(url, "only")["tasks"] if t["id"] != task_id and t["state"] == "TASK_RUNNING"]
    return dict(tasks[0]) if tasks else None
