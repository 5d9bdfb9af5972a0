"""HTTP for the command line, on the standard library: the asynchronous client would cost a quarter second to import.

Errors of any dialect become the corral error of their status, with the server's words.
"""

import http.client
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

from corral.cli.access import find_access
from corral.lib import errors
from corral.lib.errors import CorralError, Unavailable
from corral.net.access import Access, complete_url

_BY_STATUS: dict[int, type[CorralError]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.WrongMethod,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.Invalid,
    429: errors.TooMany,
    503: errors.Unavailable,
    504: errors.Unavailable,
}


_NEXT_STEPS = {
    "master": "start one with `corral dev` or set CORRAL_ADDR",
    "agent": "`corral nodes` shows its state",
}


MOST_SENT_ON = 3


class Client:
    """One server, one request at a time.

    Shapes: `addr` is `http://host:port`, or several with commas between them: each is tried until one answers, and a
    master that does not lead sends on to the one that does. `what` is `master` or `agent`.
    """

    def __init__(self, addr: str, *, timeout_s: float = 30.0, what: str = "master") -> None:
        self._access = find_access()
        self._addrs = [_check_addr(part.strip(), addr, self._access) for part in addr.split(",") if part.strip()]
        if not self._addrs:
            raise errors.Invalid(f"address {addr!r} is not of the form http://HOST:PORT; set --addr or CORRAL_ADDR")
        self.addr = self._addrs[0]
        self._timeout_s = timeout_s
        self._what = what
        self._age_told = False

    def get(self, path: str, **query: Any) -> Any:
        return self.send("GET", path, query=query)

    def send(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        """The decoded JSON answer, None when it is empty.

        Errors: the `CorralError` of the answer's status; `Unavailable` when nobody answers.
        """
        response = self._open(method, path, body, query or {})
        try:
            raw = response.read()
        except (OSError, http.client.HTTPException):
            raise self._cut_off() from None
        finally:
            response.close()
        try:
            return json.loads(raw) if raw else None
        except ValueError:
            raise Unavailable(
                f"{self.addr} answers with something else than JSON; is it a corral {self._what}?"
            ) from None

    def order(self, method: str, path: str) -> None:
        """Ask for something whose answer says no more than that it was done. Errors: as `send`."""
        self._open(method, path, None, {}).close()

    def lines(self, path: str, **query: Any) -> Iterator[bytes]:
        """The answer line by line as it comes, without end if the server has none.

        Errors: `Unavailable` when nobody answers or the answer breaks off.
        """
        response = self._open("GET", path, None, query, timeout_s=None)
        try:
            while line := self._next_line(response):
                yield line
        finally:
            response.close()

    def _next_line(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.readline()
        except (OSError, http.client.HTTPException):
            raise self._cut_off() from None

    def _cut_off(self) -> Unavailable:
        return Unavailable(f"{self._what} {self.addr} broke off in the midst of its answer; try again")

    def _open(
        self, method: str, path: str, body: Any, query: Mapping[str, Any], timeout_s: float | None = -1.0
    ) -> http.client.HTTPResponse:
        """Errors: of the last server that was tried, when none of them has a master that leads behind it."""
        for addr in [self.addr, *(one for one in self._addrs if one != self.addr)]:
            try:
                return self._follow(addr, method, path, body, query, timeout_s)
            except Unavailable as error:
                failed = error
                # Nobody knows whether one that broke off did it; only reads may be asked of another.
                if method != "GET" and not isinstance(error, _NotDone):
                    raise
        raise failed

    def _follow(
        self, addr: str, method: str, path: str, body: Any, query: Mapping[str, Any], timeout_s: float | None
    ) -> http.client.HTTPResponse:
        for _ in range(MOST_SENT_ON + 1):
            self.addr = addr
            response = self._exchange(method, path, body, query, timeout_s)
            if response.status != 307:
                break
            location = urlsplit(urljoin(addr, response.headers.get("Location", "")))
            response.close()
            addr = f"{location.scheme}://{location.netloc}"
        else:
            raise _NotDone(f"masters send each other's callers on; {addr} was the last, and none of them leads")
        if response.status >= 300:
            raise _read_error(response, addr)
        self._warn_of_age(response.headers.get("Corral-Stale", ""))
        if notice := response.headers.get("Corral-Notice"):
            print(f"corral: {notice}", file=sys.stderr)
        if ignored := response.headers.get("Corral-Ignored-Fields"):
            print(f"corral: fields that nobody knows are left out: {ignored}", file=sys.stderr)
        return response

    def _warn_of_age(self, age_s: str) -> None:
        """Say on stderr, once, that what is shown may be out of date."""
        if age_s and not self._age_told:
            self._age_told = True
            print(f"corral: the store is away; this is as of {age_s} s ago", file=sys.stderr)

    def _exchange(
        self, method: str, path: str, body: Any, query: Mapping[str, Any], timeout_s: float | None
    ) -> http.client.HTTPResponse:
        asked = [(k, v) for k, v in query.items() if v not in (None, "", False)]
        target = quote(path, safe="/:*") + (
            "?" + urlencode([(k, "true" if v is True else v) for k, v in asked], doseq=True) if asked else ""
        )
        payload = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        wait_s = self._timeout_s if timeout_s == -1.0 else timeout_s
        connection = self._connect()
        reached = False
        try:
            headers = {"Accept": "application/json", "Connection": "close", **self._access.headers()}
            if payload is not None:
                headers["Content-Type"] = "application/json"
            connection.connect()
            reached = True
            connection.sock.settimeout(wait_s)
            connection.request(method, target, body=payload, headers=headers)
            response = connection.getresponse()
        except TimeoutError:
            kind = Unavailable if reached else _NotDone
            raise kind(f"{self.addr} did not answer within {self._timeout_s:g} s; look at its log") from None
        except (OSError, UnicodeError) as error:
            if self.addr.startswith("https:") and (trouble := _explain(error, self.addr)) is not None:
                raise Unavailable(f"{self._what} {trouble}") from None
            why = getattr(error, "strerror", None) or error
            kind = Unavailable if reached else _NotDone
            raise kind(f"no {self._what} answers at {self.addr} ({why}); {_NEXT_STEPS[self._what]}") from None
        except http.client.HTTPException as error:
            raise Unavailable(
                f"{self.addr} does not speak HTTP as expected: {error!r}; is it a corral {self._what}?"
            ) from None
        return response

    def _connect(self) -> http.client.HTTPConnection:
        split = urlsplit(complete_url(self.addr, self._access))
        host = split.hostname or ""
        if split.scheme == "http":
            return http.client.HTTPConnection(host, split.port or 80, timeout=self._timeout_s)
        # Only those who need TLS wait for its import.
        from corral.net.tls import client_context

        context = client_context(self._access.cacert, to_master=self._what == "master")
        return http.client.HTTPSConnection(host, split.port or 443, timeout=self._timeout_s, context=context)


def _explain(error: BaseException, addr: str) -> str | None:
    from corral.net.tls import explain_tls

    return explain_tls(error, addr)


def split_url(url: str) -> SplitResult | None:
    """The parts of a URL of a web server; None for what is none."""
    try:
        split = urlsplit(url)
        fits = split.scheme in ("http", "https") and bool(split.hostname) and (split.port is None or split.port > 0)
    except ValueError:
        return None
    return split if fits else None


def _check_addr(addr: str, given: str, access: Access) -> str:
    """Shapes: without a scheme it is http, or https where the cluster's authority is known.

    Errors: `Invalid` shows the form, or that a token would go there in the clear.
    """
    addr = addr if "://" in addr else f"{'https' if access.secure else 'http'}://{addr}"
    if split_url(addr) is None:
        raise errors.Invalid(f"address {given!r} is not of the form http://HOST:PORT; set --addr or CORRAL_ADDR")
    complete_url(addr, access)
    return addr.rstrip("/")


class _NotDone(Unavailable):
    """Nothing of the request was done: another server may be asked."""


def _read_error(response: http.client.HTTPResponse, addr: str) -> CorralError:
    try:
        raw = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        raw = ""
    finally:
        response.close()
    plain = "html" not in response.headers.get("Content-Type", "")
    message, details = " ".join(raw.split())[:1000] if plain else "", ""
    try:
        found = json.loads(raw)
        inner = found.get("error", found)
        message = inner.get("message", message)
        details = "; ".join(f"{d['path']}: {', '.join(d['errors'])}" for d in found.get("details", []))
    except (ValueError, AttributeError, KeyError, TypeError):
        pass
    text = message or f"{addr} answered {response.status} {response.reason}"
    kind = _BY_STATUS.get(response.status, errors.Failed)
    if kind is Unavailable:
        return _NotDone(text) if response.headers.get("Retry-After") else Unavailable(text)
    return kind(f"{text}: {details}" if details else text)
