"""The agent's endpoint for executors: `POST /api/v1/executor` of the Mesos v1 executor API.

The order of checks is Mesos': recovered (503), Content-Type present (400) and known (415), readable (400), acceptable
(406), and then what the core says. Errors are plain text.
"""

from collections.abc import Callable
from uuid import uuid4

from corral.agent.spec import ExecutorClosed, SubscribeExecutor, TakeCall
from corral.agent.streams import ExecutorStreams
from corral.lib.errors import CorralError, Forbidden, Unavailable
from corral.mesos.executor import PATH, read_call
from corral.model import executor
from corral.net.answers import accepts_json
from corral.net.auth import Caller, CallerKind
from corral.net.routes import Request, Response, Route, Stream
from corral.runtime.loop import Loop

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
PATHS = (PATH, "/slave(1)" + PATH)


def executor_routes(
    loop: Loop, streams: Callable[[], ExecutorStreams], errors: Callable[[CorralError, Request], Response]
) -> list[Route]:
    """The endpoint over the agent's loop. Shapes: `streams` gives those of its shell."""

    async def exchange(request: Request) -> Response | Stream:
        if not loop.ready.is_set():
            raise Unavailable("the agent is still reading its records; try again in a moment")
        if (refusal := refuse_media(request)) is not None:
            return refusal
        call = read_call(request.body)
        check_claims(request.caller, call)
        if not isinstance(call, executor.Subscribe):
            await loop.ask(TakeCall(call))
            return Response(status=202)
        if not accepts_json(request.headers.get("accept")):
            return _text(406, "the answer to SUBSCRIBE is a stream of application/json; Accept admits it not")
        return await _subscribe(loop, streams(), call)

    return [Route(method="POST", path=path, handler=exchange, errors=errors) for path in PATHS]


def check_claims(caller: Caller, call: executor.Call) -> None:
    """Errors: `Forbidden` when an executor speaks for another than its token names."""
    if caller.kind is not CallerKind.EXECUTOR:
        return
    named = (caller.claims["fid"], caller.claims["eid"])
    if named != (call.framework_id, call.executor_id):
        raise Forbidden(
            f"the token is of executor {named[1]} of framework {named[0]}, the call of executor {call.executor_id} of "
            f"framework {call.framework_id}; each sends the token of its own environment"
        )


async def _subscribe(loop: Loop, streams: ExecutorStreams, call: executor.Subscribe) -> Stream:
    if streams.closed is None:
        streams.closed = lambda name, why: loop.tell(ExecutorClosed(name, why))
    stream = streams.open(str(uuid4()))
    accepted = False
    try:
        await loop.ask(SubscribeExecutor(stream.name, call))
        accepted = True
    finally:
        if not accepted:
            # Whoever gave the request up may have left before the core saw it: then it must not stay subscribed.
            stream.leave()
    return Stream(chunks=stream.records(), close=stream.leave)


def refuse_media(request: Request) -> Response | None:
    """The refusal of a request whose body is no JSON."""
    given = request.headers.get("content-type", "")
    if not given:
        return _text(400, "Expecting 'Content-Type' to be present")
    if given.partition(";")[0].strip().lower() != JSON:
        return _text(415, f"Expecting 'Content-Type' of {JSON}; found {given}")
    return None


def _text(status: int, why: str) -> Response:
    return Response(status=status, body=why.encode(), content_type=TEXT)
