"""A Docker daemon dies and comes back under a running app: whoever follows, attaches or waits notices nothing."""

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from corral_daemons import CORRAL, RESOURCES, Daemon, Site, ask, clean_environment, read_app, wait_running, wait_until

from corral.docker.daemon import PrivateEngine

pytestmark = pytest.mark.docker

COUNT = "i=0; trap 'echo over; exit 9' TERM; httpd -p 80; while :; do i=$((i+1)); echo $i; usleep 50000; done"


@pytest.fixture
def counting(daemons: Site, private_engine: PrivateEngine) -> Iterator[Daemon]:
    """One instance that counts aloud, probed by a command inside it and by the port of its node."""
    dev = daemons.start(
        "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--resources", RESOURCES,
        "--work-dir", str(daemons.directory / "dev"), "--docker-host", private_engine.url, "--runtime", "docker",
    )  # fmt: skip
    probe = {
        "gracePeriodSeconds": 5,
        "intervalSeconds": 1,
        "timeoutSeconds": 1,
        "maxConsecutiveFailures": 2,
        "delaySeconds": 0,
    }
    app = {
        "id": "/count", "cmd": COUNT, "cpus": 0.1, "mem": 32, "backoffSeconds": 1,
        "container": {"type": "DOCKER", "docker": {"image": "busybox:latest"},
                      "portMappings": [{"containerPort": 80, "hostPort": 0}]},
        "networks": [{"mode": "container/bridge"}],
        "healthChecks": [
            {"protocol": "COMMAND", "command": {"value": "true"}, **probe},
            {"protocol": "MESOS_TCP", "portIndex": 0, **probe},
            {"protocol": "TCP", "portIndex": 0, **probe},
        ],
    }  # fmt: skip
    status, answer = ask(dev.url, "POST", "/v2/apps", app)
    assert status == 201, answer
    wait_running(dev.url, "count", 1)
    yield dev
    private_engine.start()
    ask(dev.url, "DELETE", "/v2/apps/count?force=true")
    wait_until(lambda: not ask(dev.url, "GET", "/v2/tasks")[1]["tasks"], "the end of the app")


class Call(threading.Thread):
    """A call of the agent's API that lasts. Shapes: `body` grows as it comes; `status` is 0 before the answer."""

    def __init__(self, url: str, call: dict[str, Any], **headers: str) -> None:
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=60)
        given = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
        self._connection.request("POST", "/api/v1", json.dumps(call), given)
        self.body = b""
        self.status = 0
        self.start()

    def run(self) -> None:
        response = self._connection.getresponse()
        self.status = response.status
        while piece := response.read1(65536):
            self.body += piece


def numbers(text: str) -> list[int]:
    return [int(line) for line in text.splitlines() if line.strip().isdigit()]


def test_logs_attach_and_wait_go_on_over_an_outage_and_nothing_is_replaced(
    counting: Daemon, private_engine: PrivateEngine, tmp_path: Path
) -> None:
    (task,) = ask(counting.url, "GET", "/corral/v1/tasks?group=/count")[1]["tasks"]
    agent = task["agent_url"]
    (seen,) = ask(agent, "GET", "/corral/v1/tasks")[1]["tasks"]
    container = {"container_id": {"value": seen["container"]}}
    attached = Call(agent, {"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": container},
                    Accept="application/recordio", Message_Accept="application/json")  # fmt: skip
    waiting = Call(agent, {"type": "WAIT_CONTAINER", "wait_container": container}, Accept="application/json")
    out = (tmp_path / "followed").open("w+")
    environment = clean_environment(CORRAL_ADDR=counting.url)
    with subprocess.Popen([*CORRAL, "logs", "-f", "-n", "100000", "count"], stdout=out, env=environment) as following:
        try:
            wait_until(lambda: numbers((tmp_path / "followed").read_text()), "the first lines")
            private_engine.kill_dockerd()
            time.sleep(4.0)  # several probes of each check, one after the other
            private_engine.start_dockerd()
            private_engine.await_answer()
            last = numbers((tmp_path / "followed").read_text())[-1]
            wait_until(lambda: numbers((tmp_path / "followed").read_text())[-1] > last + 60, "what was said meanwhile")
            app = read_app(counting.url, "count")
            assert [one["id"] for one in app["tasks"]] == [task["id"]]
            assert app.get("lastTaskFailure") is None, counting.text
            assert waiting.status == 0
        finally:
            following.terminate()
    said = numbers((tmp_path / "followed").read_text().rpartition("\n")[0])
    assert said == list(range(said[0], said[0] + len(said)))
    assert said[0] == 1
    ask(counting.url, "DELETE", "/v2/apps/count?force=true")
    waiting.join(30)
    assert waiting.status == 200
    assert json.loads(waiting.body)["wait_container"]["exit_status"] == 9 << 8
    attached.join(30)
    assert b"data" in attached.body
