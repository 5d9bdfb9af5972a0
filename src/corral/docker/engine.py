"""Speaks to a Docker Engine by its API: the calls an agent needs, each with a time limit and our errors.

The adapter on aiodocker. It decides nothing and retries nothing; a stream that breaks raises `Unavailable`, so nobody
takes a broken stream for an end. Source: Docker Engine API 1.41; newer Engines are asked for that version while they
offer it.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiodocker
import aiohttp
import msgspec
from aiodocker.stream import Stream
from yarl import URL

from corral.lib.errors import Conflict, CorralError, Failed, Invalid, NotFound, Unavailable

DEFAULT_URL = "unix:///var/run/docker.sock"
API_VERSION = (1, 41)

PING_S = 3.0
QUICK_S = 15.0
"""For calls that only look or only note something down."""
SLOW_S = 120.0
"""For calls that make or end something; a busy Engine may take tens of seconds."""
PULL_STALL_S = 120.0
"""A pull may take as long as it likes while it says something."""

Json = dict[str, Any]


class Engine(Protocol):
    """What the runtime needs of an Engine; containers are named by name or id.

    Errors of all: `Unavailable` when it does not answer in time or breaks off, after which the outcome is unknown;
    `NotFound`, `Conflict`; `Failed` with the Engine's words for everything else.
    """

    url: str

    async def ping(self) -> None: ...
    async def version(self) -> Json: ...
    async def image_exists(self, image: str) -> bool: ...
    async def pull(self, image: str, auth: str = "") -> None:
        """Shapes: `auth` is the header `X-Registry-Auth`."""

    async def directory_of(self, image: str) -> str:
        """Where programs of the image start unless told otherwise, empty when it says nothing. Errors: `NotFound`."""

    async def load(self, image: str, tar: bytes) -> None:
        """Make an image of a file system. Shapes: `image` has a tag. Errors: of the Engine's refusal, by its words."""

    async def create(self, name: str, body: Json) -> str: ...
    async def connect(self, container: str, network: str) -> None:
        """Give a container one more network. One that is not there is missed when it starts: `NotFound`."""

    async def start(self, container: str) -> None: ...
    async def inspect(self, container: str) -> Json: ...
    async def list_labelled(self, label: str, value: str) -> list[Json]: ...
    async def wait(self, container: str, timeout_s: float | None) -> None: ...
    async def kill(self, container: str, signal: str) -> None: ...
    async def remove(self, container: str, *, force: bool) -> None: ...
    def logs(
        self, container: str, *, since: str | None = None, tail: int | None = None, follow: bool = False
    ) -> AsyncGenerator[bytes, None]: ...
    async def exec(self, container: str, argv: Sequence[str], *, tty: bool) -> "ExecStream": ...
    async def stats(self, container: str) -> Json: ...
    async def update(self, container: str, changes: Json) -> None: ...
    async def close(self) -> None: ...


class ExecStream(Protocol):
    """A command started inside a container, with its three streams."""

    async def read(self) -> tuple[str, bytes] | None:
        """The next piece of `stdout` or `stderr`; None at the end."""

    async def write(self, data: bytes) -> None:
        """Feed standard input; empty data closes it."""

    async def resize(self, rows: int, columns: int) -> None: ...

    async def inspect(self) -> Json:
        """Holds `Running`, `ExitCode` and `Pid`."""

    async def close(self) -> None:
        """Let go of the streams. The command runs on."""


def engine_url(given: str | None = None) -> str:
    """The Engine to use: as given, else `DOCKER_HOST`, else the usual socket.

    Errors: `Invalid` for a form other than unix:///PATH or tcp://HOST:PORT.
    """
    url = given or os.environ.get("DOCKER_HOST") or DEFAULT_URL
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return url
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        return url
    raise Invalid(f"docker host {url!r} is neither unix:///PATH nor tcp://HOST:PORT; for example {DEFAULT_URL}")


