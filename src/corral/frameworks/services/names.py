"""The small texts of Marathon's API: versions, task ids, label selectors.

Source: Marathon's contract, sections 7, 9 and 16.
"""

import re
from collections.abc import Callable, Mapping

import msgspec

from corral.frameworks.services.reader import Json, Reader
from corral.lib.errors import Invalid, Unprocessable
from corral.lib.units import format_timestamp, parse_timestamp


def read_version(text: str) -> str:
    """A version as it is kept. Errors: `Unprocessable` when it is no timestamp."""
    try:
        return format_timestamp(parse_timestamp(text))
    except (Invalid, OverflowError, OSError):
        raise Unprocessable(f"version {text!r} is not a timestamp of the form 2026-01-31T12:00:00.000Z") from None


_TASK_ID = re.compile(
    r"(?P<instance>(?P<app>.+)\.(?:instance-|marathon-)(?P<uuid>[^.]+))(?:\.(?P<container>_app|[a-z0-9-]*[a-z][a-z0-9-]*))?"
    r"(?:\.(?P<incarnation>\d+))?"
)
_OLD_TASK_ID = re.compile(r"(?P<app>.+)[._](?P<uuid>[0-9a-f]{8}-[0-9a-f-]{27})(?:\.\d+)?")


class TaskName(msgspec.Struct, frozen=True):
    """Shapes: `incarnation` None when the id names an instance, or is of an older form; `container` of a pod."""

    app: str
    instance: str
    incarnation: int | None = None
    container: str = ""


def read_task_id(text: str) -> TaskName | None:
    """What a task or instance id names; None when it is of no known form."""
    match = _TASK_ID.fullmatch(text)
    if match is not None:
        incarnation = match["incarnation"]
        return TaskName(
            "/" + match["app"].replace("_", "/"),
            match["instance"],
            int(incarnation) if incarnation else None,
            "" if match["container"] in (None, "_app") else match["container"],
        )
    old = _OLD_TASK_ID.fullmatch(text)
    return None if old is None else TaskName("/" + old["app"].replace("_", "/"), text)


def read_task_ids(value: Json) -> tuple[TaskName, ...]:
    """The body of POST /v2/tasks/delete. Errors: `Invalid` naming the id that is malformed."""
    reader = Reader(value)
    ids = reader.texts("ids")
    reader.finish()
    found = []
    for text in ids:
        name = read_task_id(text)
        if name is None:
            raise Invalid(f"task id {text!r} is malformed; ids look like web.instance-UUID._app.1")
        found.append(name)
    return tuple(found)


_LABEL_TEXT = r"(?:[-A-Za-z0-9_.]|\\.)+"
_SELECTOR = re.compile(
    rf"\s*(?P<key>{_LABEL_TEXT})\s*"
    rf"(?:(?P<op>==|!=)\s*(?P<value>{_LABEL_TEXT})"
    rf"|(?P<set>in|notin)\s*\(\s*(?P<values>{_LABEL_TEXT}(?:\s*,\s*{_LABEL_TEXT})*)\s*\))?\s*"
)


def read_selector(text: str) -> Callable[[Mapping[str, str]], bool]:
    """A predicate over labels. Errors: `Unprocessable` with the place where the selector stops making sense."""
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    at = 0
    while True:
        match = _SELECTOR.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            end = at if match is None else match.end()
            raise Unprocessable(
                f"label selector {text!r} makes no sense at character {end}; "
                "write key, key==value, key!=value, key in (a,b) or key notin (a,b), joined by commas"
            )
        tests.append(_selector_test(match))
        if match.end() >= len(text):
            return lambda labels: all(test(labels) for test in tests)
        at = match.end() + 1


def _selector_test(match: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    key = _unescape(match["key"])
    if match["op"] is not None:
        value = _unescape(match["value"])
        if match["op"] == "==":
            return lambda labels: labels.get(key) == value
        return lambda labels: key in labels and labels[key] != value
    if match["set"] is not None:
        values = {_unescape(v.strip()) for v in re.split(r"(?<!\\),", match["values"])}
        if match["set"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: key in labels and labels[key] not in values
    return lambda labels: key in labels


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
