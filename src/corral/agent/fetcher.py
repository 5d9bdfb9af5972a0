"""Fetches what a task needs into its sandbox before it starts: one URI after the other, checked, unpacked, cached.

Nothing that is fetched can write outside of the sandbox, and local files are read with the rights of the task's user.
Source: Mesos v1 CommandInfo.URI and the fetcher's cache.
"""

import asyncio
import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from posixpath import basename, normpath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp

from corral.agent.cache import Cache, CacheTrouble
from corral.agent.sandbox import find_user
from corral.agent.unpack import archive_kind, unpack
from corral.lib.errors import Failed
from corral.model.task import Uri

_CHUNK = 1 << 18
_CONNECT_S = 30.0
_PART = ".corral-fetch"


class Fetcher:
    """Shapes: `cache_dir` belongs to this fetcher alone and is emptied at its start.

    Units: `cache_bytes` for all cached files; `most_bytes` for one file, and for what one archive unpacks to; `stall_s`
    without a single byte ends a download.
    """

    def __init__(
        self,
        cache_dir: str,
        *,
        cache_bytes: int = 2 << 30,
        most_bytes: int = 16 << 30,
        stall_s: float = 60.0,
    ) -> None:
        self._cache = Cache(cache_dir, cache_bytes)
        self._most_bytes = most_bytes
        self._stall_s = stall_s
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, uris: Sequence[Uri], sandbox: str, user: str | None = None) -> None:
        """Fetch all into the sandbox, for this user.

        Errors: `Failed` names the URI and the cause. Shapes: what was fetched before the failure stays for a look.
        """
        for uri in uris:
            try:
                await self._fetch_one(uri, sandbox, user)
            except OSError as error:
                raise Failed(f"cannot fetch {mask(uri.value)}: {error.strerror or error}") from None
            except ValueError as error:
                # The system and the URL parser refuse some texts this way, a NUL byte or half an IPv6 address.
                raise Failed(f"cannot fetch {mask(uri.value)}: {error}; correct the URI") from None

    async def _fetch_one(self, uri: Uri, sandbox: str, user: str | None) -> None:
        target = await asyncio.to_thread(_prepare_target, uri, sandbox, user)
        part = os.path.join(sandbox, _PART)
        try:
            if uri.cache and await self._fetch_cached(uri, part, target, sandbox, user):
                return
            await self._load(uri, part, user)
            if not await asyncio.to_thread(_has_sum, uri, part):
                raise Failed(f"cannot fetch {mask(uri.value)}: its content does not have checksum {uri.checksum}")
            await asyncio.to_thread(self._install, uri, part, target, sandbox, user)
        finally:
            _remove(part)

    async def _fetch_cached(self, uri: Uri, part: str, target: str, sandbox: str, user: str | None) -> bool:
        """False when the file must be fetched without the cache."""
        try:
            async with self._cache.use(uri.value, user, lambda path: self._load(uri, path, user)) as cached:
                if not await asyncio.to_thread(_has_sum, uri, cached):
                    # What is behind the URI may have changed since it was cached.
                    self._cache.drop(cached)
                    return False
                if _kind(uri, target) is not None:
                    await asyncio.to_thread(self._unpack, uri, cached, target, sandbox, user)
                    return True
                await asyncio.to_thread(shutil.copyfile, cached, part)
        except (CacheTrouble, FileNotFoundError):
            return False  # the cache cannot hold it, or another task has just dropped it
        await asyncio.to_thread(self._install, uri, part, target, sandbox, user)
        return True

    # Loading.

    async def _load(self, uri: Uri, path: str, user: str | None) -> None:
        """Write the URI's bytes to a new file."""
        parts = urlsplit(uri.value)
        if parts.scheme in ("http", "https"):
            await self._download(uri.value, path)
        elif parts.scheme == "file" or uri.value.startswith("/"):
            await self._copy(uri.value, local_path(uri.value), path, user)
        else:
            raise Failed(
                f"cannot fetch {mask(uri.value)}: scheme {parts.scheme or 'none'} is not supported; "
                "use http, https, file or an absolute path"
            )

    async def _download(self, url: str, path: str) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._stall_s)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False, headers={"Accept-Encoding": "identity"}, trust_env=True
            )
        try:
            async with self._session.get(url, timeout=timeout) as response:
                if response.status != 200:
                    raise Failed(f"cannot fetch {mask(url)}: the server answered {response.status} {response.reason}")
                await self._save(url, response, path)
        except TimeoutError:
            raise Failed(f"cannot fetch {mask(url)}: nothing came for {self._stall_s:g} s; is the server up?") from None
        except aiohttp.TooManyRedirects:
            raise Failed(f"cannot fetch {mask(url)}: too many redirects; give the final address") from None
        except (aiohttp.ClientError, ValueError) as error:
            words = str(error).replace(url, mask(url)) or type(error).__name__
            raise Failed(f"cannot fetch {mask(url)}: {words}") from None

    async def _save(self, url: str, response: aiohttp.ClientResponse, path: str) -> None:
        self._check_size(url, response.content_length or 0)
        written = 0
        with _create(path) as file:
            async for chunk in response.content.iter_chunked(_CHUNK):
                written += len(chunk)
                self._check_size(url, written)
                await asyncio.to_thread(file.write, chunk)

    async def _copy(self, uri: str, source: str, path: str, user: str | None) -> None:
        ids = await asyncio.to_thread(find_user, user)
        if ids is not None and ids[0] != os.geteuid():
            await self._copy_as(uri, source, path, ids)
            return
        try:
            await asyncio.to_thread(self._copy_plain, uri, source, path)
        except OSError as error:
            raise Failed(f"cannot fetch {uri}: {error.strerror}; the file must be on this node and readable") from None

    def _copy_plain(self, uri: str, source: str, path: str) -> None:
        if not os.path.isfile(source):
            raise Failed(f"cannot fetch {uri}: {'it is no plain file' if os.path.exists(source) else 'no such file'}")
        self._check_size(uri, os.path.getsize(source))
        with open(source, "rb") as file, _create(path) as copy:
            shutil.copyfileobj(file, copy, _CHUNK)

    async def _copy_as(self, uri: str, source: str, path: str, ids: tuple[int, int]) -> None:
        """Let a process of the task's user read it, so that nobody fetches what he could not read himself."""
        with _create(path) as copy:
            process = self._start_reading(source, ids, copy)
            reading = asyncio.ensure_future(asyncio.to_thread(process.communicate))
            try:
                _, words = await asyncio.shield(reading)
            except asyncio.CancelledError:
                process.kill()
                await reading
                raise
        if process.returncode != 0:
            cause = words.decode(errors="replace").strip().rpartition(": ")[2] or "it cannot be read"
            raise Failed(f"cannot fetch {uri}: {cause}; the file must be on this node and readable by the task's user")
        self._check_size(uri, os.stat(path).st_size)

    def _start_reading(self, source: str, ids: tuple[int, int], copy: BinaryIO) -> "subprocess.Popen[bytes]":
        # Not through asyncio: an event loop of another make, such as uvloop, knows no `user` there.
        return subprocess.Popen(
            ["head", f"--bytes={self._most_bytes + 1}", "--", source],
            stdin=subprocess.DEVNULL, stdout=copy, stderr=subprocess.PIPE,
            user=ids[0], group=ids[1], extra_groups=_groups(ids), env={"LC_ALL": "C", "PATH": os.defpath},
        )  # fmt: skip

    def _check_size(self, uri: str, size: int) -> None:
        if size > self._most_bytes:
            raise Failed(f"cannot fetch {mask(uri)}: it is larger than {self._most_bytes} bytes, the agent's bound")

    # Installing.

    def _install(self, uri: Uri, part: str, target: str, sandbox: str, user: str | None) -> None:
        """Put the loaded file in its place: unpacked or made executable, and given to the user."""
        kind = _kind(uri, target)
        if kind is not None:
            self._unpack(uri, part, target, sandbox, user)
        if kind == "gz":
            return  # as gzip does: the file takes the place of its packed form
        os.chmod(part, 0o755 if uri.executable else 0o644)
        _give([part], find_user(user), sandbox)
        os.rename(part, target)

    def _unpack(self, uri: Uri, source: str, target: str, sandbox: str, user: str | None) -> None:
        try:
            made = unpack(_kind(uri, target) or "", source, target, sandbox, self._most_bytes)
        except Failed as error:
            raise Failed(f"cannot fetch {mask(uri.value)}: {error.message}") from None
        _give(made, find_user(user), sandbox)

    async def close(self) -> None:
        await self._cache.close()
        if self._session is not None:
            await self._session.close()
            self._session = None


