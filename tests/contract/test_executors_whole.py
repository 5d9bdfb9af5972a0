"""Executors under a whole agent: real processes, real sockets, a journal on disk; only the master is small."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from agent_master import AGENT, TinyMaster, serving
from test_agent_whole import FRAMEWORK, OWNER, Node, end_all

from corral.agent.runtimes import TaskRuntime
from corral.docker.engine import DockerEngine
from corral.docker.runtime import DockerRuntime
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo, Volume
from corral.model.flags import parse_resources
from corral.model.ids import ExecutorId, TaskId
from corral.model.orders import (
    ExecutorEnded,
    ExecutorMessage,
    KillTask,
    MessageExecutor,
    RunGroup,
    RunTask,
    ShutdownExecutor,
)
from corral.model.task import CommandInfo, ExecutorInfo, Reason, TaskInfo, TaskState

EXAMPLE = Path(__file__).parents[2] / "examples" / "executor.py"
CUSTOM = ExecutorInfo(
    executor_id=ExecutorId("e"),
    framework_id=FRAMEWORK,
    kind="CUSTOM",
    resources=parse_resources("cpus:0.1;mem:64"),
    command=CommandInfo(value=f"exec {sys.executable} -u {EXAMPLE}"),
)
POD = ExecutorInfo(
    executor_id=ExecutorId("pod"),
    framework_id=FRAMEWORK,
    kind="DEFAULT",
    resources=parse_resources("cpus:0.1;mem:32;disk:1"),
)
KEEPING = msgspec.structs.replace(OWNER, checkpoint=True)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with serving(TinyMaster()) as master:
        node = Node(tmp_path / "work", master)
        node.work_dir.mkdir()
        try:
            yield node
        finally:
            await end_all(node)


def task(task_id: str, command: str = "", executor: ExecutorInfo = CUSTOM, **more: object) -> TaskInfo:
    return TaskInfo(
        task_id=TaskId(task_id), name=task_id, agent_id=AGENT, resources=parse_resources("cpus:0.1;mem:64"),
        executor=executor, data=command.encode() if executor is CUSTOM else None,
        command=CommandInfo(value=command) if executor is POD else None, **more,
    )  # fmt: skip


def launch(node: Node, info: TaskInfo, *, starts: bool) -> None:
    node.master.order(RunTask(1, KEEPING, "*", info, starts))


def group(node: Node, *infos: TaskInfo, starts: bool = True) -> None:
    node.master.order(RunGroup(1, KEEPING, "*", infos, starts))


def ended(node: Node) -> list[ExecutorEnded]:
    return [r for r in node.master.reports if isinstance(r, ExecutorEnded)]


async def test_an_executor_outlives_its_agent_and_neither_loses_an_update(node: Node) -> None:
    async with node.agent():
        launch(node, task("stays", "sleep 60"), starts=True)
        launch(node, task("ends", "sleep 0.5; exit 3"), starts=False)
        for task_id in ("stays", "ends"):
            await node.master.until_state(task_id, TaskState.RUNNING)
        node.master.order(MessageExecutor(1, FRAMEWORK, ExecutorId("e"), b"hello"))
        await node.master.until(lambda: ExecutorMessage(FRAMEWORK, ExecutorId("e"), b"hello") in node.master.reports)
    await asyncio.sleep(0.8)
    assert len(node.master.statuses["ends"]) == 1
    async with node.agent():
        (told,) = node.master.registrations[-1].executors
        assert (told.info, told.framework_id) == (CUSTOM, FRAMEWORK)
        failed = await node.master.until_state("ends", TaskState.FAILED)
        assert failed.message == "exited with 3"
        launch(node, task("later", "true"), starts=False)
        await node.master.until_state("later", TaskState.FINISHED)
        node.master.order(KillTask(1, FRAMEWORK, TaskId("stays"), None, "enough"))
        await node.master.until_state("stays", TaskState.KILLED)
        node.master.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId("e")))
        await node.master.until(lambda: ended(node))
        assert [e.status for e in ended(node)] == [0]
        assert [s.state for s in node.master.statuses["stays"]] == [TaskState.RUNNING, TaskState.KILLED]


SHELL = """
url=http://$MESOS_AGENT_ENDPOINT/api/v1/executor
post() { wget -q -O - --header 'Content-Type: application/json' --post-data "$1" $url; }
ids='"framework_id":{"value":"'$MESOS_FRAMEWORK_ID'"},"executor_id":{"value":"'$MESOS_EXECUTOR_ID'"}'
tell() {
    status='{"task_id":{"value":"t1"},"state":"'$1'","source":"SOURCE_EXECUTOR","uuid":"'$2'"}'
    post '{"type":"UPDATE",'"$ids"',"update":{"status":'"$status"'}}'
}
post '{"type":"SUBSCRIBE",'"$ids"',"subscribe":{}}' | while read -r line; do
    case "$line" in
    *'"type":"LAUNCH"'*) tell TASK_RUNNING AAAAAAAAAAAAAAAAAAAAAA== ;;
    *'"type":"KILL"'*) tell TASK_KILLED BBBBBBBBBBBBBBBBBBBBBA== ;;
    esac
