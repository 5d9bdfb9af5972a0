"""One suite for everything that can run a task: what the agent relies on, whatever is underneath.

A `World` outlives the runtimes looking at it, as a node outlives its agent: `runtime()` is the present agent's, and
`restart()` puts another in its place.
"""

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from corral.agent.runtimes import TaskRuntime
from corral.docker.engine import DockerEngine
from corral.docker.fake import FakeNode, FakeRuntime
from corral.docker.runtime import DockerRuntime
from corral.lib.errors import CorralError, Failed, NotFound
from corral.model.container import DockerInfo, PortMapping
from corral.model.execution import Execution, Exit, Found, SharedNetwork
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.process.runtime import ProcessRuntime

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class World:
    """One node as a runtime sees it."""

    def __init__(self, root: Path, make: Callable[[], TaskRuntime], image: str | None = None) -> None:
        self.root = root
        self._make = make
        self._image = image
        self._runtime = make()
        self._started: list[str] = []

    @property
    def runtime(self) -> TaskRuntime:
        return self._runtime

    async def restart(self) -> TaskRuntime:
        """The agent stops, and a new one takes over."""
        await self._runtime.close()
        self._runtime = self._make()
        return self._runtime

    def execution(self, script: str, **changes: object) -> Execution:
        """A run of a shell script in a sandbox of its own."""
        container_id = ContainerId(f"t-{uuid.uuid4()}")
        sandbox = self.root / container_id
        sandbox.mkdir()
        self._started.append(container_id)
        wanted: dict[str, object] = {
            "container_id": container_id,
            "task_id": TaskId(f"task-{container_id}"),
            "framework_id": FrameworkId("framework"),
            "sandbox": str(sandbox),
            "argv": ("/bin/sh", "-c", script),
            "environment": (("PATH", PATH), ("MESOS_SANDBOX", str(sandbox))),
            "docker": DockerInfo(image=self._image) if self._image else None,
        }
        return Execution(**{**wanted, **changes})  # type: ignore[arg-type]

    async def run(self, script: str, **changes: object) -> tuple[Execution, Exit]:
        execution = self.execution(script, **changes)
        await self.runtime.start(execution)
        return execution, await self.runtime.wait(execution.container_id)

    async def close(self) -> None:
        for container_id in self._started:
            await self._runtime.kill(container_id, 0.0)
            with contextlib.suppress(CorralError):
                await self._runtime.remove(container_id)
        assert [found.container_id for found in await self._runtime.recover()] == []
        await self._runtime.close()


def make_process(root: Path) -> Callable[[], TaskRuntime]:
    return lambda: ProcessRuntime(str(root / "state"))


def make_process_without_cgroups(root: Path) -> Callable[[], TaskRuntime]:
    return lambda: ProcessRuntime(str(root / "state"), cgroup_parent="")


def make_fake(root: Path) -> Callable[[], TaskRuntime]:
    node = FakeNode()
    return lambda: FakeRuntime(node)


MAKERS: dict[str, Callable[[Path], Callable[[], TaskRuntime]]] = {
    "process": make_process,
    "process-without-cgroups": make_process_without_cgroups,
    "fake": make_fake,
}
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
REAL = ["process", "process-without-cgroups", DOCKER]


async def make_world(kind: str, root: Path, engine: str = "") -> AsyncIterator[World]:
    if kind == "docker":
        world = World(root, lambda: DockerRuntime(DockerEngine(engine), owner=str(root)), image="busybox:latest")
    else:
        world = World(root, MAKERS[kind](root))
    try:
        yield world
    finally:
        await world.close()


def engine_for(request: pytest.FixtureRequest) -> str:
    """The URL of a real Engine, started only for those who need it."""
    return str(request.getfixturevalue("engine_socket")) if request.param == "docker" else ""


@pytest.fixture(params=[*MAKERS, DOCKER])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async for made in make_world(request.param, tmp_path, engine_for(request)):
        yield made


