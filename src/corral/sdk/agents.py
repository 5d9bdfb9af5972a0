"""Reaches into running tasks through the agents' public API: what runs where, logs, commands inside a task.

Source: the agent's native API, `/corral/v1/tasks`.
"""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from corral.lib.errors import CorralError, Failed, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from corral.net.access import NO_ACCESS, Access, complete_url
from corral.net.client import open_session
from corral.net.tls import explain_tls

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0

_ERRORS: dict[int, type[CorralError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    503: Unavailable,
}
_STREAMS = {1: "stdout", 2: "stderr"}


class AgentClient:
    """One agent. Shapes: `url` is its base, as the master's node list gives it. Use as an async context manager."""

    def __init__(self, url: str, access: Access = NO_ACCESS) -> None:
        self._access = access
        self._url = complete_url(url, access)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "AgentClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def tasks(self) -> list[dict[str, Any]]:
        """All tasks the agent knows of. Errors: `Unavailable` when it does not answer."""
        async with await self._get("/corral/v1/tasks", {}, READ_TIMEOUT_S) as response:
            found: dict[str, Any] = msgspec.json.decode(await response.read())
            tasks: list[dict[str, Any]] = found["tasks"]
            return tasks

    async def logs(
        self,
        task_id: str,
        *,
        stream: str = "stdout",
        offset: int | None = None,
        lines: int | None = None,
        follow: bool = False,
        framework: str = "",
    ) -> AsyncIterator[bytes]:
        """A task's output as it was written, in pieces; with `follow` until the task ends.

        Units: `offset` bytes from the start; `lines` counted from the end.
        Errors: `NotFound` for an unknown task; `Unavailable` when the agent does not answer or goes away.
        """
        query = {"stream": stream, "follow": "true" if follow else "false", "framework": framework}
        if offset is not None:
            query["offset"] = str(offset)
        if lines is not None:
            query["lines"] = str(lines)
        path = f"/corral/v1/tasks/{quote(task_id, safe='')}/logs"
        async with await self._get(path, query, None) as response:
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
            except (aiohttp.ClientError, OSError) as error:
                raise self._lost(error) from None

    async def open_log(
        self, task_id: str, *, stream: str, offset: int, length: int | None, follow: bool
    ) -> AsyncIterator[bytes]:
        """A task's output for somebody to be sent on to: at most `length` bytes, and this client is closed at its end.

        Errors: as `logs`, before anything is sent on.
        """
        chunks = self.logs(task_id, stream=stream, offset=offset, follow=follow)
        try:
            first = await anext(chunks, b"")
        except BaseException:
            await self.close()
            raise
        return self._send_on(first, chunks, length)

    async def _send_on(self, chunk: bytes, rest: AsyncIterator[bytes], length: int | None) -> AsyncIterator[bytes]:
        try:
            while chunk and (length is None or length > 0):
                part = chunk if length is None else chunk[:length]
                length = None if length is None else length - len(part)
                yield part
                chunk = await anext(rest, b"")
        finally:
            await self.close()

    async def exec(self, task_id: str, argv: Sequence[str], *, tty: bool = False, framework: str = "") -> "TaskSession":
        """Run a further command inside the task.

        Errors: `NotFound` for an unknown task; `Unavailable` when the agent does not answer.
        """
        query = [("argv", word) for word in argv]
        query += [("tty", "true" if tty else "false"), ("framework", framework)]
        url = f"{self._url}/corral/v1/tasks/{quote(task_id, safe='')}/exec"
        try:
            socket = await self._connection().ws_connect(url, params=query, heartbeat=20.0)
        except aiohttp.WSServerHandshakeError as error:
            kind = _ERRORS.get(error.status, Failed)
            raise kind(f"agent {self._url} opens no session in task {task_id}: {error.message}") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from None
        return TaskSession(socket)

    async def signal(self, task_id: str, signal: str, *, renew: bool = False, framework: str = "") -> None:
        """Send a signal to a task; with `renew` its files of secrets get the newest values before.

        Errors: `NotFound` when it does not run; `Unavailable` when the agent does not answer.
        """
        url = f"{self._url}/corral/v1/tasks/{quote(task_id, safe='')}/signal"
        query = {"framework": framework} if framework else {}
        limits = aiohttp.ClientTimeout(total=READ_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        body = {"signal": signal, "renew": renew}
        try:
            async with self._connection().post(url, params=query, json=body, timeout=limits) as response:
                if response.status >= 300:
                    raise await _refusal(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from None

    def _connection(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session(self._access, to_master=False)
        return self._session

    async def _get(self, path: str, query: dict[str, str], total_s: float | None) -> aiohttp.ClientResponse:
        limits = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S)
        query = {key: value for key, value in query.items() if value}
        try:
            response = await self._connection().get(self._url + path, params=query, timeout=limits)
            if response.status >= 300:
                async with response:
                    raise await _refusal(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from None
        return response

    def _lost(self, error: BaseException) -> Unavailable:
        why = explain_tls(error, self._url) or f"{self._url} does not answer: {error or type(error).__name__}"
        return Unavailable(f"agent {why}")


async def _refusal(response: aiohttp.ClientResponse) -> CorralError:
    body = await response.read()
    try:
        text = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError):
        text = body[:500].decode(errors="replace").strip() or f"{response.status} {response.reason}"
    return _ERRORS.get(response.status, Failed)(text)


class TaskSession:
    """A command inside a task. Shapes: `exit_code` is set once `output` has ended."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.exit_code: int | None = None

    async def output(self) -> AsyncIterator[tuple[str, bytes]]:
        """Pairs of `stdout` or `stderr` and bytes until the command ends.

        Errors: `Failed` in the agent's words when the command could not be run; `Unavailable` when the session breaks.
        """
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                yield _STREAMS.get(message.data[0], "stdout"), message.data[1:]
            elif message.type is aiohttp.WSMsgType.TEXT:
                said = msgspec.json.decode(message.data)
                if "error" in said:
                    raise Failed(str(said["error"]))
                if "exit" in said:
                    self.exit_code = int(said["exit"])
                    return
        raise Unavailable("the agent ended the session before the command did")

    async def write(self, data: bytes) -> None:
        """Feed the command's standard input; empty data closes it."""
        await self._socket.send_bytes(data)

    async def resize(self, rows: int, columns: int) -> None:
        await self._socket.send_str(msgspec.json.encode({"resize": [rows, columns]}).decode())

    async def close(self) -> None:
        """Leave, which ends the command if it still runs."""
        await self._socket.close()
