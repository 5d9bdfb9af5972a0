"""The operator API of a master and an agent over real HTTP: the stream, files, statistics, the older endpoints."""

import base64
import gzip
import json

import mesos_client
import pytest
from mesos_client import MEDIA, connect, request, task, wait_until


class Events:
    """The stream of what happens, read to its next record each time."""

    def __init__(self, url):
        self.connection = connect(url)
        body = json.dumps({"type": "SUBSCRIBE"})
        self.connection.request("POST", "/api/v1", body, {**MEDIA, "Connection": "close"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.headers["Transfer-Encoding"] == "chunked"
        assert self.answer.headers["Content-Type"] == "application/json"

    def read(self):
        return json.loads(self.answer.read(int(self.answer.readline())))

    def next(self, kind):
        while (event := self.read())["type"] != kind:
            pass
        return event.get(kind.lower())

    def close(self):
        self.connection.close()


@pytest.fixture
def events(cluster):
    opened = Events(cluster.url)
    yield opened
    opened.close()


@pytest.fixture
def running(cluster, scheduler):
    """A task that runs and has written something."""
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "shown", "echo hello; exec sleep 30", cpus=0.5, mem=64))
    scheduler.update("TASK_RUNNING")
    return scheduler


def operate(url, kind, path="/api/v1", **more):
    answer = request(url, "POST", path, {"type": kind, **more})
    assert answer.status == 200, answer.body
    assert answer.json["type"] == kind
    return answer.json[kind.lower()]


def test_what_happens_is_told_from_the_snapshot_on(cluster, events, running):
    first = events.read()
    assert first["type"] == "SUBSCRIBED"
    assert first["subscribed"]["heartbeat_interval_seconds"] == 1.0
    assert first["subscribed"]["get_state"].keys() == {"get_tasks", "get_executors", "get_frameworks", "get_agents"}
    assert events.read() == {"type": "HEARTBEAT"}
    assert events.next("FRAMEWORK_ADDED")["framework"]["framework_info"]["id"] == {"value": running.framework_id}
    added = events.next("TASK_ADDED")["task"]
    assert (added["task_id"], added["state"]) == ({"value": "shown"}, "TASK_STAGING")
    while (updated := events.next("TASK_UPDATED"))["state"] != "TASK_RUNNING":
        assert updated["status"]["task_id"] == {"value": "shown"}
    answer = request(cluster.url, "POST", "/teardown", f"frameworkId={running.framework_id}".encode(), {})
    assert (answer.status, answer.body) == (200, b"")
    while (event := running.read()) is not None and event["type"] != "ERROR":
        pass
    assert event is not None
    assert "operator" in event["error"]["message"]
    assert events.next("TASK_UPDATED")["state"] == "TASK_KILLED"
    assert events.next("FRAMEWORK_REMOVED")["framework_info"]["id"] == {"value": running.framework_id}
    events.next("HEARTBEAT")


@pytest.mark.parametrize("path", ["/api/v1", "/slave(1)/api/v1", "/api/v1/operator"])
@pytest.mark.parametrize(
    "kind",
    [
        "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_METRICS", "GET_LOGGING_LEVEL", "GET_STATE", "GET_FRAMEWORKS",
        "GET_EXECUTORS", "GET_TASKS", "GET_AGENT", "GET_RESOURCE_PROVIDERS", "GET_OPERATIONS",
    ],
)  # fmt: skip
def test_an_agent_answers_operators(cluster, path, kind):
    assert isinstance(operate(cluster.agent_url, kind, path), dict)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {}, 400),
        (b"{}", {"Content-Type": "application/x-protobuf"}, 415),
        (b"{", MEDIA, 400),
        (b'{"type":"GET_RICH"}', MEDIA, 400),
        (b'{"type":"UNKNOWN"}', MEDIA, 501),
        (b'{"type":"PRUNE_IMAGES"}', MEDIA, 501),
        (b'{"type":"GET_HEALTH"}', {**MEDIA, "Accept": "text/html"}, 406),
        (b'{"type":"LIST_FILES"}', MEDIA, 400),
        (b'{"type":"LIST_FILES","list_files":{"path":"/no/such"}}', MEDIA, 404),
        (b'{"type":"READ_FILE","read_file":{"path":"/etc/passwd","offset":0}}', MEDIA, 404),
        (b'{"type":"READ_FILE","read_file":{"path":"","offset":0}}', MEDIA, 400),
        (b'{"type":"READ_FILE","read_file":{"path":"/x","offset":-1}}', MEDIA, 400),
    ],
)
def test_what_is_wrong_with_a_call_to_an_agent_is_refused(cluster, body, headers, status):
    assert request(cluster.agent_url, "POST", "/api/v1", body, headers).status == status