@pytest.fixture(params=REAL)
async def real_world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Only what runs real commands."""
    async for made in make_world(request.param, tmp_path, engine_for(request)):
        yield made


def output(execution: Execution, name: str = "stdout") -> str:
    return (Path(execution.sandbox) / name).read_text()


async def eventually(check: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        await asyncio.sleep(0.02)


def says(execution: Execution, word: str) -> Callable[[], bool]:
    path = Path(execution.sandbox) / "stdout"
    return lambda: path.exists() and word in path.read_text()


def only(found: list[Found] | tuple[Found, ...], container_id: str) -> Found:
    (match,) = [f for f in found if f.container_id == container_id]
    return match


# What even a fake must keep.


async def test_a_ready_runtime_has_nothing_to_say(world: World) -> None:
    assert await world.runtime.ready() is None


async def test_a_command_that_succeeds_exits_with_zero(world: World) -> None:
    before = time.time()
    execution, exit = await world.run("exit 0")
    assert (exit.container_id, exit.code, exit.signal, exit.oom) == (execution.container_id, 0, None, False)
    assert before - 2 <= exit.at <= time.time() + 2


async def test_the_exit_code_of_a_failure_is_told(world: World) -> None:
    assert (await world.run("exit 3"))[1].code == 3


async def test_an_end_is_told_as_often_as_it_is_asked_for(world: World) -> None:
    execution, first = await world.run("exit 4")
    assert await world.runtime.wait(execution.container_id) == first
    assert await asyncio.gather(*(world.runtime.wait(execution.container_id) for _ in range(3))) == [first] * 3


async def test_a_running_task_keeps_who_waits(world: World) -> None:
    execution = world.execution("sleep 60")
    await world.runtime.start(execution)
    waiting = asyncio.ensure_future(world.runtime.wait(execution.container_id))
    await asyncio.wait([waiting], timeout=0.2)
    assert not waiting.done()
    await world.runtime.kill(execution.container_id, 1.0)
    assert (await waiting).container_id == execution.container_id


async def test_who_stops_waiting_does_not_disturb_the_others(world: World) -> None:
    execution = world.execution("sleep 60")
    await world.runtime.start(execution)
    impatient = asyncio.ensure_future(world.runtime.wait(execution.container_id))
    patient = asyncio.ensure_future(world.runtime.wait(execution.container_id))
    await asyncio.wait([patient], timeout=0.1)
    impatient.cancel()
    await world.runtime.kill(execution.container_id, 1.0)
    assert (await patient).code != 0


async def test_a_killed_task_ends_by_a_signal(world: World) -> None:
    execution = world.execution("exec sleep 60")
    await world.runtime.start(execution)
    await world.runtime.kill(execution.container_id, 5.0)
    exit = await world.runtime.wait(execution.container_id)
    assert exit.code is None
    assert exit.signal in (9, 15)  # the first process of a container ignores SIGTERM


async def test_a_second_start_finds_the_first(world: World) -> None:
    execution = world.execution("sleep 60")
    first = await world.runtime.start(execution)
    assert await world.runtime.start(execution) == first


async def test_two_starts_at_once_are_one(world: World) -> None:
    execution = world.execution("sleep 60")
    one, other = await asyncio.gather(world.runtime.start(execution), world.runtime.start(execution))
    assert one == other
    assert len(await world.runtime.recover()) == 1


async def test_nobody_waits_for_what_nobody_started(world: World) -> None:
    with pytest.raises(NotFound):
        await world.runtime.wait("t-unknown")


async def test_killing_and_removing_what_is_gone_does_nothing(world: World) -> None:
    await world.runtime.kill("t-unknown", 1.0)
    await world.runtime.remove("t-unknown")


async def test_killing_what_has_ended_does_nothing(world: World) -> None:
    execution, exit = await world.run("exit 5")
    await world.runtime.kill(execution.container_id, 1.0)
    assert await world.runtime.wait(execution.container_id) == exit


async def test_the_limits_of_what_runs_are_changed_and_those_of_what_ended_are_let_be(world: World) -> None:
    execution = world.execution("exec sleep 60", cpu_milli=500, mem_mb=64)
    await world.runtime.start(execution)
    await world.runtime.resize(execution.container_id, 1500, 128)
    await world.runtime.resize(execution.container_id, 100, None)
    await world.runtime.kill(execution.container_id, 1.0)
    assert (await world.runtime.wait(execution.container_id)).signal in (9, 15)
    await world.runtime.resize(execution.container_id, 1500, 128)
    await world.runtime.resize("t-unknown", 1500, 128)


async def test_no_signal_reaches_what_has_ended_or_never_was(world: World) -> None:
    execution, _ = await world.run("true")
    for container_id in (execution.container_id, "t-unknown"):
        with pytest.raises(NotFound):
            await world.runtime.signal(container_id, 10)


async def test_a_signal_reaches_the_tasks_own_process_also_after_a_restart(real_world: World) -> None:
    script = "trap 'echo heard' USR1; echo ready; while true; do sleep 0.05; done"
    execution = real_world.execution(script)
    await real_world.runtime.start(execution)
    await eventually(says(execution, "ready"))
    await real_world.runtime.signal(execution.container_id, 10)
    await eventually(says(execution, "heard"))
    await real_world.restart()
    await real_world.runtime.recover()
    await real_world.runtime.signal(execution.container_id, 10)
    await eventually(says(execution, "heard\nheard"))


async def test_a_removed_task_is_forgotten(world: World) -> None:
    execution, _ = await world.run("exit 0")
    await world.runtime.remove(execution.container_id)
    assert await world.runtime.recover() == [] or await world.runtime.recover() == ()
    with pytest.raises(NotFound):
        await world.runtime.wait(execution.container_id)
    assert Path(execution.sandbox).is_dir()


async def test_a_restarted_agent_finds_what_runs_and_learns_its_end(world: World) -> None:
    execution = world.execution("sleep 60")
    launched = await world.runtime.start(execution)
    runtime = await world.restart()
    found = only(list(await runtime.recover()), execution.container_id)
    assert (found.task_id, found.framework_id, found.exit) == (execution.task_id, execution.framework_id, None)
    assert found.launched is not None
    assert found.launched.pid == launched.pid
    waiting = asyncio.ensure_future(runtime.wait(execution.container_id))
    await runtime.kill(execution.container_id, 1.0)
    assert (await waiting).code != 0


async def test_a_restarted_agent_learns_how_a_task_ended_before(world: World) -> None:
    execution, exit = await world.run("exit 6")
    runtime = await world.restart()
    found = only(list(await runtime.recover()), execution.container_id)
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal) == (exit.code, exit.signal) == (6, None)
    assert (await runtime.wait(execution.container_id)).code == 6


async def test_a_restarted_agent_does_not_start_twice(world: World) -> None:
    execution = world.execution("sleep 60")
    first = await world.runtime.start(execution)
    again = await (await world.restart()).start(execution)
    assert (again.container_id, again.pid) == (first.container_id, first.pid)
    assert len(await world.runtime.recover()) == 1


async def test_many_tasks_at_once_keep_their_exits_apart(world: World) -> None:
    exits = await asyncio.gather(*(world.run(f"exit {code}") for code in range(8)))
    assert [exit.code for _, exit in exits] == list(range(8))


# What only real commands can show.


async def test_output_lands_in_the_sandbox(real_world: World) -> None:
    execution, _ = await real_world.run("echo out; echo err >&2")
    assert output(execution, "stdout") == "out\n"
    assert output(execution, "stderr") == "err\n"


async def test_the_environment_is_exactly_the_one_given(real_world: World) -> None:
    environment = (("PATH", PATH), ("GREETING", "grüß  'dich'\n$HOME"), ("EMPTY", ""))
    execution, _ = await real_world.run('printf "%s|%s|%s" "$GREETING" "${EMPTY-unset}" "${USER-unset}"',
                                        environment=environment)  # fmt: skip
    assert output(execution) == "grüß  'dich'\n$HOME||unset"


async def test_a_signal_of_its_own_is_told_as_such(real_world: World) -> None:
    # In a child: the first process of a container is immune to signals from inside.
    _, exit = await real_world.run("sh -c 'kill -SEGV $$'; exit $?")
    assert (exit.code, exit.signal) in ((139, None), (None, 11))


async def test_a_missing_command_is_a_failure_in_words(real_world: World) -> None:
    execution = real_world.execution("", argv=("no-such-command", "x"))
    with pytest.raises(Failed, match="no-such-command"):
        await real_world.runtime.start(execution)
    assert list(await real_world.runtime.recover()) == []
    with pytest.raises(NotFound):
        await real_world.runtime.wait(execution.container_id)


async def test_a_task_may_use_its_grace(real_world: World) -> None:
    execution = real_world.execution(
        "trap 'echo cleaning; sleep 0.3; echo clean; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    )
    await real_world.runtime.start(execution)
    await eventually(says(execution, "up"))
    await real_world.runtime.kill(execution.container_id, 20.0)
    exit = await real_world.runtime.wait(execution.container_id)
    assert (exit.code, exit.signal) == (7, None)
    assert output(execution) == "up\ncleaning\nclean\n"


async def test_a_task_that_ignores_the_signal_is_killed_after_its_grace(real_world: World) -> None:
    execution = real_world.execution("trap '' TERM; echo up; while :; do sleep 0.05; done")
    await real_world.runtime.start(execution)
    await eventually(says(execution, "up"))
    before = time.monotonic()
    await real_world.runtime.kill(execution.container_id, 1.0)
    exit = await real_world.runtime.wait(execution.container_id)
    assert (exit.code, exit.signal) == (None, 9)
    assert 0.9 <= time.monotonic() - before < 10


async def test_ten_megabytes_of_output_are_all_there(real_world: World) -> None:
    execution, exit = await real_world.run("dd if=/dev/zero bs=65536 count=160 2>/dev/null; echo end")
    assert exit.code == 0
    size = 160 * 65536
    path = Path(execution.sandbox) / "stdout"
    assert path.stat().st_size == size + len("end\n")
    with path.open("rb") as file:
        file.seek(size)
        assert file.read() == b"end\n"


async def test_what_a_task_leaves_behind_ends_with_it(real_world: World) -> None:
    mark = f"3{uuid.uuid4().int % 10**8:08d}"
    execution, _ = await real_world.run(f"sleep {mark} & (setsid sleep {mark} &) ; sleep 0.2; echo gone")
    assert output(execution) == "gone\n"
    await eventually(lambda: not running(mark))


async def test_a_kill_reaches_every_process_of_the_task(real_world: World) -> None:
    mark = f"3{uuid.uuid4().int % 10**8:08d}"
    execution = real_world.execution(f"(setsid sleep {mark} &); sleep {mark} & echo up; wait; sleep {mark}")
    await real_world.runtime.start(execution)
    await eventually(says(execution, "up"))
    await eventually(lambda: len(running(mark)) >= 2)
    await real_world.runtime.kill(execution.container_id, 0.5)
    await real_world.runtime.wait(execution.container_id)
    await eventually(lambda: not running(mark))


def running(mark: str) -> list[str]:
    """The pids of all `sleep MARK` on this machine."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")[:-1][1:] == [mark.encode()]:
                found.append(name)
    return found


