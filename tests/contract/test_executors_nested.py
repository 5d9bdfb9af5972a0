"""Commands inside the containers of a whole agent's tasks, as tools of Mesos run and watch them."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agent_master import TinyMaster, serving
from test_agent_whole import FRAMEWORK, Node, end_all
from test_executors_whole import POD, group, launch, task

from corral.mesos.recordio import RecordReader, encode
from corral.model.task import TaskState

JSON = {"Content-Type": "application/json"}
STREAM = {**JSON, "Accept": "application/recordio", "Message-Accept": "application/json"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with serving(TinyMaster()) as master:
        node = Node(tmp_path / "work", master)
        node.work_dir.mkdir()
        try:
            async with node.agent():
                node.run("t1", "echo begun; while :; do sleep 0.05; done")
                await node.master.until_state("t1", TaskState.RUNNING)
                yield node
        finally:
            await end_all(node)


async def call(node: Node, kind: str, headers: dict[str, str] = JSON, **body: Any) -> tuple[int, Any]:
    given = {"type": kind, kind.lower(): body}
    url, data = node.url + "/api/v1", json.dumps(given)
    async with aiohttp.ClientSession() as http, http.post(url, data=data, headers=headers) as answer:
        text = await answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()


async def records(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    assert answer.status == 200, await answer.text()
    reader = RecordReader()
    async for chunk in answer.content.iter_any():
        for record in reader.feed(chunk):
            yield json.loads(record)


def written(record: dict[str, Any]) -> tuple[str, bytes]:
    assert record["type"] == "DATA"
    return record["data"]["type"], base64.b64decode(record["data"]["data"])


@contextlib.asynccontextmanager
async def stream(node: Node, kind: str, **body: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    given = json.dumps({"type": kind, kind.lower(): body})
    async with aiohttp.ClientSession() as http, http.post(node.url + "/api/v1", data=given, headers=STREAM) as answer:
        yield answer


async def container(node: Node, executor: str = "t1") -> dict[str, Any]:
    """The container of a task or executor, as GET_CONTAINERS names it."""
    _, found = await call(node, "GET_CONTAINERS", show_nested=True)
    rows = found["get_containers"]["containers"]
    return next(row for row in rows if row["executor_id"]["value"] == executor)


async def inside(node: Node, name: str) -> dict[str, Any]:
    return {"value": name, "parent": (await container(node))["container_id"]}


async def test_a_session_streams_what_its_command_writes_and_its_end_can_be_asked_for(node: Node) -> None:
    script = "echo in $MESOS_TASK_ID $EXTRA; echo oops >&2; exit 3"
    variables = {"variables": [{"name": "EXTRA", "value": "more"}]}
    command = {"value": script, "environment": variables}
    nested = await inside(node, "look")
    async with stream(node, "LAUNCH_NESTED_CONTAINER_SESSION", container_id=nested, command=command) as answer:
        assert answer.headers["Content-Type"] == "application/recordio"
        assert answer.headers["Message-Content-Type"] == "application/json"
        found = [written(record) async for record in records(answer)]
    assert sorted(found) == [("STDERR", b"oops\n"), ("STDOUT", b"in t1 more\n")]
    status, waited = await call(node, "WAIT_NESTED_CONTAINER", container_id=nested)
    assert (status, waited["wait_nested_container"]) == (200, {"exit_status": 3 << 8})
    assert (await call(node, "REMOVE_NESTED_CONTAINER", container_id=nested))[0] == 200
    assert (await call(node, "WAIT_NESTED_CONTAINER", container_id=nested))[0] == 404


async def test_a_session_ends_with_its_connection(node: Node) -> None:
    nested = await inside(node, "shell")
    command = {"value": "echo up; exec sleep 60"}
    async with stream(node, "LAUNCH_NESTED_CONTAINER_SESSION", container_id=nested, command=command) as answer:
        assert written(await anext(records(answer))) == ("STDOUT", b"up\n")
        answer.close()
    status, waited = await call(node, "WAIT_NESTED_CONTAINER", container_id=nested)
    assert (status, waited["wait_nested_container"]["exit_status"]) == (200, 9)


async def test_input_goes_to_a_command_that_runs_by_itself_and_output_to_those_attached(node: Node) -> None:
    nested = await inside(node, "cat")
    command = {"value": "echo ready; cat; echo done"}
    assert await call(node, "LAUNCH_NESTED_CONTAINER", container_id=nested, command=command) == (200, "")
    assert await call(node, "LAUNCH_NESTED_CONTAINER", container_id=nested, command=command) == (202, "")
    _, listed = await call(node, "GET_CONTAINERS", show_nested=True)
    assert nested in [row["container_id"] for row in listed["get_containers"]["containers"]]
    _, listed = await call(node, "GET_CONTAINERS")
    assert len(listed["get_containers"]["containers"]) == 1

    def input(**member: Any) -> bytes:
        return encode(json.dumps({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": member}).encode())

    def typed(data: bytes) -> bytes:
        io = {"type": "DATA", "data": {"type": "STDIN", "data": base64.b64encode(data).decode()}}
        return input(type="PROCESS_IO", process_io=io)

    body = input(type="CONTAINER_ID", container_id=nested) + typed(b"hello\n") + typed(b"")
    headers = {"Content-Type": "application/recordio", "Message-Content-Type": "application/json"}
    async with stream(node, "ATTACH_CONTAINER_OUTPUT", container_id=nested) as answer:
        url = node.url + "/api/v1"
        async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as fed:
            assert fed.status == 200, await fed.text()
        out = b""
        async for record in records(answer):
            out += written(record)[1]
    assert out == b"ready\nhello\ndone\n"
    async with aiohttp.ClientSession() as http:
        wrong = input(type="CONTAINER_ID", container_id={"value": "nobody"})
        async with http.post(node.url + "/api/v1", data=wrong, headers=headers) as refused:
            assert refused.status == 404


async def test_a_running_command_is_killed_and_only_then_removed(node: Node) -> None:
    nested = await inside(node, "sleeper")
    await call(node, "LAUNCH_NESTED_CONTAINER", container_id=nested, command={"value": "exec sleep 60"})
    assert (await call(node, "REMOVE_NESTED_CONTAINER", container_id=nested))[0] == 409
    waiting = asyncio.create_task(call(node, "WAIT_CONTAINER", container_id=nested))
    await asyncio.sleep(0.05)
    assert (await call(node, "KILL_NESTED_CONTAINER", container_id=nested, signal=15))[0] == 200
    assert (await waiting)[1]["wait_container"] == {"exit_status": 15}
    assert (await call(node, "REMOVE_CONTAINER", container_id=nested))[0] == 200
    for kind in ("KILL_NESTED_CONTAINER", "REMOVE_NESTED_CONTAINER", "WAIT_NESTED_CONTAINER"):
        assert (await call(node, kind, container_id=nested))[0] == 404


async def test_a_terminal_has_the_size_that_was_asked_for(node: Node) -> None:
    nested = await inside(node, "tty")
    tty = {"type": "MESOS", "tty_info": {"window_size": {"rows": 12, "columns": 34}}}
    command = {"value": "stty size"}
    async with stream(
        node, "LAUNCH_NESTED_CONTAINER_SESSION", container_id=nested, command=command, container=tty
    ) as a:
        out = b"".join([written(record)[1] async for record in records(a)])
    assert out == b"12 34\r\n"


async def test_the_output_of_a_task_itself_is_followed_from_now_on(node: Node) -> None:
    node.run("talker", "echo old; sleep 0.6; echo new; echo bad >&2; sleep 0.2")
    await node.master.until_state("talker", TaskState.RUNNING)
    await asyncio.sleep(0.2)
    own = (await container(node, "talker"))["container_id"]
    async with stream(node, "ATTACH_CONTAINER_OUTPUT", container_id=own) as answer:
        found = [written(record) async for record in records(answer)]
    assert sorted(found) == [("STDERR", b"bad\n"), ("STDOUT", b"new\n")]


async def test_what_is_written_once_an_attachment_has_been_answered_is_told(node: Node) -> None:
    own = (await container(node))["container_id"]
    runs = next(node.work_dir.glob("slaves/*/frameworks/*/executors/t1/runs/latest"))
    for number in range(20):
        word = f"word {number}\n".encode()
        async with stream(node, "ATTACH_CONTAINER_OUTPUT", container_id=own) as answer:
            with (runs / "stderr").open("ab") as file:
                file.write(word)
            async with asyncio.timeout(5):
                assert written(await anext(records(answer))) == ("STDERR", word)
        url, query = f"{node.url}/corral/v1/tasks/t1/logs", {"stream": "stderr", "follow": "true", "lines": "0"}
        async with aiohttp.ClientSession() as http, http.get(url, params=query) as followed:
            with (runs / "stderr").open("ab") as file:
                file.write(word)
            async with asyncio.timeout(5):
                assert await followed.content.readline() == word


async def test_the_containers_of_executors_and_of_groups_are_listed_with_what_is_around_them(node: Node) -> None:
    group(node, task("a", "sleep 60", POD))
    launch(node, task("x", "sleep 60"), starts=True)
    for task_id in ("a", "x"):
        await node.master.until_state(task_id, TaskState.RUNNING)
    _, found = await call(node, "GET_CONTAINERS", show_nested=True)
    rows = {
        (r["executor_id"]["value"], "parent" in r["container_id"]): r for r in found["get_containers"]["containers"]
    }
    assert set(rows) == {("e", False), ("pod", False), ("pod", True), ("t1", False)}
    assert rows["pod", True]["container_id"]["parent"] == rows["pod", False]["container_id"]
    assert rows["e", False]["container_status"]["executor_pid"] > 0
    used = rows["e", False]["resource_statistics"]
    assert (used["cpus_limit"], used["mem_limit_bytes"]) == (0.2, 128 << 20)
    assert used["mem_rss_bytes"] > 0
    assert rows["pod", False]["resource_statistics"]["mem_rss_bytes"] > 0, "what its tasks use"
    assert rows["e", False]["framework_id"] == {"value": FRAMEWORK}
    member = {"value": "look", "parent": rows["pod", True]["container_id"]}
    async with stream(
        node, "LAUNCH_NESTED_CONTAINER_SESSION", container_id=member, command={"value": "echo $MESOS_TASK_ID"}
    ) as answer:
        assert [written(r) async for r in records(answer)] == [("STDOUT", b"a\n")]
    for path in ("/containers", "/monitor/statistics"):
        listed = {row["executor_id"]: row for row in await node.json(path)}
        assert set(listed) == {"e", "pod", "t1"}
        assert listed["pod"]["statistics"]["mem_rss_bytes"] > 0
    every = await node.json("/slave(1)/containers", show_nested="true")
    assert sorted(row["executor_id"] for row in every) == ["e", "pod", "pod", "t1"]
    own = rows["pod", False]["container_id"]["value"]
    (chosen,) = await node.json("/containers", container_id=own)
    assert (chosen["container_id"], chosen["executor_id"]) == (own, "pod")
    executor = {"value": "look", "parent": rows["pod", False]["container_id"]}
    assert (await call(node, "LAUNCH_NESTED_CONTAINER", container_id=executor, command={"value": "true"}))[0] == 400


async def test_calls_that_cannot_be_meant_are_refused(node: Node) -> None:
    parent = (await container(node))["container_id"]
    good: dict[str, Any] = {"container_id": {"value": "n", "parent": parent}, "command": {"value": "true"}}
    cases: list[tuple[dict[str, Any], int]] = [
        ({"command": {"value": "true"}}, 400),
        ({**good, "command": None}, 400),
        ({**good, "command": {"value": ""}}, 400),
        ({**good, "command": {"value": "a\0b"}}, 400),
        ({**good, "command": {"value": "a", "user": "root"}}, 400),
        ({**good, "command": {"value": "a", "uris": [{"value": "/x"}]}}, 400),
        ({**good, "container": {"type": "DOCKER", "docker": {"image": "x"}}}, 400),
        ({**good, "container_id": {"value": "a.b", "parent": parent}}, 400),
        ({**good, "container_id": {"value": "a/b", "parent": parent}}, 400),
        ({**good, "container_id": {"value": "x" * 243, "parent": parent}}, 400),
        ({**good, "container_id": {"value": "n", "parent": {**parent, "parent": {"value": "other"}}}}, 400),
        ({**good, "container_id": {"value": "n", "parent": {"value": "unknown"}}}, 404),
        ({**good, "container_id": {"value": "alone"}}, 400),
    ]
    for body, status in cases:
        found = await call(node, "LAUNCH_NESTED_CONTAINER", **body)
        assert found[0] == status, (body, found)
    assert (await call(node, "LAUNCH_NESTED_CONTAINER"))[0] == 400
    assert (await call(node, "ATTACH_CONTAINER_OUTPUT", container_id={"value": "unknown"}))[0] == 404
    assert (await call(node, "ATTACH_CONTAINER_INPUT", container_id=parent))[0] == 415
    assert (await call(node, "PRUNE_IMAGES"))[0] == 501
    assert (await call(node, "GET_CONTAINERS", {}))[0] in (400, 415)
    assert (await call(node, "GET_CONTAINERS", {"Content-Type": "text/plain"}))[0] == 415
    for media in ("application/json", "application/recordio"):
        broken = {"Content-Type": media, "Content-Encoding": "gzip"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(node.url + "/api/v1", data=b"no gzip", headers=broken) as bad,
        ):
            assert (bad.status, "encoded" in await bad.text()) == (400, True)
    for kind in ("WAIT_NESTED_CONTAINER", "KILL_NESTED_CONTAINER", "REMOVE_NESTED_CONTAINER"):
        assert await call(node, kind, container_id=parent) == (
            400, f"Failed to validate agent::Call: Expecting '{kind.lower()}.container_id.parent' to be present",
        )  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["GET_CONTAINERS", "LAUNCH_NESTED_CONTAINER", "LAUNCH_NESTED_CONTAINER_SESSION", "ATTACH_CONTAINER_OUTPUT",
             "GET_HEALTH"]
)  # fmt: skip
@pytest.mark.parametrize(
    ("headers", "whole", "streamed"),
    [
        ({"Accept": "text/html"}, 406, 406),
        ({"Accept": "application/json;q=0"}, 406, 406),
        ({"Accept": "application/json;q=0, */*"}, 406, 200),
        ({"Accept": "application/x-protobuf"}, 406, 406),
        ({"Accept": "text/html, application/json;q=0.1"}, 200, 200),
        ({"Accept": "application/recordio", "Message-Accept": "application/x-protobuf"}, 406, 406),
        ({"Accept": "application/json", "Message-Accept": "application/json;q=0"}, 200, 406),
    ],
)
async def test_an_answer_that_is_not_accepted_is_not_given_and_nothing_is_done(
    node: Node, kind: str, headers: dict[str, str], whole: int, streamed: int
) -> None:
    own = (await container(node))["container_id"]
    id = {"value": "n", "parent": own} if kind.startswith("LAUNCH") else own
    streams = kind in ("LAUNCH_NESTED_CONTAINER_SESSION", "ATTACH_CONTAINER_OUTPUT")
    body = json.dumps({"type": kind, kind.lower(): {"container_id": id, "command": {"value": "true"}}})
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Accept"]) as http,
        http.post(node.url + "/api/v1", data=body, headers={**JSON, **headers}) as answer,
    ):
        assert answer.status == (streamed if streams else whole)
        if answer.status == 406:
            assert answer.content_type == "text/plain"
            _, listed = await call(node, "GET_CONTAINERS", show_nested=True)
            assert len(listed["get_containers"]["containers"]) == 1
