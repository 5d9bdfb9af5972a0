"""What the docker runtime relies on, of a real Engine and of the fake one."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from corral.docker.engine import DockerEngine, Engine, Json
from corral.docker.fake_engine import FakeEngine
from corral.docker.pause import holder_tar
from corral.docker.registry import make_header
from corral.docker.stream import LogReader, Position
from corral.lib.errors import Conflict, CorralError, Failed, NotFound, Unavailable

LATE = b"9999-01-01T00:00:00.000000000Z"


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    made: Engine = DockerEngine(request.getfixturevalue("engine_socket")) if request.param == "docker" else FakeEngine()
    yield made
    for entry in await made.list_labelled("corral.contract", "yes"):
        await made.remove(entry["Id"], force=True)
    await made.close()


def body(script: str, **changes: object) -> Json:
    plain: Json = {
        "Image": "busybox:latest",
        "Entrypoint": ["/bin/sh"],
        "Cmd": ["-c", script],
        "Labels": {"corral.contract": "yes"},
        "HostConfig": {"NetworkMode": "none"},
    }
    return plain | changes


async def launch(engine: Engine, script: str) -> str:
    name = f"contract-{uuid.uuid4()}"
    await engine.create(name, body(script))
    await engine.start(name)
    return name


async def text_of(engine: Engine, name: str, **how: object) -> tuple[bytes, bytes]:
    reader, out, err = LogReader(Position()), b"", b""
    async for chunk in engine.logs(name, **how):  # type: ignore[arg-type]
        more_out, more_err = reader.feed(chunk, LATE)
        out, err = out + more_out, err + more_err
    return out, err


async def test_an_engine_answers_and_says_its_version(engine: Engine) -> None:
    await engine.ping()
    assert (await engine.version())["ApiVersion"]


async def test_images_are_there_or_not(engine: Engine) -> None:
    assert await engine.image_exists("busybox:latest")
    assert not await engine.image_exists("127.0.0.1:9/none:1")
    with pytest.raises(Failed):
        await engine.pull("127.0.0.1:9/none:1")


async def test_an_image_is_made_of_a_file_system_and_says_where_programs_start(engine: Engine) -> None:
    name = f"corral-contract-{uuid.uuid4().hex[:12]}:1"
    with pytest.raises(NotFound, match="No such image"):
        await engine.directory_of(name)
    await engine.load(name, holder_tar("amd64"))
    try:
        assert await engine.image_exists(name)
        assert await engine.directory_of(name) == ""
    finally:
        if isinstance(engine, DockerEngine):
            await engine._call("DELETE", f"images/{name}", 10.0)
    with pytest.raises(CorralError):
        await engine.load("Not A Name:1", holder_tar("amd64"))


async def test_the_network_of_another_container_is_joined_while_that_runs(engine: Engine) -> None:
    owner = f"contract-{uuid.uuid4()}"
    await engine.create(owner, body("sleep 60", HostConfig={"NetworkMode": "bridge"}))
    joined = f"contract-{uuid.uuid4()}"
    await engine.create(joined, body("sleep 60", HostConfig={"NetworkMode": f"container:{owner}"}))
    with pytest.raises(CorralError, match="non running container"):
        await engine.start(joined)
    await engine.start(owner)
    await engine.start(joined)
    networks = (await engine.inspect(joined))["NetworkSettings"]["Networks"]
    assert not networks


async def test_a_container_of_a_missing_image_is_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound, match="No such image"):
        await engine.create(f"contract-{uuid.uuid4()}", body("true", Image="127.0.0.1:9/none:1"))


async def test_a_name_is_given_once(engine: Engine) -> None:
    name = await launch(engine, "sleep 60")
    with pytest.raises(Conflict):
        await engine.create(name, body("true"))


async def test_a_container_is_given_one_more_network_before_it_starts(engine: Engine) -> None:
    name, network = f"contract-{uuid.uuid4()}", f"corral-{uuid.uuid4().hex[:12]}"
    if isinstance(engine, DockerEngine):
        await engine._call("POST", "networks/create", 10.0, None, {"Name": network})
        first = "bridge"
    else:
        assert isinstance(engine, FakeEngine)
        engine.networks.add(network)
        first = "none"
    try:
        await engine.create(name, body("sleep 60", HostConfig={"NetworkMode": first}))
        await engine.connect(name, network)
        assert network in (await engine.inspect(name))["NetworkSettings"]["Networks"]
        await engine.start(name)
        assert network in (await engine.inspect(name))["NetworkSettings"]["Networks"]
        await engine.remove(name, force=True)
        await engine.create(name, body("sleep 60", HostConfig={"NetworkMode": first}))
        with pytest.raises((NotFound, Failed), match="not found"):  # noqa: PT012 - Engines say so sooner or later
            await engine.connect(name, f"{network}-not")
            await engine.start(name)
        await engine.remove(name, force=True)
    finally:
        if isinstance(engine, DockerEngine):
            await engine._call("DELETE", f"networks/{network}", 10.0)


async def test_the_life_of_a_container_shows_in_its_state(engine: Engine) -> None:
    name = f"contract-{uuid.uuid4()}"
    made = await engine.create(name, body("exit 3"))
    state = (await engine.inspect(name))["State"]
    assert (state["Status"], state["Running"], state["StartedAt"][:4]) == ("created", False, "0001")
    await engine.start(made)
    await engine.wait(name, 20.0)
    state = (await engine.inspect(made))["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 3)
    # A real Engine may notice the end of a brief one before it notes its start.
    assert state["StartedAt"] > "2000"
    assert state["FinishedAt"] > "2000"


async def test_a_second_start_changes_nothing(engine: Engine) -> None:
    name = await launch(engine, "sleep 60")
    pid = (await engine.inspect(name))["State"]["Pid"]
    await engine.start(name)
    assert (await engine.inspect(name))["State"]["Pid"] == pid


async def test_a_missing_program_fails_the_start_and_leaves_what_never_ran(engine: Engine) -> None:
    name = f"contract-{uuid.uuid4()}"
    await engine.create(name, body("", Entrypoint=["no-such-program"], Cmd=[]))
    with pytest.raises(CorralError, match='exec: "no-such-program": executable file not found'):
        await engine.start(name)
    assert (await engine.inspect(name))["State"]["StartedAt"].startswith("0001-")


async def test_waiting_for_what_runs_ends_in_time(engine: Engine) -> None:
    name = await launch(engine, "sleep 60")
    with pytest.raises(Unavailable, match=r"does not answer within 0.2 s"):
        await engine.wait(name, 0.2)


async def test_a_killed_container_shows_the_signal_in_its_code(engine: Engine) -> None:
    name = await launch(engine, "sleep 60")
    await engine.kill(name, "SIGKILL")
    await engine.wait(name, 20.0)
    assert (await engine.inspect(name))["State"]["ExitCode"] == 137
    with pytest.raises(Conflict, match="not running"):
        await engine.kill(name, "SIGKILL")


async def test_what_runs_is_removed_by_force_alone(engine: Engine) -> None:
    name = await launch(engine, "sleep 60")
    with pytest.raises(Conflict):
        await engine.remove(name, force=False)
    await engine.remove(name, force=True)
    with pytest.raises(NotFound):
        await engine.inspect(name)
    with pytest.raises(NotFound):
        await engine.remove(name, force=True)


async def test_nothing_is_known_of_what_was_never_made(engine: Engine) -> None:
    for call in (engine.inspect("none"), engine.start("none"), engine.kill("none", "SIGKILL"), engine.wait("none", 5)):
        with pytest.raises(NotFound):
            await call


async def test_containers_are_found_by_their_label(engine: Engine) -> None:
    name = f"contract-{uuid.uuid4()}"
    made = await engine.create(name, body("true", Labels={"corral.contract": "yes", "corral.name": name}))
    assert [entry["Id"] for entry in await engine.list_labelled("corral.name", name)] == [made]
    assert await engine.list_labelled("corral.name", "other") == []


async def test_a_log_holds_both_streams_apart_and_ends(engine: Engine) -> None:
    name = await launch(engine, "echo one; echo two >&2; echo three")
    await engine.wait(name, 20.0)
    assert await text_of(engine, name) == (b"one\nthree\n", b"two\n")
    assert await text_of(engine, name, tail=1) in ((b"three\n", b""), (b"", b"two\n"))
    assert await text_of(engine, name, follow=True) == (b"one\nthree\n", b"two\n")
    assert await text_of(engine, name, since="4000000000.000000000") == (b"", b"")


async def test_a_followed_log_ends_with_its_container(engine: Engine) -> None:
    name = await launch(engine, "echo up; sleep 60")
    following = asyncio.create_task(text_of(engine, name, follow=True))
    await asyncio.wait([following], timeout=0.3)
    assert not following.done()
    await engine.kill(name, "SIGKILL")
    assert await asyncio.wait_for(following, 20) == (b"up\n", b"")


async def test_a_further_command_tells_its_output_and_code(engine: Engine) -> None:
    name = await launch(engine, "sleep 60")
    stream = await engine.exec(name, ["/bin/sh", "-c", "echo out; exit 4"], tty=False)
    said = []
    while (piece := await stream.read()) is not None:
        said.append(piece)
    assert said == [("stdout", b"out\n")]
    assert (await stream.inspect())["ExitCode"] == 4
    await stream.close()


async def test_no_command_runs_in_what_has_ended(engine: Engine) -> None:
    name = await launch(engine, "exit 0")
    await engine.wait(name, 20.0)
    with pytest.raises(Conflict):
        await engine.exec(name, ["true"], tty=False)


async def test_limits_can_be_changed(engine: Engine) -> None:
    name = await launch(engine, "sleep 60")
    await engine.update(name, {"CpuShares": 512})
    assert (await engine.inspect(name))["HostConfig"]["CpuShares"] == 512
    assert "memory_stats" in await engine.stats(name)


async def test_an_engine_that_is_not_there_is_unavailable(tmp_path: object) -> None:
    engine = DockerEngine(f"unix://{tmp_path}/none.sock")
    for call in (engine.ping(), engine.inspect("x"), engine.pull("x"), text_of(engine, "x")):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await call
    await engine.close()


async def test_a_pull_shows_its_credentials_to_the_engine_alone() -> None:
    seen: list[tuple[str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("X-Registry-Auth")))
        return web.json_response({"ApiVersion": "1.41", "MinAPIVersion": "1.24"})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine = DockerEngine(f"tcp://127.0.0.1:{runner.addresses[0][1]}")
    try:
        await engine.pull("own/app:1", "c2VjcmV0")
        await engine.pull("own/app:1")
    finally:
        await engine.close()
        await runner.cleanup()
    assert seen == [("/version", None), ("/v1.41/images/create", "c2VjcmV0"), ("/v1.41/images/create", None)]


@pytest.mark.docker
async def test_a_registry_is_shown_what_docker_login_has_written(engine_socket: str) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        if seen[-1] is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="own"'})
        return web.Response(status=200 if request.path == "/v2/" else 404)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    registry = f"127.0.0.1:{runner.addresses[0][1]}"
    login = {"auths": {f"http://{registry}/v2/": {"auth": base64.b64encode(b"u:p").decode()}}}
    engine = DockerEngine(engine_socket)
    try:
        with pytest.raises(CorralError):
            await engine.pull(f"{registry}/own/app:1")
        assert set(seen) == {None}
        with pytest.raises(CorralError):
            await engine.pull(
                f"{registry}/own/app:1", make_header(f"{registry}/own/app:1", json.dumps(login).encode(), "x")
            )
    finally:
        await engine.close()
        await runner.cleanup()
    assert "Basic " + base64.b64encode(b"u:p").decode() in seen
