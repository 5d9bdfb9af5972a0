"""Sandboxes: made, shown without showing anything else, followed, deleted."""

import os
from pathlib import Path

import pytest

from corral.agent.sandbox import Sandboxes, find_last_lines, find_user, measure_tree
from corral.lib.errors import Failed, Forbidden, Invalid, NotFound

RUNS = "slaves/S1/frameworks/F1/executors/web.1/runs"


@pytest.fixture
def sandboxes(tmp_path: Path) -> Sandboxes:
    return Sandboxes(str(tmp_path), {"/slave/log": str(tmp_path / "agent.log")})


async def make(sandboxes: Sandboxes, root: Path, container: str = "C1") -> Path:
    path = root / RUNS / container
    await sandboxes.make(str(path))
    return path


async def test_a_sandbox_is_made_with_its_directories_and_is_the_latest(sandboxes: Sandboxes, tmp_path: Path) -> None:
    path = tmp_path / RUNS / "C1"
    for _ in range(2):
        await sandboxes.make(str(path), None, [str(path / "data/deep"), str(path / "data")])
    assert (path / "data/deep").is_dir()
    await make(sandboxes, tmp_path, "C2")
    assert os.readlink(tmp_path / RUNS / "latest") == "C2"
    assert sorted(os.listdir(tmp_path / RUNS)) == ["C1", "C2", "latest"]


async def test_what_tasks_of_a_group_share_is_open_to_all_of_them(sandboxes: Sandboxes, tmp_path: Path) -> None:
    home = tmp_path / RUNS / "C1"
    task = home / "tasks/a"
    await sandboxes.make(str(task), None, [str(home / "volumes/shared"), str(task / "own")])
    modes = {name: (home / name).stat().st_mode & 0o777 for name in ("volumes", "volumes/shared", "tasks/a/own")}
    assert modes == {"volumes": 0o755, "volumes/shared": 0o777, "tasks/a/own": 0o755}


@pytest.mark.parametrize("path", ["/etc", "slaves/S1/frameworks/F1/executors/E/runs", RUNS + "/latest", RUNS + "/.."])
async def test_nothing_else_is_made_or_deleted(sandboxes: Sandboxes, tmp_path: Path, path: str) -> None:
    for act in (sandboxes.make, sandboxes.delete):
        with pytest.raises(Invalid, match="no sandbox"):
            await act(os.path.join(tmp_path, path))


async def test_a_directory_outside_is_not_made(sandboxes: Sandboxes, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="not in sandbox"):
        await sandboxes.make(str(tmp_path / RUNS / "C1"), None, [str(tmp_path / "else")])
    assert not (tmp_path / "else").exists()


async def test_a_directory_below_a_link_is_not_made(sandboxes: Sandboxes, tmp_path: Path) -> None:
    path = await make(sandboxes, tmp_path)
    (tmp_path / "else").mkdir()
    (path / "out").symlink_to(tmp_path / "else")
    with pytest.raises(Failed, match="cannot be made"):
        await sandboxes.make(str(path), None, [str(path / "out/volume")])
    assert os.listdir(tmp_path / "else") == []


async def test_an_unknown_owner_is_named_by_root(sandboxes: Sandboxes, tmp_path: Path) -> None:
    path = str(tmp_path / RUNS / "C1")
    if os.geteuid() == 0:
        with pytest.raises(Failed, match="no-such-user"):
            await sandboxes.make(path, "no-such-user")
    else:
        await sandboxes.make(path, "no-such-user")
        assert os.path.isdir(path)


async def test_a_work_directory_behind_a_link_is_known_by_both_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    sandboxes = Sandboxes(str(tmp_path / "link"))
    for name in ("link", "real"):
        path = tmp_path / name / RUNS / name
        await sandboxes.make(str(path))
        (path / "stdout").write_text(name)
        assert await sandboxes.read(f"{path}/stdout", 0) == (name.encode(), 0)
        await sandboxes.delete(str(path))


async def test_all_sandboxes_are_found_again(sandboxes: Sandboxes, tmp_path: Path) -> None:
    assert await sandboxes.scan() == ()
    for index, container in enumerate(("C2", "C1", "C3")):
        os.utime(await make(sandboxes, tmp_path, container), (index, index))
    assert [(s.container_id, s.at) for s in await sandboxes.scan()] == [("C2", 0.0), ("C1", 1.0), ("C3", 2.0)]


