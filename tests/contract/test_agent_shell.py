"""How the agent's shell tells what became of an effect: in words, as an input, and with nothing left behind."""

import asyncio
import socket
from collections.abc import Awaitable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from corral.agent import effects as fx
from corral.agent.fetcher import Fetcher
from corral.agent.link import Link
from corral.agent.shell import AgentShell
from corral.agent.spec import (
    DiscardFailed,
    Exited,
    Fetched,
    KillFailed,
    Recovered,
    RuntimeChecked,
    Started,
    StartFailed,
    WaitFailed,
)
from corral.docker.fake import FakeNode, FakeRuntime
from corral.lib.errors import Unavailable
from corral.model.execution import Execution
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.model.task import Uri


class AwayRuntime(FakeRuntime):
    """A runtime whose daemon does not answer."""

    async def wait(self, container_id: str) -> Any:
        raise Unavailable("Docker does not answer")

    async def kill(self, container_id: str, grace_s: float) -> None:
        raise Unavailable("Docker does not answer")

    async def recover(self) -> Any:
        raise OSError(5, "Input/output error", "/var/lib/x")


def make_shell(runtime: FakeRuntime) -> AgentShell:
    return AgentShell({"process": runtime}, Link(["127.0.0.1:9"], Random(1)))


def start(script: str = "sleep 60", container_id: str = "c1") -> fx.Start:
    return fx.Start(
        "process",
        Execution(
            container_id=ContainerId(container_id),
            task_id=TaskId("t1"),
            framework_id=FrameworkId("f"),
            sandbox="/nowhere",
            argv=("/bin/sh", "-c", script),
        ),
    )


async def perform(shell: AgentShell, effect: Any) -> Any:
    slow = shell.perform(effect)
    assert isinstance(slow, Awaitable)
    return await slow


C1 = ContainerId("c1")


async def test_a_start_and_its_end_are_told() -> None:
    shell = make_shell(FakeRuntime(name="process"))
    started = await perform(shell, start("exit 3"))
    assert isinstance(started, Started)
    exited = await perform(shell, fx.Wait("process", C1))
    assert isinstance(exited, Exited)
    assert exited.exit.code == 3
    assert await perform(shell, fx.Remove("process", C1)) is None
    assert not shell.is_alive(C1)


async def test_a_start_that_is_taken_back_leaves_nothing() -> None:
    node = FakeNode(start_s=30.0)
    shell = make_shell(FakeRuntime(node, name="process"))
    begun = asyncio.ensure_future(perform(shell, start()))
    await asyncio.sleep(0)
    assert shell.is_alive(C1)
    shell.perform(fx.Abort(C1, "scaled down"))
    assert await begun == StartFailed(C1, "scaled down", aborted=True)
    assert node.runs == {}
    assert not shell.is_alive(C1)


async def test_a_start_that_has_ended_stands_when_it_is_taken_back_too_late() -> None:
    node = FakeNode()
    shell = make_shell(FakeRuntime(node, name="process"))
    assert isinstance(await perform(shell, start()), Started)
    shell.perform(fx.Abort(C1, "scaled down"))
    assert set(node.runs) == {"c1"}


async def test_an_agent_that_stops_in_the_middle_of_a_start_does_not_wait_for_it() -> None:
    shell = make_shell(FakeRuntime(FakeNode(start_s=30.0), name="process"))
    begun = asyncio.ensure_future(perform(shell, start()))
    await asyncio.sleep(0)
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun


async def test_a_failed_start_is_told_in_the_runtimes_words() -> None:
    node = FakeNode()
    node.trouble = "the node is on fire"
    assert await perform(make_shell(FakeRuntime(node, name="process")), start()) == StartFailed(
        C1, "task t1 was not started: the node is on fire"
    )


async def test_a_discard_ends_and_removes_what_runs() -> None:
    node = FakeNode()
    shell = make_shell(FakeRuntime(node, name="process"))
    await perform(shell, start())
    assert await perform(shell, fx.Discard("process", C1, "orphan")) is None
    assert node.runs == {}
    assert await perform(shell, fx.Discard("process", C1, "orphan")) is None


