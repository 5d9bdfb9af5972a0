"""Virtual time for real cores: processes take the same turns as in production, while time, delays and crashes are drawn
from one seed.

Nothing here waits. An event happens when its time has come, events of one instant in the order they were planned. Every
turn passes a number of points at which its process may die: before its commit, after it, and after each effect.
"""

import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from corral.lib.errors import CorralError, Unavailable
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
)
from corral.runtime.turn import DRAIN, Decider, Recorder, Turn, load
from corral.store.base import Guard, GuardFailed
from corral.store.memory import MemoryStore

EPOCH_S = 1_700_000_000.0
"""Where virtual time begins, in seconds UTC."""


SLOW_COMMIT_S = 4.0


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long things take at most, each time drawn anew. Units: seconds."""

    turn_s: float = 0.002
    commit_s: float = 0.005
    restart_s: float = 1.0


class Alarm:
    """Something planned; `cancel` makes it not happen."""

    __slots__ = ("action", "at", "cancelled")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.cancelled = False
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.cancelled = True
        self.action = None


class World:
    """The clock, what is planned, and all processes. The same seed and plan make the same history.

    Shapes: after every `check_every`th turn a process's core asserts its invariants.
    """

    def __init__(self, seed: int, *, pace: Pace | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = EPOCH_S
        self.pace = Pace() if pace is None else pace
        self.processes: dict[str, Process] = {}
        self.story: deque[str] = deque(maxlen=2000)
        self.steps = 0
        self.check_every = 1
        self.reigns: dict[int, tuple[str, int]] = {}
        self._planned: list[tuple[float, int, Alarm]] = []
        self._sequence = 0

    def clock(self) -> float:
        return self.now

    def draw_s(self, most_s: float) -> float:
        """A delay up to `most_s`."""
        return self.random.random() * most_s

    def after(self, delay_s: float, action: Callable[[], None]) -> Alarm:
        alarm = Alarm(self.now + max(0.0, delay_s), action)
        self._sequence += 1
        heapq.heappush(self._planned, (alarm.at, self._sequence, alarm))
        return alarm

    def add(
        self,
        name: str,
        build: "Callable[[Process], tuple[Core, Shell]]",
        *,
        prefix: str = "",
        drain: int = DRAIN,
        store: MemoryStore | None = None,
    ) -> "Process":
        """A process by this name, not yet started. Shapes: `build` makes core and shell anew at each start."""
        process = Process(self, name, build, prefix, drain, store)
        self.processes[name] = process
        return process

    def step(self) -> bool:
        """Let the next planned thing happen; False when nothing is planned."""
        while self._planned:
            at, _, alarm = heapq.heappop(self._planned)
            action = alarm.action
            if action is None:
                continue
            alarm.action = None
            self.now = max(self.now, at)
            self.steps += 1
            with _Witness(self):
                action()
            return True
        return False

    def run(self, for_s: float, until: Callable[[], bool] | None = None, *, most_steps: int = 5_000_000) -> bool:
        """Live for so many seconds, or until the condition holds; returns whether it did.

        Errors: whatever a core or an invariant raised, with the seed and the end of the story.
        """
        end, last = self.now + for_s, self.steps + most_steps
        while until is None or not until():
            if self.steps >= last:
                raise RuntimeError(f"the world of seed {self.seed} did not come to rest in {most_steps} steps")
            while self._planned and self._planned[0][2].action is None:
                heapq.heappop(self._planned)
            if not self._planned or self._planned[0][0] > end:
                self.now = end
                return until is not None and until()
            self.step()
        return True

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story, which a failure prints."""
        self.story.append(f"{self.now - EPOCH_S:12.6f} {who:<14} {what}")

    def see_reign(self, epoch: int, who: str, incarnation: int) -> None:
        """Somebody acts under this epoch. Errors: `AssertionError` when it is another one's."""
        first = self.reigns.setdefault(epoch, (who, incarnation))
        assert first == (who, incarnation), f"epoch {epoch} is of {first} and of {(who, incarnation)}"

    def tell_story(self, lines: int) -> str:
        return "\n".join(list(self.story)[-lines:])


