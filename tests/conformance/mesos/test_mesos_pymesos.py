"""pymesos, an independent Mesos client, as scheduler against the real server: nothing of it is changed."""

import base64
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import mesos_client
import pytest
from mesos_client import forget_roles, task, wait_until
from pymesos_build import build_pymesos

if sys.version_info >= (3, 12):
    pytest.skip("http-parser 0.9.0, which pymesos needs, builds on Python 3.11 at most", allow_module_level=True)

SCRIPT = Path(__file__).with_name("pymesos_scheduler.py")


class Foreign:
    """One pymesos scheduler process."""

    def __init__(self, packages, url, info):
        self.told = []
        self._kept = []
        self._events = queue.Queue()
        environment = {**os.environ, "PYTHONPATH": str(packages)}
        command = [sys.executable, str(SCRIPT), url.removeprefix("http://"), json.dumps(info)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.errors = []
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self):
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def do(self, method, *arguments):
        """Call the driver; what it does is told by events."""
        self.process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self.process.stdin.flush()

    def call(self, method, *arguments):
        """Call the driver; it must return without an error."""
        self.do(method, *arguments)
        # What the driver's own thread tells meanwhile is still to be read.
        kept = []
        while (event := self._take(20.0))["event"] != "called":
            assert event["event"] != "raised", event
            kept.append(event)
        self._kept = kept + self._kept

    def _take(self, timeout_s):
        if self._kept:
            return self._kept.pop(0)
        try:
            event = self._events.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            event = None
        assert event is not None, f"pymesos is silent; told {self.told[-20:]}\n{''.join(self.errors)}"
        self.told.append({**event, "offers": ...} if "offers" in event else event)
        return event

    def next_of_any(self, *kinds):
        """The next event of these kinds, be it one that a test does not expect otherwise."""
        while (event := self._take(20.0))["event"] not in kinds:
            assert event["event"] != "answered", event
        return event

    def next(self, *kinds, timeout_s=20.0):
        until = time.monotonic() + timeout_s
        while True:
            assert time.monotonic() < until, f"no {kinds} from pymesos; told {self.told[-20:]}\n{''.join(self.errors)}"
            event = self._take(until - time.monotonic())
            if event["event"] in kinds:
                return event
            assert event["event"] not in ("raised", "error"), event

    def nothing(self, kind, for_s):
        """No event of this kind comes for a while."""
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            assert self._take(left + 5)["event"] != kind  # heartbeats come all the time

    def offer(self):
        return self.next("offers")["offers"][0]

    def update(self, *states):
        while True:
            status = self.next("update")["status"]
            if not states or status["state"] in states:
                return status

    def launch(self, *tasks_of):
        """Launch each (id, command) on the next offer."""
        offer = self.offer()
        tasks = [task(offer, name, command) for name, command in tasks_of]
        self.call("launchTasks", offer["id"], tasks, {"refuse_seconds": 0.2})
        return offer

    def leave(self):
        """Break the stream without a word, as a scheduler that dies does."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self._end()

    def stop(self, failover=False):
        self.do("stop", failover)
        self.next("stopped")
        self._end()

    def _end(self):
        assert self.process.wait(10) == 0, "".join(self.errors)
        self._close()

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        self._close()

    def _close(self):
        for thread in self._threads:
            thread.join(5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


@pytest.fixture(scope="session")
def packages():
    return build_pymesos()


@pytest.fixture
def start(cluster, packages, info):
    """Starts pymesos schedulers; those still there at the end are stopped, and with them their tasks."""
    started = []
    cluster.wait_until_idle()

    def starter(**changes):
        made = Foreign(packages, cluster.url, {**info, **changes})
        started.append(made)
        return made

    yield starter
    for each in started:
        if each.process.poll() is None:
            try:
                each.stop()
            finally:
                if each.process.poll() is None:
                    each.kill()
    cluster.wait_until_idle()


def shown(cluster, framework_id):
    return cluster.get(f"/frameworks?framework_id={framework_id}").json


def test_it_subscribes_and_gets_heartbeats_and_offers(cluster, start):
    scheduler = start()
    registered = scheduler.next("registered")
    assert registered["framework_id"]["value"]
    assert registered["master"]["port"] == int(cluster.url.rpartition(":")[2])
    assert all(piece.isdigit() for piece in registered["version"].split("."))
    assert scheduler.offer()["agent_id"]["value"] == cluster.agent["id"]
    for _ in range(2):
        scheduler.next("heartbeat", timeout_s=3)


def test_it_launches_a_task_that_runs_and_finishes(start):
    scheduler = start()
    offer = scheduler.launch(("t1", "sleep 0.2"))
    states = []
    while "TASK_FINISHED" not in states:
        status = scheduler.update()
        assert status["task_id"] == {"value": "t1"}
        assert status["agent_id"] == offer["agent_id"]
        states.append(status["state"])
    assert states == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]


def test_it_learns_of_a_failure(start):
    scheduler = start()
    scheduler.launch(("t1", "exit 7"))
    assert "7" in scheduler.update("TASK_FAILED")["message"]


def test_it_kills_a_task(start):
    scheduler = start()
    scheduler.launch(("t1", "sleep 60"))
    scheduler.update("TASK_RUNNING")
    scheduler.call("killTask", {"value": "t1"})
    scheduler.update("TASK_KILLED")


def test_it_reconciles_one_task_and_all_tasks(start):
    scheduler = start()
    scheduler.launch(("t1", "sleep 60"), ("t2", "sleep 60"))
    running = {scheduler.update("TASK_RUNNING")["task_id"]["value"] for _ in range(2)}
    assert running == {"t1", "t2"}
    scheduler.call("reconcileTasks", [{"task_id": {"value": "t2"}}, {"task_id": {"value": "ghost"}}])
    answers = {s["task_id"]["value"]: s["state"] for s in (scheduler.update(), scheduler.update())}
    assert answers == {"t2": "TASK_RUNNING", "ghost": "TASK_LOST"}
    scheduler.call("reconcileTasks", [])
    both = [scheduler.update() for _ in range(2)]
    assert {s["task_id"]["value"] for s in both} == {"t1", "t2"}
    assert {s["reason"] for s in both} == {"REASON_RECONCILIATION"}


def test_it_declines_suppresses_and_revives(start):
    scheduler = start()
    scheduler.call("declineOffer", scheduler.offer()["id"], {"refuse_seconds": 1000})
    scheduler.nothing("offers", 1.5)
    scheduler.call("reviveOffers")
    offer = scheduler.offer()
    scheduler.call("suppressOffers")
    scheduler.call("declineOffer", offer["id"], {"refuse_seconds": 0})
    scheduler.nothing("offers", 1.5)
    scheduler.call("reviveOffers")
    assert scheduler.offer()


def test_it_fails_over_to_another_process_that_finds_its_tasks(cluster, start):
    first = start()
    framework_id = first.next("registered")["framework_id"]
    first.launch(("t1", "sleep 60"))
    first.update("TASK_RUNNING")
    first.next("heartbeat")  # pymesos acknowledges only after it has told
    first.leave()
    wait_until(lambda: not shown(cluster, framework_id["value"])["frameworks"][0]["connected"], "the notice")
    second = start(id=framework_id)
    second.next("reregistered")
    second.call("reconcileTasks", [])
    status = second.update()
    assert (status["task_id"], status["state"]) == ({"value": "t1"}, "TASK_RUNNING")
    second.call("killTask", {"value": "t1"})
    second.update("TASK_KILLED")


def test_the_older_of_two_processes_is_told_that_it_was_replaced(start):
    first = start()
    framework_id = first.next("registered")["framework_id"]
    second = start(id=framework_id)
    second.next("reregistered")
    assert "failed over" in first.next("error")["message"].lower()
    first.leave()
    assert second.next("offers", "heartbeat")


def test_it_leaves_for_a_failover_without_losing_its_tasks(cluster, start):
    first = start()
    framework_id = first.next("registered")["framework_id"]
    first.launch(("t1", "sleep 60"))
    first.update("TASK_RUNNING")
    first.stop(failover=True)
    second = start(id=framework_id)
    second.next("reregistered")
    assert [t["state"] for t in shown(cluster, framework_id["value"])["frameworks"][0]["tasks"]] == ["TASK_RUNNING"]


def test_stopping_tears_the_framework_down(cluster, start):
    scheduler = start()
    framework_id = scheduler.next("registered")["framework_id"]["value"]
    scheduler.launch(("t1", "sleep 60"))
    scheduler.update("TASK_RUNNING")
    scheduler.stop()
    rows = wait_until(lambda: shown(cluster, framework_id)["completed_frameworks"], "the teardown")
    assert [f["id"] for f in rows] == [framework_id]
    cluster.wait_until_idle()


def test_the_calls_without_effect_are_taken(start):
    scheduler = start()
    offer = scheduler.offer()
    scheduler.call("requestResources", [{"resources": []}])
    scheduler.call("reconcileOperations", [])
    scheduler.call("sendFrameworkMessage", {"value": "e"}, offer["agent_id"], "aGk=")
    scheduler.call("acceptInverseOffers", {"value": "i"})


@pytest.mark.parametrize(
    ("method", "arguments", "member"),
    [
        ("getHealth", (), "get_health"),
        ("getVersion", (), "get_version"),
        ("getState", (), "get_state"),
        ("getAgents", (), "get_agents"),
        ("getFrameworks", (), "get_frameworks"),
        ("getTasks", (), "get_tasks"),
        ("getMetrics", ("5secs",), "get_metrics"),
        ("getRoles", (), "get_roles"),
        ("getWeights", (), "get_weights"),
        ("getQuota", (), "get_quota"),
    ],
)
def test_its_operator_client_reads(start, method, arguments, member):
    scheduler = start()
    scheduler.next("registered")
    scheduler.do("operator", method, *arguments)
    assert member in scheduler.next("answered")["answer"]


def test_its_operator_client_follows_the_cluster(cluster, start):
    scheduler = start()
    framework_id = scheduler.next("registered")["framework_id"]
    offer = scheduler.offer()
    scheduler.do("follow")

    def followed(call):
        while (event := scheduler.next_of_any("followed"))["call"] != call:
            pass
        return event["about"]

    state = followed("subscribed")["get_state"]
    assert framework_id in [f["framework_info"]["id"] for f in state["get_frameworks"]["frameworks"]]
    assert [a["agent_info"]["id"]["value"] for a in state["get_agents"]["agents"]] == [cluster.agent["id"]]
    scheduler.call("launchTasks", offer["id"], [task(offer, "t1", "sleep 60")], {"refuse_seconds": 0.2})
    added = followed("taskAdded")
    assert (added["task_id"], added["framework_id"], added["state"]) == ({"value": "t1"}, framework_id, "TASK_STAGING")
    states = []
    while "TASK_RUNNING" not in states:
        update = followed("taskUpdated")
        assert (update["framework_id"], update["status"]["task_id"]) == (framework_id, {"value": "t1"})
        states.append(update["state"])
    second = start(name="another", failover_timeout=0.0)
    other_id = second.next("registered")["framework_id"]
    assert followed("frameworkAdded")["framework_info"]["id"] == other_id
    second.kill()
    assert followed("frameworkRemoved")["id"] == other_id


def test_its_client_for_agents_reads_tasks_and_files(cluster, start):
    scheduler = start()
    scheduler.next("registered")
    scheduler.launch(("t1", "echo hello; sleep 60"))
    scheduler.update("TASK_RUNNING")

    def ask(method, *arguments):
        scheduler.do("agent", cluster.agent_url.removeprefix("http://"), method, *arguments)
        return scheduler.next_of_any("answered")["answer"]

    (launched,) = ask("getTasks")["get_tasks"]["launched_tasks"]
    assert (launched["task_id"], launched["state"]) == ({"value": "t1"}, "TASK_RUNNING")
    (executor,) = ask("getExecutors")["get_executors"]["executors"]
    assert executor["executor_info"]["executor_id"] == {"value": "t1"}
    state = mesos_client.request(cluster.agent_url, "GET", "/state").json
    (directory,) = (e["directory"] for f in state["frameworks"] for e in f["executors"])
    files = {f["path"]: f["size"] for f in ask("listFiles", directory)["list_files"]["file_infos"]}
    assert files[f"{directory}/stdout"] == 6
    read = ask("readFile", f"{directory}/stdout", 3, 1)["read_file"]
    assert (base64.b64decode(read["data"]), read["size"]) == (b"ell", 6)
    assert ask("getHealth")["get_health"]["healthy"] is True
    assert ask("getState")["get_state"]["get_tasks"]["launched_tasks"] == [launched]


def test_its_operator_client_sets_weights_and_quotas(cluster, start):
    scheduler = start()
    scheduler.next("registered")

    def ask(method, *arguments):
        scheduler.do("operator", method, *arguments)
        return scheduler.next("answered")["answer"]

    def refused(method, *arguments):
        scheduler.do("operator", method, *arguments)
        return scheduler.next_of_any("raised")["message"]

    try:
        ask("updateWeights", [{"role": "foreign", "weight": 2.5}, {"role": "foreign/nested", "weight": 0.5}])
        assert {"role": "foreign", "weight": 2.5} in ask("getWeights")["get_weights"]["weight_infos"]
        assert "code=400" in refused("updateWeights", [{"role": "foreign", "weight": 0}])
        request = {"role": "foreign", "guarantee": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}]}
        ask("setQuota", request)
        assert "code=400" in refused("setQuota", {**request, "force": True})
        (config,) = ask("getQuota")["get_quota"]["status"]["configs"]
        assert config == {"role": "foreign", "guarantees": {"cpus": {"value": 1.0}}, "limits": {"cpus": {"value": 1.0}}}
        roles = {r["name"]: r["weight"] for r in ask("getRoles")["get_roles"]["roles"]}
        assert (roles["foreign"], roles["foreign/nested"]) == (2.5, 0.5)
        ask("removeQuota", "foreign")
        assert "code=400" in refused("removeQuota", "foreign")
        too_much = [{**request["guarantee"][0], "scalar": {"value": 1000}}]
        assert "code=409" in refused("setQuota", {"role": "foreign", "guarantee": too_much})
    finally:
        forget_roles(cluster.url)
