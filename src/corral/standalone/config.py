"""What the daemons can be told: sections of plain values, read by `lib/config.py`.

Keys are `section.name`; the same sections serve every daemon, which reads those it needs. Every key stands in
docs/operate/configure.md.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from corral.allocator.view import Settings
from corral.discovery.dns_server import read_resolvers
from corral.lib.config import load_config
from corral.lib.errors import Invalid
from corral.lib.units import parse_duration_s
from corral.mesos.agent_resources import read_agent_resources
from corral.mesos.rates import read_rate_limits
from corral.model.domain import parse_domain
from corral.model.flags import parse_attributes, parse_resources
from corral.model.rates import RateLimits
from corral.model.resources import ResourceKind, Resources
from corral.sdk.notices import is_web_address


@dataclass(frozen=True, kw_only=True)
class MasterSection:
    """Where the master listens and keeps its records."""

    listen: str = "127.0.0.1:4680"
    work_dir: str = ""
    store: str = ""
    insecure: bool = False
    hostname: str = ""
    domain: str = ""
    journal: bool = False
    frameworks: tuple[str, ...] = ("services", "cron", "batch")


@dataclass(frozen=True, kw_only=True)
class StoreSection:
    """How an etcd store is reached, and what its members take. Units: seconds where the name ends in `_s`, bytes."""

    user: str = ""
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    timeout_s: float = 10.0
    max_txn_ops: int = 128
    max_request_bytes: int = 1_572_864


@dataclass(frozen=True, kw_only=True)
class ServicesSection:
    """The services framework. Units: seconds where the name ends in `_s`."""

    role: str = "*"
    failover_timeout_s: float = 604_800.0
    first_service_port: int = 10_000
    last_service_port: int = 20_000
    launch_timeout_s: float = 300.0
    single_stop_after_s: float = 300.0
    env_prefix: str = ""
    webhook_secret_file: str = ""
    volume_role: str = ""
    enforce_group_roles: bool = False
    use_reserved: bool = True
    principal: str = ""
    drain_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class CronSection:
    """The cron framework. Units: seconds where the name ends in `_s`, cores, MiB."""

    role: str = "*"
    failover_timeout_s: float = 604_800.0
    cluster_name: str = ""
    retry_delay_s: float = 60.0
    disable_after: int = 0
    default_cpus: float = 0.1
    default_mem_mb: float = 128.0
    default_disk_mb: float = 256.0
    unreachable_timeout_s: float = 300.0
    check_s: float = 3.0
    slow_start_s: float = 300.0
    history_s: float = 604_800.0
    most_history: int = 200
    shown_history: int = 5
    allow_origin: str = ""
    webhook_url: str = ""
    slack_url: str = ""
    mail_from: str = ""
    mail_server: str = "127.0.0.1:25"
    mail_user: str = ""
    mail_password_file: str = ""
    mail_security: str = "none"


@dataclass(frozen=True, kw_only=True)
class BatchSection:
    """The batch framework. Units: seconds where the name ends in `_s`."""

    role: str = "*"
    failover_timeout_s: float = 604_800.0
    most_queued: int = 1_000_000
    most_queued_owner: int = 200_000
    most_kept: int = 1_000_000
    most_jobs: int = 10_000
    most_array: int = 100_000
    window: int = 2048
    check_s: float = 3.0
    slow_start_s: float = 300.0
    unreachable_timeout_s: float = 300.0
    preempt_after_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class KernelSection:
    """Timings of the kernel, and how its allocator works. Units: seconds where the name ends in `_s`."""

    lease_ttl_s: float = 10.0
    agent_timeout_s: float = 75.0
    ping_s: float = 15.0
    heartbeat_s: float = 15.0
    reregister_timeout_s: float = 600.0
    recovery_grace_s: float = 75.0
    offer_timeout_s: float | None = None
    want_offer_timeout_s: float = 30.0
    allocation_delay_s: float = 0.002
    headroom: str = ""
    evictions_per_minute: int = 60
    compiled: str = "auto"
    agent_removal_rate_limit: str = ""
    rate_limits: str = ""
    max_completed_frameworks: int = 50
    max_completed_tasks_per_framework: int = 1000
    max_unreachable_tasks_per_framework: int = 1000
    starving_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class AgentSection:
    """What the agent offers and how it treats tasks. Units: seconds where the name ends in `_s`."""

    listen: str = "127.0.0.1:4681"
    master: str = "127.0.0.1:4680"
    work_dir: str = ""
    name: str = ""
    ip: str = ""
    resources: str = ""
    attributes: str = ""
    domain: str = ""
    runtime: tuple[str, ...] = ()
    docker_host: str = ""
    insecure: bool = False
    journal: bool = False
    kill_grace_s: float = 3.0
    fetch_timeout_s: float = 900.0
    start_timeout_s: float = 300.0
    executor_register_timeout_s: float = 60.0
    executor_reregister_timeout_s: float = 15.0
    executor_recovery_timeout_s: float = 900.0
    executor_shutdown_grace_s: float = 5.0
    gc_delay_s: float = 604_800.0
    oversubscribe: bool = False
    oversubscribe_margin: float = 0.1
    oversubscribe_window_s: float = 60.0
    oversubscribe_pressure: float = 0.95
    oversubscribe_pressure_s: float = 15.0
    start_after_reboot: bool = True


@dataclass(frozen=True, kw_only=True)
class VaultSection:
    """Where secrets are sealed. Shapes: without `key_file` there are none; `corral dev` makes one for itself."""

    key_file: str = ""


@dataclass(frozen=True, kw_only=True)
class DnsSection:
    """The DNS server of an agent. Units: seconds. Shapes: it serves nothing while `listen` is empty."""

    listen: str = ""
    domain: str = "corral"
    mesos_domain: str = "mesos"
    ttl_s: float = 5.0
    forward: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrustSection:
    """How the parts of a cluster know each other. Units: seconds where the name ends in `_s`."""

    tls: str = "auto"
    cluster: str = "corral"
    names: tuple[str, ...] = ()
    certificate_ttl_s: float = 7_776_000.0
    join_ttl_s: float = 3600.0
    token_ttl_s: float = 2_592_000.0
    token_check_s: float = 30.0
    token_grace_s: float = 3600.0
    open_metrics: bool = False
    ca_passphrase_file: str = ""
    cacert: str = ""
    token: str = field(default="", metadata={"secret": True})


@dataclass(frozen=True, kw_only=True)
class LogSection:
    format: str = "text"
    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class Config:
    master: MasterSection = MasterSection()
    store: StoreSection = StoreSection()
    kernel: KernelSection = KernelSection()
    agent: AgentSection = AgentSection()
    services: ServicesSection = ServicesSection()
    cron: CronSection = CronSection()
    batch: BatchSection = BatchSection()
    vault: VaultSection = VaultSection()
    dns: DnsSection = DnsSection()
    trust: TrustSection = TrustSection()
    log: LogSection = LogSection()


def read_config(
    file: str | None, sets: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[Config, dict[str, str]]:
    """The checked configuration and where each value comes from.

    Errors: `Invalid` names the key, what was found and what is wanted.
    """
    config, origins = load_config(
        Config, file=file, environment=os.environ if environment is None else environment, sets=sets
    )
    check_config(config)
    return config, origins


def check_config(config: Config) -> None:
    """Refuse values that no daemon could work with, before anything starts."""
    sections = (
        config.kernel,
        config.agent,
        config.services,
        config.cron,
        config.batch,
        config.store,
        config.dns,
        config.trust,
    )
    for section in sections:
        for item in fields(section):
            value = getattr(section, item.name)
            if item.name.endswith("_s") and value is not None and not 0 <= value < 1e9:
                name = type(section).__name__.removesuffix("Section").lower()
                raise Invalid(f"{name}.{item.name} is {value}; it must be a number of seconds of 0 or more")
    if config.kernel.lease_ttl_s < 1:
        raise Invalid(f"kernel.lease_ttl_s is {config.kernel.lease_ttl_s:g}; it must be 1 or more")
    if config.kernel.ping_s * 2 > config.kernel.agent_timeout_s:
        raise Invalid(
            f"kernel.agent_timeout_s is {config.kernel.agent_timeout_s:g}, less than two of kernel.ping_s "
            f"({config.kernel.ping_s:g}); one lost ping would make an agent unreachable"
        )
    if not 0 <= config.kernel.evictions_per_minute <= 1_000_000:
        raise Invalid(
            f"kernel.evictions_per_minute is {config.kernel.evictions_per_minute}; it must be 0 to 1000000, 0 for none"
        )
    for name in ("frameworks", "tasks_per_framework"):
        if getattr(config.kernel, f"max_completed_{name}") < 0:
            raise Invalid(f"kernel.max_completed_{name} is below 0; give how many are remembered, 0 for none")
    if config.kernel.max_unreachable_tasks_per_framework < 1:
        raise Invalid("kernel.max_unreachable_tasks_per_framework is below 1; give how many are remembered")
    if config.kernel.compiled not in ("auto", "yes", "no"):
        raise Invalid(f"kernel.compiled is {config.kernel.compiled!r}; auto, yes and no are known")
    for runtime in config.agent.runtime:
        if runtime not in ("docker", "process"):
            raise Invalid(f"agent.runtime names {runtime!r}; docker and process are known")
    if config.log.format not in ("text", "json"):
        raise Invalid(f"log.format is {config.log.format!r}; text and json are known")
    _check_store(config.store)
    _check_texts(config)
    _check_trust(config.trust)
    _check_cron(config.cron)
    _check_batch(config.batch)
    _check_oversubscription(config.agent)
    if config.log.level not in ("debug", "info", "warning", "error"):
        raise Invalid(f"log.level is {config.log.level!r}; debug, info, warning and error are known")


def _check_store(section: StoreSection) -> None:
    for name, least in (("timeout_s", 1), ("max_txn_ops", 8), ("max_request_bytes", 65_536)):
        if getattr(section, name) < least:
            raise Invalid(f"store.{name} is {getattr(section, name):g}; it must be {least} or more")
    if section.key and not section.cert:
        raise Invalid("store.key is given without store.cert; name the certificate that the key belongs to")
    if bool(section.user) != bool(section.password_file):
        raise Invalid("store.user and store.password_file go together; give both, or none where etcd asks for nobody")


def _check_texts(config: Config) -> None:
    """What is written in a form of its own: addresses, the store, resources, attributes."""
    parse_listen(config.master.listen, "master.listen")
    parse_listen(config.agent.listen, "agent.listen")
    split_masters(config.agent.master, "agent.master")
    parse_store(config.master.store)
    parse_headroom(config.kernel.headroom)
    read_agent_resources(config.agent.resources)
    parse_attributes(config.agent.attributes)
    parse_domain(config.master.domain)
    parse_removal_rate(config.kernel.agent_removal_rate_limit)
    parse_rate_limits(config.kernel.rate_limits)
    parse_domain(config.agent.domain)
    check_dns(config.dns)


def check_dns(section: DnsSection) -> None:
    if section.listen:
        parse_listen(section.listen, "dns.listen")
    for key in ("domain", "mesos_domain"):
        if not re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.(?!$)|$))*", getattr(section, key)):
            raise Invalid(f"dns.{key} is {getattr(section, key)!r}; write a domain such as corral or dc1.example.org")
    if section.ttl_s > 86400:
        raise Invalid(f"dns.ttl_s is {section.ttl_s:g}; answers may be remembered for 86400 s at most")
    read_resolvers(section.forward, own=("", 0))


def parse_removal_rate(text: str) -> float:
    """The seconds between two agents that become unreachable, from a rate such as `1/10mins`; 0 for an empty text.

    Errors: `Invalid` shows the form.
    """
    if not text.strip():
        return 0.0
    number, slash, length = (part.strip() for part in text.partition("/"))
    if not (slash and number.isdigit() and int(number) > 0 and length) or not 0 < parse_duration_s(length) < 1e9:
        raise Invalid(
            f"kernel.agent_removal_rate_limit is {text!r}; write a number of agents per time, such as 1/10mins"
        )
    return parse_duration_s(length) / int(number)


def parse_rate_limits(text: str) -> RateLimits | None:
    """Rate limits from JSON, or from the file of that name; None for an empty text.

    Errors: `Invalid` when the file cannot be read, or names what is wrong in the limits.
    """
    if not text.strip():
        return None
    body = text.encode()
    if not text.lstrip().startswith("{"):
        try:
            with open(text.removeprefix("file://"), "rb") as file:
                body = file.read()
        except OSError as error:
            raise Invalid(
                f"kernel.rate_limits is {text!r}, which cannot be read: {error.strerror}; give JSON, or a file of it"
            ) from None
    try:
        return read_rate_limits(body)
    except Invalid as error:
        raise Invalid(f"kernel.rate_limits: {error.message}") from None


def parse_headroom(text: str) -> Resources | None:
    """What is kept free for guarantees; None for an empty text: all that is not met yet.

    Errors: `Invalid` unless it is resources, and all of them scalars.
    """
    if not text.strip():
        return None
    found = parse_resources(text)
    for resource in found:
        if resource.kind is not ResourceKind.SCALAR:
            raise Invalid(
                f"kernel.headroom has {resource.name}, which has no amount; write for example cpus:8;mem:16384"
            )
        if resource.identity.reservations:
            raise Invalid(f"kernel.headroom reserves {resource.name}; give amounts alone, as cpus:8;mem:16384")
    return found


def allocator_settings(section: KernelSection) -> Settings:
    """What operators have decided for the whole cluster. Errors: `Invalid`."""
    return Settings(headroom=parse_headroom(section.headroom), evictions_per_minute=section.evictions_per_minute)


def _check_trust(section: TrustSection) -> None:
    if section.tls not in ("auto", "on", "off"):
        raise Invalid(f"trust.tls is {section.tls!r}; auto, on and off are known")
    if section.certificate_ttl_s < 2:
        raise Invalid(f"trust.certificate_ttl_s is {section.certificate_ttl_s:g}; a certificate lives 2 s or more")
    if section.join_ttl_s <= 0:
        raise Invalid(f"trust.join_ttl_s is {section.join_ttl_s:g}; a token for a node has to live a while, and to end")
    if not section.cluster.isascii() or not 0 < len(section.cluster) <= 40:
        raise Invalid(f"trust.cluster is {section.cluster!r}; give a name of up to 40 ASCII characters")


def _check_oversubscription(section: AgentSection) -> None:
    for name, least in (("oversubscribe_margin", 0.0), ("oversubscribe_pressure", 0.1)):
        value = getattr(section, name)
        if not least <= value <= 1:
            raise Invalid(f"agent.{name} is {value:g}; it must be a fraction from {least:g} to 1")
    if section.oversubscribe_pressure_s < 10:
        # A task that has just started counts as fully used until it has been measured twice.
        raise Invalid(f"agent.oversubscribe_pressure_s is {section.oversubscribe_pressure_s:g}; it must be 10 or more")
    if section.oversubscribe_pressure_s < 10:
        # A task that has just started is not measured before its second measurement, and counts as fully used.
        raise Invalid(f"agent.oversubscribe_pressure_s is {section.oversubscribe_pressure_s:g}; it must be 10 or more")


def _check_cron(section: CronSection) -> None:
    for name in ("default_cpus", "default_mem_mb", "default_disk_mb", "most_history", "shown_history"):
        if getattr(section, name) <= 0:
            raise Invalid(f"cron.{name} is {getattr(section, name)}; it must be more than 0")
    if section.disable_after < 0:
        raise Invalid(f"cron.disable_after is {section.disable_after}; it must be a number of failures, or 0 for never")
    if section.allow_origin not in ("", "*") and re.fullmatch(r"https?://[^\s/]+", section.allow_origin) is None:
        form = "* or one such as https://ui.example.org"
        raise Invalid(f"cron.allow_origin is {section.allow_origin!r}; it must be {form}")
    for name in ("webhook_url", "slack_url"):
        url = getattr(section, name)
        if url and not is_web_address(url):
            raise Invalid(f"cron.{name} is {url!r}; it must be an http or https URL")
    if section.mail_security not in ("none", "starttls", "tls"):
        raise Invalid(f"cron.mail_security is {section.mail_security!r}; none, starttls and tls are known")
    parse_listen(section.mail_server, "cron.mail_server")


def _check_batch(section: BatchSection) -> None:
    for name in ("most_queued", "most_queued_owner", "most_kept", "most_jobs", "most_array", "window"):
        if getattr(section, name) < 1:
            raise Invalid(f"batch.{name} is {getattr(section, name)}; it must be 1 or more")


def parse_store(url: str) -> tuple[str, str]:
    """Kind and rest of `--store`: `sqlite` with a path, `memory` with nothing, `etcd` with the whole URL.

    Shapes: empty is `sqlite` without a path.

    Errors: `Invalid` shows the forms.
    """
    kind, _, rest = url.partition(":")
    if not url:
        return "sqlite", ""
    if kind == "sqlite" and rest.removeprefix("//"):
        return kind, rest.removeprefix("//")
    if kind == "memory" and not rest:
        return kind, ""
    if kind in ("etcd", "etcds"):
        parse_etcd(url)
        return "etcd", url
    raise Invalid(
        f"store {url!r} is neither sqlite:PATH, memory: nor etcd://HOST:PORT[,HOST:PORT...][/PREFIX]; "
        f"leave it out for SQLite in the work directory"
    )


def parse_etcd(url: str) -> tuple[tuple[str, ...], str]:
    """Addresses of members and the prefix from an `etcd://` URL; port 2379 and prefix `/corral/` unless told.

    Shapes: the prefix begins and ends with a slash. Errors: `Invalid` shows the form.
    """
    form = "write etcd://HOST:PORT[,HOST:PORT...][/PREFIX]"
    _, slashes, rest = url.partition("://")
    hosts, _, prefix = rest.partition("/")
    if "@" in hosts:
        raise Invalid(
            "the store's URL names a user; say it with store.user and store.password_file, where none reads it"
        )
    if not slashes or not hosts or "?" in rest or "#" in rest:
        raise Invalid(f"store {url!r} names no member of etcd; {form}")
    found: list[str] = []
    for each in hosts.split(","):
        host, colon, port = each.rpartition(":") if not each.endswith("]") else (each, "", "")
        if not colon:
            host, port = each, "2379"
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or (":" in host and not host.startswith("[")):
            raise Invalid(f"store {url!r} has {each!r}, which is no HOST:PORT; {form}")
        found.append(f"{host}:{port}")
    return tuple(found), f"/{prefix.strip('/')}/" if prefix.strip("/") else "/corral/"


ALONE = ("sqlite", "memory")
"""The stores that one process has for itself: whoever has opened one leads."""


def split_masters(text: str, key: str) -> list[str]:
    """The masters of `A:4680,B:4680`; spaces do not matter.

    Errors: `Invalid` when none is named.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise Invalid(f"{key} is {text!r} and names no master; write HOST:PORT, several with commas between them")
    return found


