"""The registry as it follows from what is so, and instances that leave only when balancers have let go of them."""

from typing import Any

import pytest

from corral.frameworks.services.command_spec import KillTasks
from corral.frameworks.services.discovery_spec import (
    Drained,
    GetRegistry,
    GetTraffic,
    ReportTraffic,
    WatchBalancer,
)
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.state import task_id_of
from corral.model.health import CheckResult
from corral.model.task import TaskState

EXTERNAL = {"HAPROXY_GROUP": "external"}


def registered(cluster: Any, app_id: str = "/web") -> Any:
    (found,) = cluster.ask(GetRegistry(apps=(app_id,)))
    return found


def follow(cluster: Any, name: str = "lb#1", *groups: str) -> None:
    cluster.ask(WatchBalancer(name=name, groups=groups or ("external",)))


def leaving(cluster: Any) -> list[Instance]:
    return [i for i in cluster.app().instances.values() if i.leave_at is not None]


def test_the_registry_says_where_each_port_of_a_ready_instance_answers(cluster: Any) -> None:
    cluster.create(
        instances=2, labels={"HAPROXY_0_VHOST": "a.test", "CORRAL_WEIGHT": "7"},
        portDefinitions=[{"port": 10001, "name": "http"}, {"port": 0}],
    )  # fmt: skip
    cluster.run()
    found = registered(cluster)
    assert next(p["servicePort"] for p in found["ports"]) == 10001
    assert (found["weight"], found["labels"]["HAPROXY_0_VHOST"]) == (7, "a.test")
    assert [i["ready"] for i in found["instances"]] == [True, True]
    one = cluster.running()[0]
    shown = next(i for i in found["instances"] if i["id"] == one.id)
    assert [(e["address"], e["port"]) for e in shown["endpoints"]] == [("10.0.0.1", p) for p in one.ports]


def test_a_container_without_a_host_port_is_found_at_its_own_address(cluster: Any) -> None:
    cluster.create(
        container={"docker": {"image": "i"}, "portMappings": [{"containerPort": 80}]},
        networks=[{"mode": "container", "name": "net"}],
    )  # fmt: skip
    cluster.run()
    app = cluster.app()
    (instance,) = app.instances.values()
    from corral.frameworks.services.state import replace

    app.place(replace(instance, ips=("192.168.7.4",)))
    assert registered(cluster)["instances"][0]["endpoints"] == [{"address": "192.168.7.4", "port": 80}]


def test_an_instance_with_checks_is_ready_only_when_they_pass(cluster: Any) -> None:
    cluster.create(healthChecks=[{"protocol": "TCP"}])
    (task,) = cluster.run()
    assert registered(cluster)["instances"][0]["ready"] is False
    good = CheckResult(index=0, alive=True, consecutive_failures=0)
    cluster.update(task, TaskState.RUNNING, healthy=True, health=(good,))
    assert registered(cluster)["instances"][0]["ready"] is True
    cluster.update(task, TaskState.UNREACHABLE)
    assert [i["ready"] for i in registered(cluster)["instances"]] in ([], [False])


def test_changes_name_the_app_to_those_who_listen_for_them(cluster: Any) -> None:
    cluster.listen()
    cluster.create()
    cluster.heard()
    cluster.run()
    assert {e["appId"] for e in cluster.heard("registry_changed")} == {"/web"}


def test_an_unknown_app_is_left_out_and_none_is_all(cluster: Any) -> None:
    cluster.create()
    assert cluster.ask(GetRegistry(apps=("/other",))) == []
    assert [a["id"] for a in cluster.ask(GetRegistry())] == ["/web"]


def test_without_a_balancer_nothing_waits(cluster: Any) -> None:
    cluster.create(instances=2, labels=EXTERNAL)
    cluster.run()
    cluster.update_app(instances=1)
    assert len(cluster.killed) == 1


@pytest.mark.parametrize(("labels", "groups"), [({}, ("*",)), (EXTERNAL, ("internal",))])
def test_an_app_that_no_balancer_serves_does_not_wait(
    cluster: Any, labels: dict[str, str], groups: tuple[str, ...]
) -> None:
    follow(cluster, "lb#1", *groups)
    cluster.create(instances=2, labels=labels)
    cluster.run()
    cluster.update_app(instances=1)
    assert len(cluster.killed) == 1


