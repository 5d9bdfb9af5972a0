"""The agent's operator API: which calls are read and refused, and the shape of each answer."""

import json
import stat

import msgspec
import pytest
from test_mesos_legacy import agent, framework, task

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos import daemon, operator
from corral.mesos.agent_operator import KNOWN, AgentCall, plan_response, read_call
from corral.mesos.containers import write_row
from corral.mesos.pieces import pieces
from corral.mesos.snapshot import AgentFrameworkRow, AgentSnapshot, RunRow
from corral.mesos.statistics import Measured, write_containers, write_statistics, write_usage
from corral.model.flags import parse_resources
from corral.model.task import ContainerStatus, ExecutorInfo, TaskState

RUNS = (
    RunRow(task=task("t1"), container_id="c1", directory="/d/1"),
    RunRow(task=task("t2", TaskState.STAGING), container_id="c2", directory="/d/2", queued=True),
    RunRow(task=task("t3", TaskState.FAILED), container_id="c3", directory="/d/3"),
    RunRow(task=task("t4", TaskState.FINISHED), container_id="c4", directory="/d/4", is_forgotten=True),
)
OVER = AgentFrameworkRow(info=framework("f2").info, runs=(msgspec.structs.replace(RUNS[3], is_forgotten=True),))


def asked(kind, *frameworks, **fields):
    snapshot = AgentSnapshot(info=agent().info, frameworks=frameworks, flags=(("port", "4681"),), **fields)
    call = read_call(json.dumps({"type": kind}).encode())
    answer = json.loads(b"".join(pieces(plan_response(call, snapshot, "1.11.0", {"slave/registered": 1}))))
    assert answer.keys() == {"type", kind.lower()}
    assert answer["type"] == kind
    return answer[kind.lower()]


def level(level, nanoseconds):
    return {
        "type": "SET_LOGGING_LEVEL",
        "set_logging_level": {"level": level, "duration": {"nanoseconds": nanoseconds}},
    }


@pytest.mark.parametrize("kind", sorted(KNOWN - {*AgentCall, *daemon.CALLS}))
def test_calls_for_containers_and_providers_are_not_implemented(kind):
    with pytest.raises(Unimplemented, match=kind):
        read_call(json.dumps({"type": kind}).encode())


@pytest.mark.parametrize("read", [read_call, operator.read_call])
@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "type"),
        ({"type": "GET_RICH"}, "GET_RICH"),
        ({"type": "LIST_FILES"}, "list_files"),
        ({"type": "LIST_FILES", "list_files": {}}, "path"),
        ({"type": "READ_FILE"}, "read_file"),
        ({"type": "READ_FILE", "read_file": {"path": "/a"}}, "offset"),
        ({"type": "READ_FILE", "read_file": {"path": "/a", "offset": -1}}, "0 or more"),
        ({"type": "READ_FILE", "read_file": {"path": "/a", "offset": 0, "length": -2}}, "0 or more"),
        ({"type": "READ_FILE", "read_file": {"path": "/a", "offset": "x"}}, "offset"),
        ({"type": "SET_LOGGING_LEVEL"}, "set_logging_level"),
        ({"type": "SET_LOGGING_LEVEL", "set_logging_level": {"level": 1}}, "duration"),
        ({"type": "SET_LOGGING_LEVEL", "set_logging_level": {"level": -1, "duration": {"nanoseconds": 1}}}, "negative"),
        (
            {"type": "SET_LOGGING_LEVEL", "set_logging_level": {"level": 1, "duration": {"nanoseconds": -1}}},
            "0 or more",
        ),
    ],
)
def test_what_is_wrong_with_a_call_is_named(read, body, word):
    with pytest.raises(Invalid, match=word):
        read(json.dumps(body).encode())


@pytest.mark.parametrize("read", [read_call, operator.read_call])
def test_calls_for_the_daemon_are_read_alike_by_both(read):
    def found(**body):
        return read(json.dumps(body).encode())

    assert found(type="GET_LOGGING_LEVEL") == daemon.GetLoggingLevel()
    assert found(type="LIST_FILES", list_files={"path": "/a"}) == daemon.ListFiles(path="/a")
    assert found(type="READ_FILE", read_file={"path": "/a", "offset": 3}) == daemon.ReadFile(path="/a", offset=3)
    level = {"level": 2, "duration": {"nanoseconds": 1_500_000_000}}
    assert found(type="SET_LOGGING_LEVEL", set_logging_level=level) == daemon.SetLoggingLevel(level=2, duration_s=1.5)


def test_an_agent_without_work_answers_with_empty_objects():
    assert asked("GET_HEALTH") == {"healthy": True}
    assert asked("GET_STATE") == {"get_tasks": {}, "get_executors": {}, "get_frameworks": {}}
    for kind in ("GET_TASKS", "GET_EXECUTORS", "GET_FRAMEWORKS", "GET_OPERATIONS", "GET_RESOURCE_PROVIDERS"):
        assert asked(kind) == {}


