"""Tasks that end in time although nobody who could end them works any more."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from corral.lib.clock import read_boot_id, steady_clock
from corral.lib.contact import ContactFile
from corral.lib.errors import Failed
from corral.model.execution import Bound, Execution
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.process import guard, record, tree
from corral.process.guards import Guards
from corral.process.runtime import ProcessRuntime

BOOT = read_boot_id()


async def eventually(check: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        await asyncio.sleep(0.02)


def bound(root: Path, *, stop_after_s: float = 0.2, grace_s: float = 0.3, strict: bool = True) -> Bound:
    return Bound(contact=str(root / "contact"), stop_after_s=stop_after_s, grace_s=grace_s, strict=strict)


def hear(root: Path, ago_s: float = 0.0) -> None:
    ContactFile(str(root / "contact")).write(BOOT, steady_clock() - ago_s)


def execution(root: Path, script: str, limit: Bound) -> Execution:
    container_id = ContainerId(f"t-{uuid.uuid4()}")
    sandbox = root / container_id
    sandbox.mkdir()
    return Execution(
        container_id=container_id, task_id=TaskId("only"), framework_id=FrameworkId("f"), sandbox=str(sandbox),
        argv=("/bin/sh", "-c", script), environment=(("PATH", "/usr/bin:/bin"), ("MESOS_SANDBOX", str(sandbox))),
        bound=limit,
    )  # fmt: skip


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    made = ProcessRuntime(str(tmp_path / "state"), cgroup_parent="")
    yield made
    for found in await made.recover():
        await made.kill(found.container_id, 0.0)
        await made.remove(found.container_id)
    await made.close()


async def test_a_task_whose_agent_is_silent_is_ended_by_its_supervisor(runtime: ProcessRuntime, tmp_path: Path) -> None:
    hear(tmp_path)
    one = execution(tmp_path, "sleep 600 & wait", bound(tmp_path))
    began = time.monotonic()
    await runtime.start(one)
    exit = await asyncio.wait_for(runtime.wait(one.container_id), 10)
    assert 1.0 < time.monotonic() - began < 5.0
    assert exit.fenced
    assert (exit.code, exit.signal) == (None, 15)
    assert "0.2 s" in exit.message


async def test_one_that_does_not_listen_is_killed_after_its_grace(runtime: ProcessRuntime, tmp_path: Path) -> None:
    hear(tmp_path)
    one = execution(tmp_path, "trap '' TERM; sleep 600; sleep 600", bound(tmp_path))
    await runtime.start(one)
    exit = await asyncio.wait_for(runtime.wait(one.container_id), 10)
    assert (exit.signal, exit.fenced) == (9, True)


async def test_it_runs_on_while_a_master_hears_of_the_agent(runtime: ProcessRuntime, tmp_path: Path) -> None:
    hear(tmp_path)
    one = execution(tmp_path, "sleep 600", bound(tmp_path))
    await runtime.start(one)
    wait = asyncio.ensure_future(runtime.wait(one.container_id))
    for _ in range(14):
        hear(tmp_path)
        await asyncio.sleep(0.1)
    assert not wait.done()
    assert (await asyncio.wait_for(wait, 10)).fenced


async def test_it_does_not_start_when_the_agent_was_stopped_for_too_long(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    hear(tmp_path, ago_s=60.0)
    ran = tmp_path / "ran"
    with pytest.raises(Failed, match="no master has heard"):
        await runtime.start(execution(tmp_path, f"touch {ran}; sleep 600", bound(tmp_path)))
    assert not ran.exists()


async def test_one_that_may_count_from_its_start_needs_no_contact(runtime: ProcessRuntime, tmp_path: Path) -> None:
    one = execution(tmp_path, "sleep 600", bound(tmp_path, strict=False))
    await runtime.start(one)
    assert (await asyncio.wait_for(runtime.wait(one.container_id), 10)).fenced


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
async def test_the_agent_may_be_stopped_or_dead(tmp_path: Path, number: signal.Signals) -> None:
    """Somebody who acts as an agent renews its contact until it is hurt; what it started goes all the same."""
    one = execution(tmp_path, "sleep 600", bound(tmp_path))
    script = (
        "import asyncio, msgspec, sys\n"
        "from corral.lib.clock import read_boot_id, steady_clock\n"
        "from corral.lib.contact import ContactFile\n"
        "from corral.model.execution import Execution\n"
        "from corral.process.runtime import ProcessRuntime\n"
        "async def main():\n"
        "    one = msgspec.json.decode(sys.argv[2], type=Execution)\n"
        "    file = ContactFile(one.bound.contact)\n"
        "    file.write(read_boot_id(), steady_clock())\n"
        "    await ProcessRuntime(sys.argv[1], cgroup_parent='').start(one)\n"
        "    print('started', flush=True)\n"
        "    while True:\n"
        "        file.write(read_boot_id(), steady_clock())\n"
        "        await asyncio.sleep(0.05)\n"
        "asyncio.run(main())\n"
    )
    agent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "state"), msgspec.json.encode(one).decode()],
        stdout=subprocess.PIPE,
    )
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"started\n"
        pids = record.read_record(str(tmp_path / "state" / one.container_id), record.PIDS)
        await asyncio.sleep(1.3)
        assert tree.is_same(pids["pid"], pids["pid_start"]), "it goes on while its agent works"
        agent.send_signal(number)
        await eventually(lambda: not tree.is_same(pids["pid"], pids["pid_start"]), 5.0)
    finally:
        agent.kill()
        agent.wait()
    after = ProcessRuntime(str(tmp_path / "state"), cgroup_parent="")
    (found,) = await after.recover()
    assert (await asyncio.wait_for(after.wait(found.container_id), 10)).fenced
    await after.remove(one.container_id)
    await after.close()


# Guards of containers, with a plain process in the container's place.


@pytest.fixture
def body() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield made
    made.kill()
    made.wait()


def guard_pid(root: Path, name: str) -> int:
    holder = record.read_holder(str(root / "guards" / name))
    assert holder is not None
    return holder[0]


def is_alive(pid: int) -> bool:
    stat = tree.read_stat(pid)
    return stat is not None and not stat.dead


async def test_a_guard_ends_what_it_was_told_of_and_says_why(tmp_path: Path, body: subprocess.Popen[bytes]) -> None:
    hear(tmp_path)
    guards = Guards(str(tmp_path / "guards"), "")
    await guards.begin("corral-a", bound(tmp_path))
    guards.target("corral-a", body.pid, "no-such-cgroup", signal.SIGTERM)
    assert guards.why_fenced("corral-a") == ""
    assert await asyncio.to_thread(body.wait, 10) == -signal.SIGTERM
    assert "no master has heard" in guards.why_fenced("corral-a")
    pid = guard_pid(tmp_path, "corral-a")
    await eventually(lambda: not is_alive(pid))
    await guards.end("corral-a")
    assert not (tmp_path / "guards" / "corral-a").exists()


async def test_a_guard_kills_what_ignores_it(tmp_path: Path) -> None:
    hear(tmp_path)
    # What outlives the shell for a moment ends by itself.
    body = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' TERM; echo; while :; do sleep 0.2; done"], stdout=subprocess.PIPE
    )
    try:
        assert body.stdout is not None
        body.stdout.readline()
        guards = Guards(str(tmp_path / "guards"), "")
        await guards.begin("corral-a", bound(tmp_path))
        guards.target("corral-a", body.pid, "", signal.SIGTERM)
        assert await asyncio.to_thread(body.wait, 10) == -signal.SIGKILL
    finally:
        body.kill()
        body.wait()


async def test_a_guard_is_in_a_session_of_its_own_and_there_is_but_one(
    tmp_path: Path, body: subprocess.Popen[bytes]
) -> None:
    hear(tmp_path)
    guards = Guards(str(tmp_path / "guards"), "")
    await guards.begin("corral-a", bound(tmp_path, stop_after_s=600.0))
    guards.target("corral-a", body.pid, "", signal.SIGTERM)
    pid = guard_pid(tmp_path, "corral-a")
    assert os.getsid(pid) == pid
    after = Guards(str(tmp_path / "guards"), "")
    await after.resume("corral-a")
    assert guard_pid(tmp_path, "corral-a") == pid
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not is_alive(pid))
    await after.resume("corral-a")
    second = guard_pid(tmp_path, "corral-a")
    assert second != pid
    body.kill()
    await eventually(lambda: not is_alive(second))


async def test_a_guard_goes_when_it_is_needed_no_more(tmp_path: Path) -> None:
    hear(tmp_path)
    guards = Guards(str(tmp_path / "guards"), "")
    await guards.begin("corral-a", bound(tmp_path, stop_after_s=600.0))
    pid = guard_pid(tmp_path, "corral-a")
    await guards.end("corral-a")
    await eventually(lambda: not is_alive(pid))


async def test_nothing_is_guarded_that_may_not_start(tmp_path: Path) -> None:
    hear(tmp_path, ago_s=60.0)
    guards = Guards(str(tmp_path / "guards"), "")
    with pytest.raises(Failed, match="not started"):
        await guards.begin("corral-a", bound(tmp_path))
    assert not (tmp_path / "guards" / "corral-a").exists()


async def test_a_guard_that_knows_no_process_asks_the_engine_until_it_knows_one(
    tmp_path: Path, body: subprocess.Popen[bytes]
) -> None:
    hear(tmp_path)
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    path = str(tmp_path / "engine.sock")
    async with await asyncio.start_unix_server(answer, path):
        guards = Guards(str(tmp_path / "guards"), path)
        await guards.begin("corral-a", bound(tmp_path))
        await eventually(lambda: len(asked) >= 2, 10.0)
        assert asked[0] == b"DELETE /v1.40/containers/corral-a?force=1 HTTP/1.1\r\n"
        guards.target("corral-a", body.pid, "", signal.SIGTERM)
        assert await asyncio.to_thread(body.wait, 10) == -signal.SIGTERM


def test_an_engine_that_says_nonsense_has_not_answered(tmp_path: Path) -> None:
    import socket
    import threading

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"what?")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="answer"):
            guard.remove_container(str(tmp_path / "s"), "c")
        thread.join()


async def test_a_guard_whose_container_has_ended_before_it_looks_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "c1"
    directory.mkdir()
    fence = {"path": str(tmp_path / "contact"), "stop_after_s": 60.0, "grace_s": 0.0, "strict": False}
    guarded = {"container": "c1", "engine": "", "boot_id": BOOT, "fence": fence}
    record.write_record(str(directory), guard.GUARD, guarded)
    record.write_record(str(directory), guard.TARGET, {"pid": 1, "start": 0, "engine_id": "", "stop_signal": 15})
    guards = Guards(str(tmp_path), "")
    monkeypatch.setattr(tree, "is_same", lambda pid, start: False)  # whoever ended has been seen to have ended
    await guards.resume("c1")
    assert guards.why_fenced("c1") == ""
    await guards.end("c1")
    assert not directory.exists()
