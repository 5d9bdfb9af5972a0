"""What the cluster remembers of trust, and what it is asked.

Records lie below the prefix `trust/`: `tokens/ID` and `nodes/NAME`. Of a secret only its digest is kept. The authority
itself is `authority` beside the prefix (`trust/authority.py`), as every master needs it before one of them leads.
"""

import msgspec

from corral.runtime.core import Asked, Loaded, Tick


class TrustConfig(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `fingerprint` is the authority's; `reserved` are names and addresses that no agent gets into its
    certificate, because masters have them. Units: seconds."""

    fingerprint: str = ""
    reserved: tuple[str, ...] = ()
    certificate_ttl_s: float = 7_776_000.0
    join_ttl_s: float = 3600.0
    token_ttl_s: float = 2_592_000.0


class TokenRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `joins` tells a node's token, used once, from a caller's; `name` is the caller's principal. `used_by` is
    the node, `used_key` the fingerprint of the key with which it came. `expires_at` None is never."""

    id: str
    digest: str
    joins: bool
    created_at: float
    created_by: str = ""
    name: str = ""
    roles: tuple[str, ...] = ()
    expires_at: float | None = None
    used_at: float | None = None
    used_by: str = ""
    used_key: str = ""


class NodeRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A node that has joined. Shapes: `serial` and `expires_at` are of its latest certificate."""

    name: str
    joined_at: float
    token: str = ""
    serial: str = ""
    expires_at: float = 0.0
    address: str = ""
    revoked_at: float | None = None


# Commands.


class CreateToken(msgspec.Struct, frozen=True, gc=False, tag=True, kw_only=True):
    """Reply: the token's view. Units: `ttl_s` None is the default, 0 is never."""

    id: str
    digest: str
    name: str = ""
    roles: tuple[str, ...] = ()
    joins: bool = False
    ttl_s: float | None = None
    by: str = ""


class ListTokens(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Reply: views of all tokens, oldest first."""


class RevokeToken(msgspec.Struct, frozen=True, gc=False, tag=True, kw_only=True):
    """Reply: the ids that are of no more use. Shapes: `which` is an id, or the name of a caller: all of its tokens."""

    which: str
    by: str = ""


class Redeem(msgspec.Struct, frozen=True, gc=False, tag=True, kw_only=True):
    """A node joins. Reply: `Granted`. Shapes: `key` is the fingerprint of the key in `request`, a PEM."""

    id: str
    digest: str
    name: str
    names: tuple[str, ...]
    request: bytes
    key: str
    address: str = ""


class Renew(msgspec.Struct, frozen=True, gc=False, tag=True, kw_only=True):
    """A node whose certificate ends some time wants the next. Reply: `Granted`."""

    name: str
    names: tuple[str, ...]
    request: bytes
    address: str = ""


class ListNodes(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Reply: views of all nodes that have joined, by name."""


class RevokeNode(msgspec.Struct, frozen=True, gc=False, tag=True, kw_only=True):
    """Its certificates are refused from now on, until it joins again. Reply: None."""

    name: str
    by: str = ""


Command = CreateToken | ListTokens | RevokeToken | Redeem | Renew | ListNodes | RevokeNode


# What comes of effects.


class Issued(msgspec.Struct, frozen=True, gc=False, tag=True, kw_only=True):
    """Shapes: `why` says why there is no certificate."""

    ask: int
    name: str
    certificate: bytes = b""
    serial: str = ""
    expires_at: float = 0.0
    why: str = ""


class Granted(msgspec.Struct, frozen=True, gc=False):
    """What a node gets: its certificate as PEM."""

    certificate: bytes
    expires_at: float


Input = Asked[Command] | Issued | Loaded | Tick