def test_the_small_reads_have_their_fields():
    assert asked("GET_VERSION")["version_info"]["version"] == "1.11.0"
    assert asked("GET_FLAGS") == {"flags": [{"name": "port", "value": "4681"}]}
    assert asked("GET_METRICS") == {"metrics": [{"name": "slave/registered", "value": 1.0}]}
    info = asked("GET_AGENT")["agent_info"]
    assert (info["id"], info["hostname"], info["port"]) == ({"value": "a1"}, "a1.example", 4681)
    assert {r["name"] for r in info["resources"]} >= {"cpus", "mem", "ports"}


def test_tasks_are_told_apart_by_how_far_they_are():
    tasks = asked("GET_TASKS", AgentFrameworkRow(info=framework().info, runs=RUNS))
    kinds = {kind: [t["task_id"]["value"] for t in rows] for kind, rows in tasks.items()}
    assert kinds == {
        "launched_tasks": ["t1"], "queued_tasks": ["t2"], "terminated_tasks": ["t3"], "completed_tasks": ["t4"],
    }  # fmt: skip


def test_a_command_task_is_an_executor_of_its_own():
    row = AgentFrameworkRow(info=framework().info, runs=RUNS)
    found = asked("GET_EXECUTORS", row)
    assert [e["executor_info"]["executor_id"]["value"] for e in found["executors"]] == ["t1", "t2"]
    assert [e["executor_info"]["executor_id"]["value"] for e in found["completed_executors"]] == ["t3", "t4"]
    first = found["executors"][0]["executor_info"]
    assert (first["framework_id"], first["command"]["value"]) == ({"value": "f1"}, "true")
    assert {r["allocation_info"]["role"] for r in first["resources"]} == {"*"}
    assert asked("GET_STATE", row)["get_executors"] == found


def test_what_an_executor_of_a_group_holds_says_to_which_role_it_is_allocated():
    pod = ExecutorInfo(executor_id="pod", kind="DEFAULT", resources=parse_resources("cpus:0.1;mem:32"))
    run = RunRow(task=msgspec.structs.replace(task("t1"), role="ads"), container_id="c1", directory="/d", executor=pod)
    (found,) = asked("GET_EXECUTORS", AgentFrameworkRow(info=framework().info, runs=(run,)))["executors"]
    resources = found["executor_info"]["resources"]
    assert {(r["name"], r["allocation_info"]["role"]) for r in resources} == {("cpus", "ads"), ("mem", "ads")}


def test_a_framework_whose_runs_are_over_is_completed():
    found = asked("GET_FRAMEWORKS", AgentFrameworkRow(info=framework().info, runs=RUNS), OVER)
    assert [f["framework_info"]["id"]["value"] for f in found["frameworks"]] == ["f1"]
    assert [f["framework_info"]["id"]["value"] for f in found["completed_frameworks"]] == ["f2"]


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("-rw-r--r--", stat.S_IFREG | 0o644),
        ("drwxr-xr-x", stat.S_IFDIR | 0o755),
        ("lrwxrwxrwx", stat.S_IFLNK | 0o777),
        ("-rwsr-xr-x", stat.S_IFREG | 0o4755),
        ("-rw-r-Sr--", stat.S_IFREG | 0o2644),
        ("drwxrwxrwt", stat.S_IFDIR | 0o1777),
        ("srw-------", stat.S_IFSOCK | 0o600),
    ],
)
def test_a_mode_is_the_number_behind_its_text(text, mode):
    assert daemon.read_mode(text) == mode
    assert stat.filemode(mode) == text


class Used:
    user_s, system_s, rss_bytes, processes = 1.5, 0.25, 4096, 2


ONE = Measured(
    path=("c1",), framework="f1", executor="t1", name="T1", source="t1", cpus_milli=500, mem_milli=32000,
    status=ContainerStatus(container_id="c1", executor_pid=77), usage=Used(),
)  # fmt: skip


def test_statistics_tell_what_a_container_may_use_and_uses():
    used = {
        "timestamp": 9.0, "cpus_limit": 0.5, "mem_limit_bytes": 32 << 20, "cpus_user_time_secs": 1.5,
        "cpus_system_time_secs": 0.25, "mem_rss_bytes": 4096, "processes": 2,
    }  # fmt: skip
    named = {"executor_id": "t1", "executor_name": "T1", "framework_id": "f1", "source": "t1"}
    assert write_statistics([ONE], 9.0) == [{**named, "statistics": used}]
    free = msgspec.structs.replace(ONE, cpus_milli=2000, mem_milli=None, usage=None)
    assert write_usage(free, 9.0) == {"timestamp": 9.0, "cpus_limit": 2.0}
    (container,) = json.loads(msgspec.json.encode(write_containers([ONE], 9.0)))
    status = {"container_id": {"value": "c1"}, "executor_pid": 77}
    assert container == {**named, "statistics": used, "container_id": "c1", "status": status}
    row = json.loads(msgspec.json.encode(write_row(ONE, 9.0)))
    assert (row["container_status"], row["resource_statistics"]) == (status, used)


def test_statistics_are_of_executors_alone():
    below = msgspec.structs.replace(ONE, path=("c2", "c1"))
    alone = Measured(path=("c3",), status=ContainerStatus(container_id="c3"), cpus_milli=100)
    assert write_statistics([below, alone], 9.0) == []
    (shown,) = write_containers([alone], 9.0)
    assert shown.keys() == {"container_id", "status", "statistics"}
