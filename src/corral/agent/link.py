"""Keeps a session with the leading master: two HTTP requests of one name, orders down and reports up.

Rules: the reports are opened only when the orders have been answered; if either ends, both end, and the next session is
dialled after a growing, jittered delay. A redirect is followed to the leader at once. A master that does not lead is
asked to answer when somebody does, so that a new leader has all agents as soon as it serves. What is not sent when a
session ends is dropped: the next one begins by telling everything.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random
from urllib.parse import urljoin

import aiohttp
import msgspec

from corral.agent.spec import Connected, Disconnected, Ordered
from corral.lib.backoff import grow_delay_s
from corral.lib.errors import Failed, Invalid, Unavailable
from corral.lib.ids import mint_uuid
from corral.lib.log import get_logger
from corral.lib.secret import Secret
from corral.model.orders import Order, Report
from corral.net.access import NO_ACCESS, Access, complete_url
from corral.net.client import open_session
from corral.net.follower import LOST, WAIT
from corral.net.stream import CONTENT_TYPE, ORDERS_PATH, REPORTS_PATH, SECRETS_PATH, FrameReader, pack
from corral.net.tls import explain_tls

log = get_logger("agent")

CONNECT_TIMEOUT_S = 3.0
SECRETS_TIMEOUT_S = 10.0
FIRST_DELAY_S = 0.1
MOST_DELAY_S = 10.0
MOST_DELAY_OF_SEVERAL_S = 2.0
"""With several masters most dials meet one that answers and has the agent wait."""
MOST_REDIRECTS = 8
WAIT_S = 8
"""How long a master that does not lead may take to name another one that does."""
MOST_UNSENT_BYTES = 64 << 20

Tell = Callable[[Connected | Disconnected | Ordered], None]


class Link:
    """The agent's half of the wire. All methods belong to one asyncio loop.

    Shapes: `masters` are base URLs, tried in turn; `tell` takes inputs of the agent's core and may be set later.
    """

    def __init__(
        self, masters: Sequence[str], random: Random, tell: Tell | None = None, access: Access = NO_ACCESS
    ) -> None:
        self._access = access
        self._masters = [complete_url(master, access) for master in masters]
        self._random = random
        self.tell = tell
        self._wanted = asyncio.Event()
        self._session: _Session | None = None
        self._tries = 0
        self._next = 0
        self._leader: str | None = None
        self._lost: str | None = None
        self._hold_s = 0.0
        self._refused = False

    def connect(self) -> None:
        """Let `run` dial; before that it only waits."""
        self._wanted.set()

    def reconnect(self, why: str, delay_s: float = 0.0) -> None:
        """End the session and dial again, not before `delay_s`."""
        self._hold_s = max(self._hold_s, delay_s)
        if self._session is not None:
            self._session.end(why)

    def send(self, reports: Sequence[Report]) -> None:
        """Hand over a turn's reports; they leave as one write, or not at all when there is no session."""
        if self._session is not None:
            self._session.send(pack(reports))

    async def fetch_secrets(self, framework_id: str, task_id: str) -> Mapping[str, Secret]:
        """The values that a task names, from the master of this session.

        Errors: `Failed` in the words of the master that refuses; `Unavailable` without a session.
        """
        session = self._session
        if session is None:
            raise Unavailable("no master is connected, so the task's secrets cannot be fetched")
        return await session.fetch_secrets(framework_id, task_id)

    async def run(self) -> None:
        """Dial, and dial again, until cancelled."""
        await self._wanted.wait()
        async with open_session(
            self._access,
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            read_bufsize=1 << 20,
        ) as http:
            redirects = 0
            while True:
                master = self._leader or self._masters[self._next % len(self._masters)]
                leader = await self._hold_session(http, master)
                if leader is not None and redirects < MOST_REDIRECTS:
                    redirects += 1
                    self._leader = leader
                    continue
                redirects = 0
                self._leader = None
                self._next += 1
                await asyncio.sleep(self._delay_s())

    def _delay_s(self) -> float:
        hold_s, self._hold_s = self._hold_s, 0.0
        self._tries += 1
        most_s = MOST_DELAY_OF_SEVERAL_S if len(self._masters) > 1 else MOST_DELAY_S
        delay_s = grow_delay_s(self._tries, first_s=FIRST_DELAY_S, factor=2.0, most_s=most_s)
        return max(hold_s, delay_s * (0.5 + self._random.random() / 2))

    async def _hold_session(self, http: aiohttp.ClientSession, master: str) -> str | None:
        """One session from dial to end; returns the leader's URL when this master names another."""
        assert self.tell is not None
        name = mint_uuid(self._random)
        session = _Session(http, master, name, self._lost)
        answered_at: float | None = None
        refused = False
        try:
            async with session.dial() as orders:
                if orders.status in (301, 302, 307, 308):
                    return complete_url(urljoin(master + "/", orders.headers.get("Location", "")), self._access)
                if orders.status != 200:
                    # Nobody else has come to lead: the one that was lost may have been well all the time.
                    self._lost = None
                    refused = orders.status in (401, 403)
                    raise Invalid(f"status {orders.status}: {(await orders.text())[:200]}")
                self._lost = None
                self._session = session
                self.tell(Connected(name, master))
                answered_at = asyncio.get_running_loop().time()
                why = await self._exchange(session, orders)
        except (aiohttp.ClientError, OSError, Invalid) as error:
            why = explain_tls(error, master) or f"{type(error).__name__}: {error}"
            if isinstance(error, aiohttp.ClientConnectionError | OSError):
                self._lost = master
        finally:
            self._session = None
        if answered_at is not None:
            self._lost = master
            if asyncio.get_running_loop().time() - answered_at >= MOST_DELAY_S:
                self._tries = 0  # a session that held; one that breaks at once lets the delay grow
            self.tell(Disconnected(name, f"session with master {master} ended: {why}"))
        elif self._tries in (0, 5) or self._tries % 60 == 0 or (refused and not self._refused):
            # Nobody but this file knows of dials that were never answered.
            log.warning("master not reached", master=master, why=f"{why}; it is dialled again", tries=self._tries)
        self._refused = refused
        return None

    async def _exchange(self, session: "_Session", orders: aiohttp.ClientResponse) -> str:
        """Both directions until one ends; returns why."""
        down = asyncio.create_task(self._take_orders(session, orders))
        up = asyncio.create_task(session.send_reports())
        over = asyncio.create_task(session.over.wait())
        tasks = (down, up, over)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in (down, up):
            if not task.cancelled() and (error := task.exception()) is not None:
                if isinstance(error, aiohttp.ClientError | OSError | Invalid):
                    return session.why or f"{type(error).__name__}: {error}"
                raise error
        return session.why or "the master closed it"

    async def _take_orders(self, session: "_Session", orders: aiohttp.ClientResponse) -> None:
        reader: FrameReader[Order] = FrameReader(Order)
        tell, name = self.tell, session.name
        assert tell is not None
        passed_over = 0
        async for chunk in orders.content.iter_any():
            for order in reader.feed(chunk):
                tell(Ordered(name, order))
            if len(reader.unknown) > passed_over:
                passed_over = len(reader.unknown)
                why = "the master is of a later release; upgrade this agent"
                log.warning("orders passed over", kinds=" ".join(sorted(reader.unknown)), why=why)


