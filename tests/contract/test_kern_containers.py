"""Standalone containers of a whole agent, as tools of Mesos launch, follow, kill and remove them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agent_master import TinyMaster, serving
from test_agent_whole import Node, end_all
from test_executors_nested import JSON, call, container, records, stream, written

from corral.agent.runtimes import TaskRuntime
from corral.docker.engine import DockerEngine
from corral.docker.runtime import DockerRuntime
from corral.mesos.recordio import encode
from corral.model.task import TaskState
from corral.net.auth import Caller, CallerKind, Knock

C = {"value": "c"}
LIMITS = [
    {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
    {"name": "mem", "type": "SCALAR", "scalar": {"value": 64}},
]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with serving(TinyMaster()) as master:
        node = Node(tmp_path / "work", master)
        node.work_dir.mkdir()
        try:
            yield node
        finally:
            await end_all(node)


async def launch(node: Node, script: str, **more: Any) -> tuple[int, Any]:
    return await call(node, "LAUNCH_CONTAINER", container_id=C, command={"value": script}, **more)


async def listed(node: Node, **how: bool) -> list[dict[str, Any]]:
    _, found = await call(node, "GET_CONTAINERS", **how)
    rows: list[dict[str, Any]] = found["get_containers"].get("containers", [])
    return rows


async def test_a_standalone_container_runs_on_while_its_agent_restarts(node: Node) -> None:
    script = "echo begun; while ! [ -e end ]; do sleep 0.05; done; echo done; exit 3"
    async with node.agent():
        assert await launch(node, script, resources=LIMITS) == (200, "")
        assert await launch(node, script) == (202, "")
        (row,) = await listed(node, show_standalone=True)
        pid = row["container_status"].pop("executor_pid")
        used = row.pop("resource_statistics")
        assert (used["cpus_limit"], used["mem_limit_bytes"]) == (0.1, 64 << 20)
        assert used["mem_rss_bytes"] > 0
        assert row == {"container_id": C, "container_status": {"container_id": C}}
        assert await listed(node) == [], "a tool that knows of none is shown none"
    async with node.agent():
        (again,) = await listed(node, show_standalone=True)
        assert again["container_status"]["executor_pid"] == pid
        place = "/containers/c/runs/latest"
        _, files = await call(node, "LIST_FILES", path=place)
        assert {file["path"] for file in files["list_files"]["file_infos"]} == {
            f"{place}/stderr", f"{place}/stdout",
        }  # fmt: skip
        waiting = asyncio.create_task(call(node, "WAIT_CONTAINER", container_id=C))
        inside = {"value": "look", "parent": C}
        command = {"value": "touch end; echo in $MESOS_SLAVE_ID$MESOS_FRAMEWORK_ID"}
        async with stream(node, "LAUNCH_NESTED_CONTAINER_SESSION", container_id=inside, command=command) as answer:
            assert [written(record) async for record in records(answer)] == [("STDOUT", b"in m-S0\n")]
        status, waited = await waiting
        assert (status, waited["wait_container"]) == (200, {"exit_status": 3 << 8})
        status, body = await node.get("/files/read", path=f"{place}/stdout", offset="0")
        assert json.loads(body)["data"] == "begun\ndone\n"
        assert (await call(node, "KILL_CONTAINER", container_id=C))[0] == 200, "it has ended, as was asked"
        assert (await call(node, "REMOVE_CONTAINER", container_id=C)) == (200, "")
        for kind in ("WAIT_CONTAINER", "KILL_CONTAINER", "REMOVE_CONTAINER"):
            assert (await call(node, kind, container_id=C))[0] == 404
        assert (await call(node, "LIST_FILES", path=place))[0] == 404
        assert (await launch(node, "true"))[0] == 200, "its name is free again"


async def test_signals_reach_it_and_what_it_writes_can_be_followed(node: Node) -> None:
    async with node.agent():
        script = "trap 'echo term' TERM; sleep 61 & echo $! > child; while :; do sleep 0.05; done"
        assert (await launch(node, script))[0] == 200
        await asyncio.sleep(0.2)
        async with stream(node, "ATTACH_CONTAINER_OUTPUT", container_id=C) as answer:
            told = records(answer)
            assert (await call(node, "KILL_CONTAINER", container_id=C, signal=15))[0] == 200
            assert written(await anext(told)) == ("STDOUT", b"term\n")
            assert (await call(node, "REMOVE_CONTAINER", container_id=C))[0] == 409
            assert (await call(node, "KILL_CONTAINER", container_id=C))[0] == 200
            assert [written(record) async for record in told] == []
        _, waited = await call(node, "WAIT_CONTAINER", container_id=C)
        assert waited["wait_container"] == {"exit_status": 9}
        child = (node.work_dir / "containers" / "c" / "runs" / "latest" / "child").read_text().strip()
        async with asyncio.timeout(5):
            while Path(f"/proc/{child}").exists():
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"container_id": C}, 400),
        ({"container_id": C, "command": {"value": ""}}, 400),
        ({"container_id": C, "command": {"value": "a\0b"}}, 400),
        ({"container_id": C, "command": {"value": "a", "environment": {"variables": [{"name": ""}]}}}, 400),
        ({"container_id": {"value": "a.b"}, "command": {"value": "true"}}, 400),
        ({"container_id": C, "command": {"value": "true"}, "container": {"type": "MESOS", "tty_info": {}}}, 400),
        ({"container_id": C, "command": {"value": "true"}, "container": {"type": "DOCKER"}}, 400),
        ({"container_id": C, "container": {"type": "DOCKER", "docker": {"image": "x"}}}, 400),
        ({"container_id": C, "command": {"value": "true"}, "resources": [{"name": "cpus"}]}, 400),
        ({"container_id": C, "command": {"value": "/no/such/program", "shell": False}}, 500),
        ({"container_id": C, "command": {"value": "true", "uris": [{"value": "/no/such/file"}]}}, 500),
    ],
)
async def test_a_launch_that_cannot_be_meant_leaves_nothing_behind(node: Node, body: Any, status: int) -> None:
    async with node.agent():
        found = await call(node, "LAUNCH_CONTAINER", JSON, **body)
        assert found[0] == status, found
        assert await listed(node, show_standalone=True) == []
        assert (await call(node, "WAIT_CONTAINER", container_id=C))[0] == 404


class EverybodyIs:
    """A gate that lets everybody in as one caller."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    async def admit(self, knock: Knock) -> Caller:
        return self.caller

    def challenge(self, path: str) -> str:
        raise AssertionError("nobody is turned away")


