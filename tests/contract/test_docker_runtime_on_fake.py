"""The docker runtime when its Engine misbehaves, on an Engine in memory."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.docker.containers import container_name, create_body
from corral.docker.engine import Json
from corral.docker.fake_engine import FakeEngine
from corral.docker.logs import POSITION_FILE, LogCopy
from corral.docker.registry import make_header
from corral.docker.runtime import DockerRuntime
from corral.docker.stream import STDERR, STDOUT, LogReader
from corral.lib.errors import Conflict, Failed, NotFound, Unavailable
from corral.lib.secret import Secret
from corral.model.container import DockerInfo, NetworkMode
from corral.model.execution import Execution
from corral.model.ids import ContainerId, FrameworkId, TaskId

LATE = b"9999-01-01T00:00:00.000000000Z"


class Node:
    """A fake Engine and the present agent's runtime on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engine = FakeEngine()
        self.said: list[str] = []
        self.runtime = self._make()

    def _make(self) -> DockerRuntime:
        return DockerRuntime(self.engine, owner="agent", say=self.said.append, pause=self.pause, patience_s=0.2)

    async def pause(self, delay_s: float) -> None:
        await asyncio.sleep(min(delay_s, 0.01))

    async def restart_agent(self) -> DockerRuntime:
        await self.runtime.close()
        self.runtime = self._make()
        return self.runtime

    def execution(self, script: str = "sleep 600", **changes: object) -> Execution:
        container_id = ContainerId(str(uuid.uuid4()))
        sandbox = self.root / container_id
        sandbox.mkdir()
        wanted: dict[str, object] = {
            "container_id": container_id,
            "task_id": TaskId("web.1"),
            "framework_id": FrameworkId("f"),
            "sandbox": str(sandbox),
            "argv": ("/bin/sh", "-c", script),
            "docker": DockerInfo(image="busybox:latest"),
        }
        return Execution(**{**wanted, **changes})  # type: ignore[arg-type]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    yield made
    await made.runtime.close()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith(("exit of", "logs of", "clear"))] == []


def read(execution: Execution, name: str = "stdout") -> str:
    path = Path(execution.sandbox) / name
    return path.read_text() if path.exists() else ""


async def until(check: object) -> None:
    for _ in range(2000):
        if check():  # type: ignore[operator]
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not happen in time")


async def test_a_start_takes_three_calls_when_the_image_is_there(node: Node) -> None:
    execution = node.execution()
    await node.runtime.start(execution)
    name = container_name(execution.container_id)
    assert node.engine.calls[:3] == [f"create {name}", f"start {name}", f"inspect {name}"]


async def test_a_missing_image_is_pulled_once_for_all_who_want_it(node: Node) -> None:
    node.engine.registry.add("app:1")
    executions = [node.execution(docker=DockerInfo(image="app:1")) for _ in range(4)]
    await asyncio.gather(*(node.runtime.start(execution) for execution in executions))
    assert node.engine.calls.count("pull app:1") == 1


LOGIN = b'{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}'
SHOWN = make_header("own/app", LOGIN, "here")


async def test_a_private_image_is_pulled_with_the_secret_that_it_names(node: Node) -> None:
    node.engine.registry.add("own/app:1")
    node.engine.private["own/app:1"] = SHOWN
    docker = DockerInfo(image="own/app:1", pull_config="secret:docker")
    with pytest.raises(Failed, match="pull access denied"):
        await node.runtime.start(node.execution(docker=DockerInfo(image="own/app:1")))
    with pytest.raises(Failed, match="names as pullConfig is not JSON"):
        await node.runtime.start(node.execution(docker=docker, registries=Secret(b"nonsense")))
    await node.runtime.start(node.execution(docker=docker, registries=Secret(LOGIN)))
    assert node.engine.shown == ["", SHOWN]


@pytest.mark.parametrize("place", [".docker/config.json", ".dockercfg"])
async def test_what_was_fetched_into_the_sandbox_opens_a_registry(node: Node, place: str) -> None:
    node.engine.registry.add("own/app:1")
    node.engine.private["own/app:1"] = SHOWN
    execution = node.execution(docker=DockerInfo(image="own/app:1"))
    path = Path(execution.sandbox) / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(LOGIN)
    await node.runtime.start(execution)
    assert node.engine.shown == [SHOWN]


