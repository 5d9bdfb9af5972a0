"""What a framework's state keeps of its subscription: who it is, what it was offered, what it told that it wants.

A base of the framework's own state. Offers wait here until a turn has room for what they launch.
"""

from collections import OrderedDict
from collections.abc import Iterable

from corral.model import events
from corral.model.ids import FrameworkId, OfferId
from corral.model.offer import Offer
from corral.sdk.answers import Demands


class Backlog(OrderedDict[OfferId, Offer]):
    """Offers that have not been answered, first come first served. What one offer costs does not grow with them.

    Not a plain dict: taking the first of many again and again would walk over all that were taken before.
    """

    def add(self, offers: Iterable[Offer]) -> None:
        for offer in offers:
            self[offer.id] = offer

    def take(self) -> Offer:
        """The next offer. Errors: `KeyError` when there is none."""
        return self.popitem(last=False)[1]

    def take_many(self, most: int) -> list[Offer]:
        return [self.take() for _ in range(min(most, len(self)))]

    def drop(self, offer_id: OfferId) -> None:
        """The offer is no longer ours; if it was used already, the master says so about the task."""
        self.pop(offer_id, None)


class Subscription:
    """Shapes: `demands` is what the master was told last, `wants_changed` when that may no longer be what is wanted."""

    __slots__ = ("backlog", "connected", "demands", "framework_id", "wants_changed")

    def __init__(self) -> None:
        self.framework_id: FrameworkId | None = None
        self.connected = False
        self.backlog = Backlog()
        self.demands = Demands()
        self.wants_changed = False

    def subscribe(self, event: events.Subscribed) -> None:
        """The master knows us; what it may not have heard has to be told again."""
        self.framework_id = event.framework_id
        self.connected = True
        self.demands.forget()
        self.wants_changed = True

    def disconnect(self) -> None:
        """Nothing that was offered counts any more; tasks are not touched."""
        self.connected = False
        self.backlog.clear()
