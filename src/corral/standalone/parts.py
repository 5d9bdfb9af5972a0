"""Makes the parts of daemons: stores, journals, kernels, agents. Each part is a list of services in starting order."""

import hashlib
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec

from corral import MESOS_VERSION, __version__
from corral.agent import routes as agent_routes
from corral.agent.core import AgentCore
from corral.agent.core import Input as AgentInput
from corral.agent.detect import detect_resources, named_in
from corral.agent.execution import contact_path
from corral.agent.fetcher import Fetcher
from corral.agent.link import Link
from corral.agent.runtimes import TaskRuntime
from corral.agent.sandbox import Sandboxes
from corral.agent.secrets import SecretFiles
from corral.agent.shell import AgentShell
from corral.agent.spec import AgentConfig
from corral.lib.clock import FollowingClock, LastingClock, read_boot_id, stopwatch
from corral.lib.contact import ContactFile
from corral.lib.errors import Invalid
from corral.lib.log import get_logger
from corral.master import routes as master_routes
from corral.master.core import Input as MasterInput
from corral.master.core import MasterCore
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.mesos.agent_resources import read_agent_resources
from corral.model.domain import parse_domain
from corral.model.flags import parse_attributes
from corral.model.resources import Resource, ResourceKind, Resources, normal
from corral.net.access import NO_ACCESS, complete_url
from corral.net.routes import RawRoute, Route
from corral.net.server import Server, bind
from corral.runtime.core import Core
from corral.runtime.journal import Header, Journal, Replayable
from corral.runtime.loop import Fence, Loop
from corral.runtime.notes import Notes
from corral.runtime.service import Background, Service
from corral.runtime.turn import DRAIN, Recorder, Recorders
from corral.standalone.config import (
    AgentSection,
    Config,
    KernelSection,
    StoreSection,
    check_exposure,
    parse_etcd,
    parse_headroom,
    parse_listen,
    parse_rate_limits,
    parse_removal_rate,
    parse_store,
    split_masters,
)
from corral.standalone.limits import OPEN_FILES_OF_TASKS
from corral.standalone.trust import AgentTrust
from corral.store.base import Store, StoreFailed
from corral.store.etcd import Settings as EtcdSettings
from corral.store.etcd import make_tls, open_etcd
from corral.store.memory import MemoryStore
from corral.store.snapshot import RESTORING
from corral.store.sqlite import open_sqlite
from corral.trust.gate import AgentGate

log = get_logger("corral")

JOIN_FIRST = "let this node join first (`corral token create` on a master, then `corral join TOKEN@HOST` here)"


def name_work_dir(given: str, name: str) -> Path:
    """Where a daemon of this name keeps its files unless told, whether it has begun to or not."""
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/corral") / name
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "corral" / name


def choose_work_dir(given: str, name: str) -> Path:
    """Where a daemon keeps its files; made if missing.

    Errors: `Invalid` when it cannot be made or written.
    """
    path = name_work_dir(given, name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"work directory {path} cannot be made: {error.strerror}; name another with --work-dir") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise Invalid(f"work directory {path} cannot be written; name another with --work-dir")
    return path.resolve()


async def open_store(url: str, work_dir: Path, name: str, section: StoreSection | None = None) -> Store:
    """The store that `--store` names; SQLite in the work directory unless told.

    Errors: `Invalid` for an unknown form, or files that cannot be read; `StoreFailed` when it cannot be opened, or half
    of a snapshot lies in it.
    """
    store = await open_raw_store(url, work_dir, name, section)
    try:
        if await store.get(RESTORING) is None:
            return store
    except BaseException:
        await store.close()
        raise
    await store.close()
    raise StoreFailed(f"a restore into store {url or name} was interrupted; run corral snapshot restore again")


async def open_raw_store(url: str, work_dir: Path, name: str, section: StoreSection | None = None) -> Store:
    """As `open_store`, whatever lies in it."""
    kind, path = parse_store(url)
    if kind == "memory":
        return MemoryStore()
    if kind == "etcd":
        return await open_etcd(etcd_settings(path, section or StoreSection()))
    return await open_sqlite(path or str(work_dir / f"{name}.db"))