async def read_all(runtime: TaskRuntime, container_id: str, *argv: str, tty: bool = False) -> tuple[str, str, int]:
    words = {"stdout": b"", "stderr": b""}
    async with runtime.exec(container_id, argv, tty=tty) as session:
        async for stream, data in session.output():
            words[stream] += data
        return words["stdout"].decode(), words["stderr"].decode(), await session.exit_code()


async def test_a_further_command_runs_beside_the_task(real_world: World) -> None:
    execution = real_world.execution("sleep 60", environment=(("PATH", PATH), ("COLOUR", "red")))
    await real_world.runtime.start(execution)
    script = 'echo "$COLOUR"; echo oops >&2; exit 9'
    assert await read_all(real_world.runtime, execution.container_id, "sh", "-c", script) == ("red\n", "oops\n", 9)


async def test_a_further_command_reads_what_is_typed(real_world: World) -> None:
    execution = real_world.execution("sleep 60")
    await real_world.runtime.start(execution)
    heard = b""
    async with real_world.runtime.exec(execution.container_id, ["cat"], tty=False) as session:
        await session.write(b"one\n")
        await session.write(b"two\n")
        await session.write(b"")
        async for _, data in session.output():
            heard += data
        assert await session.exit_code() == 0
    assert heard == b"one\ntwo\n"


