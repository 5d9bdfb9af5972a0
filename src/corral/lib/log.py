"""Log lines on one stream, as text for people or as JSON for machines.

A line is an instant, a level, a component, a lower-case verb phrase and keys: `task launched task=web.3 why="step 2"`.
What libraries say through the standard `logging` comes out in the same form.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any

import msgspec
import structlog

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_json = msgspec.json.Encoder(enc_hook=str, order=None)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@+*#%,[]()<>")

_TAKEN = frozenset({"self", "level", "event", "at", "component"})
"""Keys of a line that a fact cannot have; there it gets an underscore."""


class _Lines:
    """What structlog writes to: one whole line at a time, flushed, so that a crash loses none."""

    __slots__ = ("_stream",)

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody is left to read the log; the work goes on without it.
            pass

    debug = info = warning = error = critical = msg


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if text and _PLAIN.issuperset(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def render_text(at: float, level: str, component: str, what: str, facts: Mapping[str, Any]) -> str:
    """One line for people, a `traceback` below it. Units: `at` float seconds UTC."""
    line, trace = f"{_stamp(at)} {level:<7} {component:<9} {what}", ""
    for key, value in facts.items():
        if key == "traceback":
            trace = f"{value}\n"
        else:
            line += f" {key}={_quoted(value)}"
    return f"{line}\n{trace}"


def render_json(at: float, level: str, component: str, what: str, facts: Mapping[str, Any]) -> str:
    """One JSON object on a line. Units: `at` float seconds UTC."""
    line = {**facts, "at": _stamp(at), "level": level, "component": component, "what": what}
    return _json.encode(line).decode() + "\n"


Render = Callable[[float, str, str, str, Mapping[str, Any]], str]


def _renderer(render: Render, clock: Callable[[], float]) -> structlog.typing.Processor:
    def last(_: Any, level: str, line: structlog.typing.EventDict) -> str:
        what = line.pop("event", "")
        component = line.pop("component", "")
        at = line.pop("at", None)
        if error := line.pop("exc_info", None):
            line["traceback"] = _traceback(error)
        return render(clock() if at is None else at, level, str(component), str(what), line)

    return last


def _traceback(error: Any) -> str:
    if isinstance(error, BaseException):
        error = (type(error), error, error.__traceback__)
    elif error is True:
        error = sys.exc_info()
    return "" if error[0] is None else logging.Formatter().formatException(error)


class _Forward(logging.Handler):
    """Takes what libraries log and writes it as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= 40 else "warning" if record.levelno >= 30 else "info"
        facts: dict[str, Any] = {"component": record.name.partition(".")[0]}
        if record.exc_info:
            facts["exc_info"] = record.exc_info
        structlog.get_logger().log(LEVELS[level], record.getMessage(), **facts)


def configure_log(form: str = "text", level: str = "info", stream: IO[str] | None = None) -> None:
    """Set the form (`text` or `json`), the lowest level written and where to (standard error unless told).

    Errors: `ValueError` on a form or level that is not known.
    """
    if form not in ("text", "json") or level not in LEVELS:
        raise ValueError(f"log form {form!r}, level {level!r}: wanted text or json, and one of {', '.join(LEVELS)}")
    out = stream if stream is not None else sys.stderr
    render = render_text if form == "text" else render_json
    structlog.configure(
        processors=[_renderer(render, lambda: datetime.now(UTC).timestamp())],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Lines(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(logging.WARNING if LEVELS[level] > 10 else logging.INFO)


def get_logger(component: str) -> Any:
    """A structlog logger for code that does I/O; it may be made before `configure_log` is called."""
    return structlog.get_logger(component=component)


class Logger:
    """The log of one component for notes, resolved once: what it is given becomes one line each."""

    __slots__ = ("_bound",)

    def __init__(self, component: str) -> None:
        self._bound = get_logger(component).bind()

    def write(self, level: str, what: str, facts: Mapping[str, Any], at: float | None = None) -> None:
        """Shapes: `level` is a key of LEVELS. Units: `at` float seconds UTC, now unless told."""
        if not _TAKEN.isdisjoint(facts):
            facts = {(f"{key}_" if key in _TAKEN else key): value for key, value in facts.items()}
        self._bound.log(LEVELS.get(level, 20), what, at=at, **facts)

    def failed(self, what: str, error: BaseException, **facts: Any) -> None:
        """An error line, with the traceback."""
        self._bound.error(what, exc_info=error, error=str(error), **facts)
