"""What a balancer serves: each app's ports with its labels, in marathon-lb's vocabulary, as services with servers.

A label that makes no sense costs its app its place, with the reason, and no other app anything.
Source: Marathon's contract, section 20.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from ipaddress import ip_address, ip_network

import msgspec

from corral.discovery.registry import App, Instance, Registry
from corral.lib.errors import Invalid

TEMPLATES = (
    "FRONTEND_HEAD", "FRONTEND_BACKEND_GLUE", "BACKEND_HEAD", "BACKEND_HTTP_OPTIONS", "BACKEND_STICKY_OPTIONS",
    "BACKEND_HSTS_OPTIONS", "BACKEND_REDIRECT_HTTP_TO_HTTPS", "BACKEND_REDIRECT_HTTP_TO_HTTPS_WITH_PATH",
    "BACKEND_HTTP_HEALTHCHECK_OPTIONS", "BACKEND_TCP_HEALTHCHECK_OPTIONS", "BACKEND_SERVER_OPTIONS",
    "HTTP_FRONTEND_ACL", "HTTP_FRONTEND_ACL_WITH_PATH", "HTTPS_FRONTEND_ACL", "HTTPS_FRONTEND_ACL_WITH_PATH",
    "HTTP_BACKEND_PROXYPASS_GLUE", "HTTP_BACKEND_REVPROXY_GLUE", "HTTP_BACKEND_REDIR_GLUE",
    "HTTP_BACKEND_NETWORK_ALLOWED_ACL", "TCP_BACKEND_NETWORK_ALLOWED_ACL",
)  # fmt: skip
"""Pieces of the configuration that an app may bring its own form of, by the label HAPROXY_n_NAME."""

_KNOWN = {
    "GROUP", "ENABLED", "VHOST", "PATH", "PORT", "MODE", "BALANCE", "STICKY", "REDIRECT_TO_HTTPS", "USE_HSTS",
    "SSL_CERT", "BIND_ADDR", "BIND_OPTIONS", "AUTH", "BACKEND_WEIGHT", "BACKEND_HEALTHCHECK_PORT_INDEX",
    "BACKEND_NETWORK_ALLOWED_ACL", "HTTP_BACKEND_PROXYPASS_PATH", "HTTP_BACKEND_REVPROXY_PATH", "HTTP_BACKEND_REDIR",
    *TEMPLATES,
}  # fmt: skip
DEPLOYMENT = {
    "HAPROXY_DEPLOYMENT_GROUP", "HAPROXY_DEPLOYMENT_ALT_PORT", "HAPROXY_DEPLOYMENT_COLOUR",
    "HAPROXY_DEPLOYMENT_STARTED_AT", "HAPROXY_DEPLOYMENT_TARGET_INSTANCES", "HAPROXY_DEPLOYMENT_NEW_INSTANCES",
}  # fmt: skip

_LABEL = re.compile(r"HAPROXY_(\d{1,3})_([A-Z_]+)")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_PATH = re.compile(r"/[^\s\"'\\#%\x00-\x1f]*")
_WORD = re.compile(r"[^\s\"'\\#\x00-\x1f]+")
_BALANCES = re.compile(
    r"(roundrobin|static-rr|leastconn|first|source|random(\(\d+\))?|uri( [a-z0-9 -]+)?|hdr\([A-Za-z0-9-]+\)"
    r"|url_param [\w-]+( check_post)?|rdp-cookie(\(\w+\))?)"
)


class Mode(StrEnum):
    TCP = "tcp"
    HTTP = "http"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One instance at one of its ports. Shapes: `up` when it shall get traffic; `leaving` when it is to end."""

    instance: str
    app: str
    address: str
    port: int
    weight: int
    up: bool
    leaving: bool = False


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    realm: str
    user: str
    password: str


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One port of an app as clients reach it. Shapes: `name` is that of its frontend and backend; `hosts` may begin
    with `*.`; `check` is None, or the path to ask for, empty for a bare connection; `apps` are all that it serves."""

    name: str
    app: str
    apps: tuple[str, ...]
    index: int
    bind: str
    port: int
    bind_options: str = ""
    mode: Mode = Mode.TCP
    balance: str = "roundrobin"
    sticky: bool = False
    hosts: tuple[str, ...] = ()
    path: str = ""
    redirect_to_https: bool = False
    hsts: bool = False
    certificate: str = ""
    auth: Auth | None = None
    priority: int = 0
    check: str | None = None
    networks: tuple[str, ...] = ()
    proxypass: str = ""
    revproxy: str = ""
    redirect: str = ""
    templates: dict[str, str] = {}
    servers: tuple[Server, ...] = ()


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `errors` says of each app that is not served why; `ignored` are labels that mean nothing."""

    services: tuple[Service, ...] = ()
    errors: dict[str, str] = {}
    ignored: dict[str, tuple[str, ...]] = {}


