"""The executor API and the container calls of an agent, as they are read and written."""

import base64
import json
import re

import msgspec
import pytest

from corral.lib.errors import CorralError, Invalid
from corral.mesos import containers, executor, wire
from corral.mesos.containers import ContainerCall
from corral.mesos.health import read_check, write_check_status
from corral.mesos.scheduler import read_call
from corral.model import executor as api
from corral.model.agent import AgentInfo
from corral.model.calls import Accept, LaunchGroup
from corral.model.execution import Exit
from corral.model.framework import FrameworkInfo
from corral.model.health import CheckKind, CheckStatus, HealthCheck
from corral.model.resources import scalar
from corral.model.task import CommandInfo, ExecutorInfo, Source, TaskInfo, TaskState

UUID = base64.b64encode(bytes(range(16))).decode()
IDS = {"framework_id": {"value": "f"}, "executor_id": {"value": "e"}}
RUNNING = {"task_id": {"value": "t"}, "state": "TASK_RUNNING", "source": "SOURCE_EXECUTOR", "uuid": UUID}


def call(kind: str, **body: object) -> bytes:
    return json.dumps({"type": kind, **IDS, **body}).encode()


def test_the_calls_of_an_executor_are_read():
    tasks = [{"task_id": {"value": "t"}, "name": "t", "agent_id": {"value": "a"}}]
    found = executor.read_call(
        call("SUBSCRIBE", subscribe={"unacknowledged_tasks": tasks, "unacknowledged_updates": [{"status": RUNNING}]})
    )
    assert isinstance(found, api.Subscribe)
    assert (found.framework_id, found.executor_id, found.task_ids) == ("f", "e", ("t",))
    (status,) = found.updates
    assert (status.state, status.source, status.uuid) == (TaskState.RUNNING, Source.EXECUTOR, bytes(range(16)))
    update = executor.read_call(call("UPDATE", update={"status": {**RUNNING, "executor_id": {"value": "e"}}}))
    assert isinstance(update, api.Update)
    assert update.status.state is TaskState.RUNNING
    assert executor.read_call(call("MESSAGE", message={"data": "aGk="})) == api.Message(
        framework_id="f", executor_id="e", data=b"hi"
    )
    assert executor.read_call(call("HEARTBEAT")) == api.Heartbeat(framework_id="f", executor_id="e")


@pytest.mark.parametrize(
    ("body", "text", "status"),
    [
        (b"[]", "expected an object", 400),
        (b"{}", "Expecting 'type'", 400),
        (call("LAUNCH"), "'LAUNCH', which is no call", 400),
        (call("UNKNOWN"), "UNKNOWN asks for nothing", 501),
        (b'{"type":"HEARTBEAT","framework_id":{"value":"f"}}', "Expecting 'executor_id'", 400),
        (b'{"type":"HEARTBEAT","executor_id":{"value":"e"}}', "Expecting 'framework_id'", 400),
        (b'{"type":"HEARTBEAT","executor_id":{"value":""},"framework_id":{"value":"f"}}', "'executor_id'", 400),
        (call("SUBSCRIBE"), "Expecting 'subscribe'", 400),
        (call("UPDATE"), "Expecting 'update'", 400),
        (call("MESSAGE"), "Expecting 'message'", 400),
        (call("MESSAGE", message={"data": "%"}), "message.data", 400),
        (call("UPDATE", update={"status": {**RUNNING, "uuid": None}}), "Expecting 'update.status.uuid'", 400),
        (call("UPDATE", update={"status": {**RUNNING, "uuid": "AAAA"}}), "expected 16 bytes", 400),
        (call("UPDATE", update={"status": {**RUNNING, "source": "SOURCE_AGENT"}}), "update.status.source", 400),
        (call("UPDATE", update={"status": {**RUNNING, "source": None}}), "update.status.source", 400),
        (call("UPDATE", update={"status": {**RUNNING, "state": "TASK_STAGING"}}), "TASK_STAGING is no state", 400),
        (call("UPDATE", update={"status": {**RUNNING, "state": "TASK_X"}}), "update.status.state", 400),
        (call("UPDATE", update={"status": {**RUNNING, "executor_id": {"value": "x"}}}), "differs from the call's", 400),
    ],
)
def test_a_call_of_an_executor_that_breaks_the_form_is_refused(body, text, status):
    with pytest.raises(CorralError) as refused:
        executor.read_call(body)
    assert refused.value.status == status
    assert text in refused.value.message, refused.value.message


