"""Signals to commands inside containers: which one came is the command's affair, and what it leaves behind ends."""

import asyncio
from typing import Any

import pytest
from test_agent_whole import Node
from test_executors_nested import call, container, inside, node, records, stream, written

from corral.agent.nested import Nested
from corral.docker.fake_engine import FakeEngine
from corral.docker.session import DockerExec
from corral.model.ids import ContainerId

__all__ = ("node",)


async def begin(node: Node, name: str, script: str) -> dict[str, Any]:
    nested = await inside(node, name)
    assert (await call(node, "LAUNCH_NESTED_CONTAINER", container_id=nested, command={"value": script}))[0] == 200
    return nested


async def test_a_command_hears_the_signal_that_was_sent_and_ends_as_it_likes(node: Node) -> None:
    script = "trap 'echo usr1' USR1; trap 'echo term; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    nested = await begin(node, "polite", script)
    async with stream(node, "ATTACH_CONTAINER_OUTPUT", container_id=nested) as answer:
        told = records(answer)
        assert written(await anext(told)) == ("STDOUT", b"up\n")
        assert await call(node, "KILL_NESTED_CONTAINER", container_id=nested, signal=10) == (200, "")
        assert written(await anext(told)) == ("STDOUT", b"usr1\n")
        assert await call(node, "KILL_CONTAINER", container_id=nested, signal=15) == (200, "")
        assert [written(record) async for record in told] == [("STDOUT", b"term\n")]
    _, waited = await call(node, "WAIT_NESTED_CONTAINER", container_id=nested)
    assert waited["wait_nested_container"] == {"exit_status": 7 << 8}


@pytest.mark.parametrize("signal", [15, None])
async def test_what_a_command_has_started_ends_with_it_and_so_does_its_output(node: Node, signal: int | None) -> None:
    nested = await begin(node, "parent", "echo up; sleep 61; echo never")
    async with asyncio.timeout(10), stream(node, "ATTACH_CONTAINER_OUTPUT", container_id=nested) as answer:
        told = records(answer)
        assert written(await anext(told)) == ("STDOUT", b"up\n")
        given = {} if signal is None else {"signal": signal}
        assert (await call(node, "KILL_NESTED_CONTAINER", container_id=nested, **given))[0] == 200
        assert [written(record) async for record in told] == []
        _, waited = await call(node, "WAIT_NESTED_CONTAINER", container_id=nested)
    assert waited["wait_nested_container"] == {"exit_status": signal or 9}
    async with stream(node, "ATTACH_CONTAINER_OUTPUT", container_id=nested) as answer:
        assert [written(record) async for record in records(answer)] == [("STDOUT", b"up\n")], "what it wrote is kept"
    assert (await call(node, "KILL_NESTED_CONTAINER", container_id=nested))[0] == 200, "it has ended, as was asked"


async def test_a_session_tells_its_reader_of_the_end_by_a_signal(node: Node) -> None:
    nested = await inside(node, "session")
    command = {"value": "trap 'echo bye; exit 0' INT; echo up; while :; do sleep 0.05; done"}
    async with stream(node, "LAUNCH_NESTED_CONTAINER_SESSION", container_id=nested, command=command) as answer:
        told = records(answer)
        assert written(await anext(told)) == ("STDOUT", b"up\n")
        assert (await call(node, "KILL_NESTED_CONTAINER", container_id=nested, signal=2))[0] == 200
        assert [written(record) async for record in told] == [("STDOUT", b"bye\n")]
    _, waited = await call(node, "WAIT_NESTED_CONTAINER", container_id=nested)
    assert waited["wait_nested_container"] == {"exit_status": 0}


async def test_what_is_no_signal_and_what_is_no_nested_container_is_refused(node: Node) -> None:
    nested = await begin(node, "kept", "exec sleep 62")
    for signal in (0, -1, 65, "many"):
        status, text = await call(node, "KILL_NESTED_CONTAINER", container_id=nested, signal=signal)
        assert status == 400, text
        assert "kill_nested_container.signal" in text
    own = (await container(node))["container_id"]
    status, text = await call(node, "KILL_CONTAINER", container_id=own)
    assert (status, "its framework ends" in text) == (400, True)
    assert (await call(node, "KILL_CONTAINER", container_id={"value": "nobody"}))[0] == 404
    assert (await call(node, "KILL_NESTED_CONTAINER", container_id={"value": "x", "parent": own}))[0] == 404
    _, listed = await call(node, "GET_CONTAINERS", show_nested=True)
    assert nested in [row["container_id"] for row in listed["get_containers"]["containers"]], "it runs on"


async def test_a_command_that_cannot_be_reached_is_ended_by_any_signal() -> None:
    engine = FakeEngine(images=["busybox"])
    await engine.create("box", {"Image": "busybox", "Cmd": ["sleep", "60"]})
    await engine.start("box")
    nested = Nested((ContainerId("n"), ContainerId("box")), DockerExec(engine, "box", "", ["sh"], tty=False))
    await nested.start(None)
    await nested.kill(15)
    assert await nested.code == 128 + 15
