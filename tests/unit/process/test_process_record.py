"""The files by which a run is remembered, and the output files."""

import os
from pathlib import Path

import pytest

from corral.process import record
from corral.process.enter import CannotEnter
from corral.process.supervisor import open_log, rotate_log


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_written_is_read(tmp_path: Path, durable: bool) -> None:
    record.write_record(str(tmp_path), record.EXIT, {"code": 3, "message": "ü" * 5000}, durable=durable)
    record.write_record(str(tmp_path), record.EXIT, {"code": 4}, durable=durable)
    assert record.read_record(str(tmp_path), record.EXIT) == {"code": 4}
    assert os.listdir(tmp_path) == [record.EXIT]


def test_reserved_space_does_not_show_in_the_record(tmp_path: Path) -> None:
    record.reserve(str(tmp_path), record.EXIT)
    assert record.read_record(str(tmp_path), record.EXIT) is None
    record.write_record(str(tmp_path), record.EXIT, {"code": 4})
    assert (tmp_path / record.EXIT).read_bytes() == b'{"code": 4}'


def test_a_missing_or_torn_record_is_none(tmp_path: Path) -> None:
    assert record.read_record(str(tmp_path), record.PIDS) is None
    assert record.read_record(str(tmp_path / "nowhere"), record.PIDS) is None
    for rest in (b"", b'{"pid": 4', b"\0\0\0\0"):
        (tmp_path / record.PIDS).write_bytes(rest)
        assert record.read_record(str(tmp_path), record.PIDS) is None


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first = record.take_lock(str(tmp_path))
    assert first is not None
    assert record.take_lock(str(tmp_path)) is None
    os.close(first)
    second = record.take_lock(str(tmp_path))
    assert second is not None
    os.close(second)


def test_the_lock_of_a_removed_run_cannot_be_taken(tmp_path: Path) -> None:
    assert record.take_lock(str(tmp_path / "gone")) is None


def test_secrets_in_a_record_are_for_its_owner_alone(tmp_path: Path) -> None:
    record.write_record(str(tmp_path), record.RUN, {"environment": [["PASSWORD", "x"]]})
    assert (tmp_path / record.RUN).stat().st_mode & 0o777 == 0o600


def test_output_is_appended(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("before\n")
    handle = open_log(str(tmp_path), "stdout", None)
    os.write(handle, b"after\n")
    os.close(handle)
    assert (tmp_path / "stdout").read_text() == "before\nafter\n"


def test_an_output_file_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("fifo", "directory", "link"):
        with pytest.raises(CannotEnter, match=name):
            open_log(str(tmp_path), name, None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_log_over_its_bound_becomes_the_older_part(tmp_path: Path) -> None:
    handle = open_log(str(tmp_path), "stdout", None)
    path = str(tmp_path / "stdout")
    for text in (b"a" * 100, b"b" * 100):
        os.write(handle, text)
        assert rotate_log(path, handle, 50)
        assert (tmp_path / "stdout.1").read_bytes() == text
        assert (tmp_path / "stdout").read_bytes() == b""
    os.write(handle, b"c" * 50)
    assert not rotate_log(path, handle, 50)
    os.close(handle)


def test_rotation_writes_to_no_link_that_the_task_made(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    handle = open_log(str(tmp_path), "stdout", None)
    (tmp_path / "stdout.1").symlink_to(victim)
    os.write(handle, b"x" * 100)
    rotate_log(str(tmp_path / "stdout"), handle, 50)
    os.close(handle)
    assert victim.read_text() == "precious"
