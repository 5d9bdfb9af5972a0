"""Groups of tasks in images, as frameworks ask the Mesos containerizer for them, on a real Docker Engine."""

import json
import socket
from urllib.parse import urlencode
from urllib.request import urlopen

import mesos_client
import pytest
from corral_daemons import RESOURCES
from mesos_client import task, wait_until
from test_executors_groups_http import launch_group, pod, scalars

from corral.docker.image import engine_call

pytestmark = pytest.mark.docker

IMAGE = {"image": {"type": "DOCKER", "docker": {"name": "busybox:latest"}}}


@pytest.fixture
def boxed(daemons, engine_socket, info):
    """A framework on a cluster whose agent has an Engine beside plain processes; nothing of it is left in the end."""
    dev = daemons.start(
        "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--work-dir", str(daemons.directory / "dev"),
        "--runtime", "docker,process", "--docker-host", engine_socket, "--resources", RESOURCES,
        "--set", "kernel.heartbeat_s=1",
    )  # fmt: skip

    def used():
        rows = mesos_client.request(dev.url, "GET", "/slaves").json["slaves"]
        return [row["used_resources"]["cpus"] for row in rows]

    wait_until(lambda: used() == [0], "the agent's registration")
    with mesos_client.Subscription(dev.url, info) as opened:
        yield opened.registered()
        opened.call("TEARDOWN")
    wait_until(lambda: used() == [0], "the return of all resources")
    (owner,) = daemons.directory.rglob("owner")
    query = urlencode({"all": 1, "filters": json.dumps({"label": [f"corral.agent={owner.read_text().strip()}"]})})
    path = f"/containers/json?{query}"
    wait_until(lambda: json.loads(engine_call(engine_socket, "GET", path)) == [], "the end of all containers")


def free_port():
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]


def in_image(**more):
    return {"type": "MESOS", "mesos": IMAGE, **more}


def address(status):
    (network,) = status["container_status"]["network_infos"]
    (found,) = network["ip_addresses"]
    return found["ip_address"]


def until(scheduler, state, task_id):
    """The first update of this state of the task; those of others are passed over."""
    while True:
        status = scheduler.update(state)
        if status["task_id"]["value"] == task_id:
            return status


def test_a_group_in_images_shares_the_network_of_its_executor_and_its_end(boxed):
    offer, port = boxed.offer(), free_port()
    mapping = {"host_port": port, "container_port": 8080}
    network = {"type": "MESOS", "network_infos": [{"name": "bridge", "port_mappings": [mapping]}]}
    source = {"type": "SANDBOX_PATH", "sandbox_path": {"type": "PARENT", "path": "exchange"}}
    volumes = [{"container_path": "/mail", "mode": "RW", "source": source}]
    check = {"type": "HTTP", "http": {"port": 8080, "path": "/letter"}, "delay_seconds": 0, "interval_seconds": 0.2}
    launch_group(
        boxed, offer, pod(container=network),
        task(offer, "web", "exec httpd -f -p 8080 -h /mail", container=in_image(volumes=volumes), health_check=check),
        task(offer, "writer", "echo word > /mail/letter; wget -q -O - http://127.0.0.1:8080/letter; sleep 3",
             container=in_image(volumes=volumes)),
        task(offer, "waiter", "exec sleep 600", container=in_image()),
    )  # fmt: skip
    seen = {}
    while len(seen) < 3 or not seen["web"].get("healthy"):
        status = boxed.update("TASK_RUNNING")
        seen[status["task_id"]["value"]] = status
    assert len({address(status) for status in seen.values()}) == 1
    assert boxed.update("TASK_FINISHED")["task_id"]["value"] == "writer"
    with urlopen(f"http://127.0.0.1:{port}/letter", timeout=10) as answer:
        assert answer.read() == b"word\n", "what has finished took nothing along"
    boxed.tell("KILL", {"task_id": {"value": "waiter"}})
    ended = {boxed.update("TASK_KILLED")["task_id"]["value"] for _ in range(2)}
    assert ended == {"web", "waiter"}
    failure = boxed.next("FAILURE")["failure"]
    assert (failure["executor_id"], failure["status"]) == ({"value": "pod"}, 0)


def test_an_image_runs_beside_a_process_on_the_nodes_network_and_alone(boxed):
    offer = boxed.offer()
    launch_group(
        boxed, offer, pod(),
        task(offer, "boxed", "test -e /etc/debian_version || exec sleep 600", container=in_image()),
        task(offer, "plain", "exec sleep 600"),
    )  # fmt: skip
    for _ in range(2):
        boxed.update("TASK_RUNNING")
    boxed.tell("KILL", {"task_id": {"value": "plain"}})
    for _ in range(2):
        boxed.update("TASK_KILLED")
    offer = boxed.offer()
    words = {"shell": False, "value": "sh", "arguments": ["sh", "-c", "pwd; exit 3"]}
    single = {**task(offer, "single", "x", container=in_image()), "command": words}
    launched = {"type": "LAUNCH", "launch": {"task_infos": [single]}}
    boxed.tell("ACCEPT", {"offer_ids": [offer["id"]], "operations": [launched], "filters": {"refuse_seconds": 0}})
    assert "status 3" in until(boxed, "TASK_FAILED", "single")["message"]


def test_a_process_in_a_group_on_a_network_is_an_error_of_the_group(boxed):
    offer = boxed.offer()
    network = {"type": "MESOS", "network_infos": [{"name": "bridge"}]}
    executor = pod(container=network, resources=scalars(cpus=0.1, mem=32, disk=32))
    launch_group(boxed, offer, executor, task(offer, "in", "true", container=in_image()), task(offer, "out", "true"))
    for _ in range(2):
        assert "task out has no image" in boxed.update("TASK_ERROR")["message"]
    wait_until(lambda: boxed.offer(), "another offer")
