"""The older endpoints' JSON as discovery and dashboard tools read it."""

import json

import mesos_strategies as some
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.mesos import legacy
from corral.mesos.flat import write_flat
from corral.mesos.legacy_agent import write_agent_state
from corral.mesos.operator import OperatorCall, write_response
from corral.mesos.snapshot import (
    AgentFrameworkRow,
    AgentRow,
    AgentSnapshot,
    ClusterSnapshot,
    FrameworkRow,
    RoleRow,
    RunRow,
)
from corral.model.agent import AgentInfo
from corral.model.attributes import Attribute, AttributeKind
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo, NetworkInfo
from corral.model.events import MasterInfo
from corral.model.flags import parse_attributes, parse_resources
from corral.model.framework import Capability, FrameworkInfo
from corral.model.health import CheckKind, HealthCheck
from corral.model.offer import Offer
from corral.model.resources import Identity, Reservation, add, normal, scalar
from corral.model.role import RoleSettings
from corral.model.task import (
    CommandInfo,
    ContainerStatus,
    DiscoveryInfo,
    ExecutorInfo,
    Label,
    Source,
    Task,
    TaskInfo,
    TaskState,
    TaskStatus,
)

MASTER = MasterInfo(id="m", hostname="node", ip="127.0.0.1", port=4680, version="1.11.0")
VERSION = "1.11.0"


def agent(name="a1", **fields):
    resources = normal(
        (
            *parse_resources("cpus:4;mem:1024;ports:[31000-31099,32000-32000];bugs:{b,a}"),
            scalar("disk", 10, Identity(reservations=(Reservation(role="ads", principal="p"),))),
        )
    )
    info = AgentInfo(
        id=name,
        hostname=f"{name}.example",
        port=4681,
        ip="10.0.0.7",
        version="0.1.0",
        resources=resources,
        attributes=(
            *parse_attributes("rack:r1;level:2.5;keys:[5-7]"),
            Attribute(name="s", kind=AttributeKind.SET, items=("x",)),
        ),
    )
    return AgentRow(info=info, registered_at=100.0, **fields)


def task(name="t1", state=TaskState.RUNNING, at=200.0, agent_id="a1", **fields):
    info = TaskInfo(
        task_id=name, name=name.upper(), agent_id=agent_id, resources=parse_resources("cpus:0.5;mem:32"),
        command=CommandInfo(value="true"), **fields,
    )  # fmt: skip
    status = TaskStatus(task_id=name, state=state, at=at, source=Source.EXECUTOR)
    return Task(info=info, framework_id="f1", role="*", state=state, statuses=(status,))


def framework(name="f1", tasks=(), **fields):
    info = FrameworkInfo(user="u", name="n", id=name, failover_timeout_s=60.0, **fields.pop("info", {}))
    return FrameworkRow(info=info, registered_at=150.0, tasks=tasks, **fields)


def cluster(**fields):
    whole = {"start_at": 90.0, "elected_at": 91.0, "leader": MASTER, "flags": (("port", "4680"),), **fields}
    return ClusterSnapshot(master=MASTER, **whole)


def shown(value):
    """As a client gets it."""
    return json.loads(msgspec.json.encode(value))


def test_the_version_is_dotted_integers():
    found = shown(legacy.write_version(VERSION))
    assert [int(piece) for piece in found["version"].split(".")] == [1, 11, 0]
    assert {"build_date", "build_time", "build_user"} <= found.keys()


def test_the_state_says_who_leads():
    state = shown(legacy.write_state(cluster(cluster="c"), VERSION))
    assert state["id"] == "m"
    assert state["pid"] == state["leader"] == "master@127.0.0.1:4680"
    assert state["leader_info"] == {"id": "m", "pid": "master@127.0.0.1:4680", "port": 4680, "hostname": "node"}
    assert (state["start_time"], state["elected_time"], state["cluster"]) == (90.0, 91.0, "c")
    assert state["flags"] == {"port": "4680"}
    assert state["slaves"] == state["frameworks"] == state["completed_frameworks"] == state["orphan_tasks"] == []


def test_a_master_without_leader_says_nothing_of_one():
    state = shown(legacy.write_state(cluster(leader=None, elected_at=None), VERSION))
    assert not {"leader", "leader_info", "elected_time", "cluster"} & state.keys()


def test_the_state_counts_agents_by_what_they_do():
    agents = (
        agent("a1"),
        agent("a2", active=False, deactivated=True),
        agent("a3", active=False, connected=False, unreachable_at=5.0),
        agent("a4", active=False, recovered=True),
    )
    state = shown(legacy.write_state(cluster(agents=agents), VERSION))
    counts = [state[f"{kind}_slaves"] for kind in ("activated", "deactivated", "unreachable")]
    assert counts == [1.0, 1.0, 1.0]
    assert [s["id"] for s in state["slaves"]] == ["a1", "a2"]
    assert [s["id"] for s in state["recovered_slaves"]] == ["a4"]


