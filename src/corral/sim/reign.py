"""Which of several masters leads, in virtual time: the moves, times and guards of `runtime.election`, over one store.

What the real election does with waiting, this does with planned events: every question to the store takes its time, may
go unanswered, and is asked by a process that may be stopped or dead when the answer comes. Laws: whoever acts holds the
leader's key at that very moment, by the store's own clock, which may run faster than the masters' by what the election
allows for. A lease is renewed only after a turn that had not begun.
"""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from corral.runtime.election import (
    DRIFT,
    Candidate,
    Move,
    acts_until,
    beat_s,
    choose_move,
    fence,
    leader_key,
    member_prefix,
    see,
)
from corral.sim.world import EPOCH_S, Process, World, run_now
from corral.store.base import Guard, GuardFailed, LeaseId
from corral.store.memory import MemoryStore

NAME = "master"
ANSWER_S = 0.02
"""How long a question to the store and its answer take at most, each."""
UNANSWERED = 0.03
"""How many answers of the store are lost."""


class Contender:
    """One master's part in the election.

    Shapes: `life` counts its starts; `leads` as long as its core works or waits for its lease.
    """

    __slots__ = ("asked_at", "cut_until", "leads", "lease", "life", "process", "proof", "revision", "until")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.life = 0
        self.leads = False
        self.lease: LeaseId | None = None
        self.revision = 0
        self.asked_at = 0.0
        self.until = 0.0
        self.cut_until = 0.0
        self.proof: Callable[[], None] | None = None

    @property
    def id(self) -> str:
        return f"{self.process.name}/{self.life}"


