"""Which of several masters leads, in virtual time: a lease that only a working leader renews.

Rules: each turn of the leader renews the lease; one that finds it lost ends before it says or writes anything. When the
lease has run out, a master that works is started with the records of all. They share one store, whose commits count
only while the lease is held: what a leader decided before and comes to write after is refused.
"""

from collections.abc import Sequence

from corral.sim.world import Process, World


class Reign:
    """Shapes: `leader` is who was elected last, whether it still works or not."""

    def __init__(self, world: World, masters: Sequence[Process], ttl_s: float) -> None:
        self.leader = masters[0]
        self._world = world
        self._masters = masters
        self._ttl_s = ttl_s
        self._until = world.now
        self._electing = False
        for each in masters:
            each.reign = self

    def begin(self) -> None:
        """Elect the first one, and another whenever the lease runs out."""
        self._elect()
        self._watch()

    def admits(self, process: Process) -> bool:
        """Whether the process may start: a master only leads when it is elected."""
        return self._electing and process is self.leader

    def renew(self, process: Process) -> bool:
        """Hold the lease for longer; False when it is another's or has run out."""
        if not self.holds(process):
            return False
        self._until = self._world.now + self._ttl_s
        return True

    def holds(self, process: Process) -> bool:
        return process is self.leader and self._world.now <= self._until

    def _watch(self) -> None:
        if self._world.now > self._until:
            self._elect()
        self._world.after(self._ttl_s / 4, self._watch)

    def _elect(self) -> None:
        able = [each for each in self._masters if not each.frozen]
        if not able:
            return
        chosen = self._world.random.choice(able) if len(able) > 1 else able[0]
        chosen.crash("for it let its lease run out")
        self.leader, self._until = chosen, self._world.now + self._ttl_s
        self._world.tell(chosen.name, "is elected")
        self._electing = True
        chosen.start()
        self._electing = False
