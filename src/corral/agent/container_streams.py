"""Answers over HTTP to tools that look into containers: streams of what a process writes, and whole bodies.

A stream is RecordIO records, each a ProcessIO message in JSON. Source: Mesos v1, agent operator API.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

from corral.agent.executor_routes import JSON, TEXT
from corral.lib.errors import CorralError
from corral.mesos import containers
from corral.mesos.recordio import encode
from corral.net.answers import NOT_ACCEPTABLE, accepts_json, admits
from corral.net.routes import Response, Stream

RECORDIO = "application/recordio"


def stream_media(raw: web.Request) -> str | None:
    """What the records of an answer are sent as; None when `Accept` or `Message-Accept` admits none."""
    if not accepts_json(raw.headers.get("Message-Accept")):
        return None
    accept = raw.headers.get("Accept")
    return next((media for media in (RECORDIO, JSON) if admits(accept, media)), None)


async def stream_output(raw: web.Request, pieces: AsyncIterator[tuple[str, bytes]], media: str) -> web.StreamResponse:
    """Send each piece as a record, and a heartbeat where nothing comes, until there is no more or nobody listens."""
    response = web.StreamResponse(headers={"Content-Type": media})
    if media == RECORDIO:
        response.headers["Message-Content-Type"] = JSON
    response.enable_chunked_encoding()
    source = aiter(pieces)
    waiting = asyncio.ensure_future(anext(source, None))
    try:
        await response.prepare(raw)
        while True:
            done, _ = await asyncio.wait([waiting], timeout=containers.HEARTBEAT_S)
            if not done:
                await response.write(encode(containers.write_heartbeat()))
                continue
            piece = waiting.result()
            if piece is None:
                break
            waiting = asyncio.ensure_future(anext(source, None))
            await response.write(encode(containers.write_output(*piece)))
        await response.write_eof()
    except ConnectionError:
        pass
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError, StopAsyncIteration, CorralError):
            await waiting
    return response


def finish(answer: Response) -> web.Response:
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def refuse_stream() -> web.Response:
    return finish(
        text(
            406, f"the answer is a stream of {RECORDIO} with records of {JSON}; Accept or Message-Accept admits it not"
        )
    )


def refuse_whole() -> web.Response:
    return finish(text(406, NOT_ACCEPTABLE))


def text(status: int, why: str) -> Response:
    return Response(status=status, body=why.encode(), content_type=TEXT)


async def hand_on(raw: web.Request, answer: Response | Stream) -> web.StreamResponse:
    if isinstance(answer, Response):
        return finish(answer)
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type, **answer.headers})
    response.enable_chunked_encoding()
    try:
        await response.prepare(raw)
        async for chunk in answer.chunks:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        pass
    finally:
        if answer.close is not None:
            answer.close()
    return response
