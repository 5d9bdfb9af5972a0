"""Which volumes are links and which need a namespace."""

from pathlib import Path

import pytest

from corral.lib.errors import Failed
from corral.model.execution import Mount
from corral.process.mounts import plan_mounts, prepare_mounts


def mount(target: str, read_only: bool = False) -> Mount:
    return Mount(source="/data", target=target, read_only=read_only)


def test_a_target_in_the_sandbox_is_a_link() -> None:
    for target in ("a/b", "/sandbox/a/b", "./a//b"):
        assert plan_mounts("/sandbox", [mount(target)]).links == (("/sandbox/a/b", "/data"),)


def test_a_link_cannot_be_read_only() -> None:
    assert plan_mounts("/sandbox", [mount("a", read_only=True)]).binds == (("/data", "/sandbox/a", True),)


def test_any_other_absolute_target_is_a_mount() -> None:
    assert plan_mounts("/sandbox", [mount("/sandbox-two/a")]).binds == (("/data", "/sandbox-two/a", False),)


@pytest.mark.parametrize("target", ["..", "../a", "a/../../b", ".", "/sandbox/../a"])
def test_a_relative_target_cannot_leave_the_sandbox(target: str) -> None:
    with pytest.raises(Failed, match="leaves the sandbox"):
        plan_mounts("/sandbox", [mount(target)])


def test_without_volumes_nothing_goes_in_front_of_the_command(tmp_path: Path) -> None:
    assert prepare_mounts(str(tmp_path), []) == []


def test_a_link_that_was_made_before_stays(tmp_path: Path) -> None:
    volume = Mount(source=str(tmp_path), target="here")
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    for _ in range(2):
        assert prepare_mounts(str(sandbox), [volume]) == []
    assert (sandbox / "here").readlink() == tmp_path


def test_a_file_in_the_way_of_a_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("mine")
    with pytest.raises(Failed, match="here"):
        prepare_mounts(str(tmp_path), [Mount(source="/", target="here")])


def test_a_link_below_a_fetched_link_is_refused(tmp_path: Path) -> None:
    sandbox, outside = tmp_path / "sandbox", tmp_path / "outside"
    sandbox.mkdir()
    outside.mkdir()
    (sandbox / "out").symlink_to(outside)
    with pytest.raises(Failed, match="leaves the sandbox"):
        prepare_mounts(str(sandbox), [Mount(source="/", target="out/volume")])
    assert list(outside.iterdir()) == []


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="/no/such/source"):
        prepare_mounts(str(tmp_path), [Mount(source="/no/such/source", target="here")])


def test_without_bubblewrap_its_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="install bubblewrap"):
        prepare_mounts(str(tmp_path), [Mount(source="/", target="/mnt")], find=lambda name: None)
