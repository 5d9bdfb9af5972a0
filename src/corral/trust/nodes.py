"""Takes nodes in against a token, gives them their next certificate in time, and refuses those that were revoked.

A token is spent before a certificate is signed. If the answer is lost, the same node may ask again with the same key
until the token expires; nobody else can.
"""

import msgspec

from corral.lib.errors import Failed, Forbidden, Invalid, NotFound
from corral.lib.units import write_instant
from corral.runtime.core import Effect, Note, Persist, Refuse, Reply
from corral.trust.effects import Issue, Recheck
from corral.trust.spec import Granted, Issued, ListNodes, NodeRecord, Redeem, Renew, RevokeNode
from corral.trust.state import AGAIN, TrustState, find_node, find_token
from corral.trust.tokens import use_token

MOST_NAMES = 32


def redeem(state: TrustState, ask: int, command: Redeem, now: float) -> list[Effect]:
    """Errors: `Unauthenticated` for a token that is not known or over, `Forbidden` for one that is used."""
    token = find_token(state.tokens, command.id, command.digest, now)
    if not token.joins:
        raise Forbidden(f"token {token.id} is of caller {token.name}; nodes join with one of their own, {AGAIN}")
    if token.used_at is not None and token.used_key != command.key:
        raise Forbidden(f"token {token.id} was used by {token.used_by} at {write_instant(token.used_at)}; {AGAIN}")
    names = choose_names(state, command.name, command.names, command.address)
    node = NodeRecord(name=command.name, joined_at=now, token=token.id, address=command.address)
    state.nodes[node.name] = node
    return [
        *use_token(state, token, node.name, command.key, now),
        Persist(f"nodes/{node.name}", node),
        Note("node joined", f"with token {token.id}", facts={"agent": node.name, "address": command.address}),
        Issue(ask, node.name, names, command.request, state.config.certificate_ttl_s, now),
    ]


def renew(state: TrustState, ask: int, command: Renew, now: float) -> list[Effect]:
    """Errors: `Forbidden` when the node was revoked."""
    find_node(state, command.name)
    names = choose_names(state, command.name, command.names, command.address)
    return [Issue(ask, command.name, names, command.request, state.config.certificate_ttl_s, now)]


def choose_names(state: TrustState, name: str, names: tuple[str, ...], address: str) -> tuple[str, ...]:
    """What its certificate may say: what the node asks for and where it calls from, but nothing of the masters'.

    Errors: `Invalid` when the node has no usable name.
    """
    if not name or len(name) > 64 or not name.isascii() or not name.isprintable():
        raise Invalid(f"node name {name[:80]!r} is not taken; give one of up to 64 ASCII characters with --name")
    asked = dict.fromkeys((name, *names[:MOST_NAMES], address))
    return tuple(each for each in asked if each and not is_reserved(state, each))


def is_reserved(state: TrustState, name: str) -> bool:
    return name in state.config.reserved or name.lower().rstrip(".").endswith(".corral.internal")


def record_issued(state: TrustState, input: Issued, now: float) -> list[Effect]:
    """Remember the certificate, then hand it over."""
    if input.why:
        return [Refuse(input.ask, Failed(input.why))]
    node = state.nodes.get(input.name) or NodeRecord(name=input.name, joined_at=now)
    node = msgspec.structs.replace(node, serial=input.serial, expires_at=input.expires_at)
    state.nodes[node.name] = node
    why = f"it holds until {write_instant(input.expires_at)}"
    return [
        Persist(f"nodes/{node.name}", node),
        Note("certificate issued", why, facts={"agent": node.name, "serial": input.serial}),
        Reply(input.ask, Granted(input.certificate, input.expires_at)),
    ]


def list_nodes(state: TrustState, ask: int, command: ListNodes, now: float) -> list[Effect]:
    return [Reply(ask, [_view(node, now) for _, node in sorted(state.nodes.items())])]


def revoke_node(state: TrustState, ask: int, command: RevokeNode, now: float) -> list[Effect]:
    """Errors: `NotFound` when no node of this name has joined."""
    node = state.nodes.get(command.name)
    if node is None:
        raise NotFound(f"no node {command.name!r} has joined; `corral ca nodes` lists them")
    state.nodes[node.name] = msgspec.structs.replace(node, revoked_at=now)
    facts = {"agent": node.name, "by": command.by}
    return [
        Persist(f"nodes/{node.name}", state.nodes[node.name]),
        Note("node revoked", "an operator wants it so", "warning", facts),
        Recheck(),
        Reply(ask, None),
    ]


def _view(node: NodeRecord, now: float) -> dict[str, object]:
    state = "expired" if node.expires_at <= now else "valid"
    return {
        "name": node.name,
        "state": "revoked" if node.revoked_at is not None else state,
        "address": node.address,
        "joined": write_instant(node.joined_at),
        "token": node.token,
        "serial": node.serial,
        "expires": write_instant(node.expires_at),
    }
