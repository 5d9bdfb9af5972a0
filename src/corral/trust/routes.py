"""The endpoints of trust: the authority for everybody, joining for who has a token, tokens and nodes for operators."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from corral.lib.clock import system_clock
from corral.lib.errors import Conflict, Forbidden, Invalid, Unavailable
from corral.lib.units import parse_duration_s
from corral.net.auth import Caller, CallerKind, Token, digest, read_token_text
from corral.net.certificates import Authority, fingerprint, read_request
from corral.net.follower import FORWARDED
from corral.net.routes import Request, Response, Route, json_response
from corral.runtime.loop import Loop
from corral.trust.rights import CA_PATH, CHECK_PATH, JOIN_PATH, NODES_PATH, RENEW_PATH, SELF_PATH, TOKENS_PATH
from corral.trust.spec import (
    CreateToken,
    Granted,
    ListNodes,
    ListTokens,
    Redeem,
    Renew,
    RevokeNode,
    RevokeToken,
)
from corral.trust.state import TrustState, find_caller

MOST_BYTES = 64 << 10


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shapes: `request` is a signing request as PEM, `names` what else the certificate shall hold for."""

    token: str
    name: str
    request: str
    names: tuple[str, ...] = ()


class RenewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request: str
    names: tuple[str, ...] = ()


class CheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shapes: without a `name` it is for a node to join with. `ttl` is a time such as `12h`, `0` or `never`."""

    name: str = ""
    roles: tuple[str, ...] = ()
    ttl: str | float | None = None


Masters = Callable[[], Awaitable[Sequence[str]]]
"""The URLs of all masters of the cluster."""


async def no_masters() -> Sequence[str]:
    return ()


def routes(loop: Loop, state: TrustState, authority: Authority, masters: Masters = no_masters) -> Sequence[Route]:
    """All endpoints over the loop of the keeper of trust, whose state `state` is."""
    doors = _Doors(loop, state, authority, masters)

    def route(method: str, path: str, handler: Any) -> Route:
        return Route(method=method, path=path, handler=handler, most_bytes=MOST_BYTES)

    return [
        route("GET", CA_PATH, doors.show_authority),
        route("POST", JOIN_PATH, doors.join),
        route("POST", RENEW_PATH, doors.renew),
        route("POST", CHECK_PATH, doors.check),
        route("GET", SELF_PATH, doors.show_self),
        route("GET", TOKENS_PATH, doors.list_tokens),
        route("POST", TOKENS_PATH, doors.create_token),
        route("DELETE", TOKENS_PATH + "/{which*}", doors.revoke_token),
        route("GET", NODES_PATH, doors.list_nodes),
        route("DELETE", NODES_PATH + "/{name}", doors.revoke_node),
    ]


def absent_routes() -> Sequence[Route]:
    """The same where the cluster has no TLS: whoever wants trust is told how to get it."""

    async def refuse(request: Request) -> Response:
        raise Conflict(
            "this master speaks plain HTTP and asks nobody who they are, so there are no tokens and no certificates; "
            "start it with --set trust.tls=on, or with --listen on an address beyond loopback"
        )

    return [Route(method="*", path="/corral/v1/trust/{rest*}", handler=refuse)]


class _Doors:
    __slots__ = ("_authority", "_loop", "_masters", "_state")

    def __init__(self, loop: Loop, state: TrustState, authority: Authority, masters: Masters) -> None:
        self._masters = masters
        self._loop = loop
        self._state = state
        self._authority = authority

    def _expect_loaded(self) -> None:
        if not self._loop.ready.is_set():
            raise Unavailable("the master is still reading its records; try again in a moment")

    async def show_authority(self, request: Request) -> Response:
        return Response(body=self._authority.pem, content_type="application/x-pem-file")

    async def join(self, request: Request) -> Response:
        self._expect_loaded()
        asked = _read(request, JoinRequest)
        token = read_token_text(asked.token)
        if not token.fingerprint:
            raise Forbidden("this token is of a caller; nodes join with one of `corral token create`")
        if token.fingerprint != self._authority.fingerprint:
            raise Forbidden("this token is of another cluster; make one with `corral token create` on this one")
        pem = asked.request.encode()
        granted: Granted = await self._loop.ask(
            Redeem(
                id=token.id, digest=digest(token.secret), name=asked.name, names=asked.names, request=pem,
                key=fingerprint(read_request(pem)), address=_address(request),
            )
        )  # fmt: skip
        return await self._write_granted(granted)

    async def renew(self, request: Request) -> Response:
        self._expect_loaded()
        if request.caller.kind is not CallerKind.AGENT:
            raise Forbidden("only nodes that have joined renew their certificate here")
        asked = _read(request, RenewRequest)
        pem = asked.request.encode()
        read_request(pem)
        command = Renew(name=request.caller.name, names=asked.names, request=pem, address=_address(request))
        return await self._write_granted(await self._loop.ask(command))

    async def _write_granted(self, granted: Granted) -> Response:
        try:
            masters = await self._masters()
        except Unavailable:
            masters = ()  # the certificate is made and must not be lost over this
        found = {"certificate": granted.certificate.decode(), "ca": self._authority.pem.decode()}
        return json_response({**found, "expires_at": granted.expires_at, "masters": list(masters)})

    async def check(self, request: Request) -> Response:
        self._expect_loaded()
        token = read_token_text(_read(request, CheckRequest).token)
        found = find_caller(self._state, token, digest(token.secret), system_clock())
        return json_response(found)

    async def show_self(self, request: Request) -> Response:
        caller = request.caller
        return json_response({"kind": caller.kind, "name": caller.name, "roles": list(caller.roles)})

    async def list_tokens(self, request: Request) -> Response:
        return json_response({"tokens": await self._loop.ask(ListTokens())})

    async def create_token(self, request: Request) -> Response:
        asked = _read(request, TokenRequest)
        secret = secrets.token_hex(20)
        token = Token(secrets.token_hex(4), secret, "" if asked.name else self._authority.fingerprint)
        command = CreateToken(
            id=token.id, digest=digest(secret), name=asked.name, roles=asked.roles, joins=not asked.name,
            ttl_s=_read_ttl(asked.ttl), by=_name(request.caller),
        )  # fmt: skip
        view = await self._loop.ask(command)
        # The one moment at which the secret is seen.
        return json_response({**view, "token": token.text}, status=201)

    async def revoke_token(self, request: Request) -> Response:
        command = RevokeToken(which=request.params["which"], by=_name(request.caller))
        return json_response({"revoked": await self._loop.ask(command)})

    async def list_nodes(self, request: Request) -> Response:
        return json_response({"nodes": await self._loop.ask(ListNodes())})

    async def revoke_node(self, request: Request) -> Response:
        await self._loop.ask(RevokeNode(name=request.params["name"], by=_name(request.caller)))
        return Response(status=204)


def _read(request: Request, kind: Any) -> Any:
    try:
        return msgspec.json.decode(request.body or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise Invalid(f"the body is not what {request.path} takes: {error}") from None


def _read_ttl(given: str | float | None) -> float | None:
    """Units: seconds; None is the default, 0 is never."""
    if given is None or given == "":
        return None
    if isinstance(given, str):
        return 0.0 if given in ("never", "0") else parse_duration_s(given)
    return float(given)


def _address(request: Request) -> str:
    """Where the node calls from; empty when a follower has passed its call on, which says nothing that is proven."""
    return "" if FORWARDED.lower() in request.headers else request.peer


def _name(caller: Caller) -> str:
    return caller.name or caller.kind
