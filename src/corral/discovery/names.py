"""The registry as DNS names: which records each name has. Pure: apps in, a zone out.

An app `/shop/web` of role `prod` is `web.shop.prod.DOMAIN` and, whatever its role, `web.shop.DOMAIN`; `/` of a role's
name turns round like that of an app. Where its ports answer is told by the SRV records of `_tcp.web.shop.prod.DOMAIN`
and, for a port with a name, `_PORT._tcp.web.shop.prod.DOMAIN`. As in Mesos-DNS there are `web.shop.marathon.mesos`,
`_web.shop._tcp.marathon.mesos` and `_PORT._web.shop._tcp.marathon.mesos`, and the same with `web-shop`. Only ready
instances are found; an app that has none keeps its names, which then have no records.

Source: Mesos-DNS, its naming of tasks and of discovery information; RFC 2782.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address

import msgspec

from corral.discovery.registry import App, Instance, Registry

CORRAL = "corral"
MESOS = "mesos"
FRAMEWORK = "marathon"


class Service(msgspec.Struct, frozen=True, order=True):
    """One SRV record. Shapes: `target` is a name of the zone with the dot at its end left out."""

    target: str
    port: int
    weight: int = 100


class Zone(msgspec.Struct, frozen=True):
    """Shapes: names are lower case without the dot at their end; a name may be in both, or in neither and still exist
    because something is below it."""

    addresses: dict[str, tuple[str, ...]]
    services: dict[str, tuple[Service, ...]]
    names: frozenset[str]
    domains: tuple[str, ...]

    def domain_of(self, name: str) -> str | None:
        """The domain that the name is in, which this server alone answers for."""
        return next((d for d in self.domains if name == d or name.endswith("." + d)), None)


def reversed_path(path: str) -> str:
    """`/shop/web` as `web.shop`."""
    return ".".join(reversed([part for part in path.lower().split("/") if part]))


def label(text: str) -> str:
    """Text as one label of a name; what a label cannot hold is dropped."""
    plain = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
    return plain[:63].strip("-")


def make_zone(apps: Registry, corral: str = CORRAL, mesos: str = MESOS) -> Zone:
    """All names of all apps. Shapes: an empty domain is not served."""
    zone = _Maker()
    for app in apps.values():
        for instance in app.ready:
            _add_targets(zone, app, instance, corral, mesos)
        if corral:
            for name in _corral_names(app, corral):
                _add_app(zone, app, name, corral)
        if mesos:
            _add_mesos(zone, app, f"{FRAMEWORK}.{mesos}")
    domains = tuple(d for d in (corral, mesos) if d)
    return Zone(
        {name: tuple(sorted(found)) for name, found in zone.addresses.items()},
        {name: tuple(sorted(found)) for name, found in zone.services.items()},
        frozenset(_with_parents(zone.names, domains)),
        domains,
    )


class _Maker:
    def __init__(self) -> None:
        self.addresses: dict[str, set[str]] = {}
        self.services: dict[str, set[Service]] = {}
        self.names: set[str] = set()

    def address(self, name: str, address: str) -> None:
        self.names.add(name)
        if is_address(address):
            self.addresses.setdefault(name, set()).add(address)

    def service(self, name: str, service: Service) -> None:
        self.names.add(name)
        self.services.setdefault(name, set()).add(service)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _corral_names(app: App, domain: str) -> Iterator[str]:
    own = reversed_path(app.id)
    yield f"{own}.{domain}"
    if role := reversed_path(app.role if app.role != "*" else "any"):
        yield f"{own}.{role}.{domain}"


def _target(app: App, instance: Instance, index: int, domain: str) -> str:
    """The name of the place where one port of one instance answers."""
    own = label(instance.id.rpartition("instance-")[2])
    where = "" if index < 0 else f"p{index}-"
    return label(f"{where}{own}-{label(app.id)[:20]}") + f".instances.{domain}"


def _add_targets(zone: _Maker, app: App, instance: Instance, corral: str, mesos: str) -> None:
    for domain in (corral, f"{FRAMEWORK}.{mesos}" if mesos else ""):
        if domain:
            zone.address(_target(app, instance, -1, domain), instance.address)
            for index, endpoint in enumerate(instance.endpoints):
                zone.address(_target(app, instance, index, domain), endpoint.address)


def _add_app(zone: _Maker, app: App, name: str, domain: str) -> None:
    zone.names.add(name)
    for instance in app.ready:
        for address in {e.address for e in instance.endpoints} or {instance.address}:
            zone.address(name, address)
    for index, port in enumerate(app.ports):
        for protocol in port.protocol.split(","):
            below = f"_{protocol}.{name}"
            named = [below, f"_{label(port.name)}.{below}"] if port.name and label(port.name) else [below]
            for service_name in named:
                zone.names.add(service_name)
                for service in _services(app, index, domain):
                    zone.service(service_name, service)


def _add_mesos(zone: _Maker, app: App, domain: str) -> None:
    own = reversed_path(app.id)
    dashed = own.replace(".", "-")
    for form in {own, dashed}:
        name = f"{form}.{domain}"
        zone.names.add(name)
        for instance in app.ready:
            zone.address(name, instance.address)
            for own_address in instance.ips:
                zone.address(f"{form}.containerip.{domain}", own_address)
            zone.address(f"{form}.slave.{domain}", instance.node_ip or instance.address)
        for index, port in enumerate(app.ports):
            for protocol in port.protocol.split(","):
                named = [f"_{form}._{protocol}.{domain}"]
                if port.name and label(port.name):
                    named.append(f"_{label(port.name)}._{form}._{protocol}.{domain}")
                for service_name in named:
                    zone.names.add(service_name)
                    for service in _services(app, index, domain):
                        zone.service(service_name, service)


def _services(app: App, index: int, domain: str) -> Iterator[Service]:
    for instance in app.ready:
        if index < len(instance.endpoints) and instance.endpoints[index].port:
            yield Service(_target(app, instance, index, domain), instance.endpoints[index].port, app.weight)


def _with_parents(names: set[str], domains: tuple[str, ...]) -> Iterator[str]:
    """A name above one that exists does exist too, though it has no records."""
    for name in names:
        yield name
        while (cut := name.find(".")) >= 0 and name not in domains:
            name = name[cut + 1 :]
            yield name
    yield from domains
