"""Dresses JSON answers as readers of Mesos' endpoints ask for them: in pieces, compressed, wrapped for a script tag.

What is short leaves as one response. What is long leaves in pieces while the loop does other work in between, and a
client that does not take them is cut off.
"""

import asyncio
import gzip
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from corral.lib.errors import Invalid
from corral.net.routes import Request, Response, Stream

WHOLE_BYTES = 1 << 18
"""What is no longer than this is sent whole."""

LEAST_COMPRESSED_BYTES = 16 << 10
PATIENCE_S = 30.0
_LEVEL = 1
_AT_ONCE_S = 0.002
_AT_ONCE_BYTES = 1 << 20
_CALLBACK = re.compile(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*", re.ASCII)
_SCRIPT = "text/javascript"
_JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
NOT_ACCEPTABLE = "answers are application/json; Accept admits it not"

T = TypeVar("T")

Exchange = Callable[[Request], Awaitable[Response | Stream]]


class Text:
    """A long JSON text that is made while it is read, once, however many read it.

    Shapes: whoever reads makes what is not there yet, a few milliseconds' worth at a time.
    """

    __slots__ = ("_body", "_error", "_pieces", "done", "parts", "size")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._body: bytes | None = None
        self._error: BaseException | None = None
        self.parts: list[bytes] = []
        self.size = 0
        self.done = False

    def make(self, most: int = 1 << 60) -> None:
        """Make more of it: until it is `most` bytes long, some milliseconds have passed or a good deal is there."""
        if self._error is not None:
            raise self._error
        clock = asyncio.get_running_loop().time
        since = clock()
        made: list[bytes] = []
        most = min(most, self.size + _AT_ONCE_BYTES)
        try:
            for piece in self._pieces:
                made.append(piece)
                self.size += len(piece)
                if self.size > most or clock() - since > _AT_ONCE_S:
                    break
            else:
                self.done = True
        except BaseException as error:
            self._error = error
            raise
        if part := b"".join(made):
            self.parts.append(part)

    @property
    def is_broken(self) -> bool:
        return self._error is not None

    async def finish(self) -> None:
        while not self.done:
            self.make()
            await asyncio.sleep(0)

    async def read(self) -> AsyncIterator[bytes]:
        at = 0
        while True:
            while at < len(self.parts):
                yield self.parts[at]
                at += 1
            if self.done:
                return
            self.make()
            await asyncio.sleep(0)

    async def answer(self) -> Response | Stream:
        """All of it in one response when it is short, else a stream."""
        while not self.done and self.size <= WHOLE_BYTES:
            self.make(WHOLE_BYTES)
            if not self.done:
                await asyncio.sleep(0)
        if self.size > WHOLE_BYTES:
            return Stream(chunks=self.read(), patience_s=PATIENCE_S)
        if self._body is None:
            self._body = b"".join(self.parts)
        return Response(body=self._body)


async def answer_pieces(pieces: Iterable[bytes]) -> Response | Stream:
    """All of them in one response when they are few, else a stream of them."""
    return await Text(pieces).answer()


class Shared:
    """One view for many readers: whoever asks while it is being made shares the next one with all who do.

    Shapes: it is made anew when `find` gives another object than the last time. A long one is kept only while it is
    being made.
    """

    __slots__ = ("_begun", "_lock", "_of", "_text")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._begun = 0
        self._of: object = None
        self._text: Text | None = None

    async def answer(
        self, find: Callable[[], Awaitable[T]], write: Callable[[T], Iterable[bytes]]
    ) -> Response | Stream:
        asked = self._begun
        async with self._lock:
            text = self._text
            if text is None or self._begun <= asked:
                if text is not None and not text.done and not text.is_broken:
                    await text.finish()
                self._begun += 1
                found = await find()
                if text is None or found is not self._of or text.size > WHOLE_BYTES or text.is_broken:
                    text = Text(write(found))
                self._of, self._text = found, text
        answer = await text.answer()
        if isinstance(answer, Stream):
            return msgspec.structs.replace(answer, chunks=self._read(text))
        return answer

    async def _read(self, text: Text) -> AsyncIterator[bytes]:
        async for part in text.read():
            if text.done and self._text is text:
                # Those who still read it hold it; the next one is made anew in any case.
                self._of = self._text = None
            yield part


async def in_turns(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, a few milliseconds' worth at a time; in between others have their turn."""
    clock = asyncio.get_running_loop().time
    parts: list[bytes] = []
    since = clock()
    for piece in pieces:
        parts.append(piece)
        if clock() - since > _AT_ONCE_S:
            if chunk := b"".join(parts):
                yield chunk
                parts.clear()
            await asyncio.sleep(0)
            since = clock()
    if chunk := b"".join(parts):
        yield chunk


def dressed(exchange: Exchange) -> Exchange:
    """The same exchange for whoever asks with `?jsonp=` or takes gzip.

    Errors: `Invalid` when the callback is no name that a script may have.
    """

    async def answer(request: Request) -> Response | Stream:
        callback = request.first("jsonp")
        if callback and not _CALLBACK.fullmatch(callback):
            raise Invalid(f"query parameter jsonp={callback!r} is no name of a function; give letters, digits, _ $ .")
        found = await exchange(request)
        if callback and found.status == 200 and found.content_type == _JSON:
            found = _wrap(found, callback)
        return compress(found, request)

    return answer


def _wrap(answer: Response | Stream, callback: str) -> Response | Stream:
    before, after = f"{callback}(".encode(), b");"
    if isinstance(answer, Response):
        body = before + answer.body + after
        return msgspec.structs.replace(answer, body=body, content_type=_SCRIPT)
    return msgspec.structs.replace(answer, chunks=_between(before, answer.chunks, after), content_type=_SCRIPT)


async def _between(before: bytes, chunks: AsyncIterator[bytes], after: bytes) -> AsyncIterator[bytes]:
    yield before
    async for chunk in chunks:
        yield chunk
    yield after


def compress(answer: Response | Stream, request: Request) -> Response | Stream:
    """The answer as gzip, when its reader takes that and it is large."""
    if not accepts_gzip(request.headers.get("accept-encoding", "")):
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    if isinstance(answer, Stream):
        return msgspec.structs.replace(answer, chunks=_compress(answer.chunks), headers=headers)
    if len(answer.body) < LEAST_COMPRESSED_BYTES:
        return answer
    body = gzip.compress(answer.body, _LEVEL, mtime=0)
    return msgspec.structs.replace(answer, body=body, headers=headers)


async def _compress(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    squeeze = zlib.compressobj(_LEVEL, wbits=31)
    async for chunk in chunks:
        if data := squeeze.compress(chunk):
            yield data
    yield squeeze.flush()


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` admits gzip; `q=0` does not."""
    for part in header.split(","):
        name, _, rest = part.partition(";")
        if name.strip().lower() in ("gzip", "x-gzip", "*"):
            weight = rest.strip().lower().removeprefix("q=").strip()
            return not weight or weight.rstrip("0") not in ("", "0", "0.")
    return False


def admits(header: str | None, media: str) -> bool:
    """Whether an `Accept` admits this media type; without one it does.

    Shapes: what names the type most closely decides, and `q=0` refuses.
    """
    if not header or not header.strip():
        return True
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights[name] = max(weights.get(name, 0.0), _read_weight(parameters))
    ranges = (media, media.partition("/")[0] + "/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0) > 0


def _read_weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0


def accepts_json(header: str | None) -> bool:
    """Whether an `Accept` admits JSON; without one it does."""
    return admits(header, _JSON)


def prefers_json(header: str | None) -> bool:
    """Whether an `Accept` names JSON before any text."""
    media = [part.partition(";")[0].strip().lower() for part in (header or "").split(",")]
    named = next((m for m in media if m in (_JSON, "text/plain", "application/openmetrics-text", "*/*")), "")
    return named == _JSON


def write_gauges(found: Mapping[str, float]) -> dict[str, object]:
    """Numbers in the layout that JVM services have made usual: `{"gauges": {name: {"value": n}}, ...}`."""
    empty: dict[str, object] = {}
    gauges = {name: {"value": value} for name, value in sorted(found.items())}
    return {
        "version": "4.0.0",
        "gauges": gauges,
        "counters": empty,
        "histograms": empty,
        "meters": empty,
        "timers": empty,
    }


def refuse_media(request: Request) -> Response | None:
    """What is wrong with a call's Content-Type, None when nothing is.

    Deviates: Mesos compares the header's exact text; here letter case and parameters do not matter.
    """
    given = request.headers.get("content-type")
    if not given:
        message = f"Expecting 'Content-Type' to be present; send {_JSON}"
        return Response(status=400, body=message.encode(), content_type=TEXT)
    media = given.partition(";")[0].strip().lower()
    if media != _JSON:
        message = f"Expecting 'Content-Type' of {_JSON}, found {media}; this daemon speaks JSON only"
        return Response(status=415, body=message.encode(), content_type=TEXT)
    return None