class DockerEngine:
    """A real Engine at a URL. Made inside a running event loop; nothing is connected before the first call."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        # Every followed log holds a connection of its own, so their number must not be bounded by a pool.
        self._owned: aiohttp.BaseConnector | None = None
        if parts.scheme == "unix":
            self._owned = aiohttp.UnixConnector(parts.path, limit=0)
            self._docker = aiodocker.Docker("unix://localhost", connector=self._owned)
        elif parts.scheme in ("tcp", "http") and os.environ.get("DOCKER_TLS_VERIFY", "0") != "1":
            self._owned = aiohttp.TCPConnector(limit=0)
            self._docker = aiodocker.Docker(_http(url), connector=self._owned)
        else:
            self._docker = aiodocker.Docker(url)  # with the certificates that DOCKER_CERT_PATH names
        self._base: str | None = None
        # The Engine sends every line as an HTTP chunk of its own, which costs more than all else in following a log.
        # HTTP/1.0 has no chunks: nor does it tell a broken stream from a whole one, so only following uses it.
        self._following = aiohttp.ClientSession(
            connector=self._docker.connector, connector_owner=False, version=aiohttp.HttpVersion10
        )

    async def ping(self) -> None:
        async with self._asking("ping", PING_S), self._docker.session.get(self._plain_url("_ping")) as response:
            words = await response.text()
            if response.status != 200:
                raise Failed(f"Docker at {self.url} answers {response.status}: {words.strip()[:300]}")

    async def version(self) -> Json:
        async with self._asking("version", QUICK_S), self._docker.session.get(self._plain_url("version")) as response:
            offered: Json = _json(await _checked(response))
            return offered

    async def info(self) -> Json:
        """What the Engine is and how it is configured."""
        async with self._asking("info", QUICK_S), self._docker.session.get(self._plain_url("info")) as response:
            offered: Json = _json(await _checked(response))
            return offered

    async def image_exists(self, image: str) -> bool:
        try:
            await self._call("GET", f"images/{image}/json", QUICK_S)
        except NotFound:
            return False
        return True

    async def pull(self, image: str, auth: str = "") -> None:
        query = {"fromImage": image}
        if "@" not in image and ":" not in image.rpartition("/")[2]:
            query["tag"] = "latest"
        url = await self._url("images/create", query)
        async with self._asking(f"pull {image}", None):
            quiet = aiohttp.ClientTimeout(sock_connect=PING_S, sock_read=PULL_STALL_S)
            shown = {"X-Registry-Auth": auth} if auth else {}
            async with self._docker.session.post(url, timeout=quiet, headers=shown) as response:
                if response.status >= 400:
                    await _checked(response)
                async for line in response.content:
                    if b'"error"' in line and (words := _json(line).get("error")):
                        raise Failed(str(words))

    async def directory_of(self, image: str) -> str:
        found = await self._call("GET", f"images/{image}/json", QUICK_S)
        return str((found.get("Config") or {}).get("WorkingDir") or "")

    async def load(self, image: str, tar: bytes) -> None:
        repository, _, tag = image.rpartition(":")
        url = await self._url("images/create", {"fromSrc": "-", "repo": repository, "tag": tag})
        headers = {"Content-Type": "application/x-tar"}
        async with (
            self._asking(f"load {image}", SLOW_S),
            self._docker.session.post(url, data=tar, headers=headers) as response,
        ):
            for line in (await _checked(response)).splitlines():
                if b'"error"' in line and (words := _json(line).get("error")):
                    raise Failed(str(words))

    async def create(self, name: str, body: Json) -> str:
        made = await self._call("POST", "containers/create", SLOW_S, {"name": name}, body)
        return str(made["Id"])

    async def connect(self, container: str, network: str) -> None:
        await self._call("POST", f"networks/{network}/connect", SLOW_S, None, {"Container": container})

    async def start(self, container: str) -> None:
        await self._call("POST", f"containers/{container}/start", SLOW_S)

    async def inspect(self, container: str) -> Json:
        return await self._call("GET", f"containers/{container}/json", QUICK_S)

    async def list_labelled(self, label: str, value: str) -> list[Json]:
        filters = msgspec.json.encode({"label": [f"{label}={value}"]}).decode()
        found: Any = await self._call("GET", "containers/json", QUICK_S, {"all": "1", "filters": filters})
        return list(found)

    async def wait(self, container: str, timeout_s: float | None) -> None:
        """Return when it does not run. Units: None waits as long as the Engine lives."""
        await self._call("POST", f"containers/{container}/wait", timeout_s)

    async def kill(self, container: str, signal: str) -> None:
        await self._call("POST", f"containers/{container}/kill", SLOW_S, {"signal": signal})

    async def remove(self, container: str, *, force: bool) -> None:
        await self._call("DELETE", f"containers/{container}", SLOW_S, {"v": "1", "force": "1" if force else "0"})

    async def logs(
        self, container: str, *, since: str | None = None, tail: int | None = None, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """The log stream from its beginning, from `since`, or its last `tail` entries.

        Shapes: following, it goes on until the container ends, and may end early without an error. Not following, it
        ends with what is there, and an end without an error is the end of the log.
        """
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0"}
        if since is not None:
            query["since"] = since
        if tail is not None:
            query["tail"] = str(tail)
        url = await self._url(f"containers/{container}/logs", query)
        endless = aiohttp.ClientTimeout(sock_connect=PING_S, sock_read=None if follow else SLOW_S)
        async with (
            self._asking(f"logs of {container}", None),
            (self._following if follow else self._docker.session).get(url, timeout=endless) as response,
        ):
            if response.status >= 400:
                await _checked(response)
            async for chunk in response.content.iter_any():
                yield chunk

    async def exec(self, container: str, argv: Sequence[str], *, tty: bool) -> ExecStream:
        async with self._asking(f"exec in {container}", QUICK_S):
            await self._url("")  # aiodocker must know the version too
            made = await self._docker.containers.container(container).exec(list(argv), stdin=True, tty=tty)
            stream = made.start()
            await stream.__aenter__()
        return _ExecStream(self, made.id, stream)

    async def exec_inspect(self, exec_id: str) -> Json:
        return await self._call("GET", f"exec/{exec_id}/json", QUICK_S)

    async def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        await self._call("POST", f"exec/{exec_id}/resize", QUICK_S, {"h": str(rows), "w": str(columns)})

    async def stats(self, container: str) -> Json:
        """One sample of usage."""
        return await self._call("GET", f"containers/{container}/stats", QUICK_S, {"stream": "0", "one-shot": "1"})

    async def update(self, container: str, changes: Json) -> None:
        """Change limits of a running container, such as `Memory` and `CpuShares`."""
        await self._call("POST", f"containers/{container}/update", SLOW_S, None, changes)

    async def close(self) -> None:
        await self._following.close()
        await self._docker.close()
        if self._owned is not None:
            await self._owned.close()

    async def _call(
        self,
        method: str,
        path: str,
        timeout_s: float | None,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> Json:
        url = await self._url(path, query)
        content = None if body is None else msgspec.json.encode(body)
        async with (
            self._asking(f"{method} {path}", timeout_s),
            self._docker.session.request(
                method, url, data=content, headers=_JSON_HEADERS, timeout=_NO_LIMIT
            ) as response,
        ):
            answer: Json = _json(await _checked(response))
            return answer

    async def _url(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        if self._base is None:
            offered = await self.version()
            self._docker.api_version = choose_version(offered)
            self._base = f"{_http(self._docker.docker_host)}/{self._docker.api_version}/"
        # Names and images are joined as text: a slash in an image's name is a slash in the API's path.
        url = URL(self._base + path, encoded=False)
        return url.with_query(query) if query else url

    def _plain_url(self, path: str) -> URL:
        return URL(f"{_http(self._docker.docker_host)}/{path}")

    @asynccontextmanager
    async def _asking(self, what: str, timeout_s: float | None) -> AsyncIterator[None]:
        """Turn every way in which the other side may fail into one of our errors."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except CorralError:
            raise
        except TimeoutError:
            limit = "in time" if timeout_s is None else f"within {timeout_s:g} s"
            raise Unavailable(f"Docker at {self.url} does not answer {limit} ({what})") from None
        except (aiohttp.ClientError, OSError) as error:
            self._base = None  # what comes back may be another version
            raise Unavailable(f"Docker at {self.url} cannot be reached ({what}): {_cause(error)}") from None
        except aiodocker.DockerError as error:
            raise _refusal(error.status, error.message, self.url) from None
        except (ValueError, KeyError) as error:
            raise Failed(f"Docker at {self.url} answered {what} in a form that is not its API's: {error!r}") from None