def test_an_agent_is_shown_with_flat_and_full_resources():
    used = parse_resources("cpus:1;ports:[31000-31000]")
    row = agent(used=used, offered=parse_resources("mem:64"), reregistered_at=120.0)
    (slave,) = shown(legacy.write_slaves(cluster(agents=(row,))))["slaves"]
    assert slave["resources"] == {
        "cpus": 4.0, "mem": 1024.0, "disk": 10.0, "gpus": 0, "ports": "[31000-31099, 32000-32000]", "bugs": "{a, b}",
    }  # fmt: skip
    assert slave["used_resources"] == {"cpus": 1.0, "mem": 0, "disk": 0, "gpus": 0, "ports": "[31000-31000]"}
    assert slave["offered_resources"]["mem"] == 64.0
    assert slave["reserved_resources"] == {"ads": {"cpus": 0, "mem": 0, "disk": 10.0, "gpus": 0}}
    assert slave["unreserved_resources"]["disk"] == 0
    assert slave["reserved_resources_full"]["ads"] == [
        {
            "name": "disk", "type": "SCALAR", "scalar": {"value": 10.0}, "role": "ads",
            "reservation": {"principal": "p"},
            "reservations": [{"type": "DYNAMIC", "role": "ads", "principal": "p"}],
        }
    ]  # fmt: skip
    assert [r["name"] for r in slave["used_resources_full"]] == ["cpus", "ports"]
    assert slave["attributes"] == {"rack": "r1", "level": 2.5, "keys": "[5-7]", "s": "{x}"}
    assert (slave["pid"], slave["port"], slave["hostname"]) == ("slave(1)@10.0.0.7:4681", 4681, "a1.example")
    assert (slave["registered_time"], slave["reregistered_time"]) == (100.0, 120.0)


def test_revocable_resources_have_names_of_their_own():
    flat = legacy.write_flat(normal((scalar("cpus", 1), scalar("cpus", 2, Identity(revocable=True)))))
    assert (flat["cpus"], flat["cpus_revocable"]) == (1.0, 2.0)


def test_one_agent_and_one_framework_can_be_asked_for():
    snapshot = cluster(agents=(agent("a1"), agent("a2")), frameworks=(framework("f1"), framework("f2")))
    assert [s["id"] for s in legacy.write_slaves(snapshot, "a2")["slaves"]] == ["a2"]
    assert [f["id"] for f in legacy.write_frameworks(snapshot, "f2")["frameworks"]] == ["f2"]
    assert legacy.write_slaves(snapshot, "a9")["slaves"] == []


def test_a_framework_is_shown_with_its_tasks_and_offers():
    offer = Offer(
        id="o",
        framework_id="f1",
        agent_id="a1",
        hostname="h",
        ip="i",
        port=1,
        role="ads",
        resources=parse_resources("cpus:1"),
    )
    row = framework(
        tasks=(task(),),
        unreachable_tasks=(task("t2", TaskState.UNREACHABLE),),
        completed_tasks=(task("t3", TaskState.FINISHED),),
        offers=(offer,),
        used=parse_resources("cpus:0.5;mem:32"),
        offered=offer.resources,
        info={"role": "ads", "principal": "p", "labels": (Label(key="k", value="v"),)},
    )
    (found,) = shown(legacy.write_frameworks(cluster(frameworks=(row,))))["frameworks"]
    assert found["resources"] == {"cpus": 1.5, "mem": 32.0, "disk": 0, "gpus": 0}
    assert (found["role"], found["principal"], found["labels"]) == ("ads", "p", [{"key": "k", "value": "v"}])
    assert "roles" not in found
    assert [found[kind][0]["id"] for kind in ("tasks", "unreachable_tasks", "completed_tasks")] == ["t1", "t2", "t3"]
    assert found["offers"][0] | {"resources": None} == {
        "id": "o", "framework_id": "f1", "slave_id": "a1", "allocation_info": {"role": "ads"}, "resources": None,
    }  # fmt: skip


def test_a_framework_of_many_roles_shows_roles():
    row = framework(info={"capabilities": (Capability.MULTI_ROLE,), "roles": ("a", "b")})
    (found,) = shown(legacy.write_frameworks(cluster(frameworks=(row,))))["frameworks"]
    assert found["roles"] == ["a", "b"]
    assert "role" not in found
    assert found["capabilities"] == ["MULTI_ROLE"]


