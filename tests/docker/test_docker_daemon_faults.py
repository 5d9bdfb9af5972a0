"""The daemon hangs, dies and comes back; healthy tasks do not notice, and no exit is lost."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
from docker_node import Node, eventually, read

from corral.docker.daemon import PrivateEngine
from corral.docker.engine import DockerEngine
from corral.docker.runtime import DockerRuntime
from corral.lib.errors import Failed

pytestmark = pytest.mark.docker


async def test_exits_while_the_daemon_is_away_are_learned(own_node: Node, private_engine: PrivateEngine) -> None:
    brief = own_node.execution("trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done")
    lasting = own_node.execution("i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done")
    for execution in (brief, lasting):
        await own_node.runtime.start(execution)
    waiting = asyncio.create_task(own_node.runtime.wait(brief.container_id))
    await eventually(lambda: "up" in read(brief) and "5\n" in read(lasting))
    await asyncio.to_thread(private_engine.kill_dockerd)
    await own_node.runtime.kill(brief.container_id, 10.0)  # past the daemon
    await asyncio.sleep(0.5)
    private_engine.start_dockerd()
    exit = await asyncio.wait_for(waiting, 40)
    assert (exit.code, exit.signal) == (3, None)
    assert exit.at <= time.time()
    before = len(read(lasting))
    await eventually(lambda: len(read(lasting)) > before + 10)
    numbers = [int(line) for line in read(lasting).splitlines(keepends=True) if line.endswith("\n")]
    assert numbers == list(range(1, len(numbers) + 1))
    await own_node.runtime.kill(lasting.container_id, 0.0)
    assert (await own_node.runtime.wait(lasting.container_id)).signal == 9


async def test_the_last_words_of_a_task_that_ends_while_the_daemon_is_away_are_kept(
    own_node: Node, private_engine: PrivateEngine
) -> None:
    execution = own_node.execution(
        "trap 'echo last words; echo and these >&2; exit 3' TERM; echo first; while :; do sleep 0.05; done"
    )
    await own_node.runtime.start(execution)
    await eventually(lambda: "first" in read(execution))
    await asyncio.to_thread(private_engine.kill_dockerd)
    await own_node.runtime.kill(execution.container_id, 10.0)
    await asyncio.sleep(0.3)
    private_engine.start_dockerd()
    assert (await asyncio.wait_for(own_node.runtime.wait(execution.container_id), 40)).code == 3
    assert (read(execution), read(execution, "stderr")) == ("first\nlast words\n", "and these\n")


async def test_the_pipes_of_a_task_that_ends_with_the_daemon_there_hold_nothing_back(own_node: Node) -> None:
    said, exit = await own_node.run("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; exit 2")
    assert exit.code == 2
    assert said == "".join(f"{number}\n" for number in range(1, 3001))


async def test_a_daemon_that_is_upgraded_with_its_containerd_ends_and_misses_nothing(
    own_node: Node, private_engine: PrivateEngine
) -> None:
    brief = own_node.execution("trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done")
    lasting = own_node.execution("i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done")
    for execution in (brief, lasting):
        await own_node.runtime.start(execution)
    waiting = [asyncio.create_task(own_node.runtime.wait(one.container_id)) for one in (brief, lasting)]
    await eventually(lambda: "up" in read(brief) and "5\n" in read(lasting))
    # As a package's scripts do it: both stop in order, their files are replaced, both start.
    await asyncio.to_thread(private_engine.kill_dockerd, signal.SIGTERM)
    await asyncio.to_thread(private_engine.kill_containerd, signal.SIGTERM)
    await own_node.runtime.kill(brief.container_id, 10.0)
    await asyncio.to_thread(private_engine.start)
    assert (await asyncio.wait_for(waiting[0], 60)).code == 6
    before = len(read(lasting))
    await eventually(lambda: len(read(lasting)) > before + 10)
    numbers = [int(line) for line in read(lasting).splitlines(keepends=True) if line.endswith("\n")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert not waiting[1].done()
    again = own_node.execution("exit 0")
    await own_node.runtime.start(again)
    assert (await own_node.runtime.wait(again.container_id)).code == 0
    await own_node.runtime.kill(lasting.container_id, 0.0)
    assert (await asyncio.wait_for(waiting[1], 30)).signal == 9


async def test_an_agent_that_restarts_together_with_the_daemon_learns_the_exit(
    own_node: Node, private_engine: PrivateEngine
) -> None:
    execution = own_node.execution("sleep 0.7; exit 4")
    await own_node.runtime.start(execution)
    await asyncio.to_thread(private_engine.kill_dockerd)
    await own_node.restart_agent()
    await asyncio.sleep(1.0)
    private_engine.start_dockerd()
    found = await own_node.runtime.recover()
    assert [one.container_id for one in found] == [execution.container_id]
    assert (await asyncio.wait_for(own_node.runtime.wait(execution.container_id), 20)).code == 4


async def test_a_hanging_daemon_hangs_nobody(own_node: Node, private_engine: PrivateEngine) -> None:
    running = own_node.execution("trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
    await own_node.runtime.start(running)
    await eventually(lambda: "up" in read(running))
    refused = own_node.execution()
    private_engine.signal_dockerd(signal.SIGSTOP)
    try:
        why = await asyncio.wait_for(own_node.runtime.ready(), 6)
        assert why is not None
        assert "does not answer within 3 s" in why
        assert "restart the Docker daemon" in why
        with pytest.raises(Failed, match="does not answer"):
            await asyncio.wait_for(own_node.runtime.start(refused), 30)
        await asyncio.wait_for(own_node.runtime.kill(running.container_id, 20.0), 30)
    finally:
        private_engine.signal_dockerd(signal.SIGCONT)
    assert (await asyncio.wait_for(own_node.runtime.wait(running.container_id), 30)).code == 0
    await eventually_gone(own_node, refused.container_id)


async def eventually_gone(node: Node, container_id: str) -> None:
    """What the Engine made of a start that was given up is removed, even if it makes it late."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        there = await node.runtime.engine.list_labelled("corral.container", container_id)
        if not there:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the container of a start that failed is still there")