def parse_listen(text: str, key: str) -> tuple[str, int]:
    """`HOST:PORT`, where the host may be an IPv6 address in brackets.

    Errors: `Invalid` shows the form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Invalid(f"{key} is {text!r}, not HOST:PORT; write for example 127.0.0.1:4680 (port 0 takes any)")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def wants_tls(host: str, insecure: bool, tls: str) -> bool:
    """Whether a daemon that listens there speaks TLS and asks who calls."""
    return tls == "on" or (tls == "auto" and not insecure and not is_loopback(host))


def check_exposure(host: str, insecure: bool, key: str, *, secure: bool = False, remedy: str = "") -> str | None:
    """A warning to show at the start; None on loopback, and where TLS and authentication are on.

    Shapes: `remedy` is how this daemon gets them. Errors: `Invalid` when the address is reachable from elsewhere,
    nothing protects it, and nobody said that this is meant.
    """
    if secure or is_loopback(host):
        return None
    if not insecure:
        raise Invalid(
            f"{key} is {host}, which others can reach, and nothing would ask them who they are; "
            f"{remedy or 'leave trust.tls at auto'}, listen on 127.0.0.1, "
            f"or say --insecure where everybody on the network is trusted"
        )
    return f"listening on {host} without authentication: everybody who reaches it can run anything on this cluster"
