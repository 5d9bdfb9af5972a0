"""Speaks with a running HAProxy: its runtime API, and the master process above its workers.

One connection carries one line of commands and its answer. Source: HAProxy management guide, 9.3 and 9.4.
"""

import asyncio
import csv
import re
from collections.abc import Iterator, Sequence

import msgspec

from corral.lib.errors import Failed, Unavailable

TIMEOUT_S = 5.0
MOST_PER_LINE = 64
MOST_ANSWER_BYTES = 64 << 20

_SERVERS = "show stat -1 4 -1"
_BACKENDS_TOO = "show stat -1 6 -1"


class Worker(msgspec.Struct, frozen=True):
    pid: int
    old: bool


class Processes(msgspec.Struct, frozen=True):
    """Shapes: `failed` reloads in a row, up to the last one; releases before 2.6 do not tell."""

    workers: tuple[Worker, ...] = ()
    reloads: int = 0
    failed: int = 0


class ServerCount(msgspec.Struct, frozen=True):
    """Shapes: `current` connections or requests under way, `total` since the worker began."""

    backend: str
    server: str
    current: int
    total: int
    status: str = ""


class Absent(Unavailable):
    """There is no HAProxy, not one that hangs."""


async def talk(path: str, line: str) -> str:
    """One line's answer. Errors: `Absent` when nobody listens there, `Unavailable` when it hangs."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=MOST_ANSWER_BYTES)
            try:
                writer.write(line.encode() + b"\n")
                writer.write_eof()  # the master process answers and then waits for more, unless there is no more
                await writer.drain()
                return (await reader.read(-1)).decode(errors="replace")
            finally:
                writer.close()
    except TimeoutError:
        raise Unavailable(f"HAProxy did not answer at {path} within {TIMEOUT_S:g} s") from None
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Absent(f"no HAProxy answers at {path}: {error.strerror or error}") from None
    except OSError as error:
        raise Unavailable(f"HAProxy broke off at {path}: {error.strerror or error}") from None


async def set_servers(path: str, commands: Sequence[str]) -> None:
    """Carry out commands that say nothing when they succeed.

    Errors: `Failed` with HAProxy's words for one that it does not take; those before it are done.
    """
    for at in range(0, len(commands), MOST_PER_LINE):
        said = await talk(path, ";".join(commands[at : at + MOST_PER_LINE]))
        words = [line.strip() for line in said.splitlines() if line.strip() and not _is_fine(line)]
        if words:
            raise Failed(f"HAProxy does not take a command: {'; '.join(words)[:500]}")


def _is_fine(line: str) -> bool:
    # Moving a server is told in words, also when there was nothing to move.
    return "changed from" in line or "no need to change" in line or "nothing changed" in line


def read_processes(text: str) -> Processes:
    """The answer of `show proc`: the present worker, those that only end what they had begun, how reloads went."""
    found, old = [], False
    master = re.search(r"^\d+ +master +(\d+)(?: +\[failed: (\d+)\])?", text, re.MULTILINE)
    for line in text.splitlines():
        if line.startswith("# old workers"):
            old = True
        elif line.startswith("# programs"):
            break
        elif line and not line.startswith("#"):
            words = line.split()
            if len(words) > 1 and words[0].isdigit() and words[1] == "worker":
                found.append(Worker(int(words[0]), old))
    if master is None:
        return Processes(tuple(found))
    return Processes(tuple(found), int(master[1]), int(master[2] or 0))


def read_servers(text: str) -> Iterator[ServerCount]:
    """The servers in a `show stat` answer."""
    rows = csv.DictReader(text.lstrip().removeprefix("# ").splitlines())
    for row in rows:
        name = row.get("svname") or ""
        if name and name not in ("FRONTEND", "BACKEND"):
            yield ServerCount(
                row.get("pxname") or "", name, int(row.get("scur") or 0), int(row.get("stot") or 0),
                row.get("status") or "",
            )  # fmt: skip


def read_queues(text: str) -> dict[str, int]:
    """How many requests wait, by backend: for any of its servers, or for one of them."""
    found: dict[str, int] = {}
    for row in csv.DictReader(text.lstrip().removeprefix("# ").splitlines()):
        backend = row.get("pxname") or ""
        found[backend] = found.get(backend, 0) + int(row.get("qcur") or 0)
    return found


async def measure(path: str) -> tuple[list[ServerCount], dict[str, int]]:
    """The servers, and what waits by backend."""
    text = await talk(path, _BACKENDS_TOO)
    return list(read_servers(text)), read_queues(text)


async def count_servers(path: str) -> list[ServerCount]:
    return list(read_servers(await talk(path, _SERVERS)))


async def count_old(master: str, pid: int) -> list[ServerCount]:
    """What an old worker still has."""
    return list(read_servers(await talk(master, f"@!{pid} {_SERVERS}")))


async def processes(master: str) -> Processes:
    return read_processes(await talk(master, "show proc"))
