"""What a client of the batch API can be asked for, once for both clients.

Each call is a generator that says what to send and how long to pause, hears what came of it, and returns the result: it
neither sends nor sleeps. The plain client and the asynchronous one only carry out what it says.
"""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from corral.client import exchange
from corral.client.exchange import Answer, Asked, Servers, Spec, Tries
from corral.client.records import Job, Owner, Page, Stats, Submission, Waited
from corral.lib.errors import CorralError, Failed, NotFound

T = TypeVar("T")

LOOK_S = 1.0
"""How often is looked whether a job that waits was launched."""
MOST_HELD_S = 60.0
"""The server holds a request to wait for so long and no longer."""


class Send(msgspec.Struct, frozen=True):
    """Send this to a server; units: wait at most `timeout_s` for the answer."""

    url: str
    asked: Asked
    timeout_s: float


class Pause(msgspec.Struct, frozen=True):
    delay_s: float


class Silence(msgspec.Struct, frozen=True):
    """No answer came."""

    why: str


Talk = Generator[Send | Pause, Answer | Silence | None, T]
"""Shapes: a `Send` is answered by an `Answer` or a `Silence`, a `Pause` by None."""


class Calls:
    """Units: `retry_s` seconds for which a request is tried again, `timeout_s` for which one answer is waited for."""

    def __init__(self, servers: Servers, retry_s: float, timeout_s: float) -> None:
        self.servers = servers
        self.retry_s = retry_s
        self.timeout_s = timeout_s

    def ask(self, asked: Asked) -> Talk[bytes]:
        """The body of a good answer. Errors: of the status; `Unavailable` when nobody answers in time."""
        tries = Tries(self.servers, self.retry_s, time.monotonic())
        while True:
            url = self.servers.url
            came = yield Send(url, asked, self.timeout_s + asked.patience_s)
            if isinstance(came, Answer):
                delay_s = tries.answered(came, time.monotonic())
                if delay_s is None:
                    return came.body
            else:
                why = came.why if came is not None else "nothing came"
                delay_s = tries.failed(f"{url} does not answer: {why}", time.monotonic())
            yield Pause(delay_s)

    def submit(self, jobs: Iterable[Spec], defaults: Spec | None, key: str | None, check: bool) -> Talk[Submission]:
        found = Submission()
        for number, portion in enumerate(exchange.portions(jobs, defaults)):
            asked = exchange.ask_submit(portion, defaults, f"{key}/{number}" if key else None, check)
            taken = exchange.read_submitted((yield from self.ask(asked)))
            found += taken.jobs
            found.notices += [notice for notice in taken.notices if notice not in found.notices]
        return found

    def get(self, job_id: str) -> Talk[Job]:
        return exchange.read_job((yield from self.ask(exchange.ask_get(job_id))))

    def query(self, ids: Sequence[str]) -> Talk[dict[str, Job]]:
        ids = exchange.list_ids(ids)
        found: dict[str, Job] = {}
        for start in range(0, len(ids), exchange.MOST_AT_ONCE):
            portion = ids[start : start + exchange.MOST_AT_ONCE]
            body = yield from self.ask(exchange.ask_post("query", {"ids": portion}))
            found.update((job.id, job) for job in exchange.read_queried(body).jobs)
        return found

    def page(self, cursor: str, filters: Mapping[str, str]) -> Talk[Page]:
        asked = exchange.ask_list(cursor, exchange.MOST_AT_ONCE, filters)
        return exchange.read_page((yield from self.ask(asked)))

    def wait(self, ids: Sequence[str], timeout_s: float, any: bool) -> Talk[Waited]:
        wait_s = min(max(timeout_s, 0.0), MOST_HELD_S)
        body = {"ids": exchange.list_ids(ids), "timeout": wait_s, "any": any}
        asked = exchange.ask_post("wait", body, patience_s=wait_s)
        return exchange.read_waited((yield from self.ask(asked)))

    def wait_for(self, job_id: str, timeout_s: float) -> Talk[Job]:
        until = time.monotonic() + timeout_s
        while True:
            left_s = min(max(0.0, until - time.monotonic()), exchange.MOST_WAIT_S)
            waited = yield from self.wait([job_id], left_s, False)
            if not waited.pending:
                return (yield from self.get(job_id))
            if time.monotonic() >= until:
                job = yield from self.get(job_id)
                raise Failed(f"job {job_id} is not over after {timeout_s:g} s: it is {job.state}; {job.reason}")

    def kill(self, job_id: str) -> Talk[None]:
        yield from self.ask(exchange.ask_kill(job_id))

    def kill_many(self, ids: Sequence[str], owner: str, label: str, state: str) -> Talk[int]:
        given = {"ids": exchange.list_ids(ids), "owner": owner, "label": label, "state": state}
        asked = exchange.ask_post("kill", {key: value for key, value in given.items() if value})
        return exchange.read_killed((yield from self.ask(asked)))

    def set_priority(self, job_id: str, priority: int) -> Talk[Job]:
        return exchange.read_job((yield from self.ask(exchange.ask_priority(job_id, priority))))

    def log(self, job_id: str, stream: str, offset: int, length: int | None, attempt: int | None) -> Talk[bytes]:
        return (yield from self.ask(exchange.ask_log(job_id, stream, offset, length, attempt)))

    def stats(self) -> Talk[Stats]:
        return exchange.read_stats((yield from self.ask(exchange.ask_stats())))

    def owner(self, name: str, changes: Mapping[str, Any]) -> Talk[Owner]:
        """The owner, after the changes if there are any; what they do not name stays."""
        found = exchange.read_owner((yield from self.ask(exchange.ask_owner(name))))
        given = {key: value for key, value in changes.items() if value is not None}
        if not given:
            return found
        asked = exchange.ask_owner(name, {**found.settings(), **given})
        return exchange.read_owner((yield from self.ask(asked)))


