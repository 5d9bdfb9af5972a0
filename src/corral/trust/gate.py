"""The gates before the daemons: a master's knows the tokens, an agent's asks the master and remembers for a while.

A gate stands where a daemon speaks TLS. Whoever comes without TLS is told so, except for an executor on the same
machine, whose words cross no network.
"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import aiohttp
import jwt
import msgspec

from corral.lib.clock import Clock, system_clock
from corral.lib.errors import CorralError, Forbidden, Invalid, Unauthenticated, Unavailable
from corral.lib.log import get_logger
from corral.net.access import Access
from corral.net.auth import (
    ANYBODY,
    RENEW_PROCESS_PATH,
    Caller,
    CallerKind,
    Knock,
    Token,
    digest,
    read_app_token,
    read_token,
    read_token_text,
)
from corral.net.client import open_session
from corral.runtime.routes import MASTERS_PATH, PROCESS_PATH
from corral.store.base import Store, StoreFailed
from corral.trust.rights import CHECK_PATH, METRICS_PATHS, check_right, is_of_app, is_open
from corral.trust.spec import TokenRecord, TrustConfig
from corral.trust.state import TrustState, find_caller, find_node

log = get_logger("trust")

EXECUTOR_PATHS = frozenset({"/api/v1/executor", "/slave(1)/api/v1/executor"})
OWN_PATHS = frozenset(
    {PROCESS_PATH, RENEW_PROCESS_PATH, MASTERS_PATH, *METRICS_PATHS, "/metrics/snapshot", "/master/metrics/snapshot"}
)
SCHEDULER_PATHS = frozenset({"/api/v1/scheduler", "/master/api/v1/scheduler"})
CHECK_TIMEOUT_S = 5.0
MOST_REMEMBERED = 10_000
ALGORITHM = "HS256"

WHO_ASKS = (
    "say who asks: send Authorization: Bearer TOKEN (CORRAL_TOKEN, --token); `corral token create --name` makes one"
)


class MasterGate:
    """Decides by what the cluster remembers; needs nobody else."""

    def __init__(self, state: TrustState, *, open_metrics: bool = False, clock: Clock = system_clock) -> None:
        self._state = state
        self._open_metrics = open_metrics
        self._clock = clock

    async def admit(self, knock: Knock) -> Caller:
        _expect_tls(knock)
        if is_open(knock.path, open_metrics=self._open_metrics):
            return ANYBODY
        if read_app_token(knock.headers) is not None and is_of_app(knock.method, knock.path):
            return ANYBODY
        caller = self._find(knock)
        check_right(caller, knock.path, knock.method)
        return caller

    def _find(self, knock: Knock) -> Caller:
        # A token says more than the certificate of the node where its holder works.
        text = _token_of(knock.headers)
        if text is not None:
            token = _read(text)
            return find_caller(self._state, token, digest(token.secret), self._clock())
        match knock.certificate:
            case ("agent", name):
                return find_node(self._state, name)
            case ("master", name):
                return Caller(kind=CallerKind.MASTER, name=name)
        raise Unauthenticated(WHO_ASKS)

    def challenge(self, path: str) -> str:
        realm = "mesos-master-scheduler" if path in SCHEDULER_PATHS else "mesos-master-readwrite"
        return f'Basic realm="{realm}"'


class FollowerGate:
    """Before a master that does not lead: guards what it answers for itself; the leader decides on what is handed on.

    Tokens are looked up in the store, as nobody tells a follower of them.
    """

    def __init__(self, store: Store, *, open_metrics: bool = False, clock: Clock = system_clock) -> None:
        self._store = store
        self._open_metrics = open_metrics
        self._clock = clock

    async def admit(self, knock: Knock) -> Caller:
        _expect_tls(knock)
        if knock.path.rstrip("/") not in OWN_PATHS or is_open(knock.path, open_metrics=self._open_metrics):
            return ANYBODY
        state = TrustState(TrustConfig())
        text = _token_of(knock.headers)
        if text is not None:
            id = _read(text).id
            try:
                found = await self._store.get(f"trust/tokens/{id}")
            except StoreFailed as error:
                raise Unavailable(f"the store does not say now whose token this is: {error}; try again") from None
            if found is not None:
                state.tokens[id] = msgspec.msgpack.decode(found.value, type=TokenRecord)
        return await MasterGate(state, clock=self._clock).admit(knock)

    def challenge(self, path: str) -> str:
        return 'Basic realm="mesos-master-readwrite"'


class ExecutorTokens:
    """What executors show to their agent: signed by it, so that nothing need be kept of each.

    Source: the JSON Web Tokens of Mesos' executor authentication, with its claims fid, eid and cid.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, framework: str, executor: str, container: str) -> str:
        return jwt.encode({"fid": framework, "eid": executor, "cid": container}, self._key, algorithm=ALGORITHM)

    def read(self, text: str) -> Caller:
        """Errors: `Unauthenticated` unless this agent has made it."""
        try:
            claims = jwt.decode(text, self._key, algorithms=[ALGORITHM], options={"require": ["fid", "eid", "cid"]})
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(
                f"this is no token of an executor of this agent ({error}); send MESOS_EXECUTOR_AUTHENTICATION_TOKEN"
            ) from None
        found = {name: str(claims[name]) for name in ("fid", "eid", "cid")}
        return Caller(kind=CallerKind.EXECUTOR, name=found["eid"], claims=found)


