"""Whatever a client puts in the place of a member, the answer is a call or a refusal with words, never a bug."""

import copy
import json
from contextlib import suppress
from typing import Any

import mesos_strategies as some
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos.operator import read_call as read_operator_call
from corral.mesos.scheduler import check_framework, read_call, write_call
from corral.model import calls

MEMBERS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), some.texts,
    st.sampled_from(
        [2**63, 10**30, "", "/", "Infinity", "NaN", "-1", "1.5", [], {}, [None], [[]], [{}], {"value": None},
         {"value": []}, {"value": -5}, {"value": "Infinity"}, {"range": [{"begin": 5, "end": 1}]}]
    ),
)  # fmt: skip


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    return draw(spoiled_copies(some.all_calls.map(lambda call: json.loads(write_call(call)))))


@st.composite
def spoiled_copies(draw: st.DrawFn, calls: st.SearchStrategy[Any]) -> bytes:
    """A call as JSON with one to three of its members replaced or left out."""
    root = [copy.deepcopy(draw(calls))]
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from([p for p in places(root) if p]))
        parent: Any = root
        for key in path:
            parent = parent[key]
        if isinstance(parent, dict) and draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = copy.deepcopy(draw(MEMBERS))
    return json.dumps(root[0]).encode()


def operator_calls() -> list[Any]:
    """Whole operator calls that change something."""
    scalar = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.5}, "role": "*"}
    amounts = {"cpus": {"value": 1.5}, "mem": {"value": 0}}
    bodies: dict[str, Any] = {
        "UPDATE_WEIGHTS": {"weight_infos": [{"role": "ads/etl", "weight": 2.0}]},
        "UPDATE_QUOTA": {"force": True, "quota_configs": [{"role": "ads", "guarantees": amounts, "limits": amounts}]},
        "SET_QUOTA": {"quota_request": {"role": "ads", "force": False, "guarantee": [scalar]}},
        "REMOVE_QUOTA": {"role": "ads"},
    }
    return [{"type": kind, kind.lower(): body} for kind, body in bodies.items()]


@st.composite
def spoiled_operator_calls(draw: st.DrawFn) -> bytes:
    return draw(spoiled_copies(st.sampled_from(operator_calls())))


@settings(max_examples=200, deadline=None)
@given(spoiled_operator_calls())
def test_a_spoiled_operator_call_is_taken_or_refused_with_words(body: bytes) -> None:
    with suppress(Invalid, Unimplemented):
        call = read_operator_call(body)
        again = msgspec.json.encode(call)
        assert again, "whatever is read can be written to a journal"


@settings(max_examples=400, deadline=None)
@given(spoiled())
def test_a_spoiled_call_is_taken_or_refused_with_words(body: bytes) -> None:
    for read in (read_call, read_operator_call):
        with suppress(Invalid, Unimplemented):
            call = read(body)
            if isinstance(call, calls.Subscribe):
                assert check_framework(call.info, call.suppressed_roles) != ""
