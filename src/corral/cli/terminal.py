"""An interactive session in a running task: a WebSocket to the agent, the local terminal in raw mode.

Frames: binary from the agent, one byte of stream (1 stdout, 2 stderr) before the data; text frames are JSON control
messages: `{"exit": CODE}` or `{"error": TEXT}` from the agent, `{"resize": [ROWS, COLUMNS]}` to it. Binary frames to
the agent are standard input; an empty one closes it.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import termios
import tty as tty_mode
from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

import aiohttp

from corral.cli.access import find_access
from corral.lib.errors import CorralError, Failed, Forbidden, NotFound, Unauthenticated, Unavailable
from corral.net.client import open_session
from corral.net.tls import explain_tls


async def run_session(agent_url: str, task_id: str, argv: Sequence[str], *, interactive: bool, tty: bool) -> int:
    """Run the command and return its exit code.

    Errors: `NotFound` when the agent does not run the task; `Unavailable` when the agent does not answer.
    """
    query = urlencode([("argv", word) for word in argv] + ([("tty", "true")] if tty else []))
    url = f"{agent_url}/corral/v1/tasks/{task_id}/exec?{query}"
    async with open_session(find_access(agent_url), to_master=False) as session:
        try:
            async with session.ws_connect(url, max_msg_size=0, heartbeat=20.0) as socket:
                with _raw_terminal(tty and interactive):
                    return await _pump(socket, interactive=interactive, tty=tty)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                kind = Unauthenticated if error.status == 401 else Forbidden
                raise kind(f"agent {agent_url} does not let you in: {error.message}; set CORRAL_TOKEN") from None
            raise NotFound(f"agent {agent_url} does not open a session in {task_id}: {error.message}") from None
        except aiohttp.ClientError as error:
            why = explain_tls(error, agent_url) or f"{agent_url} does not answer: {error}"
            raise Unavailable(f"agent {why}") from None


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    tty_mode.setraw(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


async def _pump(socket: aiohttp.ClientWebSocketResponse, *, interactive: bool, tty: bool) -> int:
    loop = asyncio.get_running_loop()
    if tty:
        await _send_size(socket)
        loop.add_signal_handler(signal.SIGWINCH, lambda: asyncio.ensure_future(_send_size(socket)))
    feeder = asyncio.create_task(_feed(socket, interactive))
    try:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                out = sys.stderr.buffer if message.data[:1] == b"\x02" else sys.stdout.buffer
                out.write(message.data[1:])
                out.flush()
            elif message.type is aiohttp.WSMsgType.TEXT:
                control = json.loads(message.data)
                if "exit" in control:
                    return int(control["exit"])
                if "error" in control:
                    raise Failed(control["error"])
    finally:
        feeder.cancel()
        if tty:
            loop.remove_signal_handler(signal.SIGWINCH)
    raise Unavailable("the agent ended the session before the command ended; try again")


async def _send_size(socket: aiohttp.ClientWebSocketResponse) -> None:
    size = os.get_terminal_size(sys.stdout.fileno())
    await socket.send_str(json.dumps({"resize": [size.lines, size.columns]}))


async def _feed(socket: aiohttp.ClientWebSocketResponse, interactive: bool) -> None:
    """Standard input to the agent; without `-i` it is closed at once."""
    if interactive:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        try:
            while data := await reader.read(65536):
                await socket.send_bytes(data)
        finally:
            transport.close()
    with contextlib.suppress(CorralError, ConnectionError):
        await socket.send_bytes(b"")
