"""The daemons as processes: read the configuration, make the parts, run them as one, leave with an exit code."""

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

from corral import __version__
from corral.allocator.view import Settings
from corral.lib.config import describe_config
from corral.lib.errors import Unavailable
from corral.lib.log import configure_log, get_logger
from corral.net.access import NO_ACCESS
from corral.net.routes import RawRoute, Route
from corral.net.server import Server, bind
from corral.runtime.election import Candidate
from corral.runtime.leader import Election, Tenure
from corral.runtime.notes import Notes
from corral.runtime.renewal import Renewal, draw_instance
from corral.runtime.routes import abdication_route
from corral.runtime.routes import routes as process_routes
from corral.runtime.service import STORE_FAILED, Background, Service, run_services
from corral.runtime.turn import Recorder
from corral.sdk.framework import FrameworkService
from corral.sdk.http import HttpTransport
from corral.sdk.local import LocalTransport
from corral.standalone.config import (
    ALONE,
    Config,
    allocator_settings,
    check_exposure,
    parse_listen,
    parse_store,
    read_config,
    split_masters,
    wants_tls,
)
from corral.standalone.discovery import open_dns
from corral.standalone.forms import Form
from corral.standalone.frameworks import find_builder, make_framework
from corral.standalone.limits import raise_open_files
from corral.standalone.parts import (
    AgentPart,
    MasterPart,
    Recording,
    advertise,
    choose_work_dir,
    draw_seed,
    open_agent,
    open_store,
)
from corral.standalone.reign import Leading, Reign
from corral.standalone.trust import (
    LISTEN_JOINED,
    MasterTrust,
    find_agent_trust,
    find_client_access,
    init_authority,
    join_cluster,
    open_master_trust,
)
from corral.standalone.vault import VaultPart, open_keys, react_to_secrets
from corral.store.base import Store, StoreFailed
from corral.store.lasting import LastingStore
from corral.trust.routes import absent_routes

log = get_logger("corral")

READY_TIMEOUT_S = 10.0

Origins = dict[str, str]


BeginTrace = Callable[[Settings], Recorder]
"""Begins one more recording of what the master's core is told and decides, handed in from above."""


def run_dev(
    file: str | None,
    sets: Sequence[str],
    *,
    agents: int = 1,
    show_config: bool = False,
    begin_trace: BeginTrace | None = None,
) -> int:
    """Run a whole cluster in one process until a signal; returns the exit code."""

    def work(config: Config, origins: Origins, renewals: list[Renewal]) -> Awaitable[int]:
        # Compiling takes longer than anybody waits for a cluster to try things on.
        compiled = "no" if origins["kernel.compiled"] == "default" else config.kernel.compiled
        kernel = dataclasses.replace(config.kernel, compiled=compiled)
        return _dev(dataclasses.replace(config, kernel=kernel), agents, begin_trace, renewals)

    return _run(file, sets, show_config, work)


def run_master(
    file: str | None, sets: Sequence[str], *, show_config: bool = False, begin_trace: BeginTrace | None = None
) -> int:
    """Run the kernel and its frameworks until a signal; returns the exit code."""
    return _run(file, sets, show_config, lambda config, origins, renewals: _master(config, begin_trace, renewals))


def run_agent(file: str | None, sets: Sequence[str], *, show_config: bool = False) -> int:
    """Run the agent of this node until a signal; returns the exit code."""
    return _run(file, sets, show_config, _agent)


def run_join(target: str, file: str | None, sets: Sequence[str], *, start: bool, show_config: bool = False) -> int:
    """Take this node into the cluster of `TOKEN@HOST[:PORT]`, then, with `start`, run its agent until a signal."""

    async def work(config: Config, origins: Origins, renewals: list[Renewal]) -> int:
        await join_cluster(target, config, choose_work_dir(config.agent.work_dir, "agent"))
        return await _agent(config, origins, renewals) if start else 0

    return _run(file, sets, show_config, work)


def run_ca_init(file: str | None, sets: Sequence[str]) -> int:
    """Make the authority of a new cluster in its store, before any master has run; returns the exit code."""

    async def work(config: Config, origins: Origins, renewals: list[Renewal]) -> int:
        work_dir = choose_work_dir(config.master.work_dir, "master")
        store = await open_store(config.master.store, work_dir, "master", config.store)
        try:
            print(await init_authority(config, store))
        finally:
            await store.close()
        return 0

    return _run(file, sets, False, work)