async def test_no_file_outside_of_the_sandbox_is_read_for_it(node: Node, tmp_path: Path) -> None:
    node.engine.registry.add("own/app:1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.json").write_bytes(LOGIN)
    execution = node.execution(docker=DockerInfo(image="own/app:1"))
    (Path(execution.sandbox) / ".docker").symlink_to(tmp_path / "home")
    await node.runtime.start(execution)
    assert node.engine.shown == [""]


async def test_those_with_other_credentials_do_not_share_a_pull(node: Node) -> None:
    node.engine.registry.add("own/app:1")
    node.engine.private["own/app:1"] = SHOWN
    docker = DockerInfo(image="own/app:1", pull_config="secret:docker")
    without = node.execution(docker=DockerInfo(image="own/app:1"))
    having = node.execution(docker=docker, registries=Secret(LOGIN))
    refused, started = await asyncio.gather(
        node.runtime.start(without), node.runtime.start(having), return_exceptions=True
    )
    assert isinstance(refused, Failed)
    assert not isinstance(started, BaseException)


async def test_a_container_gets_all_of_its_networks_before_it_starts(node: Node) -> None:
    node.engine.networks |= {"blue", "green", "red"}
    docker = DockerInfo(image="busybox:latest", network=NetworkMode.USER)
    execution = node.execution(docker=docker, network="blue", more_networks=("green", "red"))
    await node.runtime.start(execution)
    name = container_name(execution.container_id)
    assert [c for c in node.engine.calls if c.startswith(("create", "connect", "start"))] == [
        f"create {name}", f"connect {name} green", f"connect {name} red", f"start {name}",
    ]  # fmt: skip
    other = node.execution(docker=docker, network="blue", more_networks=("nowhere",))
    with pytest.raises(Failed, match="network nowhere not found"):
        await node.runtime.start(other)
    assert not [c for c in await node.engine.list_labelled("corral.agent", "agent") if other.container_id in str(c)]


async def test_a_start_that_is_tried_again_connects_what_is_missing(node: Node) -> None:
    node.engine.networks |= {"blue", "green", "red"}
    docker = DockerInfo(image="busybox:latest", network=NetworkMode.USER)
    execution = node.execution(docker=docker, network="blue", more_networks=("green", "red"))
    name = container_name(execution.container_id)
    await node.engine.create(name, create_body(execution, "agent"))
    await node.engine.connect(name, "green")
    await node.runtime.start(execution)
    assert (await node.engine.inspect(name))["NetworkSettings"]["Networks"].keys() == {"blue", "green", "red"}


async def test_a_forced_pull_comes_before_the_container(node: Node) -> None:
    node.engine.registry.add("busybox:latest")
    await node.runtime.start(node.execution(docker=DockerInfo(image="busybox:latest", force_pull_image=True)))
    assert node.engine.calls[0] == "pull busybox:latest"


async def test_an_image_that_cannot_be_had_is_a_failure_in_words(node: Node) -> None:
    execution = node.execution(docker=DockerInfo(image="no/such:1"))
    with pytest.raises(Failed, match=r"image no/such:1: not found .* manifest unknown; check its name"):
        await node.runtime.start(execution)
    with pytest.raises(NotFound):
        await node.runtime.wait(execution.container_id)


async def test_a_start_that_docker_refuses_leaves_nothing(node: Node) -> None:
    node.engine.start_refusal = "Bind for 0.0.0.0:31000 failed: port is already allocated"
    execution = node.execution()
    with pytest.raises(Failed, match="port 31000 on this host is taken"):
        await node.runtime.start(execution)
    assert await node.engine.list_labelled("corral.agent", "agent") == []


async def test_a_start_while_the_engine_is_away_for_a_moment_succeeds(node: Node) -> None:
    node.engine.go_away()
    starting = asyncio.create_task(node.runtime.start(node.execution("exit 0")))
    await asyncio.sleep(0.05)
    node.engine.come_back()
    await starting


async def test_a_start_while_the_engine_stays_away_fails_in_words(node: Node) -> None:
    node.engine.go_away()
    with pytest.raises(Failed, match=r"task web.1 was not started: .*; see to the Docker daemon"):
        await node.runtime.start(node.execution())
    node.engine.come_back()


async def test_a_start_cut_short_between_its_calls_is_taken_up(node: Node) -> None:
    """As by an agent that died after `create`."""
    execution = node.execution("sleep 600")
    body: Json = {"Image": "busybox:latest", "Entrypoint": ["sleep"], "Cmd": ["600"],
                  "Labels": {"corral.container": execution.container_id, "corral.agent": "agent"}}  # fmt: skip
    await node.engine.create(container_name(execution.container_id), body)
    launched = await node.runtime.start(execution)
    assert launched.pid is not None
    assert node.runtime.is_elsewhere(launched.container_id), "the fake's pids are nobody's here"
    assert len(await node.runtime.recover()) == 1


