"""The directories in which tasks run on this agent: made, shown to those who ask, and deleted when they are old.

Layout: WORK_DIR/slaves/AGENT/frameworks/FRAMEWORK/executors/EXECUTOR/runs/CONTAINER, beside it `latest`; that of a
standalone container is WORK_DIR/containers/ID/runs/CONTAINER. Nothing outside of a sandbox is ever shown: what a task's
links lead to is checked on the opened file, not on its name.
Source: Mesos v1, sandbox layout and files endpoints.
"""

import asyncio
import grp
import os
import pwd
import re
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from corral.agent.spec import Sandbox
from corral.lib.errors import Failed, Forbidden, Invalid, NotFound
from corral.model.ids import ContainerId

LATEST = "latest"
MOST_READ = 1 << 20
_CHUNK = 1 << 16
_POLL_S = 0.1
_IN_WORK_DIR = re.compile(r"/(?:slaves/[^/]+/frameworks/[^/]+/executors|containers)/[^/]+/runs/([^/]+)")
_OF_TASK = re.compile(r"(/slaves/[^/]+/frameworks/[^/]+/executors/[^/]+/runs/[^/]+)/tasks/[^/]+")
"""The directory of a task in its executor's."""
_STANDALONE = re.compile(r"/containers/[^/]+/runs/[^/]+")
_VIRTUAL = re.compile(r"/frameworks/([^/]+)/executors/([^/]+)/runs/([^/]+)")


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `/files/browse`. Shapes: `mode` as `ls -l` writes it; `uid` and `gid` are names if there are any."""

    path: str
    nlink: int
    size: int
    mtime: float
    mode: str
    uid: str
    gid: str


class Sandboxes:
    """Shapes: `logs` maps further paths that may be read, such as `/slave/log`, to files."""

    __slots__ = ("_logs", "_root", "_roots")

    def __init__(self, work_dir: str, logs: Mapping[str, str] | None = None) -> None:
        self._root = os.path.realpath(work_dir)
        # Paths may be given with the links that lead to the work directory, or without.
        self._roots = {os.path.abspath(work_dir), self._root}
        self._logs = dict(logs or {})

    # Making and deleting.

    async def make(self, path: str, owner: str | None = None, directories: Sequence[str] = ()) -> None:
        """Make a run's directory and the `directories` in it, for this user; what is there already stays.

        Those beside the run's own are what tasks of a group share: all of them may write there, whatever their users.

        Shapes: all paths absolute. Errors: `Failed` says what could not be made.
        """
        await asyncio.to_thread(self._make, path, owner, directories)

    def _make(self, path: str, owner: str | None, directories: Sequence[str]) -> None:
        home = self._home(path)
        self._check_layout(home)
        ids = find_user(owner)
        try:
            os.makedirs(os.path.dirname(home), mode=0o755, exist_ok=True)
            _make_directory(home, ids)
            _point_latest(home)
            if path != home:
                _make_below(home, os.path.relpath(path, home), ids)
            for directory in directories:
                relative = os.path.relpath(directory, home)
                if relative == ".." or relative.startswith("../"):
                    raise Failed(f"directory {directory} is not in sandbox {path}; correct the volume's path")
                shared = path != home and not directory.startswith(path + "/")
                _make_below(home, relative, ids, open=shared)
        except OSError as error:
            raise Failed(f"sandbox {path} cannot be made: {error.strerror}; look at the agent's disk") from None

    def _home(self, path: str) -> str:
        """The sandbox that the path is or is of: a task of a group has its own in that of its executor."""
        for root in self._roots:
            match = _OF_TASK.fullmatch(path, len(root)) if path.startswith(root + "/") else None
            if match is not None:
                return root + match[1]
        return path

    def _check_layout(self, path: str) -> None:
        matches = [_IN_WORK_DIR.fullmatch(path, len(root)) for root in self._roots if path.startswith(root + "/")]
        if os.path.normpath(path) != path or not any(
            match is not None and match[1] not in (".", "..", LATEST) for match in matches
        ):
            raise Invalid(f"{path} is no sandbox of this agent; sandboxes are in {self._root}/slaves")

    async def scan(self) -> tuple[Sandbox, ...]:
        """All run directories there are, oldest change first."""
        return await asyncio.to_thread(self._scan)

    def _scan(self) -> tuple[Sandbox, ...]:
        paths = self._below("slaves", "", "frameworks", "", "executors", "", "runs", "")
        paths += self._below("containers", "", "runs", "")
        found = []
        for path in paths:
            try:
                if not os.path.islink(path):
                    found.append(Sandbox(path, ContainerId(os.path.basename(path)), os.stat(path).st_mtime))
            except OSError:
                continue
        return tuple(sorted(found, key=lambda sandbox: (sandbox.at, sandbox.path)))

    def _below(self, *names: str) -> list[str]:
        """Shapes: an empty name stands for all that are there."""
        paths = [self._root]
        for name in names:
            paths = [below for path in paths for below in ([os.path.join(path, name)] if name else _entries(path))]
        return paths

    async def delete(self, path: str) -> None:
        """Delete one run's directory, and the directories above that hold nothing else.

        Errors: `Invalid` when it is no sandbox; `Failed` when something of it cannot be deleted.
        """
        self._check_layout(path)
        await asyncio.to_thread(self._delete, path)

    def _delete(self, path: str) -> None:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Failed(f"sandbox {path} cannot be deleted: {error.filename}: {error.strerror}") from None
        latest = os.path.join(os.path.dirname(path), LATEST)
        if os.path.islink(latest) and not os.path.exists(latest):
            os.unlink(latest)
        above = os.path.dirname(path)
        while os.path.dirname(above) not in self._roots:
            try:
                os.rmdir(above)
            except OSError:
                return
            above = os.path.dirname(above)

    async def disk_usage(self) -> float:
        """The used fraction of the disk that holds the sandboxes."""
        return await asyncio.to_thread(self._disk_usage)

    def _disk_usage(self) -> float:
        found = os.statvfs(self._root)
        used = found.f_blocks - found.f_bfree
        # What only root may use counts as used up, as df shows it.
        return used / max(1, used + found.f_bavail)

    async def measure(self, path: str) -> int:
        """How much disk one sandbox takes. Units: bytes of blocks; a file with two names counts once."""
        return await asyncio.to_thread(measure_tree, path)

    # Showing.

    async def browse(self, path: str) -> list[FileInfo]:
        """The directory's entries, or the file itself, sorted by path.

        Errors: `Invalid` without a path, `NotFound`, `Forbidden` outside of every sandbox.
        """
        return await asyncio.to_thread(self._browse, path)

    def _browse(self, path: str) -> list[FileInfo]:
        shown = "/" + path.strip("/")
        handle, found = self._open(path)
        try:
            if not stat.S_ISDIR(found.st_mode):
                return [_describe(shown, found)]
            rows = []
            for name in sorted(os.listdir(handle)):
                try:
                    rows.append(_describe(f"{shown}/{name}", os.lstat(name, dir_fd=handle)))
                except OSError:
                    continue
            return rows
        finally:
            os.close(handle)

    async def read(self, path: str, offset: int, length: int | None = None) -> tuple[bytes, int]:
        """A part of a file and where it begins; offset -1 returns nothing and the file's size.

        Units: bytes; a read is bounded by `MOST_READ`. Errors: `Invalid` on a directory or other negative numbers.
        """
        if offset < -1:
            raise Invalid(f"offset {offset} is negative; give 0 or more, or -1 for the size")
        if length is not None and length < -1:
            raise Invalid(f"length {length} is negative; give 0 or more")
        return await asyncio.to_thread(self._read, path, offset, length)

    def _read(self, path: str, offset: int, length: int | None) -> tuple[bytes, int]:
        handle, found = self._open_file(path)
        try:
            if offset == -1:
                return b"", found.st_size
            most = MOST_READ if length is None or length == -1 else min(length, MOST_READ)
            return os.pread(handle, most, offset), offset
        finally:
            os.close(handle)

    async def size(self, path: str) -> int:
        """Where a file that grows ends now; 0 when it is not there yet. Units: bytes."""
        try:
            return (await self.read(path, -1))[1]
        except NotFound:
            return 0

    async def download(self, path: str) -> tuple[int, AsyncIterator[bytes]]:
        """A file's size and its bytes.

        Errors: as `read`. Shapes: the iterator closes the file also when it is dropped before its end.
        """
        handle, found = await self._open_apart(path)
        return found.st_size, _stream(handle, found.st_size)

    async def _open_apart(self, path: str) -> tuple[int, os.stat_result]:
        """Open without making others wait; who leaves meanwhile leaves nothing open."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_file, path))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    def _open_file(self, path: str) -> tuple[int, os.stat_result]:
        handle, found = self._open(path)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise Invalid(f"{path} is not a file; name a file, or browse it")
        return handle, found

    def _open(self, path: str) -> tuple[int, os.stat_result]:
        """Open for reading what the path names, once it is certain that it lies in one sandbox."""
        root, name = self._locate(path)
        base = os.path.realpath(root)
        target = os.path.realpath(name)
        _check_inside(base, target, path)
        try:
            handle = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no file {path} on this agent; browse the directory above it") from None
        except OSError as error:
            raise Forbidden(f"{path} cannot be read: {error.strerror}") from None
        try:
            # Again on what was really opened: the task may have exchanged a directory for a link meanwhile.
            _check_inside(base, os.readlink(f"/proc/self/fd/{handle}").removesuffix(" (deleted)"), path)
        except (Forbidden, OSError):
            os.close(handle)
            raise
        return handle, os.fstat(handle)

    def _locate(self, path: str) -> tuple[str, str]:
        """The directory that the path must not leave, and the path as a name of the host's file system."""
        if not path:
            raise Invalid("query parameter path is missing; name a file of a sandbox")
        if "\0" in path:
            raise Invalid(f"path {path!r} holds a NUL byte")
        clean = os.path.normpath("/" + path.lstrip("/"))
        if clean in self._logs:
            return self._logs[clean], self._logs[clean]
        for root in self._roots:
            match = _IN_WORK_DIR.match(clean, len(root)) if clean.startswith(root + "/") else None
            if match is not None:
                return clean[: match.end()], clean
        match = _STANDALONE.match(clean)
        if match is not None:
            return self._root + match[0], self._root + clean
        match = _VIRTUAL.match(clean)
        if match is not None:
            found = self._find(match[0])
            if found is not None:
                return found, found + clean[match.end() :]
        raise NotFound(f"no file {path} on this agent; paths begin with the directory of a task's sandbox")

    def _find(self, virtual: str) -> str | None:
        """The newest directory of any agent id that this work directory has seen."""
        slaves = os.path.join(self._root, "slaves")
        found = [slave + virtual for slave in _entries(slaves) if os.path.isdir(slave + virtual)]
        return max(found, key=os.path.getmtime, default=None)

    # Logs.

    async def follow(
        self,
        path: str,
        *,
        offset: int | None = None,
        lines: int | None = None,
        follow: bool = False,
        ended: Callable[[], bool] = lambda: True,
    ) -> AsyncIterator[bytes]:
        """The bytes of a growing file: from `offset`, or its last `lines`, or all.

        With `follow` it goes on until `ended()`, which is asked before the last look, so that no final word is missed;
        a file that is not there yet is waited for. A file that shrank is read from its beginning.
        """
        handle = await self._open_when_there(path, follow, ended)
        if handle is None:
            return
        try:
            size = os.fstat(handle).st_size
            position = max(0, size + offset if offset < 0 else offset) if offset is not None else 0
            if lines is not None:
                position = max(position, await asyncio.to_thread(find_last_lines, handle, size, lines))
            while True:
                last = not follow or ended()
                size = os.fstat(handle).st_size
                position = position if position <= size or not follow else 0
                while data := os.pread(handle, _CHUNK, position):
                    position += len(data)
                    yield data
                if last:
                    return
                await asyncio.sleep(_POLL_S)
        finally:
            os.close(handle)

    async def _open_when_there(self, path: str, follow: bool, ended: Callable[[], bool]) -> int | None:
        while True:
            last = not follow or ended()
            try:
                return (await self._open_apart(path))[0]
            except NotFound:
                if not follow:
                    raise
                if last:
                    return None
            await asyncio.sleep(_POLL_S)


