"""Writes down what a core was given and a fingerprint of what it decided, and runs such a file through the core again.

A file holds length-prefixed MessagePack frames: a header, then one entry per input. A core that decides otherwise than
recorded depends on something that is no input, and the first such input is named.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from corral.lib.errors import CorralError, Invalid, NotFound
from corral.runtime.core import Core, Effect, decide

FORMAT = 1
MOST_BYTES = 256 << 20
KEPT = 3


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to build the core again.

    Shapes: `seed` is that of the `Random` it was given; `config` is MessagePack of what else it was built from.
    """

    component: str
    seed: int
    drain: int
    config: bytes = b""
    format: int = FORMAT


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One input. Shapes: `fingerprint` None when the core failed on it. Units: `now` float seconds UTC."""

    now: float
    input: msgspec.Raw
    fingerprint: bytes | None


class Replayable(msgspec.Struct, frozen=True):
    """How to run a component's journal again: its union of inputs, and how a header becomes a core."""

    inputs: Any
    build: Callable[[Header], Core]


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """The first input, counted from 1, that was decided otherwise; `decided` is what the core decides now."""

    number: int
    now: float
    input: Any
    decided: str

    def __str__(self) -> str:
        where = f"input {self.number} at {self.now:.3f}"
        return f"{where} is decided otherwise than recorded: {self.input!r} -> {self.decided}"


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `cut_short` tells that the last entry is incomplete, as after a crash of the writer."""

    component: str
    inputs: int
    divergence: Divergence | None = None
    cut_short: bool = False


def _plain(value: Any) -> Any:
    """What msgspec does not write by itself; an object without a text of its own counts by its type."""
    if isinstance(value, CorralError):
        return [type(value).__name__, value.message]
    return type(value).__qualname__


_fingerprints = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic")
_entries = msgspec.msgpack.Encoder()


def fingerprint(effects: Sequence[Effect]) -> bytes:
    """Eight bytes that differ when the effects do. Shapes: sets and dicts count without their order."""
    body = _fingerprints.encode([(type(effect).__name__, effect) for effect in effects])
    return blake2b(body, digest_size=8).digest()


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


class Journal:
    """Records into `path`; the file of the run before becomes `path.1` and so on, `kept` files in all.

    A full or failing file ends the recording, never the work. Errors: `OSError` when the file cannot be begun.
    """

    def __init__(self, path: str, header: Header, *, most_bytes: int = MOST_BYTES, kept: int = KEPT) -> None:
        self.path = path
        self.bytes = 0
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._ended: str | None = None
        rotate(path, kept)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._buffer += _frame(_entries.encode(header))

    def record(self, input: Any, now: float, effects: Sequence[Effect] | None) -> None:
        if self._fd < 0:
            return
        try:
            raw = msgspec.Raw(_entries.encode(input))
            print_ = None if effects is None else fingerprint(effects)
            self._buffer += _frame(_entries.encode(Entry(now, raw, print_)))
        except (TypeError, ValueError, OverflowError) as error:
            self._stop(f"{type(input).__name__} or what it led to cannot be written down: {error}")
            return
        if effects is None:
            # The process is about to end on this very input: it is what the journal is for.
            self.flush()

    def flush(self) -> str | None:
        if self._buffer and self._fd >= 0:
            try:
                view = memoryview(self._buffer)
                while view:
                    view = view[os.write(self._fd, view) :]
                self.bytes += len(self._buffer)
            except OSError as error:
                self._stop(f"{self.path} cannot be written: {error}")
            else:
                view.release()
                self._buffer.clear()
                if self.bytes >= self._most_bytes:
                    self._stop(f"{self.path} has reached {self._most_bytes} bytes")
        ended, self._ended = self._ended, None
        return ended

    def close(self) -> None:
        self.flush()
        self._let_go()

    def _stop(self, why: str) -> None:
        self._ended = why
        self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._buffer = bytearray()


def rotate(path: str, kept: int) -> None:
    """Make room for a new file: those of the runs before move on to `path.1` and so on, `kept` files in all."""
    names = [path, *(f"{path}.{n}" for n in range(1, kept))]
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if kept <= 1:
            os.unlink(path)
    for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
        with contextlib.suppress(FileNotFoundError):
            os.replace(newer, older)


Watch = Callable[[Any, float, Sequence[Effect]], None]
"""Looks on: an input, when it came, and what was decided."""


def replay(path: str, cores: Mapping[str, Replayable], *, watch: Watch | None = None) -> ReplayResult:
    """Decide every input of the file again and compare. Shapes: `watch` sees what was decided as recorded.

    Errors: `Invalid` when the file is no journal or of another format; `NotFound` when `cores` lacks its component;
    whatever the core raises where it did not before.
    """
    with open(path, "rb") as file:
        body = file.read()
    header, at = _read_header(path, body)
    if header.component not in cores:
        raise NotFound(f"{path} is of component {header.component!r}; known are {', '.join(sorted(cores))}")
    known = cores[header.component]
    core = known.build(header)
    entries, inputs = msgspec.msgpack.Decoder(Entry), msgspec.msgpack.Decoder(known.inputs)
    number = 0
    while (frame := _take_frame(body, at)) is not None:
        at += 4 + len(frame)
        number += 1
        try:
            entry = entries.decode(frame)
            input = inputs.decode(entry.input)
        except msgspec.DecodeError as error:
            raise Invalid(f"{path} entry {number} is no input of {header.component}: {error}") from None
        divergence = _compare(core, number, entry, input, watch)
        if divergence is not None:
            return ReplayResult(component=header.component, inputs=number, divergence=divergence)
    return ReplayResult(component=header.component, inputs=number, cut_short=at < len(body))


def _compare(core: Core, number: int, entry: Entry, input: Any, watch: Watch | None) -> Divergence | None:
    try:
        effects = decide(core, input, entry.now)
    except Exception as error:
        if entry.fingerprint is None:
            return None
        decided = f"raises {type(error).__name__}: {error}"
        return Divergence(number=number, now=entry.now, input=input, decided=decided)
    if entry.fingerprint is not None and fingerprint(effects) == entry.fingerprint:
        if watch is not None:
            watch(input, entry.now, effects)
        return None
    return Divergence(number=number, now=entry.now, input=input, decided=repr(list(effects)))


def _take_frame(body: bytes, at: int) -> bytes | None:
    if len(body) - at < 4:
        return None
    length = int.from_bytes(body[at : at + 4], "big")
    return body[at + 4 : at + 4 + length] if len(body) - at - 4 >= length else None


def _read_header(path: str, body: bytes) -> tuple[Header, int]:
    frame = _take_frame(body, 0)
    try:
        if frame is None:
            raise Invalid(f"{path} has no header; it is no journal or its writer died at once")
        header = msgspec.msgpack.decode(frame, type=Header)
    except msgspec.DecodeError as error:
        raise Invalid(f"{path} is no journal: {error}") from None
    if header.format != FORMAT:
        raise Invalid(f"{path} has journal format {header.format} but this corral knows {FORMAT}")
    return header, 4 + len(frame)