class Checker(Protocol):
    async def check(self, token: str) -> Caller:
        """Errors: as the master refused; `Unavailable` when none answers."""

    async def close(self) -> None: ...


class AgentGate:
    """Asks the master who a token's caller is. Units: an answer is good for `fresh_s`, and while no master answers for
    `grace_s`, so that people reach what runs here through an outage."""

    def __init__(
        self,
        executors: ExecutorTokens,
        checker: Checker,
        *,
        open_metrics: bool = False,
        fresh_s: float = 30.0,
        grace_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.executors = executors
        self._checker = checker
        self._open_metrics = open_metrics
        self._fresh_s = fresh_s
        self._grace_s = grace_s
        self._clock = clock
        self._known: dict[str, tuple[Caller, float]] = {}

    async def admit(self, knock: Knock) -> Caller:
        if knock.path in EXECUTOR_PATHS:
            if not knock.local:
                _expect_tls(knock)
            text = _token_of(knock.headers)
            if text is None:
                raise Unauthenticated("executors send Authorization: Bearer MESOS_EXECUTOR_AUTHENTICATION_TOKEN")
            return self.executors.read(text)
        _expect_tls(knock)
        if is_open(knock.path, open_metrics=self._open_metrics):
            return ANYBODY
        text = _token_of(knock.headers)
        if text is not None:
            _read(text)
            return await self._check(text)
        if knock.certificate is not None and knock.certificate[0] == "master":
            return Caller(kind=CallerKind.MASTER, name=knock.certificate[1])
        raise Unauthenticated(WHO_ASKS)

    def challenge(self, path: str) -> str:
        realm = "mesos-agent-executor" if path in EXECUTOR_PATHS else "mesos-agent-readwrite"
        return f'{"Bearer" if path in EXECUTOR_PATHS else "Basic"} realm="{realm}"'

    async def close(self) -> None:
        await self._checker.close()

    async def _check(self, text: str) -> Caller:
        key, now = digest(text), self._clock()
        found, since = self._known.get(key, (None, 0.0))
        if found is not None and now - since < self._fresh_s:
            return found
        try:
            caller = await self._checker.check(text)
        except Unavailable:
            if found is not None and now - since < self._grace_s:
                return found
            raise
        except CorralError:
            self._known.pop(key, None)
            raise
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (caller, now)
        return caller


class MasterChecker:
    """Asks a master by HTTP. Shapes: `master` gives the URL of the one that leads, as far as is known."""

    def __init__(self, access: Access, master: Callable[[], str]) -> None:
        self._access = access
        self._master = master
        self._session: aiohttp.ClientSession | None = None

    async def check(self, token: str) -> Caller:
        if self._session is None:
            self._session = open_session(self._access, timeout=aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S))
        url = self._master() + CHECK_PATH
        try:
            async with self._session.post(url, json={"token": token}) as answer:
                body = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise Unavailable("no master says now whose token this is; try again when one is back") from None
        if status == 200:
            return msgspec.json.decode(body, type=Caller)
        message = _message(body)
        if status == 401:
            raise Unauthenticated(message)
        if status == 403:
            raise Forbidden(message)
        raise Unavailable(f"the master cannot say now whose token this is: {message}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _expect_tls(knock: Knock) -> None:
    if not knock.secure:
        host = knock.headers.get("host", "HOST:PORT")
        raise Invalid(f"this port speaks TLS; ask https://{host}{knock.path} and verify with the cluster's ca.pem")


def _token_of(headers: Mapping[str, str]) -> str | None:
    try:
        return read_token(headers)
    except Invalid as error:
        raise Unauthenticated(error.message) from None


def _read(text: str) -> Token:
    try:
        return read_token_text(text)
    except Invalid as error:
        raise Unauthenticated(error.message) from None
