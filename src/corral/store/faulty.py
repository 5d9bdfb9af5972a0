"""A store that fails on purpose: before the write, after it (the answer is lost), or late.

It wraps any other store, and what fails comes from a plan: a function of the commit's number, so that a test can name
the one commit to fail and a seeded run can draw them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from random import Random

import msgspec

from corral.store.base import Guard, LeaseId, Store, StoreFailed
from corral.store.wrapped import WrappedStore


class Fail(StrEnum):
    """BEFORE: nothing is written; AFTER: all is written, but the caller is told that it failed."""

    NO = "no"
    BEFORE = "before"
    AFTER = "after"


class Fault(msgspec.Struct, frozen=True):
    """What happens to one commit. Units: `delay_s` passes before anything else."""

    fail: Fail = Fail.NO
    delay_s: float = 0.0


Plan = Callable[[int], Fault]
"""From the number of the commit, counted from 1, to its fault."""


def no_faults(commit: int) -> Fault:
    return Fault()


def fault_at(number: int, fail: Fail, delay_s: float = 0.0) -> Plan:
    """Only the commit of this number fails."""
    return lambda commit: Fault(fail, delay_s) if commit == number else Fault()


def draw_faults(random: Random, *, before: float = 0.0, after: float = 0.0, most_delay_s: float = 0.0) -> Plan:
    """Faults with these probabilities, and delays up to `most_delay_s`; the same seed draws the same."""

    def draw(commit: int) -> Fault:
        delay_s = random.uniform(0.0, most_delay_s) if most_delay_s else 0.0
        chance = random.random()
        fail = Fail.BEFORE if chance < before else Fail.AFTER if chance < before + after else Fail.NO
        return Fault(fail, delay_s)

    return draw


class FaultyStore(WrappedStore):
    """`inner` with the faults of `plan`; reads pass through. `commits` counts the commits tried."""

    def __init__(self, inner: Store, plan: Plan = no_faults) -> None:
        super().__init__(inner)
        self.commits = 0
        self._plan = plan

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        self.commits += 1
        number = self.commits
        fault = self._plan(number)
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.fail is Fail.BEFORE:
            raise StoreFailed(f"commit {number} was made to fail before it was written")
        revision = await self.inner.commit(writes, guards, lease)
        if fault.fail is Fail.AFTER:
            raise StoreFailed(f"commit {number} was written, but its answer was made to get lost")
        return revision
