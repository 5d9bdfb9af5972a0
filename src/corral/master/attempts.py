"""Tells which of two subscriptions of a framework, or registrations of an agent, is newer, whichever comes first.

Rule: what a network holds up may come when its sender has long given it up and come again by another way. A process
names itself and counts its attempts: a lower number of the same process is late, and so is a process that another has
followed, as long as that one is there. Who says nothing of the kind is as new as it comes.
"""

from corral.master.spec import Attempt

MOST_PAST_LIVES = 32


class Attempts:
    """Shapes: `newest` is the one that counts; `past_lives` are the processes that were followed by others."""

    __slots__ = ("newest", "past_lives")

    def __init__(self) -> None:
        self.newest: Attempt | None = None
        self.past_lives: dict[str, None] = {}

    def is_overtaken(self, attempt: Attempt | None) -> bool:
        """Whether its own process has come again since."""
        newest = self.newest
        if attempt is None or newest is None or attempt.life != newest.life:
            return False
        return attempt.number <= newest.number

    def is_followed(self, attempt: Attempt | None) -> bool:
        """Whether another process has come since; it counts only while that one is there."""
        return attempt is not None and attempt.life in self.past_lives

    def note(self, attempt: Attempt | None) -> None:
        """This one counts from now on."""
        before, self.newest = self.newest, attempt
        if before is not None and (attempt is None or attempt.life != before.life):
            self.past_lives[before.life] = None
            while len(self.past_lives) > MOST_PAST_LIVES:
                del self.past_lives[next(iter(self.past_lives))]
        if attempt is not None:
            self.past_lives.pop(attempt.life, None)
