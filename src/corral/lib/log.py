"""Log lines on one stream, as text for people or as JSON for machines.

A line is an instant, a level, a component, a lower-case verb phrase and keys: `task launched task=web.3 why="step 2"`.
What libraries say through the standard `logging` comes out in the same form.
"""

import atexit
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any

import msgspec
import structlog

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_json = msgspec.json.Encoder(enc_hook=str, order=None)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@+*#%,[]()<>")

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MOST_HELD = 256

_TAKEN = frozenset({"self", "level", "event", "at", "component"})
"""Keys of a line that a fact cannot have; there it gets an underscore."""


class _Lines:
    """Where lines go: whole ones, in their order. What is held leaves with the next one that is not, or at a flush."""

    __slots__ = ("_held", "_stream")

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._held: list[str] = []

    def hold(self, line: str) -> None:
        self._held.append(line)
        if len(self._held) >= _MOST_HELD:
            self.flush()

    def flush(self) -> None:
        held = self._held
        if held:
            self._held = []
            try:
                self._stream.write("".join(held))
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody is left to read the log; the work goes on without it.
                pass

    def msg(self, line: str) -> None:
        self._held.append(line)
        self.flush()

    debug = info = warning = error = critical = msg


class _Form:
    """How lines are written since `configure_log`."""

    __slots__ = ("configured", "least", "lines", "render")

    def __init__(self, lines: _Lines, render: "Render", least: int) -> None:
        self.lines = lines
        self.render = render
        self.configured = self.least = least


_form: _Form | None = None


@atexit.register
def flush_log() -> None:
    """Write what is held."""
    if _form is not None:
        _form.lines.flush()


@lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")[:19]


def _stamp(at: float) -> str:
    whole = int(at)
    return f"{_second(whole)}.{int((at - whole) * 1000):03d}Z"


def _visible(text: str) -> str:
    """The text on one line: what moves the cursor or ends the line is spelled out, so nobody can forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _ESCAPES.get(c) or f"\\u{ord(c):04x}" for c in text)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if text and _PLAIN.issuperset(text):
        return text
    return '"' + _visible(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def render_text(at: float, level: str, component: str, what: str, facts: Mapping[str, Any]) -> str:
    """One line for people, a `traceback` below it. Units: `at` float seconds UTC."""
    line, trace = f"{_stamp(at)} {level:<7} {component:<9} {_visible(what)}", ""
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
    global _form
    flush_log()
    lines = _Lines(stream if stream is not None else sys.stderr)
    render = render_text if form == "text" else render_json
    _form = _Form(lines, render, LEVELS[level])
    structlog.configure(
        processors=[_renderer(render, lambda: datetime.now(UTC).timestamp())],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    _let_libraries(LEVELS[level])


def _let_libraries(least: int) -> None:
    logging.getLogger().setLevel(logging.WARNING if least > 10 else logging.INFO)


def verbosity() -> int:
    """1 while everything is written, debug lines included; else 0."""
    return 1 if _form is not None and _form.least <= LEVELS["debug"] else 0


def least_level() -> str:
    """The lowest level that is written: a key of LEVELS."""
    least = LEVELS["info"] if _form is None else _form.least
    return next(name for name, number in LEVELS.items() if number >= least)


def set_verbosity(level: int) -> None:
    """Write everything from level 1 on; 0 is as configured. Nothing happens before `configure_log`."""
    set_least("debug" if level > 0 else None)


def set_least(level: str | None) -> None:
    """Write this level, a key of LEVELS, and those above; None is as configured. As `set_verbosity` otherwise."""
    if _form is None:
        return
    _form.least = _form.configured if level is None else LEVELS[level]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_form.least))
    _let_libraries(_form.least)


def get_logger(component: str) -> Any:
    """A structlog logger for code that does I/O; it may be made before `configure_log` is called."""
    return structlog.get_logger(component=component)


class Logger:
    """The log of one component for notes: what it is given becomes one line each, in the form of the whole log.

    Rule: lines are held until `flush_log`, which the loops call at the end of each turn; an error takes all along.
    """

    __slots__ = ("_component",)

    def __init__(self, component: str) -> None:
        self._component = component

    def write(self, level: str, what: str, facts: Mapping[str, Any], at: float | None = None) -> None:
        """Shapes: `level` is a key of LEVELS. Units: `at` float seconds UTC, now unless told."""
        form, number = _form, LEVELS.get(level, 20)
        if not _TAKEN.isdisjoint(facts):
            facts = {(f"{key}_" if key in _TAKEN else key): value for key, value in facts.items()}
        if form is None:
            get_logger(self._component).log(number, what, at=at, **facts)
            return
        if number < form.least:
            return
        if at is None:
            at = datetime.now(UTC).timestamp()
        form.lines.hold(form.render(at, level, self._component, what, facts))
        if number >= LEVELS["error"]:
            form.lines.flush()