class _Witness:
    """Adds seed, time and the end of the story to whatever goes wrong."""

    __slots__ = ("_world",)

    def __init__(self, world: World) -> None:
        self._world = world

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            world = self._world
            error.add_note(f"in the world of seed {world.seed} at {world.now - EPOCH_S:.6f} s\n{world.tell_story(60)}")


class Answer:
    """What became of a command: open, a `value`, or an `error`. `on_done`, if set, is called when it is known."""

    __slots__ = ("done", "error", "on_done", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: CorralError | None = None
        self.on_done: Callable[[Answer], None] | None = None

    def fill(self, value: Any = None, error: CorralError | None = None) -> None:
        self.value, self.error, self.done = value, error, True
        if self.on_done is not None:
            self.on_done(self)

    def get(self) -> Any:
        """Errors: the refusal; `Unavailable` when there is no answer yet."""
        if not self.done:
            raise Unavailable("not answered yet")
        if self.error is not None:
            raise self.error
        return self.value


class Lease(Protocol):
    """What decides whether one of several processes may work."""

    def admits(self, process: "Process") -> bool:
        """Whether it may start."""

    def guards(self, process: "Process") -> Sequence[Guard]:
        """What each of its commits is guarded by."""

    def answers(self, process: "Process") -> bool:
        """Whether the store takes its commits now."""

    def holds(self, process: "Process") -> bool:
        """Whether it may act now; it waits until `go_on` otherwise."""

    def see_turn(self, process: "Process") -> None:
        """It has taken a turn, or waits to act on one."""


class Process:
    """One component in the world: up or down, with a store that outlives it.

    Shapes: `points` counts the places passed at which it could have died; `crash_at` is the number of the one where it
    will. `crash_hooks` are called when it goes down, however it does. With `revive`, it starts again by itself.
    `seed` is drawn anew at each start, for the randomness of its core; `record` may give each start a recorder.
    `commits` is what happens to its next commits that write: "lost" and "unacknowledged" end the process before and
    after they are made, "slow" makes them late. While `frozen` it does nothing, and what reaches it waits. With a
    `reign` it works only while that lets it.
    """

    def __init__(
        self,
        world: World,
        name: str,
        build: "Callable[[Process], tuple[Core, Shell]]",
        prefix: str,
        drain: int,
        store: MemoryStore | None,
    ) -> None:
        self.world = world
        self.name = name
        self.prefix = prefix
        self.store = MemoryStore(clock=world.clock) if store is None else store
        self.up = False
        self.incarnation = 0
        self.turns = 0
        self.points = 0
        self.crash_at: int | None = None
        self.crashed_at: list[str] = []
        self.crash_hooks: list[Callable[[], None]] = []
        self.revive = False
        self.exit_code: int | None = None
        self.seed = 0
        self.record: Callable[[Process], Recorder] | None = None
        self.on_note: Callable[[Note], None] | None = None
        self.frozen = False
        self.reign: Lease | None = None
        self.commits: deque[str] = deque()
        self._stopped: list[Callable[[], None]] = []
        self._waiting: Turn | None = None
        self._build = build
        self._drain = drain
        self._last_ask = 0
        self._own: dict[type, Callable[[Any], None]] = {
            Reply: self._reply,
            Refuse: self._refuse,
            SetTimer: self._set_timer,
            CancelTimer: self._cancel_timer,
            Note: self._note,
            Stop: self._stop,
        }
        self._forget()

    core: Core
    shell: Shell
    recorder: Recorder | None

    def start(self) -> None:
        """Come up with what the store holds; nothing happens when it is up."""
        if self.up or (self.reign is not None and not self.reign.admits(self)):
            return
        self._forget()
        self.up = True
        self.exit_code = None
        self.incarnation += 1
        self.world.tell(self.name, f"starts ({self.incarnation})")
        self.seed = self.world.random.getrandbits(64)
        self.core, self.shell = self._build(self)
        self.recorder = None if self.record is None else self.record(self)
        self._decider = Decider(
            self.core,
            prefix=self.prefix,
            drain=self._drain,
            most_writes=self.store.most_writes,
            most_bytes=self.store.most_bytes,
            fair_writes=self.store.fair_writes,
            fair_bytes=self.store.fair_bytes,
            recorder=self.recorder,
        )
        records = run_now(self.store.list(self.prefix))
        self.tell(load(records, self.prefix))

    def tell(self, input: Any) -> None:
        """Queue an input; lost when the process is down."""
        if self.up:
            self._queue.append(input)
            self._plan_turn()

    def teller(self) -> Callable[[Any], None]:
        """A `tell` for this incarnation alone: what somebody says to it after its end reaches nobody."""
        return self.bind(self.tell)

    def bind(self, function: Callable[..., None]) -> Callable[..., None]:
        """The function for this incarnation alone: called after its end, it does nothing."""
        incarnation = self.incarnation
        return lambda *args: function(*args) if self.up and self.incarnation == incarnation else None

    def ask(self, command: Any, on_done: Callable[[Answer], None] | None = None) -> Answer:
        """Hand over a command; the answer fills when it comes."""
        answer = Answer()
        answer.on_done = on_done
        if not self.up:
            self._fail(answer)
            return answer
        self._last_ask += 1
        self._asks[self._last_ask] = answer
        self.tell(Asked(self._last_ask, command))
        return answer

    def after(self, delay_s: float, action: Callable[[], None]) -> Alarm:
        """Plan something that happens only if this very incarnation still lives then."""
        incarnation = self.incarnation
        alarm = self.world.after(delay_s, lambda: self._happen(alarm, incarnation, action))
        return alarm

    def _happen(self, alarm: Alarm, incarnation: int, action: Callable[[], None]) -> None:
        if self.up and self.incarnation == incarnation and not alarm.cancelled:
            if self.frozen:
                self._stopped.append(lambda: self._happen(alarm, incarnation, action))
            else:
                action()

    def freeze(self, for_s: float) -> None:
        """Stop the process as SIGSTOP does, and let it go on after a while."""
        if self.up and not self.frozen:
            self.world.tell(self.name, f"is frozen for {for_s:.1f} s")
            self.frozen = True
            incarnation = self.incarnation
            self.world.after(for_s, lambda: self.thaw() if self.incarnation == incarnation else None)

    def thaw(self) -> None:
        """Go on; everything that was due meanwhile happens at once, in order."""
        if self.frozen:
            self.world.tell(self.name, "goes on")
            self.frozen = False
            stopped, self._stopped = self._stopped, []
            for act in stopped:
                act()

    def when_thawed(self, act: Callable[[], None]) -> None:
        """Have something done when the frozen process goes on."""
        self._stopped.append(act)

    @property
    def idle(self) -> bool:
        """Whether there is no turn to take, or one that waits for the lease alone."""
        return self._waiting is not None or not (self._planned or self._committing)

    def go_on(self) -> None:
        """Act on what waited for the lease, if anything did."""
        turn, self._waiting = self._waiting, None
        if turn is not None:
            self._act(turn)

    def tell_after(self, delay_s: float, input: Any) -> Alarm:
        return self.after(delay_s, lambda: self.tell(input))

    def crash(self, where: str = "") -> None:
        """Die here and now: what was not committed is lost, nobody is told."""
        if not self.up:
            return
        self.world.tell(self.name, f"crashes {where}".rstrip())
        self.crashed_at.append(where)
        self._go_down()
        if self.revive:
            self.world.after(self.world.draw_s(self.world.pace.restart_s), self.start)

    def _go_down(self) -> None:
        self.up = False
        if self.recorder is not None:
            self.recorder.close()
        asks = self._asks
        self._forget()
        for answer in asks.values():
            self._fail(answer)
        for hook in list(self.crash_hooks):
            hook()

    def _forget(self) -> None:
        for timer in getattr(self, "_timers", {}).values():
            timer.cancel()
        self._queue: deque[Any] = deque()
        self._timers: dict[str, Alarm] = {}
        self._asks: dict[int, Answer] = {}
        self._planned = False
        self._committing = False
        self.frozen = False
        self._stopped = []
        self._waiting = None

    def _fail(self, answer: Answer) -> None:
        answer.fill(error=Unavailable(f"{self.name} is down"))

    def _plan_turn(self) -> None:
        if not self._planned and not self._committing:
            self._planned = True
            self.after(self.world.draw_s(self.world.pace.turn_s), self._take_turn)

    def _take_turn(self) -> None:
        self._planned = False
        turn = self._decider.take(self._queue, self.world.now)
        self.turns += 1
        self._committing = True
        if self._dies("before its commit"):
            return
        if turn.writes:
            trouble = self.commits.popleft() if self.commits else ""
            most_s = SLOW_COMMIT_S if trouble == "slow" else self.world.pace.commit_s
            self.after(self.world.draw_s(most_s), lambda: self._commit(turn, trouble))
        else:
            self._act(turn)

    def _commit(self, turn: Turn, trouble: str = "") -> None:
        if trouble == "lost":
            self.crash("for its commit was lost")
            return
        if self.reign is not None and not self.reign.answers(self):
            self.crash("for its commit was not answered")
            return
        try:
            self.store.commit_now(turn.writes, () if self.reign is None else self.reign.guards(self))
        except GuardFailed:
            self.crash("for its commit was refused: another leads")
            return
        if trouble == "unacknowledged":
            self.crash("for nobody acknowledged its commit")
            return
        if not self._dies("after its commit"):
            self._act(turn)

    def _act(self, turn: Turn) -> None:
        if self.reign is not None:
            if not self.reign.holds(self):
                self._waiting = turn
                self.reign.see_turn(self)
                return
            self.reign.see_turn(self)
        if self.turns % self.world.check_every == 0:
            self.core.invariants()
        for effect in turn.acts:
            own = self._own.get(effect.__class__)
            if own is not None:
                own(effect)
            else:
                self.perform(effect)
            if self._dies(f"after {type(effect).__name__}"):
                return
        self.shell.flush()
        if self.exit_code is not None:
            self.world.tell(self.name, f"ends with code {self.exit_code}")
            self._go_down()
            return
        self._committing = False
        if self._queue or self._decider.carries:
            self._plan_turn()

    def perform(self, effect: Effect) -> None:
        """Errors: `TypeError` when the shell answers with something to wait for, which this world cannot."""
        slow: Awaitable[Any] | None = self.shell.perform(effect)
        if slow is not None:
            raise TypeError(f"the shell of {self.name} has to plan {type(effect).__name__}, not to await it")

    def _dies(self, where: str) -> bool:
        self.points += 1
        if self.points == self.crash_at:
            self.crash(where)
        # An effect may also have brought the process down from outside.
        return not self.up

    def _reply(self, effect: Reply) -> None:
        answer = self._asks.pop(effect.ask, None)
        if answer is not None:
            answer.fill(effect.value)

    def _refuse(self, effect: Refuse) -> None:
        answer = self._asks.pop(effect.ask, None)
        if answer is not None:
            answer.fill(error=effect.error)

    def _set_timer(self, effect: SetTimer) -> None:
        old = self._timers.get(effect.name)
        if old is not None:
            if effect.if_unset:
                return
            old.cancel()
        self._timers[effect.name] = self.after(effect.delay_s, lambda: self._go_off(effect.name))

    def _cancel_timer(self, effect: CancelTimer) -> None:
        timer = self._timers.pop(effect.name, None)
        if timer is not None:
            timer.cancel()

    def _go_off(self, name: str) -> None:
        del self._timers[name]
        self.tell(Tick(name))

    def _note(self, effect: Note) -> None:
        facts = " ".join(f"{key}={value}" for key, value in effect.facts.items())
        self.world.tell(self.name, f"{effect.what} {facts} ({effect.why})")
        if self.on_note is not None:
            self.on_note(effect)

    def _stop(self, effect: Stop) -> None:
        self.world.tell(self.name, f"stops: {effect.why}")
        self.exit_code = effect.code


def run_now(awaitable: Any) -> Any:
    """The result of a coroutine that never waits. Errors: `RuntimeError` when it does."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    awaitable.close()
    raise RuntimeError("a coroutine waited in a world that has no event loop")
