"""Containers that end in time although their agent does not work any more, nor their Engine."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from docker_node import Node, eventually

from corral.docker.daemon import PrivateEngine
from corral.docker.engine import DockerEngine
from corral.docker.runtime import DockerRuntime
from corral.lib.clock import read_boot_id, steady_clock
from corral.lib.contact import ContactFile
from corral.lib.errors import Failed
from corral.model.execution import Bound, Execution
from corral.process import tree
from corral.process.guards import Guards


class GuardedNode(Node):
    """Its agent's runtime has guards."""

    def _make(self) -> DockerRuntime:
        guards = Guards(str(self.root / "guards"), self.url.removeprefix("unix://"))
        return DockerRuntime(DockerEngine(self.url), owner=str(self.root), patience_s=3.0, guards=guards)

    def bounded(self, script: str = "sleep 600", stop_after_s: float = 1.0, grace_s: float = 0.5) -> Execution:
        bound = Bound(contact=str(self.root / "contact"), stop_after_s=stop_after_s, grace_s=grace_s)
        return self.execution(script, bound=bound)

    def hear(self, ago_s: float = 0.0) -> None:
        ContactFile(str(self.root / "contact")).write(read_boot_id(), steady_clock() - ago_s)

    async def pid(self, execution: Execution) -> tuple[int, int]:
        state = (await self.inspect(execution))["State"]
        stat = tree.read_stat(state["Pid"])  # type: ignore[index]
        assert stat is not None
        return stat.pid, stat.start


@pytest.fixture
async def guarded(tmp_path: Path, private_engine: PrivateEngine) -> AsyncIterator[GuardedNode]:
    made = GuardedNode(tmp_path, private_engine.url)
    yield made
    private_engine.start()
    await made.close()
    assert not list(tmp_path.glob("guards/*")), "a guard was left behind"


async def test_a_container_whose_agent_is_silent_is_ended_by_its_guard(guarded: GuardedNode) -> None:
    guarded.hear()
    one = guarded.bounded("trap 'exit 3' TERM; while true; do sleep 0.1; done", grace_s=5.0)
    await guarded.runtime.start(one)
    exit = await asyncio.wait_for(guarded.runtime.wait(one.container_id), 20)
    assert exit.fenced
    assert exit.code == 3
    assert "no master has heard" in exit.message


async def test_the_engine_may_hang_meanwhile(guarded: GuardedNode, private_engine: PrivateEngine) -> None:
    guarded.hear()
    one = guarded.bounded()
    await guarded.runtime.start(one)
    pid, start = await guarded.pid(one)
    private_engine.signal_dockerd(signal.SIGSTOP)
    try:
        await eventually(lambda: not tree.is_same(pid, start), 8.0)
    finally:
        private_engine.signal_dockerd(signal.SIGCONT)
    exit = await asyncio.wait_for(guarded.runtime.wait(one.container_id), 60)
    assert exit.fenced


async def test_a_restarted_agent_finds_it_guarded_and_learns_of_its_end(guarded: GuardedNode) -> None:
    guarded.hear()
    one = guarded.bounded(stop_after_s=2.0)
    await guarded.runtime.start(one)
    await guarded.restart_agent()
    (found,) = await guarded.runtime.recover()
    assert found.exit is None
    began = time.monotonic()
    exit = await asyncio.wait_for(guarded.runtime.wait(one.container_id), 20)
    assert exit.fenced
    assert time.monotonic() - began < 8.0
    await guarded.restart_agent()
    (found,) = await guarded.runtime.recover()
    assert found.exit is not None
    assert found.exit.fenced


async def test_nothing_is_made_for_an_agent_that_was_stopped_for_too_long(guarded: GuardedNode) -> None:
    guarded.hear(ago_s=60.0)
    with pytest.raises(Failed, match="no master has heard"):
        await guarded.runtime.start(guarded.bounded())
    assert list(await guarded.runtime.recover()) == []
