"""Pods with images on a real Docker Engine, and what happens to them when the agent or the daemon goes away."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from corral_daemons import RESOURCES, Daemon, Site, ask, run_corral, wait_until

from corral.docker.daemon import PrivateEngine
from corral.docker.image import engine_call

pytestmark = pytest.mark.docker

IMAGE = {"kind": "DOCKER", "id": "busybox:latest"}
SERVE = "echo up; exec httpd -f -p $ENDPOINT_HTTP -h /shared"
BESIDE = "until wget -q -O - http://127.0.0.1:$ENDPOINT_HTTP/word > seen; do usleep 50000; done; echo saw $(cat seen);"
CHECK = {"gracePeriodSeconds": 10, "intervalSeconds": 1, "delaySeconds": 0, "maxConsecutiveFailures": 3}
RESOURCES_OF_EACH = {"cpus": 0.1, "mem": 32}
WEB: dict[str, Any] = {
    "name": "web", "image": IMAGE, "exec": {"command": {"shell": SERVE}}, "resources": RESOURCES_OF_EACH,
    "endpoints": [{"name": "http", "containerPort": 8080, "hostPort": 0}],
    "healthCheck": {"http": {"endpoint": "http", "path": "/word"}, **CHECK},
    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}], "environment": {"WHO": "web"},
}  # fmt: skip
SIDE: dict[str, Any] = {
    "name": "side", "image": IMAGE, "resources": RESOURCES_OF_EACH,
    "exec": {"command": {"shell": f"echo word > files/word; {BESIDE} trap 'exit 0' TERM; while :; do sleep 0.1; done"}},
    "volumeMounts": [{"name": "shared", "mountPath": "files"}],
    "healthCheck": {"exec": {"command": {"argv": ["test", "-s", "/mnt/mesos/sandbox/seen"]}}, **CHECK},
    "lifecycle": {"killGracePeriodSeconds": 5},
}  # fmt: skip
POD: dict[str, Any] = {
    "id": "/duo", "containers": [WEB, SIDE], "volumes": [{"name": "shared"}],
    "networks": [{"mode": "container/bridge"}], "scheduling": {"backoff": {"backoff": 1}},
}  # fmt: skip


class Node:
    """A cluster of one node with an Engine that the test may hurt."""

    def __init__(self, site: Site, engine: PrivateEngine) -> None:
        self._site = site
        self.engine = engine
        self.dev = self._start()

    def _start(self) -> Daemon:
        return self._site.start(
            "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--resources", RESOURCES, "--work-dir",
            str(self._site.directory / "dev"), "--docker-host", self.engine.url, "--runtime", "docker,process",
        )  # fmt: skip

    def restart(self) -> None:
        """As if the power of master and agent went, but not that of what they run."""
        self.dev.kill()
        self.dev = self._start()

    def create(self, **more: Any) -> dict[str, Any]:
        status, answer = ask(self.dev.url, "POST", "/v2/pods", {**POD, **more})
        assert status == 201, answer
        return self.stable()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.dev.url, "GET", "/v2/pods/duo::status")[1]
        return found

    def stable(self, *, without: str = "") -> dict[str, Any]:
        """The pod's one instance once it is well."""

        def look() -> dict[str, Any] | None:
            found = self.status()
            instances = [i for i in found.get("instances", ()) if i["id"] != without]
            return instances[0] if found.get("status") == "STABLE" and len(instances) == 1 else None

        try:
            instance = wait_until(look, "the pod to be well", timeout_s=60)
        except AssertionError:
            raise AssertionError(f"{json.dumps(self.status())}\n{self.dev.text}") from None
        assert instance is not None
        return instance

    def destroy(self) -> None:
        ask(self.dev.url, "DELETE", "/v2/pods/duo?force=true")
        wait_until(lambda: ask(self.dev.url, "GET", "/v2/pods/duo::status")[0] == 404, "the end of the pod", 60)
        wait_until(lambda: not self.containers(), "the end of its containers", 30)

    def containers(self) -> list[dict[str, Any]]:
        """Those of this node's on the Engine, ended ones included."""
        (owner,) = self._site.directory.rglob("owner")
        filters = json.dumps({"label": [f"corral.agent={owner.read_text().strip()}"]})
        query = urlencode({"all": 1, "filters": filters})
        found: list[dict[str, Any]] = json.loads(engine_call(self.engine.url, "GET", f"/containers/json?{query}"))
        return found

    def ids(self) -> set[str]:
        return {one["Id"] for one in self.containers() if one["State"] == "running"}

    def corral(self, *words: str) -> str:
        answer = run_corral(self.dev.url, *words)
        assert answer.code == 0, answer
        return answer.out


