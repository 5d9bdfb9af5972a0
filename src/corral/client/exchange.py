"""What is asked and when it is asked again, apart from how it travels: shared by both clients.

Rule: everything that is asked may be asked twice. A submission carries a key, so that one whose answer was lost makes
nothing new. An answer of 429 or 503 is waited for as long as it says; no answer at all is tried at the next server.
"""

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec

from corral.client.records import Admitted, Job, Killed, Owner, Page, Queried, Stats, Waited
from corral.lib import errors
from corral.lib.backoff import grow_delay_s
from corral.lib.errors import CorralError, Failed, Invalid, Unavailable
from corral.net.access import NO_ACCESS, Access, access_from, complete_url, read_token_value

PREFIX = "/v1/batch"
MOST_AT_ONCE = 1000
MOST_WAIT_S = 30.0
FIRST_DELAY_S = 0.1
MOST_DELAY_S = 10.0
MOST_BODY_BYTES = 8 << 20

_BY_STATUS: dict[int, type[CorralError]] = {
    400: Invalid, 401: errors.Unauthenticated, 403: errors.Forbidden, 404: errors.NotFound, 405: errors.WrongMethod,
    409: errors.Conflict, 413: errors.TooLarge, 422: errors.Unprocessable, 429: errors.TooMany, 503: Unavailable,
}  # fmt: skip

Spec = Mapping[str, Any]

T = TypeVar("T")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Units: `patience_s` more than usual, for answers that are slow by their nature."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = {}
    patience_s: float = 0.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes
    headers: Mapping[str, str]


class Servers:
    """The masters, in turn. Shapes: `urls` are base URLs; `access` is what they are shown and how they are verified."""

    def __init__(self, urls: Sequence[str], access: Access = NO_ACCESS) -> None:
        if not urls:
            raise Invalid("a client needs the URL of a master, for example http://127.0.0.1:4680")
        self.access = access
        self.urls = [complete_url(url, access) for url in urls]
        self._at = 0
        self._leader: str | None = None

    @property
    def url(self) -> str:
        return self._leader or self.urls[self._at % len(self.urls)]

    def go_on(self) -> None:
        """The present one does not answer: try the next."""
        if self._leader is None:
            self._at += 1
        self._leader = None

    def follow(self, location: str) -> None:
        """Another one leads. Shapes: a location without a scheme keeps ours."""
        if "//" in location:
            parts = urlsplit(urljoin(self.url + "/", location))
            self._leader = f"{parts.scheme}://{parts.netloc}"
        else:
            self.go_on()


def find_access(token: str | None, cacert: str | None) -> Access:
    """What was given, else what CORRAL_TOKEN and CORRAL_CACERT say.

    Errors: `Invalid` when a token's file cannot be read.
    """
    said = access_from(os.environ)
    return Access(
        token=said.token if token is None else read_token_value(token), cacert=said.cacert if cacert is None else cacert
    )


class Tries:
    """How often one request has been tried, and how long to wait for the next time. Units: seconds."""

    def __init__(self, servers: Servers, retry_s: float, now: float) -> None:
        self._servers = servers
        self._until = now + retry_s
        self._count = 0

    def failed(self, why: str, now: float) -> float:
        """Nobody answered. Errors: `Unavailable` when there is no time left."""
        self._servers.go_on()
        return self._delay(Unavailable(why), 0.0, now)

    def answered(self, answer: Answer, now: float) -> float | None:
        """None when the answer is good; else how long to wait.

        Errors: what the status stands for, in the server's words, where trying again does not help.
        """
        if answer.status < 300:
            return None
        if answer.status in (301, 302, 307, 308):
            self._servers.follow(answer.headers.get("Location", ""))
            self._count += 1
            if self._count > 1:
                return self._delay(Unavailable("the masters send each other's callers on; none leads"), 0.0, now)
            return 0.0
        error = read_error(answer)
        if answer.status == 503:
            self._servers.go_on()
        if answer.status not in (429, 502, 503, 504):
            raise error
        try:
            said_s = float(answer.headers.get("Retry-After", "0"))
        except ValueError:
            said_s = 0.0
        return self._delay(error, said_s, now)

    def again(self, error: CorralError, now: float) -> float:
        """How long to wait before the same server is asked again. Errors: this one, when there is no time left."""
        return self._delay(error, 0.0, now)

    def _delay(self, error: CorralError, least_s: float, now: float) -> float:
        self._count += 1
        grown_s = grow_delay_s(self._count, first_s=FIRST_DELAY_S, factor=2.0, most_s=MOST_DELAY_S)
        delay_s = max(least_s, grown_s)
        if now + delay_s > self._until:
            raise error
        return delay_s


