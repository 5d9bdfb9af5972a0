"""pymesos' operator clients, unchanged: the changes they can make, on a master and on an agent."""

import pytest
from test_mesos_pymesos import packages, start

__all__ = ("packages", "start")

ZZ = {"hostname": "zz", "ip": "10.1.2.3"}


@pytest.fixture
def operate(cluster, start):
    """Asks through the client, of the master or (`agent=True`) of its agent; a refusal is its text."""
    scheduler = start()
    scheduler.next("registered")

    def ask(method, *arguments, agent=False):
        address = [cluster.agent_url.removeprefix("http://")] if agent else []
        scheduler.do("agent" if agent else "operator", *address, method, *arguments)
        found = scheduler.next_of_any("answered", "raised")
        return found["answer"] if "answer" in found else found["message"]

    ask.scheduler = scheduler
    return ask


def disk(value, **more):
    return {
        "name": "disk", "type": "SCALAR", "scalar": {"value": value}, "role": "foreign",
        "reservation": {"principal": "ops"}, **more,
    }  # fmt: skip


def volume(value):
    persistence, where = {"id": "v", "principal": "ops"}, {"mode": "RW", "container_path": "d"}
    return disk(value, disk={"persistence": persistence, "volume": where})


def test_it_reserves_makes_volumes_and_takes_them_away_again(cluster, operate):
    agent_id = cluster.agent["id"]

    def there():
        return [r["scalar"]["value"] for r in cluster.agent["reserved_resources_full"].get("foreign", [])]

    assert operate("reserveResources", agent_id, [disk(64)]) is None
    assert there() == [64.0]
    assert operate("createVolumes", agent_id, [volume(16)]) is None
    assert sorted(there()) == [16.0, 48.0]
    assert "code=409" in operate("unreserveResources", agent_id, [disk(64)])
    assert operate("destroyVolumes", agent_id, [volume(16)]) is None
    assert operate("unreserveResources", agent_id, [disk(64)]) is None
    assert there() == []
    assert "code=409" in operate("destroyVolumes", agent_id, [volume(16)])
    assert "code=400" in operate("reserveResources", "nobody", [disk(1)])
    assert "code=404" in operate("markAgentGone", "nobody")


def test_it_plans_maintenance_and_takes_machines_down_and_up(operate):
    window = {"machine_ids": [ZZ], "unavailability": {"start": {"nanoseconds": 1}, "duration": {"nanoseconds": 5}}}

    def status():
        return operate("getMaintenanceStatus")["get_maintenance_status"]["status"]

    assert "code=400" in operate("startMaintenance", [ZZ])
    assert operate("updateMaintenanceSchedule", [window]) is None
    assert operate("getMaintenanceSchedule")["get_maintenance_schedule"]["schedule"]["windows"] == [window]
    assert status() == {"draining_machines": [{"id": ZZ}]}
    assert operate("startMaintenance", [ZZ]) is None
    assert status() == {"down_machines": [ZZ]}
    assert operate("stopMaintenance", [ZZ]) is None
    assert (status(), operate("getMaintenanceSchedule")["get_maintenance_schedule"]) == ({}, {"schedule": {}})
    assert "code=400" in operate("stopMaintenance", [ZZ])


def test_it_sets_the_level_of_logging(operate):
    for agent in (False, True):
        assert operate("setLoggingLevel", 1, 60_000_000_000, agent=agent) == {}
        assert operate("getLoggingLevel", agent=agent)["get_logging_level"]["level"] == 1
        assert operate("setLoggingLevel", 0, 1, agent=agent) == {}


def test_it_runs_commands_in_the_containers_of_an_agent(operate):
    operate.scheduler.launch(("t1", "sleep 60"))
    operate.scheduler.update("TASK_RUNNING")
    (row,) = operate("getContainers", True, True, agent=True)["get_containers"]["containers"]
    parent = row["container_id"]
    nested = {"container_id": {"value": "n", "parent": parent}, "command": {"value": "exec sleep 60"}}
    assert operate("launchNestedContainer", nested, agent=True) is None
    listed = operate("getContainers", True, agent=True)["get_containers"]["containers"]
    assert nested["container_id"] in [each["container_id"] for each in listed]
    assert "code=409" in operate("removeNestedContainer", "n", parent["value"], agent=True)
    for method in ("killNestedContainer", "waitNestedContainer", "removeNestedContainer"):
        assert operate(method, "n", parent["value"], agent=True) is None
    assert "code=404" in operate("waitNestedContainer", "n", parent["value"], agent=True)
    session = {"container_id": {"value": "s", "parent": parent}, "command": {"value": "echo hi"}}
    assert operate("launchNestedContainerSession", session, agent=True) is None
    assert "code=501" in operate("pruneImages", agent=True)