async def test_what_was_created_and_never_started_is_not_recovered_but_removed(node: Node) -> None:
    labels = {"corral.container": "c", "corral.agent": "agent"}
    await node.engine.create("corral-c", {"Image": "busybox:latest", "Cmd": ["true"], "Labels": labels})
    assert list(await node.runtime.recover()) == []
    await until(lambda: "remove corral-c" in node.engine.calls)


async def test_a_name_held_by_something_else_is_said(node: Node) -> None:
    execution = node.execution()
    await node.engine.create(container_name(execution.container_id), {"Image": "busybox:latest", "Cmd": ["true"]})
    with pytest.raises(Failed, match="is taken by something else"):
        await node.runtime.start(execution)


async def test_a_start_that_nobody_wants_any_more_leaves_nothing(node: Node) -> None:
    execution = node.execution()
    node.engine.hang()
    starting = asyncio.create_task(node.runtime.start(execution))
    await until(lambda: node.engine.calls)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    node.engine.answer()
    await until(lambda: any(call.startswith("remove") for call in node.engine.calls))
    assert await node.engine.list_labelled("corral.agent", "agent") == []


async def test_an_engine_that_goes_away_ends_no_task(node: Node) -> None:
    execution = node.execution("sleep 600")
    await node.runtime.start(execution)
    waiting = asyncio.create_task(node.runtime.wait(execution.container_id))
    for _ in range(3):
        node.engine.go_away()
        await asyncio.sleep(0.02)
        assert not waiting.done()
        node.engine.come_back()
        await asyncio.sleep(0.02)
    assert not waiting.done()
    await node.runtime.kill(execution.container_id, 0.0)
    assert (await waiting).signal == 9


async def test_an_exit_while_the_engine_is_away_is_learned_with_its_output(node: Node) -> None:
    execution = node.execution("echo up; sleep 0.05; exit 3")
    await node.runtime.start(execution)
    node.engine.go_away()
    waiting = asyncio.create_task(node.runtime.wait(execution.container_id))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    node.engine.come_back()
    assert (await waiting).code == 3
    assert read(execution) == "up\n"


async def test_a_kill_waits_for_an_engine_that_is_away(node: Node) -> None:
    execution = node.execution()
    await node.runtime.start(execution)
    node.engine.go_away()
    killing = asyncio.create_task(node.runtime.kill(execution.container_id, 0.0))
    await asyncio.sleep(0.03)
    node.engine.come_back()
    await killing
    assert (await node.runtime.wait(execution.container_id)).signal == 9


async def test_the_images_own_stop_signal_is_sent(node: Node) -> None:
    execution = node.execution("trap 'exit 0' TERM; cat")
    await node.engine.create(
        container_name(execution.container_id),
        {"Image": "busybox:latest", "Entrypoint": list(execution.argv), "StopSignal": "SIGQUIT",
         "Labels": {"corral.container": execution.container_id, "corral.agent": "agent"}},
    )  # fmt: skip
    await node.runtime.start(execution)
    await node.runtime.kill(execution.container_id, 5.0)
    assert f"kill {container_name(execution.container_id)} SIGQUIT" in node.engine.calls
    assert (await node.runtime.wait(execution.container_id)).code == 0


async def test_a_second_kill_does_not_send_the_stop_signal_again(node: Node) -> None:
    execution = node.execution("trap '' TERM; cat")
    await node.runtime.start(execution)
    patient = asyncio.create_task(node.runtime.kill(execution.container_id, 60.0))
    await asyncio.sleep(0.01)
    await node.runtime.kill(execution.container_id, 0.02)
    await patient
    name = container_name(execution.container_id)
    signals = [call for call in node.engine.calls if call.startswith("kill")]
    assert signals == [f"kill {name} SIGTERM", f"kill {name} SIGKILL"]


async def test_what_runs_is_not_removed(node: Node) -> None:
    execution = node.execution()
    await node.runtime.start(execution)
    with pytest.raises(Conflict):
        await node.runtime.remove(execution.container_id)


async def test_a_recovery_without_an_engine_says_so_and_does_not_say_that_all_are_gone(node: Node) -> None:
    execution = node.execution()
    await node.runtime.start(execution)
    await node.restart_agent()
    node.engine.go_away()
    with pytest.raises(Unavailable):
        await node.runtime.recover()
    node.engine.come_back()
    assert [found.container_id for found in await node.runtime.recover()] == [execution.container_id]


