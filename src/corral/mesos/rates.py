"""Reads rate limits as Mesos' `--rate_limits` has them. Source: Mesos v1, framework rate limiting."""

from math import isfinite

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.lenient import LenientDecoder
from corral.model.rates import Rate, RateLimits

_LEAST_QPS, _MOST_QPS = 1e-6, 1e9


class WireLimit(wire.Wire):
    principal: str
    qps: float | None = None
    capacity: wire.ULong | None = None


class WireRateLimits(wire.Wire):
    limits: tuple[WireLimit, ...] = ()
    aggregate_default_qps: float | None = None
    aggregate_default_capacity: wire.ULong | None = None


_limits = LenientDecoder(WireRateLimits, "RateLimits")


def read_rate_limits(body: bytes) -> RateLimits:
    """Errors: `Invalid` names the principal that is listed twice, or the rate that is none."""
    found = _limits.decode(body)
    principals: dict[str, Rate] = {}
    for each in found.limits:
        if each.principal in principals:
            raise Invalid(f"principal {each.principal!r} is listed twice in the rate limits; name each once")
        principals[each.principal] = _read_rate(each.qps, each.capacity, f"principal {each.principal!r}")
    rest = _read_rate(found.aggregate_default_qps, found.aggregate_default_capacity, "the aggregate default")
    return RateLimits(principals=principals, rest=rest if rest.qps is not None else None)


def _read_rate(qps: float | None, capacity: int | None, whose: str) -> Rate:
    if qps is None and capacity is not None:
        raise Invalid(f"{whose} has a capacity and no qps; give both, or neither")
    if qps is not None and not (isfinite(qps) and _LEAST_QPS <= qps <= _MOST_QPS):
        raise Invalid(f"{whose} has qps {qps:g}; give calls a second, {_LEAST_QPS:g} to {_MOST_QPS:g}")
    return Rate(qps=qps, capacity=capacity)
