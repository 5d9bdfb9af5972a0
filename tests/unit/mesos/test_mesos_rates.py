"""Rate limits as Mesos writes them."""

import json

import pytest

from corral.lib.errors import Invalid
from corral.mesos.rates import read_rate_limits
from corral.model.rates import Rate, RateLimits


def test_limits_are_read_as_mesos_writes_them():
    text = {
        "limits": [
            {"principal": "foo", "qps": 55.5, "capacity": 100000}, {"principal": "bar", "qps": 300},
            {"principal": "baz"},
        ],
        "aggregate_default_qps": 333,
        "aggregate_default_capacity": 1000000,
    }  # fmt: skip
    assert read_rate_limits(json.dumps(text).encode()) == RateLimits(
        principals={"foo": Rate(qps=55.5, capacity=100000), "bar": Rate(qps=300.0), "baz": Rate()},
        rest=Rate(qps=333.0, capacity=1000000),
    )
    assert read_rate_limits(b"{}") == RateLimits()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"limits": [{"principal": "a"}, {"principal": "a"}]}, "'a' is listed twice"),
        ({"limits": [{"principal": "a", "capacity": 3}]}, "'a' has a capacity and no qps"),
        ({"aggregate_default_capacity": 3}, "aggregate default has a capacity and no qps"),
        ({"limits": [{"principal": "a", "qps": 0}]}, "'a' has qps 0"),
        ({"limits": [{"principal": "a", "qps": "Infinity"}]}, "'a' has qps inf"),
        ({"limits": [{"principal": "a", "qps": 1, "capacity": -1}]}, "capacity"),
        ({"limits": [{"qps": 1}]}, "principal"),
        ({"limits": [3]}, "limits"),
    ],
)
def test_limits_that_cannot_be_are_refused(text, words):
    with pytest.raises(Invalid, match=words):
        read_rate_limits(json.dumps(text).encode())
