"""The plain client of the batch API, on the standard library; one connection per thread that uses it."""

import http.client
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from corral.client import exchange
from corral.client.exchange import Answer, Asked, Servers, Spec, Tries
from corral.client.records import Job, Stats, Submitted, Waited
from corral.lib.errors import Failed

TIMEOUT_S = 30.0


class BatchClient:
    """Submits jobs, looks at them, waits for them and ends them.

    Shapes: `urls` are those of all masters, tried in turn. Units: `retry_s` seconds a request is tried again for while
    nobody answers or the queue is full. `token` and `cacert`, the file of the cluster's authority, are by default
    CORRAL_TOKEN and CORRAL_CACERT.
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
        self._servers = Servers(urls, self._access)
        self._retry_s = retry_s
        self._timeout_s = timeout_s
        self._local = threading.local()

    def __enter__(self) -> "BatchClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of this thread's connection."""
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()

    def submit(
        self, jobs: Iterable[Spec], *, defaults: Spec | None = None, key: str | None = None, check: bool = True
    ) -> list[Submitted]:
        """Submit jobs, a thousand in a request; each request is taken whole or not at all.

        Shapes: `key` makes the whole call one that can be repeated; without, each call is a new one.
        Errors: `Invalid` names the job and the field; `TooMany` when the queue stays full.
        """
        found: list[Submitted] = []
        for number, portion in enumerate(exchange.portions(jobs)):
            asked = exchange.ask_submit(portion, defaults, f"{key}/{number}" if key else None, check)
            found += exchange.read_submitted(self._ask(asked))
        return found

    def get(self, job_id: str) -> Job:
        """Errors: `NotFound` for a job that is not known, or not any more."""
        return exchange.read_job(self._ask(exchange.ask_get(job_id)))

    def query(self, ids: Sequence[str]) -> dict[str, Job]:
        """Many jobs by id; those that are not known any more are missing."""
        body = self._ask(exchange.ask_post("query", {"ids": list(ids)}))
        return {job.id: job for job in exchange.read_queried(body).jobs}

    def jobs(self, *, state: str = "", owner: str = "", label: str = "", name: str = "") -> Iterator[Job]:
        """All jobs that match, newest first."""
        cursor: str | None = ""
        filters = {"state": state, "owner": owner, "label": label, "name": name}
        while cursor is not None:
            page = exchange.read_page(self._ask(exchange.ask_list(cursor, 1000, filters)))
            yield from page.jobs
            cursor = page.next_cursor

    def wait(self, ids: Sequence[str], *, timeout_s: float = exchange.MOST_WAIT_S, any: bool = False) -> Waited:
        """Wait until all are over, or `any` one is, but for at most a minute."""
        body = {"ids": list(ids), "timeout": min(timeout_s, 60.0), "any": any}
        return exchange.read_waited(self._ask(exchange.ask_post("wait", body, patience_s=timeout_s)))

    def wait_for(self, job_id: str, *, timeout_s: float = float("inf")) -> Job:
        """The job once it is over. Errors: `Failed` when it is not after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while True:
            left_s = min(max(0.0, until - time.monotonic()), exchange.MOST_WAIT_S)
            if not self.wait([job_id], timeout_s=left_s).pending:
                return self.get(job_id)
            if time.monotonic() >= until:
                raise Failed(f"job {job_id} is not over after {timeout_s:g} s: {self.get(job_id).reason}")

    def kill(self, job_id: str) -> None:
        """End a job in whatever state it is."""
        self._ask(exchange.ask_kill(job_id))

    def kill_many(self, ids: Sequence[str] = (), *, owner: str = "", label: str = "", state: str = "") -> int:
        """End jobs by id, or all that match; returns how many."""
        given = {"ids": list(ids), "owner": owner, "label": label, "state": state}
        body = {key: value for key, value in given.items() if value}
        return exchange.read_killed(self._ask(exchange.ask_post("kill", body)))

    def set_priority(self, job_id: str, priority: int) -> Job:
        """Errors: `Conflict` unless the job waits."""
        return exchange.read_job(self._ask(exchange.ask_priority(job_id, priority)))

    def log(self, job_id: str, *, stream: str = "stdout", offset: int = 0, length: int | None = None) -> bytes:
        """What the last attempt wrote."""
        return self._ask(exchange.ask_log(job_id, stream, offset, length))

    def stats(self) -> Stats:
        return exchange.read_stats(self._ask(exchange.ask_stats()))

    def _ask(self, asked: Asked) -> bytes:
        tries = Tries(self._servers, self._retry_s, time.monotonic())
        while True:
            url = self._servers.url
            try:
                answer = self._send(url, asked)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                delay_s: float | None = tries.failed(f"{url} does not answer: {error!r}", time.monotonic())
            else:
                delay_s = tries.answered(answer, time.monotonic())
                if delay_s is None:
                    return answer.body
            time.sleep(delay_s or 0.0)

    def _send(self, url: str, asked: Asked) -> Answer:
        connection = self._connect(url)
        connection.timeout = self._timeout_s + asked.patience_s
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        headers = {**asked.headers, **self._access.headers()}
        connection.request(asked.method, asked.path, body=asked.body, headers=headers)
        response = connection.getresponse()
        body = response.read()
        return Answer(status=response.status, body=body, headers=dict(response.headers))

    def _connect(self, url: str) -> http.client.HTTPConnection:
        local: Any = self._local
        if getattr(local, "url", "") != url or getattr(local, "connection", None) is None:
            self.close()
            parts = urlsplit(url)
            host = parts.hostname or ""
            if parts.scheme == "https":
                tls = self._access.context()
                local.connection = http.client.HTTPSConnection(host, parts.port, timeout=self._timeout_s, context=tls)
            else:
                local.connection = http.client.HTTPConnection(host, parts.port, timeout=self._timeout_s)
            local.url = url
        found: http.client.HTTPConnection = local.connection
        return found
