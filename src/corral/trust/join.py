"""A node's side of trust: joining with a token, and renewing its certificate before it ends.

The token names the cluster's authority by the fingerprint of its key. The first contact therefore takes the authority
from whoever answers, and goes no further unless it is the one of the token; only then is the secret sent.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import aiohttp
import msgspec

from corral.lib.backoff import grow_delay_s
from corral.lib.clock import Clock, system_clock
from corral.lib.errors import CorralError, Failed, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from corral.lib.log import get_logger
from corral.lib.units import write_instant
from corral.net.access import Access, complete_url
from corral.net.auth import Token, read_token_text
from corral.net.certificates import Certificate, fingerprint_of, make_key, make_request
from corral.net.client import open_session
from corral.net.keyring import Keyring, write_whole
from corral.net.tls import context_of, explain_tls
from corral.trust.rights import CA_PATH, JOIN_PATH, RENEW_PATH, SELF_PATH

log = get_logger("trust")

TIMEOUT_S = 10.0
CHECK_TIMEOUT_S = 5.0
TRIES = 4
FIRST_RETRY_S = 0.5
JOINED_FILE = "joined.json"
DEFAULT_PORT = 4680

_KINDS: dict[int, type[CorralError]] = {
    400: Invalid, 401: Unauthenticated, 403: Forbidden, 404: NotFound, 503: Unavailable,
}  # fmt: skip


class Joined(msgspec.Struct, frozen=True):
    """What a node remembers of its joining. Shapes: `master` are the URLs of all, with commas between them."""

    master: str
    name: str
    names: tuple[str, ...] = ()


class _Granted(msgspec.Struct):
    certificate: str
    ca: str
    expires_at: float = 0.0
    masters: tuple[str, ...] = ()


def split_target(text: str) -> tuple[Token, list[str]]:
    """Token and masters' URLs of `TOKEN@HOST[:PORT][,HOST[:PORT]...]`.

    Errors: `Invalid` shows the form.
    """
    given, at, hosts = text.strip().rpartition("@")
    if not at or not hosts.strip(","):
        raise Invalid("join takes TOKEN@HOST[:PORT]: the token of `corral token create` and the address of a master")
    token = read_token_text(given)
    if not token.fingerprint:
        raise Invalid("this token is of a caller; nodes join with one of `corral token create` without a name")
    return token, [_master_url(host.strip()) for host in hosts.split(",") if host.strip()]


def _master_url(host: str) -> str:
    if host.startswith("http:"):
        raise Invalid("nodes join over TLS; leave http:// out")
    host = host.removeprefix("https://").rstrip("/")
    bare = host.startswith("[") and host.endswith("]")
    if bare or ":" not in host:
        host = f"{host}:{DEFAULT_PORT}"
    return complete_url("https://" + host)


async def join(token: Token, masters: Sequence[str], keys: Keyring, name: str, names: Sequence[str] = ()) -> Joined:
    """Get a certificate for this node from the first of the masters that answers, and keep it with what renews it.

    Errors: `Forbidden` when the master is of another cluster than the token, or the token is used; `Unauthenticated`
    when it is not known or over; `Unavailable` when nobody answers; nothing is kept then.
    """
    name = name or socket.gethostname()
    for number, master in enumerate(masters):
        try:
            return await _join(token, master, masters, keys, name, names)
        except Unavailable:
            if number == len(masters) - 1:
                raise
    raise Invalid("join needs the address of a master")


async def _join(
    token: Token, master: str, masters: Sequence[str], keys: Keyring, name: str, names: Sequence[str]
) -> Joined:
    ca = await _fetch_authority(master)
    if fingerprint_of(ca) != token.fingerprint:
        raise Forbidden(
            f"master {master} is not of the cluster that made the token, or somebody stands in between; nothing was "
            f"told to it. Look at the address, or make a token there with `corral token create`"
        )
    key = make_key()
    body = {"token": token.text, "name": name, "names": list(names), "request": make_request(key, name).decode()}
    connector = aiohttp.TCPConnector(ssl=context_of(ca.decode("ascii")))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        granted = await _post(session, master + JOIN_PATH, body)
    keys.save(ca, granted.certificate.encode(), key)
    # What was named first: it may be a balancer that outlives any one master.
    joined = Joined(",".join(dict.fromkeys((*masters, *granted.masters))), name, tuple(names))
    write_whole(keys.directory / JOINED_FILE, msgspec.json.encode(joined))
    return joined


async def is_refused(masters: Sequence[str], keys: Keyring) -> bool:
    """Whether a master refuses the certificate that this node has, for it was revoked; not when nobody says so."""
    async with open_session(Access(keys=keys), timeout=aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S)) as session:
        for master in masters:
            try:
                async with session.get(master + SELF_PATH) as answer:
                    return answer.status == 403
            except (aiohttp.ClientError, OSError, TimeoutError):
                continue
    return False


def read_joined(directory: Path) -> Joined | None:
    """What was kept when this node joined. Errors: `Invalid` when it cannot be read."""
    try:
        return msgspec.json.decode((directory / JOINED_FILE).read_bytes(), type=Joined)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Invalid(f"{directory / JOINED_FILE} cannot be read: {error}; join again with a new token") from None


async def _fetch_authority(master: str) -> bytes:
    """The authority that whoever answers there says is its own."""
    connector = aiohttp.TCPConnector(ssl=False)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        for tried in range(TRIES):
            try:
                async with session.get(master + CA_PATH) as answer:
                    body = await answer.read()
                    if answer.status == 200 and b"BEGIN CERTIFICATE" in body:
                        return body
                    raise Failed(
                        f"{master} is no master of a cluster with TLS; it answered {answer.status} to {CA_PATH}"
                    )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = explain_tls(error, master)
                if why is not None or tried == TRIES - 1:
                    why = why or f"{master} does not answer: {error or type(error).__name__}"
                    raise Unavailable(f"master {why}; look whether it runs, and listens there with TLS") from None
            await asyncio.sleep(FIRST_RETRY_S * 2**tried)
    raise AssertionError("the last try has returned or raised")


async def _post(session: aiohttp.ClientSession, url: str, body: object) -> _Granted:
    """Errors: as the master refused; `Unavailable` when it stays away."""
    for tried in range(TRIES):
        try:
            async with session.post(url, json=body) as answer:
                raw, status = await answer.read(), answer.status
            if status == 200:
                return msgspec.json.decode(raw, type=_Granted)
            error: CorralError = _KINDS.get(status, Failed)(_message(raw, status))
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as broken:
            error = Unavailable(explain_tls(broken, url) or f"{url} does not answer: {broken or type(broken).__name__}")
        if not isinstance(error, Unavailable) or tried == TRIES - 1:
            raise error
        await asyncio.sleep(FIRST_RETRY_S * 2**tried)
    raise AssertionError("the last try has returned or raised")


def _message(raw: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(raw)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the master answered {status}: {raw[:200].decode(errors='replace')}"


async def renew(keys: Keyring, master: str, joined: Joined) -> Certificate:
    """The next certificate, with a new key; what is connected stays so.

    Errors: as the master refused; `Unavailable` when none answers.
    """
    key = make_key()
    body = {"request": make_request(key, joined.name).decode(), "names": list(joined.names)}
    async with open_session(Access(keys=keys), timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        granted = await _post(session, master + RENEW_PATH, body)
    keys.save(granted.ca.encode(), granted.certificate.encode(), key)
    return keys.certificate()


def due_s(certificate: Certificate, now: float) -> float:
    """How long until a third of its life is left, from when it is renewed; 0 when that is past."""
    return max(0.0, certificate.not_after - (certificate.not_after - certificate.not_before) / 3 - now)


async def keep_renewed(
    keys: Keyring, master: Callable[[], str], joined: Joined, random: Random, clock: Clock = system_clock
) -> None:
    """Renew this node's certificate whenever its time has come, until cancelled."""
    tries = 0
    while True:
        found = keys.certificate()
        left_s = found.not_after - clock()
        if tries == 0:
            # Nodes that joined together need not all come at once.
            await asyncio.sleep(due_s(found, clock()) * (0.95 + 0.05 * random.random()))
        elif keys.refresh():
            # Somebody let this node join anew meanwhile.
            tries = 0
            continue
        try:
            made = await renew(keys, master(), joined)
            log.info(
                "certificate renewed",
                agent=joined.name,
                why=f"the last one held until {write_instant(found.not_after)}",
            )
            log.debug("certificate", serial=made.serial)
            tries = 0
            continue
        except CorralError as error:
            tries += 1
            level = log.error if left_s <= 0 else log.warning
            what = f"it holds until {write_instant(found.not_after)}"
            if left_s <= 0:
                what = "it has expired: let this node join again, with a token of `corral token create`"
            if tries in (1, 5) or tries % 60 == 0:
                level("certificate not renewed", agent=joined.name, why=f"{error.message}; {what}", tries=tries)
        most_s = max(1.0, min(600.0, abs(left_s) / 20))
        await asyncio.sleep(
            grow_delay_s(tries, first_s=min(1.0, most_s), factor=2.0, most_s=most_s) * (0.5 + random.random() / 2)
        )
