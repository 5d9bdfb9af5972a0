"""Processes of one release and the next work together: what either has written or says, the other reads."""

import json
from typing import Any

import msgspec
import pytest
from skew_samples import FILE, KINDS, MESSAGES, Maker, samples, show

from corral.lib.errors import Invalid
from corral.model.orders import Order, Ping, Pong, Report
from corral.net.stream import FrameReader, pack

FROZEN: dict[str, Any] = json.loads(FILE.read_text())["samples"]


def holds(old: Any, new: Any) -> bool:
    """Whether everything that was said is still understood; what is new has its default."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and holds(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(new) >= len(old) and all(holds(a, b) for a, b in zip(old, new, strict=False))
    return bool(old == new)


def test_every_record_and_message_has_a_frozen_sample() -> None:
    assert sorted(set(KINDS) - set(FROZEN)) == [], "run tests/unit/skew/skew_samples.py, and add the file"


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_what_the_last_release_wrote_is_read_and_means_the_same(name: str) -> None:
    assert name in KINDS, "a record of the last release may not be forgotten before the next one"
    for sample in FROZEN[name]:
        found = msgspec.msgpack.decode(bytes.fromhex(sample["bytes"]), type=KINDS[name])
        assert holds(sample["value"], show(found))


REFUSING = ("batch.Bundle", "batch.Owner")
"""They hold what people wrote in the words of an API that refuses unknown ones: a job with a field that this release
does not know is not run without it, so a framework that is set back stops at the first such job and says so."""


@pytest.mark.parametrize("name", REFUSING)
def test_a_job_of_a_later_release_is_refused_and_not_misread(name: str) -> None:
    whole = samples(KINDS[name], extra=True)[1]
    with pytest.raises(msgspec.ValidationError, match="unknown field `later`"):
        msgspec.msgpack.decode(whole, type=KINDS[name])


@pytest.mark.parametrize("name", sorted(set(KINDS) - set(REFUSING)))
def test_what_the_next_release_adds_is_passed_over(name: str) -> None:
    kind = KINDS[name]
    for plain, more in zip(samples(kind), samples(kind, extra=True), strict=True):
        assert msgspec.msgpack.decode(more, type=kind) == msgspec.msgpack.decode(plain, type=kind)


@pytest.mark.parametrize(("union", "first"), [(Order, Ping(7)), (Report, Pong())])
def test_a_message_that_only_the_next_release_knows_is_passed_over(union: Any, first: msgspec.Struct) -> None:
    class Later(msgspec.Struct, array_like=True, tag="later"):
        epoch: int
        what: str

    reader: FrameReader[Any] = FrameReader(union)
    assert reader.feed(pack([first, Later(7, "x"), first])) == [first, first]
    assert reader.unknown == {"later": 1}


def test_a_known_message_that_is_broken_is_no_later_one() -> None:
    reader: FrameReader[Any] = FrameReader(Order)
    with pytest.raises(Invalid):
        reader.feed(pack([Broken()]))


class Broken(msgspec.Struct, array_like=True, tag="ping"):
    epoch: str = "no number"


def test_the_comparison_sees_what_is_lost() -> None:
    assert holds({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2, "c": 3}, 4], "d": 5})
    assert not holds({"a": 1}, {"b": 1})
    assert not holds([1, 2], [1])
    assert not holds({"a": 1}, {"a": 2})


def test_messages_have_their_epoch_first_so_that_any_release_finds_it() -> None:
    for name, kind in MESSAGES.items():
        if name.startswith("order."):
            assert Maker(full=True).make(kind)[1] == 3, name
            assert kind.__struct_fields__[0] == "epoch"