def run_framework(
    name: str, master_url: str, file: str | None, sets: Sequence[str], *, show_config: bool = False
) -> int:
    """Run one framework against a master elsewhere until a signal; returns the exit code."""

    def work(config: Config, origins: Origins, renewals: list[Renewal]) -> Awaitable[int]:
        # The default address is the master's; a framework beside it takes any free port.
        listen = "127.0.0.1:0" if origins["master.listen"] == "default" else config.master.listen
        return _framework(_with_master(config, listen=listen), name, master_url, renewals)

    return _run(file, sets, show_config, work)


Work = Callable[[Config, Origins, "list[Renewal]"], Awaitable[int]]
"""What a daemon does; it adds the ways in which it can be renewed."""


def _run(file: str | None, sets: Sequence[str], show: bool, work: Work) -> int:
    config, origins = read_config(file, sets)
    if show:
        for key, value, origin in describe_config(config, origins):
            print(f"{key} = {value}  # {origin}")
        return 0
    configure_log(config.log.format, config.log.level)
    raise_open_files()

    renewals: list[Renewal] = []

    async def main() -> int:
        return await work(config, origins, renewals)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(main())
        for renewal in renewals:
            if renewal.wanted and code == 0:
                renewal.become()
        return code
    except StoreFailed as error:
        log.error("ended", why=str(error))
        return STORE_FAILED
    except KeyboardInterrupt:
        return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the extra `[speed]` is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _with_master(config: Config, *, listen: str | None = None, work_dir: str | None = None) -> Config:
    section = config.master
    changed = dataclasses.replace(section, listen=listen or section.listen, work_dir=work_dir or section.work_dir)
    return dataclasses.replace(config, master=changed)


async def _dev(config: Config, agents: int, begin_trace: BeginTrace | None, renewals: list[Renewal]) -> int:
    work_dir = choose_work_dir(config.master.work_dir, "dev")
    config = _with_master(config, work_dir=str(work_dir))
    async with contextlib.AsyncExitStack() as stack:
        kernel = await _open_kernel(config, stack, begin_trace, renewals, dev=True)
        for index in range(agents):
            section = dataclasses.replace(
                config.agent,
                listen=config.agent.listen if index == 0 else "127.0.0.1:0",
                name=_node_name(config.agent.name, index, agents),
            )
            label = f"agent-{index + 1}" if agents > 1 else "agent"
            directory = choose_work_dir(str(work_dir / label), label)
            trust = kernel.trust.enroll(directory, label, section) if kernel.trust is not None else None
            part = await open_agent(
                section, directory, kernel.server.url, kernel.notes, label=label, share=(index, agents), trust=trust
            )
            kernel.agents.append(part)
            stack.push_async_callback(part.close)
        if agents == 1:
            kernel.renewal.fixed += ["--agent-listen", kernel.agents[0].server.address]
        access = kernel.trust.access if kernel.trust is not None else NO_ACCESS
        kernel.beside += open_dns(config.dns, work_dir, [kernel.server.url], Random(draw_seed()), access)
        return await kernel.run()


def _node_name(given: str, index: int, count: int) -> str:
    """Agents of one node need names of their own; all of 127.0.0.0/8 leads here."""
    if count == 1:
        return given
    return f"{given}-{index + 1}" if given else f"127.0.0.{index + 1}"


async def _master(config: Config, begin_trace: BeginTrace | None, renewals: list[Renewal]) -> int:
    work_dir = choose_work_dir(config.master.work_dir, "master")
    async with contextlib.AsyncExitStack() as stack:
        kernel = await _open_kernel(_with_master(config, work_dir=str(work_dir)), stack, begin_trace, renewals)
        return await kernel.run()


