"""Serves in a process that does not lead: it answers for itself, sends callers on, or passes a request on once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from yarl import URL

from corral.net.access import NO_ACCESS, Access
from corral.net.answers import TEXT
from corral.net.client import open_session
from corral.net.follower import (
    Way,
    choose_way,
    headers_back,
    headers_through,
    may_go_on,
    refuse,
    send_on,
    tell_doubt,
    waits_s,
)
from corral.net.routes import RawRoute, Request, Response, Route, json_response
from corral.net.server import finished
from corral.net.system import measure_system

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 300.0


class Knowledge(Protocol):
    """Who leads, and word of every change."""

    def url(self) -> str | None: ...
    def term(self) -> int:
        """Differs whenever somebody has begun to lead."""

    def next(self) -> Coroutine[Any, Any, Any]:
        """To be awaited: the first change after this call."""


class Follower:
    """The front door of a process that stands by. Shapes: `own_url` is what others know this process by.

    `serve` serves a request as the process does now: who waited here while it became the leader stays here.
    """

    def __init__(
        self,
        own_url: str,
        knowledge: Knowledge,
        serve: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        leads: Callable[[], bool],
        access: Access = NO_ACCESS,
    ) -> None:
        self._access = access
        self._own_url = own_url
        self._knowledge = knowledge
        self._serve = serve
        self._leads = leads
        self._http: aiohttp.ClientSession | None = None

    def routes(self) -> list[Route | RawRoute]:
        """Shapes: the last two take everything, so what else is served here has to be listed before."""
        answers = {
            "/health": self._answer_health,
            "/health/live": self._answer_live,
            "/health/ready": self._answer_ready,
            "/redirect": self._redirect,
            "/metrics/snapshot": self._answer_snapshot,
        }
        found: list[Route | RawRoute] = []
        for path, handler in answers.items():
            found.append(Route(method="GET", path=path, handler=handler))
            if not path.startswith("/health/"):
                found.append(Route(method="GET", path=f"/master{path}", handler=handler))
        for path in ("/metrics", "/metrics/prometheus"):
            found.append(Route(method="GET", path=path, handler=self._answer_metrics))
        found += [RawRoute(method="*", path=path, handler=self.follow) for path in ("/", "/{path*}")]
        return found

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    # What it answers for itself.

    async def _answer_health(self, request: Request) -> Response:
        return Response()

    async def _answer_live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def _answer_ready(self, request: Request) -> Response:
        leader = self._knowledge.url()
        if leader is None or leader == self._own_url:
            return refuse("no master leads at the moment")
        return json_response({"ready": True, "leader": leader, "leads": False})

    async def _redirect(self, request: Request) -> Response:
        leader = self._knowledge.url()
        if leader is None:
            return Response(
                status=503, body=b"no master leads at the moment; try again", content_type=TEXT,
                headers={"Retry-After": "1"},
            )  # fmt: skip
        return send_on(leader, "")

    async def _answer_snapshot(self, request: Request) -> Response:
        return json_response({"master/elected": 0.0, **measure_system()})

    async def _answer_metrics(self, request: Request) -> Response:
        text = (
            "# HELP corral_master_elected master/elected as in /metrics/snapshot\n# TYPE corral_master_elected gauge\n"
        )
        return Response(body=f"{text}corral_master_elected 0.0\n".encode(), content_type="text/plain; version=0.0.4")

    # What others have to answer.

    async def follow(self, raw: web.BaseRequest) -> web.StreamResponse:
        headers = {key.lower(): value for key, value in raw.headers.items()}
        if (wait_s := waits_s(raw.path, headers)) and await self._await_leader(headers, wait_s):
            return await self._serve(raw)
        leader = self._knowledge.url()
        verdict = choose_way(raw.path, raw.query_string, headers, leader, self._own_url)
        if verdict.way is Way.REFUSED or leader is None:
            return finished(refuse(verdict.why), raw.method)
        if verdict.way is Way.ON:
            return finished(send_on(leader, raw.raw_path), raw.method)
        return await self._pass_on(raw, leader)

    async def _await_leader(self, headers: Mapping[str, str], wait_s: float) -> bool:
        """Wait for somebody who leads; whether it is this process, whose routes are others from then on."""
        first = self._knowledge.term()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not self._leads():
                    news = self._knowledge.next()
                    leader, is_new = self._knowledge.url(), self._knowledge.term() != first
                    if may_go_on(leader, self._own_url, headers, is_new=is_new):
                        news.close()
                        return False
                    await news
        return self._leads()

    async def _pass_on(self, raw: web.BaseRequest, leader: str) -> web.StreamResponse:
        """One exchange with the leader, given up when he leads no more before he has answered."""
        news = asyncio.ensure_future(self._changed_from(leader))
        send = asyncio.ensure_future(self._send(raw, leader))
        try:
            await asyncio.wait((news, send), return_when=asyncio.FIRST_COMPLETED)
            if not send.done():
                why = f"the leader {leader} lost the leadership before it answered"
                return finished(tell_doubt(why, raw.method), raw.method)
            answer = send.result()
        finally:
            for task in (news, send):
                task.cancel()
            await asyncio.wait((news, send))
        return answer if isinstance(answer, web.Response) else await _copy(answer, raw)

    async def _changed_from(self, leader: str) -> None:
        while True:
            news = self._knowledge.next()
            if self._knowledge.url() != leader:
                news.close()
                return
            await news

    async def _send(self, raw: web.BaseRequest, leader: str) -> aiohttp.ClientResponse | web.Response:
        """The leader's answer as far as its head, or this process' own when there is none."""
        if self._http is None:
            # The body passes as it is, compressed or not.
            # With the credentials that the caller brings, and none of this process: a master's would open everything.
            self._http = open_session(
                self._access, show=False, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=ANSWER_TIMEOUT_S)
        target = URL(leader + raw.raw_path, encoded=True)
        try:
            return await self._http.request(
                raw.method, target, headers=headers_through(raw.headers, raw.remote or "", self._own_url),
                data=raw.content if raw.body_exists else None, allow_redirects=False, timeout=timeout,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )  # fmt: skip
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return finished(refuse(f"the leader {leader} is not reached ({error or type(error).__name__})"), raw.method)
        except (aiohttp.ClientError, OSError) as error:
            why = f"the leader {leader} broke off before it answered ({error or type(error).__name__})"
            return finished(tell_doubt(why, raw.method), raw.method)


async def _copy(answer: aiohttp.ClientResponse, raw: web.BaseRequest) -> web.StreamResponse:
    async with answer:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in headers_back(answer.headers):
            response.headers.add(name, value)
        await response.prepare(raw)
        with contextlib.suppress(ConnectionError):
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response
