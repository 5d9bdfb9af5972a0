"""Fencing tokens: numbers that only grow, over all launches and all lives of a framework.

A store that remembers the highest token it has seen can refuse an older run of the same work.
"""

import msgspec

from corral.runtime.core import Effect, Persist

RECORD = "tokens"


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """No fencing token above `reserved` has ever been given out."""

    reserved: int


class TokenCounter:
    """Gives tokens out, reserving `at_once` of them with each write; those of an earlier life are passed over."""

    __slots__ = ("_at_once", "_reserved", "last")

    def __init__(self, at_once: int = 1000) -> None:
        self.last = 0
        self._reserved = 0
        self._at_once = at_once

    def load(self, record: Tokens) -> None:
        self.last = self._reserved = record.reserved

    def take(self, effects: list[Effect]) -> int:
        """The next token. Shapes: what has to be written before it is used is added to `effects`."""
        self.last += 1
        if self.last > self._reserved:
            self._reserved = self.last + self._at_once - 1
            effects.append(Persist(RECORD, Tokens(reserved=self._reserved)))
        return self.last

    def invariants(self) -> None:
        assert self.last <= self._reserved, "a token was given out that is not reserved"
