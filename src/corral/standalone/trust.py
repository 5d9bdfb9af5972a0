"""Makes the trust of daemons: a master's authority, keeper, gate and certificate; an agent's keys, gate and renewal."""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

from corral.lib.clock import system_clock
from corral.lib.errors import CorralError, Invalid
from corral.lib.log import get_logger
from corral.lib.units import write_instant
from corral.net.access import Access, access_from, read_token_value
from corral.net.auth import Gate, Token, digest, read_token_text
from corral.net.certificates import Authority, fingerprint_of, make_key
from corral.net.keyring import Keyring, write_secret
from corral.net.routes import Route
from corral.net.system import local_addresses
from corral.runtime.loop import Fence, Loop
from corral.runtime.notes import Notes
from corral.runtime.service import Background, Service
from corral.standalone.config import AgentSection, Config, TrustSection, is_loopback, parse_listen
from corral.store.base import Store
from corral.trust.authority import create_authority, ensure_authority
from corral.trust.core import TrustCore
from corral.trust.gate import AgentGate, ExecutorTokens, FollowerGate, MasterChecker, MasterGate
from corral.trust.join import Joined, due_s, join, keep_renewed, read_joined, split_target
from corral.trust.routes import Masters, routes
from corral.trust.shell import TrustShell
from corral.trust.spec import CreateToken, TrustConfig
from corral.trust.state import find_caller

log = get_logger("trust")

DIRECTORY = "trust"
OPERATOR_FILE = "operator.token"
EXECUTOR_FILE = "executor.key"
LISTEN_JOINED = "0.0.0.0:4681"
"""Where an agent that has joined listens unless told: others are to reach it, and TLS guards it."""

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Keeper:
    """The keeper of trust of a leading master: who may join and who may ask."""

    def __init__(
        self,
        trust: "MasterTrust",
        store: Store,
        notes: Notes,
        fence: Fence,
        masters: Masters,
        recheck: Callable[[], Awaitable[None]],
    ) -> None:
        section = trust.section
        self._path = trust.keys.directory / OPERATOR_FILE
        self._provided = trust.provided
        self._core = TrustCore(
            TrustConfig(
                fingerprint=trust.authority.fingerprint,
                reserved=tuple(name for name in trust.names if not is_loopback(name)),
                certificate_ttl_s=section.certificate_ttl_s,
                join_ttl_s=section.join_ttl_s,
                token_ttl_s=section.token_ttl_s,
            )
        )
        # Without a journal: what comes in here are digests of secrets.
        shell = TrustShell(trust.authority, recheck)
        self.loop = Loop(self._core, shell, store, prefix="trust/", name="trust", notes=notes, fence=fence)
        self.routes: Sequence[Route] = routes(self.loop, self._core.state, trust.authority, masters)
        self.gate: Gate = MasterGate(self._core.state, open_metrics=section.open_metrics)
        self.services: list[Service] = [self.loop, Background("operator token", self._provide_operator)]

    async def _provide_operator(self) -> None:
        """A token beside the keys for whoever may read this master's files: the first caller of a new cluster."""
        await self.loop.ready.wait()
        if not self._holds():
            token = Token(secrets.token_hex(4), secrets.token_hex(20))
            command = CreateToken(
                id=token.id,
                digest=digest(token.secret),
                name="operator",
                ttl_s=0.0,
                by=f"master {socket.gethostname()}",
            )
            # The file goes first: a token that nobody has would be of no use to anybody.
            write_secret(self._path, token.text.encode() + b"\n")
            await self.loop.ask(command)
            log.info("operator token written", path=str(self._path), why="there was none that holds; keep it secret")
        self._provided.set()
        await asyncio.Event().wait()

    def _holds(self) -> bool:
        try:
            token = read_token_text(self._path.read_text(encoding="ascii"))
            find_caller(self._core.state, token, digest(token.secret), system_clock())
        except (OSError, UnicodeDecodeError, CorralError):
            return False
        return True


