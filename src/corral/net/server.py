"""Serves routes over HTTP/1.1: the only place where `net/routes.py` meets the HTTP library.

Rules: bodies are bounded before they are read; an error of the corral tree is written by the route's own dialect; any
other error is a bug, answered 500 without its text and logged with it; a client that goes away ends its stream at once.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from corral.lib.errors import CorralError, Forbidden, Invalid, NotFound, Unauthenticated, WrongMethod
from corral.lib.log import get_logger
from corral.net.auth import Caller, Gate, Knock
from corral.net.bodies import check_numbers, read_body
from corral.net.listen import TlsListener
from corral.net.routes import RawRoute, Request, Response, Route, Stream, compile_path, write_error
from corral.net.tls import peer_of

log = get_logger("server")

PARAMS: web.RequestKey[Mapping[str, str]] = web.RequestKey("params", dict)
"""Where the handler of a `RawRoute` finds the parameters of its path."""

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
"""Where it finds who is asking."""

_STREAM_QUANTUM_S = 0.25
RECHECK_S = 30.0
"""How often it is asked anew whether those who are connected may still be."""
RECHECK_SLICE = 200
"""How long a stopped server lets an open stream go on before its connection is closed."""


class _Mishaps(logging.Filter):
    """Keeps out of the log what the HTTP library says of clients that send no HTTP or leave: they have their 400."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | ConnectionError)


logging.getLogger("aiohttp.server").addFilter(_Mishaps())


class _Served:
    """A route with its compiled path."""

    __slots__ = ("exclusive", "fullmatch", "method", "path", "raw", "route")

    def __init__(self, route: Route | RawRoute) -> None:
        self.route = route
        self.method = route.method
        self.path = route.path
        self.exclusive = isinstance(route, Route) and route.exclusive
        self.fullmatch = compile_path(route.path).fullmatch
        self.raw = isinstance(route, RawRoute)


class Router:
    """Finds the first route of a request, looking only at those that share its first literal segment."""

    __slots__ = ("_buckets", "_everywhere", "_order")

    def __init__(self, routes: Iterable[Route | RawRoute]) -> None:
        self._buckets: dict[str, list[tuple[int, _Served]]] = {}
        self._everywhere: list[tuple[int, _Served]] = []
        self._order: dict[str, list[_Served]] = {}
        for index, route in enumerate(routes):
            first = route.path.split("/")[1] if route.path.startswith("/") else ""
            home = self._everywhere if "{" in first else self._buckets.setdefault(first, [])
            home.append((index, _Served(route)))

    def _candidates(self, path: str) -> list[_Served]:
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        if first not in self._buckets:
            return [served for _, served in self._everywhere]
        if first not in self._order:
            both = sorted(self._buckets[first] + self._everywhere, key=lambda pair: pair[0])
            self._order[first] = [served for _, served in both]
        return self._order[first]

    def find(self, method: str, path: str) -> tuple[_Served | None, Mapping[str, str], tuple[str, ...]]:
        """The route and its path parameters; when the path is known but not for this method, the methods it knows."""
        allowed: list[str] = []
        only = ""
        for served in self._candidates(path):
            if only and served.path != only:
                continue
            match = served.fullmatch(path)
            if match is None:
                continue
            if served.method in (method, "*") or (method == "HEAD" and served.method == "GET"):
                return served, match.groupdict(), ()
            if served.method not in allowed:
                allowed.append(served.method)
            if served.exclusive:
                only = served.path
        return None, {}, tuple(sorted(allowed))

    def error_writer(self, path: str) -> Route | None:
        """A route of this path, or one near it, so that even a 404 speaks the dialect of its neighbours."""
        near = [served for served in self._candidates(path) if isinstance(served.route, Route)]
        best = next((served for served in near if served.fullmatch(path)), near[0] if near else None)
        return best.route if best is not None and isinstance(best.route, Route) else None


def fold_slashes(path: str) -> str:
    """One slash for many: clients that join absolute ids send `/v2/apps//group/app`."""
    while "//" in path:
        path = path.replace("//", "/")
    return path


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, before anything is known of what it will serve. Shapes: port 0 takes any.

    Errors: `Invalid` when the address cannot be bound, with the address and what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.setblocking(False)
        except OSError:
            bound.close()
            raise
    except (OSError, socket.gaierror) as error:
        raise Invalid(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            f"end what holds it or choose another with --listen HOST:PORT (port 0 takes any)"
        ) from None
    return bound