class _Follower:
    """One who reads what has no end: whom to ask, and how often was tried since something was heard."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._renew()

    def _renew(self) -> None:
        self._tries = Tries(self._calls.servers, self._calls.retry_s, time.monotonic())
        self._heard = False

    @property
    def url(self) -> str:
        return self._calls.servers.url


class Following(_Follower):
    """One who follows the events of all jobs: where to begin, where to go on after a cut, and how long to pause first.

    Shapes: a cut right after the connection is answered by a pause that grows, so that nobody asks in circles.
    """

    def __init__(self, calls: Calls, since: str) -> None:
        super().__init__(calls)
        self._since = since

    @property
    def path(self) -> str:
        return exchange.path_of_events(self._since)

    def hear(self, line: bytes) -> "Event | None":
        """Errors: `Failed` for a line that is no event."""
        self._heard = True
        if not line.strip():
            return None
        event = exchange.decode(line, Event)
        self._since = event.cursor or self._since
        return event

    def refused(self, answer: Answer) -> float:
        """How long to pause. Errors: of the status, where asking again does not help."""
        return self._tries.answered(answer, time.monotonic()) or 0.0

    def cut(self, why: str) -> float:
        """How long to pause. Errors: `Unavailable` when nobody has answered for `retry_s`."""
        if self._heard:
            self._renew()
        return self._tries.failed(f"{self.url} does not answer: {why}", time.monotonic())


class FollowingLog(_Follower):
    """One who follows what an attempt writes: whether there is more to ask for, and where to go on.

    Shapes: it is whole once a look that began after the attempt was over has come to its end.
    """

    def __init__(self, calls: Calls, job_id: str, stream: str, offset: int, attempt: int | None) -> None:
        super().__init__(calls)
        self._job_id = job_id
        self._stream = stream
        self._offset = offset
        self._attempt = attempt or 0
        self._delay_s = 0.0
        self._begun_at: float | None = None
        self._is_over = False
        self._is_told = False

    @property
    def path(self) -> str:
        query = {"stream": self._stream, "offset": str(self._offset), "attempt": str(self._attempt), "follow": "true"}
        return exchange.path_of_log(self._job_id, **query)

    def go_on(self) -> Talk[bool]:
        """Wait until there is something to ask for; returns whether there is.

        Errors: `NotFound` for a job that is not known, has no such attempt and will have none, or is an array.
        """
        if self._is_told:
            return False
        if self._delay_s > 0.0:
            yield Pause(self._delay_s)
        try:
            job = yield from self._launched()
        except NotFound:
            if self._begun_at is None:
                raise
            # It was forgotten in the meantime, and its log with it.
            return False
        self._attempt = self._attempt or job.attempt
        self._is_over = job.is_over or job.attempt > self._attempt or job.state == "QUEUED"
        return True

    def _launched(self) -> Talk[Job]:
        wanted = max(self._attempt, 1)
        while True:
            job = yield from self._calls.get(self._job_id)
            if job.attempt >= wanted:
                return job
            if job.counts:
                raise NotFound(f"job {job.id} is an array; its elements have logs, such as {job.id}[0]")
            if job.is_over:
                raise NotFound(
                    f"job {job.id} is {job.state} after {job.attempt} attempts, so there is no log: {job.reason}"
                )
            yield Pause(LOOK_S)
            self._renew()

    def begin(self) -> None:
        """The log is on its way."""
        self._begun_at = time.monotonic()

    def hear(self, piece: bytes) -> bytes:
        self._heard = True
        self._offset += len(piece)
        return piece

    def end(self) -> None:
        """The log has come to its end, or has for now."""
        self._is_told = self._is_over
        if not self._is_told:
            self._again(Failed(f"the log of job {self._job_id} has ended, and its attempt {self._attempt} has not"))

    def refused(self, answer: Answer) -> None:
        """Errors: of the status, where asking again does not help."""
        if answer.status == 404 and not self._is_over:
            # Its agent may not have heard of it yet.
            self._again(exchange.read_error(answer))
        else:
            self._delay_s = self._tries.answered(answer, time.monotonic()) or 0.0

    def cut(self, why: str) -> None:
        """Errors: `Unavailable` when nobody has answered for `retry_s`."""
        self._renew_if_heard()
        self._delay_s = self._tries.failed(f"{self.url} does not answer: {why}", time.monotonic())

    def _again(self, error: CorralError) -> None:
        self._renew_if_heard()
        self._delay_s = self._tries.again(error, time.monotonic())

    def _renew_if_heard(self) -> None:
        # One that had nothing to say for long was there all the same.
        if self._heard or (self._begun_at is not None and time.monotonic() - self._begun_at > LOOK_S):
            self._renew()


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