async def test_a_terminal_has_the_size_it_is_given(real_world: World) -> None:
    execution = real_world.execution("sleep 60")
    await real_world.runtime.start(execution)
    seen = b""
    script = "test -t 0 && echo terminal; read line; stty size"
    async with real_world.runtime.exec(execution.container_id, ["sh", "-c", script], tty=True) as session:
        async for _, data in session.output():
            seen += data
            if b"terminal" in seen and b"go" not in seen:
                await session.resize(40, 100)
                await session.write(b"go\n")
        assert await session.exit_code() == 0
    assert b"40 100" in seen


async def test_leaving_a_session_ends_its_command(real_world: World) -> None:
    mark = f"3{uuid.uuid4().int % 10**8:08d}"
    execution = real_world.execution("sleep 60")
    await real_world.runtime.start(execution)
    async with real_world.runtime.exec(execution.container_id, ["sleep", mark], tty=False):
        await eventually(lambda: bool(running(mark)))
    await eventually(lambda: not running(mark))


async def test_a_command_beside_an_ended_task_is_refused(real_world: World) -> None:
    execution, _ = await real_world.run("exit 0")
    with pytest.raises(CorralError):
        await read_all(real_world.runtime, execution.container_id, "true")


async def test_a_task_over_its_memory_is_ended_and_said_to_be(tmp_path: Path) -> None:
    async for world in make_world("process", tmp_path):
        assert isinstance(world.runtime, ProcessRuntime)
        if any("memory limits" in note for note in world.runtime.notes):
            assert os.geteuid() != 0, "as root a memory cgroup is expected on a test machine"
            continue
        _, exit = await world.run("head -c 200000000 /dev/zero | tail -n 1", mem_mb=32)
        assert exit.oom
        assert (exit.code, exit.signal) in ((137, None), (None, 9))


