"""The effects of the master beside the loop's own, and who performs each: all of them `shell.py`.

| effect | what the shell does |
|---|---|
| `SendEvent` | puts the event on a framework's stream, HTTP or in process; nothing when the stream has gone |
| `CloseStream` | ends the stream after what is already on it |
| `TellWatchers` | puts the event on the stream of everybody who follows the cluster |
| `SendOrder` | puts the order on an agent's link; what a turn sends to one agent leaves as one write |
| `CloseSession` | ends both halves of an agent's link |
"""

from corral.mesos.watch import ClusterEvent
from corral.model.events import Event
from corral.model.orders import Order
from corral.runtime.core import CancelTimer, Effect, Note, Persist, Refuse, Reply, SetTimer, Stop


class SendEvent(Effect, frozen=True):
    stream: str
    event: Event


class CloseStream(Effect, frozen=True):
    stream: str
    why: str = ""


class TellWatchers(Effect, frozen=True):
    event: ClusterEvent


class SendOrder(Effect, frozen=True):
    session: str
    order: Order


class CloseSession(Effect, frozen=True):
    session: str
    why: str = ""


MasterEffect = (
    SendEvent
    | CloseStream
    | TellWatchers
    | SendOrder
    | CloseSession
    | Persist
    | Reply
    | Refuse
    | SetTimer
    | CancelTimer
    | Note
    | Stop
)
