"""Who is asking: what a request says of its caller, and what a server asks of a gate before any route is looked at.

Pure. A caller is known by the certificate of its connection or by a token: `Authorization: Bearer TOKEN`, or
`token=TOKEN` as clients of DC/OS send it, or as the password of `Authorization: Basic`, whatever the user's name, as
clients of Mesos and Marathon do.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from corral.lib.errors import Invalid

OPEN_PATHS = frozenset(
    {"/health/live", "/health/ready", "/health/leader", "/health", "/master/health", "/slave(1)/health"}
)
"""What says nothing but that the process is there is said to everybody."""


RENEW_PROCESS_PATH = "/corral/v1/process/renew"
ABDICATION = ("DELETE", "/v2/leader")
"""What renews the leader's process too."""
"""Has a daemon end and become what is installed."""


OF_CERTIFICATES = ("/corral/v1/trust/renew", "/corral/v1/trust/check")
"""What a node's certificate alone opens: nobody can pass such a request on."""


OF_AN_APP = "scaling-"
"""How the token of a task begins with which its app asks for more or fewer instances of itself. The framework that has
made it knows whose it is; nobody else does.
"""


class CallerKind(StrEnum):
    ANYBODY = "anybody"
    """Nobody was asked: the endpoint is on loopback, or insecure on purpose, or the path is open."""
    MASTER = "master"
    AGENT = "agent"
    TOKEN = "token"  # noqa: S105
    EXECUTOR = "executor"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `name` is the principal; no `roles` means all of them; `claims` of an executor are fid, eid and cid."""

    kind: CallerKind = CallerKind.ANYBODY
    name: str = ""
    roles: tuple[str, ...] = ()
    claims: Mapping[str, str] = {}


ANYBODY = Caller()


class Knock(msgspec.Struct, frozen=True, kw_only=True):
    """A request before it is let in. Shapes: `certificate` is the kind and name of the connection's peer."""

    method: str
    path: str
    headers: Mapping[str, str]
    certificate: tuple[str, str] | None = None
    local: bool = False
    secure: bool = True


class Gate(Protocol):
    async def admit(self, knock: Knock) -> Caller:
        """Who this is.

        Errors: `Unauthenticated` when nobody says so or what is said is wrong; `Forbidden` for those who may not;
        `Unavailable` when it cannot be found out now.
        """

    def challenge(self, path: str) -> str:
        """The `WWW-Authenticate` of a 401 there."""


def read_token(headers: Mapping[str, str]) -> str | None:
    """The token that a request carries; None when it has no credentials. Shapes: header names in lower case.

    Errors: `Invalid` when there are credentials of another form.
    """
    given = headers.get("authorization", "").strip()
    if not given:
        return None
    scheme, _, rest = given.partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                text = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                raise Invalid("the Basic credentials are not base64 of NAME:TOKEN") from None
            return text.partition(":")[2].strip()
        case _ if given.lower().startswith("token="):
            return given[len("token=") :].strip()
        case _:
            kind = scheme.partition("=")[0]
            raise Invalid(f"credentials of kind {kind} are not known; send Authorization: Bearer TOKEN")


def read_app_token(headers: Mapping[str, str]) -> str | None:
    """The token of an app that a request carries as bearer; other bearers are for those who guard a whole door.

    Rule: the gate that lets such a request in and the framework that looks at the token both read it here.
    """
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    token = rest.strip()
    return token if scheme.lower() == "bearer" and token.startswith(OF_AN_APP) else None


def digest(secret: str) -> str:
    """What is kept of a secret. Secrets are 160 random bits, so that one pass of a hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


API_PREFIX, JOIN_PREFIX = "corral", "join"


class Token(msgspec.Struct, frozen=True):
    """A token in its parts. Shapes: `fingerprint` is that of the cluster's authority, in tokens to join with."""

    id: str
    secret: str
    fingerprint: str = ""

    @property
    def text(self) -> str:
        if self.fingerprint:
            return f"{JOIN_PREFIX}_{self.id}_{self.secret}_{self.fingerprint}"
        return f"{API_PREFIX}_{self.id}_{self.secret}"


def read_token_text(text: str) -> Token:
    """Errors: `Invalid` shows the form, not what was found, which may be a secret."""
    parts = text.strip().split("_")
    if not all(part.isalnum() and part.isascii() for part in parts):
        parts = []
    match parts:
        case ["corral", id, secret]:
            return Token(id, secret)
        case ["join", id, secret, fingerprint]:
            return Token(id, secret, fingerprint)
    raise Invalid("this is no token of corral; they look like corral_ID_SECRET, and join_ID_SECRET_CLUSTER for nodes")
