"""Directories of runs that are over serve those to come, and nothing of the old runs can be taken for theirs."""

import os
from pathlib import Path

import pytest

from corral.process import record
from corral.process.spares import Spares

ALL = (record.RUN, record.PIDS, record.EXIT, record.KILL)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


def run_once(spares: Spares, directory: Path, mark: str) -> None:
    spares.make(str(directory))
    for name in (record.EXIT, record.KILL):
        record.reserve(str(directory), name)
    for name in (record.RUN, record.PIDS, record.EXIT):
        record.write_record(str(directory), name, {"mark": mark})
    handle = record.take_lock(str(directory))
    assert handle is not None
    os.close(handle)


def test_the_directory_of_a_run_that_is_over_serves_the_next(state: Path) -> None:
    spares = Spares(str(state))
    run_once(spares, state / "a", "first and longer than the second")
    inodes = {(state / "a" / name).stat().st_ino for name in (record.RUN, record.PIDS, record.EXIT, record.LOCK)}
    spares.forget(str(state / "a"))
    spares.make(str(state / "b"))
    assert not (state / "a").exists()
    assert all(record.read_record(str(state / "b"), name) is None for name in ALL)
    assert b"first" not in (state / "b" / (record.RUN + record.NEW)).read_bytes()
    for name in (record.RUN, record.PIDS, record.EXIT):
        record.write_record(str(state / "b"), name, {"mark": "2"})
        assert record.read_record(str(state / "b"), name) == {"mark": "2"}
    assert {(state / "b" / n).stat().st_ino for n in (record.RUN, record.PIDS, record.EXIT, record.LOCK)} == inodes


def test_a_directory_with_anything_else_in_it_is_deleted(state: Path) -> None:
    spares = Spares(str(state))
    run_once(spares, state / "a", "1")
    (state / "a" / "stranger").write_text("x")
    spares.forget(str(state / "a"))
    assert list(state.iterdir()) == []


def test_no_more_are_kept_than_may_be_and_none_looks_like_a_run(state: Path) -> None:
    spares = Spares(str(state), most=2)
    for name in "abc":
        run_once(spares, state / name, name)
    for name in "abc":
        spares.forget(str(state / name))
    names = [path.name for path in state.iterdir()]
    assert len(names) == 2
    assert all(name.startswith(".") for name in names)
    spares.forget(str(state / "a"))
    assert len(list(state.iterdir())) == 2


def test_a_run_that_is_there_already_is_not_replaced(state: Path) -> None:
    spares = Spares(str(state))
    run_once(spares, state / "a", "1")
    run_once(spares, state / "b", "2")
    spares.forget(str(state / "b"))
    with pytest.raises(FileExistsError):
        spares.make(str(state / "a"))
    assert record.read_record(str(state / "a"), record.RUN) == {"mark": "1"}
    spares.make(str(state / "c"))
    assert (state / "c" / record.LOCK).exists()


def test_a_spare_that_somebody_removed_is_made_anew(state: Path) -> None:
    spares = Spares(str(state))
    run_once(spares, state / "a", "1")
    spares.forget(str(state / "a"))
    (spare,) = state.iterdir()
    spare.rename(state.parent / f"gone-{os.getpid()}")
    spares.make(str(state / "b"))
    assert list((state / "b").iterdir()) == []
