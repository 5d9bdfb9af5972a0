"""Plain process tasks through the death of everything around them: agent, nursery, supervisor, node."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from corral.lib.errors import Conflict, Failed, Unavailable
from corral.model.execution import Execution, Mount
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.process import record, tree
from corral.process.leftovers import end_leftovers
from corral.process.runtime import ProcessRuntime

ENVIRONMENT = (("PATH", "/usr/local/bin:/usr/bin:/bin"),)


class Node:
    """A state directory and what looks after it at the moment."""

    def __init__(self, root: Path, cgroup_parent: str | None) -> None:
        self.root = root
        self.state = root / "state"
        self.cgroup_parent = cgroup_parent
        self.runtime = self.take_over()

    def take_over(self, **options: object) -> ProcessRuntime:
        self.runtime = ProcessRuntime(str(self.state), cgroup_parent=self.cgroup_parent, **options)  # type: ignore[arg-type]
        return self.runtime

    def execution(self, script: str, **changes: object) -> Execution:
        container_id = ContainerId(f"t-{uuid.uuid4()}")
        sandbox = self.root / container_id
        sandbox.mkdir()
        wanted: dict[str, object] = {
            "container_id": container_id,
            "task_id": TaskId("task"),
            "framework_id": FrameworkId("framework"),
            "sandbox": str(sandbox),
            "argv": ("/bin/sh", "-c", script),
            "environment": (*ENVIRONMENT, ("MESOS_SANDBOX", str(sandbox))),
        }
        return Execution(**{**wanted, **changes})  # type: ignore[arg-type]

    def pids(self, execution: Execution) -> record.Pids:
        pids: record.Pids = record.read_record(str(self.state / execution.container_id), record.PIDS)
        return pids

    def start_in_another_process(self, execution: Execution) -> subprocess.Popen[bytes]:
        """Something like an agent: it starts the task, says so, and waits to be killed."""
        holder = (
            "import asyncio, msgspec, sys\n"
            "from corral.model.execution import Execution\n"
            "from corral.process.runtime import ProcessRuntime\n"
            "async def main():\n"
            "    execution = msgspec.json.decode(sys.argv[2], type=Execution)\n"
            "    runtime = ProcessRuntime(sys.argv[1], cgroup_parent=sys.argv[3] or None)\n"
            "    await runtime.start(execution)\n"
            "    print('started', flush=True)\n"
            "    if sys.argv[4]:\n"
            "        await runtime.kill(execution.container_id, float(sys.argv[4]))\n"
            "    await asyncio.sleep(600)\n"
            "asyncio.run(main())\n"
        )
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                holder,
                str(self.state),
                msgspec.json.encode(execution).decode(),
                self.cgroup_parent or "",
                self.grace,
            ],
            stdout=subprocess.PIPE,
        )

    grace = ""

    async def close(self) -> None:
        for found in await self.runtime.recover():
            await self.runtime.kill(found.container_id, 0.0)
            await self.runtime.remove(found.container_id)
        await self.runtime.close()


@pytest.fixture(params=[None, ""], ids=["with-cgroups", "without-cgroups"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path, request.param)
    yield made
    await made.close()


async def eventually(check: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    stat = tree.read_stat(pid)
    return stat is not None and stat.state != "Z"


def kill_hard(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"started\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()


async def test_a_killed_agent_loses_neither_task_nor_exit(node: Node) -> None:
    execution = node.execution("while [ ! -e go ]; do sleep 0.02; done; exit 5")
    kill_hard(node.start_in_another_process(execution))
    runtime = node.take_over()
    (found,) = await runtime.recover()
    assert found.exit is None
    assert runs(node.pids(execution)["pid"])
    (Path(execution.sandbox) / "go").touch()
    exit = await runtime.wait(execution.container_id)
    assert (exit.code, exit.signal) == (5, None)


async def test_an_exit_while_no_agent_lives_is_found(node: Node) -> None:
    execution = node.execution("while [ ! -e go ]; do sleep 0.02; done; kill -KILL $$")
    kill_hard(node.start_in_another_process(execution))
    (Path(execution.sandbox) / "go").touch()
    await eventually(lambda: (node.state / execution.container_id / record.EXIT).exists())
    (found,) = await node.take_over().recover()
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal) == (None, 9)
    assert await node.runtime.wait(execution.container_id) == found.exit


async def test_a_grace_runs_on_when_the_agent_is_killed(node: Node) -> None:
    execution = node.execution("trap 'touch told' TERM; touch up; while :; do sleep 0.05; done")
    node.grace = "1.0"
    holder = node.start_in_another_process(execution)
    await eventually(lambda: (node.state / execution.container_id / record.KILL).exists())
    kill_hard(holder)
    await eventually(lambda: (node.state / execution.container_id / record.EXIT).exists())
    (found,) = await node.take_over().recover()
    assert found.exit is not None
    assert found.exit.signal in (9, 15)


async def test_a_killed_nursery_is_replaced(node: Node) -> None:
    running = node.execution("sleep 600")
    await node.runtime.start(running)
    nursery = next(s.pid for s in tree.read_processes().values() if s.parent == os.getpid() and is_nursery(s.pid))
    os.kill(nursery, signal.SIGKILL)
    await eventually(lambda: not runs(nursery))
    execution = node.execution("exit 6")
    await node.runtime.start(execution)
    assert (await node.runtime.wait(execution.container_id)).code == 6
    assert runs(node.pids(running)["pid"])


def is_nursery(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "corral-nursery\n"


async def test_a_start_that_hangs_is_taken_back_by_a_kill(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.process.runtime._START_S", 0.2)
    first = node.execution("exit 0")
    await node.runtime.start(first)
    await node.runtime.wait(first.container_id)
    await node.runtime.remove(first.container_id)
    nursery = next(s.pid for s in tree.read_processes().values() if s.parent == os.getpid() and is_nursery(s.pid))
    os.kill(nursery, signal.SIGSTOP)
    execution = node.execution("sleep 600")
    starting = asyncio.ensure_future(node.runtime.start(execution))
    await asyncio.wait([starting], timeout=0.1)
    await node.runtime.kill(execution.container_id, 0.0)
    with pytest.raises(Failed, match="taken back"):
        await starting
    os.kill(nursery, signal.SIGCONT)
    other = node.execution("exit 0")
    await node.runtime.start(other)
    assert (await node.runtime.wait(other.container_id)).code == 0
    assert [found.container_id for found in await node.runtime.recover()] == [other.container_id]


async def test_a_killed_supervisor_takes_its_task_with_it_and_nobody_guesses_a_code(node: Node) -> None:
    execution = node.execution("(setsid sleep 600 &) ; sleep 600 & touch up; wait")
    await node.runtime.start(execution)
    await eventually(lambda: (Path(execution.sandbox) / "up").exists())
    pids = node.pids(execution)
    below = tree.descendants(pids["supervisor"], tree.read_processes())
    assert len(below) >= 3
    os.kill(pids["supervisor"], signal.SIGKILL)
    exit = await node.runtime.wait(execution.container_id)
    assert (exit.code, exit.signal) == (None, None)
    assert "supervisor was killed" in exit.message
    await eventually(lambda: not any(runs(stat.pid) for stat in below))


async def test_a_supervisor_that_died_while_no_agent_lived_is_noticed(node: Node) -> None:
    execution = node.execution("sleep 600")
    await node.runtime.start(execution)
    await node.runtime.close()
    pids = node.pids(execution)
    os.kill(pids["supervisor"], signal.SIGKILL)
    await eventually(lambda: not runs(pids["supervisor"]))
    (found,) = await node.take_over().recover()
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal) == (None, None)
    await eventually(lambda: not runs(pids["pid"]))


async def test_a_stopped_supervisor_cannot_keep_a_task_alive(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.process.runtime._STUBBORN_S", 0.3)
    execution = node.execution("sleep 600")
    await node.runtime.start(execution)
    pids = node.pids(execution)
    os.kill(pids["supervisor"], signal.SIGSTOP)
    await node.runtime.kill(execution.container_id, 0.0)
    assert (await node.runtime.wait(execution.container_id)).code is None
    await eventually(lambda: not runs(pids["pid"]))


async def test_a_signal_to_the_supervisor_reaches_the_task_and_the_exit_is_seen(node: Node) -> None:
    execution = node.execution("trap 'exit 8' TERM; touch up; while :; do sleep 0.05; done")
    await node.runtime.start(execution)
    await eventually(lambda: (Path(execution.sandbox) / "up").exists())
    os.kill(node.pids(execution)["supervisor"], signal.SIGTERM)
    assert (await node.runtime.wait(execution.container_id)).code == 8


async def test_an_agent_without_free_descriptors_takes_no_task_for_dead(node: Node) -> None:
    execution = node.execution("sleep 600")
    await node.runtime.start(execution)
    await node.runtime.close()
    runtime = node.take_over()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        with pytest.raises(Unavailable, match="limit of open files"):
            await runtime.wait(execution.container_id)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (found,) = await runtime.recover()
    assert found.exit is None
    assert runs(node.pids(execution)["pid"])


async def test_a_pid_that_is_used_again_is_left_alone(node: Node) -> None:
    execution = node.execution("exit 0")
    await node.runtime.start(execution)
    await node.runtime.wait(execution.container_id)
    await node.runtime.close()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        directory = str(node.state / execution.container_id)
        os.unlink(os.path.join(directory, record.EXIT))
        pids = node.pids(execution)
        pids["supervisor"] = pids["pid"] = bystander.pid
        pids["supervisor_start"] = pids["pid_start"] = pids["supervisor_start"] - 100
        record.write_record(directory, record.PIDS, pids)
        runtime = node.take_over()
        await runtime.kill(execution.container_id, 0.0)
        exit = await runtime.wait(execution.container_id)
        assert (exit.code, exit.signal) == (None, None)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_after_a_restart_of_the_node_no_pid_is_believed(node: Node) -> None:
    execution = node.execution("sleep 600")
    await node.runtime.start(execution)
    pids = node.pids(execution)
    await node.runtime.close()
    directory = str(node.state / execution.container_id)
    record.write_record(directory, record.PIDS, {**pids, "boot_id": "another"})
    (found,) = await node.take_over().recover()
    assert found.exit is not None
    assert "node was started again" in found.exit.message
    assert runs(pids["pid"])
    assert end_leftovers(record.read_record(directory, record.RUN), pids)
    os.kill(pids["supervisor"], signal.SIGKILL)


async def test_a_start_that_never_happened_is_not_found(node: Node) -> None:
    execution = node.execution("exit 0")
    directory = node.state / execution.container_id
    directory.mkdir()
    (directory / record.RUN).write_text(json.dumps({"container_id": execution.container_id}))
    assert await node.runtime.recover() == []
    assert not directory.exists()
    await node.runtime.start(execution)
    assert (await node.runtime.wait(execution.container_id)).code == 0


async def test_what_still_runs_cannot_be_removed(node: Node) -> None:
    execution = node.execution("sleep 600")
    await node.runtime.start(execution)
    with pytest.raises(Conflict, match="still runs"):
        await node.runtime.remove(execution.container_id)


async def test_a_second_kill_may_shorten_the_grace_but_not_lengthen_it(node: Node) -> None:
    execution = node.execution("trap '' TERM; touch up; while :; do sleep 0.05; done")
    await node.runtime.start(execution)
    await eventually(lambda: (Path(execution.sandbox) / "up").exists())
    before = time.monotonic()
    first = asyncio.ensure_future(node.runtime.kill(execution.container_id, 300.0))
    await asyncio.wait([first], timeout=0.1)
    await asyncio.gather(node.runtime.kill(execution.container_id, 0.3), first)
    await node.runtime.kill(execution.container_id, 300.0)
    assert (await node.runtime.wait(execution.container_id)).signal == 9
    assert time.monotonic() - before < 60


async def test_bounded_output_keeps_one_older_part(node: Node) -> None:
    await node.runtime.close()
    runtime = node.take_over(most_log_bytes=10_000)
    execution = node.execution("while [ ! -e stdout.1 ]; do head -c 5000 /dev/zero; sleep 0.1; done; echo last")
    await runtime.start(execution)
    assert (await runtime.wait(execution.container_id)).code == 0
    assert (Path(execution.sandbox) / "stdout.1").stat().st_size > 10_000
    assert (Path(execution.sandbox) / "stdout").read_bytes().endswith(b"last\n")


async def test_an_output_file_that_is_a_link_is_refused(node: Node, tmp_path: Path) -> None:
    execution = node.execution("echo overwritten")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (Path(execution.sandbox) / "stdout").symlink_to(victim)
    with pytest.raises(Failed, match="stdout"):
        await node.runtime.start(execution)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("./script",), "interpreter"),
        (("./plain",), "make it executable|may not be executed"),
        (("./garbage",), "no program for this machine"),
        (("./missing",), "not found"),
        ((), "no command"),
    ],
)
async def test_a_command_that_cannot_run_says_why(node: Node, argv: tuple[str, ...], words: str) -> None:
    execution = node.execution("", argv=argv)
    sandbox = Path(execution.sandbox)
    (sandbox / "script").write_text("#!/no/such/interpreter\n")
    (sandbox / "plain").write_text("#!/bin/sh\n")
    (sandbox / "garbage").write_bytes(b"\x00\x01\x02")
    for name in ("script", "garbage"):
        (sandbox / name).chmod(0o755)
    with pytest.raises(Failed, match=words):
        await node.runtime.start(execution)
    assert await node.runtime.recover() == []


async def test_an_unknown_user_is_named(node: Node) -> None:
    with pytest.raises(Failed, match="no-such-user"):
        await node.runtime.start(node.execution("true", user="no-such-user"))


async def test_a_volume_in_the_sandbox_is_a_link(node: Node, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("hello")
    mount = Mount(source=str(tmp_path / "data"), target="deep/down")
    execution = node.execution("cat deep/down/file; echo new > deep/down/other", mounts=(mount,))
    await node.runtime.start(execution)
    assert (await node.runtime.wait(execution.container_id)).code == 0
    assert (Path(execution.sandbox) / "stdout").read_text() == "hello"
    assert (tmp_path / "data" / "other").read_text() == "new\n"


@pytest.mark.usefixtures("bubblewrap")
async def test_absolute_and_read_only_volumes_are_mounts_of_the_task_alone(node: Node, tmp_path: Path) -> None:
    for name in ("data", "seen"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "file").write_text("hello\n")
    mounts = (
        Mount(source=str(tmp_path / "data"), target=str(tmp_path / "seen")),
        Mount(source=str(tmp_path / "data"), target="fixed", read_only=True),
    )
    script = (
        f"cat {tmp_path}/seen/file fixed/file; echo new > {tmp_path}/seen/other; echo x > fixed/no || echo refused;"
        "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"
    )
    execution = node.execution(script, mounts=mounts)
    launched = await node.runtime.start(execution)
    out = Path(execution.sandbox) / "stdout"
    await eventually(lambda: "up" in out.read_text())
    assert out.read_text() == "hello\nhello\nrefused\nup\n"
    assert (tmp_path / "data" / "other").read_text() == "new\n"
    assert os.listdir(tmp_path / "seen") == []
    async with node.runtime.exec(execution.container_id, ["cat", f"{tmp_path}/seen/file"], tty=False) as session:
        assert [data async for _, data in session.output()] == [b"hello\n"]
    assert launched.pid is not None
    assert Path(f"/proc/{launched.pid}/cmdline").read_bytes().startswith(b"/bin/sh\0-c\0cat ")
    await node.runtime.kill(execution.container_id, 20.0)
    assert (await node.runtime.wait(execution.container_id)).code == 9


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize(
    ("target", "words"),
    [("/no/such/place", "does not exist"), ("../out", "leaves the sandbox"), ("/etc/passwd", "one is a directory")],
)
async def test_a_volume_that_cannot_be_mounted_is_named(node: Node, tmp_path: Path, target: str, words: str) -> None:
    mount = Mount(source=str(tmp_path), target=target)
    with pytest.raises(Failed, match=words):
        await node.runtime.start(node.execution("true", mounts=(mount,)))


async def test_no_descriptor_of_the_agent_reaches_the_task(node: Node) -> None:
    execution = node.execution("readlink /proc/self/fd/0; exec ls /proc/self/fd")
    await node.runtime.start(execution)
    await node.runtime.wait(execution.container_id)
    assert (Path(execution.sandbox) / "stdout").read_text() == "/dev/null\n0\n1\n2\n3\n"  # 3: the list itself


async def test_a_closed_runtime_leaves_the_task_running(node: Node) -> None:
    execution = node.execution("sleep 600")
    await node.runtime.start(execution)
    await node.runtime.close()
    assert runs(node.pids(execution)["pid"])
    (found,) = await node.take_over().recover()
    assert found.exit is None