def test_a_task_is_found_read_and_measured_on_its_agent(cluster, running):
    url = cluster.agent_url
    (launched,) = operate(url, "GET_TASKS")["launched_tasks"]
    assert (launched["task_id"], launched["framework_id"]["value"]) == ({"value": "shown"}, running.framework_id)
    directories = request(url, "GET", "/files/debug").json
    directory = next(d for d in directories if running.framework_id in d)
    listed = operate(url, "LIST_FILES", list_files={"path": directory})["file_infos"]
    infos = {f["path"].rpartition("/")[2]: f for f in listed}
    assert infos["stdout"]["size"] == 6
    assert infos["stdout"]["mode"] & 0o777
    assert infos["stdout"]["mtime"]["nanoseconds"] > 1e18
    read = operate(url, "READ_FILE", read_file={"path": f"{directory}/stdout", "offset": 1, "length": 3})
    assert (base64.b64decode(read["data"]), read["size"]) == (b"ell", 6)
    whole = operate(url, "READ_FILE", read_file={"path": f"{directory}/stdout", "offset": 0})
    assert base64.b64decode(whole["data"]) == b"hello\n"
    body = {"type": "READ_FILE", "read_file": {"path": directory, "offset": 0}}
    assert request(url, "POST", "/api/v1", body).status == 400

    def measured():
        rows = request(url, "GET", "/monitor/statistics").json
        return [r["statistics"] for r in rows if r["executor_id"] == "shown" and r["statistics"].get("mem_rss_bytes")]

    (used,) = wait_until(measured, "a measure of the task")
    assert (used["cpus_limit"], used["mem_limit_bytes"]) == (0.5, 64 << 20)
    assert used["processes"] >= 1
    (container,) = (c for c in request(url, "GET", "/slave(1)/containers").json if c["executor_id"] == "shown")
    assert container["status"]["container_id"]["value"] == container["container_id"]


@pytest.mark.parametrize("path", ["/state", "/slaves", "/tasks", "/master/roles"])
def test_reads_of_a_master_are_wrapped_and_compressed_on_the_wire(cluster, path):
    wrapped = cluster.get(f"{path}?jsonp=cb")
    assert wrapped.headers["Content-Type"].startswith("text/javascript")
    assert wrapped.text.startswith("cb({")
    assert wrapped.text.endswith(");")
    answer = mesos_client.request(cluster.url, "GET", path, None, {"Accept-Encoding": "gzip"})
    raw = gzip.decompress(answer.body) if answer.headers.get("Content-Encoding") == "gzip" else answer.body
    assert isinstance(json.loads(raw), dict)


@pytest.mark.parametrize("daemon", ["master", "agent"])
def test_both_daemons_give_their_numbers_as_json(cluster, daemon):
    url = cluster.url if daemon == "master" else cluster.agent_url
    found = request(url, "GET", "/metrics", None, {"Accept": "application/json"}).json
    assert found["gauges"]["system/cpus_total"]["value"] >= 1
    text = request(url, "GET", "/metrics", None, {"Accept": "text/plain"})
    assert text.body.startswith(b"# HELP")
    assert request(url, "GET", "/system/stats").json["cpus_total"] >= 1
    assert request(url, "GET", "/logging/toggle").text == "0\n"
