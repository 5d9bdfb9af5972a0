"""Bodies that are wrong, clients that leave in the middle, readers that do not read."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from corral_daemons import Daemon, ask, run_corral, wait_running, wait_until
from tests.own_ports import task_ports

SUBSCRIBE = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "fault"}}}


@contextmanager
def connect(url: str, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with socket.socket() as one:
        if receive_buffer is not None:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        one.settimeout(15)
        one.connect((parts.hostname, parts.port))
        yield one


def head(method: str, path: str, **headers: object) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def hold_port(among: range) -> Iterator[int]:
    """A port that is taken, by us."""
    with socket.socket() as holder:
        for port in among:
            try:
                holder.bind(("127.0.0.1", port))
                break
            except OSError:
                continue
        holder.listen()
        yield port


def agent_url(cluster: Daemon) -> str:
    return str(ask(cluster.url, "GET", "/corral/v1/nodes")[1]["nodes"][0]["url"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/apps", b"{"),
        ("/v2/apps", b"\xff\xfe"),
        ("/v2/apps", b""),
        ("/v2/apps", b"null"),
        ("/v2/apps", b"[" * 100_000),
        ("/v2/apps", b'{"id":"x","cmd":"true","cpus":1e999}'),
        ("/v2/apps", b'{"id":"x","cmd":"true","mem":NaN}'),
        ("/v2/apps", b'{"id":"x","cmd":"true","instances":99999999999999999999999}'),
        ("/api/v1/scheduler", b"{"),
        ("/api/v1/scheduler", b"[]"),
        ("/api/v1/scheduler", b"\xff"),
        ("/api/v1/scheduler", b'{"type":"NO_SUCH_CALL"}'),
        ("/api/v1", b"{"),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_a_client_error(cluster: Daemon, path: str, body: bytes) -> None:
    status, answer = ask(cluster.url, "POST", path, body)
    assert 400 <= status < 500, answer
    assert answer
    assert ask(cluster.url, "GET", "/v2/apps/x")[0] == 404


def test_a_body_that_is_too_large_is_refused_before_it_is_read(cluster: Daemon) -> None:
    for path in ("/v2/apps", "/api/v1/scheduler"):
        with connect(cluster.url) as one:
            one.sendall(head("POST", path, Content_Type="application/json", Content_Length=1 << 40))
            assert b" 413 " in one.recv(4096)


def test_a_body_without_end_is_refused_at_the_bound(cluster: Daemon) -> None:
    with connect(cluster.url) as one:
        one.sendall(head("POST", "/v2/apps", Content_Type="application/json", Transfer_Encoding="chunked"))
        chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        for _ in range(9):
            one.sendall(chunk)
        assert b" 413 " in one.recv(4096)


def test_a_body_that_breaks_off_leaves_nothing_behind(cluster: Daemon) -> None:
    app = json.dumps({"id": "half", "cmd": "sleep 1000", "cpus": 0.1, "mem": 16}).encode()
    for cut in (1, len(app) // 2, len(app) - 1, len(app)):
        with connect(cluster.url) as one:
            one.sendall(head("POST", "/v2/apps", Content_Type="application/json", Content_Length=len(app) + 1))
            one.sendall(app[:cut])
    with connect(cluster.url) as one:
        one.sendall(head("POST", "/v2/apps", Content_Type="application/json", Transfer_Encoding="chunked"))
        one.sendall(f"{len(app):x}\r\n".encode() + app + b"\r\n")
    with connect(cluster.url) as one:
        one.sendall(b"POST /v2/apps HTT")
    time.sleep(0.3)
    assert ask(cluster.url, "GET", "/v2/apps/half")[0] == 404


def test_bytes_that_are_no_http_get_an_answer_or_an_end(cluster: Daemon) -> None:
    for junk in (b"\x16\x03\x01\x02\x00" * 50 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with connect(cluster.url) as one:
            one.sendall(junk)
            answer = one.recv(4096)
            assert answer == b"" or b" 400 " in answer or b" 505 " in answer


def test_a_subscriber_that_vanishes_is_noticed_and_its_offers_return(cluster: Daemon) -> None:
    body = json.dumps(SUBSCRIBE).encode()
    with connect(cluster.url) as one:
        one.sendall(head("POST", "/api/v1/scheduler", Content_Type="application/json", Content_Length=len(body)) + body)
        seen = b""
        while b"OFFERS" not in seen:
            seen += one.recv(65536)
        assert b"SUBSCRIBED" in seen
    wait_until(lambda: not ask(cluster.url, "GET", "/corral/v1/nodes")[1]["nodes"][0]["offered"], "offers to return")
    wait_until(lambda: any("framework disconnected" in line for line in cluster.log), "a word about it")


def test_subscribers_that_never_read_disturb_nobody(cluster: Daemon) -> None:
    body = json.dumps(SUBSCRIBE).encode()
    ask_for_stream = head("POST", "/api/v1/scheduler", Content_Type="application/json", Content_Length=len(body)) + body
    with (
        connect(cluster.url, receive_buffer=2048) as scheduler,
        connect(cluster.url, receive_buffer=2048) as events,
        connect(cluster.url, receive_buffer=2048) as operator,
    ):
        scheduler.sendall(ask_for_stream)
        events.sendall(head("GET", "/corral/v1/events?follow=true"))
        operator.sendall(
            head("POST", "/api/v1", Content_Type="application/json", Content_Length=20) + b'{"type":"SUBSCRIBE"}'
        )
        # The silent subscriber may hold offers; an app gets its resources all the same.
        for round_ in range(3):
            app = {"id": f"beside{round_}", "cmd": "sleep 1000", "cpus": 0.1, "mem": 16}
            assert ask(cluster.url, "POST", "/v2/apps", app)[0] == 201
            wait_running(cluster.url, f"beside{round_}", 1)
        for round_ in range(3):
            assert ask(cluster.url, "DELETE", f"/v2/apps/beside{round_}")[0] == 200


def test_ten_megabytes_in_a_second_are_kept_whole(cluster: Daemon) -> None:
    size = 10_000_000
    command = f"head -c {size} /dev/zero | tr '\\0' x; echo; echo end; sleep 1000"
    app = {"id": "loud", "cmd": command, "cpus": 0.5, "mem": 64}
    assert ask(cluster.url, "POST", "/v2/apps", app)[0] == 201
    wait_running(cluster.url, "loud", 1)
    wait_until(lambda: run_corral(cluster.url, "logs", "loud", "-n", "1").out == "end\n", "the end of the output")
    out = run_corral(cluster.url, "logs", "loud").out
    assert out == "x" * size + "\nend\n"
    ask(cluster.url, "DELETE", "/v2/apps/loud")


def test_a_log_reader_that_does_not_read_costs_no_memory(cluster: Daemon) -> None:
    size = 50_000_000
    app = {"id": "flood", "cmd": f"head -c {size} /dev/zero | tr '\\0' '\\n'; sleep 1000", "cpus": 0.5, "mem": 64}
    assert ask(cluster.url, "POST", "/v2/apps", app)[0] == 201
    (task,) = wait_running(cluster.url, "flood", 1)["tasks"]
    before = resident_mb(cluster.process.pid)
    with connect(agent_url(cluster), receive_buffer=2048) as one:
        one.sendall(head("GET", f"/corral/v1/tasks/{task['id']}/logs?stream=stdout&follow=true"))
        time.sleep(1.5)
        assert resident_mb(cluster.process.pid) < before + 20
        assert ask(cluster.url, "GET", "/v2/apps/flood")[0] == 200
    ask(cluster.url, "DELETE", "/v2/apps/flood")


def resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def test_clients_that_leave_in_the_middle_of_following_are_forgotten(cluster: Daemon) -> None:
    app = {"id": "talk", "cmd": "while sleep 0.05; do echo tick; done", "cpus": 0.1, "mem": 16}
    assert ask(cluster.url, "POST", "/v2/apps", app)[0] == 201
    (task,) = wait_running(cluster.url, "talk", 1)["tasks"]
    url = agent_url(cluster)
    before = open_files(cluster.process.pid)
    for _ in range(20):
        with connect(url) as one:
            one.sendall(head("GET", f"/corral/v1/tasks/{task['id']}/logs?stream=stdout&follow=true"))
            assert one.recv(4096)
        with connect(cluster.url) as one:
            one.sendall(head("GET", "/corral/v1/events?follow=true"))
            assert one.recv(4096)
    wait_until(lambda: open_files(cluster.process.pid) <= before + 2, "descriptors to be given back")
    ask(cluster.url, "DELETE", "/v2/apps/talk")


def open_files(pid: int) -> int:
    import os

    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_task_whose_port_something_else_holds_fails_with_its_own_words(cluster: Daemon) -> None:
    with hold_port(task_ports()[50:]) as port:
        program = 'import os, socket; socket.socket().bind(("127.0.0.1", int(os.environ["PORT0"])))'
        command = f"exec python3 -c '{program}'"
        app = {
            "id": "port", "cmd": command, "cpus": 0.1, "mem": 64, "requirePorts": True, "backoffSeconds": 60,
            "portDefinitions": [{"port": port}],
        }  # fmt: skip
        assert ask(cluster.url, "POST", "/v2/apps", app)[0] == 201
        failure = wait_until(
            lambda: ask(cluster.url, "GET", "/v2/apps/port")[1]["app"].get("lastTaskFailure"), "the failure"
        )
        assert failure["state"] == "TASK_FAILED"
        assert "status 1" in failure["message"] or "exit" in failure["message"]
        assert "Address already in use" in run_corral(cluster.url, "logs", failure["taskId"], "--stderr").out
    ask(cluster.url, "DELETE", "/v2/apps/port?force=true")
