"""The asynchronous client of the batch API."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType

import aiohttp
import msgspec

from corral.client import exchange
from corral.client.exchange import Answer, Asked, Servers, Spec, Tries
from corral.client.records import Job, Stats, Submitted, Waited
from corral.lib.errors import Failed
from corral.net.client import open_session

TIMEOUT_S = 30.0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a job's state. Shapes: `cursor` is where to go on from; `event` the new state, or `lost`."""

    event: str
    cursor: str = ""
    id: str = ""
    owner: str = ""
    name: str = ""
    attempt: int = 0
    exit_code: int | None = None
    reason: str = ""


class AsyncBatchClient:
    """As `BatchClient`, for one asyncio loop; an asynchronous context manager."""

    def __init__(
        self,
        *urls: str,
        retry_s: float = 60.0,
        timeout_s: float = TIMEOUT_S,
        token: str | None = None,
        cacert: str | None = None,
    ) -> None:
        self._access = exchange.find_access(token, cacert)
        self._servers = Servers(urls, self._access)
        self._retry_s = retry_s
        self._timeout_s = timeout_s
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
    ) -> list[Submitted]:
        """Submit jobs, a thousand in a request; each request is taken whole or not at all.

        Shapes: `key` makes the whole call one that can be repeated; without, each call is a new one.
        Errors: `Invalid` names the job and the field; `TooMany` when the queue stays full.
        """
        found: list[Submitted] = []
        for number, portion in enumerate(exchange.portions(jobs)):
            asked = exchange.ask_submit(portion, defaults, f"{key}/{number}" if key else None, check)
            found += exchange.read_submitted(await self._ask(asked))
        return found

    async def get(self, job_id: str) -> Job:
        """Errors: `NotFound` for a job that is not known, or not any more."""
        return exchange.read_job(await self._ask(exchange.ask_get(job_id)))

    async def query(self, ids: Sequence[str]) -> dict[str, Job]:
        """Many jobs by id; those that are not known any more are missing."""
        body = await self._ask(exchange.ask_post("query", {"ids": list(ids)}))
        return {job.id: job for job in exchange.read_queried(body).jobs}

    async def jobs(self, *, state: str = "", owner: str = "", label: str = "", name: str = "") -> AsyncIterator[Job]:
        """All jobs that match, newest first."""
        cursor: str | None = ""
        filters = {"state": state, "owner": owner, "label": label, "name": name}
        while cursor is not None:
            page = exchange.read_page(await self._ask(exchange.ask_list(cursor, 1000, filters)))
            for job in page.jobs:
                yield job
            cursor = page.next_cursor

    async def wait(self, ids: Sequence[str], *, timeout_s: float = exchange.MOST_WAIT_S, any: bool = False) -> Waited:
        """Wait until all are over, or `any` one is, but for at most a minute."""
        body = {"ids": list(ids), "timeout": min(timeout_s, 60.0), "any": any}
        return exchange.read_waited(await self._ask(exchange.ask_post("wait", body, patience_s=timeout_s)))

    async def wait_for(self, job_id: str, *, timeout_s: float = float("inf")) -> Job:
        """The job once it is over. Errors: `Failed` when it is not after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while True:
            left_s = min(max(0.0, until - time.monotonic()), exchange.MOST_WAIT_S)
            if not (await self.wait([job_id], timeout_s=left_s)).pending:
                return await self.get(job_id)
            if time.monotonic() >= until:
                raise Failed(f"job {job_id} is not over after {timeout_s:g} s: {(await self.get(job_id)).reason}")

    async def kill(self, job_id: str) -> None:
        """End a job in whatever state it is."""
        await self._ask(exchange.ask_kill(job_id))

    async def kill_many(self, ids: Sequence[str] = (), *, owner: str = "", label: str = "", state: str = "") -> int:
        """End jobs by id, or all that match; returns how many."""
        given = {"ids": list(ids), "owner": owner, "label": label, "state": state}
        body = {key: value for key, value in given.items() if value}
        return exchange.read_killed(await self._ask(exchange.ask_post("kill", body)))

    async def set_priority(self, job_id: str, priority: int) -> Job:
        """Errors: `Conflict` unless the job waits."""
        return exchange.read_job(await self._ask(exchange.ask_priority(job_id, priority)))

    async def log(self, job_id: str, *, stream: str = "stdout", offset: int = 0, length: int | None = None) -> bytes:
        """What the last attempt wrote."""
        return await self._ask(exchange.ask_log(job_id, stream, offset, length))

    async def stats(self) -> Stats:
        return exchange.read_stats(await self._ask(exchange.ask_stats()))

    async def events(self, since: str = "") -> AsyncIterator[Event]:
        """Changes of state as they come, from now or from after a cursor; goes on by itself when it is cut off."""
        tries = Tries(self._servers, self._retry_s, time.monotonic())
        while True:
            url = self._servers.url
            try:
                async with self._http().get(
                    f"{url}{exchange.PREFIX}/events", params={"since": since} if since else {},
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=60.0),
                ) as response:  # fmt: skip
                    if response.status != 200:
                        answer = Answer(
                            status=response.status, body=await response.read(), headers=response.headers
                        )  # fmt: skip
                        await asyncio.sleep(tries.answered(answer, time.monotonic()) or 0.0)
                        continue
                    tries = Tries(self._servers, self._retry_s, time.monotonic())
                    async for line in response.content:
                        if line.strip():
                            event = msgspec.json.decode(line, type=Event)
                            since = event.cursor or since
                            yield event
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                await asyncio.sleep(tries.failed(f"{url} does not answer: {error!r}", time.monotonic()))

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session(self._access)
        return self._session

    async def _ask(self, asked: Asked) -> bytes:
        tries = Tries(self._servers, self._retry_s, time.monotonic())
        while True:
            url = self._servers.url
            try:
                answer = await self._send(url, asked)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                delay_s: float | None = tries.failed(f"{url} does not answer: {error!r}", time.monotonic())
            else:
                delay_s = tries.answered(answer, time.monotonic())
                if delay_s is None:
                    return answer.body
            await asyncio.sleep(delay_s or 0.0)

    async def _send(self, url: str, asked: Asked) -> Answer:
        limits = aiohttp.ClientTimeout(total=self._timeout_s + asked.patience_s)
        async with self._http().request(
            asked.method, url + asked.path, data=asked.body, headers=asked.headers, timeout=limits,
            allow_redirects=False,
        ) as response:  # fmt: skip
            return Answer(status=response.status, body=await response.read(), headers=response.headers)
