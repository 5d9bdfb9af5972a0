"""The body of a chunked answer, written straight to its connection.

For streams of many small writes that nobody waits for: the HTTP library's own writer takes a task that is woken for
each of them.
"""

import asyncio

from aiohttp import web


class ChunkedBody:
    """What `begin` gives; the answer is ended by `write_eof` of the response, as ever."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    @classmethod
    async def begin(cls, response: web.StreamResponse, request: web.BaseRequest) -> "ChunkedBody":
        """Send the head of the answer. Errors: `ConnectionError` when the client has gone."""
        response.enable_chunked_encoding()
        await response.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        return cls(request.transport)

    def write(self, data: bytes) -> int:
        """One chunk, never empty; returns how many bytes have not left yet, 0 once the client has gone."""
        transport = self._transport
        if transport.is_closing():
            return 0
        transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close the connection with all that the client has not taken."""
        self._transport.abort()
