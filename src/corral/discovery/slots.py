"""Gives each server of a backend a slot of HAProxy's and says how the running one becomes the wanted one.

A slot is a `server` line whose address, weight and state are set while HAProxy runs. An instance keeps its slot for as
long as it is there, also over a reload, so that its connections can be counted in the old process and the new one. Only
when a backend has too few slots, or something else than a slot changes, HAProxy has to be reloaded.
Source: HAProxy management guide, 9.3, `set server`.
"""

from collections.abc import Mapping, Sequence

import msgspec

from corral.discovery.services import Server, Service

SPARE_ADDRESS = "127.0.0.1"
SPARE_PORT = 1
LEAST_SLOTS = 4


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `instance` is empty for a spare one; only what is `up` gets new connections."""

    instance: str = ""
    app: str = ""
    address: str = SPARE_ADDRESS
    port: int = SPARE_PORT
    weight: int = 0
    up: bool = False
    leaving: bool = False


SPARE = Slot()

Slots = Mapping[str, tuple[Slot, ...]]
"""The slots of each backend, by its name."""


def slot_name(index: int) -> str:
    return f"s{index + 1}"


def place(services: Sequence[Service], before: Slots) -> dict[str, tuple[Slot, ...]]:
    """Every server in a slot: the one it has, else a spare one, else one more."""
    return {service.name: _place(service.servers, before.get(service.name, ())) for service in services}


def _place(servers: Sequence[Server], before: tuple[Slot, ...]) -> tuple[Slot, ...]:
    wanted = {server.instance: server for server in servers}
    slots: list[Slot] = []
    for old in before:
        server = wanted.pop(old.instance, None) if old.instance else None
        slots.append(SPARE if server is None else _fill(server))
    # One that gets no traffic needs no slot until it does.
    waiting = [_fill(server) for server in wanted.values() if server.up]
    for index, slot in enumerate(slots):
        if waiting and not slot.instance:
            slots[index] = waiting.pop(0)
    slots += waiting
    used = sum(1 for slot in slots if slot.instance)
    if len(slots) > len(before) or not before:
        # There is a reload anyway: with room, the next ones need none.
        slots += [SPARE] * (_room(used) - len(slots))
    return tuple(slots)


def _fill(server: Server) -> Slot:
    return Slot(
        instance=server.instance,
        app=server.app,
        address=server.address,
        port=server.port,
        weight=server.weight,
        up=server.up,
        leaving=server.leaving,
    )


def _room(used: int) -> int:
    """Twice as many, for an upgrade that starts all new ones before it ends the old."""
    return max(LEAST_SLOTS, 2 * used)


def commands(before: Slots, wanted: Slots) -> list[str]:
    """What is said to the running HAProxy. Shapes: both have the same backends with as many slots.

    What is taken out goes first: nothing may be sent to an instance that is about to end, if only for a moment.
    """
    out: list[str] = []
    into: list[str] = []
    for backend, slots in wanted.items():
        for index, (old, new) in enumerate(zip(before[backend], slots, strict=True)):
            server = f"{backend}/{slot_name(index)}"
            moved = (old.address, old.port) != (new.address, new.port)
            if old.up and (not new.up or moved):
                out.append(f"set server {server} state maint")
            if not new.up:
                continue
            if moved:
                into.append(f"set server {server} addr {new.address} port {new.port}")
            if moved or old.weight != new.weight:
                into.append(f"set server {server} weight {new.weight}")
            if moved or not old.up:
                into.append(f"set server {server} state ready")
    return out + into


def after(before: Slots, wanted: Slots) -> dict[str, tuple[Slot, ...]]:
    """What the running HAProxy has once it took the commands: one that was taken out keeps its address and weight."""
    return {
        backend: tuple(
            new if new.up else msgspec.structs.replace(new, address=old.address, port=old.port, weight=old.weight)
            for old, new in zip(before[backend], slots, strict=True)
        )
        for backend, slots in wanted.items()
    }


def same_shape(one: Slots, other: Slots) -> bool:
    return one.keys() == other.keys() and all(len(one[name]) == len(other[name]) for name in one)
