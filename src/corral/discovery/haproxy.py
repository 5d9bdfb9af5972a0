"""Renders HAProxy's configuration from services and slots.

Before the lines of an app stands a comment that names it, by which an error of HAProxy's check is brought home to the
app it comes from. Pieces may be replaced by an app's labels or for all apps by files, in the form of marathon-lb: names
in braces stand for values. Source: Marathon's contract, section 20; HAProxy configuration manual 2.6.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from string import Formatter

import msgspec

from corral.discovery.services import Mode, Service
from corral.discovery.slots import Slot, Slots, slot_name
from corral.lib.errors import Invalid


class TemplateError(Invalid):
    """A piece that cannot be filled in. Shapes: `app` is whose it is."""

    def __init__(self, app: str, message: str) -> None:
        super().__init__(message)
        self.app = app


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `http` and `https` are what is listened on for virtual hosts, `https` with its certificates; `socket` is
    the path of the runtime API, `stats` an address or empty; `templates` replace the pieces of the same name."""

    socket: str
    http: str = "*:80"
    https: str = ""
    certificates: tuple[str, ...] = ()
    stats: str = ""
    most_connections: int = 10_000
    threads: int = 0
    hard_stop_s: int = 600
    client_timeout_s: int = 50
    server_timeout_s: int = 50
    connect_timeout_s: int = 3
    templates: dict[str, str] = {}


HEAD = """\
# Written by corral lb; what is changed here is overwritten.
global
  log stderr format raw local0 warning
  maxconn {mostConnections}
  stats socket {socket} mode 600 level admin expose-fd listeners
  stats timeout 2m
  hard-stop-after {hardStop}s
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
{threads}
defaults
  log global
  option dontlognull
  option redispatch
  option idle-close-on-response
  retries 3
  maxconn {mostConnections}
  timeout connect {connectTimeout}s
  timeout client {clientTimeout}s
  timeout server {serverTimeout}s
  timeout tunnel 1h
  timeout http-request 30s
"""

PIECES = {
    "FRONTEND_HEAD": """
frontend {backend}
  bind {bindAddr}:{servicePort}{sslCert}{bindOptions}
  mode {mode}
""",
    "FRONTEND_BACKEND_GLUE": """\
  use_backend {backend}
""",
    "BACKEND_HEAD": """
backend {backend}
  balance {balance}
  mode {mode}
""",
    "BACKEND_HTTP_OPTIONS": """\
  option forwardfor
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  retry-on conn-failure
""",
    "BACKEND_STICKY_OPTIONS": """\
  cookie corral_{backend} insert indirect nocache httponly
""",
    "BACKEND_HSTS_OPTIONS": """\
  http-response set-header Strict-Transport-Security max-age=15768000
""",
    "BACKEND_REDIRECT_HTTP_TO_HTTPS": """\
  http-request redirect scheme https code 301 if host_{backend}
""",
    "BACKEND_REDIRECT_HTTP_TO_HTTPS_WITH_PATH": """\
  http-request redirect scheme https code 301 if host_{backend} path_{backend}
""",
    "BACKEND_HTTP_HEALTHCHECK_OPTIONS": """\
  option httpchk GET {healthCheckPath}
""",
    "BACKEND_TCP_HEALTHCHECK_OPTIONS": "",
    "BACKEND_SERVER_OPTIONS": """\
  server {serverName} {host}:{port} weight {weight}{cookieOptions}{healthCheckOptions}{otherOptions}
""",
    "HTTP_FRONTEND_ACL": """\
  acl host_{backend} {hostMatch}
  use_backend {backend} if host_{backend}
""",
    "HTTP_FRONTEND_ACL_WITH_PATH": """\
  acl host_{backend} {hostMatch}
  acl path_{backend} path_beg {path}
  use_backend {backend} if host_{backend} path_{backend}
""",
    "HTTPS_FRONTEND_ACL": """\
  acl host_{backend} {hostMatch}
  use_backend {backend} if host_{backend}
""",
    "HTTPS_FRONTEND_ACL_WITH_PATH": """\
  acl host_{backend} {hostMatch}
  acl path_{backend} path_beg {path}
  use_backend {backend} if host_{backend} path_{backend}
""",
    "HTTP_BACKEND_PROXYPASS_GLUE": """\
  http-request set-path "%[path,regsub(^{proxypath}/?,/)]"
""",
    "HTTP_BACKEND_REVPROXY_GLUE": """\
  http-response replace-header Location "^(https?://[^/]+)?(/.*)$" "\\1{rootPath}\\2"
""",
    "HTTP_BACKEND_REDIR_GLUE": """\
  http-request redirect location {redirpath} code 301 if {{ path / }}
""",
    "HTTP_BACKEND_NETWORK_ALLOWED_ACL": """\
  http-request deny unless {{ src {network_allowed} }}
""",
    "TCP_BACKEND_NETWORK_ALLOWED_ACL": """\
  tcp-request content reject unless {{ src {network_allowed} }}
""",
}

