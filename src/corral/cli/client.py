"""HTTP for the command line, on the standard library: the asynchronous client would cost a quarter second to import.

Errors of any dialect become the corral error of their status, with the server's words.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from corral.lib import errors
from corral.lib.errors import CorralError, Unavailable

_BY_STATUS: dict[int, type[CorralError]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.Invalid,
    503: errors.Unavailable,
}


_NEXT_STEPS = {
    "master": "start one with `corral dev` or set CORRAL_ADDR",
    "agent": "`corral nodes` shows its state",
}


class Client:
    """One server, one request at a time. Shapes: `addr` is `http://host:port`, `what` is `master` or `agent`."""

    def __init__(self, addr: str, *, timeout_s: float = 30.0, what: str = "master") -> None:
        try:
            split = urlsplit(addr)
            host, port = split.hostname, split.port
        except ValueError:
            split, host, port = urlsplit(""), None, None
        if split.scheme != "http" or not host:
            raise errors.Invalid(f"address {addr!r} is not of the form http://HOST:PORT; set --addr or CORRAL_ADDR")
        self.addr = addr
        self._host = host
        self._port = 80 if port is None else port
        self._timeout_s = timeout_s
        self._what = what

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
        asked = [(k, v) for k, v in query.items() if v not in (None, "", False)]
        target = quote(path, safe="/:*") + (
            "?" + urlencode([(k, "true" if v is True else v) for k, v in asked], doseq=True) if asked else ""
        )
        payload = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        wait_s = self._timeout_s if timeout_s == -1.0 else timeout_s
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            headers = {"Accept": "application/json", "Connection": "close"}
            if payload is not None:
                headers["Content-Type"] = "application/json"
            connection.connect()
            connection.sock.settimeout(wait_s)
            connection.request(method, target, body=payload, headers=headers)
            response = connection.getresponse()
        except TimeoutError:
            raise Unavailable(f"{self.addr} did not answer within {self._timeout_s:g} s; look at its log") from None
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise Unavailable(f"no {self._what} answers at {self.addr} ({why}); {_NEXT_STEPS[self._what]}") from None
        except http.client.HTTPException as error:
            raise Unavailable(
                f"{self.addr} does not speak HTTP as expected: {error!r}; is it a corral {self._what}?"
            ) from None
        if response.status >= 300:
            raise _read_error(response, self.addr)
        return response


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
        return Unavailable(text)
    return kind(f"{text}: {details}" if details else text)