done
"""
"""An executor in a few lines of shell: it hears of an event when the next one's length ends the line."""


@pytest.mark.docker
async def test_an_executor_in_a_container_is_run_by_the_engine(tmp_path: Path, engine_socket: str) -> None:
    class WithDocker(Node):
        def runtimes(self) -> dict[str, TaskRuntime]:
            return {"docker": DockerRuntime(DockerEngine(engine_socket), owner=str(tmp_path))}

    image = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox:latest"))
    executor = msgspec.structs.replace(CUSTOM, command=CommandInfo(value=SHELL), container=image)
    async with serving(TinyMaster()) as master:
        node = WithDocker(tmp_path / "work", master)
        node.work_dir.mkdir()
        async with node.agent():
            launch(node, msgspec.structs.replace(task("t1"), executor=executor), starts=True)
            async with asyncio.timeout(60):
                while (await node.json("/metrics/snapshot"))["slave/executors_running"] != 1:
                    await asyncio.sleep(0.1)
            push = MessageExecutor(1, FRAMEWORK, ExecutorId("e"), b"push")
            node.master.order(push)
            status = await node.master.until_state("t1", TaskState.RUNNING)
            assert status.container_status is not None
            node.master.order(KillTask(1, FRAMEWORK, TaskId("t1")), push)
            await node.master.until_state("t1", TaskState.KILLED)
            node.master.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId("e")))
            await node.master.until(lambda: ended(node), 30)


async def test_an_executor_that_is_no_program_fails_its_task(node: Node) -> None:
    async with node.agent():
        wrong = msgspec.structs.replace(CUSTOM, command=CommandInfo(shell=False, value="no-such-executor"))
        launch(node, msgspec.structs.replace(task("t1"), executor=wrong), starts=True)
        status = await node.master.until_state("t1", TaskState.FAILED)
        assert status.reason is Reason.CONTAINER_LAUNCH_FAILED
        assert "no-such-executor" in (status.message or "")


async def test_the_tasks_of_a_group_share_a_directory_and_the_end_of_the_first_that_fails(node: Node) -> None:
    shared = ContainerInfo(
        kind=ContainerKind.MESOS,
        volumes=(Volume(container_path="mail", host_path="exchange", of_executor=True),),
    )
    async with node.agent():
        group(
            node,
            task("writer", "echo word > mail/letter; sleep 60", POD, container=shared),
            task(
                "reader",
                "until test -s mail/letter; do sleep 0.05; done; cat mail/letter; exit 4",
                POD,
                container=shared,
            ),
        )
        await node.master.until_state("reader", TaskState.FAILED)
        killed = await node.master.until_state("writer", TaskState.KILLED)
        assert "task reader of its group ended as TASK_FAILED" in (killed.message or "")
        assert (await node.get("/corral/v1/tasks/reader/logs"))[1] == b"word\n"
        await node.master.until(lambda: ended(node))
        assert [(e.executor_id, e.status) for e in ended(node)] == [("pod", 0)]


async def test_a_group_is_found_again_by_a_restarted_agent(node: Node) -> None:
    async with node.agent():
        group(node, task("a", "echo up; sleep 60", POD), task("b", "sleep 60", POD))
        for task_id in "ab":
            await node.master.until_state(task_id, TaskState.RUNNING)
    async with node.agent():
        assert [e.info for e in node.master.registrations[-1].executors] == [POD]
        node.kill("a", 1.0)
        await node.master.until_state("b", TaskState.KILLED)
        await node.master.until(lambda: ended(node))
        while (await node.json("/corral/v1/agent"))["unacknowledged"]:
            await asyncio.sleep(0.01)
    async with node.agent():
        assert await node.get("/corral/v1/tasks/a/logs") == (200, b"up\n"), "its sandbox is still there"
