"""A master as small as an agent can tell it from a real one: it holds links, registers, and orders what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from corral.lib.errors import Invalid
from corral.model.ids import AgentId
from corral.model.orders import AcknowledgeUpdate, Order, Register, Registered, Report, UpdateTask
from corral.model.task import TaskState, TaskStatus
from corral.net.routes import RawRoute
from corral.net.server import Server, bind
from corral.net.stream import CONTENT_TYPE, ORDERS_PATH, REPORTS_PATH, FrameReader, pack

AGENT = AgentId("m-S0")


class TinyMaster:
    """Shapes: `reports` are all that came, `statuses` the distinct updates by task; `acknowledges` answers each."""

    def __init__(self, *, epoch: int = 1, registers: bool = True, acknowledges: bool = True) -> None:
        self.epoch = epoch
        self.registers = registers
        self.acknowledges = acknowledges
        self.redirect: str | None = None
        self.refuse: int | None = None
        self.dials = 0
        self.lost: list[str] = []
        self.reports: list[Report] = []
        self.statuses: dict[str, list[TaskStatus]] = {}
        self._seen: set[bytes] = set()
        self._links: dict[str, asyncio.Queue[bytes | None]] = {}
        self._news = asyncio.Event()
        self.server = Server(
            [
                RawRoute(method="GET", path=ORDERS_PATH, handler=self._hold),
                RawRoute(method="POST", path=REPORTS_PATH, handler=self._take),
            ],
            bind("127.0.0.1", 0),
        )

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def registrations(self) -> list[Register]:
        return [r for r in self.reports if isinstance(r, Register)]

    def order(self, *orders: Order) -> None:
        self.write(pack(orders))

    def write(self, data: bytes) -> None:
        """Raw bytes to the newest link."""
        self._links[list(self._links)[-1]].put_nowait(data)

    def cut(self) -> None:
        for link in self._links.values():
            link.put_nowait(None)

    async def until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Wait for what a report brings about."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_state(self, task_id: str, state: TaskState, timeout_s: float = 10.0) -> TaskStatus:
        await self.until(lambda: any(s.state is state for s in self.statuses.get(task_id, ())), timeout_s)
        return next(s for s in self.statuses[task_id] if s.state is state)

    async def _hold(self, raw: Any) -> web.StreamResponse:
        self.dials += 1
        self.lost.append(raw.headers.get("Corral-Lost", ""))
        self._news.set()
        if self.refuse is not None:
            return web.Response(status=self.refuse, text="not now")
        if self.redirect is not None:
            return web.Response(status=307, headers={"Location": self.redirect + raw.path_qs})
        link = self._links[raw.query["session"]] = asyncio.Queue()
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        response.enable_chunked_encoding()
        await response.prepare(raw)
        with contextlib.suppress(ConnectionError):
            while (data := await link.get()) is not None:
                await response.write(data)
        return response

    async def _take(self, raw: Any) -> web.StreamResponse:
        session = raw.query["session"]
        reader: FrameReader[Report] = FrameReader(Report)
        try:
            async for chunk in raw.content.iter_any():
                for report in reader.feed(chunk):
                    self._answer(session, report)
        except ConnectionError:
            pass
        finally:
            self._links[session].put_nowait(None)
        return web.Response()

    def _answer(self, session: str, report: Report) -> None:
        self.reports.append(report)
        orders: list[Order] = []
        if isinstance(report, Register) and self.registers:
            orders.append(Registered(self.epoch, AGENT, 15.0))
        if isinstance(report, UpdateTask):
            status = report.status
            if status.uuid is None:
                raise Invalid("an agent's updates are to be acknowledged")
            if status.uuid not in self._seen:
                self._seen.add(status.uuid)
                self.statuses.setdefault(status.task_id, []).append(status)
            if self.acknowledges:
                orders.append(AcknowledgeUpdate(self.epoch, report.framework_id, status.task_id, status.uuid))
        if orders:
            self._links[session].put_nowait(pack(orders))
        self._news.set()


@contextlib.asynccontextmanager
async def serving(master: TinyMaster) -> AsyncIterator[TinyMaster]:
    await master.server.start()
    try:
        yield master
    finally:
        master.cut()
        await master.server.close()


@contextlib.asynccontextmanager
async def running(work: Awaitable[Any]) -> AsyncIterator["asyncio.Future[Any]"]:
    """A background service for the length of a block; what it raised is raised."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
