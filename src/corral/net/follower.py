"""Decides what a process that does not lead does with a request: send the caller on, pass it on once, or refuse it.

Laws: a request that was passed on is never passed on again, so a loop is impossible whatever followers believe; a
caller is sent on only to a leader whose lease was seen to stand a moment ago; whatever has no end is sent on, never
passed on.
Source: Mesos v1, 307 of a master that does not lead.
"""

from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from corral.net.auth import OF_CERTIFICATES
from corral.net.routes import Response, json_response
from corral.net.stream import ORDERS_PATH, REPORTS_PATH

FORWARDED = "Corral-Forwarded"
"""Marks a request that a follower has passed on, and says which."""

LOST = "Corral-Lost"
"""Names the leader that the caller has just lost: he has no use for being sent there."""

WAIT = "Prefer"
"""`wait=SECONDS`, as in RFC 7240: a caller who would rather wait for a leader than ask again."""

RETRY_AFTER_S = 1
MOST_WAIT_S = 30.0

_SENT_ON = ("/api/v1", "/master/api/v1")
_LINKS = (ORDERS_PATH, REPORTS_PATH, *OF_CERTIFICATES)
_STREAMS = ("/v2/events", "/corral/v1/registry/watch")
_HOP_BY_HOP = frozenset(
    {
        "connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip


class Way(StrEnum):
    """ON: 307 to the leader; THROUGH: passed on; REFUSED: 503."""

    ON = "on"
    THROUGH = "through"
    REFUSED = "refused"


class Verdict(msgspec.Struct, frozen=True):
    """Shapes: `why` says what a refused caller reads."""

    way: Way
    why: str = ""


def choose_way(path: str, query: str, headers: Mapping[str, str], leader_url: str | None, own_url: str) -> Verdict:
    """Shapes: `headers` with lower-case names; `leader_url` None when nobody is known to lead."""
    if FORWARDED.lower() in headers:
        return Verdict(
            Way.REFUSED, f"{own_url} does not lead, though {headers[FORWARDED.lower()]} took it for the leader"
        )
    if not leader_url:
        return Verdict(Way.REFUSED, "no master leads at the moment")
    if leader_url == own_url:
        return Verdict(Way.REFUSED, "this master has just become the leader and is still reading its records")
    if is_endless(path, query, headers):
        return Verdict(Way.ON)
    return Verdict(Way.THROUGH)


def is_endless(path: str, query: str, headers: Mapping[str, str]) -> bool:
    """Whether the exchange may last for ever: calls of the Mesos v1 API, event streams, agents' links, upgrades."""
    below_api = any(path == each or path.startswith(each + "/") for each in _SENT_ON)
    if below_api or path in _LINKS or path.rstrip("/") in _STREAMS or "upgrade" in headers:
        return True
    if "text/event-stream" in headers.get("accept", ""):
        return True
    return any(part.lower() in ("follow", "follow=true", "follow=1") for part in query.split("&"))


def waits_s(path: str, headers: Mapping[str, str]) -> float:
    """How long this caller would wait for a leader. Units: seconds, 0 when he did not say so."""
    for part in headers.get(WAIT.lower(), "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "wait" and value.isdigit():
            return min(float(value), MOST_WAIT_S)
    return 0.0


def may_go_on(leader_url: str | None, own_url: str, headers: Mapping[str, str], *, is_new: bool) -> bool:
    """Whether a caller who waits has somewhere to go: to a leader that is not this process, and not the one he has lost
    unless that one leads anew since.
    """
    if not leader_url or leader_url == own_url:
        return False
    return is_new or leader_url != headers.get(LOST.lower())


def send_on(leader_url: str, path_and_query: str) -> Response:
    """307 in Mesos' form, `//host:port` without a scheme: some clients take no more than that from it."""
    return Response(status=307, headers={"Location": f"//{urlsplit(leader_url).netloc}{path_and_query}"})


def refuse(why: str) -> Response:
    return json_response(
        {"error": {"status": 503, "message": f"{why}; try again in a moment"}, "message": why},
        status=503,
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def tell_doubt(why: str, method: str) -> Response:
    """The leader took the request and did not answer: only reads may be tried again as if nothing had happened."""
    if method in ("GET", "HEAD"):
        return refuse(why)
    message = f"{why}; look whether it was done before you try again"
    return json_response({"error": {"status": 504, "message": message}, "message": message}, status=504)


def headers_through(headers: Mapping[str, str], peer: str, own_url: str) -> dict[str, str]:
    """What a request that is passed on carries. Shapes: names in any case, kept."""
    named = {
        name.strip().lower()
        for key, value in headers.items()
        if key.lower() == "connection"
        for name in value.split(",")
    }
    kept = {k: v for k, v in headers.items() if k.lower() not in _HOP_BY_HOP | named and k.lower() != "x-forwarded-for"}
    before = next((v for k, v in headers.items() if k.lower() == "x-forwarded-for"), "")
    return {**kept, FORWARDED: own_url, "X-Forwarded-For": f"{before}, {peer}" if before else peer}


def headers_back(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the answer to it carries back; a header that stands twice does so still."""
    return [(k, v) for k, v in headers.items() if k.lower() not in _HOP_BY_HOP]