@pytest.fixture
def node(daemons: Site, private_engine: PrivateEngine) -> Iterator[Node]:
    made = Node(daemons, private_engine)
    yield made
    private_engine.start()
    made.destroy()


def get(port: int, path: str = "/word", host: str = "127.0.0.1") -> str:
    with urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def port_of(instance: dict[str, Any]) -> int:
    (port,) = (e["allocatedHostPort"] for c in instance["containers"] for e in c["endpoints"])
    return int(port)


def test_containers_of_a_pod_share_an_address_a_directory_and_their_end(node: Node) -> None:
    instance = node.create()
    (network,) = instance["networks"]
    (address,) = network["addresses"]
    port = port_of(instance)
    assert get(port) == "word\n"
    assert get(8080, host=address) == "word\n"
    web, side = instance["containers"]
    assert web["endpoints"] == [{"name": "http", "allocatedHostPort": port, "healthy": True}]
    assert side["conditions"][0]["value"] == "true"
    assert len(node.ids()) == 3, "two and what holds their network"
    tasks = {t["name"]: t["id"] for t in ask(node.dev.url, "GET", "/corral/v1/tasks")[1]["tasks"]}
    assert "saw word" in node.corral("logs", tasks["side"])
    assert node.corral("exec", tasks["web"], "--", "sh", "-c", "echo $WHO $EP_HOST_HTTP; ls /shared").split() == [
        "web", str(port), "word",
    ]  # fmt: skip
    shown = node.corral("status", "duo")
    assert str(port) in shown
    assert address in node.corral("status", "duo", "-o", "wide")

    (ours,) = [one for one in node.containers() if one["Labels"].get("corral.task") == tasks["web"]]
    engine_call(node.engine.url, "POST", f"/containers/{ours['Id']}/kill")
    wait_until(lambda: node.status()["terminationHistory"], "the end of the first")
    (ended,) = node.status()["terminationHistory"]
    assert [c["lastKnownState"] for c in ended["containers"]] == ["TASK_FAILED", "TASK_KILLED"]
    again = node.stable()
    wait_until(lambda: get_or_none(port_of(node.stable())) == "word\n", "the next one")
    assert {c["containerId"] for c in again["containers"]}.isdisjoint({web["containerId"], side["containerId"]})


def get_or_none(port: int) -> str | None:
    try:
        return get(port)
    except (URLError, OSError):
        return None


def test_a_pod_runs_on_while_agent_and_daemon_are_away_and_what_ends_meanwhile_is_learned(node: Node) -> None:
    # A daemon of 20.10 that is killed amid an exec leaves its container locked for half a minute.
    instance = node.create(containers=[WEB, {**SIDE, "healthCheck": None}])
    running, port = node.ids(), port_of(instance)
    (address,) = instance["networks"][0]["addresses"]
    node.restart()
    assert node.stable()["networks"] == instance["networks"]
    assert node.ids() == running
    node.engine.kill_dockerd()
    assert get(8080, host=address) == "word\n"
    node.engine.start_dockerd()
    node.engine.await_answer()
    assert node.stable()["id"] == instance["id"]
    assert node.ids() == running
    wait_until(lambda: get_or_none(port) == "word\n", "the port on the node")
    assert node.status()["terminationHistory"] == []

    (side,) = [one for one in node.containers() if one["Labels"].get("corral.task", "").split(".")[-2:-1] == ["side"]]
    pid = json.loads(engine_call(node.engine.url, "GET", f"/containers/{side['Id']}/json"))["State"]["Pid"]
    node.engine.kill_dockerd()
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    node.engine.start_dockerd()
    node.engine.await_answer()
    wait_until(lambda: node.status()["terminationHistory"], "the end to be learned", 60)
    (ended,) = node.status()["terminationHistory"]
    by_name = {c["name"]: c for c in ended["containers"]}
    assert by_name["side"]["lastKnownState"] == "TASK_FAILED"
    assert "Killed" in by_name["side"]["termination"]["message"]
    node.stable()


def test_images_and_programs_of_the_node_share_the_nodes_network_in_one_pod(node: Node) -> None:
    web = {**WEB, "endpoints": [{"name": "http", "hostPort": 0}]}
    program = {
        "name": "side", "resources": RESOURCES_OF_EACH, "volumeMounts": SIDE["volumeMounts"],
        "exec": {"command": {"shell": "echo word > files/word; exec sleep 1000"}},
    }  # fmt: skip
    instance = node.create(networks=[{"mode": "host"}], containers=[web, program])
    assert get(port_of(instance)) == "word\n"
    assert len(node.ids()) == 1
    node.restart()
    assert node.stable()["id"] == instance["id"]


