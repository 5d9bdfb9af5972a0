"""Speaks to the members of an etcd cluster: one request at one of its endpoints, with what it needs to be let in.

An attempt ends in an answer, in a refusal that is certain, or in doubt. Whoever asks decides what doubt means: reading
goes on at the next endpoint, writing has to be arranged so that asking twice does no harm.
Source: etcd v3.4 gRPC gateway; `clientv3` for what is worth another attempt.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, TypeVar

import aiohttp
import msgspec

from corral.lib.log import get_logger
from corral.store.base import StoreFailed
from corral.store.etcd import wire

log = get_logger("store")

_PAUSE_S = 0.05
_MOST_PAUSE_S = 0.5

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a cluster is reached and what it takes.

    Shapes: `endpoints` are base URLs; `root` is put before every key; limits are what the members' `--max-txn-ops` and
    `--max-request-bytes` say. Units: within `timeout_s` a request has to succeed at some endpoint.
    """

    endpoints: tuple[str, ...]
    root: str = "/corral/"
    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    timeout_s: float = 10.0
    max_txn_ops: int = 128
    max_request_bytes: int = 1_572_864


class Refused(Exception):
    """An answer of etcd that is an error, and certain: what was asked was not done."""

    def __init__(self, trouble: wire.Trouble, endpoint: str) -> None:
        super().__init__(f"etcd at {endpoint} refuses: {trouble.text}")
        self.code = trouble.kind
        self.text = trouble.text