class MasterTrust:
    """What a master with TLS has, whether it leads or not: the authority, and its own certificate.

    Shapes: `provided` is set once an operator can call a master that leads.
    """

    def __init__(
        self, section: TrustSection, keys: Keyring, authority: Authority, names: Sequence[str], store: Store
    ) -> None:
        self.section = section
        self.keys = keys
        self.authority = authority
        self.names = names
        self.access = Access(keys=keys)
        self.provided = asyncio.Event()
        self.follower_gate: Gate = FollowerGate(store, open_metrics=section.open_metrics)
        self.keeping: Service = Background("certificate", self._keep_issued)

    def lead(
        self, store: Store, notes: Notes, fence: Fence, masters: Masters, recheck: Callable[[], Awaitable[None]]
    ) -> Keeper:
        return Keeper(self, store, notes, fence, masters, recheck)

    def enroll(self, work_dir: Path, name: str, section: AgentSection) -> "AgentTrust":
        """Take an agent of this process in, as if it had joined."""
        keys = Keyring(work_dir / DIRECTORY)
        names = names_of_agent(section)
        _issue(self.authority, keys, name, "agent", names, self.section.certificate_ttl_s)
        return AgentTrust(self.section, keys, Joined("", name, names))

    async def _keep_issued(self) -> None:
        """This master's own certificate, made anew in time."""
        while True:
            await asyncio.sleep(due_s(self.keys.certificate(), system_clock()))
            issue_own(self.authority, self.keys, self.names, self.section.certificate_ttl_s)
            log.info("certificate renewed", why=f"it holds until {write_instant(self.keys.certificate().not_after)}")


async def open_master_trust(config: Config, store: Store, work_dir: Path, host: str) -> MasterTrust:
    """The trust of a cluster whose records are in `store`, its authority made now if there is none.

    Errors: `Invalid` when the authority, its passphrase or this master's files cannot be used.
    """
    section = config.trust
    keep_private(store)
    passphrase = read_passphrase(section.ca_passphrase_file)
    authority = await ensure_authority(store, section.cluster, system_clock(), passphrase)
    keys = Keyring(work_dir / DIRECTORY)
    names = names_of_master(host, config.master.hostname, section.names)
    if not _is_current(keys, authority, names):
        issue_own(authority, keys, names, section.certificate_ttl_s)
    return MasterTrust(section, keys, authority, names, store)


def names_of_master(host: str, hostname: str, more: Sequence[str]) -> tuple[str, ...]:
    """All names and addresses by which callers may know this master."""
    found = [*LOOPBACK, hostname, socket.gethostname(), *more]
    found += local_addresses() if host in WILDCARDS else [host]
    return tuple(dict.fromkeys(name for name in found if name))


def issue_own(authority: Authority, keys: Keyring, names: Sequence[str], life_s: float) -> None:
    """Errors: `Invalid` when the files cannot be written."""
    _issue(authority, keys, socket.gethostname(), "master", names, life_s)


def _issue(authority: Authority, keys: Keyring, name: str, kind: str, names: Sequence[str], life_s: float) -> None:
    key = make_key()
    pem = authority.issue(key.public_key(), name=name, kind=kind, names=names, now=system_clock(), life_s=life_s)
    keys.save(authority.pem, pem, key)


def _is_current(keys: Keyring, authority: Authority, names: Sequence[str]) -> bool:
    if not keys.matches(authority.pem):
        return False
    found = keys.certificate()
    return found.kind == "master" and set(names) <= set(found.names) and due_s(found, system_clock()) > 0


def read_passphrase(path: str) -> bytes:
    """Errors: `Invalid` when the file cannot be read or holds nothing."""
    if not path:
        return b""
    try:
        found = Path(path).read_bytes().strip()
    except OSError as error:
        raise Invalid(f"trust.ca_passphrase_file {path} cannot be read: {error.strerror}") from None
    if not found:
        raise Invalid(f"trust.ca_passphrase_file {path} is empty; write the passphrase into it")
    return found


def keep_private(store: Store) -> None:
    """The authority's key lies in the store: its files are their owner's alone."""
    path = getattr(store, "path", "")
    for each in (path, f"{path}-wal", f"{path}-shm") if path else ():
        with contextlib.suppress(FileNotFoundError):
            os.chmod(each, 0o600)