def test_a_task_shows_what_discovery_needs():
    network = NetworkInfo(ip_addresses=("10.0.0.9",))
    full = task(
        labels=(Label(key="k"),),
        discovery=DiscoveryInfo(visibility="CLUSTER", name="web"),
        container=ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox")),
        health_checks=(HealthCheck(kind=CheckKind.TCP, port=80),),
        limits=(("cpus", 1500), ("mem", None)),
    )
    status = msgspec.structs.replace(
        full.statuses[0], container_status=ContainerStatus(container_id="c", network_infos=(network,)), healthy=True
    )
    found = shown(legacy.write_task(msgspec.structs.replace(full, statuses=(status,))))
    assert (found["id"], found["slave_id"], found["executor_id"], found["state"]) == ("t1", "a1", "", "TASK_RUNNING")
    assert found["resources"] == {"cpus": 0.5, "mem": 32.0, "disk": 0, "gpus": 0}
    assert found["labels"] == [{"key": "k"}]
    assert found["discovery"] == {"visibility": "CLUSTER", "name": "web"}
    assert found["container"]["docker"]["image"] == "busybox"
    assert found["health_check"]["type"] == "TCP"
    assert found["health_check"]["tcp"] == {"port": 80}
    assert found["limits"] == {"cpus": 1.5, "mem": "Infinity"}
    (seen,) = found["statuses"]
    addresses = seen["container_status"]["network_infos"][0]["ip_addresses"]
    assert addresses == [{"protocol": "IPv4", "ip_address": "10.0.0.9"}]
    assert (seen["state"], seen["timestamp"], seen["healthy"]) == ("TASK_RUNNING", 200.0, True)


def test_tasks_come_in_pages_with_the_newest_first():
    tasks = tuple(task(f"t{i}", at=float(i)) for i in range(5))
    snapshot = cluster(frameworks=(framework(tasks=tasks),), completed_frameworks=(framework("f0"),))

    def ids(**query):
        return [t["id"] for t in legacy.write_tasks(snapshot, **query)["tasks"]]

    assert ids() == ["t4", "t3", "t2", "t1", "t0"]
    assert ids(limit=2, offset=1) == ["t3", "t2"]
    assert ids(limit=2, ascending=True) == ["t0", "t1"]
    assert ids(task_id="t3") == ["t3"]
    assert ids(framework_id="f0") == []
    assert ids(limit=-1) == []


def test_the_summary_counts_tasks_instead_of_listing_them():
    tasks = (task("t1"), task("t2", TaskState.STAGING), task("t3", agent_id="a2"))
    snapshot = cluster(agents=(agent("a1"), agent("a2")), frameworks=(framework(tasks=tasks),))
    summary = shown(legacy.write_summary(snapshot))
    by_id = {s["id"]: s for s in summary["slaves"]}
    assert (by_id["a1"]["TASK_RUNNING"], by_id["a1"]["TASK_STAGING"]) == (1, 1)
    assert by_id["a2"]["framework_ids"] == ["f1"]
    (found,) = summary["frameworks"]
    assert (found["TASK_RUNNING"], found["slave_ids"]) == (2, ["a1", "a2"])
    assert "tasks" not in found
    assert summary["hostname"] == "node"


def test_roles_tell_what_tasks_and_what_offers_hold():
    row = RoleRow(
        name="ads",
        settings=RoleSettings(
            weight=2.0, guarantee=parse_resources("cpus:2"), limit=(scalar("cpus", 4), scalar("gpus", 0))
        ),
        frameworks=("f1",),
        allocated=parse_resources("cpus:3"),
        offered=parse_resources("cpus:1"),
        consumed=parse_resources("cpus:3.5;mem:64"),
    )
    (found,) = shown(legacy.write_roles(cluster(roles=(row,))))["roles"]
    assert (found["name"], found["weight"], found["frameworks"]) == ("ads", 2.0, ["f1"])
    assert [found[kind]["cpus"] for kind in ("resources", "allocated", "offered")] == [3.0, 2.0, 1.0]
    assert found["quota"] == {
        "role": "ads", "guarantee": {"cpus": 2.0}, "limit": {"cpus": 4.0, "gpus": 0.0},
        "consumed": {"cpus": 3.5, "mem": 64.0},
    }  # fmt: skip


def test_redirects_name_the_leader_without_scheme():
    assert legacy.write_redirect(MASTER) == "//node:4680"