async def test_deleting_the_last_run_tidies_up_and_spares_what_links_lead_to(
    sandboxes: Sandboxes, tmp_path: Path
) -> None:
    first, second = await make(sandboxes, tmp_path), await make(sandboxes, tmp_path, "C2")
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "precious").touch()
    (second / "volume").symlink_to(tmp_path / "host")
    await sandboxes.delete(str(second))
    assert sorted(os.listdir(tmp_path / RUNS)) == ["C1"]
    await sandboxes.delete(str(first))
    await sandboxes.delete(str(first))
    assert os.listdir(tmp_path / "slaves") == []
    assert (tmp_path / "host" / "precious").exists()


async def test_browsing_shows_what_ls_would(sandboxes: Sandboxes, tmp_path: Path) -> None:
    path = await make(sandboxes, tmp_path)
    (path / "stdout").write_text("hello")
    (path / "stdout").chmod(0o640)
    (path / "data").mkdir()
    rows = await sandboxes.browse(str(path))
    assert [(row.path, row.mode, row.size) for row in rows if row.path.endswith("stdout")] == [
        (f"{path}/stdout", "-rw-r-----", 5)
    ]
    assert [row.mode[0] for row in rows] == ["d", "-"]
    assert rows[0].uid != ""


async def test_a_sandbox_has_a_virtual_path_too(sandboxes: Sandboxes, tmp_path: Path) -> None:
    path = await make(sandboxes, tmp_path)
    (path / "stdout").write_text("hello")
    for run in ("C1", "latest"):
        virtual = f"/frameworks/F1/executors/web.1/runs/{run}"
        assert (await sandboxes.browse(virtual))[0].path == f"{virtual}/stdout"
        assert await sandboxes.read(f"{virtual}/stdout", 0) == (b"hello", 0)


async def test_a_part_of_a_file_is_read(sandboxes: Sandboxes, tmp_path: Path) -> None:
    path = await make(sandboxes, tmp_path)
    (path / "stdout").write_text("hello world")
    name = f"{path}/stdout"
    assert await sandboxes.read(name, -1) == (b"", 11)
    assert await sandboxes.read(name, 6) == (b"world", 6)
    assert await sandboxes.read(name, 6, 2) == (b"wo", 6)
    assert await sandboxes.read(name, 100) == (b"", 100)
    for offset, length in ((-2, 1), (0, -2)):
        with pytest.raises(Invalid, match="negative"):
            await sandboxes.read(name, offset, length)


async def test_the_agents_log_is_readable(sandboxes: Sandboxes, tmp_path: Path) -> None:
    (tmp_path / "agent.log").write_text("line\n")
    assert await sandboxes.read("/slave/log", 0) == (b"line\n", 0)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", Invalid),
        ("/etc/passwd", NotFound),
        ("{run}/../../../../../../../agent.log", NotFound),
        ("{root}/agent.log", NotFound),
        ("{root}/slaves/S1", NotFound),
        ("{run}/missing", NotFound),
        ("{run}/data", Invalid),
        ("{run}/a\0b", Invalid),
        ("{run}/passwd", Forbidden),
        ("{run}/etc/passwd", Forbidden),
        ("{run}/fifo", Invalid),
        ("/frameworks/F1/executors/web.1/runs/../../../../../agent.log", NotFound),
    ],
)
async def test_nothing_outside_of_a_sandbox_is_read(
    sandboxes: Sandboxes, tmp_path: Path, path: str, error: type[Exception]
) -> None:
    run = await make(sandboxes, tmp_path)
    (tmp_path / "agent.log").write_text("private")
    (run / "data").mkdir()
    (run / "passwd").symlink_to("/etc/passwd")
    (run / "etc").symlink_to("/etc")
    os.mkfifo(run / "fifo")
    with pytest.raises(error):
        await sandboxes.read(path.format(run=run, root=tmp_path), 0)


async def test_a_link_inside_of_the_sandbox_is_followed(sandboxes: Sandboxes, tmp_path: Path) -> None:
    run = await make(sandboxes, tmp_path)
    (run / "real").write_text("x")
    (run / "link").symlink_to("real")
    assert await sandboxes.read(f"{run}/link", 0) == (b"x", 0)


