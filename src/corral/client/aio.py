"""The asynchronous client of the batch API."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

import aiohttp

from corral.client import exchange
from corral.client.batch import SILENT_S, TIMEOUT_S
from corral.client.calls import Calls, Event, Following, FollowingLog, Pause, Send, Silence, Talk
from corral.client.exchange import Answer, Servers, Spec
from corral.client.records import Job, Owner, Stats, Submission, Waited
from corral.net.client import open_session

T = TypeVar("T")


class AsyncBatchClient:
    """As `BatchClient`, for one asyncio loop; an asynchronous context manager.

    A call that is cancelled may have been carried out; a submission with a key can be repeated.
    """

    def __init__(
        self,
        *urls: str,
        retry_s: float = 60.0,
        timeout_s: float = TIMEOUT_S,
        token: str | None = None,
        cacert: str | None = None,
    ) -> None:
        self._access = exchange.find_access(token, cacert)
        self._calls = Calls(Servers(urls, self._access), retry_s, timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "AsyncBatchClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def submit(
        self, jobs: Iterable[Spec], *, defaults: Spec | None = None, key: str | None = None, check: bool = True
    ) -> Submission:
        """As `BatchClient.submit`."""
        return await self._run(self._calls.submit(jobs, defaults, key, check))

    async def get(self, job_id: str) -> Job:
        """As `BatchClient.get`."""
        return await self._run(self._calls.get(job_id))

    async def query(self, ids: Sequence[str]) -> dict[str, Job]:
        """As `BatchClient.query`."""
        return await self._run(self._calls.query(ids))

    async def jobs(self, *, state: str = "", owner: str = "", label: str = "", name: str = "") -> AsyncIterator[Job]:
        """As `BatchClient.jobs`."""
        cursor: str | None = ""
        filters = {"state": state, "owner": owner, "label": label, "name": name}
        while cursor is not None:
            page = await self._run(self._calls.page(cursor, filters))
            for job in page.jobs:
                yield job
            cursor = page.next_cursor

    async def wait(self, ids: Sequence[str], *, timeout_s: float = exchange.MOST_WAIT_S, any: bool = False) -> Waited:
        """As `BatchClient.wait`."""
        return await self._run(self._calls.wait(ids, timeout_s, any))

    async def wait_for(self, job_id: str, *, timeout_s: float = float("inf")) -> Job:
        """As `BatchClient.wait_for`."""
        return await self._run(self._calls.wait_for(job_id, timeout_s))

    async def kill(self, job_id: str) -> None:
        """As `BatchClient.kill`."""
        await self._run(self._calls.kill(job_id))

    async def kill_many(self, ids: Sequence[str] = (), *, owner: str = "", label: str = "", state: str = "") -> int:
        """As `BatchClient.kill_many`."""
        return await self._run(self._calls.kill_many(ids, owner, label, state))

    async def set_priority(self, job_id: str, priority: int) -> Job:
        """As `BatchClient.set_priority`."""
        return await self._run(self._calls.set_priority(job_id, priority))

    async def log(
        self, job_id: str, *, stream: str = "stdout", offset: int = 0, length: int | None = None,
        attempt: int | None = None,
    ) -> bytes:  # fmt: skip
        """As `BatchClient.log`."""
        return await self._run(self._calls.log(job_id, stream, offset, length, attempt))

    async def follow_log(
        self, job_id: str, *, stream: str = "stdout", offset: int = 0, attempt: int | None = None
    ) -> AsyncIterator[bytes]:
        """As `BatchClient.follow_log`."""
        following = FollowingLog(self._calls, job_id, stream, offset, attempt)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._calls.timeout_s, sock_read=SILENT_S)
        while await self._run(following.go_on()):
            url = following.url + following.path
            try:
                async with self._http().get(url, timeout=limits, allow_redirects=False) as response:
                    if response.status != 200:
                        following.refused(await _read(response))
                        continue
                    following.begin()
                    async for piece in response.content.iter_any():
                        yield following.hear(piece)
                    following.end()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                following.cut(repr(error))

    async def stats(self) -> Stats:
        return await self._run(self._calls.stats())

    async def owner(
        self, name: str, *, weight: float | None = None, max_running: int | None = None, max_queued: int | None = None,
        paused: bool | None = None,
    ) -> Owner:  # fmt: skip
        """As `BatchClient.owner`."""
        changes = {"weight": weight, "max_running": max_running, "max_queued": max_queued, "paused": paused}
        return await self._run(self._calls.owner(name, changes))

    async def events(self, since: str = "") -> AsyncIterator[Event]:
        """As `BatchClient.events`."""
        following = Following(self._calls, since)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._calls.timeout_s, sock_read=SILENT_S)
        while True:
            url = following.url + following.path
            try:
                async with self._http().get(url, timeout=limits, allow_redirects=False) as response:
                    if response.status != 200:
                        delay_s = following.refused(await _read(response))
                    else:
                        async for line in response.content:
                            event = following.hear(line)
                            if event is not None:
                                yield event
                        delay_s = following.cut("the stream has ended")
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                delay_s = following.cut(repr(error))
            await asyncio.sleep(delay_s)

    async def _run(self, talk: Talk[T]) -> T:
        """Carry out a call."""
        came: Answer | Silence | None = None
        while True:
            try:
                step = talk.send(came)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.delay_s)
                came = None
            else:
                came = await self._exchange(step)

    async def _exchange(self, step: Send) -> Answer | Silence:
        asked = step.asked
        try:
            async with self._http().request(
                asked.method, step.url + asked.path, data=asked.body, headers=asked.headers,
                timeout=aiohttp.ClientTimeout(total=step.timeout_s), allow_redirects=False,
            ) as response:  # fmt: skip
                return await _read(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Silence(repr(error))

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session(self._access)
        return self._session


async def _read(response: aiohttp.ClientResponse) -> Answer:
    return Answer(status=response.status, body=await response.read(), headers=response.headers)