def make_services(
    apps: Registry,
    groups: Collection[str],
    *,
    bind: str = "*",
    reserved: Mapping[int, str] | None = None,
    templates: bool = True,
    without: Mapping[str, str] | None = None,
) -> Services:
    """All that balancers of these groups serve.

    Shapes: `reserved` are ports that the balancer itself takes, with what for; without `templates` no app may bring
    pieces of configuration; `without` are apps to leave out, with the reason.
    """
    errors = dict(without or {})
    ignored: dict[str, tuple[str, ...]] = {}
    found: dict[tuple[str, int], Service] = {}
    taken: dict[tuple[str, int], str] = {}
    for app in sorted(apps.values(), key=_age):
        if app.id in errors or not any(_serves(app.labels, port.index, groups) for port in app.ports):
            continue
        try:
            made = _read_app(app, groups, bind, reserved or {}, templates)
            _claim(made, taken, found)
        except Invalid as error:
            errors[app.id] = error.message
            continue
        if unknown := _unknown(app.labels, len(app.ports)):
            ignored[app.id] = unknown
        for key, service in made:
            older = found.get(key)
            found[key] = service if older is None else _join(older, service)
    return Services(services=tuple(sorted(found.values(), key=lambda s: s.name)), errors=errors, ignored=ignored)


def _age(app: App) -> tuple[str, str]:
    return app.labels.get("HAPROXY_DEPLOYMENT_STARTED_AT", ""), app.id


def _claim(
    made: list[tuple[tuple[str, int], Service]],
    taken: dict[tuple[str, int], str],
    found: Mapping[tuple[str, int], Service],
) -> None:
    """Take the ports of an app, all or none. Errors: `Invalid` when another app has one."""
    fresh: dict[tuple[str, int], str] = {}
    for key, service in made:
        if key in found:
            continue  # the other half of a blue-green pair: it joins the port of the first
        place = (service.bind, service.port)
        owner = taken.get(place) or fresh.get(place)
        if owner is not None:
            raise Invalid(
                f"port {service.index} of app {service.app} wants service port {service.port}, which app {owner} has; "
                f"give it another by HAPROXY_{service.index}_PORT"
            )
        fresh[place] = service.app
    taken.update(fresh)


def _join(older: Service, newer: Service) -> Service:
    return msgspec.structs.replace(
        older, apps=tuple(sorted({*older.apps, *newer.apps})), servers=(*older.servers, *newer.servers)
    )


def _serves(labels: Mapping[str, str], index: int, groups: Collection[str]) -> bool:
    text = labels.get(f"HAPROXY_{index}_GROUP", labels.get("HAPROXY_GROUP", ""))
    named = {group.strip() for group in text.split(",") if group.strip()}
    return bool(named) and ("*" in groups or not named.isdisjoint(groups))


def _unknown(labels: Mapping[str, str], ports: int) -> tuple[str, ...]:
    found = []
    for key in labels:
        if not key.startswith("HAPROXY_") or key == "HAPROXY_GROUP" or key in DEPLOYMENT:
            continue
        match = _LABEL.fullmatch(key)
        if match is None or match[2] not in _KNOWN or int(match[1]) >= ports:
            found.append(key)
    return tuple(sorted(found))


def _read_app(
    app: App, groups: Collection[str], bind: str, reserved: Mapping[int, str], templates: bool
) -> list[tuple[tuple[str, int], Service]]:
    together = app.labels.get("HAPROXY_DEPLOYMENT_GROUP", "")
    made = []
    for port in app.ports:
        labels = _Labels(app, port.index)
        if not _serves(app.labels, port.index, groups) or not labels.flag("ENABLED", True):
            continue
        if "tcp" not in port.protocol:
            continue
        number = labels.number("PORT", port.service_port, most=65535)
        if not number:
            raise Invalid(
                f"port {port.index} of app {app.id} has no service port; give one by HAPROXY_{port.index}_PORT"
            )
        if number in reserved:
            raise Invalid(
                f"port {port.index} of app {app.id} wants service port {number}, which the balancer itself has for "
                f"{reserved[number]}; give it another by HAPROXY_{port.index}_PORT"
            )
        service = _read_service(app, port.index, labels, number, bind, templates)
        made.append(((together or app.id, port.index), service))
    return made


def _read_service(app: App, index: int, labels: "_Labels", number: int, bind: str, templates: bool) -> Service:
    check = _check(app, labels.number("BACKEND_HEALTHCHECK_PORT_INDEX", index), index)
    hosts = tuple(h.strip() for h in labels.text("VHOST").split(",") if h.strip())
    for host in hosts:
        labels.need("VHOST", host, _HOST, "host names, joined by commas")
    mode = labels.choice("MODE", Mode.HTTP if hosts or check else Mode.TCP)
    own = {name: labels.text(name) for name in TEMPLATES if labels.text(name)}
    if own and not templates:
        raise Invalid(f"app {app.id} brings HAPROXY_{index}_{next(iter(own))}, and this balancer takes no templates")
    return Service(
        name=f"{re.sub('[^A-Za-z0-9]+', '_', app.id).strip('_')}_{number}",
        app=app.id,
        apps=(app.id,),
        index=index,
        bind=labels.matching("BIND_ADDR", re.compile(r"[0-9A-Fa-f.:*\[\]]+"), "an address") or bind,
        port=number,
        bind_options=labels.line("BIND_OPTIONS"),
        mode=mode,
        balance=labels.matching("BALANCE", _BALANCES, "roundrobin, leastconn, source and the like") or "roundrobin",
        sticky=labels.flag("STICKY"),
        hosts=hosts,
        path=labels.matching("PATH", _PATH, "a path such as /api"),
        redirect_to_https=labels.flag("REDIRECT_TO_HTTPS"),
        hsts=labels.flag("USE_HSTS"),
        certificate=labels.matching("SSL_CERT", _WORD, "the path of a file"),
        auth=_auth(labels),
        priority=labels.number("BACKEND_WEIGHT", 0),
        check=check,
        networks=_networks(labels),
        proxypass=labels.matching("HTTP_BACKEND_PROXYPASS_PATH", _PATH, "a path such as /api"),
        revproxy=labels.matching("HTTP_BACKEND_REVPROXY_PATH", _PATH, "a path such as /api"),
        redirect=labels.matching("HTTP_BACKEND_REDIR", _PATH, "a path such as /start"),
        templates=own,
        servers=tuple(_servers(app, index)),
    )