def etcd_settings(url: str, section: StoreSection) -> EtcdSettings:
    """What an `etcd://` URL and its section say. Shapes: TLS is spoken when anything of it is named, or to `etcds://`.

    Errors: `Invalid` for files that cannot be read or are no certificates.
    """
    addresses, root = parse_etcd(url)
    tls = None
    if url.startswith("etcds:") or section.ca or section.cert:
        try:
            tls = make_tls(section.ca, section.cert, section.key)
        except OSError as error:
            named = ", ".join(f"{n} {getattr(section, n)}" for n in ("ca", "cert", "key") if getattr(section, n))
            raise Invalid(f"of store.{named} something cannot be used: {error}; give PEM files that fit") from None
    password = ""
    if section.password_file:
        try:
            password = Path(section.password_file).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"store.password_file {section.password_file} cannot be read: {error}") from None
    return EtcdSettings(
        endpoints=tuple(f"{'https' if tls is not None else 'http'}://{address}" for address in addresses),
        root=root,
        user=section.user,
        password=password,
        tls=tls,
        timeout_s=section.timeout_s,
        max_txn_ops=section.max_txn_ops,
        max_request_bytes=section.max_request_bytes,
    )


class Recording:
    """Makes journals below a work directory, or none. Shapes: `drain` as the loops use it."""

    def __init__(self, directory: Path | None, drain: int = DRAIN) -> None:
        self._directory = directory
        self._drain = drain

    def journal(self, component: str, kind: str, seed: int, config: Any) -> Journal | None:
        if self._directory is None:
            return None
        header = Header(component=kind, seed=seed, drain=self._drain, config=msgspec.msgpack.encode(config))
        return Journal(str(self._directory / "journal" / f"{component}.journal"), header)


def replayable_cores() -> dict[str, Replayable]:
    """How each component's journal is run again."""
    from corral.standalone.frameworks import replayable_frameworks

    def master(header: Header) -> Core:
        config = msgspec.msgpack.decode(header.config, type=MasterConfig)
        # Decisions are the same, and a journal may be run where nothing can be compiled.
        return MasterCore(msgspec.structs.replace(config, compiled="no"), Random(header.seed))

    def agent(header: Header) -> Core:
        return AgentCore(msgspec.msgpack.decode(header.config, type=AgentConfig), Random(header.seed))

    return {
        "master": Replayable(MasterInput, master),
        "agent": Replayable(AgentInput, agent),
        **replayable_frameworks(),
    }


def draw_seed() -> int:
    return secrets.randbits(63)


class MasterPart:
    """The kernel of one process: its loop, its shell (the endpoint of in-process frameworks) and its routes."""

    def __init__(
        self,
        config: Config,
        store: Store,
        bound: socket.socket,
        notes: Notes,
        recording: Recording,
        trace: Recorder | None = None,
        fence: Fence | None = None,
        scheme: str = "http",
    ) -> None:
        host, port = bound.getsockname()[:2]
        master_config = describe_master(config, host, port, scheme)
        seed = draw_seed()
        self.shell = MasterShell()
        self.core = MasterCore(master_config, Random(seed), stopwatch)
        self.loop = Loop(
            self.core,
            self.shell,
            store,
            prefix="master/",
            name="master",
            clock=FollowingClock(),
            notes=notes,
            recorder=_together(recording.journal("master", "master", seed, master_config), trace),
            fence=fence,
        )
        self.shell.attach(self.loop)
        self.service = _ClosingService(self.loop, self.shell)
        self.routes: Sequence[Route | RawRoute] = master_routes.routes(self.loop, self.shell)


class _ClosingService:
    """The master's loop; when it ends, so do the streams of all who listened to it."""

    def __init__(self, loop: Loop, shell: MasterShell) -> None:
        self.name = loop.name
        self._loop = loop
        self._shell = shell

    async def run(self) -> int:
        try:
            return await self._loop.run()
        finally:
            self._shell.close()

    def stop(self) -> None:
        self._loop.stop()


def advertise(config: Config, server: Server) -> str:
    """The URL by which others reach what is served here.

    Errors: `Invalid` when all addresses are listened on and none of them leads to the store.
    """
    host, _ = parse_listen(config.master.listen, "master.listen")
    scheme = server.url.partition("://")[0]
    found = config.master.hostname or _reachable(host, _first_endpoint(config.master.store), "master.hostname")
    return f"{scheme}://[{found}]:{server.port}" if ":" in found else f"{scheme}://{found}:{server.port}"


def _first_endpoint(store: str) -> str:
    """Where the store is, as far as it is elsewhere; without one, any address will do that leads out of this node."""
    rest = store.partition("://")[2].partition(",")[0]
    return rest.rpartition("@")[2].partition("/")[0] if rest and not store.startswith("sqlite") else "127.0.0.1:4680"