async def test_output_goes_on_through_outages_and_restarts_without_a_gap(node: Node) -> None:
    execution = node.execution()
    await node.runtime.start(execution)
    name = container_name(execution.container_id)
    for number in range(60):
        await node.engine.say(name, STDOUT if number % 3 else STDERR, f"{number}\n")
        if number % 10 == 4:
            node.engine.go_away()
        if number % 10 == 7:
            node.engine.come_back()
        if number % 20 == 19:
            await node.restart_agent()
            await node.runtime.recover()
        if number % 5 == 0:
            await asyncio.sleep(0.01)
    node.engine.come_back()
    await node.runtime.kill(execution.container_id, 0.0)
    await node.runtime.wait(execution.container_id)
    assert read(execution) == "".join(f"{number}\n" for number in range(60) if number % 3)
    assert read(execution, "stderr") == "".join(f"{number}\n" for number in range(60) if not number % 3)


async def test_output_comes_after_what_the_sandbox_held_before(node: Node) -> None:
    execution = node.execution("echo up; exit 0")
    Path(execution.sandbox, "stdout").write_text("fetched app.tar\n")
    await node.runtime.start(execution)
    await node.runtime.wait(execution.container_id)
    assert read(execution) == "fetched app.tar\nup\n"


async def test_a_sandbox_that_is_gone_does_not_hold_back_the_exit(node: Node) -> None:
    execution = node.execution("echo up; exit 2")
    Path(execution.sandbox).rmdir()
    await node.runtime.start(execution)
    assert (await node.runtime.wait(execution.container_id)).code == 2
    assert any("is gone" in words for words in node.said)


def frame(stamp: int, content: bytes) -> bytes:
    entry = b"2026-01-01T00:00:00.%09dZ " % stamp + content
    return b"\x01\0\0\0" + len(entry).to_bytes(4, "big") + entry


def test_a_copy_written_beyond_its_record_is_cut_back_to_it(tmp_path: Path) -> None:
    """As by an agent killed after it wrote output and before it wrote how far it had come."""
    copy = LogCopy(str(tmp_path))
    reader = LogReader(copy.position)
    copy.append(reader, *reader.feed(frame(1, b"one\n"), LATE))
    copy.close()
    with open(tmp_path / "stdout", "ab") as file:
        file.write(b"two, unrecorded")
    again = LogCopy(str(tmp_path))
    assert (tmp_path / "stdout").read_bytes() == b"one\n"
    reader = LogReader(again.position)
    again.append(reader, *reader.feed(frame(1, b"one\n") + frame(2, b"two\n"), LATE))
    again.close()
    assert (tmp_path / "stdout").read_bytes() == b"one\ntwo\n"


def test_a_record_that_a_task_has_spoilt_harms_only_its_own_output(tmp_path: Path) -> None:
    (tmp_path / POSITION_FILE).write_bytes(b"\xff" * 600)
    (tmp_path / "stdout").write_bytes(b"kept\n")
    copy = LogCopy(str(tmp_path))
    assert copy.position.out_size == 5
    copy.close()


@pytest.mark.parametrize("name", ["stdout", "stderr", POSITION_FILE])
def test_no_link_in_a_sandbox_is_followed(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    (sandbox / name).symlink_to(precious)
    copy = LogCopy(str(sandbox))
    reader = LogReader(copy.position)
    copy.append(reader, *reader.feed(frame(1, b"one\n"), LATE))
    copy.close()
    assert precious.read_text() == "untouched"
    assert (sandbox / name).is_file()
    assert not (sandbox / name).is_symlink()


def test_a_directory_in_the_place_of_output_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "stdout").mkdir()
    with pytest.raises(OSError, match="stdout"):
        LogCopy(str(tmp_path))


async def test_a_container_is_given_other_limits_while_it_runs(node: Node) -> None:
    execution = node.execution(cpu_milli=500, mem_mb=64)
    await node.runtime.start(execution)
    await node.runtime.resize(execution.container_id, 2000, 256)
    host = (await node.engine.inspect(container_name(execution.container_id)))["HostConfig"]
    assert (host["CpuShares"], host["Memory"], host["MemorySwap"]) == (2048, 256 << 20, 256 << 20)
    await node.runtime.resize(execution.container_id, 500, None)
    host = (await node.engine.inspect(container_name(execution.container_id)))["HostConfig"]
    assert (host["CpuShares"], host["Memory"]) == (512, 256 << 20)