def test_an_agent_shows_each_task_as_an_executor_with_its_sandbox():
    runs = (
        RunRow(task=task("t1"), container_id="c1", directory="/sandbox/1"),
        RunRow(task=task("t2", TaskState.STAGING), container_id="c2", directory="/sandbox/2", queued=True),
        RunRow(task=task("t3", TaskState.FAILED), container_id="c3", directory="/sandbox/3"),
    )
    info = framework(info={"role": "ads"}).info
    snapshot = AgentSnapshot(
        info=agent().info, start_at=9.0, master_hostname="node", frameworks=(AgentFrameworkRow(info=info, runs=runs),)
    )
    state = shown(write_agent_state(snapshot, VERSION))
    assert (state["id"], state["pid"], state["master_hostname"]) == ("a1", "slave(1)@10.0.0.7:4681", "node")
    (found,) = state["frameworks"]
    assert (found["id"], found["role"]) == ("f1", "ads")
    assert [e["directory"] for e in found["executors"]] == ["/sandbox/1", "/sandbox/2"]
    assert [e["container"] for e in found["completed_executors"]] == ["c3"]
    first, second = found["executors"]
    assert [t["id"] for t in first["tasks"]] == ["t1"]
    assert [t["id"] for t in second["queued_tasks"]] == ["t2"]
    assert found["completed_executors"][0]["completed_tasks"][0]["state"] == "TASK_FAILED"
    assert {"reserved_resources", "unreserved_resources", "unreserved_resources_full", "capabilities"} <= set(state)


def test_an_executor_of_an_agent_holds_what_its_live_tasks_do():
    pod = ExecutorInfo(executor_id="pod", resources=parse_resources("cpus:0.1;mem:32"))
    of_pod = {"container_id": "c1", "directory": "/sandbox/1", "executor": pod}
    runs = (
        RunRow(task=task("t1"), **of_pod), RunRow(task=task("t2"), **of_pod),
        RunRow(task=task("t3", TaskState.FAILED), **of_pod),
        RunRow(task=task("t4", TaskState.FINISHED), container_id="c4", directory="/sandbox/4"),
    )  # fmt: skip
    of_each = {t.info.task_id: t.info.resources for t in (run.task for run in runs)}
    info = framework().info
    snapshot = AgentSnapshot(info=agent().info, frameworks=(AgentFrameworkRow(info=info, runs=runs),))
    (found,) = shown(write_agent_state(snapshot, VERSION))["frameworks"]
    (executor,) = found["executors"]
    assert executor["resources"] == shown(write_flat(add(pod.resources, of_each["t1"], of_each["t2"])))
    assert [t["id"] for t in executor["completed_tasks"]] == ["t3"]
    (ended,) = found["completed_executors"]
    assert ended["resources"] == shown(write_flat(of_each["t4"]))


def test_a_framework_whose_runs_on_an_agent_are_over_is_completed_there():
    run = RunRow(task=task("t1", TaskState.FINISHED), container_id="c1", directory="/sandbox/1")
    row = AgentFrameworkRow(info=framework().info, runs=(run,))
    state = shown(write_agent_state(AgentSnapshot(info=agent().info, frameworks=(row,)), VERSION))
    assert state["frameworks"] == []
    assert [f["completed_executors"][0]["directory"] for f in state["completed_frameworks"]] == ["/sandbox/1"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            Task,
            info=some.tasks,
            framework_id=st.just("f1"),
            role=some.roles,
            state=st.sampled_from(TaskState),
            statuses=some.few(some.statuses),
        ),
        max_size=2,
    ).map(tuple),
    some.bundles,
    st.booleans(),
)
def test_whatever_tasks_ask_and_agents_have_can_be_shown(tasks, resources, recovered):
    info = msgspec.structs.replace(agent().info, resources=resources)
    row = AgentRow(info=info, used=resources, offered=resources, recovered=recovered)
    snapshot = cluster(agents=(row,), frameworks=(framework(tasks=tasks, used=resources),))
    runs = tuple(RunRow(task=t, container_id="c", directory="/d") for t in tasks)
    of_agent = AgentSnapshot(info=info, frameworks=(AgentFrameworkRow(info=framework().info, runs=runs),))
    state = shown(legacy.write_state(snapshot, VERSION))
    assert [t["id"] for t in state["frameworks"][0]["tasks"]] == [t.info.task_id for t in tasks]
    assert len(state["recovered_slaves" if recovered else "slaves"]) == 1
    assert len(shown(legacy.write_tasks(snapshot))["tasks"]) == len(tasks)
    assert shown(legacy.write_summary(snapshot))["frameworks"]
    shown_by_agent = shown(write_agent_state(of_agent, VERSION))
    assert len(shown_by_agent["frameworks"] + shown_by_agent["completed_frameworks"]) == 1
    for call in OperatorCall:
        assert json.loads(write_response(call, snapshot, VERSION))["type"] == call
