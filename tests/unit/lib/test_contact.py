"""The file of an agent's last contact, and those who count from it without the agent."""

from pathlib import Path

import pytest

from corral.lib.contact import SIZE, ContactFile, Fence, Lease, read_contact


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def fence(path: Path, *, strict: bool = True) -> Fence:
    return {"path": str(path), "stop_after_s": 60.0, "grace_s": 2.0, "strict": strict}


def test_what_was_written_last_is_read_of_the_same_boot_alone(tmp_path: Path) -> None:
    path = tmp_path / "contact"
    file = ContactFile(str(path))
    for at in (1234567.123456789, 99.5, 100000.25):
        file.write("b1", at)
        assert read_contact(str(path), "b1") == at
        assert path.stat().st_size == SIZE
    assert read_contact(str(path), "b2") is None


@pytest.mark.parametrize("data", [b"", b"b1 100.0", b"b1 100.0 00000000", b"\xff" * 96, b"b1 x 1 2"])
def test_a_torn_or_foreign_file_says_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "contact"
    path.write_bytes(data)
    assert read_contact(str(path), "b1") is None


def test_a_number_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "contact"
    ContactFile(str(path)).write("b1", 100.0)
    path.write_bytes(path.read_bytes().replace(b"100.0", b"900.0"))
    assert read_contact(str(path), "b1") is None


def test_a_task_has_its_bound_and_a_second_from_the_last_contact(tmp_path: Path) -> None:
    clock, path = Clock(100.0), tmp_path / "contact"
    ContactFile(str(path)).write("b1", 90.0)
    lease = Lease(fence(path), "b1", clock)
    assert lease.left_s() == 51.0
    clock.now = 140.0
    ContactFile(str(path)).write("b1", 138.0)
    assert lease.left_s() == 59.0
    clock.now = 199.0
    assert lease.left_s() == 0.0


def test_a_file_that_is_lost_or_older_shortens_nothing_that_was_known(tmp_path: Path) -> None:
    clock, path = Clock(100.0), tmp_path / "contact"
    ContactFile(str(path)).write("b1", 95.0)
    lease = Lease(fence(path), "b1", clock)
    known = lease.left_s()
    ContactFile(str(path)).write("b1", 20.0)
    assert lease.left_s() == known
    path.unlink()
    assert lease.left_s() == known


def test_without_any_contact_a_strict_one_has_no_time_and_another_counts_from_its_start(tmp_path: Path) -> None:
    clock = Clock(100.0)
    assert Lease(fence(tmp_path / "none"), "b1", clock).left_s() < 0.0
    assert Lease(fence(tmp_path / "none", strict=False), "b1", clock).left_s() == 61.0