def test_the_events_for_an_executor_are_written():
    info = ExecutorInfo(executor_id="e", framework_id="f", kind="CUSTOM", command=CommandInfo(value="run"))
    task = TaskInfo(task_id="t", name="t", agent_id="a", resources=(scalar("cpus", 1),), executor=info)
    agent = AgentInfo(hostname="h", id="a", resources=(), port=1)
    framework = FrameworkInfo(user="u", name="n", id="f")
    subscribed = api.Subscribed(executor=info, framework=framework, agent=agent, container_id="c")
    found = json.loads(executor.write_event(subscribed))["subscribed"]
    assert found["executor_info"]["executor_id"] == {"value": "e"}
    assert found["executor_info"]["framework_id"] == {"value": "f"}
    assert found["framework_info"]["id"] == {"value": "f"}
    assert found["agent_info"]["hostname"] == "h"
    assert found["container_id"] == {"value": "c"}
    launch = json.loads(executor.write_event(api.Launch(task=task)))
    assert (launch["type"], launch["launch"]["task"]["task_id"]) == ("LAUNCH", {"value": "t"})
    group = json.loads(executor.write_event(api.LaunchGroup(tasks=(task, task))))
    assert len(group["launch_group"]["task_group"]["tasks"]) == 2
    events = {
        api.Kill(task_id="t"): {"kill": {"task_id": {"value": "t"}}},
        api.Kill(task_id="t", grace_s=1.5): {
            "kill": {"task_id": {"value": "t"}, "kill_policy": {"grace_period": {"nanoseconds": 1_500_000_000}}}
        },
        api.Acknowledged(task_id="t", uuid=bytes(range(16))): {
            "acknowledged": {"task_id": {"value": "t"}, "uuid": UUID}
        },
        api.Told(data=b"hi"): {"message": {"data": "aGk="}},
        api.Shutdown(): {},
        api.Error(message="no"): {"error": {"message": "no"}},
        api.Beat(): {},
    }
    kinds = ["KILL", "KILL", "ACKNOWLEDGED", "MESSAGE", "SHUTDOWN", "ERROR", "HEARTBEAT"]
    for kind, (event, body) in zip(kinds, events.items(), strict=True):
        assert json.loads(executor.write_event(event)) == {"type": kind, **body}


# Checks.


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"type": "TCP", "tcp": {"port": 80}}, HealthCheck(kind=CheckKind.TCP, port=80)),
        ({"http": {"port": 80, "path": "/x"}}, HealthCheck(kind=CheckKind.HTTP, port=80, path="/x")),
        (
            {"type": "COMMAND", "command": {"command": {"value": "true"}}, "delay_seconds": 1, "interval_seconds": 2.5},
            HealthCheck(kind=CheckKind.COMMAND, command=CommandInfo(value="true"), delay_s=1, interval_s=2.5),
        ),
        ({"type": "NONSENSE"}, HealthCheck()),
        ({}, HealthCheck()),
    ],
)
def test_a_check_is_read_with_the_defaults_of_mesos(fields, wanted):
    assert read_check(msgspec.convert(fields, wire.CheckInfo)) == wanted


def test_the_status_of_a_check_has_the_member_of_its_kind():
    def written(**fields):
        return json.loads(msgspec.json.encode(write_check_status(CheckStatus(**fields))))

    assert written(kind=CheckKind.COMMAND, code=0) == {"type": "COMMAND", "command": {"exit_code": 0}}
    assert written(kind=CheckKind.HTTP, code=404) == {"type": "HTTP", "http": {"status_code": 404}}
    assert written(kind=CheckKind.TCP, succeeded=False) == {"type": "TCP", "tcp": {"succeeded": False}}
    assert written(kind=CheckKind.HTTP) == {"type": "HTTP", "http": {}}


# Groups.


def accept(executor_info, *tasks):
    group = {"executor": executor_info, "task_group": {"tasks": tasks}}
    operation = {"type": "LAUNCH_GROUP", "launch_group": group}
    body = {"type": "ACCEPT", "framework_id": {"value": "f"}, "accept": {"operations": [operation]}}
    found = read_call(json.dumps(body).encode())
    assert isinstance(found, Accept)
    (launched,) = found.operations
    assert isinstance(launched, LaunchGroup)
    return launched


def test_what_no_agent_carries_out_of_a_groups_executor_is_listed_with_its_tasks():
    task = {"name": "t", "task_id": {"value": "t"}, "agent_id": {"value": "a"}, "command": {"value": "x"}}
    image = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER"}}}
    found = accept({"executor_id": {"value": "e"}, "type": "DEFAULT", "container": image}, task)
    assert found.tasks[0].unsupported == ("launch_group.executor.container.mesos.image",)
    plain = accept({"executor_id": {"value": "e"}, "type": "DEFAULT"}, task)
    assert (plain.tasks[0].unsupported, plain.executor.is_default) == ((), True)


