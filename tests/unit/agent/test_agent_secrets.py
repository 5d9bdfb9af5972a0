"""Values of secrets on a node: in memory, for the task alone, gone with it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.agent.execution import plan_execution
from corral.agent.secrets import SecretFiles, find_memory
from corral.agent.spec import AgentConfig, TaskRecord
from corral.docker.containers import create_body
from corral.lib.errors import Failed, Forbidden
from corral.lib.secret import Secret
from corral.master.secrets import sources
from corral.mesos.tasks import read_task_info, write_task_info
from corral.model.command import CommandInfo
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo, Volume, VolumeMode
from corral.model.execution import Execution
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, ContainerId, FrameworkId, TaskId
from corral.model.task import TaskInfo, sources_of
from corral.process.record import environment_of

VALUES = {"secret:pw": Secret(b"hunter2"), "config:c": Secret(b"\xffraw")}


def task(*, image: str = "") -> TaskInfo:
    return TaskInfo(
        task_id=TaskId("t"),
        name="t",
        agent_id=AgentId("a"),
        resources=(),
        command=CommandInfo(value="true", environment=(("A", "1"),), secrets=(("PW", "secret:pw"),)),
        container=ContainerInfo(
            kind=ContainerKind.DOCKER if image else ContainerKind.MESOS,
            docker=DockerInfo(image=image) if image else None,
            volumes=(Volume(container_path="conf/file", mode=VolumeMode.RO, secret="config:c"),),
        ),
    )


def planned(*, image: str = "") -> Execution:
    record = TaskRecord(
        FrameworkId("F"), "*", task(image=image), ContainerId("c1"), "docker" if image else "process", "/box"
    )  # fmt: skip
    framework = FrameworkInfo(user="root", name="f")
    return plan_execution(AgentConfig(hostname="h", runtimes=("process",)), AgentId("a"), framework, record).execution


async def fetch(framework_id: str, task_id: str) -> Mapping[str, Secret]:
    assert (framework_id, task_id) == ("F", "t")
    return VALUES


def test_a_task_says_what_it_names_and_its_plan_holds_no_value() -> None:
    assert sources_of(task()) == ("secret:pw", "config:c")
    execution = planned()
    assert execution.secrets == (("PW", "secret:pw"),)
    assert execution.secret_files == (("conf/file", "config:c"),)
    assert "PW" not in dict(execution.environment)
    assert planned(image="i").secret_files == (("/mnt/mesos/sandbox/conf/file", "config:c"),)


async def test_a_process_gets_files_and_a_file_of_variables_that_only_it_can_read(tmp_path: Path) -> None:
    files = SecretFiles("x", fetch, str(tmp_path / "memory"))
    filled = await files.fill(planned(), None)
    (mount,) = filled.mounts
    assert Path(mount.source).read_bytes() == b"\xffraw"
    assert mount.target == "conf/file"
    assert json.loads(Path(filled.hidden_file).read_text()) == {"PW": "hunter2"}
    assert {os.stat(p).st_mode & 0o777 for p in (mount.source, filled.hidden_file)} == {0o400}
    run: Any = {"environment": [("A", "1")], "hidden": filled.hidden_file}
    assert environment_of(run) == {"A": "1", "PW": "hunter2"}
    assert "hunter2" not in repr(filled)
    files.clear("c1")
    assert list((tmp_path / "memory").iterdir()) == []
    with pytest.raises(OSError, match="No such file"):
        environment_of(run)


async def test_files_get_newer_values_in_place_whatever_their_length(tmp_path: Path) -> None:
    files = SecretFiles("x", fetch, str(tmp_path / "memory"))
    (mount,) = (await files.fill(planned(), None)).mounts
    before = os.stat(mount.source)
    for value in (b"longer than it was before", b""):
        VALUES["config:c"] = Secret(value)
        await files.renew("F", "t", "c1", ("config:c",))
        assert Path(mount.source).read_bytes() == value
    VALUES["config:c"] = Secret(b"\xffraw")
    after = os.stat(mount.source)
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)
    with pytest.raises(Failed, match="gave no value for secret:gone"):
        await files.renew("F", "t", "c1", ("secret:gone",))
    with pytest.raises(Failed, match="cannot be written anew"):
        await files.renew("F", "t", "other", ("config:c",))


async def test_a_container_gets_mounts_that_cannot_be_written_and_its_variables(tmp_path: Path) -> None:
    filled = await SecretFiles("x", fetch, str(tmp_path / "memory")).fill(planned(image="i"), "bob")
    (mount,) = [m for m in filled.mounts if m.target.endswith("conf/file")]
    assert mount.read_only
    assert "hunter2" not in repr(filled)
    assert "PW=hunter2" in create_body(filled, "owner")["Env"]
    assert os.stat(tmp_path / "memory/c1").st_mode & 0o777 == 0o700


async def test_a_run_of_the_same_name_begins_with_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    files = SecretFiles("x", fetch, str(tmp_path))
    await files.fill(planned(), None)
    (tmp_path / "c1/left").touch()
    await files.fill(planned(), None)
    assert not (tmp_path / "c1/left").exists()


async def test_a_value_that_no_variable_can_hold_is_refused_without_showing_it(tmp_path: Path) -> None:
    for value in (b"\xff\xfe", b"a\0b"):

        async def strange(framework_id: str, task_id: str, value: bytes = value) -> Mapping[str, Secret]:
            return {**VALUES, "secret:pw": Secret(value)}

        with pytest.raises(Failed, match="variable PW"):
            await SecretFiles("x", strange, str(tmp_path)).fill(planned(), None)


async def test_a_value_that_did_not_come_fails_the_start_by_name(tmp_path: Path) -> None:
    async def nothing(framework_id: str, task_id: str) -> Mapping[str, Secret]:
        return {}

    with pytest.raises(Failed, match="secret:pw"):
        await SecretFiles("x", nothing, str(tmp_path)).fill(planned(), None)


async def test_a_run_that_names_nothing_asks_nobody() -> None:
    async def never(framework_id: str, task_id: str) -> Mapping[str, Secret]:
        raise AssertionError

    plain = Execution(container_id=ContainerId("c"), task_id=TaskId("t"), framework_id=FrameworkId("F"), sandbox="/")
    assert await SecretFiles("x", never, "/nowhere").fill(plain, None) is plain


def test_only_a_memory_file_system_is_good_enough(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"disk / ext4 rw 0 0\nnone {tmp_path} tmpfs rw 0 0\n")
    assert find_memory("n", (str(tmp_path),), str(mounts)) == str(tmp_path / "n")
    mounts.write_text(f"disk {tmp_path} ext4 rw 0 0\n")
    assert find_memory("n", (str(tmp_path),), str(mounts)) is None


def test_the_mesos_form_of_a_reference_is_read_and_written() -> None:
    info = task(image="i")
    assert read_task_info(write_task_info(info, refinement=True), "t") == info


def test_only_the_agent_of_a_task_is_told_what_it_names() -> None:
    from types import SimpleNamespace as Some

    from corral.master.spec import GetSources

    entry = Some(info=task())
    state: Any = Some(
        sessions={"s": Some(agent_id="a"), "new": Some(agent_id=None), "other": Some(agent_id="b")},
        agents={"a": Some(tasks={("F", "t"): entry}), "b": Some(tasks={})},
    )
    assert sources(state, GetSources(session="s", framework_id="F", task_id="t")) == ("secret:pw", "config:c")
    for session, name in (("other", "t"), ("new", "t"), ("none", "t"), ("s", "u")):
        with pytest.raises(Forbidden):
            sources(state, GetSources(session=session, framework_id="F", task_id=name))


async def test_the_credentials_of_an_image_are_fetched_and_go_to_no_file(tmp_path: Path) -> None:
    docker = DockerInfo(image="own/app", pull_config="secret:pw")
    info = TaskInfo(
        task_id=TaskId("t"), name="t", agent_id=AgentId("a"), resources=(),
        container=ContainerInfo(kind=ContainerKind.DOCKER, docker=docker),
    )  # fmt: skip
    assert sources_of(info) == ("secret:pw",)
    execution = msgspec.structs.replace(planned(), docker=docker, secrets=(), secret_files=())
    filled = await SecretFiles("a", fetch, str(tmp_path / "memory")).fill(execution, None)
    assert filled.registries.reveal() == b"hunter2"
    assert "hunter2" not in repr(filled)
    assert not (tmp_path / "memory").exists()
    other = msgspec.structs.replace(execution, docker=DockerInfo(image="own/app", pull_config="secret:none"))
    with pytest.raises(Failed, match="secret:none"):
        await SecretFiles("a", fetch, str(tmp_path)).fill(other, None)