class _ExecStream:
    def __init__(self, engine: DockerEngine, exec_id: str, stream: Stream) -> None:
        self._engine = engine
        self._id = exec_id
        self._stream = stream

    async def read(self) -> tuple[str, bytes] | None:
        try:
            message = await self._stream.read_out()
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"the stream of exec {self._id[:12]} broke: {_cause(error)}") from None
        return None if message is None else ("stderr" if message.stream == 2 else "stdout", message.data)

    async def write(self, data: bytes) -> None:
        try:
            if data:
                await self._stream.write_in(data)
            elif (response := self._stream._resp) is not None and response.connection is not None:
                # aiodocker closes both directions or none; the command must see the end of its input alone.
                transport = response.connection.transport
                if transport is not None and transport.can_write_eof():
                    transport.write_eof()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise Unavailable(f"the stream of exec {self._id[:12]} broke: {_cause(error)}") from None

    async def resize(self, rows: int, columns: int) -> None:
        await self._engine.exec_resize(self._id, rows, columns)

    async def inspect(self) -> Json:
        return await self._engine.exec_inspect(self._id)

    async def close(self) -> None:
        response = self._stream._resp
        if response is None or response.connection is None:
            self._stream._closed = True  # aiodocker asserts a connection that the other side has already ended
            return
        await self._stream.close()


