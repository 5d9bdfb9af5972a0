"""A rolling upgrade of real containers behind HAProxy under load: no request fails."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from corral_daemons import Site, ask, wait_running, wait_until
from tests.own_ports import free_ports, write_task_ports

from corral.docker.daemon import find_program, install_packages
from haproxy_server import require_haproxy

pytestmark = [pytest.mark.docker, pytest.mark.slow]

COUNT = 20
SERVE = "mkdir -p /w; echo $VERSION > /w/index.html; exec httpd -f -p 80 -h /w"


def require_wrk() -> str:
    if find_program("wrk") is None:
        install_packages(["wrk"])
    found = find_program("wrk")
    assert found is not None
    return found


def app(version: str, port: int) -> dict[str, object]:
    return {
        "id": "/web", "cmd": SERVE, "env": {"VERSION": version}, "cpus": 0.05, "mem": 32, "instances": COUNT,
        "container": {
            "type": "DOCKER", "docker": {"image": "busybox:latest"},
            "portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": port}],
        },
        "networks": [{"mode": "container/bridge"}],
        "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "web.test", "HAPROXY_0_MODE": "http"},
        "healthChecks": [{"protocol": "HTTP", "path": "/", "intervalSeconds": 2, "gracePeriodSeconds": 60}],
        "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.25},
        "taskKillGracePeriodSeconds": 2,
    }  # fmt: skip


def test_no_request_fails_while_twenty_containers_are_replaced(
    daemons: Site, engine_socket: str, tmp_path: Path
) -> None:
    http, service = free_ports(2)
    wrk = require_wrk()
    dev = daemons.start(
        "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--work-dir", str(tmp_path / "dev"),
        "--runtime", "docker", "--docker-host", engine_socket,
        "--resources", f"cpus:8;mem:8192;disk:20000;{write_task_ports()}", ready=False,
    )  # fmt: skip
    url = wait_until(lambda: dev.url, "the cluster", timeout_s=120)
    lb = daemons.start(
        "lb", "--master", url, "--http", f"127.0.0.1:{http}", "--bind", "127.0.0.1", "--stats", "", "--listen",
        "127.0.0.1:0", "--haproxy", require_haproxy(), "--work-dir", str(tmp_path / "lb"), ready=False,
    )  # fmt: skip
    wait_until(lambda: lb.url, "the balancer", timeout_s=120)
    assert ask(url, "POST", "/v2/apps", app("one", service))[0] == 201
    wait_running(url, "web", COUNT, timeout_s=180)
    wait_until(lambda: ask(url, "GET", "/v2/deployments")[1] == [], "the first deployment", timeout_s=120)

    load = subprocess.Popen(
        [wrk, "-t1", "-c8", "-d600s", "-H", "Host: web.test", f"http://127.0.0.1:{http}/"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        time.sleep(2)
        began_at = time.monotonic()
        assert ask(url, "PUT", "/v2/apps//web?force=true", app("two", service))[0] == 200
        wait_until(lambda: ask(url, "GET", "/v2/deployments")[1] == [], "the upgrade", timeout_s=300)
        took_s = time.monotonic() - began_at
        time.sleep(2)
    finally:
        load.send_signal(2)  # wrk tells what it has counted so far
        said, _ = load.communicate(timeout=20)
    print(f"upgrade of {COUNT} containers took {took_s:.1f} s\n{said}")
    assert "Non-2xx" not in said
    assert "Socket errors" not in said
    counted = re.search(r"(\d+) requests in", said)
    assert counted is not None
    assert int(counted[1]) > 1000
