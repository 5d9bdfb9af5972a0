"""The effects that frameworks have beside the loop's own, all performed by `sdk/framework.py`.

| effect | performed by |
|---|---|
| `Call` | the transport, in the order of the effects |
| `Connect` | the transport: SUBSCRIBE, then every event becomes an input |
| `Disconnect` | the transport: the stream of that connection is dropped |
| `Publish` | the framework's feed: everybody who follows it gets the event |
| `Notify` | `sdk/notify.py`: a mail or a POST to the world outside |
| `Measure` | `sdk/measure.py`: agents are asked what their tasks use |
| `Signal` | `sdk/signals.py`: an agent is asked to send a signal to a task |
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from corral.model import calls
from corral.model.ids import FrameworkId, TaskId
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


class Notify(Effect, frozen=True):
    """Tell the world outside: a mail to `mail_to`, or a POST of `body` (JSON) to `url`.

    It is tried once; what became of it comes back as `Notified`.
    """

    id: str
    subject: str
    body: str
    mail_to: tuple[str, ...] = ()
    url: str = ""


class Notified(msgspec.Struct, frozen=True, tag="Notified"):
    """An input: the notice was taken, or was not, and why. Shapes: `why` is empty when it was taken."""

    id: str
    why: str = ""


class Measure(Effect, frozen=True):
    """Ask these agents what their tasks use; comes back as `Measured`. Shapes: `nodes` are `host:port`."""

    nodes: tuple[str, ...]


class Measured(msgspec.Struct, frozen=True, tag="Measured"):
    """An input: what tasks use, by their ids, as seconds of processor time and bytes of memory.

    Shapes: tasks of agents that did not answer are missing.
    """

    usage: dict[str, tuple[float, int]]


class Signal(Effect, frozen=True):
    """Send a signal to a task; with `renew` its files of secrets get the newest values before. Shapes: `node` is
    `host:port`. It is tried once; what became of it comes back as `Signalled`.
    """

    node: str
    framework_id: FrameworkId
    task_id: TaskId
    signal: str
    renew: bool = False


class Signalled(msgspec.Struct, frozen=True, tag="Signalled"):
    """An input: the task was sent its signal, or was not, and why. Shapes: `why` is empty when it was."""

    task_id: TaskId
    why: str = ""