_JSON_HEADERS = {"Content-Type": "application/json"}
_NO_LIMIT = aiohttp.ClientTimeout(total=None)


def choose_version(offered: Mapping[str, Any]) -> str:
    """The API version to ask for: 1.41 where the Engine offers it, else the nearest that it does."""
    most = _version(offered.get("ApiVersion"), API_VERSION)
    least = _version(offered.get("MinAPIVersion"), (1, 12))
    major, minor = max(least, min(most, API_VERSION))
    return f"v{major}.{minor}"


def _version(text: Any, otherwise: tuple[int, int]) -> tuple[int, int]:
    major, _, minor = str(text or "").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else otherwise


def _http(host: str) -> str:
    return host.replace("tcp://", "http://", 1) if host.startswith("tcp://") else host


async def _checked(response: aiohttp.ClientResponse) -> bytes:
    content = await response.read()
    if response.status < 400:
        return content
    words = content.decode(errors="replace").strip()
    with suppress(ValueError, KeyError, TypeError):
        words = str(_json(content)["message"])
    raise _refusal(response.status, words, str(response.url))


def _refusal(status: int, words: str, url: str) -> CorralError:
    if status == 404:
        return NotFound(words)
    if status == 409:
        return Conflict(words)
    if status in (900, 503):  # 900 is aiodocker's for no connection
        return Unavailable(words or f"Docker at {url} is not ready")
    return Failed(words or f"Docker at {url} answers {status} without a word")


def _json(content: bytes) -> Any:
    return msgspec.json.decode(content) if content.strip() else {}


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__
