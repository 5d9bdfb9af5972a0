"""pymesos, an independent Mesos client, as custom executor under the real agent: nothing of it is changed."""

import base64
import sys
from pathlib import Path

import pytest
from mesos_client import task, wait_until
from pymesos_build import build_pymesos

if sys.version_info >= (3, 12):
    pytest.skip("http-parser 0.9.0, which pymesos needs, builds on Python 3.11 at most", allow_module_level=True)

SCRIPT = Path(__file__).with_name("pymesos_executor.py")


def scalars(**amounts):
    return [{"name": name, "type": "SCALAR", "scalar": {"value": value}} for name, value in amounts.items()]


@pytest.fixture(scope="session")
def executor():
    """An ExecutorInfo, to be given anew with each task."""
    return {
        "type": "CUSTOM",
        "executor_id": {"value": "echo"},
        "name": "echo",
        "resources": scalars(cpus=0.1, mem=64),
        "command": {
            "value": f"exec {sys.executable} -u {SCRIPT}",
            "environment": {"variables": [{"name": "PYTHONPATH", "value": str(build_pymesos())}]},
        },
    }


def text(data):
    return base64.b64decode(data).decode()


def data(words):
    return base64.b64encode(words.encode()).decode()


def send(scheduler, offer, words):
    ids = {"agent_id": offer["agent_id"], "executor_id": {"value": "echo"}}
    scheduler.tell("MESSAGE", {**ids, "data": data(words)})


def used_cpus(cluster):
    return cluster.agent["used_resources"]["cpus"]


def test_an_executor_of_pymesos_runs_several_tasks_and_its_resources_count_once(cluster, scheduler, executor):
    offer = scheduler.offer()
    scheduler.launch(
        offer, task(offer, "one", executor=executor, data=data("hello")), task(offer, "two", executor=executor)
    )
    first = scheduler.update("TASK_RUNNING", task_id="one")
    scheduler.update("TASK_RUNNING", task_id="two")
    assert text(first["data"]) == "hello"
    assert (first["executor_id"], first["source"]) == ({"value": "echo"}, "SOURCE_EXECUTOR")
    assert first["container_status"]["container_id"]["value"]
    assert first["container_status"]["network_infos"][0]["ip_addresses"][0]["ip_address"] == "127.0.0.1"
    assert used_cpus(cluster) == pytest.approx(0.3)
    found = cluster.operator("GET_EXECUTORS")["executors"]
    assert [e["executor_info"]["executor_id"]["value"] for e in found] == ["echo"]

    send(scheduler, offer, "ping")
    answer = scheduler.next("MESSAGE")["message"]
    assert (answer["executor_id"], text(answer["data"])) == ({"value": "echo"}, "PING")

    scheduler.tell("KILL", {"task_id": {"value": "one"}})
    killed = scheduler.update("TASK_KILLED", task_id="one")
    assert killed["source"] == "SOURCE_EXECUTOR"
    send(scheduler, offer, "two=TASK_FINISHED")
    scheduler.update("TASK_FINISHED", task_id="two")
    # It has nothing to do any more, and is there for the next task all the same.
    assert used_cpus(cluster) == pytest.approx(0.1)
    again = scheduler.offer()
    scheduler.launch(again, task(again, "three", executor=executor))
    scheduler.update("TASK_RUNNING", task_id="three")
    assert used_cpus(cluster) == pytest.approx(0.2)

    scheduler.tell("SHUTDOWN", {"executor_id": {"value": "echo"}, "agent_id": offer["agent_id"]})
    status = scheduler.update("TASK_FAILED", task_id="three")
    assert (status["reason"], status["source"]) == ("REASON_EXECUTOR_TERMINATED", "SOURCE_AGENT")
    failure = scheduler.next("FAILURE")["failure"]
    assert (failure["executor_id"], failure["agent_id"]) == ({"value": "echo"}, offer["agent_id"])
    wait_until(lambda: used_cpus(cluster) == 0, "the return of the executor's resources")


def test_an_executor_that_leaves_fails_its_tasks_and_its_exit_status_is_told(scheduler, executor):
    offer = scheduler.offer()
    leaving = {**executor, "command": {**executor["command"], "value": executor["command"]["value"] + " fail"}}
    scheduler.launch(offer, task(offer, "one", executor=leaving))
    scheduler.update("TASK_RUNNING", task_id="one")
    send(scheduler, offer, "leave")
    status = scheduler.update("TASK_FAILED", task_id="one")
    assert (status["reason"], status["message"]) == ("REASON_EXECUTOR_TERMINATED", "Executor exited with status 3")
    assert scheduler.next("FAILURE")["failure"]["status"] == 3 << 8