def describe_master(config: Config, host: str, port: int, scheme: str = "http") -> MasterConfig:
    """What the master's core is told of the configuration and its address."""
    return MasterConfig(
        hostname=config.master.hostname or host,
        ip=host,
        port=port,
        scheme=scheme,
        version=MESOS_VERSION,
        headroom=parse_headroom(config.kernel.headroom),
        evictions_per_minute=config.kernel.evictions_per_minute,
        compiled=config.kernel.compiled,
        domain=parse_domain(config.master.domain),
        rate_limits=parse_rate_limits(config.kernel.rate_limits),
        removal_every_s=parse_removal_rate(config.kernel.agent_removal_rate_limit),
        most_completed_frameworks=config.kernel.max_completed_frameworks,
        most_completed_tasks=config.kernel.max_completed_tasks_per_framework,
        most_unreachable_tasks=config.kernel.max_unreachable_tasks_per_framework,
        **_shared(config.kernel, MasterConfig),
    )


def _together(*recorders: Recorder | None) -> Recorder | None:
    found = [one for one in recorders if one is not None]
    return Recorders(*found) if len(found) > 1 else next(iter(found), None)


def _shared(section: KernelSection | AgentSection, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The values of a section that a component's configuration has under the same name."""
    names = {f.name for f in msgspec.structs.fields(kind)}
    return {f.name: getattr(section, f.name) for f in fields(section) if f.name in names and f.name.endswith("_s")}


class AgentPart:
    """One agent: its services in starting order. `open` makes it."""

    def __init__(
        self,
        core: AgentCore,
        shell: AgentShell,
        loop: Loop,
        server: Server,
        services: Sequence[Service],
        store: Store,
        gate: AgentGate | None = None,
    ) -> None:
        self._gate = gate
        self._core = core
        self._shell = shell
        self.loop = loop
        self.server = server
        self.services = services
        self._store = store

    @property
    def joined(self) -> bool:
        """Whether a master has taken this agent in."""
        return self._core.state.registered

    async def close(self) -> None:
        """Let go of runtimes and journal. Tasks run on."""
        if self._gate is not None:
            await self._gate.close()
        await self._shell.close()
        await self._store.close()


async def open_agent(
    section: AgentSection,
    work_dir: Path,
    master_url: str,
    notes: Notes,
    *,
    label: str = "agent",
    share: tuple[int, int] = (0, 1),
    more_routes: Sequence[Route | RawRoute] = (),
    trust: AgentTrust | None = None,
) -> AgentPart:
    """An agent ready to run.

    Shapes: `master_url` may name several, with commas between them; with `share` (i, n) it is the i-th of n
    agents that divide this node among them; with `trust` it speaks TLS.

    Errors: `Invalid` for an address, resources or attributes that cannot be used.
    """
    host, port = parse_listen(section.listen, "agent.listen")
    warning = check_exposure(host, section.insecure, "agent.listen", secure=trust is not None, remedy=JOIN_FIRST)
    if warning:
        log.warning("exposed", why=warning)
    bound = bind(host, port)
    masters = split_masters(master_url, "agent.master")
    runtimes = await _open_runtimes(section, work_dir)
    ip = section.ip or _reachable(host, masters[0])
    agent_config = AgentConfig(
        hostname=section.name or (ip if ip.startswith("127.") else socket.gethostname()),
        ip=ip,
        port=bound.getsockname()[1],
        resources=divide(detect_resources(str(work_dir), section.resources), section.resources, *share),
        attributes=parse_attributes(section.attributes),
        domain=parse_domain(section.domain),
        runtimes=tuple(runtimes),
        work_dir=str(work_dir),
        version=__version__,
        switch_user=os.geteuid() == 0,
        oversubscribe=section.oversubscribe,
        oversubscribe_margin=section.oversubscribe_margin,
        oversubscribe_pressure=section.oversubscribe_pressure,
        start_after_reboot=section.start_after_reboot,
        boot_id=read_boot_id(),
        **_shared(section, AgentConfig),
    )
    seed = draw_seed()
    access = trust.access if trust is not None else NO_ACCESS
    link = Link(masters, Random(draw_seed()), access=access)
    mint = trust.executors.make if trust is not None else None
    secret_files = SecretFiles(draw_name(work_dir), link.fetch_secrets)
    fetcher = Fetcher(str(work_dir / "fetched"))
    shell = AgentShell(
        runtimes, link, Sandboxes(str(work_dir)), fetcher, mint, secret_files, ContactFile(contact_path(str(work_dir)))
    )
    recording = Recording(work_dir if section.journal else None)
    store = await open_store("", work_dir, "agent")
    core = AgentCore(agent_config, Random(seed))
    loop = Loop(
        core,
        shell,
        store,
        prefix="agent/",
        name=label,
        clock=LastingClock(str(work_dir / "clock"), read_boot_id()),
        notes=notes,
        recorder=recording.journal("agent", "agent", seed, agent_config),
    )
    link.tell = loop.tell
    services: list[Service] = [loop, Background(f"{label} link", link.run)]
    gate = None
    if trust is not None:

        def master() -> str:
            return core.state.master or complete_url(masters[0], access)

        gate = trust.make_gate(master)
        services += trust.services(label, master)
    server = Server(
        [*more_routes, *agent_routes.routes(loop, shell)], bound, name=f"{label} server",
        tls=trust.keys.server() if trust is not None else None, gate=gate,
    )  # fmt: skip
    services.insert(1, server)
    return AgentPart(core, shell, loop, server, services, store, gate)


def _reachable(host: str, master_url: str, key: str = "agent.ip") -> str:
    """The address that others use for a listening address: for all addresses, the one that leads to the master."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104
        return host
    master = urlsplit(master_url if "://" in master_url else f"//{master_url}")
    family = socket.AF_INET if host == "0.0.0.0" else socket.AF_INET6  # noqa: S104
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a datagram socket only asks the routing table.
            probe.connect((master.hostname, master.port or 4680))
        except OSError as error:
            raise Invalid(
                f"no address of this node leads to {master_url}: {error.strerror or error}; "
                f"say which one others use with --set {key}=ADDRESS"
            ) from None
        return str(probe.getsockname()[0])


async def _open_runtimes(section: AgentSection, work_dir: Path) -> dict[str, TaskRuntime]:
    """What this agent runs tasks with: what was named, else everything that is ready here.

    Imported late: an agent without Docker does without the Docker client.
    """
    from corral.process.guards import Guards
    from corral.process.runtime import ProcessRuntime

    wanted = section.runtime or ("docker", "process")
    found: dict[str, TaskRuntime] = {}
    for name in wanted:
        if name == "process":
            process = ProcessRuntime(str(work_dir / "processes"), open_files=OPEN_FILES_OF_TASKS)
            if process.notes:
                log.warning("limits of process tasks are not kept", why="; ".join(process.notes))
            found[name] = process
            continue
        from corral.docker.engine import DockerEngine, engine_url
        from corral.docker.runtime import DockerRuntime

        owner = work_dir / "owner"
        url = engine_url(section.docker_host or None)
        guards = Guards(str(work_dir / "guards"), url.removeprefix("unix://") if url.startswith("unix://") else "")
        docker = DockerRuntime(DockerEngine(url), owner=read_owner(owner), guards=guards)
        why = await docker.ready()
        # An Engine that is only away may hold tasks of this agent: it is kept, and looked for until it is back.
        if why is None or section.runtime or owner.exists():
            write_owner(owner, docker.owner)
            found[name] = docker
        else:
            await docker.close()
        if why is not None:
            log.warning("docker not ready", why=why)
    return found


def draw_name(work_dir: Path) -> str:
    """The same name for the same work directory, and another one for every other."""
    return hashlib.sha256(str(work_dir).encode()).hexdigest()[:16]


def read_owner(path: Path) -> str:
    """The name for what this agent starts elsewhere, such as containers: a new one until `write_owner` keeps it."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return secrets.token_hex(8)


def write_owner(path: Path, name: str) -> None:
    """Keep the name, whole or not at all, before anything is started under it."""
    if path.exists():
        return
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="ascii") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def divide(resources: Resources, given: str, index: int, count: int) -> Resources:
    """The share of one of `count` agents on one node: detected amounts are divided, given ones are each agent's own.

    Ports are always divided, as two agents of one node cannot hand out the same one.
    """
    if count == 1:
        return resources
    named = named_in(read_agent_resources(given))
    return normal(_part(r, index, count, r.name in named) for r in resources)


def _part(resource: Resource, index: int, count: int, given: bool) -> Resource:
    if resource.kind is ResourceKind.RANGES:
        spans = []
        for low, high in resource.ranges:
            size = (high - low + 1) // count
            if size:
                spans.append((low + index * size, low + (index + 1) * size - 1))
        return msgspec.structs.replace(resource, ranges=tuple(spans))
    return resource if given else msgspec.structs.replace(resource, milli=resource.milli // count)
