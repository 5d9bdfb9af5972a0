"""What every framework answers the master in the same words."""

from collections.abc import Iterable, Sequence

from corral.model import calls, events
from corral.model.ids import FrameworkId, OfferId
from corral.model.offer import Explanation, Filters, Want
from corral.model.task import TERMINAL, TaskState, TaskStatus
from corral.runtime.core import Effect, Note
from corral.sdk.effects import Call

COARSE_REFUSE_S = 120.0
"""How long offers that were made for no want are refused."""


def decline(framework_id: FrameworkId, offers: Sequence[OfferId], refuse_s: float) -> Effect:
    return Call(calls.Decline(framework_id=framework_id, offer_ids=tuple(offers), filters=Filters(refuse_s=refuse_s)))


def agree(event: events.InverseOffers) -> list[Effect]:
    """Agents are to be taken out of service: agreed, for what is ended there is tried again elsewhere."""
    return [
        Call(calls.AcceptInverseOffers(framework_id=one.framework_id, inverse_offer_ids=(one.id,)))
        for one in event.inverse_offers
    ]


def describe(explanation: Explanation) -> str:
    """Why a want waits, in one line, and what would let it fit."""
    refusals = "; ".join(f"{r.detail} ({r.agents} agent{'' if r.agents == 1 else 's'})" for r in explanation.refusals)
    if explanation.never and explanation.agents:
        return f"no agent could ever run it: {refusals or 'none fits'}"
    fits = f"; it fits if {' or '.join(explanation.fits_if)}" if explanation.fits_if else ""
    return f"{refusals or 'no agent has room for it now'}{fits}"


def kill_unknown(framework_id: FrameworkId | None, status: TaskStatus, why: str) -> list[Effect]:
    """End a task that the framework does not know, if it may still run."""
    gone = status.state in TERMINAL or status.state in (TaskState.UNKNOWN, TaskState.UNREACHABLE)
    if gone or framework_id is None:
        return []
    return [
        Call(calls.Kill(framework_id=framework_id, task_id=status.task_id, agent_id=status.agent_id)),
        Note("unknown task is killed", why, "warning", {"task": status.task_id, "agent": status.agent_id}),
    ]


class Demands:
    """What the master was told last that is wanted, less what was launched since."""

    __slots__ = ("_counts", "_said", "_shapes")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._shapes: dict[str, object] = {}
        self._said = False

    def forget(self) -> None:
        """A new master, or a new connection: it has to be told everything."""
        self._counts.clear()
        self._said = False

    def known(self, want_id: str) -> int:
        """How many instances of the want the master still looks for."""
        return self._counts.get(want_id, 0)

    def launched(self, want_id: str) -> None:
        """An instance of the want was launched, by which the master counts one less."""
        if self._counts.get(want_id, 0) > 0:
            self._counts[want_id] -= 1

    def state(self, framework_id: FrameworkId, wants: Iterable[Want]) -> list[Effect]:
        """All wants at once, which is how the master learns that one was withdrawn; nothing when it knows."""
        wants = tuple(wants)
        counts = {str(want.id): want.count for want in wants}
        shapes: dict[str, object] = {str(want.id): (want.priority, want.constraints) for want in wants}
        known = {want_id: count for want_id, count in self._counts.items() if count > 0}
        if self._said and counts == known and shapes == {want_id: self._shapes[want_id] for want_id in known}:
            return []
        self._said = True
        self._counts, self._shapes = counts, shapes
        return [Call(calls.Request(framework_id=framework_id, wants=wants))]
