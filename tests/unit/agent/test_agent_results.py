"""What a task leaves in its result file comes with the news of its success, whatever else it has left there."""

import os
from pathlib import Path

import msgspec
import pytest
from agent_driver import Driver, make_task

from corral.agent import effects as fx
from corral.agent.results import read_result
from corral.agent.spec import Exited
from corral.agent.tasks import wait_for
from corral.model.execution import Exit
from corral.model.task import MOST_RESULT_BYTES, RESULT_LABEL, Label, TaskInfo, TaskState


def with_result(path: str = "result") -> TaskInfo:
    return msgspec.structs.replace(make_task(), labels=(Label(key=RESULT_LABEL, value=path),))


def exits(agent: Driver, code: int, result: bytes | None = None, why: str = "") -> None:
    agent.tell(Exited(Exit(container_id=agent.task().container_id, code=code), result, why))


def test_a_result_is_told_with_the_success(agent: Driver) -> None:
    agent.run(with_result())
    wait = wait_for(agent.task())
    assert (wait.sandbox, wait.result) == (agent.task().sandbox, "result")
    exits(agent, 0, b"42")
    assert (agent.status().state, agent.status().data) == (TaskState.FINISHED, b"42")


def test_why_a_result_was_not_read_is_told(agent: Driver) -> None:
    agent.run(with_result())
    exits(agent, 0, None, "its result file 'result' is no regular file")
    assert agent.status().data is None
    assert agent.status().message == "Command exited with status 0; its result file 'result' is no regular file"


def test_a_task_without_the_label_has_no_result(agent: Driver) -> None:
    agent.run(make_task())
    assert wait_for(agent.task()).result == ""


def test_an_exit_while_no_agent_ran_is_read_too(agent: Driver) -> None:
    agent.run(with_result())
    found = msgspec.structs.replace(
        agent.found(), exit=Exit(container_id=agent.task().container_id, code=0)
    )  # fmt: skip
    agent.start()
    agent.recover(found, runtime="process")
    assert agent.one(fx.Wait).result == "result"
    exits(agent, 0, b"late")
    agent.recover(runtime="docker")
    agent.register()
    assert agent.status().data == b"late"


def test_what_stands_in_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "value").write_bytes(b"x" * MOST_RESULT_BYTES)
    assert read_result(str(tmp_path), "out/value") == (b"x" * MOST_RESULT_BYTES, "")
    assert read_result(str(tmp_path), "nothing") == (None, "")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../secret", "does not lie in the sandbox"),
        ("/etc/passwd", "does not lie in the sandbox"),
        ("link", "cannot be read: Too many levels"),
        ("away/secret", "does not lie in the sandbox"),
        ("pipe", "is no regular file"),
        ("directory", "is no regular file"),
        ("large", "holds more than the 4096 bytes"),
        (".", "does not lie in the sandbox"),
    ],
)
def test_nothing_else_is_read(tmp_path: Path, path: str, why: str) -> None:
    (tmp_path / "secret").write_text("not for tasks")
    sandbox = tmp_path / "sandbox"
    (sandbox / "directory").mkdir(parents=True)
    (sandbox / "link").symlink_to(tmp_path / "secret")
    (sandbox / "away").symlink_to(tmp_path)
    os.mkfifo(sandbox / "pipe")
    (sandbox / "large").write_bytes(b"x" * (MOST_RESULT_BYTES + 1))
    content, told = read_result(str(sandbox), path)
    assert content is None
    assert why in told