MARK = "  # app "


def render(services: Sequence[Service], slots: Slots, settings: Settings) -> str:
    """The whole configuration. Errors: `TemplateError` names the app whose piece cannot be filled in."""
    parts = [_head(settings), *_userlists(services)]
    vhosts = sorted((s for s in services if s.hosts and s.mode is Mode.HTTP), key=_order)
    parts += _entry("corral_http_in", f"bind {settings.http}", vhosts, settings, secure=False)
    if settings.https:
        crt = "".join(f" crt {each}" for each in settings.certificates)
        parts += _entry(
            "corral_https_in", f"bind {settings.https} ssl{crt} alpn h2,http/1.1", vhosts, settings, secure=True
        )
    if settings.stats:
        parts.append(
            f"\nlisten stats\n  bind {settings.stats}\n  mode http\n  stats enable\n  stats uri /haproxy?stats\n"
            "  monitor-uri /_haproxy_health_check\n"
        )
    for service in services:
        parts += _frontend(service, settings)
        parts += _backend(service, slots[service.name], settings)
    return "".join(parts)


def _head(settings: Settings) -> str:
    return HEAD.format(
        mostConnections=settings.most_connections,
        socket=settings.socket,
        hardStop=settings.hard_stop_s,
        threads=f"  nbthread {settings.threads}\n" if settings.threads else "",
        connectTimeout=settings.connect_timeout_s,
        clientTimeout=settings.client_timeout_s,
        serverTimeout=settings.server_timeout_s,
    )


def _userlists(services: Sequence[Service]) -> Iterator[str]:
    for service in services:
        if service.auth is not None:
            yield f"\nuserlist user_{service.name}\n{MARK}{service.app}\n"
            yield f"  user {service.auth.user} password {service.auth.password}\n"


def _order(service: Service) -> tuple[int, int, bool, str]:
    """Which virtual host is tried first: as its app says, then the longer path, then the exact name."""
    return -service.priority, -len(service.path), any(h.startswith("*.") for h in service.hosts), service.name


def _entry(name: str, bind: str, vhosts: Sequence[Service], settings: Settings, *, secure: bool) -> Iterator[str]:
    yield f"\nfrontend {name}\n  {bind}\n  mode http\n"
    redirected = [s for s in vhosts if s.redirect_to_https] if not secure else []
    scheme = "HTTPS" if secure else "HTTP"
    for service in [*redirected, *(s for s in vhosts if s not in redirected)]:
        yield f"{MARK}{service.app}\n"
        with_path = "_WITH_PATH" if service.path else ""
        piece = _piece(service, f"{scheme}_FRONTEND_ACL{with_path}", settings)
        if service in redirected:
            # The rule stands before those of use_backend, and after what it names.
            names = "".join(line for line in piece.splitlines(keepends=True) if "use_backend" not in line)
            yield names + _piece(service, f"BACKEND_REDIRECT_HTTP_TO_HTTPS{with_path}", settings)
            continue
        yield piece


def _frontend(service: Service, settings: Settings) -> Iterator[str]:
    yield _marked(_piece(service, "FRONTEND_HEAD", settings), service)
    yield _piece(service, "FRONTEND_BACKEND_GLUE", settings)


def _backend(service: Service, slots: Sequence[Slot], settings: Settings) -> Iterator[str]:
    yield _marked(_piece(service, "BACKEND_HEAD", settings), service)
    http = service.mode is Mode.HTTP
    if service.networks:
        yield _piece(service, f"{'HTTP' if http else 'TCP'}_BACKEND_NETWORK_ALLOWED_ACL", settings)
    if http:
        if service.auth is not None:
            yield f'  http-request auth realm "{service.auth.realm}" unless {{ http_auth(user_{service.name}) }}\n'
        yield _piece(service, "BACKEND_HTTP_OPTIONS", settings)
        for wanted, name in (
            (service.redirect, "HTTP_BACKEND_REDIR_GLUE"),
            (service.proxypass, "HTTP_BACKEND_PROXYPASS_GLUE"),
            (service.revproxy, "HTTP_BACKEND_REVPROXY_GLUE"),
            (service.sticky, "BACKEND_STICKY_OPTIONS"),
            (service.hsts, "BACKEND_HSTS_OPTIONS"),
        ):
            if wanted:
                yield _piece(service, name, settings)
    elif service.sticky:
        yield "  stick-table type ip size 100k expire 30m\n  stick on src\n"
    if service.check is not None:
        yield _piece(service, f"BACKEND_{'HTTP' if service.check else 'TCP'}_HEALTHCHECK_OPTIONS", settings)
    for index, slot in enumerate(slots):
        yield _piece(service, "BACKEND_SERVER_OPTIONS", settings, **_server_values(service, index, slot))