class _Session:
    __slots__ = ("_http", "_lost", "_master", "_news", "_unsent", "name", "over", "why")

    def __init__(self, http: aiohttp.ClientSession, master: str, name: str, lost: str | None) -> None:
        self._http = http
        self._master = master
        self._lost = lost
        self.name = name
        self._unsent = bytearray()
        self._news = asyncio.Event()
        self.over = asyncio.Event()
        self.why = ""

    def dial(self) -> "aiohttp.client._RequestContextManager":
        return self._http.get(
            self._master + ORDERS_PATH,
            params={"session": self.name},
            headers={"Accept": CONTENT_TYPE, WAIT: f"wait={WAIT_S}", **({LOST: self._lost} if self._lost else {})},
            allow_redirects=False,
        )

    def send(self, data: bytes) -> None:
        self._unsent += data
        self._news.set()
        if len(self._unsent) > MOST_UNSENT_BYTES:
            self.end(f"the master takes no reports: {len(self._unsent)} bytes wait")

    def end(self, why: str) -> None:
        self.why = self.why or why
        self.over.set()

    async def fetch_secrets(self, framework_id: str, task_id: str) -> Mapping[str, Secret]:
        try:
            async with self._http.post(
                self._master + SECRETS_PATH,
                params={"session": self.name},
                json={"framework_id": framework_id, "task_id": task_id},
                timeout=aiohttp.ClientTimeout(total=SECRETS_TIMEOUT_S),
            ) as answer:
                body = await answer.read()
                if answer.status != 200:
                    raise Failed(f"the task's secrets were refused: {_said(body, answer.status)}")
                values = msgspec.json.decode(body, type=_Values).values
                return {source: Secret(value) for source, value in values.items()}
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise Unavailable(f"the task's secrets did not come: {type(error).__name__}") from None

    async def send_reports(self) -> None:
        async with self._http.post(
            self._master + REPORTS_PATH,
            params={"session": self.name},
            data=self._bodies(),
            headers={"Content-Type": CONTENT_TYPE},
            allow_redirects=False,
        ) as answer:
            raise Invalid(f"the master ended the reports with status {answer.status}: {(await answer.text())[:200]}")

    async def _bodies(self) -> AsyncIterator[bytes]:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._unsent:
                data, self._unsent = bytes(self._unsent), bytearray()
                yield data


class _Values(msgspec.Struct, frozen=True):
    values: dict[str, bytes]


def _said(body: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError):
        return f"status {status}"