@pytest.fixture(params=["fake", DOCKER])
async def networked_world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Only what gives networks to containers."""
    async for made in make_world(request.param, tmp_path, engine_for(request)):
        yield made


def shared_network(*mappings: PortMapping) -> SharedNetwork:
    return SharedNetwork(id=ContainerId(f"g-{uuid.uuid4()}"), networks=("bridge",), port_mappings=mappings)


async def test_those_who_share_a_network_have_one_address_that_is_found_again(networked_world: World) -> None:
    ours, theirs = shared_network(), shared_network()
    executions = [networked_world.execution("sleep 60", shared=shared) for shared in (ours, ours, theirs)]
    one, two, other = [await networked_world.runtime.start(execution) for execution in executions]
    assert one.ip is not None
    assert (one.ip == two.ip, one.ip == other.ip) == (True, False)
    runtime = await networked_world.restart()
    found = only(list(await runtime.recover()), executions[0].container_id)
    assert found.launched is not None
    assert found.launched.ip == one.ip


async def test_a_port_of_a_shared_network_is_that_of_one_group(networked_world: World) -> None:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    mapping = PortMapping(container_port=80, host_port=port)
    ours = shared_network(mapping)
    for _ in range(2):
        await networked_world.runtime.start(networked_world.execution("sleep 60", shared=ours))
    with pytest.raises(Failed, match=f"port {port} on this host is taken"):
        await networked_world.runtime.start(networked_world.execution("true", shared=shared_network(mapping)))


@pytest.mark.docker
async def test_a_container_over_its_memory_is_ended_and_said_to_be(tmp_path: Path, engine_socket: str) -> None:
    async for world in make_world("docker", tmp_path, engine_socket):
        _, exit = await world.run("head -c 200000000 /dev/zero | tail -n 1", mem_mb=32)
        assert exit.oom
        assert (exit.code, exit.signal) in ((137, None), (None, 9))
