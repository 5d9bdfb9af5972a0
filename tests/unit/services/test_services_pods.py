"""Pods: several programs that live together, launched as one group and replaced as one."""

from typing import Any

import pytest

from corral.frameworks.services.command_spec import (
    AppUpdate,
    CreateApp,
    CreateGroup,
    DeleteApp,
    GetApps,
    GetDeployments,
    GetGroup,
    GetPod,
    GetPods,
    GetQueue,
    GetTasks,
    KillPod,
    RestartApp,
    UpdateApps,
)
from corral.frameworks.services.names import read_task_id
from corral.frameworks.services.pod_dialect import read_pod, write_pod
from corral.frameworks.services.state import task_ids_of
from corral.frameworks.services.tree import read_group
from corral.lib.errors import Conflict, NotFound, Unprocessable
from corral.model.health import CheckKind
from corral.model.task import TaskState

POD: dict[str, Any] = {
    "id": "/duo",
    "labels": {"tier": "front"},
    "environment": {"SHARED": "yes"},
    "volumes": [{"name": "scratch"}, {"name": "logs", "host": "/var/log"}],
    "containers": [
        {
            "name": "web", "exec": {"command": {"shell": "serve"}}, "resources": {"cpus": 0.2, "mem": 32},
            "endpoints": [{"name": "http", "hostPort": 0, "protocol": ["tcp"]}],
            "healthCheck": {"http": {"endpoint": "http", "path": "/up"}, "intervalSeconds": 5},
            "volumeMounts": [{"name": "scratch", "mountPath": "shared"}],
        },
        {
            "name": "side", "exec": {"command": {"argv": ["tail", "-f", "x"]}}, "resources": {"cpus": 0.1, "mem": 16},
            "endpoints": [{"name": "admin", "hostPort": 9000}], "environment": {"MINE": "1"},
            "volumeMounts": [
                {"name": "scratch", "mountPath": "in"}, {"name": "logs", "mountPath": "/l", "readOnly": True},
            ],
            "lifecycle": {"killGracePeriodSeconds": 7},
        },
    ],
    "scaling": {"kind": "fixed", "instances": 2},
    "scheduling": {"placement": {"constraints": [{"fieldName": "hostname", "operator": "unique"}]}},
}  # fmt: skip


def create(cluster: Any, **more: Any) -> Any:
    result, _ = cluster.ask(CreateApp(spec=read_pod({**POD, **more})[0], uri="/v2/pods"))
    cluster.settle()
    return result


def put(cluster: Any, **more: Any) -> Any:
    spec, _ = read_pod({**POD, **more})
    update = AppUpdate(id=spec.id, spec=spec, given=())
    result = cluster.ask(UpdateApps(updates=(update,), partial=False, single=True, pod=True))
    cluster.settle()
    return result


def work(cluster: Any) -> None:
    """Launch, start and bury until nothing is left to do."""
    for _ in range(40):
        cluster.settle()
        for task_id in cluster.offer():
            cluster.update(task_id, TaskState.RUNNING)
        for app in list(cluster.state.apps.values()):
            for instance in list(app.instances.values()):
                for task_id in task_ids_of(instance) if instance.staged_at is not None else ():
                    if task_id.split(".")[-2] == "web" and instance.healthy is None and task_id in cluster.tasks:
                        cluster.update(task_id, TaskState.RUNNING, healthy=True)
        cluster.bury()


def status(cluster: Any) -> Any:
    return cluster.ask(GetPod(id="/duo", what="status"))


