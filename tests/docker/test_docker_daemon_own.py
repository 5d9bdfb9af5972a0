"""An Engine of one's own comes up, is spoken to, and leaves nothing behind."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from docker_node import Node, read

from corral.docker.daemon import PrivateEngine, sweep
from corral.docker.image import engine_answers, engine_call, import_busybox
from corral.lib.errors import Failed

pytestmark = pytest.mark.docker


@pytest.fixture
def directory(private_engine: PrivateEngine) -> Iterator[Path]:
    """A place with a name short enough for sockets; asking for the session's Engine has made sure one can be run."""
    with tempfile.TemporaryDirectory(prefix="corral-own-") as made:
        yield Path(made)
    assert leftovers(made) == []


def leftovers(directory: str) -> list[str]:
    """What on this machine still bears the name of the directory: processes and mounts."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if directory in line]
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace")
            if directory in command and int(name) != os.getpid():
                found.append(command)
    return found


def bearers_of(name: str) -> list[str]:
    """The bridge and the cgroups of this name."""
    return sorted(str(path) for top in ("/sys/class/net", "/sys/fs/cgroup") for path in [
        *Path(top).glob(name), *Path(top).glob(f"*/{name}")
    ])  # fmt: skip


def test_an_engine_ends_with_everything_it_made(directory: Path) -> None:
    engine = PrivateEngine(directory / "e")
    engine.start()
    name = engine.name
    assert f"/sys/class/net/{name}" in bearers_of(name)
    import_busybox(engine.url, ("busybox:latest",))
    body = b'{"Image":"busybox:latest","Cmd":["sleep","600"]}'
    headers = {"Content-Type": "application/json"}
    engine_call(engine.url, "POST", "/containers/create?name=left", body, headers)
    engine_call(engine.url, "POST", "/containers/left/start")
    engine.kill_dockerd()
    engine.stop()
    engine.stop()
    assert not engine_answers(engine.url)
    assert bearers_of(name) == []
    assert not (directory / "e").exists()


def test_an_engine_whose_starter_died_is_swept_away_and_a_living_ones_is_not(directory: Path) -> None:
    command = [sys.executable, "-m", "corral.docker.daemon", "up", str(directory / "dead-1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert engine_answers(done.stdout.strip())
    living = PrivateEngine(directory / "dead-2")
    living.start()
    sweep(directory, "dead-")
    assert not engine_answers(done.stdout.strip())
    assert engine_answers(living.url)
    living.stop()


def test_the_commands_start_and_end_an_engine(directory: Path) -> None:
    command = [sys.executable, "-m", "corral.docker.daemon"]
    up = subprocess.run([*command, "up", str(directory / "e")], capture_output=True, text=True, timeout=60)
    assert (up.returncode, up.stderr) == (0, "")
    assert b"busybox:latest" in engine_call(up.stdout.strip(), "GET", "/images/json")
    down = subprocess.run([*command, "down", str(directory / "e")], capture_output=True, text=True, timeout=60)
    assert (down.returncode, down.stderr) == (0, "")
    assert subprocess.run([*command, "sideways"], capture_output=True).returncode == 2


def test_a_directory_too_long_for_a_socket_is_refused_before_anything_starts(directory: Path) -> None:
    with pytest.raises(Failed, match="choose a shorter one"):
        PrivateEngine(directory / ("x" * 100)).start()


@pytest.fixture
async def over_tcp(private_engine: PrivateEngine) -> AsyncIterator[str]:
    """The Engine behind a TCP port, as on another machine."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(private_engine.socket))
        with contextlib.suppress(OSError):
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        inner_writer.close()
        writer.close()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.write_eof()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_an_engine_on_another_machine_serves_as_well(over_tcp: str, tmp_path: Path) -> None:
    node = Node(tmp_path, over_tcp)
    assert await node.runtime.ready() is None
    said, exit = await node.run("echo far; exit 3")
    assert (said, exit.code) == ("far\n", 3)
    execution = node.execution("echo up; sleep 600")
    await node.runtime.start(execution)
    async with node.runtime.exec(execution.container_id, ["cat"], tty=False) as session:
        await session.write(b"typed")
        await session.write(b"")
        assert [piece async for piece in session.output()] == [("stdout", b"typed")]
    await node.runtime.kill(execution.container_id, 0.2)
    assert (await node.runtime.wait(execution.container_id)).signal == 9
    assert read(execution) == "up\n"
    await node.close()
