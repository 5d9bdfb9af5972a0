"""The clients of the batch API against a server that misbehaves on purpose, and the executor's promises."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, CancelledError, as_completed, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any

import pytest

from corral.client import AsyncBatchClient, BatchClient, BatchExecutor, Event, JobEnded
from corral.lib.errors import Conflict, Failed, Forbidden, Invalid, NotFound, TooMany, Unavailable

Reply = tuple[int, Any, dict[str, str]]


class Master:
    """A pretended batch API. Shapes: `script` holds replies that come before all others, None cuts the connection.

    Jobs end as their command says: `ok`, `bad`, or `hold`, which runs until it is let go or killed. `logs` are what is
    heard by those who follow one, a connection each, where None cuts it; with the last the job ends.
    """

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.gone = False
        self.script: list[Reply | None] = []
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, list[str]] = {}
        self.events: list[list[dict[str, Any]]] = []
        self.logs: list[list[bytes | None]] = []
        self.owner = {"owner": "ada", "weight": 1.0, "max_running": 0, "max_queued": 5, "paused": False}
        master = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                reply = master.answer(self.command, self.path, body, dict(self.headers))
                if reply is None:
                    self.close_connection = True
                    return
                status, value, headers = reply
                if isinstance(value, list):
                    self.send_pieces(status, value)
                    return
                raw = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for key, text in {**headers, "Content-Length": str(len(raw))}.items():
                    self.send_header(key, text)
                self.end_headers()
                self.wfile.write(raw)

            def send_pieces(self, status: int, pieces: list[bytes | None]) -> None:
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in pieces:
                    if piece is None:
                        self.close_connection = True
                        return
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.gone = True
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply | None:
        with self.lock:
            if self.gone:
                return None
            self.seen.append((method, path, body, headers))
            if self.script:
                return self.script.pop(0)
            return self.serve(method, path, body, headers)

    def serve(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        what, _, query = path.removeprefix("/v1/batch/").partition("?")
        if (method, what) == ("POST", "jobs"):
            return self.take(body, headers["Idempotency-Key"])
        if what == "wait":
            until = time.monotonic() + body["timeout"]
            while not self.done(body["ids"]) and (left := until - time.monotonic()) > 0:
                self.lock.wait(left)
            done = self.done(body["ids"])
            return 200, {"done": done, "pending": [i for i in body["ids"] if i not in done]}, {}
        if what == "query":
            return 200, {"jobs": [self.jobs[i] for i in body["ids"] if i in self.jobs], "missing": []}, {}
        if what == "kill":
            for job_id in body["ids"]:
                self.end(job_id, "KILLED")
            return 202, {"killed": len(body["ids"])}, {}
        if what == "events":
            lines = self.events.pop(0) if self.events else []
            return 200, b"".join(json.dumps(one).encode() + b"\n" for one in lines), {}
        if what.startswith("owners/"):
            self.owner |= {key: value for key, value in (body or {}).items() if value is not None}
            return 200, self.owner, {}
        job_id = what.removeprefix("jobs/").removesuffix("/log")
        if job_id not in self.jobs:
            return 404, {"message": f"there is no job {job_id!r}"}, {}
        if what.endswith("/log") and "follow=true" in query:
            pieces = self.logs.pop(0) if self.logs else []
            if not self.logs:
                self.end(job_id, "SUCCEEDED")
            return 200, pieces, {}
        if what.endswith("/log"):
            return 200, query.encode(), {}
        if method == "DELETE":
            self.end(job_id, "KILLED")
            return 202, b"", {}
        return 200, self.jobs[job_id], {}

    def take(self, body: Any, key: str) -> Reply:
        jobs = [{**body.get("defaults", {}), **job} for job in body["jobs"]]
        wrong = [index for index, job in enumerate(jobs) if job.get("command") == "wrong"]
        if wrong:
            return 400, {"message": f"jobs[{wrong[0]}].command is wrong"}, {}
        ids = self.keys.get(key)
        if ids is None:
            ids = self.keys[key] = [f"J{len(self.jobs) + n}" for n in range(len(jobs))]
            known = {job["key"]: job_id for job_id, job in self.jobs.items() if "key" in job}
            for place, job in enumerate(jobs):
                job_id = ids[place] = known.setdefault(job.get("key", ids[place]), ids[place])
                if job_id in self.jobs:
                    continue
                self.jobs[job_id] = {"id": job_id, "state": "RUNNING", **job}
                states = {"ok": "SUCCEEDED", "bad": "FAILED"}
                if job.get("command") in states:
                    self.end(job_id, states[job["command"]])
        found = [{"id": i, "state": "QUEUED", "index": n} for n, i in enumerate(ids)]
        notices = ["no agent has been seen"] if any(job.get("command") == "doubtful" for job in jobs) else []
        return 201, {"jobs": found, "count": len(ids), "notices": notices}, {}

    def end(self, job_id: str, state: str) -> None:
        with self.lock:
            if self.jobs[job_id]["state"] == "RUNNING":
                self.jobs[job_id] |= {"state": state, "exit_code": 0 if state == "SUCCEEDED" else 1}
            self.lock.notify_all()

    def done(self, ids: list[str]) -> list[str]:
        return [i for i in ids if i not in self.jobs or self.jobs[i]["state"] != "RUNNING"]

    def submissions(self) -> list[tuple[Any, str]]:
        """The bodies and keys of what was submitted."""
        return [
            (b, h["Idempotency-Key"])
            for m, p, b, h in self.seen
            if (m, p.partition("?")[0]) == ("POST", "/v1/batch/jobs")
        ]


@pytest.fixture
def master() -> Iterator[Master]:
    found = Master()
    yield found
    found.close()


class Plain:
    """The asynchronous client as if it were the plain one, in a loop of its own."""

    def __init__(self, *urls: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._make(urls, options))

    @staticmethod
    async def _make(urls: tuple[str, ...], options: dict[str, Any]) -> AsyncBatchClient:
        return AsyncBatchClient(*urls, **options)

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def take(self, name: str, count: int, *words: Any, **fields: Any) -> list[Any]:
        async def gather() -> list[Any]:
            found: list[Any] = []
            stream = getattr(self._client, name)(*words, **fields)
            async for one in stream:
                found.append(one)
                if len(found) == count:
                    break
            await stream.aclose()
            return found

        return self._runner.run(gather())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*words: Any, **fields: Any) -> Any:
            return self._runner.run(getattr(self._client, name)(*words, **fields))

        return call


class Direct(BatchClient):
    def take(self, name: str, count: int, *words: Any, **fields: Any) -> list[Any]:
        stream = getattr(self, name)(*words, **fields)
        found = list(islice(stream, count))
        stream.close()
        return found


@pytest.fixture(params=[Direct, Plain])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def build(*urls: str, **options: Any) -> Any:
        made.append(request.param(*urls, **options))
        return made[-1]

    yield build
    for client in made:
        client.close()


# Both clients.


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert calls(BatchClient) == calls(AsyncBatchClient)


def test_a_submission_whose_answer_is_lost_is_asked_again_under_its_key_and_makes_nothing_twice(
    make: Callable[..., Any], master: Master
) -> None:
    client = make(master.url)
    take = master.take
    lost: list[int] = []

    def lose_first(body: Any, key: str) -> Any:
        reply = take(body, key)
        if not lost:
            lost.append(1)
            return 503, {"message": "the answer is lost"}, {}
        return reply

    master.take = lose_first  # type: ignore[method-assign]
    found = client.submit([{"command": "hold"}] * 3, defaults={"mem": 8})
    assert [one.id for one in found] == ["J0", "J1", "J2"]
    assert len(master.jobs) == 3
    keys = [key for _, key in master.submissions()]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_cut_connection_a_full_queue_and_another_leader_are_lived_with(
    make: Callable[..., Any], master: Master
) -> None:
    client = make("http://127.0.0.1:9", master.url)
    master.jobs["J0"] = {"id": "J0", "state": "RUNNING"}
    master.script = [
        None,
        (429, {"message": "full"}, {"Retry-After": "0"}),
        (307, b"", {"Location": f"{master.url}/v1/batch/jobs/J0"}),
    ]
    assert client.get("J0").state == "RUNNING"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Invalid), (403, Forbidden), (404, NotFound), (409, Conflict), (500, Failed), (418, Failed)],
)
def test_errors_have_the_kind_of_their_status_and_the_servers_words(
    make: Callable[..., Any], master: Master, status: int, kind: type[Exception]
) -> None:
    master.script = [(status, {"message": "for a reason"}, {})]
    with pytest.raises(kind, match="for a reason"):
        make(master.url).stats()
    assert len(master.seen) == 1


def test_what_stays_full_or_away_is_an_error_when_the_time_is_up(make: Callable[..., Any], master: Master) -> None:
    master.script = [(429, {"message": "full"}, {"Retry-After": "5"})] * 3
    with pytest.raises(TooMany, match="full"):
        make(master.url, retry_s=1.0).stats()
    with pytest.raises(Unavailable, match="does not answer"):
        make("http://127.0.0.1:9", retry_s=0.3).stats()


def test_an_answer_that_is_something_else_is_told_as_such(make: Callable[..., Any], master: Master) -> None:
    master.script = [(200, b"<html>", {}), (200, {"states": 5}, {}), (200, {"killed": "x"}, {})]
    client = make(master.url)
    for ask in (client.stats, client.stats, lambda: client.kill_many(["J0"])):
        with pytest.raises(Failed, match="something else than was asked for"):
            ask()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("inf")])
def test_any_time_to_wait_is_brought_within_what_the_server_takes(
    make: Callable[..., Any], master: Master, timeout_s: float
) -> None:
    client = make(master.url)
    client.submit([{"command": "ok"}])
    assert client.wait(["J0"], timeout_s=timeout_s).pending == []
    assert 0.0 <= master.seen[-1][2]["timeout"] <= 60.0


def test_waiting_for_one_job_ends_with_it_or_with_the_time_and_its_state(
    make: Callable[..., Any], master: Master
) -> None:
    client = make(master.url)
    client.submit([{"command": "hold", "reason": "so it is"}])
    with pytest.raises(Failed, match=r"job J0 is not over after 0.1 s: it is RUNNING; so it is"):
        client.wait_for("J0", timeout_s=0.1)
    threading.Timer(0.2, master.end, ("J0", "SUCCEEDED")).start()
    assert client.wait_for("J0", timeout_s=10).succeeded


def test_many_are_submitted_and_looked_at_a_thousand_at_a_time(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url)
    ids = [one.id for one in client.submit([{"command": "ok"}] * 2500, key="night")]
    assert [len(body["jobs"]) for body, _ in master.submissions()] == [1000, 1000, 500]
    assert [key for _, key in master.submissions()] == ["night/0", "night/1", "night/2"]
    assert len(client.query(ids)) == 2500
    assert [len(b["ids"]) for _, p, b, _ in master.seen if p.endswith("/query")] == [1000, 1000, 500]


def test_the_other_calls_send_what_they_say(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url)
    client.submit([{"command": "hold"}])
    assert (
        client.log("J0", stream="stderr", offset=5, length=9, attempt=2) == b"stream=stderr&offset=5&length=9&attempt=2"
    )
    assert client.owner("ada").max_queued == 5
    changed = client.owner("ada", weight=2.0, paused=True)
    assert (changed.weight, changed.paused, changed.max_queued) == (2.0, True, 5)
    master.owner |= {"max_queued_set": False}
    client.owner("ada", weight=3.0)
    assert (master.seen[-1][2]["weight"], master.seen[-1][2]["max_queued"]) == (3.0, None), "the server's stays so"
    assert client.set_priority("J0", 7).id == "J0"
    assert master.seen[-1][:3] == ("PATCH", "/v1/batch/jobs/J0", {"priority": 7})
    client.kill("J0")
    assert client.get("J0").state == "KILLED"
    with pytest.raises(NotFound, match="there is no job 'a%2Fb'"):
        client.get("a/b")


def test_events_go_on_after_a_cut_from_where_they_were(make: Callable[..., Any], master: Master) -> None:
    master.events = [
        [{"event": "STARTING", "cursor": "1", "id": "J0"}, {"event": "RUNNING", "cursor": "2", "id": "J0"}],
        [{"event": "SUCCEEDED", "cursor": "3", "id": "J0", "exit_code": 0}],
    ]
    master.script = [(503, {"message": "not yet"}, {"Retry-After": "0"})]
    found: list[Event] = make(master.url).take("events", 3)
    assert [(one.event, one.cursor) for one in found] == [("STARTING", "1"), ("RUNNING", "2"), ("SUCCEEDED", "3")]
    paths = [path for _, path, _, _ in master.seen]
    assert paths == ["/v1/batch/events", "/v1/batch/events", "/v1/batch/events?since=2"]


def test_a_stream_that_ends_at_once_again_and_again_is_not_asked_in_circles(
    make: Callable[..., Any], master: Master
) -> None:
    with pytest.raises(Unavailable, match="the stream has ended"):
        make(master.url, retry_s=1.0).take("events", 1)
    assert len(master.seen) < 10


def follow(client: Any, **fields: Any) -> bytes:
    return b"".join(client.take("follow_log", 100, "J0", **fields))


def test_a_log_is_followed_to_its_end_and_from_where_it_was_cut(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url)
    client.submit([{"command": "hold", "attempt": 3}])
    master.logs = [[b"one ", b"two ", None], [], [b"three"], []]
    assert follow(client, stream="stderr", offset=2) == b"one two three"
    asked = [path.partition("?")[2] for _, path, _, _ in master.seen if "/log" in path]
    assert [query.partition("offset=")[2].partition("&")[0] for query in asked] == ["2", "10", "10", "15", "15"]
    assert {query.partition("&")[0] for query in asked} == {"stream=stderr"}
    assert all("attempt=3" in query for query in asked)


def test_a_log_that_is_over_is_read_once_and_that_of_a_forgotten_job_ends(
    make: Callable[..., Any], master: Master
) -> None:
    client = make(master.url)
    client.submit([{"command": "ok", "attempt": 1}])
    master.logs = [[b"all"]]
    assert follow(client) == b"all"
    assert [path.partition("?")[0] for _, path, _, _ in master.seen[1:]] == [
        "/v1/batch/jobs/J0",
        "/v1/batch/jobs/J0/log",
    ]
    client.submit([{"command": "hold", "attempt": 1}], key="next")
    gone = {"message": "there is no such job"}
    master.script = [(200, master.jobs["J1"], {}), (200, [b"all"], {}), (404, gone, {})]
    assert follow(client) == b"all"


def test_a_log_is_waited_for_until_its_attempt_is_launched(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url)
    client.submit([{"command": "hold", "attempt": 1}])
    threading.Timer(0.3, master.jobs["J0"].update, ({"attempt": 2},)).start()
    master.logs = [[b"second"]]
    assert follow(client, attempt=2) == b"second"
    with pytest.raises(NotFound, match="is SUCCEEDED after 2 attempts, so there is no log"):
        follow(client, attempt=3)
    with pytest.raises(NotFound, match="there is no job 'J9'"):
        client.take("follow_log", 1, "J9")


def test_an_agent_that_has_not_heard_of_its_task_yet_is_asked_again(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url, retry_s=2.0)
    client.submit([{"command": "hold", "attempt": 1}])
    unknown: Reply = (404, {"message": "no such task"}, {})
    master.script = [(200, master.jobs["J0"], {}), unknown]
    master.logs = [[b"there"]]
    assert follow(client) == b"there"
    master.script = [unknown]
    with pytest.raises(NotFound, match="no such task"):
        follow(client)


def test_an_array_has_no_log_to_follow(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url)
    client.submit([{"command": "hold", "counts": {"RUNNING": 2}}])
    with pytest.raises(NotFound, match=r"its elements have logs, such as J0\[0\]"):
        follow(client)


def test_what_is_said_of_jobs_that_nobody_may_run_is_handed_on(make: Callable[..., Any], master: Master) -> None:
    taken = make(master.url).submit([{"command": "ok"}, {"command": "doubtful"}])
    assert (len(taken), taken.notices) == (2, ["no agent has been seen"])


def test_what_is_no_list_of_jobs_is_refused_before_it_is_sent(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url)
    for wrong in ({"command": "ok"}, "ok", ["ok"], [None]):
        with pytest.raises(TypeError, match=r"such as \{'command': 'true'\}"):
            client.submit(wrong)
    assert master.seen == []


def test_one_id_is_not_taken_for_many_of_a_letter_and_none_for_all(make: Callable[..., Any], master: Master) -> None:
    client = make(master.url)
    for call in (client.wait, client.query, client.kill_many):
        with pytest.raises(TypeError, match=r"write \['J0'\]"):
            call("J0")
    for call in (client.get, client.kill, client.log):
        with pytest.raises(Invalid, match="the id of the job is empty"):
            call("")
    assert master.seen == []


def test_threads_may_share_a_plain_client(master: Master) -> None:
    with Direct(master.url) as client:
        client.submit([{"command": "ok"}] * 8)
        found: list[str] = []
        threads = [threading.Thread(target=lambda n=n: found.append(client.get(f"J{n}").id)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == [f"J{n}" for n in range(8)]


# The executor.


@pytest.fixture
def executor(master: Master) -> Iterator[BatchExecutor]:
    found = BatchExecutor(BatchClient(master.url, retry_s=2.0), mem=8)
    yield found
    for job_id in list(master.jobs):
        master.end(job_id, "KILLED")
    found.shutdown()


def taken(master: Master, count: int) -> None:
    until = time.monotonic() + 10
    while len(master.jobs) < count:
        assert time.monotonic() < until, master.jobs
        time.sleep(0.01)


def test_futures_are_those_of_the_standard_library(executor: BatchExecutor, master: Master) -> None:
    good = [executor.submit("ok") for _ in range(3)]
    bad, held = executor.submit("bad", cpus=2), executor.submit("hold")
    assert {future.result().state for future in as_completed(good, timeout=10)} == {"SUCCEEDED"}
    error = bad.exception(timeout=10)
    assert isinstance(error, JobEnded)
    assert error.job.state == "FAILED"
    done, pending = wait([*good, bad, held], timeout=0.1, return_when=ALL_COMPLETED)
    assert (len(done), pending) == (4, {held})
    assert held.running()
    with pytest.raises(TimeoutError):
        held.result(timeout=0.05)
    called: list[Any] = []
    held.add_done_callback(called.append)
    master.end(held.job_id or "", "SUCCEEDED")
    assert held.result(timeout=10).id == held.job_id
    assert called == [held]
    assert (master.jobs[bad.job_id or ""]["cpus"], master.jobs[bad.job_id or ""]["mem"]) == (2, 8)


def test_what_a_job_at_fault_is_told_hurts_no_other_of_its_request(executor: BatchExecutor, master: Master) -> None:
    with master.lock:
        futures = [executor.submit("wrong" if n == 7 else "ok") for n in range(20)]
    errors = [future.exception(timeout=10) for future in futures]
    assert [n for n, error in enumerate(errors) if error is not None] == [7]
    assert isinstance(errors[7], Invalid)


def test_what_cannot_be_sent_is_told_at_once_and_the_executor_goes_on(executor: BatchExecutor) -> None:
    for wrong in (
        lambda: executor.submit(print, 1), lambda: executor.submit(b"ok"), lambda: executor.submit(None),
        lambda: executor.submit("ok", env={"A": object()}),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            wrong()
    assert executor.submit("ok").result(timeout=10).succeeded


def test_what_no_job_can_have_is_refused_before_there_is_an_executor(master: Master) -> None:
    with pytest.raises(TypeError):
        BatchExecutor(BatchClient(master.url), env={"A": object()})


def test_commands_of_one_key_are_one_job_with_one_result(executor: BatchExecutor, master: Master) -> None:
    first, second = executor.submit("hold", key="once"), executor.submit("hold", key="once")
    taken(master, 1)
    while first.job_id is None or second.job_id is None:
        time.sleep(0.01)
    assert first.job_id == second.job_id
    master.end(first.job_id, "SUCCEEDED")
    assert first.result(timeout=10).succeeded
    assert second.result(timeout=10).succeeded
    assert executor.submit("hold", key="once").result(timeout=10).id == first.job_id


def test_a_bug_leaves_nobody_waiting(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = BatchExecutor(BatchClient(master.url))
    monkeypatch.setattr(executor._client, "submit", lambda *words, **fields: [])
    monkeypatch.setattr(threading, "excepthook", lambda failed: None)
    with pytest.raises(RuntimeError, match="the executor has failed"):
        executor.submit("ok").result(timeout=10)


def test_a_callback_of_what_is_taken_back_may_call_the_executor(master: Master) -> None:
    executor = BatchExecutor(BatchClient(master.url))
    with master.lock:
        sent = executor.submit("ok")
        while not sent.running():
            time.sleep(0.01)
        left = executor.submit("ok")
        left.add_done_callback(lambda future: executor.shutdown(wait=False))
        stops = threading.Thread(target=executor.shutdown, kwargs={"wait": False, "cancel_futures": True}, daemon=True)
        stops.start()
        stops.join(5)
        assert not stops.is_alive()
    assert wait([left, sent], timeout=10).not_done == set()
    assert left.cancelled()
    executor.shutdown()


def test_a_job_is_cancelled_before_it_is_sent_and_killed_after(executor: BatchExecutor, master: Master) -> None:
    with master.lock:
        # The first holds the thread that submits; the second has not left.
        first = executor.submit("hold")
        until = time.monotonic() + 5
        while not first.running() and time.monotonic() < until:
            time.sleep(0.01)
        second, third = executor.submit("hold"), executor.submit("hold")
        assert not first.cancel()
        assert second.cancel()
        assert third.kill()
        assert first.kill(), "it is on its way and ends as soon as it is there"
    for cancelled in (second, third):
        with pytest.raises(CancelledError):
            cancelled.result(timeout=10)
    with pytest.raises(JobEnded, match="KILLED"):
        first.result(timeout=10)
    assert len(master.jobs) == 1
    assert not first.kill(), "it is over"
    later = executor.submit("hold")
    taken(master, 2)
    while later.job_id is None:
        time.sleep(0.01)
    assert later.kill()
    with pytest.raises(JobEnded, match="KILLED"):
        later.result(timeout=10)


def test_map_keeps_the_order_bounds_the_whole_and_ends_with_the_first_failure(
    executor: BatchExecutor, master: Master
) -> None:
    assert [job.argv for job in executor.map([["a", "1"], ["b"]], timeout=10, command="ok")] == [["a", "1"], ["b"]]
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        list(executor.map(["hold", "hold", "hold"], timeout=0.4))
    assert time.monotonic() - began < 0.9, "the time is that of all together"
    with pytest.raises(JobEnded):
        list(executor.map(["ok", "bad", "ok"], timeout=10))


def test_shutdown_waits_for_the_jobs_or_leaves_them_or_takes_back_what_has_not_left(master: Master) -> None:
    with BatchExecutor(BatchClient(master.url)) as waits:
        future = waits.submit("hold")
        taken(master, 1)
        threading.Timer(0.3, master.end, ("J0", "SUCCEEDED")).start()
    assert future.done()
    with pytest.raises(RuntimeError, match="shut down"):
        waits.submit("ok")
    leaves = BatchExecutor(BatchClient(master.url))
    future = leaves.submit("hold")
    leaves.shutdown(wait=False)
    taken(master, 2)
    assert not future.done()
    master.end("J1", "SUCCEEDED")
    assert future.result(timeout=10).succeeded
    takes_back = BatchExecutor(BatchClient(master.url))
    with master.lock:
        sent = takes_back.submit("ok")
        while not sent.running():
            time.sleep(0.01)
        left = takes_back.submit("ok")
        takes_back.shutdown(wait=False, cancel_futures=True)
    assert left.cancelled()
    assert sent.result(timeout=10).succeeded
    takes_back.shutdown()


def test_a_callback_may_shut_the_executor_down(master: Master) -> None:
    executor = BatchExecutor(BatchClient(master.url))
    over = threading.Event()

    def stop(future: Any) -> None:
        executor.shutdown()
        over.set()

    executor.submit("ok").add_done_callback(stop)
    assert over.wait(10)


def test_when_no_master_answers_the_futures_say_so_and_the_jobs_can_be_found_again(master: Master) -> None:
    executor = BatchExecutor(BatchClient(master.url, retry_s=0.5))
    future = executor.submit("hold")
    taken(master, 1)
    master.close()
    assert isinstance(future.exception(timeout=20), Unavailable)
    assert future.job_id == "J0"
    executor.shutdown()


def test_more_than_one_request_can_watch_have_turns(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.client.executor.MOST_WATCHED", 2)
    monkeypatch.setattr("corral.client.executor.LOOK_S", 0.05)
    with BatchExecutor(BatchClient(master.url)) as executor:
        futures = [executor.submit("hold") for _ in range(7)]
        taken(master, 7)
        for future in reversed(futures):
            while future.job_id is None:
                time.sleep(0.01)
            master.end(future.job_id, "SUCCEEDED")
            assert future.result(timeout=10).succeeded
    assert max(len(b["ids"]) for _, p, b, _ in master.seen if p.endswith("/wait")) == 2


def test_a_program_that_ends_without_a_shutdown_has_handed_its_commands_over(master: Master) -> None:
    program = (
        "import sys\n"
        "from corral.client import BatchClient, BatchExecutor\n"
        f"executor = BatchExecutor(BatchClient({master.url!r}))\n"
        "for _ in range(50): executor.submit('hold')\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(master.jobs) == 50