@pytest.mark.parametrize(
    ("container", "unsupported"),
    [
        ({"type": "MESOS", "linux_info": {"share_cgroups": False}}, ()),
        ({"type": "MESOS", "linux_info": {"share_cgroups": False, "seccomp": {}}}, ("container.linux_info",)),
        (
            {"type": "MESOS", "volumes": [{"container_path": "a", "mode": "RW", "source": {"type": "SANDBOX_PATH",
             "sandbox_path": {"type": "PARENT", "path": "x"}}}]}, (),
        ),
        (
            {"type": "MESOS", "volumes": [{"container_path": "a", "mode": "RW", "source": {"type": "SANDBOX_PATH"}}]},
            ("container.volumes.source",),
        ),
    ],
)  # fmt: skip
def test_of_containers_what_groups_need_is_taken_and_nothing_else(container, unsupported):
    task = {"name": "t", "task_id": {"value": "t"}, "agent_id": {"value": "a"}, "container": container}
    assert accept({"executor_id": {"value": "e"}}, task).tasks[0].unsupported == unsupported


# Containers.


def test_a_nested_container_is_named_by_those_around_it():
    body = {
        "type": "LAUNCH_NESTED_CONTAINER_SESSION",
        "launch_nested_container_session": {
            "container_id": {"value": "a", "parent": {"value": "b", "parent": {"value": "c"}}},
            "command": {"value": "top"},
            "container": {"type": "MESOS", "tty_info": {"window_size": {"rows": 2, "columns": 3}}},
        },
    }
    found = containers.read_call(json.dumps(body).encode())
    assert (found.kind, found.path) == (ContainerCall.LAUNCH_NESTED_CONTAINER_SESSION, ("a", "b", "c"))
    assert (found.tty, found.window, found.command) == (True, (2, 3), CommandInfo(value="top"))


@pytest.mark.parametrize(
    ("exit", "told"),
    [
        ({"code": 0}, {"exit_status": 0}),
        ({"code": 3}, {"exit_status": 768}),
        ({"code": 128}, {"exit_status": 128 << 8}),
        ({"signal": 9}, {"exit_status": 9}),
        ({"message": "nobody saw it"}, {"message": "nobody saw it"}),
    ],
)
def test_the_end_of_a_container_is_a_raw_wait_status(exit, told):
    found = json.loads(containers.write_wait(ContainerCall.WAIT_CONTAINER, Exit(container_id="c", **exit)))
    assert found == {"type": "WAIT_CONTAINER", "wait_container": told}


def test_a_container_that_ended_for_its_memory_names_the_limit():
    exit = Exit(container_id="c", signal=9, oom=True)
    found = json.loads(
        containers.write_wait(ContainerCall.WAIT_CONTAINER, exit, (scalar("mem", 64), scalar("cpus", 1)))
    )
    told = found["wait_container"]
    assert (told["exit_status"], told["state"]) == (9, "TASK_FAILED")
    assert told["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY"
    assert [(r["name"], r["scalar"]["value"]) for r in told["limitation"]["resources"]] == [("mem", 64.0)]


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ({"type": "PROCESS_IO"}, "must be of type PROCESS_IO"),
        ({"type": "CONTAINER_ID"}, "must be of type PROCESS_IO"),
        ({"type": "PROCESS_IO", "process_io": {"type": "DATA", "data": {"type": "STDOUT"}}}, "is not STDIN"),
        ({"type": "PROCESS_IO", "process_io": {"type": "DATA"}}, "neither DATA nor CONTROL"),
        (None, "Expecting 'attach_container_input'"),
    ],
)
def test_input_that_is_none_is_refused(member, text):
    record = json.dumps({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": member}).encode()
    with pytest.raises(Invalid) as refused:
        containers.read_input(record)
    assert re.search(text, refused.value.message)


def test_a_heartbeat_of_input_is_nothing_and_a_window_is_a_size():
    def read(control):
        io = {"type": "PROCESS_IO", "process_io": {"type": "CONTROL", "control": control}}
        return containers.read_input(
            json.dumps({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": io}).encode()
        )

    assert read({"type": "HEARTBEAT"}) == containers.Input()
    assert read({"type": "TTY_INFO", "tty_info": {"window_size": {"rows": 1, "columns": 2}}}).window == (1, 2)
    assert json.loads(containers.write_heartbeat())["control"]["type"] == "HEARTBEAT"