def test_an_instance_is_launched_as_one_group_that_shares_out_its_offer(cluster: Any) -> None:
    create(cluster, scaling={"instances": 1})
    (want,) = cluster.wants.values()
    assert {r.name: r.milli for r in want.resources} == {"cpus": 400, "mem": 80_000, "disk": 10_000}
    assert (want.ports, want.fixed_ports, want.runtime) == (1, (9000,), "process")
    web_id, side_id = cluster.offer()
    web, side = cluster.tasks[web_id], cluster.tasks[side_id]
    assert web_id.endswith(".web.1")
    assert side_id.endswith(".side.1")
    assert [(r.name, r.ranges or r.milli) for r in web.resources] == [
        ("cpus", 200), ("mem", 32_000), ("ports", ((31000, 31000),)),
    ]  # fmt: skip
    assert [(r.name, r.ranges or r.milli) for r in side.resources] == [
        ("cpus", 100), ("mem", 16_000), ("ports", ((9000, 9000),)),
    ]  # fmt: skip
    group = next(o for c in cluster.calls for o in getattr(c, "operations", ()))
    assert group.executor.kind == "DEFAULT"
    assert {r.name: r.milli for r in group.executor.resources} == {"cpus": 100, "mem": 32_000, "disk": 10_000}


def test_a_container_gets_its_command_checks_volumes_and_variables(cluster: Any) -> None:
    create(cluster)
    web, side = (cluster.tasks[t] for t in cluster.offer(most=1))
    assert (web.command.value, web.command.shell) == ("serve", True)
    assert (side.command.arguments, side.command.shell) == (("tail", "-f", "x"), False)
    assert side.kill_grace_s == 7
    (check,) = web.health_checks
    assert (check.kind, check.port, check.path, check.interval_s) == (CheckKind.HTTP, 31000, "/up", 5)
    scratch, logs = side.container.volumes
    assert (scratch.of_executor, scratch.host_path) == (True, web.container.volumes[0].host_path)
    assert (logs.host_path, logs.container_path, str(logs.mode)) == ("/var/log", "/l", "RO")
    variables = dict(side.command.environment)
    assert variables["EP_HOST_HTTP"] == "31000"
    assert variables["EP_HOST_ADMIN"] == "9000"
    assert (variables["SHARED"], variables["MINE"], variables["MESOS_TASK_ID"]) == ("yes", "1", side.task_id)
    assert variables["MARATHON_APP_ID"] == "/duo"
    assert variables["MARATHON_APP_LABEL_TIER"] == "front"


def test_a_pod_is_deployed_when_all_containers_run_and_are_healthy(cluster: Any) -> None:
    create(cluster, scaling={"instances": 1})
    (deployment,) = cluster.ask(GetDeployments())
    assert (deployment["affectedApps"], deployment["affectedPods"]) == ([], ["/duo"])
    assert [s["actions"] for s in deployment["steps"]] == [
        [{"action": "StartPod", "pod": "/duo"}], [{"action": "ScalePod", "pod": "/duo"}],
    ]  # fmt: skip
    web, side = cluster.offer()
    cluster.update(web, TaskState.RUNNING)
    assert status(cluster)["instances"][0]["status"] == "STAGING"
    cluster.update(side, TaskState.RUNNING)
    assert status(cluster)["status"] == "DEGRADED"
    cluster.update(web, TaskState.RUNNING, healthy=True)
    shown = status(cluster)
    assert (shown["status"], shown["instances"][0]["status"]) == ("STABLE", "STABLE")
    assert shown["instances"][0]["containers"][0]["endpoints"] == [
        {"name": "http", "allocatedHostPort": 31000, "healthy": True}
    ]
    assert cluster.ask(GetDeployments()) == []


def test_when_one_container_ends_the_whole_instance_is_replaced(cluster: Any) -> None:
    create(cluster, scaling={"instances": 1})
    work(cluster)
    (instance,) = cluster.app("/duo").instances.values()
    web, side = task_ids_of(instance)
    cluster.update(side, TaskState.FINISHED)
    assert cluster.killed[-1] == web
    assert cluster.app("/duo").instances[instance.id].incarnation == 1
    cluster.update(web, TaskState.KILLED)
    assert cluster.app("/duo").instances[instance.id].incarnation == 2
    (ended,) = status(cluster)["terminationHistory"]
    assert [c["lastKnownState"] for c in ended["containers"]] == ["TASK_KILLED", "TASK_FINISHED"]
    cluster.advance(2)
    work(cluster)
    assert status(cluster)["status"] == "STABLE"