def test_an_images_own_program_gets_words_and_a_network_that_is_not_there_is_told(node: Node) -> None:
    query = urlencode([("fromSrc", "-"), ("repo", "speaker"), ("tag", "1")])
    changes = urlencode([("changes", 'ENTRYPOINT ["/bin/sh", "-c", "echo given $0 $1; exec sleep 1000"]')])
    exported = json.loads(engine_call(node.engine.url, "POST", "/containers/create", b'{"Image": "busybox:latest"}',
                                      {"Content-Type": "application/json"}))["Id"]  # fmt: skip
    try:
        tar = engine_call(node.engine.url, "GET", f"/containers/{exported}/export", timeout_s=60)
        engine_call(node.engine.url, "POST", f"/images/create?{query}&{changes}", tar, timeout_s=60)
        speaker = {
            "name": "speaker", "image": {"kind": "DOCKER", "id": "speaker:1"}, "resources": RESOURCES_OF_EACH,
            "exec": {"command": {"argv": ["one", "two"]}},
        }  # fmt: skip
        node.create(containers=[speaker])
        (task,) = ask(node.dev.url, "GET", "/corral/v1/tasks")[1]["tasks"]
        wait_until(lambda: "given one two" in node.corral("logs", task["id"]), "what it says")
        node.destroy()
        lost = {**POD, "containers": [speaker], "networks": [{"mode": "container", "name": "nowhere"}]}
        assert ask(node.dev.url, "POST", "/v2/pods", lost)[0] == 201
        ended = wait_until(lambda: node.status()["terminationHistory"], "the refusal", 60)
        assert "network nowhere not found" in ended[0]["message"]
        node.destroy()
    finally:
        engine_call(node.engine.url, "DELETE", f"/containers/{exported}?force=1")
        engine_call(node.engine.url, "DELETE", "/images/speaker:1?force=1")


def test_a_pod_on_a_network_of_users_has_its_address_there(node: Node) -> None:
    made = json.loads(engine_call(node.engine.url, "POST", "/networks/create", b'{"Name": "blue"}',
                                  {"Content-Type": "application/json"}))["Id"]  # fmt: skip
    try:
        web = {**WEB, "endpoints": [{"name": "http", "containerPort": 8080}]}
        instance = node.create(containers=[web, SIDE], networks=[{"mode": "container", "name": "blue"}])
        (network,) = instance["networks"]
        assert network["name"] == "blue"
        assert get(8080, host=network["addresses"][0]) == "word\n"
        assert instance["containers"][0]["endpoints"] == [{"name": "http", "healthy": True}]
        node.destroy()
    finally:
        engine_call(node.engine.url, "DELETE", f"/networks/{made}")


def test_a_user_files_variables_and_directories_reach_a_container_in_an_image(node: Node, tmp_path: Path) -> None:
    (tmp_path / "tool.sh").write_text("#!/bin/sh\necho tool says $GREETING\n")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/letter").write_text("from the node\n")
    writer = {
        "name": "writer", "image": IMAGE, "resources": RESOURCES_OF_EACH, "user": "nobody",
        "environment": {"GREETING": "hello"}, "artifacts": [{"uri": f"file://{tmp_path}/tool.sh", "executable": True}],
        "exec": {"command": {"shell": "id -un; ./tool.sh; cat /host/letter; ./tool.sh > /data/word;"
                             " echo no > /host/x || echo refused; exec sleep 1000"}},
        "volumeMounts": [{"name": "shared", "mountPath": "/data"},
                         {"name": "kept", "mountPath": "/host", "readOnly": True}],
    }  # fmt: skip
    reader = {
        "name": "reader", "image": IMAGE, "resources": RESOURCES_OF_EACH, "user": "root",
        "exec": {"command": {"shell": "until test -s files/word; do usleep 50000; done; cat files/word; sleep 1000"}},
        "volumeMounts": [{"name": "shared", "mountPath": "files"}],
    }  # fmt: skip
    volumes = [{"name": "shared"}, {"name": "kept", "host": str(tmp_path / "kept")}]
    node.create(containers=[writer, reader], volumes=volumes)
    tasks = {t["name"]: t["id"] for t in ask(node.dev.url, "GET", "/corral/v1/tasks")[1]["tasks"]}
    said = wait_until(lambda: "refused" in (text := node.corral("logs", tasks["writer"])) and text, "what it says")
    assert said.splitlines() == ["nobody", "tool says hello", "from the node", "refused"]
    wait_until(lambda: "tool says hello" in node.corral("logs", tasks["reader"]), "what the other reads")