def _close_opened(opening: "asyncio.Future[tuple[int, os.stat_result]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result()[0])


def find_user(name: str | None) -> tuple[int, int] | None:
    """The ids of a user given by name or number; None when nothing can be given away, as the agent is not root.

    Errors: `Failed` when this node has no such user.
    """
    if name is None or os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        raise Failed(f"user {name!r} does not exist on this node; create it or name another") from None
    return entry.pw_uid, entry.pw_gid


def measure_tree(path: str) -> int:
    """Units: bytes of blocks. Shapes: links are not followed; what vanishes meanwhile counts nothing."""
    total = 0
    seen: set[tuple[int, int]] = set()
    stack = [path]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    elif found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
        except OSError:
            continue
    return total


def find_last_lines(handle: int, size: int, lines: int) -> int:
    """Where the last `lines` lines of an open file begin; a last line without its end counts as one."""
    if lines <= 0:
        return size
    missing, position = lines, size
    while position > 0:
        start = max(0, position - _CHUNK)
        data = os.pread(handle, position - start, start)
        # The newline at the very end closes the last line and begins none.
        end = len(data) - 1 if position == size and data.endswith(b"\n") else len(data)
        while (end := data.rfind(b"\n", 0, end)) >= 0:
            missing -= 1
            if missing == 0:
                return start + end + 1
        position = start
    return 0


def _check_inside(base: str, target: str, path: str) -> None:
    if target != base and not target.startswith(base + "/"):
        raise Forbidden(f"{path} leads out of the sandbox; read it on the node itself")


def _entries(path: str) -> Iterable[str]:
    try:
        return sorted(entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _make_directory(path: str, ids: tuple[int, int] | None, *, open: bool = False) -> None:
    """Shapes: with `open` anybody may write in it."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if os.path.islink(path) or not os.path.isdir(path):
            raise
        return
    if ids is not None:
        os.chown(path, *ids, follow_symlinks=False)
    if open:
        made = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(made, 0o777)
        finally:
            os.close(made)


def _make_below(root: str, relative: str, ids: tuple[int, int] | None, *, open: bool = False) -> None:
    """One level after the other, so that no fetched link can lead elsewhere. Shapes: `open` is of the last one."""
    path = root
    parts = relative.split("/")
    for index, part in enumerate(parts, 1):
        path = os.path.join(path, part)
        _make_directory(path, ids, open=open and index == len(parts))


def _point_latest(path: str) -> None:
    latest = os.path.join(os.path.dirname(path), LATEST)
    name = os.path.basename(path)
    if os.path.islink(latest) and os.readlink(latest) == name:
        return
    new = f"{latest}.{name}"
    if os.path.lexists(new):
        with suppress(FileNotFoundError):
            os.unlink(new)
    # Tasks of one group may come here at the same time; any of them does it for all.
    with suppress(FileExistsError, FileNotFoundError):
        os.symlink(name, new)
        os.rename(new, latest)


def _describe(path: str, found: os.stat_result) -> FileInfo:
    return FileInfo(
        path=path,
        nlink=found.st_nlink,
        size=found.st_size,
        mtime=found.st_mtime,
        mode=stat.filemode(found.st_mode),
        uid=_user_name(found.st_uid),
        gid=_group_name(found.st_gid),
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


async def _stream(handle: int, size: int) -> AsyncIterator[bytes]:
    """At most the size that was announced, even when the file grows meanwhile."""
    try:
        position = 0
        while position < size:
            data = await asyncio.to_thread(os.pread, handle, min(1 << 18, size - position), position)
            if not data:
                return
            position += len(data)
            yield data
    finally:
        os.close(handle)
