"""What etcd's JSON gateway is sent and what it answers, as values; no I/O.

Bytes travel as base64, 64-bit numbers as text, and a value that is zero or empty is left out. An error is a body with
`code`, a gRPC code, and in a stream that began with status 200 an `error` instead of a `result`.
Source: etcd v3.4, "gRPC gateway", `api_grpc_gateway.md`; `rpctypes/error.go`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from corral.store.base import Guard


class KeyValue(msgspec.Struct, frozen=True):
    key: bytes = b""
    value: bytes = b""
    mod_revision: int = 0


class Header(msgspec.Struct, frozen=True):
    revision: int = 0


class RangeAnswer(msgspec.Struct, frozen=True):
    header: Header = Header()
    kvs: tuple[KeyValue, ...] = ()
    more: bool = False


class OpAnswer(msgspec.Struct, frozen=True):
    response_range: RangeAnswer | None = None


class TxnAnswer(msgspec.Struct, frozen=True):
    header: Header = Header()
    succeeded: bool = False
    responses: tuple[OpAnswer, ...] = ()


class LeaseAnswer(msgspec.Struct, frozen=True):
    """Shapes: `ttl_s` 0 when there is no such lease."""

    id: int = msgspec.field(default=0, name="ID")
    ttl_s: int = msgspec.field(default=0, name="TTL")


class TokenAnswer(msgspec.Struct, frozen=True):
    token: str = ""


class StatusAnswer(msgspec.Struct, frozen=True):
    version: str = ""


class Event(msgspec.Struct, frozen=True):
    """Shapes: `type` is "DELETE", or left out for a put."""

    kv: KeyValue
    type: str = "PUT"


class WatchAnswer(msgspec.Struct, frozen=True):
    """Shapes: with `fragment` the same revision goes on in the next answer."""

    header: Header = Header()
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    fragment: bool = False
    events: tuple[Event, ...] = ()


class Trouble(msgspec.Struct, frozen=True):
    """An error as the gateway writes it: `code` in a body, `grpc_code` in a stream."""

    message: str = ""
    error: str = ""
    code: int = 0
    grpc_code: int = 0

    @property
    def text(self) -> str:
        return (self.message or self.error).removeprefix("etcdserver: ")

    @property
    def kind(self) -> int:
        return self.code or self.grpc_code


class StreamAnswer(msgspec.Struct, frozen=True):
    """One line of a stream."""

    result: msgspec.Raw = msgspec.Raw(b"")
    error: Trouble | None = None


T = TypeVar("T")

# gRPC codes.
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 3, 5, 7, 8
FAILED_PRECONDITION, OUT_OF_RANGE, UNAVAILABLE, UNAUTHENTICATED = 9, 11, 14, 16


def encode(body: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(body)


def decode(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Errors: `msgspec.DecodeError` when it is no answer of etcd."""
    return msgspec.json.decode(body, type=kind, strict=False)


def range_end(prefix: bytes) -> bytes:
    """The least key after all keys with the prefix; a zero byte stands for no end."""
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes([cut[-1] + 1]) if cut else b"\0"


def range_of(prefix: bytes) -> dict[str, Any]:
    """All keys with the prefix, as a part of a request."""
    return {"key": prefix or b"\0", "range_end": range_end(prefix)}


def compare(key: bytes, revision: int) -> dict[str, Any]:
    """That a key was last written at a revision; 0 means that it does not exist."""
    return {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def put(key: bytes, value: bytes, lease: int | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"key": key, "value": value}
    if lease is not None:
        body["lease"] = str(lease)
    return {"request_put": body}


def delete(key: bytes) -> dict[str, Any]:
    return {"request_delete_range": {"key": key}}


def delete_below(prefix: bytes) -> dict[str, Any]:
    return {"request_delete_range": range_of(prefix)}


def most_writes(max_txn_ops: int) -> int:
    """How many keys one transaction can write, a marker beside them, when operations are nested once.

    A server that takes n operations takes m transactions of n - m operations each as one: m = n / 2 makes the most.
    """
    half = max_txn_ops // 2
    return max(max_txn_ops - 1, (half - 1) * (max_txn_ops - half))


def nest(ops: Sequence[dict[str, Any]], max_txn_ops: int, beside: int) -> list[dict[str, Any]]:
    """The operations in the order given, as at most `max_txn_ops - beside` operations of one transaction.

    Shapes: they come back as they are, or gathered into transactions without conditions.
    Source: etcd `v3rpc/key.go`, `checkTxnRequest`: what is nested may hold as many as its parent has left.
    """
    if len(ops) + beside <= max_txn_ops:
        return list(ops)
    half = max_txn_ops // 2
    size = max_txn_ops - half
    return [{"request_txn": {"success": list(ops[at : at + size])}} for at in range(0, len(ops), size)]


def first_broken(guards: Sequence[Guard], found: Sequence[OpAnswer]) -> str:
    """The key of the first guard that does not hold, from what its key's range found; "" when all hold."""
    for guard, answer in zip(guards, found, strict=False):
        kvs = answer.response_range.kvs if answer.response_range is not None else ()
        if (kvs[0].mod_revision if kvs else 0) != guard.revision:
            return guard.key
    return ""
