"""HTTP as plain values: what a front door is made of, without any server.

A front door is a list of `Route`. Its handler gets a `Request`, asks its core and returns a `Response` or a `Stream`.
`net/server.py` is the only place that knows the HTTP library.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from corral.lib.errors import CorralError, Invalid
from corral.net.auth import ANYBODY, Caller


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `params` from the path, `query` with repeated keys as lists, `headers` with lower-case names."""

    method: str
    path: str
    params: Mapping[str, str] = {}
    query: Mapping[str, Sequence[str]] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""
    peer: str = ""
    caller: Caller = ANYBODY

    def first(self, key: str, default: str = "") -> str:
        """The first value of a query key."""
        values = self.query.get(key)
        return values[0] if values else default

    def whole(self, key: str, default: int, *, least: int = 0) -> int:
        """A query number of at most 15 digits; a bare key counts as not given.

        Errors: `Invalid` on any other text, and for a number below the least.
        """
        text = self.first(key)
        if not text:
            return default
        if not (text.isascii() and text.isdecimal()) or len(text) > 15 or int(text) < least:
            raise Invalid(f"query parameter {key}={text[:40]!r} must be a whole number of {least} or more")
        return int(text)

    def flag(self, key: str, default: bool = False) -> bool:
        """A query boolean in any letter case; a bare key counts as true.

        Errors: `Invalid` on any other text.
        """
        if key not in self.query:
            return default
        text = self.query[key][0].lower()
        if text in ("", "true", "1"):
            return True
        if text in ("false", "0"):
            return False
        raise Invalid(f"query parameter {key}={text!r} is neither true nor false")


class Response(msgspec.Struct, frozen=True, kw_only=True):
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A chunked response without end; each item of `chunks` is flushed by itself. `close` is called when it ends.

    Units: a client that takes nothing for `patience_s` seconds, though something waits for it, is cut off.
    """

    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    close: Callable[[], None] | None = None
    patience_s: float | None = None


Handler = Callable[[Request], Awaitable[Response | Stream]]
ErrorWriter = Callable[[CorralError, Request], Response]


def write_error(error: CorralError, request: Request) -> Response:
    """The native form: `{"error": {"status", "message", ...}}`."""
    return json_response({"error": {"status": error.status, "message": error.message}}, status=error.status)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path.

    Shapes: in `path`, `{name}` takes one segment and `{name*}` any number of them, slashes included, as few as the rest
    of the pattern allows. `*` as method takes all. The first matching route of the list wins. `most_bytes` bounds the
    body: more is refused with 413. With `exclusive` no later pattern gets what this one matches, so that a method which
    none of its own routes has is a 405 there, though a greedier pattern would take it.
    """

    method: str
    path: str
    handler: Handler
    errors: ErrorWriter = write_error
    most_bytes: int = 16 << 20
    exclusive: bool = False


class RawRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A route that needs the connection itself (uploads without end, WebSocket, hijack): the server's own request."""

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Any]]


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status=status, body=msgspec.json.encode(value), headers=headers or {})


def compile_path(path: str) -> re.Pattern[str]:
    """The pattern of a route's path; repeated slashes in a request are folded before it is matched."""
    parts = re.split(r"\{([a-z_]+)(\*?)\}", path)
    pattern = re.escape(parts[0])
    for name, greedy, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        pattern += f"(?P<{name}>{'.+?' if greedy else '[^/]+'})" + re.escape(rest)
    return re.compile(pattern + "/?")
