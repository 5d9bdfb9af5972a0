"""The batch API: each handler reads the dialect, asks the core, writes the dialect, and decides nothing.

Logs are not kept here: the agent that ran a job has them for as long as it keeps the job's sandbox, and is asked.
Source: the batch contract, API.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec

from corral.frameworks.batch.dialect import (
    check_cursor,
    check_state,
    read_kill,
    read_owner,
    read_priority,
    read_query,
    read_submission,
    read_wait,
    write_admitted,
    write_error,
)
from corral.frameworks.batch.spec import (
    TERMINAL,
    Command,
    Config,
    GetJob,
    GetMetrics,
    GetOwner,
    GetStats,
    KillJob,
    ListJobs,
    PutOwner,
    SetPriority,
)
from corral.lib.errors import Invalid, NotFound
from corral.net.access import Access
from corral.net.routes import Request, Response, Route, Stream, json_response
from corral.sdk.agents import AgentClient
from corral.sdk.feed import Feed, Follower
from corral.sdk.metrics import CONTENT_TYPE, write_metrics

Ask = Callable[[Command], Awaitable[Any]]
PREFIX = "/v1/batch"
MOST_BODY_BYTES = 16 << 20
MOST_LISTED = 10_000
KEEP_ALIVE_S = 10.0


def routes(config: Config, feed: Feed, ask: Ask) -> list[Route]:
    """The front door."""
    door = _Door(config, feed, ask)
    table: Sequence[tuple[str, str, Any]] = (
        ("POST", "/jobs", door.submit),
        ("GET", "/jobs", door.list_jobs),
        ("GET", "/jobs/{id}/log", door.get_log),
        ("GET", "/jobs/{id}", door.get_job),
        ("DELETE", "/jobs/{id}", door.kill_job),
        ("PATCH", "/jobs/{id}", door.set_priority),
        ("POST", "/query", door.query),
        ("POST", "/wait", door.wait),
        ("POST", "/kill", door.kill_jobs),
        ("GET", "/stats", door.get_stats),
        ("GET", "/events", door.list_events),
        ("GET", "/owners/{owner}", door.get_owner),
        ("PUT", "/owners/{owner}", door.put_owner),
        ("GET", "/metrics", door.get_metrics),
    )
    return [
        Route(method=method, path=PREFIX + path, handler=handler, errors=write_error, most_bytes=MOST_BODY_BYTES)
        for method, path, handler in table
    ]


class _Door:
    def __init__(self, config: Config, feed: Feed, ask: Ask) -> None:
        self._config = config
        self._feed = feed
        self._ask = ask

    async def submit(self, request: Request) -> Response:
        command = read_submission(request, self._config.most_jobs, self._config.most_array)
        return json_response(write_admitted(await self._ask(command)), status=201)

    async def list_jobs(self, request: Request) -> Response:
        command = ListJobs(
            state=check_state(request.first("state")),
            owner=request.first("owner"),
            label=request.first("label"),
            name=request.first("name"),
            limit=min(_whole(request, "limit", 100, least=1), MOST_LISTED),
            cursor=check_cursor(request.first("cursor")),
        )
        return json_response(await self._ask(command))

    async def get_job(self, request: Request) -> Response:
        return json_response(await self._ask(GetJob(id=request.params["id"])))

    async def kill_job(self, request: Request) -> Response:
        return Response(status=202 if await self._ask(KillJob(id=request.params["id"])) else 204)

    async def set_priority(self, request: Request) -> Response:
        command = SetPriority(id=request.params["id"], priority=read_priority(request.body))
        return json_response(await self._ask(command))

    async def query(self, request: Request) -> Response:
        return json_response(await self._ask(read_query(request.body)))

    async def wait(self, request: Request) -> Response:
        return json_response(await self._ask(read_wait(request.body)))

    async def kill_jobs(self, request: Request) -> Response:
        return json_response({"killed": await self._ask(read_kill(request.body))}, status=202)

    async def get_log(self, request: Request) -> Response | Stream:
        found = await self._ask(GetJob(id=request.params["id"]))
        attempt = _whole(request, "attempt", found["attempt"])
        if "counts" in found:
            raise NotFound(f"job {found['id']} is an array; its elements have logs, such as {found['id']}[0]")
        if not found["attempt"]:
            when = "was never launched" if found["state"] in TERMINAL else "has not been launched yet"
            raise NotFound(f"job {found['id']} {when}, so there is no log: {found['reason']}")
        if not 1 <= attempt <= found["attempt"]:
            raise NotFound(f"job {found['id']} has made {found['attempt']} attempts; there is no log of {attempt}")
        stream = request.first("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise Invalid(f"query parameter stream={stream!r} is neither stdout nor stderr")
        length = _whole(request, "length", 0) if request.first("length") else None
        # Who may read the log is for the agent to say, of the caller.
        token = request.headers.get("authorization", "").partition(" ")[2] if self._config.cacert else ""
        agent = AgentClient(found["agent_url"], Access(token=token, cacert=self._config.cacert))
        chunks = agent.logs(
            f"{found['id']}.{attempt}", stream=stream, offset=_whole(request, "offset", 0),
            follow=request.flag("follow"),
        )  # fmt: skip
        try:
            # What the agent refuses has to be known before the answer begins.
            first = await anext(chunks, b"")
        except BaseException:
            await agent.close()
            raise
        return Stream(chunks=_cut(agent, first, chunks, length), content_type="text/plain; charset=utf-8")

    async def get_stats(self, request: Request) -> Response:
        return json_response(await self._ask(GetStats()))

    async def get_owner(self, request: Request) -> Response:
        return json_response(await self._ask(GetOwner(owner=request.params["owner"])))

    async def put_owner(self, request: Request) -> Response:
        name = request.params["owner"]
        return json_response(await self._ask(PutOwner(owner=name, record=read_owner(request.body, name))))

    async def get_metrics(self, request: Request) -> Response:
        return Response(body=write_metrics(await self._ask(GetMetrics())), content_type=CONTENT_TYPE)

    async def list_events(self, request: Request) -> Response | Stream:
        follower = self._feed.follow(request.first("since") or request.headers.get("last-event-id", ""))
        sse = "text/event-stream" in request.headers.get("accept", "")
        return Stream(
            chunks=self._frames(follower, sse=sse),
            content_type="text/event-stream" if sse else "application/x-ndjson",
            headers={"Cache-Control": "no-cache"},
            close=follower.close,
            patience_s=2 * KEEP_ALIVE_S,
        )

    async def _frames(self, follower: Follower, *, sse: bool) -> AsyncIterator[bytes]:
        # With the first bytes the answer's head leaves, by which its reader knows that nothing is missed from now on.
        yield b":\n\n" if sse else b"\n"
        if follower.lost:
            yield _frame("", "lost", b'{"reason":"what came after that cursor is no longer kept; query the jobs"}', sse)
        async for batch in follower.batches(KEEP_ALIVE_S):
            frames = [_frame(self._feed.id_of(event), event.kind, event.data, sse) for event in batch]
            yield b"".join(frames) or (b":\n\n" if sse else b"\n")


async def _cut(
    agent: AgentClient, first: bytes, rest: AsyncIterator[bytes], length: int | None
) -> AsyncIterator[bytes]:
    """A log of at most so many bytes; the agent is let go at its end."""
    try:
        chunk = first
        while chunk and (length is None or length > 0):
            part = chunk if length is None else chunk[:length]
            length = None if length is None else length - len(part)
            yield part
            chunk = await anext(rest, b"")
    finally:
        await agent.close()


def _frame(cursor: str, kind: str, data: bytes, sse: bool) -> bytes:
    if sse:
        return (
            (f"id: {cursor}\n" if cursor else "").encode() + b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
        )
    head = msgspec.json.encode({"cursor": cursor, "event": kind})
    return head[:-1] + b"," + data[1:] + b"\n"


def _whole(request: Request, key: str, default: int, least: int = 0) -> int:
    text = request.first(key)
    if not text:
        return default
    if not text.isdecimal() or len(text) > 15 or int(text) < least:
        raise Invalid(f"query parameter {key}={text[:40]!r} must be a whole number of {least} or more")
    return int(text)
