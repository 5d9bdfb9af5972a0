"""What the vault keeps and can be told: configs, which everybody may see, and secrets, which nobody may.

The core never has a secret's value: it is sealed before it gets here and opened after it has left.
"""

import re
from enum import StrEnum

import msgspec

from corral.lib.errors import Invalid

MOST_BYTES = 64 << 10
MOST_VERSIONS = 10
MOST_ITEMS = 10_000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class Kind(StrEnum):
    CONFIG = "config"
    SECRET = "secret"  # noqa: S105 - a word, not one


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One value of an item. Shapes: of a secret, `data` is sealed with the key `key_id`; of a config it is the value.

    Units: `at` seconds UTC.
    """

    kind: Kind
    name: str
    number: int
    at: float
    data: bytes
    key_id: str = ""


class Put(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A new version. Shapes: with `expected` only if the newest has that number, 0 for none."""

    kind: Kind
    name: str
    data: bytes
    key_id: str = ""
    expected: int | None = None


class Remove(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    kind: Kind
    name: str


class Get(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `number` None is the newest; answered with a `VersionRecord`."""

    kind: Kind
    name: str
    number: int | None = None


class List(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answered with the newest version of each item."""

    kind: Kind


class Versions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    kind: Kind
    name: str


class Stale(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answered with the versions that are sealed with another key than this."""

    key_id: str


class Reseal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The same value under another key; ignored when that version is there no more."""

    name: str
    number: int
    data: bytes
    key_id: str


Command = Put | Remove | Get | List | Versions | Stale | Reseal


def check_name(name: str) -> str:
    """Errors: `Invalid` shows the form."""
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise Invalid(
            f"name {name!r} is not of the form db/password: letters, digits, _ . - in parts divided by slashes"
        )
    return name


def split_source(source: str) -> tuple[Kind, str]:
    """What an app's `source` names: a secret, or with `config:` before it a config. Errors: `Invalid` as the name."""
    kind, colon, rest = source.partition(":")
    if colon and kind in (Kind.CONFIG, Kind.SECRET):
        return Kind(kind), check_name(rest.strip("/"))
    return Kind.SECRET, check_name(source.strip("/"))