class Server:
    """One listening endpoint, as a service.

    Shapes: `routes` are tried in order, those of the first door first. With `tls` it speaks nothing else, and with a
    `gate` every request is let in by it first.
    """

    def __init__(
        self,
        routes: Sequence[Route | RawRoute],
        bound: socket.socket,
        *,
        name: str = "server",
        tls: ssl.SSLContext | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.name = name
        self._tls = tls
        self._gate = gate
        self._router = Router(routes)
        self._bound = bound
        self._host, self._port = bound.getsockname()[:2]
        self._http: web.Server | None = None
        self._listener: asyncio.Server | TlsListener | None = None
        self._stopping = asyncio.Event()
        self._inside: dict[int, tuple[web.BaseRequest, Knock]] = {}

    @property
    def port(self) -> int:
        return int(self._port)

    @property
    def address(self) -> str:
        """`HOST:PORT`, as it is listened on."""
        return self.url.partition("://")[2]

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}"

    async def run(self) -> int | None:
        """Serve until `stop`."""
        await self.start()
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_S):
                    await self._stopping.wait()
                    break
            await self.recheck()
        await self.close()
        return None

    def stop(self) -> None:
        self._stopping.set()

    async def start(self) -> None:
        """Accept requests."""
        # Bodies are decoded where they are read: a follower hands them on as they came.
        self._http = web.Server(
            self.serve, handler_cancellation=True, access_log=None, keepalive_timeout=75.0, auto_decompress=False
        )
        if self._tls is not None:
            self._listener = TlsListener(self._bound, self._http, self._tls)
            self._listener.start()
            return
        self._listener = await asyncio.get_running_loop().create_server(self._http, sock=self._bound, backlog=1024)

    async def close(self) -> None:
        """Accept nothing new, end the streams, close what is left."""
        self._stopping.set()
        if self._listener is not None:
            self._listener.close()
        if self._http is not None:
            self._http.pre_shutdown()
            await self._http.shutdown(_STREAM_QUANTUM_S)

    def switch(self, routes: Sequence[Route | RawRoute], gate: Gate | None = None) -> None:
        """Serve these from now on, behind this gate; requests under way end as they began."""
        self._router = Router(routes)
        self._gate = gate

    async def recheck(self) -> None:
        """Cut off whoever would not be let in any more, in the middle of what it does: a revoked node, an old token."""
        for number, (raw, knock) in enumerate(list(self._inside.values())):
            if number % RECHECK_SLICE == RECHECK_SLICE - 1:
                await asyncio.sleep(0)
            if self._gate is None or id(raw) not in self._inside:
                continue
            try:
                await self._gate.admit(knock)
            except (Unauthenticated, Forbidden) as error:
                log.warning("connection cut", path=knock.path, peer=raw.remote or "", why=error.message)
                if raw.transport is not None:
                    raw.transport.abort()
            except CorralError:
                continue  # nobody can say now

    async def serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        """One request, by the routes of this moment."""
        try:
            return await self._serve(raw)
        finally:
            self._inside.pop(id(raw), None)

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        path = fold_slashes(raw.path)
        served, params, allowed = self._router.find(raw.method, path)
        request = Request(
            method=raw.method,
            path=path,
            params=params,
            query={key: raw.query.getall(key) for key in raw.query},
            headers={key.lower(): value for key, value in raw.headers.items()},
            peer=raw.remote or "",
        )
        if self._gate is not None:
            knock = _knock(request, raw)
            try:
                caller = await self._gate.admit(knock)
            except CorralError as error:
                return self._turn_away(error, request, served)
            request = msgspec.structs.replace(request, caller=caller)
            self._inside[id(raw)] = (raw, knock)
        if served is None:
            return self._unknown(request, allowed)
        route = served.route
        if isinstance(route, RawRoute) or (raw.content_length or 0) <= route.most_bytes:
            await _invite_body(raw)
        if isinstance(route, RawRoute):
            raw[PARAMS] = params
            raw[CALLER] = request.caller
            try:
                return await route.handler(raw)  # type: ignore[no-any-return]
            except CorralError as error:
                return finished(write_error(error, request), raw.method)
        try:
            if raw.body_exists:
                body = await read_body(raw, route.most_bytes)
                check_numbers(body)
                request = _with_body(request, body)
            answer = await route.handler(request)
        except CorralError as error:
            return finished(route.errors(error, request), raw.method)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except HttpProcessingError as error:
            return finished(route.errors(Invalid(f"the request body is broken: {error.message}"), request), raw.method)
        except Exception:
            log.exception("request failed", method=raw.method, path=path)
            return finished(route.errors(CorralError("internal error; the log of this daemon has it"), request), "")
        if isinstance(answer, Stream):
            if raw.method == "HEAD":
                return finished(await _head_of(answer), raw.method)
            return await self._stream(raw, answer)
        return finished(answer, raw.method)

    def _turn_away(self, error: CorralError, request: Request, served: _Served | None) -> web.StreamResponse:
        """Nobody learns what is there before it is known who asks."""
        near = served.route if served is not None and isinstance(served.route, Route) else None
        near = near or self._router.error_writer(request.path)
        response = finished((near.errors if near is not None else write_error)(error, request), request.method)
        if isinstance(error, Unauthenticated) and self._gate is not None:
            response.headers["WWW-Authenticate"] = self._gate.challenge(request.path)
        return response

    def _unknown(self, request: Request, allowed: tuple[str, ...]) -> web.StreamResponse:
        near = self._router.error_writer(request.path)
        write = near.errors if near is not None else write_error
        if allowed:
            takes = ", ".join(allowed)
            error = WrongMethod(f"{request.path} takes {takes}, not {request.method}", allowed)
            response = finished(write(error, request), request.method)
            response.set_status(error.status)
            response.headers["Allow"] = takes
            return response
        return finished(write(NotFound(f"there is no {request.path} here"), request), request.method)

    async def _stream(self, raw: web.BaseRequest, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse(status=stream.status, headers=dict(stream.headers))
        response.content_type = stream.content_type
        response.enable_chunked_encoding()
        try:
            await response.prepare(raw)
            async with contextlib.aclosing(_until(stream.chunks, self._stopping)) as chunks:
                async for chunk in chunks:
                    async with asyncio.timeout(stream.patience_s):
                        await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            pass
        except TimeoutError:
            # Closing would wait for what the client does not take.
            if raw.transport is not None:
                raw.transport.abort()
        finally:
            if stream.close is not None:
                stream.close()
        return response


async def _invite_body(raw: web.BaseRequest) -> None:
    """Tell a client that asks before it sends a large body, as curl does, to go on."""
    if raw.headers.get("Expect", "").lower() == "100-continue" and raw.version >= (1, 1):
        await raw.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        raw.writer.output_size = 0  # it is no part of the answer


def _with_body(request: Request, body: bytes) -> Request:
    return msgspec.structs.replace(request, body=body)


def _knock(request: Request, raw: web.BaseRequest) -> Knock:
    transport = raw.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    own: tuple[Any, ...] = (transport.get_extra_info("sockname") if transport is not None else None) or ("",)
    return Knock(
        method=request.method,
        path=request.path,
        headers=request.headers,
        certificate=peer_of(tls),
        local=request.peer != "" and own[0] == request.peer,
        secure=tls is not None,
    )


def finished(answer: Response, method: str) -> web.Response:
    """A plain answer as the HTTP library has it."""
    response = web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))
    if answer.body or method == "HEAD":
        response.headers.setdefault("Content-Type", answer.content_type)
    return response


async def _head_of(stream: Stream) -> Response:
    """What a stream begins with, for those who ask for no more; the stream is let go."""
    close = getattr(stream.chunks, "aclose", None)
    if close is not None:
        await close()
    if stream.close is not None:
        stream.close()
    return Response(status=stream.status, content_type=stream.content_type, headers=stream.headers)


async def _until(chunks: AsyncIterator[bytes], stopping: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """The chunks until they end or the server stops."""
    stop = asyncio.ensure_future(stopping.wait())
    iterator = aiter(chunks)
    step: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(anext(iterator, None))
            await asyncio.wait((step, stop), return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                return
            chunk = step.result()
            if chunk is None:
                return
            yield chunk
    finally:
        stop.cancel()
        if step is not None and not step.done():
            # What makes the chunks must have let go before it can be closed.
            step.cancel()
            await asyncio.wait((step,))
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