def target_name(uri: Uri) -> str:
    """What the file is called in the sandbox: `output_file`, or the last part of the URI's path.

    Errors: `Failed` when it would lie outside of the sandbox or there is no name.
    """
    if uri.output_file:
        clean = normpath(uri.output_file)
        if clean.startswith("/") or clean in (".", "..") or clean.startswith("../") or "\0" in clean:
            raise Failed(
                f"output file {uri.output_file!r} of {mask(uri.value)} leaves the sandbox; give a relative path"
            )
        return clean
    # Deviates: Mesos leaves the query in the file's name; then no suffix would be known again.
    path = uri.value if uri.value.startswith("/") else urlsplit(uri.value).path
    name = unquote(basename(path)) if not uri.value.startswith("/") else basename(path)
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Failed(f"cannot fetch {mask(uri.value)}: its path ends without a file name; set output_file")
    return name


def local_path(value: str) -> str:
    """The path in a `file:` URI or of a plain absolute path.

    Errors: `Failed` when the URI names another host or a relative path.
    """
    if value.startswith("/"):
        return value
    parts = urlsplit(value)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise Failed(
            f"cannot fetch {value}: a file URI needs an absolute path on this node, such as file:///etc/app.tar"
        )
    return unquote(parts.path)


def mask(value: str) -> str:
    """The URI without the password in it, for messages."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return value
    if "@" not in parts.netloc:
        return value
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


def _prepare_target(uri: Uri, sandbox: str, user: str | None) -> str:
    """Where to put the file, with the directories above it made."""
    try:
        urlsplit(uri.value)
    except ValueError as error:
        raise Failed(f"cannot fetch {uri.value!r}: {error}") from None
    target = os.path.join(sandbox, target_name(uri))
    path = os.path.realpath(sandbox)
    for part in os.path.dirname(os.path.relpath(target, sandbox)).split("/"):
        path = os.path.join(path, part) if part else path
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            raise Failed(f"cannot fetch {mask(uri.value)}: {path} is in the way; choose another output_file")
        if not os.path.lexists(path):
            os.mkdir(path, 0o755)
            _give([path], find_user(user), sandbox)
    if os.path.isdir(target) and not os.path.islink(target):
        raise Failed(f"cannot fetch {mask(uri.value)}: {target} is a directory; choose another output_file")
    return target


def _kind(uri: Uri, target: str) -> str | None:
    return archive_kind(target) if uri.extract and not uri.executable else None


def _has_sum(uri: Uri, path: str) -> bool:
    if not uri.checksum:
        return True
    name, _, wanted = uri.checksum.partition(":")
    if name != "sha256" or len(wanted) != 64:
        raise Failed(f"checksum {uri.checksum!r} of {mask(uri.value)} is not of the form sha256:HEX with 64 digits")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == wanted.lower()


def _give(paths: Iterable[str], ids: tuple[int, int] | None, sandbox: str) -> None:
    """Give files, and the directories between them and the sandbox, to the user."""
    if ids is None:
        return
    root = os.path.realpath(sandbox)
    given: set[str] = set()
    for path in paths:
        while path not in given and path.startswith(root + "/"):
            os.chown(path, *ids, follow_symlinks=False)
            given.add(path)
            path = os.path.dirname(path)


def _groups(ids: tuple[int, int]) -> list[int]:
    return os.getgrouplist(pwd.getpwuid(ids[0]).pw_name, ids[1])


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _create(path: str) -> BinaryIO:
    """A new file; what was at this path goes, and a link there is not followed."""
    _remove(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return open(handle, "wb")