def test_the_first_container_to_fail_is_the_cause(cluster: Any) -> None:
    create(cluster, scaling={"instances": 1})
    web, side = cluster.offer()
    cluster.update(side, TaskState.RUNNING)
    cluster.update(web, TaskState.FAILED, message="Command exited with status 3")
    cluster.update(side, TaskState.KILLED, message="container web of its group ended")
    failure = cluster.state.failures["/duo"]
    assert (failure.state, failure.message) == (TaskState.FAILED, "container web: Command exited with status 3")
    ended = status(cluster)["terminationHistory"][0]["containers"][0]
    assert ended["termination"] == {"exitCode": 3, "message": "Command exited with status 3"}


def test_an_upgrade_replaces_pods_and_a_scaling_keeps_them(cluster: Any) -> None:
    create(cluster)
    work(cluster)
    before = set(cluster.app("/duo").instances)
    put(cluster, scaling={"instances": 3})
    work(cluster)
    assert before < set(cluster.app("/duo").instances)
    put(cluster, scaling={"instances": 3}, labels={"tier": "back"})
    work(cluster)
    assert not before & set(cluster.app("/duo").instances)
    assert len(cluster.ask(GetPod(id="/duo", what="versions"))) == 3
    oldest = cluster.ask(GetPod(id="/duo", what="versions"))[-1]
    assert cluster.ask(GetPod(id="/duo", what="version", version=oldest))["labels"] == {"tier": "front"}


def test_pods_go_on_after_a_crash(cluster: Any) -> None:
    create(cluster)
    web, side, *_ = cluster.offer()
    cluster.update(web, TaskState.RUNNING)
    cluster.crash()
    cluster.subscribe()
    assert {t.task_id for t in cluster.core.live_tasks()} >= {web, side}
    cluster.reconcile()
    work(cluster)
    assert status(cluster)["status"] == "STABLE"
    assert {i.incarnation for i in cluster.app("/duo").instances.values()} == {1}


def test_a_deleted_pod_takes_all_its_containers_with_it(cluster: Any) -> None:
    create(cluster)
    work(cluster)
    cluster.ask(DeleteApp(id="/duo", pod=True))
    work(cluster)
    assert cluster.tasks == {}
    assert "/duo" not in cluster.state.apps
    with pytest.raises(NotFound, match="Pod"):
        status(cluster)


def test_an_instance_is_ended_by_name_and_replaced(cluster: Any) -> None:
    create(cluster)
    work(cluster)
    victim, other = cluster.app("/duo").instances
    (shown,) = cluster.ask(KillPod(id="/duo", instances=(victim, "unknown")))
    assert shown["id"] == victim
    work(cluster)
    assert victim not in cluster.app("/duo").instances
    assert other in cluster.app("/duo").instances
    with pytest.raises(NotFound, match="::status"):
        cluster.ask(KillPod(id="/duo", instances=("unknown",), strict=True))


def test_apps_and_pods_are_told_apart(cluster: Any) -> None:
    create(cluster)
    cluster.create()
    assert [a["id"] for a in cluster.ask(GetApps())] == ["/web"]
    assert [p["id"] for p in cluster.ask(GetPods())] == ["/duo"]
    work(cluster)
    assert {t["appId"] for t in cluster.ask(GetTasks())} == {"/web"}
    for command in (RestartApp(id="/duo"), DeleteApp(id="/duo"), DeleteApp(id="/web", pod=True)):
        with pytest.raises(NotFound):
            cluster.ask(command)
    with pytest.raises(Conflict, match="may not share one id"):
        put(cluster, id="/web")
    with pytest.raises(Conflict, match="pod with id"):
        cluster.create(id="/duo")


