"""Asks agents what their tasks use, by the statistics that Mesos' agents have too.

An agent that does not answer is missing from the answer. Source: the agent's `/monitor/statistics`.
"""

import asyncio
from typing import Any

import aiohttp
import msgspec

from corral.net.access import NO_ACCESS, Access, complete_url
from corral.net.client import open_session
from corral.sdk.effects import Measure, Measured

TIMEOUT_S = 5.0
MOST_AT_ONCE = 32


class Measurer:
    """Asks a number of agents at once, and no more. Shapes: `access` is how agents are reached in a secured cluster."""

    def __init__(self, access: Access = NO_ACCESS) -> None:
        self._access = access
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def measure(self, asked: Measure) -> Measured:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = open_session(self._access, to_master=False, timeout=timeout)
        found = await asyncio.gather(*(self._ask(self._session, node) for node in asked.nodes))
        return Measured(usage={task: usage for each in found for task, usage in each.items()})

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, session: aiohttp.ClientSession, node: str) -> dict[str, tuple[float, int]]:
        async with self._slots:
            try:
                async with session.get(complete_url(node, self._access) + "/monitor/statistics") as answer:
                    if answer.status != 200:
                        return {}
                    return read_statistics(msgspec.json.decode(await answer.read()))
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
                return {}


def read_statistics(value: Any) -> dict[str, tuple[float, int]]:
    """Seconds of processor time and bytes by executor, which of a command task has the task's id."""
    found: dict[str, tuple[float, int]] = {}
    for item in value if isinstance(value, list) else ():
        used = item.get("statistics") or {}
        if "mem_rss_bytes" in used:
            cpu_s = float(used.get("cpus_user_time_secs", 0.0)) + float(used.get("cpus_system_time_secs", 0.0))
            found[item["executor_id"]] = (cpu_s, int(used["mem_rss_bytes"]))
    return found
