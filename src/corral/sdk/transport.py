"""How calls and events travel between a framework and the master: the same two members in process and over HTTP."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from corral.lib.errors import CorralError
from corral.model.calls import Call
from corral.model.events import Event


class Transport(Protocol):
    async def call(self, call: Call) -> None:
        """Hand a call to the leading master; returns when it is accepted. SUBSCRIBE opens the stream of `events`.

        Errors: `CorralError` as the master refused it; `Unavailable` when no master answers.
        """

    def events(self) -> AsyncIterator[Event]:
        """The events since SUBSCRIBE; ends when the stream breaks, and then the framework has to subscribe again."""


@runtime_checkable
class PipelinedTransport(Transport, Protocol):
    """A transport that takes calls without waiting and hands them over in their order."""

    def send(self, call: Call, failed: Callable[[CorralError], None]) -> None:
        """As `call`, for all but SUBSCRIBE; `failed` is called with the error if there is one."""


class Endpoint(Protocol):
    """What a master offers to transports in its own process."""

    async def subscribe(self, call: Call) -> tuple[str, AsyncIterator[Event]]:
        """Returns the stream's id and its events."""

    async def call(self, call: Call, stream_id: str) -> None: ...

    def send(self, call: Call, stream_id: str, failed: Callable[[CorralError], None]) -> None:
        """As `call`, in the order of sending; `failed` is called with the error if there is one."""