class Reign:
    """Shapes: `leader` is who was elected last, whether it still works or not."""

    def __init__(self, world: World, masters: Sequence[Process], store: MemoryStore, ttl_s: float) -> None:
        self.leader = masters[0]
        self._world = world
        self._store = store
        self._ttl_s = ttl_s
        self._key = leader_key(NAME)
        self._contenders = {each.name: Contender(each) for each in masters}
        self._electing: Process | None = None
        for contender in self._contenders.values():
            contender.process.reign = self
            contender.process.crash_hooks.append(lambda contender=contender: self._die(contender))  # type: ignore[misc]

    def begin(self) -> None:
        """Bring all masters up, as standbys."""
        for contender in self._contenders.values():
            self._come_up(contender)

    def cut_off(self, name: str, for_s: float) -> None:
        """Let the store not answer this master for a while."""
        self._world.tell(name, f"is cut off from the store for {for_s:.1f} s")
        self._contenders[name].cut_until = self._world.now + for_s

    def heal(self) -> None:
        for contender in self._contenders.values():
            contender.cut_until = 0.0

    # For the processes.

    def admits(self, process: Process) -> bool:
        """Whether the process may start: a master only leads when it is elected."""
        return self._electing is process

    def guards(self, process: Process) -> Sequence[Guard]:
        return fence(NAME, self._contenders[process.name].revision)

    def answers(self, process: Process) -> bool:
        """Whether the store takes a commit of the process at this moment."""
        return self._world.now >= self._contenders[process.name].cut_until

    def holds(self, process: Process) -> bool:
        """Whether it may act now. Errors: `AssertionError` when another one leads and it would act all the same."""
        contender = self._contenders[process.name]
        if self._world.now >= contender.until:
            return False
        found = run_now(self._store.get(self._key))
        assert found is not None, f"{contender.id} acts and nobody leads"
        assert found.revision == contender.revision, f"{contender.id} acts and {see(found).leader} leads"
        return True

    def see_turn(self, process: Process) -> None:
        """A turn has been taken, or waits for the lease."""
        contender = self._contenders[process.name]
        proof, contender.proof = contender.proof, None
        if proof is not None:
            proof()

    # Standing by.

    def _come_up(self, contender: Contender) -> None:
        contender.life += 1
        contender.lease = None
        contender.leads = False
        self._contend(contender)

    def _die(self, contender: Contender) -> None:
        """Its process has ended, however it did; nobody gives the lease back."""
        contender.leads = False
        contender.proof = None
        contender.until = 0.0
        contender.life += 1
        world = self._world
        self._later(contender, world.draw_s(world.pace.restart_s), lambda: self._come_up(contender))

    def _later(self, contender: Contender, delay_s: float, action: Callable[[], None]) -> None:
        """Plan something of this very life; a process that is stopped does it when it goes on."""
        life = contender.life

        def act() -> None:
            if contender.life != life:
                return
            if contender.process.frozen:
                contender.process.when_thawed(act)
            else:
                action()

        self._world.after(delay_s, act)

    def _ask(self, contender: Contender, question: Callable[[], object], answer: Callable[[], None]) -> None:
        """Put a question to the store, then go on with the answer, or find out after a while that there is none.

        Shapes: the question is asked even if nobody hears the answer. Errors: `GuardFailed` of it ends what was begun.
        """
        world = self._world
        if world.now < contender.cut_until:
            return
        life = contender.life

        def reach() -> None:
            try:
                question()
            except GuardFailed:
                self._later(contender, world.draw_s(ANSWER_S), lambda: self._refused(contender))
                return
            if contender.life == life and world.random.random() >= UNANSWERED:
                self._later(contender, world.draw_s(ANSWER_S), answer)

        world.after(world.draw_s(ANSWER_S), reach)

    def _refused(self, contender: Contender) -> None:
        """The store says that the lease has ended, or that somebody was faster."""
        if contender.leads:
            contender.process.crash("for it has lost its lease")
        else:
            contender.lease = None

    def _contend(self, contender: Contender) -> None:
        """One look at the store and what follows from it, again and again until this one leads."""
        if contender.leads:
            return
        self._later(
            contender, beat_s(self._ttl_s) * (0.5 + self._world.random.random()), lambda: self._contend(contender)
        )
        contender.asked_at = self._world.now
        life, own_id, lease = contender.life, contender.id, contender.lease

        def keep_lease() -> None:
            if lease is not None:
                run_now(self._store.keep_alive(lease))
                return
            fresh: LeaseId = run_now(self._store.grant(self._ttl_s))
            own = msgspec.msgpack.encode(Candidate(id=own_id))
            self._store.commit_now({member_prefix(NAME) + own_id: own}, (), fresh)
            if contender.life == life:
                contender.lease = fresh

        self._ask(contender, keep_lease, lambda: self._look(contender))

    def _look(self, contender: Contender) -> None:
        if contender.leads:
            return
        sight = see(run_now(self._store.get(self._key)))
        match choose_move(sight, contender.id):
            case Move.STAND:
                own, lease = msgspec.msgpack.encode(Candidate(id=contender.id)), contender.lease
                stand = partial(self._store.commit_now, {self._key: own}, [Guard(self._key, 0)], lease)
                self._ask(contender, stand, lambda: self._look(contender))
            case Move.LEAD:
                self._lead(contender, sight.revision)
            case Move.FOLLOW:
                pass

    # Leading.

    def _lead(self, contender: Contender, revision: int) -> None:
        process = contender.process
        contender.leads = True
        contender.revision = revision
        contender.until = acts_until(contender.asked_at, self._ttl_s)
        self.leader = process
        self._world.tell(process.name, "is elected")
        self._electing = process
        process.start()
        self._electing = None
        self._beat(contender)

    def _beat(self, contender: Contender) -> None:
        """Renew the lease once the core has shown that it takes turns."""
        if not contender.leads:
            return
        world, contender.proof = self._world, None
        self._later(contender, max(beat_s(self._ttl_s), 0.0), lambda: self._beat(contender))
        if world.now >= contender.until:
            self._doubt(contender)

        def prove() -> None:
            asked_at = world.now
            lease = contender.lease
            assert lease is not None
            self._ask(
                contender, lambda: run_now(self._store.keep_alive(lease)), lambda: self._renewed(contender, asked_at)
            )

        if contender.process.idle:
            prove()
        else:
            contender.proof = prove

    def _renewed(self, contender: Contender, asked_at: float) -> None:
        contender.until = max(contender.until, acts_until(asked_at, self._ttl_s))
        contender.process.go_on()

    def _doubt(self, contender: Contender) -> None:
        """Time is over without an answer: see what has become of the lease, or end the reign if the store is silent."""
        if self._world.now < contender.cut_until:
            contender.process.crash("for the store does not say who leads")
            return

        def look() -> None:
            found = run_now(self._store.get(self._key))
            if found is None or found.revision != contender.revision:
                raise GuardFailed(self._key)

        self._ask(contender, look, lambda: None)


def store_clock(world: World) -> Callable[[], float]:
    """A clock that runs faster than the masters' by at most what their election allows for."""
    rate = 1.0 + world.random.random() * DRIFT
    return lambda: EPOCH_S + (world.now - EPOCH_S) * rate