def test_an_instance_is_killed_when_all_balancers_have_drained_it(cluster: Any) -> None:
    follow(cluster, "a#1", "external")
    follow(cluster, "b#2", "*")
    cluster.create(instances=2, labels={"HAPROXY_0_GROUP": "external,other"})
    cluster.run()
    cluster.update_app(instances=1)
    (one,) = leaving(cluster)
    shown = {i["id"]: (i["ready"], i["draining"]) for i in registered(cluster)["instances"]}
    assert shown[one.id] == (False, True)
    assert sorted(shown.values()) == [(False, True), (True, False)]
    cluster.ask(Drained(balancer="a#1", instances=(one.id, "unknown.instance-1")))
    assert cluster.killed == []
    cluster.ask(Drained(balancer="b#2", instances=(one.id,)))
    assert cluster.killed == [task_id_of(one)]


def test_an_instance_is_killed_when_its_time_to_drain_is_over(cluster: Any) -> None:
    follow(cluster)
    cluster.create(instances=1, labels={**EXTERNAL, "CORRAL_DRAIN_SECONDS": "12"})
    cluster.run()
    cluster.update_app(instances=0)
    cluster.advance(11)
    assert cluster.killed == []
    cluster.advance(1.1)
    assert len(cluster.killed) == 1


def test_nobody_waits_for_a_balancer_that_has_left(cluster: Any) -> None:
    follow(cluster)
    cluster.create(instances=1, labels=EXTERNAL)
    cluster.run()
    cluster.update_app(instances=0)
    assert cluster.killed == []
    cluster.ask(WatchBalancer(name="lb#1", present=False))
    assert len(cluster.killed) == 1


def test_a_new_leader_ends_what_was_leaving_at_its_instant(cluster: Any) -> None:
    follow(cluster)
    cluster.create(instances=1, labels=EXTERNAL)
    cluster.run()
    cluster.update_app(instances=0)
    cluster.advance(10)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    assert cluster.killed == []
    cluster.advance(21)
    assert len(cluster.killed) == 1


def test_an_instance_that_dies_while_it_drains_is_forgotten(cluster: Any) -> None:
    follow(cluster)
    cluster.create(instances=1, labels=EXTERNAL)
    (task,) = cluster.run()
    cluster.update_app(instances=0)
    cluster.update(task, TaskState.FAILED)
    cluster.advance(60)
    assert cluster.killed == []
    assert cluster.app().instances == {}


def test_a_rolling_upgrade_drains_each_old_instance_and_comes_to_its_end(cluster: Any) -> None:
    follow(cluster)
    cluster.create(
        instances=3, labels=EXTERNAL, upgradeStrategy={"minimumHealthCapacity": 1, "maximumOverCapacity": 0.4}
    )
    cluster.run()
    cluster.update_app(cmd="sleep 2000")
    for _ in range(20):
        cluster.run()
        ready = [i for i in registered(cluster)["instances"] if i["ready"]]
        assert len(ready) >= 3
        for one in leaving(cluster):
            cluster.ask(Drained(balancer="lb#1", instances=(one.id,)))
        cluster.bury()
        if not cluster.state.deployments:
            break
    assert not cluster.state.deployments
    assert len(cluster.running()) == 3


def test_tasks_that_a_person_kills_are_drained_as_well(cluster: Any) -> None:
    follow(cluster)
    cluster.create(instances=2, labels=EXTERNAL)
    cluster.run()
    cluster.ask(KillTasks(app="/web"))
    cluster.settle()
    assert (len(leaving(cluster)), cluster.killed) == (2, [])


def test_traffic_is_the_sum_of_what_balancers_measure(cluster: Any) -> None:
    cluster.create()
    follow(cluster, "a#1")
    follow(cluster, "b#2")
    cluster.ask(ReportTraffic(balancer="a#1", apps={"/web": 10.5, "/gone": 3.0}))
    cluster.ask(ReportTraffic(balancer="b#2", apps={"/web": 4.0}))
    assert cluster.ask(GetTraffic()) == {"/web": 14.5}
    cluster.ask(WatchBalancer(name="a#1", present=False))
    assert cluster.ask(GetTraffic()) == {"/web": 4.0}