class AgentTrust:
    """What a node that has joined has: its keys, and those with which it knows its executors."""

    def __init__(self, section: TrustSection, keys: Keyring, joined: Joined) -> None:
        self._section = section
        self.keys = keys
        self.joined = joined
        self.access = Access(keys=keys)
        self.executors = ExecutorTokens(_executor_key(keys.directory / EXECUTOR_FILE))

    def make_gate(self, master: Callable[[], str]) -> AgentGate:
        section = self._section
        return AgentGate(
            self.executors, MasterChecker(self.access, master), open_metrics=section.open_metrics,
            fresh_s=section.token_check_s, grace_s=section.token_grace_s,
        )  # fmt: skip

    def services(self, label: str, master: Callable[[], str]) -> list[Service]:
        random = Random(secrets.randbits(63))
        return [Background(f"{label} certificate", lambda: keep_renewed(self.keys, master, self.joined, random))]


async def init_authority(config: Config, store: Store) -> str:
    """Make the authority of a new cluster; its fingerprint. Errors: `Conflict` when there is one already."""
    keep_private(store)
    passphrase = read_passphrase(config.trust.ca_passphrase_file)
    made = await create_authority(store, config.trust.cluster, system_clock(), passphrase)
    return made.fingerprint


async def join_cluster(target: str, config: Config, work_dir: Path) -> None:
    """Get this node its certificate, unless it has one of that cluster.

    Errors: as `trust/join.py:join`.
    """
    token, masters = split_target(target)
    keys = Keyring(work_dir / DIRECTORY)
    joined = read_joined(keys.directory)
    if joined is not None and keys.exists() and fingerprint_of(keys.authority()) == token.fingerprint:
        found = keys.certificate()
        if found.not_after > system_clock():
            log.info(
                "already joined", agent=found.name, why=f"its certificate holds until {write_instant(found.not_after)}"
            )
            return
    section = config.agent
    if section.listen == AgentSection.listen:
        section = dataclasses.replace(section, listen=LISTEN_JOINED)
    name = section.name or (joined.name if joined is not None else "")
    made = await join(token, masters, keys, name, names_of_agent(section))
    log.info("joined", agent=made.name, master=made.master, why=f"the certificate and its key are in {keys.directory}")


def find_agent_trust(section: TrustSection, work_dir: Path) -> AgentTrust | None:
    """That of the node to which the work directory belongs; None when it has not joined.

    Errors: `Invalid` when its files cannot be used.
    """
    directory = work_dir / DIRECTORY
    joined = read_joined(directory)
    keys = Keyring(directory)
    if joined is None or not keys.exists():
        if section.tls == "on":
            raise Invalid(
                "trust.tls is on, and this node has not joined a cluster; make a token with `corral token create` on a "
                "master, then `corral join TOKEN@HOST` here"
            )
        return None
    found = keys.certificate()
    if found.not_after <= system_clock():
        log.error(
            "certificate expired", agent=found.name,
            why=f"it held until {write_instant(found.not_after)}; let this node join again, its tasks run on",
        )  # fmt: skip
    return AgentTrust(section, keys, joined)


def names_of_agent(section: AgentSection) -> tuple[str, ...]:
    """What callers may dial this agent by."""
    host, _ = parse_listen(section.listen, "agent.listen")
    found = [section.name, section.ip, socket.gethostname(), *LOOPBACK]
    found += local_addresses() if host in WILDCARDS else [host]
    return tuple(dict.fromkeys(name for name in found if name))


def _executor_key(path: Path) -> bytes:
    """Made once: executors that run over a restart of the agent keep their tokens."""
    try:
        found = path.read_bytes()
        if len(found) == 32:
            return found
    except FileNotFoundError:
        pass
    made = secrets.token_bytes(32)
    write_secret(path, made)
    return made


def find_client_access(section: TrustSection) -> Access:
    """What a framework in a process of its own shows: its token, and the authority it trusts.

    Errors: `Invalid` when the token's file cannot be read.
    """
    found = access_from(os.environ)
    token = read_token_value(section.token) if section.token else found.token
    return Access(token=token, cacert=section.cacert or found.cacert)
