"""What every component is made of: inputs, effects, and the pure step between them.

    input ─► core.handle(input, now) ─► [effect, effect, ...]

A turn drains the queue, decides each input, commits all `Persist` effects in one transaction and then performs the
other effects in order. Nothing leaves before the records behind it are durable.
"""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from corral.lib.errors import CorralError

# Inputs that every component may get.


class Stored(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One record as the store holds it; `value` is MessagePack."""

    key: str
    value: bytes


class Loaded(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Always the first input: all records under the component's prefix, in key order. Recovery is handling this."""

    records: tuple[Stored, ...] = ()


class Tick(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The named timer went off."""

    name: str


C = TypeVar("C")


class Asked(msgspec.Struct, Generic[C], frozen=True, gc=False, tag="Asked"):
    """A command with somebody waiting: the core answers `ask` with `Reply`, at once or in a later turn."""

    ask: int
    command: C


# Effects that the loop itself performs.


class Effect(msgspec.Struct, frozen=True, gc=False):
    """Base of everything that shall happen.

    Effects and model values are frozen trees that can be in no cycle, so the garbage collector need not look at them:
    with thousands of tasks in flight that look is half of a daemon's time. What carries an exception is looked at.
    """


class Persist(Effect, frozen=True, gc=False):
    """Write the record, or delete the key when `record` is None; part of this turn's one transaction.

    Shapes: `key` is relative to the component's prefix.
    """

    key: str
    record: msgspec.Struct | None


class Reply(Effect, frozen=True, gc=True):
    ask: int
    value: Any = None


class Refuse(Effect, frozen=True, gc=True):
    """An error instead of a reply."""

    ask: int
    error: CorralError


class SetTimer(Effect, frozen=True, gc=False):
    """Send `Tick(name)` after `delay_s` seconds. A timer of that name moves, unless `if_unset` lets it stand."""

    name: str
    delay_s: float
    if_unset: bool = False


class CancelTimer(Effect, frozen=True, gc=False):
    name: str


class Note(Effect, frozen=True, gc=False):
    """A line of the story for operators: written to the log and kept for `corral events`.

    Shapes: `what` is a lower-case verb phrase; `facts` use the keys task, agent, framework, offer, role, epoch, app.
    """

    what: str
    why: str = ""
    level: str = "info"
    facts: Mapping[str, Any] = {}


class Stop(Effect, frozen=True, gc=False):
    """End the process after this turn; `code` is an exit code of the docs table."""

    why: str
    code: int = 1


class Core(Protocol):
    """The deciding half of a component. `handle` changes the core's own memory and nothing else."""

    def handle(self, input: Any, now: float) -> Sequence[Effect]: ...

    def invariants(self) -> None:
        """Assert what must hold after every turn."""


class Shell(Protocol):
    """The doing half of a component: one branch per effect of its own."""

    def perform(self, effect: Any) -> Awaitable[Any] | None:
        """Do it now and return None, or return an awaitable: slow work whose result, if not None, becomes an input."""

    def flush(self) -> None:
        """End of the turn's effects: what was gathered for one destination leaves as one write."""


def decide(core: Core, input: Any, now: float) -> Sequence[Effect]:
    """One input's effects; an error raised while a command is handled becomes its refusal.

    Cores check everything first and change their memory after, so a refused command leaves no trace.
    """
    try:
        return core.handle(input, now)
    except CorralError as error:
        if isinstance(input, Asked):
            return [Refuse(input.ask, error)]
        raise


def encode_record(record: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(record)


R = TypeVar("R", bound=msgspec.Struct)


def decode_records(loaded: Loaded, prefix: str, kind: type[R]) -> dict[str, R]:
    """The records below `prefix`, keyed by the rest of their key.

    Errors: `msgspec.ValidationError` when a record is not of its kind; the process must not go on with half its memory.
    """
    decoder = msgspec.msgpack.Decoder(kind)
    return {s.key.removeprefix(prefix): decoder.decode(s.value) for s in loaded.records if s.key.startswith(prefix)}


def persists(effects: Iterable[Effect]) -> list[Persist]:
    return [e for e in effects if isinstance(e, Persist)]
