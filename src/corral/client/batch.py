"""The plain client of the batch API, on the standard library; one connection per thread that uses it."""

import http.client
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from corral.client import exchange
from corral.client.calls import Calls, Event, Following, FollowingLog, Pause, Send, Silence, Talk
from corral.client.exchange import Answer, Servers, Spec
from corral.client.records import Job, Owner, Stats, Submission, Waited

TIMEOUT_S = 30.0
SILENT_S = 60.0
"""A stream of events has a sign of life more often than that."""

MOST_PIECE_BYTES = 64 << 10

T = TypeVar("T")


class BatchClient:
    """Submits jobs, looks at them, waits for them and ends them. Threads may share one.

    Shapes: `urls` are those of all masters, tried in turn. Units: `retry_s` seconds a request is tried again for while
    nobody answers or the queue is full, `timeout_s` for each answer. `token` and `cacert`, the file of the cluster's
    authority, are by default CORRAL_TOKEN and CORRAL_CACERT.
    Errors of all calls: `Unavailable` when nobody answers, `Unauthenticated` and `Forbidden` for the caller.
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
        self._local = threading.local()

    def __enter__(self) -> "BatchClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of this thread's connection; another call opens a new one."""
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()

    def submit(
        self, jobs: Iterable[Spec], *, defaults: Spec | None = None, key: str | None = None, check: bool = True
    ) -> Submission:
        """Submit jobs, a thousand in a request, of large ones fewer; each request is taken whole or not at all.

        Shapes: `key` makes the whole call one that can be repeated; without, each call is a new one. Without `check`
        jobs are taken that no agent could run as yet, which the `notices` of the result say.
        Errors: `Invalid` names the job and the field; `TooMany` when the queue stays full.
        """
        return self._run(self._calls.submit(jobs, defaults, key, check))

    def get(self, job_id: str) -> Job:
        """Errors: `NotFound` for a job that is not known, or not any more."""
        return self._run(self._calls.get(job_id))

    def query(self, ids: Sequence[str]) -> dict[str, Job]:
        """Many jobs by id; those that are not known any more are missing."""
        return self._run(self._calls.query(ids))

    def jobs(self, *, state: str = "", owner: str = "", label: str = "", name: str = "") -> Iterator[Job]:
        """All jobs that match, newest first."""
        cursor: str | None = ""
        filters = {"state": state, "owner": owner, "label": label, "name": name}
        while cursor is not None:
            page = self._run(self._calls.page(cursor, filters))
            yield from page.jobs
            cursor = page.next_cursor

    def wait(self, ids: Sequence[str], *, timeout_s: float = exchange.MOST_WAIT_S, any: bool = False) -> Waited:
        """Wait until all are over, or `any` one is, but for at most a minute."""
        return self._run(self._calls.wait(ids, timeout_s, any))

    def wait_for(self, job_id: str, *, timeout_s: float = float("inf")) -> Job:
        """The job once it is over. Errors: `Failed` when it is not after `timeout_s`."""
        return self._run(self._calls.wait_for(job_id, timeout_s))

    def kill(self, job_id: str) -> None:
        """End a job in whatever state it is."""
        self._run(self._calls.kill(job_id))

    def kill_many(self, ids: Sequence[str] = (), *, owner: str = "", label: str = "", state: str = "") -> int:
        """End jobs by id, or all that match; returns how many."""
        return self._run(self._calls.kill_many(ids, owner, label, state))

    def set_priority(self, job_id: str, priority: int) -> Job:
        """Errors: `Conflict` unless the job waits."""
        return self._run(self._calls.set_priority(job_id, priority))

    def log(
        self, job_id: str, *, stream: str = "stdout", offset: int = 0, length: int | None = None,
        attempt: int | None = None,
    ) -> bytes:  # fmt: skip
        """What an attempt wrote, the last unless told. Errors: `NotFound` when there is none of it."""
        return self._run(self._calls.log(job_id, stream, offset, length, attempt))

    def follow_log(
        self, job_id: str, *, stream: str = "stdout", offset: int = 0, attempt: int | None = None
    ) -> Iterator[bytes]:
        """What an attempt writes, piece by piece as it comes, until it is over; the present one unless told.

        Waits for a job that was not launched yet, and goes on by itself when it is cut off. Units: `offset` in bytes.
        Errors: `NotFound` for a job that has no such attempt and will have none, and for an array.
        """
        following = FollowingLog(self._calls, job_id, stream, offset, attempt)
        while self._run(following.go_on()):
            yield from self._pieces(following)

    def _pieces(self, following: FollowingLog) -> Iterator[bytes]:
        """One connection's worth of a log."""
        connection = self._open(following.url)
        try:
            connection.request("GET", following.path, headers=self._access.headers())
            response = connection.getresponse()
            if response.status != 200:
                body = response.read()
                following.refused(Answer(status=response.status, body=body, headers=dict(response.headers)))
                return
            following.begin()
            if connection.sock is not None:
                connection.sock.settimeout(SILENT_S)
            while piece := response.read1(MOST_PIECE_BYTES):
                yield following.hear(piece)
            following.end()
        except (OSError, http.client.HTTPException) as error:
            following.cut(repr(error))
        finally:
            connection.close()

    def stats(self) -> Stats:
        return self._run(self._calls.stats())

    def owner(
        self, name: str, *, weight: float | None = None, max_running: int | None = None, max_queued: int | None = None,
        paused: bool | None = None,
    ) -> Owner:  # fmt: skip
        """An owner's share and bounds, after what is given is changed."""
        changes = {"weight": weight, "max_running": max_running, "max_queued": max_queued, "paused": paused}
        return self._run(self._calls.owner(name, changes))

    def events(self, since: str = "") -> Iterator[Event]:
        """Changes of state as they come, from now or from after a cursor; goes on by itself when it is cut off."""
        following = Following(self._calls, since)
        while True:
            delay_s = yield from self._follow(following)
            time.sleep(delay_s)

    def _follow(self, following: Following) -> Generator[Event, None, float]:
        """One connection's worth of events; returns how long to pause before the next."""
        connection = self._open(following.url)
        try:
            connection.request("GET", following.path, headers=self._access.headers())
            response = connection.getresponse()
            if response.status != 200:
                answer = Answer(status=response.status, body=response.read(), headers=dict(response.headers))
                return following.refused(answer)
            if connection.sock is not None:
                connection.sock.settimeout(SILENT_S)
            while line := response.readline():
                event = following.hear(line)
                if event is not None:
                    yield event
            return following.cut("the stream has ended")
        except (OSError, http.client.HTTPException) as error:
            return following.cut(repr(error))
        finally:
            connection.close()

    def _run(self, talk: Talk[T]) -> T:
        """Carry out a call."""
        came: Answer | Silence | None = None
        while True:
            try:
                step = talk.send(came)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Pause):
                time.sleep(step.delay_s)
                came = None
            else:
                came = self._exchange(step)

    def _exchange(self, step: Send) -> Answer | Silence:
        try:
            return self._send(step)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Silence(repr(error))

    def _send(self, step: Send) -> Answer:
        connection, asked = self._connect(step.url), step.asked
        connection.timeout = step.timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        headers = {**asked.headers, **self._access.headers()}
        connection.request(asked.method, asked.path, body=asked.body, headers=headers)
        response = connection.getresponse()
        body = response.read()
        return Answer(status=response.status, body=body, headers=dict(response.headers))

    def _connect(self, url: str) -> http.client.HTTPConnection:
        """This thread's connection."""
        local: Any = self._local
        if getattr(local, "url", "") != url or getattr(local, "connection", None) is None:
            self.close()
            local.connection = self._open(url)
            local.url = url
        found: http.client.HTTPConnection = local.connection
        return found

    def _open(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            tls = self._access.context()
            return http.client.HTTPSConnection(host, parts.port, timeout=self._calls.timeout_s, context=tls)
        return http.client.HTTPConnection(host, parts.port, timeout=self._calls.timeout_s)
