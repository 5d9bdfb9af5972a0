"""Sends signals to tasks through the agents' public API."""

import asyncio

import aiohttp

from corral.lib.errors import CorralError
from corral.net.access import NO_ACCESS, Access
from corral.sdk.agents import AgentClient
from corral.sdk.effects import Signal, Signalled

MOST_AT_ONCE = 32


class Signaller:
    """Asks a number of agents at once, and no more. Shapes: `access` is how agents are reached in a secured cluster."""

    def __init__(self, access: Access = NO_ACCESS) -> None:
        self._access = access
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def send(self, asked: Signal) -> Signalled:
        async with self._slots, AgentClient(asked.node, self._access) as agent:
            try:
                await agent.signal(asked.task_id, asked.signal, renew=asked.renew, framework=asked.framework_id)
            except (CorralError, aiohttp.ClientError, OSError) as error:
                return Signalled(asked.task_id, error.message if isinstance(error, CorralError) else str(error))
        return Signalled(asked.task_id)