def _check(app: App, wanted: int, index: int) -> str | None:
    """What the balancer itself looks at: the app's first check of this port, the path of HTTP or a connection."""
    if wanted != index:
        return None  # it would be looked for at a port that moves with each instance
    for check in app.checks:
        if check.port_index == index and check.protocol.removeprefix("MESOS_") in ("HTTP", "TCP"):
            is_http = check.protocol.endswith("HTTP") and _PATH.fullmatch(check.path) is not None
            return check.path if is_http else ""
    return None


def _auth(labels: "_Labels") -> Auth | None:
    text = labels.text("AUTH")
    if not text:
        return None
    realm, _, rest = text.partition(":")
    user, _, password = rest.partition(":")
    if not (re.fullmatch(r"[\w .-]+", realm) and re.fullmatch(r"[\w.@-]+", user) and _WORD.fullmatch(password)):
        raise Invalid(f"{labels.key('AUTH')} of app {labels.app} is not of the form realm:user:crypted-password")
    return Auth(realm=realm, user=user, password=password)


def _networks(labels: "_Labels") -> tuple[str, ...]:
    found = tuple(labels.text("BACKEND_NETWORK_ALLOWED_ACL").replace(",", " ").split())
    for each in found:
        try:
            ip_network(each, strict=False)
        except ValueError:
            raise labels.wrong("BACKEND_NETWORK_ALLOWED_ACL", each, "networks such as 10.0.0.0/8") from None
    return found


def _servers(app: App, index: int) -> Iterable[Server]:
    for instance in app.instances:
        if index >= len(instance.endpoints) or not _is_there(instance):
            continue
        endpoint = instance.endpoints[index]
        if not endpoint.port or not _is_address(endpoint.address):
            continue
        yield Server(
            instance=instance.id,
            app=app.id,
            address=endpoint.address,
            port=endpoint.port,
            weight=-(-app.weight * instance.weight // 100),
            up=instance.ready,
            leaving=instance.draining,
        )


def _is_there(instance: Instance) -> bool:
    return instance.ready or instance.draining or instance.state == "Running"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class _Labels:
    """The labels of one port of an app."""

    def __init__(self, app: App, index: int) -> None:
        self.app = app.id
        self._labels = app.labels
        self._index = index

    def key(self, name: str) -> str:
        return f"HAPROXY_{self._index}_{name}"

    def text(self, name: str) -> str:
        return self._labels.get(self.key(name), "")

    def line(self, name: str) -> str:
        """A text that must not become two lines of a configuration."""
        text = self.text(name).strip()
        if any(c in text for c in "\r\n\0#"):
            raise self.wrong(name, text, "one line")
        return text

    def need(self, name: str, value: str, pattern: re.Pattern[str], wanted: str) -> str:
        if pattern.fullmatch(value) is None:
            raise self.wrong(name, value, wanted)
        return value

    def matching(self, name: str, pattern: re.Pattern[str], wanted: str) -> str:
        value = self.text(name).strip()
        return self.need(name, value, pattern, wanted) if value else ""

    def number(self, name: str, default: int, most: int = 1_000_000) -> int:
        text = self.text(name).strip()
        if not text:
            return default
        if re.fullmatch(r"-?\d{1,9}", text) is None or int(text) > most:
            raise self.wrong(name, text, f"a number up to {most}")
        return int(text)

    def flag(self, name: str, default: bool = False) -> bool:
        text = self.text(name).strip().lower()
        if not text:
            return default
        if text not in ("true", "t", "yes", "y", "1", "false", "f", "no", "n", "0"):
            raise self.wrong(name, text, "true or false")
        return text in ("true", "t", "yes", "y", "1")

    def choice(self, name: str, default: Mode) -> Mode:
        text = self.text(name).strip().lower()
        if not text:
            return default
        if text not in (Mode.TCP, Mode.HTTP):
            raise self.wrong(name, text, "tcp or http")
        return Mode(text)

    def wrong(self, name: str, value: str, wanted: str) -> Invalid:
        return Invalid(f"{self.key(name)} of app {self.app} is {value!r}; it must be {wanted}")