async def test_what_runs_is_not_removed() -> None:
    shell = make_shell(FakeRuntime(name="process"))
    await perform(shell, start())
    assert isinstance(await perform(shell, fx.Remove("process", C1)), DiscardFailed)


async def test_a_runtime_that_is_away_is_told_apart_from_one_that_knows_nothing() -> None:
    away, here = make_shell(AwayRuntime(name="process")), make_shell(FakeRuntime(name="process"))
    assert await perform(away, fx.Wait("process", C1)) == WaitFailed(C1, "Docker does not answer")
    gone = await perform(here, fx.Wait("process", C1))
    assert isinstance(gone, WaitFailed)
    assert gone.gone
    assert await perform(away, fx.Kill("process", C1, 0.0)) == KillFailed(C1, "Docker does not answer")
    assert await perform(away, fx.Discard("process", C1)) == DiscardFailed("process", C1, "Docker does not answer")
    assert await perform(away, fx.Recover("process")) == Recovered("process", (), "Input/output error: /var/lib/x")
    assert await perform(here, fx.Recover("process")) == Recovered("process")


async def test_a_runtime_in_trouble_says_so_before_it_is_asked_what_runs() -> None:
    node = FakeNode()
    node.trouble = "Docker does not answer"
    shell = make_shell(FakeRuntime(node, name="process"))
    assert await perform(shell, fx.Recover("process")) == Recovered("process", (), "Docker does not answer")
    assert await perform(shell, fx.CheckRuntime("process")) == RuntimeChecked("process", "Docker does not answer")
    node.trouble = None
    assert await perform(shell, fx.CheckRuntime("process")) == RuntimeChecked("process")


async def test_a_port_of_the_node_is_not_held_against_a_task_while_its_runtime_is_away() -> None:
    node = FakeNode()
    shell = make_shell(FakeRuntime(node, name="process"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    by_node = fx.Probe("process", C1, 0, HealthCheck(kind=CheckKind.TCP, port=port, on_node=True), "127.0.0.1")
    by_task = fx.Probe("process", C1, 0, HealthCheck(kind=CheckKind.TCP, port=port), "127.0.0.1")
    for trouble, void in ((None, (False, False)), ("Docker does not answer", (True, False))):
        node.trouble = trouble
        found = [await perform(shell, effect) for effect in (by_node, by_task)]
        assert tuple(one.void for one in found) == void
        assert all(one.why for one in found)
    await shell.close()


async def test_a_runtime_that_is_not_enabled_is_named() -> None:
    shell = make_shell(FakeRuntime(name="process"))
    effect = start()
    other = fx.Start("docker", effect.execution)
    failed = await perform(shell, other)
    assert isinstance(failed, StartFailed)
    assert "start it with --runtime docker" in failed.why


async def test_without_a_fetcher_nothing_is_fetched() -> None:
    shell = make_shell(FakeRuntime(name="process"))
    fetched = await perform(shell, fx.Fetch(C1, "/nowhere", (Uri(value="http://x/y"),), None))
    assert isinstance(fetched, Fetched)
    assert "http://x/y" in (fetched.why or "")
    assert await perform(shell, fx.ScanSandboxes()) is None


class SlowFetcher(Fetcher):
    """Servers that never answer."""

    async def fetch(self, uris: Sequence[Uri], sandbox: str, user: str | None = None) -> None:
        await asyncio.Event().wait()


async def test_a_cancelled_fetch_tells_nothing(tmp_path: Path) -> None:
    link = Link(["127.0.0.1:9"], Random(1))
    shell = AgentShell({}, link, None, SlowFetcher(str(tmp_path / "cache")))
    begun = asyncio.ensure_future(perform(shell, fx.Fetch(C1, "/nowhere", (Uri(value="http://x/y"),), None)))
    await asyncio.sleep(0)
    assert shell.is_alive(C1)
    shell.perform(fx.CancelFetch(C1, "scaled down"))
    assert await begun is None
    assert not shell.is_alive(C1)
    await shell.close()
