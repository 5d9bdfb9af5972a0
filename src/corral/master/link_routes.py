"""The master's endpoints for agents: the two halves of a link, orders down and reports up."""

from aiohttp import web

from corral.lib.errors import Invalid, NotFound
from corral.master.mesos_routes import expect_recovered
from corral.master.shell import MasterShell
from corral.master.spec import AgentOpened, AgentReported
from corral.model.orders import Report
from corral.net.chunks import ChunkedBody
from corral.net.stream import CONTENT_TYPE, ORDERS_PATH, FrameReader
from corral.runtime.loop import Loop


class LinkDoors:
    """Shapes: the halves of one link find each other by its session."""

    __slots__ = ("_loop", "_shell")

    def __init__(self, loop: Loop, shell: MasterShell) -> None:
        self._loop = loop
        self._shell = shell

    async def hold_orders(self, raw: web.BaseRequest) -> web.StreamResponse:
        """The orders half: held until either half ends."""
        expect_recovered(self._loop)
        session = _session(raw)
        link = self._shell.open_link(session)
        why = "the agent closed its link"
        try:
            response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})
            chunks = await ChunkedBody.begin(response, raw)
            self._loop.tell(AgentOpened(session, raw.remote or ""))
            if await link.hold(chunks):
                await response.write_eof()
            else:
                chunks.abort()
        except ConnectionError as error:
            why = f"its orders broke: {error or type(error).__name__}"
        finally:
            self._shell.end_link(session, why)
        return response

    async def take_reports(self, raw: web.BaseRequest) -> web.StreamResponse:
        """The reports half: read until the agent ends it."""
        session = _session(raw)
        link = self._shell.link(session)
        if link is None:
            raise NotFound(f"session {session} is not open; open {ORDERS_PATH} first")
        reader: FrameReader[Report] = FrameReader(Report)
        why = "the agent ended its reports"
        try:
            async for chunk in raw.content.iter_any():
                if link.closed:
                    break
                found = reader.feed(chunk)
                if found:
                    self._loop.tell(AgentReported(session, tuple(found)))
        except Invalid as error:
            why = error.message
            raise
        except ConnectionError as error:
            why = f"its reports broke: {error or type(error).__name__}"
        finally:
            self._shell.end_link(session, why)
        return web.Response()


def _session(raw: web.BaseRequest) -> str:
    session = raw.query.get("session", "")
    if not session or len(session) > 100:
        raise Invalid("the query has no session; dial with ?session=UUID")
    return session