async def test_a_download_is_as_long_as_it_said(sandboxes: Sandboxes, tmp_path: Path) -> None:
    run = await make(sandboxes, tmp_path)
    (run / "big").write_bytes(b"ab" * 400_000)
    size, chunks = await sandboxes.download(f"{run}/big")
    with (run / "big").open("ab") as file:
        file.write(b"more")
    assert b"".join([chunk async for chunk in chunks]) == b"ab" * 400_000
    assert size == 800_000


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        ("", 3, ""),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\n", 5, "a\nb\n"),
        ("a\n\n\n", 2, "\n\n"),
        ("a\nb\n", 0, ""),
        ("x" * 100_000 + "\n" + "y" * 100_000 + "\n", 1, "y" * 100_000 + "\n"),
        ("x\n" * 70_000, 69_999, "x\n" * 69_999),
    ],
)
def test_the_last_lines_of_a_file_are_found(tmp_path: Path, text: str, lines: int, expected: str) -> None:
    (tmp_path / "file").write_text(text)
    handle = os.open(tmp_path / "file", os.O_RDONLY)
    assert text[find_last_lines(handle, len(text), lines) :] == expected
    os.close(handle)


async def test_a_log_is_followed_until_its_task_has_ended(sandboxes: Sandboxes, tmp_path: Path) -> None:
    run = await make(sandboxes, tmp_path)
    steps = iter(["", "one\n", "two\n"])

    def ended() -> bool:
        text = next(steps, None)
        if text is None:
            # What is written just before the end must still be seen.
            with (run / "stdout").open("a") as file:
                file.write("last\n")
            return True
        if text:
            with (run / "stdout").open("a") as file:
                file.write(text)
        return False

    seen = b"".join([c async for c in sandboxes.follow(f"{run}/stdout", follow=True, ended=ended)])
    assert seen == b"one\ntwo\nlast\n"


async def test_a_log_that_was_cut_is_read_from_its_beginning(sandboxes: Sandboxes, tmp_path: Path) -> None:
    run = await make(sandboxes, tmp_path)
    (run / "stdout").write_text("a long first part\n")
    steps = iter([False, False, True])

    def ended() -> bool:
        now = next(steps)
        if now:
            (run / "stdout").write_text("new\n")
        return now

    seen = b"".join([c async for c in sandboxes.follow(f"{run}/stdout", follow=True, ended=ended)])
    assert seen == b"a long first part\nnew\n"


async def test_a_log_is_read_from_where_one_likes(sandboxes: Sandboxes, tmp_path: Path) -> None:
    run = await make(sandboxes, tmp_path)
    (run / "stdout").write_text("one\ntwo\nthree\n")

    async def read(**options: int) -> bytes:
        return b"".join([chunk async for chunk in sandboxes.follow(f"{run}/stdout", **options)])  # type: ignore[arg-type]

    assert await read() == b"one\ntwo\nthree\n"
    assert await read(offset=4) == b"two\nthree\n"
    assert await read(offset=-6) == b"three\n"
    assert await read(offset=100) == b""
    assert await read(lines=1) == b"three\n"
    with pytest.raises(NotFound):
        await anext(sandboxes.follow(f"{run}/stderr"))


async def test_the_log_of_a_task_that_never_wrote_ends_with_it(sandboxes: Sandboxes, tmp_path: Path) -> None:
    run = await make(sandboxes, tmp_path)
    assert [c async for c in sandboxes.follow(f"{run}/stdout", follow=True, ended=lambda: True)] == []


async def test_disk_is_measured_by_blocks_and_each_file_once(sandboxes: Sandboxes, tmp_path: Path) -> None:
    run = await make(sandboxes, tmp_path)
    (run / "big").write_bytes(b"x" * 1_000_000)
    before = await sandboxes.measure(str(run))
    os.link(run / "big", run / "again")
    (run / "usr").symlink_to("/usr")
    assert 1_000_000 <= before <= await sandboxes.measure(str(run)) < 1_100_000
    assert measure_tree(str(tmp_path / "nowhere")) == 0
    assert 0.0 < await sandboxes.disk_usage() <= 1.0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["no-such-user", "a\0b", "²", "99999999999999999999999", "4294967290"])
def test_a_user_that_the_node_does_not_have_is_a_named_failure(name: str) -> None:
    with pytest.raises(Failed, match="does not exist on this node"):
        find_user(name)
