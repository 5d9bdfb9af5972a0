"""Runs one core on asyncio: drains its queue, commits each turn's records in one transaction, then acts in order.

Nothing leaves before the records behind it are durable, and while a commit is under way new inputs gather for the next
one (group commit). A failed write, or a core that raises, ends `run`; recovery is the next start's `Loaded`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from corral.lib.clock import Clock, steady_clock, stopwatch, system_clock
from corral.lib.errors import CorralError, Doubtful, Unavailable
from corral.lib.timings import Timings
from corral.runtime.core import (
    Asked,
    CancelTimer,
    Core,
    Effect,
    Note,
    Refuse,
    Reply,
    SetTimer,
    Shell,
    Stop,
    Tick,
    decide,
)
from corral.runtime.notes import Notes
from corral.runtime.turn import DRAIN, Decider, Recorder, Turn, load
from corral.store.base import Guard, GuardFailed, Store, StoreFailed

Answer = Callable[[Any, CorralError | None], None]

TURN_S = 0.003
"""How long a turn decides when more waits: whoever shares the thread, and whoever asks, waits for a few of them."""


YIELDS = 3
"""For how many rounds of the event loop a busy component lets others go on after a turn. An answer takes several: the
commit is told, its turn goes on, who asked wakes up. With one round each of them waits for a turn of somebody else."""


class Fence(Protocol):
    """What lets a loop act: it keeps those apart who believe to lead at the same time."""

    guards: Sequence[Guard]
    """Hold for every commit, or nothing is written."""

    @property
    def holds(self) -> bool:
        """Whether this process may act at this moment."""

    async def settle(self) -> None:
        """Return when it may. Errors: whatever ends the loop, when it may not any more."""

    def lose(self, why: str) -> Exception:
        """A guard did not hold: nothing of this process may act from now on; returns what ends the loop."""


class Loop:
    """One component at work. All methods belong to the thread of the asyncio loop that runs it.

    Shapes: `prefix` is put before every key; `name` (the prefix unless told) is the component in notes; `notes` may be
    shared with other loops; without a `fence` nobody else writes these records. With `asks_first` who waits for an
    answer is not behind all that happens meanwhile: half of a turn is for commands of `ask`, in their own order, and
    what the core names in `reads` is answered between two turns, when all that has been decided is durable.
    Units: `drain` inputs at most per turn. `check` asserts the core's invariants every turn.
    """

    def __init__(
        self,
        core: Core,
        shell: Shell,
        store: Store,
        *,
        prefix: str,
        clock: Clock = system_clock,
        drain: int = DRAIN,
        recorder: Recorder | None = None,
        name: str | None = None,
        notes: Notes | None = None,
        fence: Fence | None = None,
        asks_first: bool = False,
        check: bool = False,
    ) -> None:
        self.core = core
        self.name = prefix.strip("/") if name is None else name
        self.notes = Notes() if notes is None else notes
        self.ready = asyncio.Event()
        self.turns = 0
        self.inputs = 0
        self.commit_ms = Timings()
        self._shell = shell
        self._store = store
        self._prefix = prefix
        self._fence = fence
        self._guards: Sequence[Guard] = () if fence is None else fence.guards
        self._clock = clock
        self._now = 0.0
        self._check = check
        self._recorder = recorder
        self._decider = Decider(
            core,
            prefix=prefix,
            drain=drain,
            most_writes=store.most_writes,
            most_bytes=store.most_bytes,
            fair_writes=store.fair_writes,
            fair_bytes=store.fair_bytes,
            recorder=recorder,
        )
        self._queue: deque[Any] = deque()
        self._asks_first = asks_first
        self._asked: deque[Asked[Any]] = deque()
        self._most_asked = max(1, drain // 2)
        self._reads: tuple[type, ...] = getattr(core, "reads", ())
        self._in_turn = False
        self._waiter: asyncio.Future[None] | None = None
        self._proofs: list[asyncio.Future[None]] = []
        self._proved: list[asyncio.Future[None]] = []
        self._fenced = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._asks: dict[int, asyncio.Future[Any]] = {}
        self._posts: dict[int, Answer] = {}
        self._last_ask = 0
        self._slow: set[asyncio.Future[Any]] = set()
        self._failure: BaseException | None = None
        self._code: int | None = None
        self._ended = False
        self._ended_why = "it has ended"
        self.ended_at: float | None = None  # by the steady clock
        self._own: dict[type, Callable[[Any], None]] = {
            Reply: self._reply,
            Refuse: self._refuse,
            SetTimer: self._set_timer,
            CancelTimer: self._cancel_timer,
            Note: self._note,
            Stop: self._stop,
        }

    async def run(self) -> int:
        """Take turns until a `Stop` effect or `stop()`; returns the exit code.

        Errors: `StoreFailed` when records could not be read or written; whatever the core or a slow effect raised.
        """
        self._aio = asyncio.get_running_loop()
        try:
            return await self._take_turns()
        except StoreFailed as error:
            self._ended_why = str(error)
            raise
        finally:
            await self._end()

    def tell(self, input: Any) -> None:
        """Queue an input; forgotten when the loop has ended."""
        if self._ended:
            return
        self._queue.append(input)
        self._wake()

    async def ask(self, command: Any, timeout_s: float | None = None) -> Any:
        """Hand a command to the core and wait for its reply.

        Shapes: a loop that has ended still answers what its core names in `reads`, as of its last turn.
        Errors: the `CorralError` the core refused with; `Unavailable` when the loop ends before it has begun with it;
        `Doubtful` when it ends in the midst of it or `timeout_s` passes.
        """
        if self._ended:
            return self._look(command)
        self._last_ask = ask = self._last_ask + 1
        future = self._asks[ask] = asyncio.get_running_loop().create_future()
        (self._asked if self._asks_first else self._queue).append(Asked(ask, command))
        if self._is_between_turns() and isinstance(command, self._reads):
            self._now = self._clock()
            self._answer_reads()
        else:
            self._wake()
        try:
            if timeout_s is None:
                return await future
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            doubt = Unavailable if isinstance(command, self._reads) else Doubtful
            raise doubt(f"{self.name} gave no answer within {timeout_s:g} s; try again") from None
        except Doubtful:
            if isinstance(command, self._reads):
                return self._look(command)
            raise
        finally:
            self._asks.pop(ask, None)

    def post(self, command: Any, answer: Answer) -> None:
        """Hand a command to the core and have `answer` called with what `ask` returns or raises.

        Shapes: `answer` is called once, within the turn that answers, and must not wait; the other argument is None.
        """
        if self._ended:
            answer(None, self._refusal())
            return
        self._last_ask = ask = self._last_ask + 1
        self._posts[ask] = answer
        self._queue.append(Asked(ask, command))
        self._wake()

    def _look(self, command: Any) -> Any:
        """The answer to a command that changes nothing. Errors: `Unavailable` for any other."""
        if not (self.ready.is_set() and isinstance(command, self._reads)):
            raise self._refusal()
        for effect in decide(self.core, Asked(0, command), self._clock()):
            match effect:
                case Reply(ask=0, value=value):
                    return value
                case Refuse(ask=0, error=error):
                    raise error
        raise self._refusal()

    def _is_between_turns(self) -> bool:
        """Whether what the core remembers is durable and may be spoken of, by a loop that takes questions first."""
        if self._in_turn or not self._asks_first or self._decider.carries or not self.ready.is_set():
            return False
        return self._fence is None or self._fence.holds

    def _lost_answer(self) -> Doubtful:
        return Doubtful(
            f"{self.name} has ended before it could answer, as {self._ended_why}; "
            f"look whether it was done, and try again"
        )

    def _refusal(self) -> Unavailable:
        return Unavailable(f"{self.name} takes nothing now, as {self._ended_why}; try again when it is back", 5.0)

    async def prove(self) -> None:
        """Return when a turn that had not begun has been taken, or when there was none to take; never once ended."""
        if self._fenced:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._proofs.append(future)
        self._wake()
        await future

    @property
    def waiting(self) -> int:
        """How many inputs have not been decided yet."""
        return len(self._queue) + len(self._asked)

    def stop(self, code: int = 0) -> None:
        """Finish the turn under way and return from `run`; what is still queued is not decided."""
        if self._code is None:
            self._code = code
        self._wake()

    async def _take_turns(self) -> int:
        try:
            records = await self._store.list(self._prefix)
        except Exception as error:
            raise _store_failed(self.name, "read its records", error) from error
        self._queue.appendleft(load(records, self._prefix))
        while True:
            if self._failure is not None:
                raise self._failure
            if self._code is not None:
                return self._code
            self._proved, self._proofs = self._proofs, []
            if not self.waiting and not self._decider.carries:
                _pass(self._proved)
                self._waiter = self._aio.create_future()
                await self._waiter
                continue
            await self._take_turn()
            _pass(self._proved)
            if self.waiting:
                # A store that never waits would otherwise keep everybody else from running.
                for _ in range(YIELDS):
                    await asyncio.sleep(0)

    async def _take_turn(self) -> None:
        self._now = self._clock()
        if self._asked:
            if self._is_between_turns():
                self._answer_reads()
            self._put_asked_first()
        self._in_turn = True
        ends_at = self._aio.time() + TURN_S
        turn = self._decider.take(self._queue, self._now, lambda: self._aio.time() >= ends_at)
        if turn.writes:
            await self._commit(turn)
        if self._fence is not None and not self._fence.holds:
            await self._wait_at(self._fence)
        if self._check:
            self.core.invariants()
        own, slow = self._own, self._perform
        for effect in turn.acts:
            own.get(effect.__class__, slow)(effect)
        self._shell.flush()
        self.notes.flush()
        self._in_turn = False
        self.turns += 1
        self.inputs += turn.inputs
        if self._recorder is not None and (why := self._recorder.flush()) is not None:
            self._note(Note("journal ended", why, "warning"))
        if not self.ready.is_set():
            self.ready.set()

    def _answer_reads(self) -> None:
        """Answer who asks for nothing but a look. It writes nothing, but may have something done, as in any turn."""
        for _ in range(len(self._asked)):
            asked = self._asked.popleft()
            if not isinstance(asked.command, self._reads):
                self._asked.append(asked)
                continue
            for effect in decide(self.core, asked, self._now):
                self._own.get(effect.__class__, self._perform)(effect)
        self._shell.flush()
        self.notes.flush()

    def _put_asked_first(self) -> None:
        """Nothing comes before what is loaded, nor before commands that a full transaction has left behind."""
        queue = self._queue
        if self.ready.is_set() and not (queue and isinstance(queue[0], Asked)):
            first = [self._asked.popleft() for _ in range(min(len(self._asked), self._most_asked))]
            queue.extendleft(reversed(first))

    async def _wait_at(self, fence: Fence) -> None:
        """What is decided stays undone until it is sure that it may be done. Who waits here hangs nowhere."""
        self._fenced = True
        _pass(self._proofs)
        _pass(self._proved)
        try:
            await fence.settle()
        finally:
            self._fenced = False

    async def _commit(self, turn: Turn) -> None:
        begun = stopwatch()
        try:
            await self._store.commit(turn.writes, self._guards)
            self.commit_ms.add(stopwatch() - begun)
        except GuardFailed as error:
            if self._fence is None:
                raise _store_failed(self.name, f"write {len(turn.writes)} records", error) from error
            raise self._fence.lose(f"{self.name} could not write: {error}, so another leads") from None
        except Exception as error:
            raise _store_failed(self.name, f"write {len(turn.writes)} records", error) from error

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _reply(self, effect: Reply) -> None:
        answer = self._posts.pop(effect.ask, None)
        if answer is not None:
            answer(effect.value, None)
            return
        future = self._asks.get(effect.ask)
        if future is not None and not future.done():
            future.set_result(effect.value)

    def _refuse(self, effect: Refuse) -> None:
        answer = self._posts.pop(effect.ask, None)
        if answer is not None:
            answer(None, effect.error)
            return
        future = self._asks.get(effect.ask)
        if future is not None and not future.done():
            future.set_exception(effect.error)

    def _set_timer(self, effect: SetTimer) -> None:
        old = self._timers.get(effect.name)
        if old is not None:
            if effect.if_unset:
                return
            old.cancel()
        self._timers[effect.name] = self._aio.call_later(effect.delay_s, self._go_off, effect.name)

    def _cancel_timer(self, effect: CancelTimer) -> None:
        timer = self._timers.pop(effect.name, None)
        if timer is not None:
            timer.cancel()

    def _go_off(self, name: str) -> None:
        del self._timers[name]
        self.tell(Tick(name))

    def _note(self, effect: Note) -> None:
        self.notes.add(self.name, effect, self._now)

    def _stop(self, effect: Stop) -> None:
        self._note(Note("stopping", effect.why, "info" if effect.code == 0 else "error"))
        if self._code is None:
            self._code = effect.code

    def _perform(self, effect: Effect) -> None:
        try:
            slow = self._shell.perform(effect)
        except CorralError as error:
            self._effect_failed(effect, error)
            return
        if slow is not None:
            self._follow(effect, slow)

    def _follow(self, effect: Effect, slow: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(slow)
        self._slow.add(task)

        def done(task: asyncio.Future[Any]) -> None:
            self._slow.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if error is None:
                result = task.result()
                if result is not None:
                    self.tell(result)
            elif isinstance(error, CorralError):
                self._effect_failed(effect, error)
            elif self._failure is None:
                self._failure = error
                self._wake()

        task.add_done_callback(done)

    def _effect_failed(self, effect: Effect, error: CorralError) -> None:
        self._note(Note("effect failed", error.message, "warning", {"effect": type(effect).__name__}))
        self.notes.flush()

    async def _end(self) -> None:
        self._ended = True
        self.ended_at = steady_clock()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        untouched = {each.ask for each in (*self._queue, *self._asked) if isinstance(each, Asked)}
        self._queue.clear()
        self._asked.clear()
        for ask, future in self._asks.items():
            if not future.done():
                future.set_exception(self._refusal() if ask in untouched else self._lost_answer())
        posts, self._posts = self._posts, {}
        for ask, answer in posts.items():
            answer(None, self._refusal() if ask in untouched else self._lost_answer())
        slow = list(self._slow)
        for task in slow:
            task.cancel()
        if slow:
            await asyncio.wait(slow)
        if self._recorder is not None:
            self._recorder.close()
        self.notes.flush()


def _pass(proofs: Sequence["asyncio.Future[None]"]) -> None:
    for proof in proofs:
        if not proof.done():
            proof.set_result(None)


def _store_failed(name: str, wanted: str, error: Exception) -> StoreFailed:
    if isinstance(error, StoreFailed):
        return StoreFailed(f"{name} could not {wanted}: {error}")
    return StoreFailed(f"{name} could not {wanted}: {type(error).__name__}: {error}")
