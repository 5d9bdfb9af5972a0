"""What is fetched from this node, where it lands, and what archives cannot do."""

import asyncio
import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from corral.agent.cache import Cache, CacheTrouble
from corral.agent.fetcher import Fetcher, local_path, mask, target_name
from corral.agent.unpack import archive_kind, unpack
from corral.lib.errors import Failed
from corral.model.task import Uri


@pytest.fixture
async def fetcher(tmp_path: Path) -> AsyncIterator[Fetcher]:
    made = Fetcher(str(tmp_path / "cache"), most_bytes=1_000_000)
    yield made
    await made.close()


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    (tmp_path / "sandbox").mkdir()
    return tmp_path / "sandbox"


def tar(path: Path, *members: tuple[str, bytes | str], mode: str = "w:gz") -> Path:
    """An archive; a member whose content is text is a symbolic link to it."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o6755
            info.uid = info.gid = 12345
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


# Names.


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("http://host/path/app.tar.gz?token=1/2#part", "app.tar.gz"),
        ("https://host/a%20b.txt", "a b.txt"),
        ("file:///etc/hosts", "hosts"),
        ("/etc/we%20ird", "we%20ird"),
    ],
)
def test_a_file_is_called_like_the_end_of_its_path(value: str, name: str) -> None:
    assert target_name(Uri(value=value)) == name


@pytest.mark.parametrize("value", ["http://host", "http://host/", "http://host/a%2fb", "http://host/..", "/"])
def test_a_uri_without_a_file_name_is_refused(value: str) -> None:
    with pytest.raises(Failed, match="set output_file"):
        target_name(Uri(value=value))


@pytest.mark.parametrize("output", ["/etc/passwd", "../x", "a/../../x", "."])
def test_an_output_file_cannot_leave_the_sandbox(output: str) -> None:
    with pytest.raises(Failed, match="leaves the sandbox"):
        target_name(Uri(value="/etc/hosts", output_file=output))


@given(st.text())
def test_no_output_file_ever_leaves_the_sandbox(output: str) -> None:
    try:
        name = target_name(Uri(value="/etc/hosts", output_file=output))
    except Failed:
        return
    assert os.path.normpath(os.path.join("/sandbox", name)).startswith("/sandbox/")


def test_only_files_of_this_node_are_local() -> None:
    assert local_path("/a b") == "/a b"
    assert local_path("file:///a%20b") == local_path("file://localhost/a%20b") == "/a b"
    for value in ("file://other/a", "file:a"):
        with pytest.raises(Failed, match="absolute path"):
            local_path(value)


def test_messages_show_no_password() -> None:
    assert mask("https://me:secret@host:8080/x?y=1") == "https://***@host:8080/x?y=1"
    assert mask("https://host/x@y") == "https://host/x@y"


# Local files.


async def test_a_local_file_is_copied(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("x=1")
    uris = [Uri(value=f"{tmp_path}/config"), Uri(value=f"file://{tmp_path}/config", output_file="a/b/c")]
    await fetcher.fetch(uris, str(sandbox))
    assert (sandbox / "config").read_text() == (sandbox / "a/b/c").read_text() == "x=1"
    assert sorted(os.listdir(sandbox)) == ["a", "config"]


async def test_an_executable_is_made_so_and_never_unpacked(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    source = tar(tmp_path / "run.tgz", ("inside", b"x"))
    await fetcher.fetch([Uri(value=str(source), executable=True)], str(sandbox))
    assert os.listdir(sandbox) == ["run.tgz"]
    assert (sandbox / "run.tgz").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/no/such/file", "no such file"),
        ("/etc", "no plain file"),
        ("hdfs://name/file", "scheme hdfs is not supported"),
        ("relative/file", "scheme none is not supported"),
        ("http://[bad/file", "Invalid IPv6"),
    ],
)
async def test_what_cannot_be_fetched_is_named_with_its_cause(
    fetcher: Fetcher, sandbox: Path, value: str, words: str
) -> None:
    with pytest.raises(Failed, match=words) as caught:
        await fetcher.fetch([Uri(value=value)], str(sandbox))
    assert value in caught.value.message
    assert os.listdir(sandbox) == []


async def test_a_file_over_the_bound_is_refused(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 1_000_001)
    with pytest.raises(Failed, match="larger than 1000000 bytes"):
        await fetcher.fetch([Uri(value=str(tmp_path / "big"))], str(sandbox))
    assert os.listdir(sandbox) == []


async def test_the_checksum_decides(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    right = "sha256:" + hashlib.sha256(b"content").hexdigest().upper()
    uri = str(tmp_path / "file")
    await fetcher.fetch([Uri(value=uri, checksum=right)], str(sandbox))
    (sandbox / "file").unlink()
    for checksum, words in (("sha256:" + "0" * 64, "does not have checksum"), ("md5:0", "sha256:HEX")):
        for cache in (False, True):
            with pytest.raises(Failed, match=words):
                await fetcher.fetch([Uri(value=uri, checksum=checksum, cache=cache)], str(sandbox))
            assert os.listdir(sandbox) == []


async def test_a_target_behind_a_fetched_link_is_refused(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (sandbox / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(Failed, match="in the way"):
        await fetcher.fetch([Uri(value="/etc/hosts", output_file="out/hosts")], str(sandbox))
    assert os.listdir(tmp_path / "outside") == []


async def test_a_fetched_link_is_replaced_and_not_followed(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (sandbox / "hosts").symlink_to(tmp_path / "victim")
    await fetcher.fetch([Uri(value="/etc/hosts")], str(sandbox))
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (sandbox / "hosts").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can fetch for others")
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nobody_fetches_what_he_could_not_read_himself(
    tmp_path: Path, sandbox: Path, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(fetch_as_nobody(Fetcher(str(tmp_path / "others")), sandbox, tmp_path))


async def fetch_as_nobody(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(0o755)
    (tmp_path / "secret").write_text("root only")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "public").write_text("for all")
    (tmp_path / "public").chmod(0o644)
    with pytest.raises(Failed, match="Permission denied"):
        await fetcher.fetch([Uri(value=str(tmp_path / "secret"))], str(sandbox), "nobody")
    await fetcher.fetch([Uri(value=str(tmp_path / "public"), output_file="d/e")], str(sandbox), "nobody")
    assert (sandbox / "d/e").read_text() == "for all"
    assert (sandbox / "d").stat().st_uid == (sandbox / "d/e").stat().st_uid == 65534


@pytest.mark.parametrize(
    "uri",
    [Uri(value="file:///etc/a\0b"), Uri(value="/etc/a\0b"), Uri(value="http://[::1/x"),
     Uri(value="/etc/hosts", output_file="a\0b"), Uri(value="/etc/hosts", output_file="n" * 300)],
)  # fmt: skip
@pytest.mark.parametrize("user", [None, "nobody"])
async def test_a_uri_that_the_system_cannot_take_is_a_named_failure(
    fetcher: Fetcher, sandbox: Path, uri: Uri, user: str | None
) -> None:
    with pytest.raises(Failed, match=r"cannot fetch|leaves the sandbox"):
        await fetcher.fetch([uri], str(sandbox), user if os.geteuid() == 0 else None)


# Archives.


def test_known_suffixes_are_archives() -> None:
    kinds = {"a.tar.gz": "tar", "A.TGZ": "tar", "a.tar": "tar", "a.tar.xz": "tar", "a.txz": "tar", "a.tbz2": "tar",
             "a.tar.bz2": "tar", "a.zip": "zip", "a.gz": "gz", "a.txt": None, "gz": None, "a.jar": None}  # fmt: skip
    assert {name: archive_kind(name) for name in kinds} == kinds


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("txz", "w:xz")])
async def test_a_tar_is_unpacked_beside_itself(
    fetcher: Fetcher, sandbox: Path, tmp_path: Path, suffix: str, mode: str
) -> None:
    source = tar(tmp_path / f"app.{suffix}", ("app/run", b"#!/bin/sh\n"), ("app/link", "run"), mode=mode)
    await fetcher.fetch([Uri(value=str(source))], str(sandbox))
    assert sorted(os.listdir(sandbox)) == ["app", source.name]
    found = (sandbox / "app/run").stat()
    assert found.st_mode & 0o7777 == 0o755
    assert found.st_uid == os.geteuid()
    assert os.readlink(sandbox / "app/link") == "run"


async def test_an_archive_stays_packed_when_asked(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    source = tar(tmp_path / "app.tgz", ("inside", b"x"))
    await fetcher.fetch([Uri(value=str(source), extract=False)], str(sandbox))
    assert os.listdir(sandbox) == ["app.tgz"]


async def test_a_zip_keeps_modes_and_links(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        run = zipfile.ZipInfo("app/run")
        run.external_attr = (stat.S_IFREG | 0o4755) << 16
        archive.writestr(run, "#!/bin/sh\n")
        link = zipfile.ZipInfo("app/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "run")
        archive.writestr("empty/", "")
    await fetcher.fetch([Uri(value=str(tmp_path / "app.zip"))], str(sandbox))
    assert (sandbox / "app/run").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(sandbox / "app/link") == "run"
    assert (sandbox / "empty").is_dir()


async def test_a_compressed_file_takes_the_place_of_its_packed_form(
    fetcher: Fetcher, sandbox: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(b"1,2\n"))
    await fetcher.fetch([Uri(value=str(tmp_path / "data.csv.gz"))], str(sandbox))
    assert os.listdir(sandbox) == ["data.csv"]
    assert (sandbox / "data.csv").read_bytes() == b"1,2\n"


# Python before 3.11.4 has no filters of its own; then only our checks stand between an archive and the node.
FILTERED = [False, *([True] if hasattr(tarfile, "data_filter") else [])]
ESCAPES: list[list[tuple[str, bytes | str]]] = [
    [("../evil", b"x")],
    [("/tmp/corral-evil", b"x")],
    [("a/../../evil", b"x")],
    [("out", "../outside"), ("out/evil", b"x")],
    [("out", "/etc")],
    [("a/b", ".."), ("a/b/c", "../.."), ("a/b/c/evil", b"x")],
]


@pytest.mark.parametrize("members", ESCAPES)
@pytest.mark.parametrize("filtered", FILTERED)
def test_no_tar_reaches_outside_of_the_sandbox(
    sandbox: Path, tmp_path: Path, members: list[tuple[str, bytes | str]], filtered: bool
) -> None:
    (tmp_path / "outside").mkdir()
    source = tar(tmp_path / "evil.tar", *members, mode="w")
    with pytest.raises(Failed, match="out of the sandbox"):
        unpack("tar", str(source), str(sandbox / "evil.tar"), str(sandbox), 1000, filtered=filtered)
    assert not list(tmp_path.glob("**/evil"))
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize("members", ESCAPES)
def test_no_zip_reaches_outside_of_the_sandbox(
    sandbox: Path, tmp_path: Path, members: list[tuple[str, bytes | str]]
) -> None:
    (tmp_path / "outside").mkdir()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if isinstance(content, str) else stat.S_IFREG) | 0o777) << 16
            archive.writestr(info, content)
    with pytest.raises(Failed, match="out of the sandbox"):
        unpack("zip", str(tmp_path / "evil.zip"), str(sandbox / "evil.zip"), str(sandbox), 1000)
    assert not list(tmp_path.glob("**/evil"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE])
def test_a_tar_makes_no_devices(sandbox: Path, tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "dev.tar", "w") as archive:
        info = tarfile.TarInfo("null")
        info.type = kind
        archive.addfile(info)
    with pytest.raises(Failed, match="null"):
        unpack("tar", str(tmp_path / "dev.tar"), "", str(sandbox), 1000)
    assert os.listdir(sandbox) == []


def test_a_hard_link_reaches_nothing_outside(sandbox: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "hard.tar", "w") as archive:
        info = tarfile.TarInfo("shadow")
        info.type, info.linkname = tarfile.LNKTYPE, "../../../../etc/shadow"
        archive.addfile(info)
    with pytest.raises(Failed, match="out of the sandbox"):
        unpack("tar", str(tmp_path / "hard.tar"), "", str(sandbox), 1000)


def test_an_archive_may_not_grow_over_the_bound(sandbox: Path, tmp_path: Path) -> None:
    tar(tmp_path / "bomb.tgz", ("a", b"x" * 600), ("b", b"x" * 600))
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"x" * 1001))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 1001)
    for kind, name in (("tar", "bomb.tgz"), ("gz", "bomb.gz"), ("zip", "bomb.zip")):
        with pytest.raises(Failed, match="more than 1000 bytes"):
            unpack(kind, str(tmp_path / name), str(sandbox / "bomb.gz"), str(sandbox), 1000)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip", "a.gz", "a.tar.xz"])
async def test_a_damaged_archive_is_named(fetcher: Fetcher, sandbox: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all" * 100)
    with pytest.raises(Failed, match="cannot be unpacked") as caught:
        await fetcher.fetch([Uri(value=str(tmp_path / name))], str(sandbox))
    assert name in caught.value.message


def test_a_truncated_archive_is_named(sandbox: Path, tmp_path: Path) -> None:
    source = tar(tmp_path / "a.tgz", ("a", os.urandom(5000)))
    source.write_bytes(source.read_bytes()[:3000])
    with pytest.raises(Failed, match="cannot be unpacked"):
        unpack("tar", str(source), "", str(sandbox), 10_000)


# The cache.


class Source:
    """Something to load from, that counts."""

    def __init__(self, content: bytes = b"x" * 100) -> None:
        self.content = content
        self.loads = 0
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def load(self, path: str) -> None:
        self.loads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        Path(path).write_bytes(self.content)


async def use(cache: Cache, source: Source, uri: str = "u", user: str | None = None) -> bytes:
    async with cache.use(uri, user, source.load) as path:
        return Path(path).read_bytes()


async def test_who_comes_later_finds_it_in_the_cache(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path / "cache"), 1000), Source()
    assert [await use(cache, source) for _ in range(3)] == [source.content] * 3
    assert source.loads == 1
    await use(cache, source, user="other")
    assert source.loads == 2


async def test_who_comes_at_the_same_time_waits_for_the_first(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path / "cache"), 1000), Source()
    source.gate = asyncio.Event()
    users = [asyncio.ensure_future(use(cache, source)) for _ in range(4)]
    await asyncio.wait(users, timeout=0)
    users[0].cancel()
    await asyncio.wait(users[:1])
    source.gate.set()
    assert await asyncio.gather(*users[1:]) == [source.content] * 3
    assert source.loads == 1


async def test_a_load_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path / "cache"), 1000), Source()
    source.gate = asyncio.Event()
    user = asyncio.ensure_future(use(cache, source))
    await asyncio.wait([user], timeout=0)
    user.cancel()
    await asyncio.wait([user])
    source.gate.set()
    assert await use(cache, source) == source.content
    assert source.loads == 2
    await cache.close()


async def test_a_failure_is_told_to_all_and_not_kept(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path / "cache"), 1000), Source()
    source.error = Failed("gone")
    results = await asyncio.gather(use(cache, source), use(cache, source), return_exceptions=True)
    assert [str(result) for result in results] == ["gone", "gone"]
    source.error = None
    assert await use(cache, source) == source.content


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path / "cache"), 250), Source()
    for uri in ("a", "b", "a", "c"):
        await use(cache, source, uri)
    assert source.loads == 3
    assert len(os.listdir(tmp_path / "cache")) == 2
    await use(cache, source, "a")
    assert source.loads == 3
    await use(cache, source, "b")
    assert source.loads == 4


async def test_what_is_in_use_stays(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path / "cache"), 150), Source()
    async with cache.use("a", None, source.load) as path:
        await use(cache, source, "b")
        assert os.path.exists(path)
    assert sum(p.stat().st_size for p in (tmp_path / "cache").iterdir()) <= 150


async def test_a_file_larger_than_the_cache_is_used_once(tmp_path: Path) -> None:
    cache, source = Cache(str(tmp_path / "cache"), 50), Source()
    assert await use(cache, source) == source.content
    assert os.listdir(tmp_path / "cache") == []


async def test_a_broken_cache_is_gone_around(tmp_path: Path, sandbox: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache, source = Cache(str(tmp_path / "file" / "cache"), 1000), Source()
    with pytest.raises(CacheTrouble):
        await use(cache, source)
    fetcher = Fetcher(str(tmp_path / "file" / "cache"))
    await fetcher.fetch([Uri(value=str(tmp_path / "file"), cache=True)], str(sandbox))
    assert (sandbox / "file").read_text() == "in the way"


async def test_a_cached_archive_leaves_only_its_content(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    source = tar(tmp_path / "app.tgz", ("app/run", b"x"))
    for _ in range(2):
        await fetcher.fetch([Uri(value=str(source), cache=True)], str(sandbox))
        assert os.listdir(sandbox) == ["app"]
        source.unlink(missing_ok=True)


async def test_a_cached_file_that_changed_is_fetched_anew(fetcher: Fetcher, sandbox: Path, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("old")
    await fetcher.fetch([Uri(value=str(source), cache=True)], str(sandbox))
    source.write_text("new")
    await fetcher.fetch([Uri(value=str(source), cache=True)], str(sandbox))
    assert (sandbox / "file").read_text() == "old"
    checksum = "sha256:" + hashlib.sha256(b"new").hexdigest()
    await fetcher.fetch([Uri(value=str(source), cache=True, checksum=checksum)], str(sandbox))
    assert (sandbox / "file").read_text() == "new"
