"""The tokens and nodes of a cluster, and what is looked up in them for every request."""

import hmac
from collections.abc import Mapping

from corral.lib.errors import Forbidden, Unauthenticated
from corral.lib.units import write_instant
from corral.net.auth import Caller, CallerKind, Token
from corral.trust.spec import NodeRecord, TokenRecord, TrustConfig

AGAIN = "make another with `corral token create`"


class TrustState:
    """Shapes: `tokens` by id, `nodes` by name."""

    __slots__ = ("config", "nodes", "tokens")

    def __init__(self, config: TrustConfig) -> None:
        self.config = config
        self.tokens: dict[str, TokenRecord] = {}
        self.nodes: dict[str, NodeRecord] = {}

    def invariants(self) -> None:
        for id, token in self.tokens.items():
            assert token.id == id
            assert len(token.digest) == 64, "a digest, never a secret"
            assert token.joins != bool(token.name), "callers have names, join tokens none"
            assert (token.used_at is None) == (not token.used_by)
        for name, node in self.nodes.items():
            assert node.name == name


def find_token(tokens: Mapping[str, TokenRecord], id: str, digest: str, now: float) -> TokenRecord:
    """The token of this id and secret, if it still holds.

    Errors: `Unauthenticated` says what is wrong with it.
    """
    found = tokens.get(id)
    if found is None or not hmac.compare_digest(found.digest, digest):
        raise Unauthenticated(f"token {id} is not known here: it was revoked, or is of another cluster; {AGAIN}")
    if found.expires_at is not None and found.expires_at <= now:
        raise Unauthenticated(f"token {id} has expired at {write_instant(found.expires_at)}; {AGAIN}")
    return found


def find_caller(state: TrustState, token: Token, digest: str, now: float) -> Caller:
    """Who calls with this token.

    Errors: `Unauthenticated` when it is wrong, over or not of a caller.
    """
    if token.fingerprint:
        raise Unauthenticated("this token is for a node to join with; make one for callers with --name")
    found = find_token(state.tokens, token.id, digest, now)
    if found.joins:
        raise Unauthenticated(f"token {token.id} is for a node to join with; make one for callers with --name")
    return Caller(kind=CallerKind.TOKEN, name=found.name, roles=found.roles)


def find_node(state: TrustState, name: str) -> Caller:
    """The agent that has shown a certificate of this name.

    Errors: `Forbidden` when it was revoked.
    """
    found = state.nodes.get(name)
    if found is not None and found.revoked_at is not None:
        raise Forbidden(
            f"node {name} was revoked at {write_instant(found.revoked_at)}; to take it back, make a token with"
            " `corral token create` and let it join again"
        )
    return Caller(kind=CallerKind.AGENT, name=name)
