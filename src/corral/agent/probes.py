"""Probes the health of tasks: one HTTP request, one TCP connection, one command inside the task.

Nothing here decides what an answer is worth. A probe that could not be made at all, because the runtime is away or the
agent is short of files, is told as void: it says nothing about the task.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Sequence

import aiohttp

from corral.agent.effects import Probe
from corral.agent.runtimes import ExecSession
from corral.agent.spec import Probed
from corral.lib.errors import Conflict, CorralError, NotFound, Unavailable
from corral.model.health import CheckKind

_OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
_MOST_SAID = 200
_MOST_REDIRECTS = 10

Exec = Callable[[str, str, Sequence[str]], ExecSession]


class Prober:
    """Shapes: `exec` opens a further command in a container, given runtime, container id and argv.

    Units: `patience_s` is how long a runtime may take to open or to close one, which is not the check's time.
    """

    def __init__(self, exec: Exec, *, patience_s: float = 30.0) -> None:
        self._exec = exec
        self._patience_s = patience_s
        self._session: aiohttp.ClientSession | None = None

    async def probe(self, effect: Probe) -> Probed:
        """Look once, for as long as the check allows."""
        container_id, index, check = effect.container_id, effect.index, effect.check
        try:
            match check.kind:
                case CheckKind.HTTP:
                    return Probed(container_id, index, code=await self._get(effect))
                case CheckKind.TCP:
                    await _connect(effect)
                    return Probed(container_id, index)
                case _:
                    code, said = await self._run(effect)
                    return Probed(container_id, index, code=code, said=said)
        except _Void as trouble:
            return Probed(container_id, index, why=str(trouble), void=True)
        except TimeoutError:
            return Probed(container_id, index, why=f"there was no answer within {check.timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Probed(container_id, index, why=_explain(error), void=_is_own(error))
        except CorralError as error:
            void = isinstance(error, Unavailable | NotFound | Conflict)
            return Probed(container_id, index, why=error.message, void=void)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _get(self, effect: Probe) -> int:
        check = effect.check
        if self._session is None:
            # Tasks rarely have certificates that this node can verify; what is asked is whether they answer.
            connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=False)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "corral health check"},
                auto_decompress=False,
            )
        url = f"{check.scheme}://{_host(effect.address)}:{check.port}{check.path}"
        asked = self._session.get(url, allow_redirects=not check.keeps_redirects, max_redirects=_MOST_REDIRECTS)
        async with asyncio.timeout(check.timeout_s or None), asked as response:
            return response.status

    async def _run(self, effect: Probe) -> tuple[int, str]:
        session = self._exec(effect.runtime, effect.container_id, make_argv(effect))
        try:
            async with asyncio.timeout(self._patience_s):
                await session.__aenter__()
        except TimeoutError:
            raise _Void(f"{effect.runtime} did not start the command within {self._patience_s:g} s") from None
        said = b""
        try:
            async with asyncio.timeout(effect.check.timeout_s or None):
                await session.write(b"")
                async for _, piece in session.output():
                    said = (said + piece)[-4 * _MOST_SAID :]
                code = await session.exit_code()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    await session.__aexit__(None, None, None)
        lines = said.decode(errors="replace").strip().splitlines()
        return code, lines[-1].strip()[-_MOST_SAID:] if lines else ""


class _Void(Exception):
    """The probe could not be made, which is not the task's fault."""


def make_argv(effect: Probe) -> tuple[str, ...]:
    """The check's command; the environment that it adds goes before the task's own."""
    command = effect.check.command
    assert command is not None, "checks without what they need are refused before their task starts"
    value = command.value or ""
    argv = ("/bin/sh", "-c", value) if command.shell else (value, *command.arguments[1:])
    if not command.environment:
        return argv
    return ("env", *(f"{name}={text}" for name, text in command.environment), *argv)


async def _connect(effect: Probe) -> None:
    async with asyncio.timeout(effect.check.timeout_s or None):
        _, writer = await asyncio.open_connection(effect.address, effect.check.port)
    writer.transport.abort()


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _is_own(error: Exception) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in _OWN_TROUBLE


def _explain(error: Exception) -> str:
    if isinstance(error, aiohttp.TooManyRedirects):
        return f"it redirected more than {_MOST_REDIRECTS} times"
    number = error.errno if isinstance(error, OSError) else None
    if number:
        return f"the connection failed: {os.strerror(number)}"
    return f"the answer was broken: {str(error) or type(error).__name__}"
