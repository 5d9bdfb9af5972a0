"""Requests to etcd's gateway and what becomes of its answers."""

from typing import Any

import msgspec
import pytest

from corral.store.base import Guard, weigh
from corral.store.etcd import wire


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff\xff", b"b"), (b"", b"\0"), (b"\xff\xff", b"\0")]
)
def test_a_prefix_ends_before_the_next_greater_key(prefix: bytes, end: bytes) -> None:
    assert wire.range_end(prefix) == end


def count_allowed(ops: list[dict[str, Any]], compares: int, most: int) -> bool:
    """Whether a server takes it: what is nested may have as many operations as its parent leaves."""
    here = max(len(ops), compares)
    inner = [op["request_txn"]["success"] for op in ops if "request_txn" in op]
    return here <= most and all(count_allowed(each, 0, most - here) for each in inner)


@pytest.mark.parametrize("most", [8, 9, 16, 100, 128, 1000])
def test_operations_are_nested_so_that_a_server_takes_as_many_as_the_store_says(most: int) -> None:
    for count in {1, most - 1, most, most + 1, wire.most_writes(most)}:
        if count > wire.most_writes(most):
            continue
        ops = [wire.delete(b"%d" % n) for n in range(count)]
        nested = wire.nest(ops, most, 1)
        assert count_allowed([wire.put(b"marker", b""), *nested], 1, most)
        assert [o for n in nested for o in (n["request_txn"]["success"] if "request_txn" in n else [n])] == ops


def test_zero_and_empty_are_left_out_by_etcd_and_read_all_the_same() -> None:
    body = b'{"header":{"revision":"7"},"responses":[{"response_range":{"kvs":[{"key":"YQ==","mod_revision":"5"}]}}]}'
    answer = wire.decode(body, wire.TxnAnswer)
    assert (answer.header.revision, answer.succeeded) == (7, False)
    found = answer.responses[0].response_range
    assert found is not None
    assert found.kvs == (wire.KeyValue(b"a", b"", 5),)


def test_the_first_guard_that_does_not_hold_is_named() -> None:
    def seen(*kvs: wire.KeyValue) -> wire.OpAnswer:
        return wire.OpAnswer(response_range=wire.RangeAnswer(kvs=kvs))

    guards = [Guard("a", 3), Guard("b", 0), Guard("c", 4)]
    holds, absent = seen(wire.KeyValue(b"a", b"", 3)), seen()
    assert wire.first_broken(guards, [holds, absent, seen(wire.KeyValue(b"c", b"", 5))]) == "c"
    assert wire.first_broken(guards, [absent, absent, absent]) == "a"
    assert wire.first_broken(guards, [holds, seen(wire.KeyValue(b"b", b"", 9)), absent]) == "b"


def test_an_error_is_told_from_a_body_and_from_a_stream() -> None:
    body = wire.decode(b'{"error":"etcdserver: x","message":"etcdserver: x","code":14}', wire.Trouble)
    assert (body.text, body.kind) == ("x", wire.UNAVAILABLE)
    line = wire.decode(b'{"error":{"grpc_code":5,"http_code":404,"message":"etcdserver: y"}}', wire.StreamAnswer)
    assert line.error is not None
    assert (line.error.text, line.error.kind) == ("y", wire.NOT_FOUND)


def test_a_commit_weighs_no_less_than_its_request_has_in_etcds_own_form() -> None:
    writes: dict[str, bytes | None] = {"é" * 10: b"1" * 50, "gone": None}
    assert weigh(writes) >= 20 + 50 + 4 + 2 * 40
    assert weigh({}) == 0


def test_bytes_travel_as_base64_and_revisions_as_text() -> None:
    sent = msgspec.json.decode(wire.encode(wire.compare(b"a", 1 << 60)))
    assert sent == {"key": "YQ==", "target": "MOD", "result": "EQUAL", "mod_revision": str(1 << 60)}
