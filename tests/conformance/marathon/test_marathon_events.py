"""`GET /v2/events`: through the PyPI client, as a load balancer listens to it, and by hand."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from marathon import MarathonClient
from marathon.models import MarathonApp
from marathon.models.events import MarathonDeploymentSuccess, MarathonStatusUpdateEvent
from marathon_site import Site

STREAM = {"Accept": "text/event-stream"}


class Listener:
    """One stream, read by a thread of its own. Shapes: `events` are (id, type, data) in order of arrival."""

    def __init__(self, site: Site, headers: dict[str, str] | None = None, **query: Any) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.comments: list[str] = []
        self._connection = http.client.HTTPConnection(site.url.removeprefix("http://"), timeout=60)
        path = "/v2/events?" + urlencode(query, doseq=True)
        self._connection.request("GET", path, headers={**STREAM, **(headers or {})})
        sock = self._connection.sock
        assert sock is not None
        self._sock = sock
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        assert self._answer.headers["Content-Type"].startswith("text/event-stream")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        frame: dict[str, str] = {}
        with contextlib.suppress(OSError, http.client.HTTPException):
            while line := self._answer.readline().decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if line == "\n" and frame:
                    self.events.append((frame["id"], frame["event"], json.loads(frame["data"])))
                    frame = {}
                elif line.startswith(":"):
                    self.comments.append(line)
                elif line != "\n":
                    frame[name] = value

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in list(self.events)]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for _, found, data in list(self.events) if found == kind]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._reader.join(10)
        self._connection.close()


@pytest.fixture
def listen(site: Site) -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def start(headers: dict[str, str] | None = None, **query: Any) -> Listener:
        made.append(Listener(site, headers, **query))
        return made[-1]

    yield start
    for listener in made:
        listener.close()


def sleeper(app_id: str, **more: Any) -> dict[str, Any]:
    return {"id": app_id, "cmd": "sleep 1000", "cpus": 0.1, "mem": 16, **more}


def test_a_request_that_does_not_ask_for_a_stream_is_told_how_to(site: Site) -> None:
    answer = requests.get(f"{site.url}/v2/events", timeout=10)
    assert answer.status_code == 405
    assert "text/event-stream" in answer.json()["message"]


def test_the_first_event_says_who_listens(site: Site, listen: "Callable[..., Listener]") -> None:
    listener = listen()
    site.wait(lambda: listener.events, "the first event")
    _, kind, data = listener.events[0]
    assert kind == data["eventType"] == "event_stream_attached"
    assert data["remoteAddress"] == "127.0.0.1"
    assert data["timestamp"].endswith("Z")


def test_an_app_s_life_is_told_in_order(site: Site, listen: "Callable[..., Listener]") -> None:
    listener = listen()
    site.wait(lambda: listener.events, "the first event")
    created = requests.post(f"{site.url}/v2/apps", json=sleeper("/told/web"), timeout=10)
    deployment = created.headers["Marathon-Deployment-Id"]
    site.wait(lambda: any(e["id"] == deployment for e in listener.of("deployment_success")), "the deployment's end")
    (task,) = site.wait_running("/told/web", 1).tasks
    (posted,) = listener.of("api_post_event")
    assert posted["uri"] == "/v2/apps"
    assert posted["appDefinition"]["id"] == "/told/web"
    assert posted["appDefinition"]["version"] == created.json()["version"]
    running = [e for e in listener.of("status_update_event") if e["taskStatus"] == "TASK_RUNNING"]
    assert [(e["taskId"], e["host"], e["ports"]) for e in running] == [(task.id, task.host, task.ports)]
    order = listener.kinds()
    assert order.index("group_change_success") < order.index("deployment_info") < order.index("status_update_event")
    assert order.index("status_update_event") < order.index("deployment_success")
    steps = [e["currentStep"]["actions"][0]["action"] for e in listener.of("deployment_info")]
    assert steps == ["StartApplication", "ScaleApplication"]
    conditions = [e["condition"] for e in listener.of("instance_changed_event")]
    assert conditions[0] == "Scheduled"
    assert conditions[-1] == "Running"
    site.remove("/told/web")
    site.wait(lambda: {"appId": "/told/web"}.items() <= (listener.of("app_terminated_event") or [{}])[-1].items(),
              "the end of the app")  # fmt: skip


def test_a_balancer_hears_what_it_names_and_nothing_else(site: Site, listen: "Callable[..., Listener]") -> None:
    named = ["api_post_event", "health_status_changed_event", "status_update_event"]
    listener = listen(event_type=named)
    site.wait(lambda: listener.comments, "the answer")
    requests.post(f"{site.url}/v2/apps", json=sleeper("/balanced", labels={"HAPROXY_GROUP": "x"}), timeout=10)
    site.wait_running("/balanced", 1)
    site.wait(lambda: listener.of("status_update_event"), "an update")
    site.remove("/balanced")
    site.wait(lambda: "TASK_KILLED" in [e["taskStatus"] for e in listener.of("status_update_event")], "the kill")
    assert set(listener.kinds()) <= set(named)


def test_a_listener_that_was_cut_off_goes_on_where_it_was(site: Site, listen: "Callable[..., Listener]") -> None:
    witness = listen()
    first = listen()
    site.wait(lambda: first.events, "the first event")
    first.close()
    site.wait(lambda: witness.of("event_stream_detached"), "word of its leaving")
    last = first.events[0][0]
    requests.post(f"{site.url}/v2/apps", json=sleeper("/missed"), timeout=10)
    site.wait_running("/missed", 1)
    site.wait(lambda: witness.of("deployment_success"), "the deployment")
    back = listen({"Last-Event-ID": last})
    site.wait(lambda: back.of("deployment_success"), "what was missed")
    missed = [e for e in witness.events if e[0] in {i for i, _, _ in back.events}]
    assert back.events[: len(missed)] == missed
    assert back.of("api_post_event")[0]["appDefinition"]["id"] == "/missed"
    lost = listen({"Last-Event-ID": "0-1"})
    site.wait(lambda: lost.events, "its first event")
    assert any("no longer kept" in text for text in lost.comments)
    assert lost.kinds()[0] == "event_stream_attached"
    site.remove("/missed")


def test_the_pypi_client_reads_the_stream(site: Site, client: MarathonClient) -> None:
    stream = client.event_stream()
    attached = next(stream)
    assert attached.remote_address == "127.0.0.1"
    client.create_app("/streamed", MarathonApp(**sleeper("/streamed")))
    seen = []
    for event in stream:
        seen.append(event)
        if isinstance(event, MarathonDeploymentSuccess):
            break
    updates = [e for e in seen if isinstance(e, MarathonStatusUpdateEvent)]
    assert updates[-1].app_id == "/streamed"
    assert updates[-1].task_status == "TASK_RUNNING"
    stream.close()
    site.remove("/streamed")


def test_the_pypi_client_chooses_types(site: Site, client: MarathonClient) -> None:
    stream = client.event_stream(event_types=[MarathonStatusUpdateEvent])
    timer = threading.Timer(0.5, client.create_app, ["/chosen", MarathonApp(**sleeper("/chosen"))])
    timer.start()
    event = next(stream)
    assert (event.event_type, event.app_id) == ("status_update_event", "/chosen")
    timer.join()
    stream.close()
    site.wait_running("/chosen", 1)
    site.remove("/chosen")