async def test_a_start_waits_for_a_daemon_that_is_just_restarting(
    own_node: Node, private_engine: PrivateEngine
) -> None:
    await asyncio.to_thread(private_engine.kill_dockerd)
    execution = own_node.execution("exit 0")
    starting = asyncio.create_task(own_node.runtime.start(execution))
    await asyncio.sleep(0.3)
    private_engine.start_dockerd()
    await asyncio.wait_for(starting, 30)
    assert (await own_node.runtime.wait(execution.container_id)).code == 0


async def test_a_daemon_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    runtime = DockerRuntime(DockerEngine(f"unix://{tmp_path}/none.sock"), owner="x")
    why = await runtime.ready()
    assert why is not None
    assert f"{tmp_path}/none.sock does not exist" in why
    assert "--docker-host" in why
    await runtime.close()


async def test_a_daemon_that_has_died_is_said_to_be(own_node: Node, private_engine: PrivateEngine) -> None:
    await asyncio.to_thread(private_engine.kill_dockerd)
    why = await own_node.runtime.ready()
    assert why is not None
    assert "cannot be reached" in why
    assert "start the Docker daemon" in why


@pytest.mark.slow
async def test_an_end_that_docker_never_notices_is_told_by_the_kernel(
    own_node: Node, private_engine: PrivateEngine
) -> None:
    execution = own_node.execution("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")
    await own_node.runtime.start(execution)
    await eventually(lambda: "up" in read(execution))
    await asyncio.to_thread(private_engine.kill_containerd)
    await own_node.runtime.kill(execution.container_id, 10.0)
    exit = await asyncio.wait_for(own_node.runtime.wait(execution.container_id), 90)
    assert exit.code in (5, None)
    assert "Docker" in exit.message
    await asyncio.to_thread(private_engine.kill_dockerd)
    await asyncio.to_thread(private_engine.start)
