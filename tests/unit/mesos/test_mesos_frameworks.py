"""Which frameworks are told by an ERROR event that they may not subscribe."""

import pytest

from corral.mesos.scheduler import check_framework, check_resubscribe
from corral.model.framework import Capability, FrameworkInfo

MANY = (Capability.MULTI_ROLE,)


def info(**fields):
    return FrameworkInfo(**{"user": "u", "name": "n", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"role": "ads"},
        {"role": "ads/etl/nightly"},
        {"role": "*"},
        {"capabilities": MANY},
        {"capabilities": MANY, "roles": ("ads", "ads/etl")},
        {"failover_timeout_s": 1e9, "id": "f 1"},
    ],
)
def test_a_framework_with_sensible_roles_may_subscribe(fields):
    assert check_framework(info(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"roles": ("ads",)}, "without the MULTI_ROLE capability"),
        ({"capabilities": MANY, "role": "ads"}, "'FrameworkInfo.role' must not be set"),
        ({"capabilities": MANY, "roles": ("a", "b", "a")}, "duplicates; found a"),
        *(
            ({"role": role}, "role")
            for role in (".", "..", "-a", "a b", "a\tb", "a\bb", "/a", "a/", "a//b", "a/..", "a/-b", "a/*", "*/a")
        ),
        ({"failover_timeout_s": -1.0}, "failover_timeout"),
        ({"failover_timeout_s": float("nan")}, "failover_timeout"),
        ({"failover_timeout_s": float("inf")}, "failover_timeout"),
        ({"failover_timeout_s": 1e10}, "at most"),
        ({"id": "a/b"}, "'FrameworkInfo.id'"),
        ({"id": ".."}, "'FrameworkInfo.id'"),
        ({"id": "x" * 256}, "255"),
    ],
)
def test_a_framework_that_breaks_a_rule_is_told_which(fields, text):
    assert text in (check_framework(info(**fields)) or "")


def test_only_roles_of_the_framework_can_be_suppressed():
    assert check_framework(info(role="ads"), ("ads",)) is None
    assert "ops" in (check_framework(info(role="ads"), ("ads", "ops")) or "")
    assert "suppressed" in (check_framework(info(capabilities=MANY), ("ads",)) or "")


def test_a_known_framework_may_change_all_but_its_principal():
    known = info(id="f", principal="p", role="a")
    assert check_resubscribe(known, info(id="f", principal="p", role="b", name="other")) is None
    assert "'p' to 'q'" in (check_resubscribe(known, info(id="f", principal="q")) or "")
    assert check_resubscribe(info(id="f"), info(id="f", principal="")) is None