async def _agent(config: Config, origins: Origins, renewals: list[Renewal]) -> int:
    work_dir = choose_work_dir(config.agent.work_dir, "agent")
    trust = find_agent_trust(config.trust, work_dir)
    section = config.agent
    if trust is not None:
        # What this node has joined is what is meant, and others are to reach it.
        given = {"master": trust.joined.master, "listen": LISTEN_JOINED, "name": trust.joined.name}
        kept = {k: v if origins[f"agent.{k}"] == "default" else getattr(section, k) for k, v in given.items()}
        section = dataclasses.replace(section, master=kept["master"], listen=kept["listen"], name=kept["name"])
    renewal = Renewal("agent", draw_instance())
    renewals.append(renewal)
    async with contextlib.AsyncExitStack() as stack:
        part = await open_agent(
            section, work_dir, section.master, Notes(), more_routes=process_routes(renewal), trust=trust
        )
        stack.push_async_callback(part.close)
        renewal.fixed += ["--listen", part.server.address]

        async def announce() -> None:
            await part.loop.ready.wait()
            _say_ready(part.server.url)

        access = trust.access if trust is not None else NO_ACCESS
        masters = split_masters(section.master, "agent.master")
        dns = open_dns(config.dns, work_dir, masters, Random(draw_seed()), access)
        return await run_services([*part.services, *dns, renewal, _once("announce", announce)])


async def _framework(config: Config, name: str, master_url: str, renewals: list[Renewal]) -> int:
    work_dir = choose_work_dir(config.master.work_dir, name)
    host, port = parse_listen(config.master.listen, "master.listen")
    _warn(check_exposure(host, config.master.insecure, "master.listen"))
    bound = bind(host, port)
    notes = Notes()
    async with contextlib.AsyncExitStack() as stack:
        find_builder(name)
        store = await _open_lasting(config, work_dir, name)
        stack.push_async_callback(store.close)
        recording = Recording(work_dir if config.master.journal else None)
        server = Server([], bound)
        access = find_client_access(config.trust)
        transport = HttpTransport(*split_masters(master_url, "--master"), access=access)

        def begin(fence: Tenure) -> Leading:
            service = make_framework(name, config, server.address, transport, store, notes, recording, fence, access)
            # Marathon's clients make a leader go that way, also where the framework has a process to itself.
            more = [abdication_route(renewal)] if name == "services" else []
            return Leading([service], [service.loop], [*service.routes, *more])

        reign, renewal = _make_reign(config, name, store, server, begin)
        renewals.append(renewal)
        return await run_services([reign, renewal, server, _once("announce", lambda: _announce(reign, server))])


async def _open_lasting(config: Config, work_dir: Path, name: str) -> LastingStore:
    """Errors: as `open_store`."""

    async def open_it() -> Store:
        return await open_store(config.master.store, work_dir, name, config.store)

    return LastingStore(await open_it(), open_it)


def _make_reign(
    config: Config,
    name: str,
    store: LastingStore,
    server: Server,
    begin: Callable[[Tenure], Leading],
    trust: MasterTrust | None = None,
) -> tuple[Reign, Renewal]:
    """One candidate for the leadership of `name`, and its process' way to be renewed."""
    instance = draw_instance()
    own = Candidate(id=instance, url=advertise(config, server), version=__version__, pid=os.getpid())
    election = Election(store, name, own, config.kernel.lease_ttl_s, Random(draw_seed()))
    renewal = Renewal(name, instance, leads=lambda: reign.serves)
    renewal.fixed += ["--listen", server.address]
    alone = parse_store(config.master.store)[0] in ALONE
    access, gate = (trust.access, trust.follower_gate) if trust is not None else (NO_ACCESS, None)
    reign = Reign(election, begin, server, renewal, alone=alone, reopen=store.reopen, access=access, gate=gate)
    return reign, renewal


async def _announce(reign: Reign, server: Server) -> None:
    await reign.settled()
    _say_ready(server.url)


