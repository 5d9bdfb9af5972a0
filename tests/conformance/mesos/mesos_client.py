"""A Mesos scheduler of few lines over a plain socket, written from the contract and sharing no code with corral."""

import base64
import contextlib
import http.client
import json
import queue
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
SCHEDULER = "/api/v1/scheduler"
MEDIA = {"Content-Type": "application/json", "Accept": "application/json"}


class Answer:
    """A whole response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)


def request(url: str, method: str, path: str, body: Any = None, headers: Json | None = None) -> Answer:
    """One exchange on a connection of its own. Shapes: `body` as bytes or as what becomes JSON."""
    with contextlib.closing(connect(url)) as connection:
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, raw, headers if headers is not None else MEDIA)
        return Answer(connection.getresponse())


class Subscription:
    """An event stream and the calls that belong to it."""

    def __init__(self, url: str, info: Json, *, suppressed: tuple[str, ...] = ()) -> None:
        self.url = url
        self.seen: list[Json] = []
        self._rest = b""
        self._connection = connect(url)
        call: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info, "suppressed_roles": suppressed}}
        if "id" in info:
            call["framework_id"] = info["id"]
        headers = {**MEDIA, "Connection": "close"}
        self._connection.request("POST", SCHEDULER, json.dumps(call), headers)
        self._socket: socket.socket = self._connection.sock
        self._socket.settimeout(None)
        self.response = self._connection.getresponse()
        assert self.response.status == 200, self.response.read()
        self.stream_id = self.response.headers["Mesos-Stream-Id"]
        self.framework_id = ""
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read_chunks, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Break the stream without a word, as a client that dies does."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(5)
        self.response.close()
        self._connection.close()

    def registered(self) -> "Subscription":
        self.framework_id = self.next("SUBSCRIBED")["subscribed"]["framework_id"]["value"]
        return self

    def next(self, *kinds: str, timeout_s: float = 20.0) -> Json:
        """The next event of one of these kinds; others are passed over, an ERROR is not."""
        until = time.monotonic() + timeout_s
        while True:
            event = self.read(until - time.monotonic())
            assert event is not None, f"the stream ended while waiting for {kinds}; seen {self.seen}"
            if event["type"] in kinds:
                return event
            assert event["type"] != "ERROR", event

    def read(self, timeout_s: float = 20.0) -> Json | None:
        """The next event of any kind; None at the end of the stream.

        Errors: `TimeoutError` when none comes in time.
        """
        until = time.monotonic() + timeout_s
        while True:
            length, newline, rest = self._rest.partition(b"\n")
            if newline and len(rest) >= int(length):
                event: Json = json.loads(rest[: int(length)])
                self._rest = rest[int(length) :]
                self.seen.append(event)
                return event
            try:
                chunk = self._chunks.get(timeout=max(until - time.monotonic(), 0.001))
            except queue.Empty:
                raise TimeoutError(f"no event in {timeout_s} s; seen {[e['type'] for e in self.seen]}") from None
            if not chunk:
                self._chunks.put(b"")
                assert not self._rest, f"the stream ended within a record: {self._rest!r}"
                return None
            self._rest += chunk

    def _read_chunks(self) -> None:
        """Runs in a thread of its own, because a socket that has once timed out cannot be read any more."""
        with contextlib.suppress(http.client.HTTPException, OSError, ValueError, AttributeError):
            while chunk := self.response.read1(65536):
                self._chunks.put(chunk)
        self._chunks.put(b"")

    def drain(self) -> list[Json]:
        """What is left of a stream that ends."""
        found = []
        while (event := self.read()) is not None:
            found.append(event)
        return found

    # Calls.

    def call(self, kind: str, body: Json | None = None, **headers: str) -> Answer:
        envelope: Json = {"type": kind, "framework_id": {"value": self.framework_id}}
        if body is not None:
            envelope[kind.lower()] = body
        return request(self.url, "POST", SCHEDULER, envelope, {**MEDIA, "Mesos-Stream-Id": self.stream_id, **headers})

    def tell(self, kind: str, body: Json | None = None) -> None:
        """A call that has to be accepted."""
        answer = self.call(kind, body)
        assert (answer.status, answer.body) == (202, b""), (kind, answer.status, answer.body)

    def offer(self) -> Json:
        """Any offer; the others that come with it are declined at once for a moment."""
        first, *more = self.next("OFFERS")["offers"]["offers"]
        if more:
            self.tell("DECLINE", {"offer_ids": [o["id"] for o in more], "filters": {"refuse_seconds": 1.0}})
        return first

    def launch(self, offer: Json, *tasks: Json, refuse_s: float = 0.0) -> None:
        operation = {"type": "LAUNCH", "launch": {"task_infos": tasks}}
        filters = {"refuse_seconds": refuse_s}
        self.tell("ACCEPT", {"offer_ids": [offer["id"]], "operations": [operation], "filters": filters})

    def update(self, *states: str, task_id: str | None = None, acknowledge: bool = True) -> Json:
        """The next status of the task (or of any); with states, one of these, others are acknowledged meanwhile."""
        while True:
            status: Json = self.next("UPDATE")["update"]["status"]
            if acknowledge and "uuid" in status:
                self.acknowledge(status)
            if task_id in (None, status["task_id"]["value"]) and (not states or status["state"] in states):
                return status

    def acknowledge(self, status: Json) -> None:
        assert len(base64.b64decode(status["uuid"])) == 16
        body = {"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}
        self.tell("ACKNOWLEDGE", body)


def task(offer: Json, task_id: str, command: str = "", cpus: float = 0.1, mem: float = 32, **fields: Any) -> Json:
    return {
        "name": task_id,
        "task_id": {"value": task_id},
        "agent_id": offer["agent_id"],
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": mem}},
        ],
        **({"command": {"value": command}} if command else {}),
        **fields,
    }


def wait_until(check: Any, what: str, timeout_s: float = 20.0) -> Any:
    """What `check` returns as soon as that is true."""
    until = time.monotonic() + timeout_s
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < until, f"{what} did not happen in {timeout_s} s"
        time.sleep(0.05)


def forget_roles(url: str) -> None:
    """Take away all that operators have set, for the tests that follow."""
    for role in request(url, "GET", "/corral/v1/roles").json["roles"]:
        if role["set"]:
            assert request(url, "DELETE", f"/corral/v1/roles/{role['name']}").status == 204
