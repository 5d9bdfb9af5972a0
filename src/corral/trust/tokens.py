"""Makes, lists and revokes tokens, and forgets those that have long been over."""

import re

import msgspec

from corral.lib.errors import Invalid, NotFound
from corral.lib.units import format_duration, write_instant
from corral.model.ids import check_role
from corral.runtime.core import Effect, Note, Persist, Reply, SetTimer
from corral.trust.effects import Recheck
from corral.trust.spec import CreateToken, ListTokens, RevokeToken, TokenRecord
from corral.trust.state import TrustState

PRUNE_TIMER = "prune"
PRUNE_S = 3600.0
REMEMBERED_S = 7 * 86_400.0
"""So long a token is shown after it is over."""

MOST_TTL_S = 10 * 365 * 86_400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@/-]{0,63}")


def create_token(state: TrustState, ask: int, command: CreateToken, now: float) -> list[Effect]:
    """Errors: `Invalid` for a name, role or length of life that cannot be."""
    check_create(command)
    config = state.config
    ttl_s = command.ttl_s
    if ttl_s is None:
        ttl_s = config.join_ttl_s if command.joins else config.token_ttl_s
    record = TokenRecord(
        id=command.id, digest=command.digest, joins=command.joins, created_at=now, created_by=command.by,
        name=command.name, roles=command.roles, expires_at=now + ttl_s if ttl_s else None,
    )  # fmt: skip
    state.tokens[record.id] = record
    why = f"lives {format_duration(ttl_s)}" if ttl_s else "lives until it is revoked"
    facts = {"token": record.id, "for": record.name or "a node", "by": command.by}
    return [
        Persist(f"tokens/{record.id}", record),
        Note("token created", why, facts=facts),
        Reply(ask, view(record, now)),
    ]


def check_create(command: CreateToken) -> None:
    if command.joins == bool(command.name):
        raise Invalid("a token for a caller has a name, one for a node to join with has none")
    if command.name and not _NAME.fullmatch(command.name):
        raise Invalid(f"token name {command.name!r} is not taken; use up to 64 letters, digits and . @ / - of ASCII")
    if command.roles and command.joins:
        raise Invalid("a token for a node has no roles; leave --role out, or give the caller's --name")
    for role in command.roles:
        check_role(role)
    if command.ttl_s is not None and not 0 <= command.ttl_s <= MOST_TTL_S:
        raise Invalid(f"a token lives at most 10 years, not {command.ttl_s:g} s; give another --ttl")
    if command.joins and command.ttl_s == 0:
        raise Invalid("a token for a node has to expire; give --ttl, for example 1h")


def list_tokens(state: TrustState, ask: int, command: ListTokens, now: float) -> list[Effect]:
    found = sorted(state.tokens.values(), key=lambda token: (token.created_at, token.id))
    return [Reply(ask, [view(token, now) for token in found])]


def revoke_token(state: TrustState, ask: int, command: RevokeToken, now: float) -> list[Effect]:
    """Errors: `NotFound` when there is none of this id or name."""
    which = sorted(id for id, token in state.tokens.items() if command.which in (id, token.name))
    if not which:
        raise NotFound(f"there is no token {command.which!r}; `corral token ls` lists them")
    effects: list[Effect] = []
    for id in which:
        token = state.tokens.pop(id)
        facts = {"token": id, "for": token.name or "a node", "by": command.by}
        effects += [Persist(f"tokens/{id}", None), Note("token revoked", "an operator wants it so", facts=facts)]
    return [*effects, Recheck(), Reply(ask, which)]


def use_token(state: TrustState, token: TokenRecord, node: str, key: str, now: float) -> list[Effect]:
    """Spend a node's token, before anything is given for it."""
    used = msgspec.structs.replace(token, used_at=now, used_by=node, used_key=key)
    state.tokens[used.id] = used
    return [Persist(f"tokens/{used.id}", used)]


def prune(state: TrustState, now: float) -> list[Effect]:
    """Forget what has long been over."""
    effects: list[Effect] = [SetTimer(PRUNE_TIMER, PRUNE_S)]
    for id, token in sorted(state.tokens.items()):
        if token.expires_at is not None and token.expires_at + REMEMBERED_S <= now:
            del state.tokens[id]
            effects.append(Persist(f"tokens/{id}", None))
    return effects


def view(token: TokenRecord, now: float) -> dict[str, object]:
    """What everybody may see of a token; its secret is not even known."""
    state = "valid"
    if token.used_at is not None:
        state = "used"
    elif token.expires_at is not None and token.expires_at <= now:
        state = "expired"
    return {
        "id": token.id,
        "kind": "join" if token.joins else "caller",
        "name": token.name,
        "roles": list(token.roles),
        "state": state,
        "created": write_instant(token.created_at),
        "created_by": token.created_by,
        "expires": write_instant(token.expires_at) if token.expires_at is not None else None,
        "used": write_instant(token.used_at) if token.used_at is not None else None,
        "used_by": token.used_by,
    }
