"""Elastic services over HTTP: usage, rules, growing and shrinking. Reads the dialect, asks the core, decides nothing.

Who shows a token as `Authorization: Bearer` is the app itself; everybody else is an operator.
"""

import re
from collections.abc import Sequence
from typing import Any

from corral.frameworks.services.answers import Ask
from corral.frameworks.services.reader import Reader, read_json
from corral.frameworks.services.scaling_spec import (
    GetScaling,
    GetUsage,
    Metric,
    Push,
    Resize,
    ScalingRecord,
    SetScaling,
    Window,
)
from corral.frameworks.services.validate import canonical_id
from corral.net.auth import read_app_token
from corral.net.routes import Request, Response, json_response

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|(24):(00)")


def scaling_table(ask: Ask) -> Sequence[tuple[str, str, Any]]:
    """The elastic part of the front door."""
    door = _Elastic(ask)
    return (
        ("GET", "/corral/v1/usage/{id*}", door.get_usage),
        ("POST", "/corral/v1/scaling/{id*}/expand", door.expand),
        ("POST", "/corral/v1/scaling/{id*}/shrink", door.shrink),
        ("POST", "/corral/v1/scaling/{id*}/metrics", door.push),
        ("GET", "/corral/v1/scaling/{id*}", door.get_scaling),
        ("PUT", "/corral/v1/scaling/{id*}", door.set_scaling),
        ("DELETE", "/corral/v1/scaling/{id*}", door.drop_scaling),
    )


class _Elastic:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def get_usage(self, request: Request) -> Response:
        return json_response(await self._ask(request, GetUsage(id=_id(request), token=read_app_token(request.headers))))

    async def get_scaling(self, request: Request) -> Response:
        return json_response(
            await self._ask(request, GetScaling(id=_id(request), token=read_app_token(request.headers)))
        )

    async def set_scaling(self, request: Request) -> Response:
        record = read_scaling(read_json(request.body), _id(request))
        return json_response(await self._ask(request, SetScaling(id=record.app, record=record)))

    async def drop_scaling(self, request: Request) -> Response:
        await self._ask(request, SetScaling(id=_id(request), record=None))
        return Response(status=204)

    async def expand(self, request: Request) -> Response:
        return await self._resize(request, 1)

    async def shrink(self, request: Request) -> Response:
        return await self._resize(request, -1)

    async def _resize(self, request: Request, sign: int) -> Response:
        reader = Reader(read_json(request.body) if request.body else {})
        instances = reader.texts("instances") if sign < 0 else ()
        by = reader.whole("by", len(instances) or 1)
        if by < 1 or (instances and by != len(set(instances))):
            reader.refuse("by", f"got {by}, must be 1 or more, and the number of the instances that are named")
        why = reader.text("why", "")[:200]
        reader.finish()
        command = Resize(
            id=_id(request), by=sign * by, instances=instances, why=why, token=read_app_token(request.headers),
            force=request.flag("force"),
        )  # fmt: skip
        result, found = await self._ask(request, command)
        headers = {"Marathon-Deployment-Id": result.deployment_id}
        body = {**found, "version": result.version, "deploymentId": result.deployment_id}
        return json_response(body, headers=headers)

    async def push(self, request: Request) -> Response:
        reader = Reader(read_json(request.body))
        metric = reader.choice("metric", "", (Metric.REQUESTS, Metric.QUEUE))
        value = reader.number("value", -1.0)
        if not 0 <= value < 1e15:
            reader.refuse("value", "must be given, 0 or more and finite")
        source = reader.text("source", "")
        reader.finish()
        await self._ask(
            request,
            Push(
                id=_id(request),
                metric=Metric(metric),
                value=value,
                source=source[:100],
                token=read_app_token(request.headers),
            ),
        )
        return Response(status=204)


def read_scaling(value: Any, app_id: str) -> ScalingRecord:
    """Errors: `Unprocessable` with all faults by path; an unknown field is one, as nothing of a rule may be missed."""
    reader = Reader(value)
    least, most = reader.whole("min", 1), reader.whole("max", 0)
    if not reader.has("max"):
        reader.refuse("max", "max must be given, or an app could grow without end")
    if not 0 <= least <= most:
        reader.refuse("min", f"got min {least} and max {most}; min must be 0 or more and not above max")
    targets = {}
    given = reader.object("targets")
    for metric in Metric if given is not None else ():
        if given is not None and given.has(metric):
            targets[metric] = given.number(metric, 1.0)
            if not 0 < targets[metric] < 1e15:
                given.refuse(metric, f"got {targets[metric]:g}, must be above 0")
    if given is not None:
        given.done()
    windows = tuple(_read_window(item) for item in reader.objects("schedule"))
    up_s, down_s = reader.number("upCooldownSeconds", 60.0), reader.number("downCooldownSeconds", 300.0)
    for field, seconds in (("upCooldownSeconds", up_s), ("downCooldownSeconds", down_s)):
        if not 0 <= seconds < 1e9:
            reader.refuse(field, f"got {seconds:g}, must be 0 or more")
    enabled = reader.flag("enabled", True)
    for field in ("id", "history"):
        reader.has(field)
    reader.done()
    for path in reader.unknown:
        reader.refuse(path.lstrip("/"), "is known to nobody; correct it, or leave it out")
    reader.finish()
    return ScalingRecord(
        app=app_id, least=least, most=most, targets=targets, windows=windows, up_cooldown_s=up_s,
        down_cooldown_s=down_s, enabled=enabled,
    )  # fmt: skip


def _read_window(item: Reader) -> Window:
    days = item.texts("days") or _DAYS
    for day in days:
        if day not in _DAYS:
            item.refuse("days", f"{day!r} is not one of {', '.join(_DAYS)}")
    begin, end = (_read_clock(item, field) for field in ("from", "to"))
    least, most = item.whole("min", 0), item.whole("max", 0)
    if not 0 <= least <= most:
        item.refuse("min", f"got min {least} and max {most}; min must be 0 or more and not above max")
    item.done()
    numbers = tuple(sorted({_DAYS.index(day) for day in days if day in _DAYS}))
    return Window(begin=begin, end=end, days=numbers, least=least, most=most)


def _read_clock(item: Reader, field: str) -> int:
    text = item.text(field, "")
    match = _CLOCK.fullmatch(text)
    if match is None:
        item.refuse(field, f"got {text!r}, must be a time of day in UTC such as 08:30")
        return 0
    return int(match[1] or match[3]) * 60 + int(match[2] or match[4])


def _id(request: Request) -> str:
    return canonical_id("/" + request.params["id"])
