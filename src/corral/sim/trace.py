"""The life of a cluster as a file: one JSON object a line, in the order of time, gzipped when the name ends in `.gz`.

A trace says what was there and what was wanted, not what the allocator made of it; that is for a simulation to find
out anew. `Started` and `Ended` tell for how long the instances of a want ran.

Amounts stand as they do in the API: `{"cpus": 0.5, "mem": 64.0, "ports": "[31000-31010]"}`. A field with its default
value is left out. Rule: what is written is read again as it was.
"""

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from io import BufferedIOBase
from pathlib import Path
from typing import Any, get_args

import msgspec

from corral.allocator.view import AgentView, Settings
from corral.lib.errors import Invalid, NotFound
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import (
    Resource,
    ResourceKind,
    Resources,
    coalesce,
    format_milli,
    items,
    normal,
    scalar,
    total_milli,
)
from corral.model.role import RoleSettings

FORMAT = 1


class Begin(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="begin"):
    """Always the first line. Units: `start_at` seconds UTC, the instant that is 0 in this file."""

    format: int = FORMAT
    source: str = ""
    start_at: float = 0.0


class AgentCame(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="agent"):
    """An agent is there, or there with other values; `agent.ineligible` says why it takes nothing new."""

    at: float
    agent: AgentView


class AgentLeft(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="agent-gone"):
    """What ran on the agent is gone with it."""

    at: float
    agent_id: AgentId


class RoleSet(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="role"):
    """An operator has set this of a role."""

    at: float
    name: str
    settings: RoleSettings


class RoleUnset(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="role-gone"):
    """The role is as one that nobody has said anything of."""

    at: float
    name: str


class SettingsSet(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="settings"):
    """What operators have decided for the whole cluster, from now on."""

    at: float
    settings: Settings


class Arrived(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="want"):
    """`want.count` more instances are wanted. Units: `run_s` seconds each will run, None for ever unless `Ended` tells.

    Shapes: a want may arrive again, for more instances of the same shape or of another.
    """

    at: float
    framework_id: FrameworkId
    want: Want
    run_s: float | None = None


class Withdrawn(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="want-gone"):
    """So many instances that had not started are wanted no more, the last ones first."""

    at: float
    framework_id: FrameworkId
    want_id: WantId
    count: int = 1


class Started(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="started"):
    """A task was launched. Shapes: without `want_id` nobody asked for it by a want: it is a demand of its own."""

    at: float
    framework_id: FrameworkId
    task: str
    agent_id: AgentId
    role: str
    resources: Resources
    want_id: WantId | None = None


class Ended(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="ended"):
    """Shapes: `state` is that of Mesos, such as `TASK_FINISHED`."""

    at: float
    framework_id: FrameworkId
    task: str
    state: str = ""


Event = Begin | AgentCame | AgentLeft | RoleSet | RoleUnset | SettingsSet | Arrived | Withdrawn | Started | Ended

_BUNDLES = {"resources", "total", "guarantee", "limit", "headroom"}
"""Fields that hold resources, wherever they stand."""

_BOUNDS = {"guarantee", "limit"}
"""Those in which nothing is something else than no word of it."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


def write_event(event: Event) -> bytes:
    """One line, its end included."""
    return _encoder.encode({"type": event.__struct_config__.tag, **_plain(event)}) + b"\n"


def read_event(line: bytes) -> Event:
    """Errors: `Invalid` says what is wrong and where in the object."""
    try:
        given = _decoder.decode(line)
        found: Event = msgspec.convert(_unflatten(given), type=Event)
    except msgspec.ValidationError as error:
        raise Invalid(f"is no event of a trace: {_in_words(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"is not a JSON object: {error}") from None
    _check_known(given, found, "")
    at = getattr(found, "at", 0.0)
    if not math.isfinite(at):
        raise Invalid(f"happens at {at}; give seconds from the start of the trace")
    if isinstance(found, Arrived | Withdrawn) and count_of(found) < 1:
        raise Invalid(f"is about {count_of(found)} instances; give 1 or more")
    if isinstance(found, Arrived) and found.run_s is not None and not 0 <= found.run_s < math.inf:
        raise Invalid(f"has the run time {found.run_s}; give seconds of 0 or more, or leave it out for ever")
    if isinstance(found, SettingsSet):
        _check_settings(found.settings)
    return found


def _check_settings(settings: Settings) -> None:
    if settings.evictions_per_minute < 0:
        raise Invalid(f"allows {settings.evictions_per_minute} evictions per minute; give 0 for none, or more")
    for resource in settings.headroom or ():
        if resource.kind is not ResourceKind.SCALAR:
            raise Invalid(f"has {resource.name} as headroom, which has no amount; give numbers alone")


def _check_known(given: Any, found: Any, where: str) -> None:
    """What nobody would read is an error: it may be a word spelt wrong."""
    if isinstance(found, tuple) and isinstance(given, list):
        for inner_given, inner in zip(given, found, strict=False):
            _check_known(inner_given, inner, where)
    elif isinstance(found, msgspec.Struct):
        names = {f.encode_name: f.name for f in msgspec.structs.fields(found)}
        for key, value in given.items():
            if key in names:
                if key not in _BUNDLES:
                    _check_known(value, getattr(found, names[key]), f"{where}{key}.")
            elif where or key != "type":
                raise Invalid(f"has the field {where}{key}, which means nothing; there are {', '.join(names)}")


def count_of(event: Arrived | Withdrawn) -> int:
    return event.want.count if isinstance(event, Arrived) else event.count


def _in_words(error: msgspec.ValidationError) -> str:
    text = str(error)
    if text.startswith("Invalid value") and text.endswith("`$.type`"):
        kinds = ", ".join(str(kind.__struct_config__.tag) for kind in get_args(Event))
        return f"{text}; the types are {kinds}"
    return text


def write_trace(path: Path, events: Iterable[Event]) -> None:
    """Errors: `OSError` when it cannot be written."""
    with open_to_write(path) as file:
        for event in events:
            file.write(write_event(event))


def open_to_write(path: Path) -> BufferedIOBase:
    """Gzipped by name; the same events make the same bytes."""
    if path.suffix != ".gz":
        return path.open("wb")
    return gzip.GzipFile(path, "wb", mtime=0)


def open_to_read(path: Path) -> BufferedIOBase:
    """Gzipped by what stands in it, as names change. Errors: `OSError` when it cannot be read."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path, "rb") if zipped else path.open("rb")


