"""A whole agent on one node: real loop, journal on disk, real processes, real sockets; only the master is small."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from agent_master import AGENT, TinyMaster, running, serving

from corral.agent.core import AgentCore
from corral.agent.fetcher import Fetcher
from corral.agent.link import Link
from corral.agent.routes import routes
from corral.agent.runtimes import TaskRuntime
from corral.agent.sandbox import Sandboxes
from corral.agent.shell import AgentShell
from corral.agent.spec import AgentConfig
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo
from corral.model.flags import parse_resources
from corral.model.framework import FrameworkInfo
from corral.model.ids import FrameworkId, TaskId
from corral.model.orders import KillTask, RunTask
from corral.model.task import CommandInfo, Reason, TaskInfo, TaskState, Uri
from corral.net.auth import Gate
from corral.net.server import Server, bind
from corral.process.runtime import ProcessRuntime
from corral.runtime.loop import Loop
from corral.store.sqlite import open_sqlite

FRAMEWORK = FrameworkId("m-0000")
OWNER = FrameworkInfo(id=FRAMEWORK, user="", name="fw")
RESOURCES = parse_resources("cpus:2;mem:1024;ports:[31000-31010]")


class Node:
    """What of an agent survives its process: the work directory and what runs."""

    def __init__(self, work_dir: Path, master: TinyMaster) -> None:
        self.work_dir = work_dir
        self.master = master
        self.url = ""
        self.port = 0
        self.gate: Gate | None = None
        self.loop: Loop

    def runtimes(self) -> dict[str, TaskRuntime]:
        return {"process": ProcessRuntime(str(self.work_dir / "processes"), cgroup_parent="")}

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator["Node"]:
        """One agent process, registered."""
        bound = bind("127.0.0.1", self.port)
        self.port = bound.getsockname()[1]
        runtimes = self.runtimes()
        config = AgentConfig(
            hostname="node1",
            port=self.port,
            resources=RESOURCES,
            runtimes=tuple(runtimes),
            work_dir=str(self.work_dir),
            version="0.1.0",
        )
        link = Link([self.master.url], Random(1))
        shell = AgentShell(runtimes, link, Sandboxes(str(self.work_dir)), Fetcher(str(self.work_dir / "fetched")))
        store = await open_sqlite(str(self.work_dir / "agent.db"))
        self.loop = Loop(AgentCore(config, Random()), shell, store, prefix="agent/", check=True)
        link.tell = self.loop.tell
        server = Server(routes(self.loop, shell), bound, gate=self.gate)
        self.url = server.url
        before = len(self.master.registrations)
        await server.start()
        try:
            async with running(link.run()), running(self.loop.run()):
                await self.master.until(lambda: len(self.master.registrations) > before)
                yield self
                self.loop.stop()
        finally:
            await server.close()
            await shell.close()
            await store.close()

    async def get(self, at: str, **query: str) -> tuple[int, bytes]:
        async with aiohttp.ClientSession() as http, http.get(self.url + at, params=query) as answer:
            return answer.status, await answer.read()

    async def json(self, at: str, **query: str) -> Any:
        status, body = await self.get(at, **query)
        assert status == 200, body
        return json.loads(body)

    def run(self, task_id: str, script: str = "", **more: Any) -> None:
        more.setdefault("command", CommandInfo(value=script))
        info = TaskInfo(
            task_id=TaskId(task_id), name=task_id, agent_id=AGENT, resources=parse_resources("cpus:0.1;mem:64"), **more
        )
        self.master.order(RunTask(1, OWNER, "*", info))

    def kill(self, task_id: str, grace_s: float | None = None) -> None:
        self.master.order(KillTask(1, FRAMEWORK, TaskId(task_id), grace_s, "no longer wanted"))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with serving(TinyMaster()) as master:
        node = Node(tmp_path / "work", master)
        node.work_dir.mkdir()
        try:
            yield node
        finally:
            await end_all(node)


async def end_all(node: Node) -> None:
    """No process of a test outlives it, however it ends."""
    runtime = ProcessRuntime(str(node.work_dir / "processes"), cgroup_parent="")
    for found in await runtime.recover():
        if found.exit is None:
            await runtime.kill(found.container_id, 0.0)
    await runtime.close()


async def test_a_command_runs_and_each_of_its_states_is_told(node: Node) -> None:
    async with node.agent():
        node.run("t1", "echo hello; echo oops >&2; exit 3")
        status = await node.master.until_state("t1", TaskState.FAILED)
        assert status.message == "Command exited with status 3"
        assert [s.state for s in node.master.statuses["t1"]] == [
            TaskState.STARTING, TaskState.RUNNING, TaskState.FAILED,
        ]  # fmt: skip
        assert await node.get("/corral/v1/tasks/t1/logs") == (200, b"hello\n")
        assert await node.get("/corral/v1/tasks/t1/logs", stream="stderr") == (200, b"oops\n")
        assert (await node.get("/corral/v1/tasks/t1/logs", stream="x"))[0] == 400
        assert (await node.get("/corral/v1/tasks/nope/logs"))[0] == 404


async def test_a_command_that_does_not_exist_fails_with_its_name(node: Node) -> None:
    async with node.agent():
        node.run("t1", command=CommandInfo(shell=False, value="no-such-command"))
        status = await node.master.until_state("t1", TaskState.FAILED)
        assert status.reason is Reason.CONTAINER_LAUNCH_FAILED
        assert "no-such-command" in (status.message or "")


async def test_an_image_without_docker_is_refused_with_the_next_step(node: Node) -> None:
    async with node.agent():
        image = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox"))
        node.run("t1", "true", container=image)
        status = await node.master.until_state("t1", TaskState.FAILED)
        assert "start the agent with --runtime docker" in (status.message or "")


async def test_uris_are_in_the_sandbox_when_the_command_starts(node: Node, tmp_path: Path) -> None:
    (tmp_path / "greet.sh").write_text("echo fetched")
    async with node.agent():
        uris = (Uri(value=str(tmp_path / "greet.sh"), executable=True),)
        node.run("t1", command=CommandInfo(value="sh ./greet.sh", uris=uris))
        await node.master.until_state("t1", TaskState.FINISHED)
        assert (await node.get("/corral/v1/tasks/t1/logs"))[1] == b"fetched\n"
        node.run("t2", command=CommandInfo(value="true", uris=(Uri(value="/no/such/file"),)))
        status = await node.master.until_state("t2", TaskState.FAILED)
        assert "/no/such/file" in (status.message or "")


async def test_a_kill_gives_the_command_its_grace_and_then_ends_it(node: Node) -> None:
    async with node.agent():
        node.run("t1", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
        node.run("t2", "trap '' TERM; echo up; while :; do sleep 0.05; done")
        for task_id in ("t1", "t2"):
            await node.master.until_state(task_id, TaskState.RUNNING)
            while (await node.get(f"/corral/v1/tasks/{task_id}/logs"))[1] != b"up\n":
                await asyncio.sleep(0.02)
        node.kill("t1", 5.0)
        node.kill("t2", 0.3)
        gentle = await node.master.until_state("t1", TaskState.KILLED)
        assert gentle.message == "no longer wanted: Command exited with status 0"
        assert (await node.get("/corral/v1/tasks/t1/logs", lines="1"))[1] == b"bye\n"
        forced = await node.master.until_state("t2", TaskState.KILLED)
        assert forced.message == "no longer wanted: Command terminated with signal Killed"


async def test_logs_are_followed_until_the_task_ends(node: Node) -> None:
    async with node.agent():
        node.run("t1", "for i in 1 2 3; do echo $i; sleep 0.1; done")
        await node.master.until_state("t1", TaskState.STARTING)
        assert await node.get("/corral/v1/tasks/t1/logs", follow="true") == (200, b"1\n2\n3\n")


async def test_ten_megabytes_in_a_second_are_all_there(node: Node) -> None:
    async with node.agent():
        node.run("t1", "head -c 10485760 /dev/zero")
        await node.master.until_state("t1", TaskState.FINISHED)
        assert len((await node.get("/corral/v1/tasks/t1/logs"))[1]) == 10 << 20


async def test_a_command_runs_beside_the_task(node: Node) -> None:
    async with node.agent():
        node.run("t1", "sleep 60")
        await node.master.until_state("t1", TaskState.RUNNING)
        async with aiohttp.ClientSession() as http:
            url = node.url + "/corral/v1/tasks/t1/exec"
            query = [("argv", w) for w in ("sh", "-c", "echo in $CORRAL_TASK_ID; cat; echo err >&2; exit 5")]
            async with http.ws_connect(url, params=query) as socket:
                await socket.send_bytes(b"typed\n")
                await socket.send_bytes(b"")
                out, err, code = b"", b"", None
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        out += message.data[1:] if message.data[:1] == b"\x01" else b""
                        err += message.data[1:] if message.data[:1] == b"\x02" else b""
                    else:
                        code = json.loads(message.data)["exit"]
            assert (out, err, code) == (b"in t1\ntyped\n", b"err\n", 5)
            async with http.ws_connect(url, params=[("argv", "cat")]) as socket:
                await socket.send_str("nonsense")
                message = await socket.receive()
                assert "is not" in json.loads(message.data)["error"]
            for wrong in ([], [("argv", "true")]):
                async with http.get(url, params=wrong) as answer:
                    assert answer.status == 400
        node.kill("t1", 0.0)
        await node.master.until_state("t1", TaskState.KILLED)
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await http.ws_connect(url, params=[("argv", "true")])


async def test_mesos_tools_find_state_sandboxes_and_metrics(node: Node) -> None:
    async with node.agent():
        node.run("t1", "echo hello; sleep 60")
        await node.master.until_state("t1", TaskState.RUNNING)
        state = await node.json("/state")
        (executor,) = state["frameworks"][0]["executors"]
        directory = executor["directory"]
        assert state == {**await node.json("/slave(1)/state.json"), "start_time": state["start_time"]}
        names = {os.path.basename(f["path"]) for f in await node.json("/files/browse", path=directory)}
        assert {"stdout", "stderr"} <= names
        out = directory + "/stdout"
        while not (await node.json("/files/read", path=out, offset="0"))["data"]:
            await asyncio.sleep(0.01)
        assert await node.json("/files/read", path=out, offset="0") == {"data": "hello\n", "offset": 0}
        assert await node.json("/files/read.json", path=out, offset="-1") == {"data": "", "offset": 6}
        assert await node.get("/files/download", path=out) == (200, b"hello\n")
        virtual = f"/frameworks/{FRAMEWORK}/executors/t1/runs/latest/stdout"
        assert (await node.json("/files/read", path=virtual, offset="0"))["data"] == "hello\n"
        assert (await node.get("/files/read", path=out, offset="-2"))[0] == 400
        assert (await node.get("/files/read", path=out, offset="x"))[0] == 400
        assert (await node.get("/files/download", path=directory))[0] == 400
        assert (await node.get("/files/read", path="/etc/passwd", offset="0"))[0] == 404
        assert (await node.get("/files/read", path=directory + "/../../../../../x", offset="0"))[0] == 404
        assert (await node.get("/health"))[0] == 200
        assert (await node.get("/health/ready"))[0] == 200
        assert (await node.json("/version"))["version"]
        metrics = await node.json("/metrics/snapshot")
        assert (metrics["slave/tasks_running"], metrics["slave/cpus_used"], metrics["slave/registered"]) == (1, 0.1, 1)
        assert b"corral_agent_tasks 1.0" in (await node.get("/metrics"))[1]
        (task,) = (await node.json("/corral/v1/tasks"))["tasks"]
        assert (task["id"], task["state"], task["hostname"]) == ("t1", "TASK_RUNNING", "node1")
        assert (await node.json("/corral/v1/agent"))["live"] == 1
        node.kill("t1", 0.0)
        await node.master.until_state("t1", TaskState.KILLED)


async def test_a_restarted_agent_finds_its_tasks_and_tells_what_ended_meanwhile(node: Node) -> None:
    async with node.agent():
        node.run("stays", "echo on; sleep 60")
        node.run("ends", "sleep 0.3; exit 7")
        for task_id in ("stays", "ends"):
            await node.master.until_state(task_id, TaskState.RUNNING)
    await asyncio.sleep(0.5)
    async with node.agent():
        ended = await node.master.until_state("ends", TaskState.FAILED)
        assert ended.message == "Command exited with status 7"
        assert [s.state for s in node.master.statuses["stays"]] == [TaskState.STARTING, TaskState.RUNNING]
        assert [t.state for t in node.master.registrations[-1].tasks if t.info.task_id == "stays"] == [
            TaskState.RUNNING
        ]
        node.kill("stays", 1.0)
        await node.master.until_state("stays", TaskState.KILLED)
        while (await node.json("/corral/v1/agent"))["unacknowledged"]:
            await asyncio.sleep(0.01)
    async with node.agent():
        assert node.master.registrations[-1].tasks == ()
        assert (await node.get("/corral/v1/tasks/stays/logs"))[1] == b"on\n", "its sandbox is still there"


async def test_updates_wait_for_a_master_that_was_away(node: Node) -> None:
    async with node.agent():
        node.master.acknowledges = False
        node.run("t1", "true")
        await node.master.until_state("t1", TaskState.STARTING)
        node.master.refuse = 503
        node.master.cut()
        await asyncio.sleep(0.3)
        node.master.refuse = None
        node.master.acknowledges = True
        await node.master.until_state("t1", TaskState.FINISHED)
        assert [s.state for s in node.master.statuses["t1"]] == [
            TaskState.STARTING, TaskState.RUNNING, TaskState.FINISHED,
        ]  # fmt: skip


async def test_a_sandbox_that_cannot_be_made_fails_the_task_and_nothing_else(node: Node) -> None:
    async with node.agent():
        (node.work_dir / "slaves").write_text("in the way")
        node.run("t1", "true")
        status = await node.master.until_state("t1", TaskState.FAILED)
        assert status.reason is Reason.CONTAINER_LAUNCH_FAILED
        assert "sandbox" in (status.message or "")
        (node.work_dir / "slaves").unlink()
        node.run("t2", "true")
        await node.master.until_state("t2", TaskState.FINISHED)


@contextlib.asynccontextmanager
async def agent_process(node: Node) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "corral.cli.main", "agent", "--master", node.master.url, "--listen", "127.0.0.1:0",
        "--work-dir", str(node.work_dir), "--runtime", "process", "--resources", "cpus:2;mem:256",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_an_agent_killed_at_any_moment_of_a_launch_loses_and_doubles_nothing(node: Node, tmp_path: Path) -> None:
    """SIGKILL at many moments between the order and the exit; each task leaves a line in its own file per start."""
    delays = [0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3]
    script = f"echo started >> {tmp_path}/$MESOS_TASK_ID; sleep 0.2; exit 0"
    for number, delay in enumerate(delays):
        registered = len(node.master.registrations)
        async with agent_process(node) as process:
            await node.master.until(lambda before=registered: len(node.master.registrations) > before, 30.0)
            node.run(f"t{number}", script)
            await asyncio.sleep(delay)
            process.send_signal(signal.SIGKILL)
    registered = len(node.master.registrations)
    async with agent_process(node):
        await node.master.until(lambda: len(node.master.registrations) > registered, 30.0)
        held = {t.info.task_id for t in node.master.registrations[-1].tasks}
        for number in range(len(delays)):
            task_id = f"t{number}"
            if task_id in held:
                await node.master.until(lambda t=task_id: node.master.statuses.get(t, [None])[-1] and _ended(node, t))
            starts = tmp_path / task_id
            lines = starts.read_text().splitlines() if starts.exists() else []
            assert len(lines) <= 1, f"{task_id} was started twice"
            states = [s.state for s in node.master.statuses.get(task_id, [])]
            assert len([s for s in states if s in (TaskState.FINISHED, TaskState.LOST)]) <= 1
            if lines:
                assert states[-1] is TaskState.FINISHED, f"the exit of {task_id} is told: {states}"


def _ended(node: Node, task_id: str) -> bool:
    return node.master.statuses[task_id][-1].state in (TaskState.FINISHED, TaskState.LOST)