def read_error(answer: Answer) -> CorralError:
    try:
        found = msgspec.json.decode(answer.body)
        message = str(found.get("message") or found["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        message = answer.body[:500].decode(errors="replace").strip() or f"the server answered {answer.status}"
    return _BY_STATUS.get(answer.status, Failed)(message)


# What can be asked.


def ask_submit(jobs: Sequence[Spec], defaults: Spec | None, key: str | None, check: bool) -> Asked:
    body = {"jobs": [dict(job) for job in jobs], **({"defaults": dict(defaults)} if defaults else {})}
    headers = {"Content-Type": "application/json", "Idempotency-Key": key or uuid.uuid4().hex}
    path = f"{PREFIX}/jobs" + ("" if check else "?check=false")
    return Asked(method="POST", path=path, body=msgspec.json.encode(body), headers=headers, patience_s=10.0)


def portions(jobs: Iterable[Spec], beside: Spec | None = None) -> Iterable[list[Spec]]:
    """Requests' worth of jobs, of what a server takes at once. Shapes: `beside` is what each of them is added to.

    Errors: `TypeError` for what is no job, or no list of them.
    """
    if isinstance(jobs, (str, bytes, Mapping)):
        raise TypeError(f"jobs must be a list of them, each such as {{'command': 'true'}}, not {type(jobs).__name__}")
    each = len(msgspec.json.encode(beside or {}))
    portion: list[Spec] = []
    size = 0
    for job in jobs:
        if not isinstance(job, Mapping):
            raise TypeError(f"a job must be a mapping such as {{'command': 'true'}}, not {type(job).__name__}")
        more = each + len(msgspec.json.encode(dict(job)))
        if portion and (len(portion) >= MOST_AT_ONCE or size + more > MOST_BODY_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(job)
        size += more
    if portion:
        yield portion


def ask_get(job_id: str) -> Asked:
    return Asked(method="GET", path=path_of_job(job_id))


def ask_list(cursor: str, limit: int, filters: Mapping[str, str]) -> Asked:
    query = {"limit": str(limit), "cursor": cursor, **filters}
    return Asked(method="GET", path=f"{PREFIX}/jobs?" + urlencode({k: v for k, v in query.items() if v}))


def ask_post(what: str, body: Mapping[str, Any], patience_s: float = 0.0) -> Asked:
    headers = {"Content-Type": "application/json"}
    return Asked(
        method="POST", path=f"{PREFIX}/{what}", body=msgspec.json.encode(body), headers=headers, patience_s=patience_s
    )


def ask_kill(job_id: str) -> Asked:
    return Asked(method="DELETE", path=path_of_job(job_id))


def ask_priority(job_id: str, priority: int) -> Asked:
    body = msgspec.json.encode({"priority": priority})
    return Asked(
        method="PATCH", path=path_of_job(job_id), body=body,
        headers={"Content-Type": "application/json"},
    )  # fmt: skip


def ask_log(job_id: str, stream: str, offset: int, length: int | None, attempt: int | None) -> Asked:
    bounds = {"length": length, "attempt": attempt}
    given = {k: str(v) for k, v in bounds.items() if v is not None}
    return Asked(method="GET", path=path_of_log(job_id, stream=stream, offset=str(offset), **given))


def path_of_log(job_id: str, **query: str) -> str:
    return f"{path_of_job(job_id)}/log?{urlencode(query)}"


def path_of_job(job_id: str) -> str:
    """Errors: `Invalid` for an empty id, which would mean all jobs."""
    if not job_id:
        raise Invalid("the id of the job is empty; submit and jobs tell ids")
    return f"{PREFIX}/jobs/{quote(job_id, safe='')}"


def list_ids(ids: Sequence[str]) -> list[str]:
    """Errors: `TypeError` for one id, whose letters would be taken for ids."""
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"ids must be a list of them, not one; write [{ids!r}]")
    return list(ids)


def ask_stats() -> Asked:
    return Asked(method="GET", path=f"{PREFIX}/stats")


def ask_owner(name: str, record: Mapping[str, Any] | None = None) -> Asked:
    """Shapes: with a record the owner is changed to that."""
    path = f"{PREFIX}/owners/{quote(name, safe='')}"
    if record is None:
        return Asked(method="GET", path=path)
    headers = {"Content-Type": "application/json"}
    return Asked(method="PUT", path=path, body=msgspec.json.encode(record), headers=headers)


def path_of_events(since: str) -> str:
    return f"{PREFIX}/events" + (f"?{urlencode({'since': since})}" if since else "")


def read_submitted(body: bytes) -> Admitted:
    return decode(body, Admitted)


def read_job(body: bytes) -> Job:
    return decode(body, Job)


def read_page(body: bytes) -> Page:
    return decode(body, Page)


def read_queried(body: bytes) -> Queried:
    return decode(body, Queried)


def read_waited(body: bytes) -> Waited:
    return decode(body, Waited)


def read_stats(body: bytes) -> Stats:
    return decode(body, Stats)


def read_owner(body: bytes) -> Owner:
    return decode(body, Owner)


def read_killed(body: bytes) -> int:
    return decode(body, Killed).killed


def decode(body: bytes, kind: type[T]) -> T:
    """Errors: `Failed` for what is something else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Failed(f"the server answers something else than was asked for: {error}") from None