def read_trace(path: Path) -> Iterator[Event]:
    """The events one by one, `Begin` first.

    Errors: `NotFound` without the file; `Invalid` names file and line, also where time runs backwards.
    """
    if not path.is_file():
        raise NotFound(f"no trace file at {path}; give the path of a trace, gzipped or not")
    line, last_at = 0, -math.inf
    try:
        with open_to_read(path) as file:
            for line, text in enumerate(file, start=1):
                try:
                    event = read_event(text)
                    last_at = _check_order(event, line, last_at)
                except Invalid as error:
                    raise Invalid(f"{path} line {line} {error.message}") from None
                yield event
    except (EOFError, OSError, zlib.error) as error:
        raise Invalid(f"{path} cannot be read beyond line {line} ({error}); get the file anew") from error
    if line == 0:
        raise Invalid(f"{path} is empty; the first line of a trace is of type begin")


def _check_order(event: Event, line: int, last_at: float) -> float:
    if isinstance(event, Begin) != (line == 1):
        raise Invalid("is of type begin; only the first is" if line > 1 else "is not of type begin; the first must be")
    if isinstance(event, Begin):
        if event.format != FORMAT:
            raise Invalid(f"says format {event.format} but this corral knows {FORMAT}")
        return last_at
    if event.at < last_at:
        raise Invalid(f"happens at {event.at:g}, before the line above it ({last_at:g}); sort the trace by time")
    return event.at


def is_trace(path: Path) -> bool:
    """Whether the file begins as a trace does: with a JSON object."""
    try:
        with open_to_read(path) as file:
            return file.read(1) == b"{"
    except (EOFError, OSError, zlib.error):
        return False


# Amounts.

Amounts = dict[str, float | str]


def flatten(resources: Resources) -> Amounts:
    """Shapes: a number for a scalar, `[low-high, ...]` for ranges, `{a, b}` for a set; amounts of one name add up."""
    found: Amounts = {}
    for name in dict.fromkeys(r.name for r in resources):
        mine = [r for r in resources if r.name == name]
        match mine[0].kind:
            case ResourceKind.SCALAR:
                found[name] = total_milli(resources, name) / 1000
            case ResourceKind.RANGES:
                spans = coalesce(span for r in mine for span in r.ranges)
                found[name] = "[" + ", ".join(f"{low}-{high}" for low, high in spans) + "]"
            case ResourceKind.SET:
                found[name] = "{" + ", ".join(sorted({item for r in mine for item in r.items})) + "}"
    return found


def unflatten(amounts: Mapping[str, Any], *, zeros: bool = False) -> Resources:
    """Shapes: `zeros` keeps amounts of 0. Errors: `Invalid` names the resource and shows a form that is taken."""
    found = [_resource(name, amounts[name]) for name in sorted(amounts)]
    return tuple(found) if zeros else normal(found)


def _resource(name: str, value: Any) -> Resource:
    match value:
        case bool():
            pass
        case int() | float() if 0 <= value < 1e15:
            return scalar(name, value)
        case str() if value.startswith("{") and value.endswith("}"):
            return items(name, (part.strip() for part in value[1:-1].split(",") if part.strip()))
        case str() if value.startswith("[") and value.endswith("]"):
            spans = [part.strip().partition("-") for part in value[1:-1].split(",") if part.strip()]
            if all(low.isdecimal() and high.isdecimal() and int(low) <= int(high) for low, _, high in spans):
                ranges = coalesce((int(low), int(high)) for low, _, high in spans)
                return Resource(name=name, kind=ResourceKind.RANGES, ranges=ranges)
    raise Invalid(f"gives {name} as {value!r}; give a number of 0 or more, [31000-31010] or {{a, b}}")


def _plain(value: Any) -> Any:
    """The JSON of a value without what is as by default."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        shown = {f.encode_name: getattr(value, f.name) for f in fields if not _is_default(f, getattr(value, f.name))}
        return {name: flatten(one) if name in _BUNDLES else _plain(one) for name, one in shown.items()}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, Enum) else value


def _is_default(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    if field.default is not msgspec.NODEFAULT:
        return bool(value == field.default)
    return field.default_factory is not msgspec.NODEFAULT and value == field.default_factory()


def _unflatten(value: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, one in value.items():
        if not isinstance(one, dict):
            found[name] = one
        elif name in _BUNDLES:
            found[name] = unflatten(one, zeros=name in _BOUNDS)
        else:
            found[name] = _unflatten(one)
    return found


def describe_amounts(amounts: Mapping[str, int]) -> str:
    """Thousandths by name as people write them: `cpus 2, mem 512`."""
    return ", ".join(f"{name} {format_milli(milli)}" for name, milli in sorted(amounts.items())) or "nothing"
