"""What discovery asks of the services framework: the registry, who balances load and what of it is drained, traffic."""

import msgspec


class GetRegistry(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Which instances of which app are ready where. Shapes: `apps` None is all; of those named, unknown ones are left
    out."""

    apps: tuple[str, ...] | None = None


class WatchBalancer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A balancer follows the registry from here on, or follows it no longer.

    Shapes: `name` is its connection's own; `groups` are those whose apps it serves, `*` is all.
    """

    name: str
    groups: tuple[str, ...] = ()
    present: bool = True


class Drained(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A balancer has no more connections to these instances."""

    balancer: str
    instances: tuple[str, ...]


class ReportTraffic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a balancer measured. Units: `apps` requests a second, `queues` requests that wait, both by app."""

    balancer: str
    apps: dict[str, float]
    queues: dict[str, float] = {}


class GetTraffic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Requests a second by app, of all balancers together."""


class SecretChanged(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A config or secret has another value. Shapes: `source` with its kind before it, such as `secret:db/password`."""

    source: str


DiscoveryCommand = GetRegistry | WatchBalancer | Drained | ReportTraffic | GetTraffic | SecretChanged


class Discovery:
    """What is known of those who follow. Shapes: `balancers` maps the name of a connection to its groups, `drained` an
    instance to the balancers that are done with it, `traffic` a balancer to requests a second by app, `queues` one to
    how many requests wait, by app."""

    __slots__ = ("balancers", "drained", "queues", "traffic")

    def __init__(self) -> None:
        self.balancers: dict[str, tuple[str, ...]] = {}
        self.drained: dict[str, set[str]] = {}
        self.traffic: dict[str, dict[str, float]] = {}
        self.queues: dict[str, dict[str, float]] = {}
