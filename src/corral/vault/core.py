"""The vault: every version of every config and secret, the newest few kept. Values pass through sealed, unread."""

from collections.abc import Sequence
from typing import Any

from corral.lib.errors import Conflict, Invalid, NotFound, TooLarge
from corral.runtime.core import Asked, Effect, Loaded, Note, Persist, Reply, decode_records
from corral.vault.spec import (
    MOST_BYTES,
    MOST_ITEMS,
    MOST_VERSIONS,
    Command,
    Get,
    Kind,
    List,
    Put,
    Remove,
    Reseal,
    Stale,
    VersionRecord,
    Versions,
    check_name,
)

Input = Loaded | Asked[Command]
_SEAL_BYTES = 64


class VaultCore:
    """Shapes: `items` maps kind and name to versions by number, oldest first."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: dict[tuple[Kind, str], dict[int, VersionRecord]] = {}

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Loaded():
                for record in decode_records(input, "version/", VersionRecord).values():
                    self.items.setdefault((record.kind, record.name), {})[record.number] = record
                self.items = {key: dict(sorted(found.items())) for key, found in self.items.items()}
                return []
            case Asked(ask=ask, command=Put() as put):
                return self._put(ask, put, now)
            case Asked(ask=ask, command=Remove() as remove):
                return self._remove(ask, remove)
            case Asked(ask=ask, command=Reseal() as reseal):
                return self._reseal(ask, reseal)
            case Asked(ask=ask, command=command):
                return [Reply(ask, self._view(command))]
        return []

    def invariants(self) -> None:
        for (kind, name), versions in self.items.items():
            assert versions, f"{kind} {name} has no version"
            assert len(versions) <= MOST_VERSIONS, f"{kind} {name} has {len(versions)} versions"
            assert list(versions) == sorted(versions), f"versions of {kind} {name} are out of order"

    def _view(self, command: Command) -> Any:
        match command:
            case Get(kind=kind, name=name, number=number):
                versions = self._need(kind, name)
                wanted = max(versions) if number is None else number
                if wanted not in versions:
                    kept = ", ".join(map(str, versions))
                    raise NotFound(f"{kind} {name} has no version {wanted}; kept are {kept}")
                return versions[wanted]
            case List(kind=wanted_kind):
                return [v[max(v)] for (kind, _), v in sorted(self.items.items()) if kind is wanted_kind]
            case Versions(kind=kind, name=name):
                return list(self._need(kind, name).values())
            case Stale(key_id=key_id):
                secrets = (v for (kind, _), found in self.items.items() if kind is Kind.SECRET for v in found.values())
                return [record for record in secrets if record.key_id != key_id]
        raise NotFound(f"command {type(command).__name__} is not known to the vault")

    def _need(self, kind: Kind, name: str) -> dict[int, VersionRecord]:
        found = self.items.get((kind, name))
        if found is None:
            raise NotFound(f"there is no {kind} {name}; `corral {kind} ls` lists them")
        return found

    def _put(self, ask: int, put: Put, now: float) -> list[Effect]:
        check_name(put.name)
        key = (put.kind, put.name)
        versions = self.items.get(key, {})
        newest = max(versions, default=0)
        if len(put.data) > MOST_BYTES + _SEAL_BYTES:
            raise TooLarge(f"{put.kind} {put.name} has more than {MOST_BYTES} bytes; give a file by a URI instead")
        if put.expected is not None and put.expected != newest:
            raise Conflict(
                f"{put.kind} {put.name} is at version {newest}, not {put.expected}; look at it and try again"
            )
        if not versions and len(self.items) >= MOST_ITEMS:
            raise Invalid(f"there are {MOST_ITEMS} configs and secrets, which is the most; remove some")
        record = VersionRecord(
            kind=put.kind, name=put.name, number=newest + 1, at=now, data=put.data, key_id=put.key_id
        )  # fmt: skip
        dropped = list(versions)[: max(0, len(versions) + 1 - MOST_VERSIONS)]
        kept = {number: v for number, v in versions.items() if number not in dropped}
        self.items[key] = {**kept, record.number: record}
        facts = {"name": put.name, "version": record.number}
        return [
            Persist(_key(record), record),
            *(Persist(_key(versions[number]), None) for number in dropped),
            Note(f"{put.kind} set", "somebody gave it a value", facts=facts),
            Reply(ask, record.number),
        ]

    def _remove(self, ask: int, remove: Remove) -> list[Effect]:
        versions = self._need(remove.kind, remove.name)
        del self.items[remove.kind, remove.name]
        return [
            *(Persist(_key(record), None) for record in versions.values()),
            Note(f"{remove.kind} removed", "somebody removed it", facts={"name": remove.name}),
            Reply(ask),
        ]

    def _reseal(self, ask: int, reseal: Reseal) -> list[Effect]:
        versions = self.items.get((Kind.SECRET, reseal.name), {})
        old = versions.get(reseal.number)
        if old is None:
            return [Reply(ask, False)]
        record = VersionRecord(
            kind=old.kind, name=old.name, number=old.number, at=old.at, data=reseal.data, key_id=reseal.key_id
        )  # fmt: skip
        versions[reseal.number] = record
        return [Persist(_key(record), record), Reply(ask, True)]


def _key(record: VersionRecord) -> str:
    return f"version/{record.kind}/{record.name}@{record.number:08}"


class VaultShell:
    """The vault has no effects of its own."""

    def perform(self, effect: Effect) -> None:
        raise TypeError(f"the vault has no effect {type(effect).__name__}")

    def flush(self) -> None:
        return
