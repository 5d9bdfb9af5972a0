"""What each kind of caller may ask for. Pure.

Agents get what a link needs and nothing of operators; tokens everything but the agents' links; tokens with roles
nothing that makes or revokes trust, nor what renews processes.
"""

from corral.lib.errors import Forbidden
from corral.net.auth import ABDICATION, OF_CERTIFICATES, OPEN_PATHS, RENEW_PROCESS_PATH, Caller, CallerKind
from corral.net.stream import ORDERS_PATH, REPORTS_PATH, SECRETS_PATH

PREFIX = "/corral/v1/trust"
CA_PATH, JOIN_PATH = f"{PREFIX}/ca", f"{PREFIX}/join"
RENEW_PATH, CHECK_PATH = OF_CERTIFICATES
SELF_PATH = f"{PREFIX}/self"
TOKENS_PATH, NODES_PATH = f"{PREFIX}/tokens", f"{PREFIX}/nodes"

METRICS_PATHS = frozenset({"/metrics", "/metrics/prometheus"})
"""What may be open to everybody where `trust.open_metrics` says so."""

OF_APPS = ("/corral/v1/usage/", "/corral/v1/scaling/")
ASKED_BY_APPS = ("expand", "shrink", "metrics")
"""What an app may ask for of itself: what it uses, its rules, more and fewer instances; not to change its rules."""

OF_AGENTS = frozenset({ORDERS_PATH, REPORTS_PATH, SECRETS_PATH, RENEW_PATH, CHECK_PATH})
"""What needs the certificate of a node."""

READ_BY_AGENTS = frozenset(
    {SELF_PATH, "/redirect", "/master/redirect", "/corral/v1/registry", "/corral/v1/registry/watch"}
)
"""What nodes may ask beside that: who leads, and for their DNS what is ready where."""

FOR_ALL = frozenset({CA_PATH, JOIN_PATH})
"""What somebody needs who is not yet known; a token is in the body where one is needed."""


def is_of_app(method: str, path: str) -> bool:
    """Whether a task asks for this with its app's own token, which the services framework looks at itself."""
    path = path.rstrip("/")
    if method == "GET":
        return path.startswith(OF_APPS)
    return method == "POST" and path.startswith(OF_APPS[1]) and path.rpartition("/")[2] in ASKED_BY_APPS


def is_open(path: str, *, open_metrics: bool = False) -> bool:
    """Whether nobody is asked who they are."""
    path = path.rstrip("/") or "/"
    return path in OPEN_PATHS or path in FOR_ALL or (open_metrics and path in METRICS_PATHS)


def check_right(caller: Caller, path: str, method: str = "GET") -> None:
    """Errors: `Forbidden` names the caller and what it would take."""
    path = path.rstrip("/") or "/"
    match caller.kind:
        case CallerKind.AGENT if path not in OF_AGENTS | READ_BY_AGENTS:
            raise Forbidden(f"node {caller.name} may not ask for {path}; set CORRAL_TOKEN to a caller's token")
        case CallerKind.TOKEN if path in OF_AGENTS:
            raise Forbidden(f"{path} is for nodes that have joined; {caller.name} has shown no node's certificate")
        case CallerKind.TOKEN if caller.roles and path.startswith((TOKENS_PATH, NODES_PATH)):
            raise Forbidden(
                f"{caller.name} is bound to {', '.join(caller.roles)} and may not change who is trusted; "
                f"take a token without roles"
            )
        case CallerKind.TOKEN if caller.roles and (path == RENEW_PROCESS_PATH or (method, path) == ABDICATION):
            raise Forbidden(
                f"{caller.name} is bound to {', '.join(caller.roles)} and may not renew processes; "
                f"take a token without roles"
            )
        case CallerKind.EXECUTOR:
            raise Forbidden(f"executor {caller.name} may only use the executor API")