class _Kernel:
    """A candidate for leading master: the kernel with the frameworks in its process, and in `dev` its agents."""

    def __init__(self, server: Server, notes: Notes, trust: MasterTrust | None = None) -> None:
        self.server = server
        self.notes = notes
        self.trust = trust
        self.reign: Reign
        self.renewal: Renewal
        self.frameworks: Sequence[FrameworkService] = ()
        self.agents: list[AgentPart] = []
        self.beside: list[Service] = []

    async def run(self) -> int:
        services: list[Service] = [self.reign, *(service for agent in self.agents for service in agent.services)]
        services += self.beside
        if self.trust is not None:
            services.append(self.trust.keeping)
        # The master's server is listed last: it stops first, so nothing new comes in while turns finish.
        return await run_services([*services, self.renewal, self.server, _once("announce", self._announce)])

    async def _announce(self) -> None:
        await self.reign.settled()
        for agent in self.agents:
            await agent.loop.ready.wait()
        if self.reign.serves:
            with contextlib.suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(READY_TIMEOUT_S):
                    if self.trust is not None:
                        await self.trust.provided.wait()
                    await self._joined()
        _say_ready(self.server.url)

    async def _joined(self) -> None:
        """Every framework and agent of this process is known to the kernel."""
        sessions = [service.session for service in self.frameworks]
        # Pure cores have no event to wait for, and this ends in a moment.
        while not (all(a.joined for a in self.agents) and all(s.connected for s in sessions)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _open_kernel(
    config: Config,
    stack: contextlib.AsyncExitStack,
    begin_trace: BeginTrace | None,
    renewals: list[Renewal],
    *,
    dev: bool = False,
) -> _Kernel:
    work_dir = choose_work_dir(config.master.work_dir, "master")
    host, port = parse_listen(config.master.listen, "master.listen")
    secure = wants_tls(host, config.master.insecure, config.trust.tls)
    _warn(check_exposure(host, config.master.insecure, "master.listen", secure=secure))
    bound = bind(host, port)
    store = await _open_lasting(config, work_dir, "master")
    stack.push_async_callback(store.close)
    keys = open_keys(config.vault, work_dir, make=dev)
    trace = begin_trace(allocator_settings(config.kernel)) if begin_trace is not None else None
    # Before it stands for election: whoever is elected has to serve at once.
    form = Form(config.kernel.compiled)
    await form.warm()
    for name in config.master.frameworks:
        find_builder(name)
    recording = Recording(work_dir if config.master.journal else None)
    trust = await open_master_trust(config, store, work_dir, host) if secure else None
    access = trust.access if trust is not None else NO_ACCESS
    server = Server([], bound, name="server", tls=trust.keys.server() if trust is not None else None)
    kernel = _Kernel(server, Notes(), trust)
    kernel.beside += form.services
    scheme = server.url.partition("://")[0]
    address = f"{config.master.hostname or host}:{server.port}"

    def begin(fence: Tenure) -> Leading:
        nonlocal trace
        # A trace tells of one start: after an outage of the store the master knows its agents anew.
        begun, trace = trace, None
        part = MasterPart(form.of(config), store, bound, kernel.notes, recording, begun, fence, scheme)
        form.follow(part.core)
        kernel.frameworks = [
            make_framework(
                name, config, address, LocalTransport(part.shell), store, kernel.notes, recording, fence, access
            )
            for name in config.master.frameworks
        ]
        log.info("leading", url=server.url, frameworks=" ".join(config.master.frameworks) or "none")
        reactions = [react_to_secrets(s) for s in kernel.frameworks if s.framework.info.name == "services"]
        roles = [role for role in (config.services.role, config.services.volume_role) if role]
        vault = VaultPart(keys, store, kernel.notes, part.loop.ask, fence, reactions, roles)
        loops = [part.loop, vault.loop, *(service.loop for service in kernel.frameworks)]
        routes: list[Route | RawRoute] = [*part.routes, *vault.routes]
        for service in kernel.frameworks:
            routes += service.routes
        # After Marathon's own, whose words an unknown path below /v2 is answered with.
        routes.append(abdication_route(kernel.renewal))
        if trust is None:
            return Leading([part.service, *vault.services, *kernel.frameworks], loops, [*routes, *absent_routes()])

        async def masters() -> Sequence[str]:
            return [candidate.url for candidate, _ in await kernel.reign.members()]

        keeper = trust.lead(store, kernel.notes, fence, masters, kernel.server.recheck)
        return Leading(
            [part.service, *vault.services, *kernel.frameworks, *keeper.services],
            [*loops, keeper.loop],
            [*routes, *keeper.routes],
            keeper.gate,
        )

    kernel.reign, kernel.renewal = _make_reign(config, "master", store, server, begin, trust)
    renewals.append(kernel.renewal)
    log.info("starting", url=server.url, store=config.master.store or "sqlite")
    return kernel


def _once(name: str, work: Callable[[], Awaitable[None]]) -> Service:
    """Work that is done once and whose end is not the daemon's end."""

    async def then_wait() -> None:
        await work()
        await asyncio.Event().wait()

    return Background(name, then_wait)


def _warn(warning: str | None) -> None:
    if warning:
        log.warning("exposed", why=warning)


def _say_ready(url: str) -> None:
    # Programs wait for this line, so it goes to standard output by itself and at once.
    print(f"ready url={url}", flush=True)