class Doubt(Exception):
    """No answer. Shapes: `sent` says whether the request may have been carried out all the same."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Gateway:
    """The endpoints of one cluster; the one that answered last is asked first. Made within a running loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closed = False
        self._at = 0
        self._token = ""
        self._login = asyncio.Lock()
        connector = aiohttp.TCPConnector(
            limit=0, ssl=settings.tls if settings.tls is not None else True, keepalive_timeout=60.0
        )
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        # One endpoint that hangs must leave time to ask another.
        share = max(1, min(len(settings.endpoints), 3))
        self.attempt_s = settings.timeout_s / (share + 1) if share > 1 else settings.timeout_s / 2

    @property
    def endpoint(self) -> str:
        return self.settings.endpoints[self._at % len(self.settings.endpoints)]

    def move_on(self, endpoint: str) -> None:
        """Ask another endpoint first from now on, unless somebody has seen to that already."""
        if endpoint == self.endpoint:
            self._at += 1

    async def close(self) -> None:
        self.closed = True
        await self._session.close()

    async def ask(self, path: str, body: Mapping[str, Any], kind: type[T], *, stream: bool = False) -> T:
        """The answer to something that does no harm when it is asked twice, from whichever endpoint gives it.

        Shapes: with `stream` the answer is the first line of a stream.
        Errors: `Refused`; `StoreFailed` when none has answered within `timeout_s`.
        """
        data, patience = wire.encode(body), Patience(self.settings.timeout_s)
        while True:
            try:
                return await self.attempt(path, data, kind, stream=stream, within_s=patience.left_s)
            except Doubt as doubt:
                await patience.pause(doubt, self.settings)

    async def attempt(
        self, path: str, data: bytes, kind: type[T], *, stream: bool = False, within_s: float | None = None
    ) -> T:
        """Ask one endpoint once; when it gives no answer the next attempt goes to another.

        Errors: `Refused`; `Doubt`; `StoreFailed` when the user may not do this, or this store is closed.
        """
        endpoint = self.endpoint
        limit_s = self.attempt_s if within_s is None else max(0.05, min(self.attempt_s, within_s))
        again = bool(self.settings.user)
        while True:
            token = await self._enter(endpoint)
            status, answer = await self._post(endpoint, path, data, token, limit_s)
            trouble = None
            try:
                if stream:
                    line = wire.decode(answer.partition(b"\n")[0], wire.StreamAnswer)
                    trouble, answer = line.error, bytes(line.result)
                elif status != 200:
                    trouble = wire.decode(answer, wire.Trouble)
                if trouble is None:
                    return wire.decode(answer, kind)
            except msgspec.DecodeError:
                raise self._strange(endpoint, status, answer, sent=True) from None
            if again and self.is_stale(trouble):
                again = False
                if self._token == token:
                    self._token = ""
                continue
            self.judge(trouble, endpoint)

    async def stream(self, path: str, body: Mapping[str, Any], endpoint: str) -> AsyncGenerator[bytes, None]:
        """The lines of an endless answer of this endpoint.

        Errors: `Doubt` when it breaks or does not begin; `StoreFailed` as `attempt`.
        """
        headers = self._headers(await self._enter(endpoint))
        # A member that has lost its leader then ends the stream rather than keep silent.
        headers["Grpc-Metadata-hasleader"] = "true"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.attempt_s)
        try:
            async with self._session.post(
                endpoint + path, data=wire.encode(body), headers=headers, timeout=timeout
            ) as response:
                parts: list[bytes] = []
                async for chunk in response.content.iter_any():
                    head, newline, rest = chunk.partition(b"\n")
                    parts.append(head)
                    while newline:
                        yield b"".join(parts)
                        head, newline, rest = rest.partition(b"\n")
                        parts = [head]
            if parts and parts != [b""]:
                yield b"".join(parts)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise Doubt(f"the stream of {endpoint} broke: {_name(error)}", sent=True) from None
        raise Doubt(f"{endpoint} ended the stream", sent=True)

    def judge(self, trouble: wire.Trouble, endpoint: str) -> None:
        """Raise what an error answer means. A member without a leader may still carry out what it was asked."""
        text = trouble.text
        if trouble.kind == wire.PERMISSION_DENIED:
            raise StoreFailed(
                f"etcd at {endpoint} denies user {self.settings.user or '(none)'} what is below {self.settings.root}; "
                f"grant it: etcdctl role grant-permission ROLE --prefix=true readwrite {self.settings.root.rstrip('/')}"
            )
        if trouble.kind == wire.UNAUTHENTICATED or text == "user name is empty":
            raise StoreFailed(
                f"etcd at {endpoint} asks who this is: {text}; name a user with store.user and store.password_file"
            )
        if trouble.kind == wire.RESOURCE_EXHAUSTED and "too many requests" in text:
            raise Doubt(f"{endpoint} has too many requests", sent=False)
        if trouble.kind in (wire.UNAVAILABLE, 0, 1, 2, 4, 10, 13) or "timed out" in text or "not leader" in text:
            self.move_on(endpoint)
            raise Doubt(f"{endpoint} says: {text or 'nothing'}", sent=True)
        raise Refused(trouble, endpoint)

    @staticmethod
    def is_stale(trouble: wire.Trouble) -> bool:
        """Whether a new token helps: the member forgot it at a restart, it is too old, or rights have changed."""
        return "invalid auth token" in trouble.text or "revision of auth store is old" in trouble.text

    async def _enter(self, endpoint: str) -> str:
        """The token of this user, fetched when there is none; "" without a user or where nobody needs one."""
        if not self.settings.user:
            return ""
        return self._token or await self._fetch_token(endpoint)

    async def _fetch_token(self, endpoint: str) -> str:
        async with self._login:
            if self._token:
                return self._token
            data = wire.encode({"name": self.settings.user, "password": self.settings.password})
            status, answer = await self._post(endpoint, "/v3/auth/authenticate", data, "", self.attempt_s, sent=False)
            try:
                if status == 200:
                    self._token = wire.decode(answer, wire.TokenAnswer).token
                    return self._token
                trouble = wire.decode(answer, wire.Trouble)
            except msgspec.DecodeError:
                raise self._strange(endpoint, status, answer, sent=False) from None
        if "authentication is not enabled" in trouble.text:
            return ""
        if "authentication failed" in trouble.text:
            raise StoreFailed(
                f"etcd at {endpoint} does not know user {self.settings.user} with this password; "
                f"check store.user and store.password_file"
            )
        self.move_on(endpoint)
        raise Doubt(f"{endpoint} lets nobody in: {trouble.text}", sent=False)

    def _strange(self, endpoint: str, status: int, answer: bytes, *, sent: bool) -> Doubt:
        """What an answer that is no JSON of etcd's means. Errors: `StoreFailed` for a certificate it never takes."""
        if answer.startswith(b"CommonName of client"):
            raise StoreFailed(
                f"etcd at {endpoint} has users, and then its gateway takes no certificate that bears a common name; "
                f"give store.cert one whose subject has none"
            )
        self.move_on(endpoint)
        return Doubt(f"{endpoint} answered {status} with what etcd does not say", sent=sent)

    def forget_token(self) -> None:
        self._token = ""

    async def probe(self, endpoint: str) -> None:
        """Ask this member something that only one with a quorum behind it can answer. Errors: `Doubt`."""
        body = wire.encode({"key": self.settings.root.encode() or b"\0", "count_only": True})
        status, _ = await self._post(endpoint, "/v3/kv/range", body, await self._enter(endpoint), self.attempt_s)
        if status >= 500:
            raise Doubt(f"{endpoint} answers {status}", sent=True)

    def _headers(self, token: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = token
        return headers

    async def _post(
        self, endpoint: str, path: str, data: bytes, token: str, limit_s: float, *, sent: bool = True
    ) -> tuple[int, bytes]:
        """Errors: `Doubt`; nothing was `sent` when not even a connection came about."""
        if self.closed:
            raise StoreFailed("the etcd store is closed")
        timeout = aiohttp.ClientTimeout(total=limit_s)
        try:
            async with self._session.post(
                endpoint + path, data=data, headers=self._headers(token), timeout=timeout
            ) as response:
                return response.status, await response.read()
        except aiohttp.ClientConnectorError as error:
            self.move_on(endpoint)
            raise Doubt(f"{endpoint} cannot be reached: {_name(error)}", sent=False) from None
        except TimeoutError:
            self.move_on(endpoint)
            raise Doubt(f"{endpoint} gave no answer within {limit_s:.3g} s", sent=sent) from None
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            if self.closed:
                raise StoreFailed("the etcd store was closed meanwhile") from None
            self.move_on(endpoint)
            raise Doubt(f"{endpoint} broke off: {_name(error)}", sent=sent) from None


class Patience:
    """How long something is tried again, and the pause between two attempts."""

    __slots__ = ("_clock", "_ends_at", "_pause_s", "_since_at")

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_at = clock()
        self._ends_at = self._since_at + timeout_s
        self._pause_s = _PAUSE_S

    @property
    def left_s(self) -> float:
        return self._ends_at - self._clock()

    async def pause(self, doubt: Doubt, settings: Settings, outcome: str = "") -> None:
        """Errors: `StoreFailed`, with `outcome`, when there is no time left."""
        if self.left_s <= self._pause_s:
            names = ", ".join(settings.endpoints)
            raise StoreFailed(
                f"etcd ({names}) has not answered for {self._clock() - self._since_at:.3g} s: {doubt}; "
                f"{outcome and outcome + '; '}see to it that most of its members run and are reached"
            )
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _MOST_PAUSE_S)


def make_tls(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Trust this authority alone, the system's when it is not given, and show this certificate.

    Errors: `OSError` and `ssl.SSLError` from reading the files.
    """
    context = ssl.create_default_context(cafile=ca or None)
    if cert:
        context.load_cert_chain(cert, key or None)
    return context


def _name(error: BaseException) -> str:
    return str(error) or type(error).__name__
