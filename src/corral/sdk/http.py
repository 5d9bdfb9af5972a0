"""The transport of a framework in a process of its own: the Mesos v1 scheduler API over HTTP.

SUBSCRIBE opens a RecordIO stream and gives the stream id that every other call carries. A 307 names the leading master,
who is asked instead from then on; a master that does not lead is asked to answer when somebody does.
Source: Mesos v1 scheduler API.
"""

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urljoin, urlsplit

import aiohttp

from corral.lib.errors import Conflict, CorralError, Failed, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from corral.mesos.events import read_event
from corral.mesos.recordio import RecordReader
from corral.mesos.scheduler import ATTEMPT_HEADER, STREAM_ID_HEADER, write_call
from corral.model.calls import Call, Subscribe
from corral.model.events import Event
from corral.net.access import NO_ACCESS, Access, complete_url
from corral.net.client import open_session
from corral.net.follower import LOST, WAIT
from corral.net.tls import explain_tls

PATH = "/api/v1/scheduler"
CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
MOST_REDIRECTS = 3
MOST_CONNECTIONS = 16
WAIT_S = 10

_ERRORS: dict[int, type[CorralError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    415: Invalid,
    503: Unavailable,
}


class HttpTransport:
    """Speaks to the masters at these URLs, one after the other until one answers.

    Shapes: `masters` are base URLs; `access` holds the token and the authority's file where the cluster wants them.
    """

    def __init__(self, *masters: str, access: Access = NO_ACCESS) -> None:
        if not masters:
            raise Invalid("a framework needs the URL of a master, for example http://127.0.0.1:4680")
        self._access = access
        self._masters = [complete_url(master, access) for master in masters]
        self._url = self._masters[0]
        self._session: aiohttp.ClientSession | None = None
        self._stream: aiohttp.ClientResponse | None = None
        self._stream_id = ""
        self._subscribed = False
        self._lost = ""
        self._life, self._attempts = secrets.token_hex(8), 0

    async def call(self, call: Call) -> None:
        """Errors: as the master refused it; `Unavailable` when no master answers."""
        if isinstance(call, Subscribe):
            await self._subscribe(call)
            return
        if not self._stream_id:
            raise Unavailable("not subscribed; SUBSCRIBE comes before every other call")
        headers = {STREAM_ID_HEADER: self._stream_id}
        response = await self._post(self._url, call, headers, aiohttp.ClientTimeout(total=CALL_TIMEOUT_S))
        async with response:
            await _check(response)

    async def events(self) -> AsyncIterator[Event]:
        """The events since SUBSCRIBE, once; ends with the connection."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        reader = RecordReader()
        try:
            async for chunk in stream.content.iter_any():
                for record in reader.feed(chunk):
                    yield read_event(record)
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"the event stream of {self._url} broke: {error or type(error).__name__}") from None
        finally:
            stream.close()

    async def close(self) -> None:
        """Drop the stream and all connections."""
        self._stream_id = ""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _subscribe(self, call: Subscribe) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._stream_id = ""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        tried: list[str] = []
        if self._subscribed:
            self._lost, self._subscribed = self._url, False
        for url in dict.fromkeys([self._url, *self._masters]):
            self._attempts += 1
            waits = {WAIT: f"wait={WAIT_S}", ATTEMPT_HEADER: f"{self._life}/{self._attempts}"}
            if self._lost:
                waits[LOST] = self._lost
            try:
                response = await self._post(url, call, waits, timeout)
            except Unavailable as error:
                tried.append(error.message)
                continue
            try:
                await _check(response)
            except Unavailable as error:
                tried.append(error.message)
                continue
            self._stream_id = response.headers.get(STREAM_ID_HEADER, "")
            self._stream = response
            self._lost, self._subscribed = "", True
            return
        raise Unavailable("; ".join(tried))

    async def _post(
        self, url: str, call: Call, headers: dict[str, str], limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """One request, following the way to the leader."""
        if self._session is None:
            self._session = open_session(self._access, limit=MOST_CONNECTIONS, auto_decompress=True)
        body = write_call(call)
        headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        for _ in range(MOST_REDIRECTS + 1):
            try:
                response = await self._session.post(
                    urljoin(url, PATH), data=body, headers=headers, timeout=limits, allow_redirects=False
                )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._lost = url
                why = explain_tls(error, url) or f"{url} does not answer: {error or type(error).__name__}"
                raise Unavailable(f"master {why}") from None
            if response.status != 307:
                self._url = url
                return response
            location = response.headers.get("Location", "")
            response.release()
            if not location:
                raise Unavailable(f"master {url} does not lead and does not say who does")
            # A location without a scheme, such as //host:port, keeps ours.
            parts = urlsplit(urljoin(url, location))
            url = f"{parts.scheme}://{parts.netloc}"
        raise Unavailable(f"masters send each other's callers on, {MOST_REDIRECTS} times now; no leader is to be found")


async def _check(response: aiohttp.ClientResponse) -> None:
    """Errors: what the status stands for, in the master's own words."""
    if response.status < 300:
        return
    try:
        text = (await response.text())[:1000].strip()
    except (aiohttp.ClientError, OSError, UnicodeDecodeError):
        text = ""
    kind = _ERRORS.get(response.status, Failed)
    raise kind(text or f"the master answered {response.status} {response.reason}")
