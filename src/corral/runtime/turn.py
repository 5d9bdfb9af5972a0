"""The deciding half of a turn: inputs in, one transaction's writes and the effects to act on out.

The asyncio loop and the simulated world both take their turns here, so that what is tested in virtual time is what
runs. One input's writes are never split: an input that no longer fits into the transaction opens the next turn.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from corral.runtime.core import Core, Effect, Loaded, Persist, Stop, Stored, decide, encode_record
from corral.store.base import RECORD_BYTES, Record, StoreFailed

DRAIN = 512
"""How many inputs a turn takes at most. A store across a network needs them in one transaction to keep up."""

LOOK = 4
"""After how many inputs a turn looks whether it has lasted long enough."""


class Recorder(Protocol):
    """Takes down what a core was given and what it decided."""

    def record(self, input: Any, now: float, effects: Sequence[Effect] | None) -> None:
        """Shapes: `effects` None when the core failed on this input."""

    def flush(self) -> str | None:
        """End of a turn; once, when recording ends before its time, the reason."""

    def close(self) -> None: ...


class Recorders:
    """Several recorders as one."""

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    def record(self, input: Any, now: float, effects: Sequence[Effect] | None) -> None:
        for one in self._recorders:
            one.record(input, now, effects)

    def flush(self) -> str | None:
        ended = [why for one in self._recorders if (why := one.flush()) is not None]
        return "; ".join(ended) or None

    def close(self) -> None:
        for one in self._recorders:
            one.close()


class Turn:
    """What one transaction takes and what happens after it.

    Shapes: in `writes` None deletes; `inputs` were decided; `weight` is the sum of what the inputs wrote.
    """

    __slots__ = ("acts", "inputs", "weight", "writes")

    def __init__(self) -> None:
        self.writes: dict[str, bytes | None] = {}
        self.acts: list[Effect] = []
        self.inputs = 0
        self.weight = 0


class Decider:
    """Takes turns for one core; `drain` bounds a turn's inputs, `fair_writes` and `fair_bytes` what all of it writes.

    Shapes: one input may write up to `most_writes` and `most_bytes`, then in a turn of its own.
    """

    __slots__ = (
        "_carried",
        "_drain",
        "_fair_bytes",
        "_fair_writes",
        "_most_bytes",
        "_most_writes",
        "_prefix",
        "_recorder",
        "core",
    )

    def __init__(
        self,
        core: Core,
        *,
        prefix: str,
        drain: int,
        most_writes: int,
        most_bytes: int = 1 << 40,
        fair_writes: int = 1 << 40,
        fair_bytes: int = 1 << 40,
        recorder: Recorder | None = None,
    ) -> None:
        self.core = core
        self._prefix = prefix
        self._drain = drain
        self._most_writes = most_writes
        self._most_bytes = most_bytes
        self._fair_writes = min(fair_writes, most_writes)
        self._fair_bytes = min(fair_bytes, most_bytes)
        self._recorder = recorder
        self._carried: Turn | None = None

    @property
    def carries(self) -> bool:
        """Whether decided effects wait for the next turn, even if no input does."""
        return self._carried is not None

    def take(self, queue: deque[Any], now: float, is_over: Callable[[], bool] = lambda: False) -> Turn:
        """Decide inputs from the head of the queue until it is empty, the drain is reached or the transaction full, or
        until `is_over`, which is asked now and then.

        Shapes: the last write of a key counts; nothing is decided after a `Stop`.
        Errors: whatever the core raises on an input that is no command; `StoreFailed` when one input alone writes
        more than the store takes at once.
        """
        turn, self._carried = self._carried or Turn(), None
        core, recorder, acts, writes = self.core, self._recorder, turn.acts, turn.writes
        while queue and turn.inputs < self._drain:
            input = queue.popleft()
            try:
                effects = decide(core, input, now)
            except BaseException:
                if recorder is not None:
                    recorder.record(input, now, None)
                raise
            if recorder is not None:
                recorder.record(input, now, effects)
            mark, stop, fresh, weight = len(acts), False, None, 0
            for effect in effects:
                kind = effect.__class__
                if kind is Persist:
                    if fresh is None:
                        fresh = {}
                    record = effect.record  # type: ignore[attr-defined]
                    key, value = self._prefix + effect.key, None  # type: ignore[attr-defined]
                    if record is not None:
                        value = encode_record(record)
                        weight += len(value)
                    fresh[key] = value
                    weight += RECORD_BYTES + (len(key) if key.isascii() else len(key.encode()))
                else:
                    acts.append(effect)
                    if kind is Stop:
                        stop = True
            if fresh:
                if self._overflows(turn, fresh, weight, input):
                    self._carry(fresh, weight, acts, mark)
                    break
                writes.update(fresh)
                turn.weight += weight
            turn.inputs += 1
            if stop or (turn.inputs % LOOK == 0 and is_over()):
                break
        return turn

    def _overflows(self, turn: Turn, fresh: dict[str, bytes | None], weight: int, input: Any) -> bool:
        writes, most, fair = turn.writes, self._most_writes, self._fair_writes
        if len(writes) + len(fresh) <= fair and turn.weight + weight <= self._fair_bytes:
            return False
        if weight > self._most_bytes:
            raise StoreFailed(
                f"{type(input).__name__} writes {weight} bytes at once but the store takes {self._most_bytes} in"
                " one transaction; raise the store's limit"
            )
        if len(fresh) > most:
            raise StoreFailed(
                f"{type(input).__name__} writes {len(fresh)} records at once but the store takes {self._most_writes} in"
                " one transaction; raise the store's limit"
            )
        if not writes:
            return False
        return turn.weight + weight > self._fair_bytes or len(writes.keys() | fresh.keys()) > fair

    def _carry(self, fresh: dict[str, bytes | None], weight: int, acts: list[Effect], mark: int) -> None:
        carried = Turn()
        carried.writes = fresh
        carried.weight = weight
        carried.acts = acts[mark:]
        carried.inputs = 1
        del acts[mark:]
        self._carried = carried


def load(records: Sequence[Record], prefix: str) -> Loaded:
    """The first input, made of what the store lists under the component's prefix."""
    cut = len(prefix)
    return Loaded(tuple(Stored(record.key[cut:], record.value) for record in records))
