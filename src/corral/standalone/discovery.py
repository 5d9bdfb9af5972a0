"""Makes the parts of discovery: the DNS server of an agent, and what runs beside the cluster."""

import asyncio
import contextlib
import os
import resource
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import jinja2
import msgspec

from corral.discovery import routes as lb_routes
from corral.discovery.balancer import Balancer, Choice, Told
from corral.discovery.dns_server import DnsServer, read_resolvers
from corral.discovery.etcd_keys import KeyFollower
from corral.discovery.follow import RegistryFollower
from corral.discovery.haproxy import PIECES, Settings
from corral.discovery.haproxy_process import HaproxyProcess
from corral.discovery.publish import Publisher
from corral.discovery.template import read_template, render
from corral.discovery.template_file import Target, TemplateFile, read_mode
from corral.lib.errors import Invalid
from corral.lib.log import configure_log
from corral.net.access import NO_ACCESS, Access
from corral.net.server import Server, bind
from corral.runtime.service import Background, Service, run_services
from corral.standalone.config import DnsSection, StoreSection, check_exposure, parse_listen
from corral.standalone.parts import choose_work_dir, etcd_settings
from corral.store.base import Store
from corral.store.etcd import open_etcd

MOST_SOCKET_PATH = 90
MOST_CONNECTIONS = 100_000
FILES_OF_HAPROXY = 1000


def open_dns(
    section: DnsSection, work_dir: Path, masters: Sequence[str], random: Random, access: Access = NO_ACCESS
) -> list[Service]:
    """The services of a node's DNS, none when it shall have none. The registry is kept in the work directory."""
    if not section.listen:
        return []
    listen = parse_listen(section.listen, "dns.listen")
    server: DnsServer

    def changed(ids: frozenset[str]) -> None:
        server.changed()

    follower = RegistryFollower(masters, changed, random, keep=work_dir / "registry.json", access=access)
    server = DnsServer(
        lambda: follower.apps,
        random,
        listen=listen,
        corral=section.domain,
        mesos=section.mesos_domain,
        ttl_s=round(section.ttl_s),
        forward=read_resolvers(section.forward, own=listen),
    )
    return [server, Background("dns registry", follower.run)]


class LbOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `corral lb` is told. Shapes: as its command line has them; an empty address is not listened on."""

    masters: tuple[str, ...]
    groups: tuple[str, ...] = ("external",)
    name: str = "lb"
    http: str = "*:80"
    https: str = ""
    certificates: tuple[str, ...] = ()
    stats: str = "127.0.0.1:9090"
    bind: str = "*"
    listen: str = "127.0.0.1:4682"
    haproxy: str = "haproxy"
    templates: str = ""
    app_templates: bool = True
    leave_running: bool = False
    tells: tuple[str, ...] = ("requests", "queue")
    once: bool = False
    work_dir: str = ""
    log_format: str = "text"
    access: Any = NO_ACCESS
    log_level: str = "info"
    insecure: bool = False


def run_lb(options: LbOptions) -> int:
    """Run a balancer until a signal; returns the exit code. With `once` its configuration is printed, and no more."""
    configure_log(options.log_format, options.log_level)
    with asyncio.Runner() as runner:
        return runner.run(_show(options) if options.once else _lb(options))


async def _lb(options: LbOptions) -> int:
    work_dir = choose_work_dir(options.work_dir, "lb")
    if len(str(work_dir)) > MOST_SOCKET_PATH:
        raise Invalid(
            f"work directory {work_dir} is too long for the sockets in it; name a shorter one with --work-dir"
        )
    balancer: Balancer

    def changed(ids: frozenset[str]) -> None:
        balancer.changed(ids)

    follower = _follower(options, changed, work_dir / "registry.json")
    haproxy = HaproxyProcess(work_dir, options.haproxy)
    told = Told(requests="requests" in options.tells, queue="queue" in options.tells)
    if "nothing" in options.tells and len(options.tells) > 1:
        raise Invalid("--tell nothing stands beside other values; give it alone or leave it out")
    balancer = Balancer(follower, haproxy, lb_settings(options, haproxy.socket), _choice(options), told)
    host, port = parse_listen(options.listen, "--listen")
    check_exposure(host, options.insecure, "--listen")
    server = Server(lb_routes.routes(balancer), bind(host, port), name="lb server")

    async def announce() -> None:
        await balancer.ready.wait()
        print(f"ready url={server.url}", flush=True)
        await asyncio.Event().wait()

    services: list[Service] = [
        Background("registry", follower.run), Background("balancer", balancer.run), server,
        Background("announce", announce),
    ]  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        if not options.leave_running:
            stack.push_async_callback(haproxy.stop)
        return await run_services(services)


async def _show(options: LbOptions) -> int:
    follower = _follower(options, lambda ids: None, None)
    await follower.once()
    balancer = Balancer(follower, HaproxyProcess(Path(), ""), lb_settings(options, "admin.sock"), _choice(options))
    print(balancer.render(), end="")
    return 0


def _follower(options: LbOptions, changed: Callable[[frozenset[str]], None], keep: Path | None) -> RegistryFollower:
    random = Random(secrets.randbits(63))
    balancer = "" if options.once else options.name
    return RegistryFollower(
        options.masters, changed, random, keep=keep, balancer=balancer, groups=options.groups, access=options.access
    )


def _choice(options: LbOptions) -> Choice:
    reserved = {}
    for what, address in (("http", options.http), ("https", options.https), ("statistics", options.stats)):
        if address:
            reserved[int(address.rpartition(":")[2])] = what
    return Choice(groups=options.groups, bind=options.bind, reserved=reserved, templates=options.app_templates)


def lb_settings(options: LbOptions, socket: str) -> Settings:
    """Errors: `Invalid` for an address, a certificate or a template that cannot be used."""
    for flag, address in (("--http", options.http), ("--https", options.https), ("--stats", options.stats)):
        host, colon, port = address.rpartition(":")
        if address and not (colon and host and port.isdecimal() and 0 < int(port) < 65536 and " " not in host):
            raise Invalid(f"{flag} is {address!r}, not ADDRESS:PORT; write for example *:80")
    if options.https and not options.certificates:
        raise Invalid("--https needs --cert, a file with a certificate and its key, or a directory of such files")
    for path in options.certificates:
        if not Path(path).exists():
            raise Invalid(f"--cert {path} does not exist")
    return Settings(
        socket=socket,
        most_connections=most_connections(),
        http=options.http,
        https=options.https,
        certificates=tuple(str(Path(path).resolve()) for path in options.certificates),
        stats=options.stats,
        templates=read_templates(options.templates),
    )


def most_connections() -> int:
    """As many as there may be open files for, two for each connection, some for HAProxy itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else (hard - FILES_OF_HAPROXY) // 2
    return max(100, min(most, MOST_CONNECTIONS))


def read_templates(directory: str) -> dict[str, str]:
    """The pieces of a configuration that stand in files. Shapes: a file is named as its piece, HAPROXY_ before or not.

    Errors: `Invalid` for a file that is named as no piece.
    """
    if not directory:
        return {}
    found = {}
    try:
        for path in sorted(Path(directory).iterdir()):
            name = path.name.removeprefix("HAPROXY_")
            if name not in PIECES:
                raise Invalid(f"{path} is no piece of a configuration; known are {', '.join(PIECES)}")
            found[name] = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"--templates {directory} cannot be read: {error.strerror}") from None
    return found


class EtcdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an etcd is reached. Shapes: `url` as `--store` has it, without a prefix."""

    url: str = ""
    user: str = ""
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""


class TemplateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `corral template` is told."""

    source: str
    dest: str
    masters: tuple[str, ...]
    etcd: EtcdOptions = EtcdOptions()
    prefixes: tuple[str, ...] = ("/",)
    check: str = ""
    reload: str = ""
    mode: str = ""
    debounce_s: float = 0.2
    once: bool = False
    log_format: str = "text"
    access: Any = NO_ACCESS
    log_level: str = "info"


class PublishOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `corral publish` is told. Units: seconds."""

    masters: tuple[str, ...]
    etcd: EtcdOptions
    prefix: str = "/services"
    apps_prefix: str = "/apps"
    ttl_s: float = 30.0
    log_format: str = "text"
    access: Any = NO_ACCESS
    log_level: str = "info"


def open_keys(options: EtcdOptions) -> Callable[[], Awaitable[Store]]:
    """Opens an etcd whose keys are meant whole. Errors: `Invalid` for a URL or files that cannot be used."""
    section = StoreSection(
        user=options.user, password_file=options.password_file, ca=options.ca, cert=options.cert, key=options.key
    )
    settings = etcd_settings(options.url, section)
    _, _, path = options.url.partition("://")[2].partition("/")
    if path:
        raise Invalid(f"--etcd {options.url} has a prefix; name what is meant with --prefix")

    async def open_store() -> Store:
        return await open_etcd(msgspec.structs.replace(settings, root="/"))

    return open_store


def run_template(options: TemplateOptions) -> int:
    """Keep a file as its template makes it until a signal, or with `once` make it once; returns the exit code."""
    configure_log(options.log_format, options.log_level)
    with asyncio.Runner() as runner:
        return runner.run(_template(options))


def _read_source(options: TemplateOptions) -> jinja2.Template:
    """Errors: `Invalid` when the template cannot be read, or what it makes could not be written."""
    try:
        text = Path(options.source).read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"template {options.source} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Invalid(f"template {options.source} is not UTF-8: {error}") from None
    dest = Path(options.dest)
    if not dest.parent.is_dir() or dest.is_dir():
        raise Invalid(f"{dest} cannot be written: name a file in a directory that exists")
    return read_template(text, options.source)


async def _template(options: TemplateOptions) -> int:
    template = _read_source(options)
    target = Target(
        dest=Path(options.dest),
        check=options.check,
        reload=options.reload,
        mode=read_mode(options.mode),
        debounce_s=options.debounce_s,
    )
    follower: RegistryFollower | None = None
    keys: KeyFollower | None = None

    def make() -> str:
        apps = {} if follower is None else follower.apps
        return render(template, apps, None if keys is None else keys.keys, os.environ)

    file = TemplateFile(target, make)

    def news(ids: frozenset[str] = frozenset()) -> None:
        # Nothing is made of one half of what it is made from.
        if all(each is None or each.synced.is_set() for each in (follower, keys)):
            file.changed()

    if options.masters:
        follower = RegistryFollower(options.masters, news, Random(secrets.randbits(63)), access=options.access)
    if options.etcd.url:
        keys = KeyFollower(open_keys(options.etcd), options.prefixes, news)
    if options.once:
        for each in (follower, keys):
            if each is not None:
                await each.once()
        await file.update()
        return 0
    services: list[Service] = [Background("template", file.run)]
    if follower is not None:
        services.append(Background("registry", follower.run))
    if keys is not None:
        services.append(Background("keys", keys.run))
    return await run_services(services)


def run_publish(options: PublishOptions) -> int:
    """Keep the registry's keys in an etcd until a signal; returns the exit code."""
    configure_log(options.log_format, options.log_level)
    with asyncio.Runner() as runner:
        return runner.run(_publish(options))


async def _publish(options: PublishOptions) -> int:
    if not 3 <= options.ttl_s <= 86_400:
        raise Invalid(f"--ttl is {options.ttl_s:g}; keys may outlive this program by 3 to 86400 seconds")
    services, about = options.prefix.strip("/"), options.apps_prefix.strip("/")
    if not services or services == about:
        raise Invalid("--prefix must be a path such as /services, and another one than --apps-prefix")
    publisher: Publisher
    known = asyncio.Event()

    def changed(ids: frozenset[str]) -> None:
        known.set()
        publisher.changed()

    follower = RegistryFollower(options.masters, changed, Random(secrets.randbits(63)), access=options.access)
    publisher = Publisher(
        lambda: follower.apps, known, open_keys(options.etcd), services=services, about=about, ttl_s=options.ttl_s
    )
    return await run_services([Background("registry", follower.run), Background("publisher", publisher.run)])