def _marked(piece: str, service: Service) -> str:
    """The comment goes below the line that opens the section."""
    opening = re.search(r"^(frontend|backend|listen) .*$", piece, re.MULTILINE)
    at = opening.end() + 1 if opening is not None else 0
    return f"{piece[:at]}{MARK}{service.app}\n{piece[at:]}"


def _server_values(service: Service, index: int, slot: Slot) -> dict[str, str]:
    name = slot_name(index)
    check = "" if service.check is None else " check inter 2s fall 3 rise 1"
    return {
        "serverName": name,
        "host": f"[{slot.address}]" if ":" in slot.address else slot.address,
        "host_ipv4": slot.address,
        "port": str(slot.port),
        "weight": str(slot.weight),
        "cookieOptions": f" cookie {name}" if service.sticky and service.mode is Mode.HTTP else "",
        "healthCheckOptions": check,
        "otherOptions": "" if slot.up else " disabled",
    }


def _piece(service: Service, name: str, settings: Settings, **more: str) -> str:
    text = service.templates.get(name) or settings.templates.get(name) or PIECES[name]
    exact = [h for h in service.hosts if not h.startswith("*.")]
    endings = [h[1:] for h in service.hosts if h.startswith("*.")]
    values = {
        "backend": service.name,
        "bindAddr": service.bind,
        "servicePort": str(service.port),
        "bindOptions": f" {service.bind_options}" if service.bind_options else "",
        "sslCert": f" ssl crt {service.certificate}" if service.certificate else "",
        "mode": str(service.mode),
        "balance": service.balance,
        "hostname": service.hosts[0] if service.hosts else "",
        "cleanedUpHostname": re.sub(r"[^A-Za-z0-9]", "_", service.hosts[0]) if service.hosts else "",
        "hostMatch": _match(exact, endings, service.name),
        "path": service.path,
        "healthCheckPath": service.check or "/",
        "proxypath": service.proxypass.rstrip("/"),
        "rootPath": service.revproxy.rstrip("/"),
        "redirpath": service.redirect,
        "network_allowed": " ".join(service.networks),
        **more,
    }
    return fill(text, values, name, service.app)


def _match(exact: Sequence[str], endings: Sequence[str], name: str) -> str:
    """Names are compared without their port; several lines of one name count as one or the other."""
    parts = []
    if exact:
        parts.append(f"req.hdr(host),field(1,:) -i {' '.join(exact)}")
    if endings:
        parts.append(f"req.hdr(host),field(1,:) -i -m end {' '.join(endings)}")
    return f"\n  acl host_{name} ".join(parts)


def fill(text: str, values: Mapping[str, str], name: str, app: str) -> str:
    """A piece with its values. Errors: `TemplateError` for an unknown name in braces, or braces that do not match."""
    out = []
    try:
        for literal, field, spec, conversion in Formatter().parse(text):
            out.append(literal)
            if field is None:
                continue
            if spec or conversion or field not in values:
                raise TemplateError(app, f"template {name} names {{{field}}}; known are {', '.join(sorted(values))}")
            out.append(values[field])
    except ValueError as error:
        raise TemplateError(app, f"template {name}: {error}; write {{{{ and }}}} for braces") from None
    made = "".join(out)
    return made if made.endswith("\n") or not made else made + "\n"


def blame(config: str, said: str) -> dict[str, str]:
    """Which apps the errors of HAProxy's check come from, each with its errors. Shapes: `said` is what the check wrote.

    Errors in lines of no app are under the empty name.
    """
    lines = config.splitlines()
    found: dict[str, list[str]] = {}
    for match in re.finditer(r"\[ALERT\][^\n]*? : (?:parsing )?\[?[^\n\]:]*:(\d+)\]?[ :]+([^\n]*)", said):
        number = min(int(match[1]), len(lines))
        found.setdefault(_app_at(lines, number), []).append(" ".join(match[2].split()))
    return {app: "; ".join(errors) for app, errors in found.items()}


def _app_at(lines: Sequence[str], number: int) -> str:
    for line in reversed(lines[:number]):
        if line.startswith(MARK):
            return line.removeprefix(MARK)
        if line and not line.startswith(" "):
            break  # the head of a section; one that belongs to an app is followed by its name
    return next((line.removeprefix(MARK) for line in lines[number : number + 1] if line.startswith(MARK)), "")
