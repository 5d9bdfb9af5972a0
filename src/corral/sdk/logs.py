"""A task's output for who asks a framework for it: the agent that ran the task has it, and is asked in their name."""

from corral.lib.errors import Invalid
from corral.net.access import Access
from corral.net.routes import Request, Stream
from corral.sdk.agents import AgentClient


async def pass_log(request: Request, url: str, task_id: str, cacert: str) -> Stream:
    """The answer to a request whose query may have `stream`, `offset` and `length` in bytes, and `follow`.

    Shapes: `url` is the agent's; `cacert` the CA of a cluster that speaks TLS, else empty.
    Errors: `Invalid` for a query that means nothing; as `AgentClient.logs`, before anything is sent.
    """
    stream = request.first("stream", "stdout")
    if stream not in ("stdout", "stderr"):
        raise Invalid(f"query parameter stream={stream[:40]!r} is neither stdout nor stderr")
    offset, follow = request.whole("offset", 0), request.flag("follow")
    length = request.whole("length", 0) if request.first("length") else None
    # Who may read the log is for the agent to say, of the caller.
    token = request.headers.get("authorization", "").partition(" ")[2] if cacert else ""
    agent = AgentClient(url, Access(token=token, cacert=cacert))
    chunks = await agent.open_log(task_id, stream=stream, offset=offset, length=length, follow=follow)
    return Stream(chunks=chunks, content_type="text/plain; charset=utf-8")
