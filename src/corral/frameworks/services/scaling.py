"""Decides how many instances an app should have by what they use, within bounds and not too often.

Per metric the number is what would bring each instance to its target; the largest counts. Nothing happens within a
tenth of the target, growing waits for `up_cooldown_s` after the last change and shrinking for `down_cooldown_s`; a
bound that is passed is kept at once. What is not known moves nothing.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from corral.frameworks.services.scaling_spec import Metric, Moved, ScalingRecord, Window

TOLERANCE = 0.1
MOST_HISTORY = 50


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    instances: int
    why: str


def bounds_at(record: ScalingRecord, now: float) -> tuple[int, int, str]:
    """The bounds that hold now, and where they come from."""
    for window in record.windows:
        if _holds(window, now):
            return window.least, window.most, f"its schedule from {_clock(window.begin)} to {_clock(window.end)} UTC"
    return record.least, record.most, "its bounds"


def _holds(window: Window, now: float) -> bool:
    """A window that ends before it begins goes on into the next day."""
    at = datetime.fromtimestamp(now, UTC)
    minute = at.hour * 60 + at.minute
    if window.begin < window.end:
        return at.weekday() in window.days and window.begin <= minute < window.end
    if minute >= window.begin:
        return at.weekday() in window.days
    return minute < window.end and (at.weekday() - 1) % 7 in window.days


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def decide(record: ScalingRecord, instances: int, values: Mapping[Metric, float], now: float) -> Decision | None:
    """How many instances there should be; None leaves them as they are.

    Shapes: `values` are per instance; a metric without one says nothing.
    """
    least, most, origin = bounds_at(record, now)
    if not least <= instances <= most:
        wanted = min(max(instances, least), most)
        return Decision(instances=wanted, why=f"{instances} instances are outside of {least} to {most}, {origin}")
    wanted, why = instances, ""
    found = [_want(metric, target, instances, values) for metric, target in sorted(record.targets.items())]
    known = [each for each in found if each is not None]
    if known:
        wanted, why = max(known)
        if len(known) < len(found):
            # Somebody might need those instances that nobody can speak for.
            wanted = max(wanted, instances)
    wanted = min(max(wanted, least), most)
    if wanted == instances:
        return None
    last_at = max((moved.at for moved in record.history), default=0.0)
    cooldown_s = record.up_cooldown_s if wanted > instances else record.down_cooldown_s
    if now - last_at < cooldown_s:
        return None
    return Decision(instances=wanted, why=why)


def _want(metric: Metric, target: float, instances: int, values: Mapping[Metric, float]) -> tuple[int, str] | None:
    value = values.get(metric)
    if value is None:
        return None
    told = f"{metric} is {value:g} per instance, {target:g} is aimed at"
    if abs(value - target) <= target * TOLERANCE or instances == 0:
        return instances, told
    return math.ceil(round(instances * value / target, 9)), told


def average(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def remember(record: ScalingRecord, moved: Moved) -> ScalingRecord:
    """The record with one more change in its history."""
    return msgspec.structs.replace(record, history=(*record.history, moved)[-MOST_HISTORY:])