def test_a_waiting_pod_is_in_the_queue_as_a_pod(cluster: Any) -> None:
    create(cluster)
    (item,) = cluster.ask(GetQueue())
    assert item["pod"]["id"] == "/duo"
    assert "app" not in item


def test_groups_hold_pods_beside_apps(cluster: Any) -> None:
    body = {"apps": [{"id": "a", "cmd": "sleep 1"}], "pods": [{**POD, "id": "p"}]}
    cluster.ask(CreateGroup(update=read_group(body, "/g").update))
    work(cluster)
    group = cluster.ask(GetGroup(id="/g"))
    assert ([a["id"] for a in group["apps"]], [p["id"] for p in group["pods"]]) == (["/g/a"], ["/g/p"])
    with pytest.raises(Unprocessable, match="not valid"):
        cluster.ask(CreateGroup(update=read_group({"apps": [{"id": "x", "cmd": "sleep 1"}],
                                                   "pods": [{**POD, "id": "x"}]}, "/h").update))  # fmt: skip


def test_pods_tell_their_own_events(cluster: Any) -> None:
    cluster.listen()
    create(cluster)
    work(cluster)
    put(cluster, scaling={"instances": 3})
    cluster.ask(DeleteApp(id="/duo", pod=True, force=True, uri="/v2/pods/duo"))
    kinds = [e["eventType"] for e in cluster.heard() if e["eventType"].startswith("pod_")]
    assert kinds == ["pod_created_event", "pod_updated_event", "pod_deleted_event"]


def test_task_ids_name_the_container() -> None:
    name = read_task_id("a_b.instance-1f2e.side-car.3")
    assert name is not None
    assert (name.app, name.instance, name.container, name.incarnation) == (
        "/a/b", "a_b.instance-1f2e", "side-car", 3,
    )  # fmt: skip
    plain = read_task_id("web.instance-1f2e._app.2")
    assert plain is not None
    assert (plain.container, plain.incarnation) == ("", 2)


def test_what_is_shown_reads_the_same_again(cluster: Any) -> None:
    create(cluster)
    shown = cluster.ask(GetPod(id="/duo"))
    spec, unknown = read_pod(shown)
    assert spec == cluster.app("/duo").spec
    assert unknown == ()
    assert write_pod(cluster.app("/duo").record) == shown


def container(**more: Any) -> dict[str, Any]:
    return {"name": "one", "exec": {"command": {"shell": "run it"}}, **more}