async def test_a_caller_that_is_bound_to_roles_launches_and_ends_none(node: Node) -> None:
    node.gate = gate = EverybodyIs(Caller(kind=CallerKind.TOKEN, name="ops"))
    async with node.agent():
        assert (await launch(node, "sleep 60"))[0] == 200
        gate.caller = Caller(kind=CallerKind.TOKEN, name="ci", roles=("web",))
        status, why = await launch(node, "sleep 60")
        assert (status, why.partition(";")[0]) == (
            403,
            "ci is bound to web and may not launch or end container c: it is of no role",
        )
        for kind in ("KILL_CONTAINER", "REMOVE_CONTAINER"):
            assert (await call(node, kind, container_id=C))[0] == 403
        assert len(await listed(node, show_standalone=True)) == 1


async def test_who_is_bound_to_other_roles_reads_of_a_task_and_runs_nothing_in_it(node: Node) -> None:
    node.gate = gate = EverybodyIs(Caller(kind=CallerKind.TOKEN, name="ops"))
    command = {"value": "exec sleep 60"}
    async with node.agent():
        node.run("t1", "exec sleep 60")
        await node.master.until_state("t1", TaskState.RUNNING)
        parent = (await container(node))["container_id"]
        theirs, mine = {"value": "theirs", "parent": parent}, {"value": "mine", "parent": parent}
        assert (await call(node, "LAUNCH_NESTED_CONTAINER", container_id=theirs, command=command))[0] == 200
        gate.caller = Caller(kind=CallerKind.TOKEN, name="ci", roles=("web",))
        refused = "ci is bound to web and the roles below and may not "
        for kind, id in [
            ("LAUNCH_NESTED_CONTAINER", mine), ("LAUNCH_NESTED_CONTAINER_SESSION", mine), ("LAUNCH_CONTAINER", mine),
            ("KILL_NESTED_CONTAINER", theirs), ("KILL_CONTAINER", theirs), ("REMOVE_NESTED_CONTAINER", theirs),
            ("ATTACH_CONTAINER_OUTPUT", theirs),
        ]:  # fmt: skip
            status, why = await call(node, kind, container_id=id, command=command)
            assert (status, why[: len(refused)]) == (403, refused), kind
        member = {"type": "CONTAINER_ID", "container_id": theirs}
        first = encode(json.dumps({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": member}).encode())
        async with aiohttp.ClientSession() as http:
            headers = {"Content-Type": "application/recordio"}
            async with http.post(node.url + "/api/v1", data=first, headers=headers) as answer:
                assert answer.status == 403
            async with http.post(node.url + "/corral/v1/tasks/t1/signal", json={"signal": "SIGUSR1"}) as answer:
                assert answer.status == 403
        assert (await node.get("/corral/v1/tasks/t1/exec", argv="true"))[0] == 403
        assert (await node.get("/corral/v1/tasks/t1/logs"))[0] == 200, "what is read is not told apart"
        assert len(await listed(node, show_nested=True)) == 2
        gate.caller = Caller(kind=CallerKind.TOKEN, name="any", roles=("*",))
        assert (await node.get("/corral/v1/tasks/t1/exec", argv="true"))[0] == 400, "which is no WebSocket"
        assert (await call(node, "KILL_NESTED_CONTAINER", container_id=theirs))[0] == 200
        assert (await call(node, "WAIT_NESTED_CONTAINER", container_id=theirs))[0] == 200
        assert (await call(node, "REMOVE_NESTED_CONTAINER", container_id=theirs))[0] == 200


async def test_who_is_bound_to_roles_runs_nothing_in_a_container_of_none(node: Node) -> None:
    node.gate = gate = EverybodyIs(Caller(kind=CallerKind.TOKEN, name="ops"))
    async with node.agent():
        assert (await launch(node, "exec sleep 60"))[0] == 200
        gate.caller = Caller(kind=CallerKind.TOKEN, name="ci", roles=("web",))
        below = {"value": "n", "parent": C}
        status, why = await call(node, "LAUNCH_NESTED_CONTAINER", container_id=below, command={"value": "true"})
        assert (status, why.partition(";")[0]) == (
            403, "ci is bound to web and may not launch in container c: it is of no role"
        )  # fmt: skip


class DockerNode(Node):
    engine: str = ""

    def runtimes(self) -> dict[str, TaskRuntime]:
        return {"docker": DockerRuntime(DockerEngine(self.engine), owner=str(self.work_dir))}


IN_MESOS = {"image": {"type": "DOCKER", "docker": {"name": "busybox:latest"}}}


@pytest.mark.docker
@pytest.mark.parametrize(
    "image",
    [
        {"type": "DOCKER", "docker": {"image": "busybox:latest", "network": "BRIDGE"}},
        {"type": "MESOS", "mesos": IN_MESOS, "network_infos": [{"name": "bridge"}]},
    ],
    ids=["docker", "mesos"],
)
async def test_a_standalone_image_outlives_its_agent_and_is_killed_and_removed(
    tmp_path: Path, engine_socket: str, image: dict[str, Any]
) -> None:
    async with serving(TinyMaster()) as master:
        node = DockerNode(tmp_path / "work", master)
        node.work_dir.mkdir()
        node.engine = engine_socket
        async with node.agent():
            missing = {"value": "/no/such", "shell": False, "arguments": ["/no/such"]}
            found = await call(node, "LAUNCH_CONTAINER", container_id=C, command=missing, container=image)
            assert found[0] == 500, found
            assert await launch(node, "echo begun; exec sleep 600", container=image) == (200, "")
        async with node.agent():
            (row,) = await listed(node, show_standalone=True)
            assert row["container_id"] == C
            inside = {"value": "look", "parent": C}
            command = {"value": "cat $MESOS_SANDBOX/stdout"}
            async with stream(node, "LAUNCH_NESTED_CONTAINER_SESSION", container_id=inside, command=command) as answer:
                assert [written(record) async for record in records(answer)] == [("STDOUT", b"begun\n")]
            assert (await call(node, "KILL_CONTAINER", container_id=C, signal=40))[0] == 200, "which it ignores"
            assert (await call(node, "KILL_CONTAINER", container_id=C))[0] == 200
            _, waited = await call(node, "WAIT_CONTAINER", container_id=C)
            assert waited["wait_container"]["exit_status"] == 9
            assert (await call(node, "REMOVE_CONTAINER", container_id=C))[0] == 200
