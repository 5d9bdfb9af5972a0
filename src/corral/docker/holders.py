"""Holds the networks that the containers of a group share: a small container of its own for each.

What owns a network takes its address and ports along when it ends, and a task may end before its siblings have said
their last words. So no task owns it but a holder, which does nothing and needs no image from anywhere. It comes with
the first container that joins and goes with the last; when it is lost, those that joined are ended, as nothing reaches
them any more. Rule: the Engine's labels say who has joined, so a restarted agent knows it again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from corral.docker.containers import (
    LABEL_CONTAINER,
    LABEL_HOLDER,
    LABEL_NETWORK,
    container_name,
    holder_body,
    is_running,
    labels_of,
    read_addresses,
)
from corral.docker.engine import Engine, Json
from corral.docker.pause import HOLDER_IMAGE, holder_tar
from corral.docker.runs import Pause, clear_away
from corral.lib.backoff import grow_delay_s
from corral.lib.errors import CorralError, NotFound, Unavailable
from corral.model.execution import SharedNetwork

Lose = Callable[[str], Awaitable[None]]

LOST = "the container that holds the network of its group has ended"


class Holders:
    """Those of one agent. Shapes: `lose` ends a container, given its id, whose network is lost."""

    def __init__(self, engine: Engine, owner: str, lose: Lose, pause: Pause) -> None:
        self._engine = engine
        self._owner = owner
        self._lose = lose
        self._pause = pause
        self._joined: dict[str, dict[str, str]] = {}
        """By network, who has joined which holder of it; the Engine's id of that is empty while it is brought up."""
        self._network_of: dict[str, str] = {}
        self._addresses: dict[str, tuple[tuple[str, str], ...]] = {}
        """By network, where it is found."""
        self._lost: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._making = asyncio.Lock()
        self._watched: set[str] = set()
        self._background: set[asyncio.Task[None]] = set()

    async def join(self, container_id: str, shared: SharedNetwork) -> None:
        """Let there be the network for this container.

        Errors: as of the Engine's calls; `Failed` when no holder can be made.
        """
        self._enter(container_id, shared.id, "")
        async with self._lock(shared.id):
            inspected = await self._bring_up(shared)
        self._enter(container_id, shared.id, str(inspected["Id"]))
        self._addresses[shared.id] = read_addresses(inspected)
        self._watch(shared.id, str(inspected["Id"]))

    def addresses_of(self, container_id: str) -> tuple[tuple[str, str], ...]:
        """The networks that the container shares, with the address there. Shapes: as `read_addresses`."""
        return self._addresses.get(self._network_of.get(container_id, ""), ())

    def leave(self, container_id: str) -> None:
        """The container is no more; the holder goes with the last."""
        network = self._network_of.pop(container_id, None)
        self._lost.discard(container_id)
        if network is not None:
            self._joined[network].pop(container_id, None)
            self._clear_away(network)

    def was_lost(self, container_id: str) -> bool:
        """Whether the container was ended for the loss of its network."""
        return container_id in self._lost

    def find_again(self, inspected: Sequence[Json]) -> None:
        """Take up what an earlier agent left.

        Shapes: `inspected` are all of this agent's containers but those that are cleared away as never started.
        """
        holders = {labels_of(one)[LABEL_HOLDER]: one for one in inspected if LABEL_HOLDER in labels_of(one)}
        for labels in map(labels_of, inspected):
            network, id = labels.get(LABEL_NETWORK), labels.get(LABEL_CONTAINER)
            if network is None or id is None:
                continue
            holder = holders.get(network)
            if holder is None or not is_running(holder):
                self._enter(id, network, "")
                self._spawn(self._give_up([id]), f"end {id}")
                continue
            self._enter(id, network, str(holder["Id"]))
            self._watch(network, str(holder["Id"]))
            self._addresses[network] = read_addresses(holder)
        for network in holders:
            self._clear_away(network)

    async def close(self) -> None:
        """Look away; what is held stays."""
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _enter(self, container_id: str, network: str, holder: str) -> None:
        self._joined.setdefault(network, {})[container_id] = holder
        self._network_of[container_id] = network

    def _lock(self, network: str) -> asyncio.Lock:
        return self._locks.setdefault(network, asyncio.Lock())

    async def _bring_up(self, shared: SharedNetwork) -> Json:
        name = container_name(shared.id)
        with suppress(NotFound):
            there = await self._engine.inspect(name)
            if is_running(there):
                return there
            await self._engine.remove(name, force=True)
        await self._create(name, holder_body(shared, self._owner))
        try:
            for network in shared.networks[1:]:
                await self._engine.connect(name, network)
            await self._engine.start(name)
        except Unavailable:
            raise
        except CorralError:
            with suppress(CorralError):
                await self._engine.remove(name, force=True)
            raise
        return await self._engine.inspect(name)

    async def _create(self, name: str, body: Json) -> None:
        try:
            await self._engine.create(name, body)
        except NotFound as error:
            if "no such image" not in error.message.lower():
                raise
            await self._make_image()
            await self._engine.create(name, body)

    async def _make_image(self) -> None:
        """Once for all who miss it at this moment."""
        async with self._making:
            if not await self._engine.image_exists(HOLDER_IMAGE):
                machine = str((await self._engine.version()).get("Arch"))
                await self._engine.load(HOLDER_IMAGE, holder_tar(machine))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Its end.

    def _watch(self, network: str, holder: str) -> None:
        if holder not in self._watched:
            self._watched.add(holder)
            self._spawn(self._await_loss(network, holder), f"network of {network}")

    async def _await_loss(self, network: str, holder: str) -> None:
        """What is lost is this very holder; another of its name is another network."""
        tries = 0
        while True:
            try:
                await self._engine.wait(holder, None)
                if not is_running(await self._engine.inspect(holder)):
                    break
            except NotFound:
                break
            except CorralError:
                pass  # the Engine is away; containers run on
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=5.0))
        self._watched.discard(holder)
        await self._give_up(id for id, joined in sorted(self._joined.get(network, {}).items()) if joined == holder)

    async def _give_up(self, container_ids: Iterable[str]) -> None:
        await asyncio.gather(*map(self._give_up_one, list(container_ids)))

    async def _give_up_one(self, container_id: str) -> None:
        """One that has ended too, as in a restart of all, has not ended for this."""
        try:
            if not is_running(await self._engine.inspect(container_name(container_id))):
                return
        except NotFound:
            return
        except CorralError:
            pass  # what cannot be asked is ended past the Engine
        self._lost.add(container_id)
        await self._lose(container_id)

    def _clear_away(self, network: str) -> None:
        if not self._joined.get(network):
            self._spawn(self._remove(network), f"clear away network of {network}")

    async def _remove(self, network: str) -> None:
        """Until it is gone, or somebody joins it."""

        async def remove() -> None:
            async with self._lock(network):
                if not self._joined.get(network):
                    await self._engine.remove(container_name(network), force=True)

        await clear_away(remove, self._pause, looks=2, is_wanted=lambda: bool(self._joined.get(network)))
        if not self._joined.get(network):
            for known in (self._joined, self._addresses, self._locks):
                known.pop(network, None)