def boxed(**more: Any) -> dict[str, Any]:
    return container(image={"kind": "DOCKER", "id": "busybox"}, **more)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/containers", {}),
        ("/containers", {"containers": [container(), container()]}),
        ("/containers(0)/name", {"containers": [container(name="Big")]}),
        ("/containers(0)/name", {"containers": [container(name="12")]}),
        ("/containers(0)/exec", {"containers": [{"name": "one"}]}),
        ("/containers(0)/image/kind", {"containers": [container(image={"kind": "APPC", "id": "x"})]}),
        ("/containers(0)/image/id", {"containers": [container(image={"kind": "DOCKER"})]}),
        ("/containers(0)/exec", {"containers": [container(exec={"overrideEntrypoint": True})]}),
        ("/containers(0)/resources/gpus", {"containers": [container(resources={"gpus": 1})]}),
        ("/containers(0)/resources/cpus", {"containers": [container(resources={"cpus": "1"})]}),
        ("/containers(0)/endpoints(0)/name", {"containers": [container(endpoints=[{"name": "_"}])]}),
        ("/containers(0)/endpoints(0)/containerPort",
         {"containers": [container(endpoints=[{"name": "a", "containerPort": 80}])]}),
        ("/containers(0)/healthCheck", {"containers": [container(healthCheck={"tcp": {"endpoint": "no"}})]}),
        ("/containers(0)/healthCheck", {"containers": [container(healthCheck={})]}),
        ("/containers(0)/volumeMounts", {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "x"}])]}),
        ("/environment", {"containers": [container()], "environment": {"1x": "a"}}),
        ("/networks(0)/mode", {"containers": [container()], "networks": [{"mode": "overlay"}]}),
        ("/containers(0)/endpoints(0)/containerPort",
         {"containers": [container(endpoints=[{"name": "a"}])], "networks": [{"mode": "container/bridge"}]}),
        ("/containers(0)/endpoints(0)/containerPort",
         {"containers": [container(endpoints=[{"name": "a", "containerPort": 70000}])],
          "networks": [{"mode": "container/bridge"}]}),
        ("/containers(0)/endpoints(0)/networkNames",
         {"containers": [container(endpoints=[{"name": "a", "containerPort": 1, "networkNames": ["no"]}])],
          "networks": [{"name": "n"}]}),
        ("/containers(0)/endpoints(0)/networkNames",
         {"containers": [container(endpoints=[{"name": "a", "containerPort": 1, "hostPort": 0}])],
          "networks": [{"name": "n"}, {"name": "m"}]}),
        ("/secrets/a", {"containers": [container()], "secrets": {"a": "b"}}),
        ("/volumes(0)/persistent", {"containers": [container()], "volumes": [{"name": "v", "persistent": {}}]}),
        ("/scaling/kind", {"containers": [container()], "scaling": {"kind": "elastic"}}),
    ],
)  # fmt: skip
def test_a_faulty_pod_is_refused_by_the_place_of_its_fault(path: str, body: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as refused:
        read_pod({"id": "/p", **body})
    assert path in refused.value.details


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/scaling/instances", {"scaling": {"instances": -1}}),
        ("/executorResources/cpus", {"executorResources": {"cpus": 0}}),
        ("/scheduling/backoff/backoffFactor", {"scheduling": {"backoff": {"backoffFactor": 0.5}}}),
        ("/constraints(0)",
         {"scheduling": {"placement": {"constraints": [{"fieldName": "hostname", "operator": "NO"}]}}}),
        ("/id", {"id": "/Bad"}),
        ("/containers(0)/resources", {"containers": [container(resources={"cpus": 0, "mem": 0})]}),
        ("/containers(0)/image", {"containers": [container()], "networks": [{"mode": "container/bridge"}]}),
        ("/containers(0)/image/pullConfig/secret",
         {"containers": [container(image={"id": "x", "pullConfig": {"secret": "none"}})]}),
        ("/networks(0)/name", {"containers": [boxed()], "networks": [{"mode": "container"}]}),
        ("/networks(0)/name", {"containers": [boxed()], "networks": [{"mode": "container/bridge", "name": "x"}]}),
        ("/networks", {"containers": [boxed()], "networks": [{"name": "a"}, {"mode": "host"}]}),
        ("/networks", {"containers": [boxed()], "networks": [{"name": "a"}, {"name": "a"}]}),
        ("/networks", {"containers": [boxed()], "networks": [{"mode": "host"}, {"mode": "host"}]}),
        ("/containers", {"networks": [{"mode": "container/bridge"}], "containers": [
            boxed(endpoints=[{"name": "a", "containerPort": 80}, {"name": "b", "containerPort": 80}])]}),
        ("/containers", {"networks": [{"mode": "container/bridge"}], "containers": [
            boxed(endpoints=[{"name": "a", "containerPort": 80, "hostPort": 31000},
                             {"name": "b", "containerPort": 81, "hostPort": 31000}])]}),
    ],
)  # fmt: skip
def test_a_pod_that_makes_no_sense_is_refused_by_its_field(cluster: Any, path: str, more: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as refused:
        create(cluster, **more)
    assert path in refused.value.details
    assert cluster.lasting() == {}
