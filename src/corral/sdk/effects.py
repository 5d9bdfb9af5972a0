"""The effects that frameworks have beside the loop's own, all performed by `sdk/framework.py`.

| effect | performed by |
|---|---|
| `Call` | the transport, in the order of the effects |
| `Connect` | the transport: SUBSCRIBE, then every event becomes an input |
| `Disconnect` | the transport: the stream of that connection is dropped |
| `Publish` | the framework's feed: everybody who follows it gets the event |
"""

from collections.abc import Mapping
from typing import Any

from corral.model import calls
from corral.runtime.core import Effect


class Call(Effect, frozen=True):
    """Say this to the master. A refusal comes back as `CallFailed`."""

    call: calls.Call


class Connect(Effect, frozen=True):
    """Subscribe. Shapes: `connection` counts up; its end comes back as `Disconnected` with the same number."""

    connection: int
    subscribe: calls.Subscribe


class Disconnect(Effect, frozen=True):
    """Let go of the connection, if it still stands."""

    connection: int
    why: str


class Publish(Effect, frozen=True):
    """Tell everybody who follows the framework's feed. A core publishes only while it is `Followed`.

    Shapes: `body` is plain JSON and never changed afterwards.
    """

    kind: str
    body: Mapping[str, Any]
