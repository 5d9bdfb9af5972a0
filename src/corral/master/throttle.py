"""Holds back calls of frameworks that make too many.

Rules: the calls of one principal keep their order, and each waits until its rate allows it; what would wait behind more
than the capacity is dropped, and its framework told by an ERROR event that ends its stream. SUBSCRIBE is never held.
Source: Mesos v1, framework rate limiting.
"""

from corral.lib.errors import Unavailable
from corral.master import frameworks, timers
from corral.master.effects import CloseStream, SendEvent
from corral.master.entries import FrameworkEntry, Lane
from corral.master.spec import SchedulerCall
from corral.master.state import MasterState
from corral.model import events
from corral.model.rates import Rate
from corral.runtime.core import Effect, Refuse, SetTimer

REST = "*"
"""The lane of all principals without a rate of their own; no principal is called so."""


def hold(
    state: MasterState, framework: FrameworkEntry, ask: int, command: SchedulerCall, now: float
) -> list[Effect] | None:
    """The effects of holding a call back or dropping it; None when it may pass now."""
    name, rate = _find_rate(state, framework)
    if rate is None or rate.qps is None:
        return None
    lane = state.lanes.setdefault(name, Lane())
    if not lane.waiting and now >= lane.next_at:
        lane.next_at = now + 1 / rate.qps
        return None
    if rate.capacity is not None and len(lane.waiting) >= rate.capacity:
        return _drop(state, framework, ask, name, rate, now)
    state.counts["throttled"] += 1
    lane.waiting.append((ask, command))
    return [_wait(name, lane, now)] if len(lane.waiting) == 1 else []


def _find_rate(state: MasterState, framework: FrameworkEntry) -> tuple[str, Rate | None]:
    limits = state.config.rate_limits
    if limits is None:
        return "", None
    principal = framework.principal
    if principal is not None and principal in limits.principals:
        return f"={principal}", limits.principals[principal]
    return REST, limits.rest


def _wait(name: str, lane: Lane, now: float) -> Effect:
    return SetTimer(timers.throttle_timer(name), min(max(lane.next_at - now, 0.0), timers.MOST_DELAY_S))


def _drop(state: MasterState, framework: FrameworkEntry, ask: int, name: str, rate: Rate, now: float) -> list[Effect]:
    state.counts["dropped_calls"] += 1
    whose = f"principal {name[1:]}" if name != REST else "all principals without a rate of their own"
    why = f"call dropped: {rate.capacity} calls of {whose} wait already at {rate.qps:g} a second; make fewer calls"
    stream = framework.stream
    assert stream is not None, "calls come only from frameworks that listen"
    return [
        Refuse(ask, Unavailable(why)),
        SendEvent(stream, events.Error(message=why)),
        CloseStream(stream, why),
        *frameworks.disconnect(state, stream, why, now),
    ]


def release(state: MasterState, name: str, now: float) -> tuple[tuple[int, SchedulerCall] | None, list[Effect]]:
    """The call whose turn it is, if any, and the timer for the one after it."""
    lane = state.lanes.get(name)
    if lane is None or not lane.waiting:
        return None, []
    if now < lane.next_at - 1e-9:
        return None, [_wait(name, lane, now)]
    limits = state.config.rate_limits
    assert limits is not None
    rate = limits.rest if name == REST else limits.principals[name[1:]]
    assert rate is not None
    assert rate.qps is not None
    found = lane.waiting.popleft()
    lane.next_at = max(lane.next_at, now - 1 / rate.qps) + 1 / rate.qps
    return found, [_wait(name, lane, now)] if lane.waiting else []
