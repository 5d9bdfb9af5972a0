"""What is written is read as the same thing again, for every call and event that the model can state."""

import json
from contextlib import suppress

import mesos_strategies as some
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos.scheduler import read_call, read_event, write_call, write_event
from corral.model import events
from corral.model.offer import Offer
from corral.model.resources import normal

quick = settings(max_examples=60, deadline=None)


def charged(offer: Offer) -> Offer:
    """The offer with every resource charged to a role, as it is on the wire."""
    return msgspec.structs.replace(
        offer,
        resources=normal(
            r
            if r.identity.allocation_role
            else msgspec.structs.replace(r, identity=msgspec.structs.replace(r.identity, allocation_role=offer.role))
            for r in offer.resources
        ),
    )


@quick
@given(some.all_calls)
def test_a_call_is_read_as_it_was_written(call):
    assert read_call(write_call(call)) == call


@quick
@given(some.all_events, st.booleans())
def test_an_event_is_read_as_it_was_written_in_either_form_of_reservation(event, refinement):
    if isinstance(event, events.Offers):
        event = events.Offers(offers=tuple(charged(o) for o in event.offers))
    assert read_event(write_event(event, refinement=refinement)) == event


def _loosen(value, depth):
    """The same message as sloppy clients write it: nulls, unknown keys, numbers as text, no list around one item."""
    if isinstance(value, dict):
        loose = {key: _loosen(v, depth) for key, v in value.items()}
        if not loose.keys() & {"cpus", "mem", "*", "ads", "ads/etl", "ads/etl/nightly"} and depth.draw(st.booleans()):
            loose["no_such_field"] = depth.draw(st.sampled_from([None, 1, "x", [], {"a": [1]}]))
        return loose
    if isinstance(value, list):
        items = [_loosen(v, depth) for v in value]
        if len(items) == 1 and depth.draw(st.booleans()):
            return items[0]
        return [*items, None] if depth.draw(st.booleans()) else items
    if isinstance(value, bool):
        return str(value).lower() if depth.draw(st.booleans()) else value
    if isinstance(value, int | float):
        return str(value) if depth.draw(st.booleans()) else value
    return value


@quick
@given(some.all_calls, st.data())
def test_a_sloppily_written_call_means_the_same(call, data):
    tree = json.loads(write_call(call))
    strict = read_call(json.dumps(tree).encode())
    assert read_call(json.dumps(_loosen(tree, data)).encode()) == strict


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@quick
@given(some.all_calls, st.data())
def test_a_damaged_call_is_read_or_refused_and_never_anything_else(call, data):
    tree = json.loads(write_call(call))
    node = tree
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        node[key] = data.draw(junk)
        break
    with suppress(Invalid, Unimplemented):
        read_call(json.dumps(tree).encode())


@quick
@given(st.binary(max_size=40) | junk.map(lambda tree: json.dumps(tree).encode()))
def test_any_bytes_are_read_or_refused_and_never_anything_else(body):
    for read in (read_call, read_event):
        with suppress(Invalid):
            read(body)
