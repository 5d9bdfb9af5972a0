"""Roles of apps: which one each has, what a group enforces, and that the framework is in those that are used."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.frameworks.services import Config
from corral.frameworks.services.app_spec import SPEC_FIELDS
from corral.frameworks.services.command_spec import (
    AppUpdate,
    CancelDeployment,
    CreateApp,
    CreateGroup,
    DeleteApp,
    GetApp,
    GetDeployments,
    GetGroup,
    GetGroupVersion,
    GetPod,
    GetQueue,
    GetRegistry,
    GetTasks,
    PatchGroup,
    PlanApps,
    RestartApp,
    UpdateApps,
    UpdateGroup,
)
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.pod_dialect import read_pod
from corral.frameworks.services.tree import read_group
from corral.lib.errors import Conflict, NotFound, Unprocessable
from corral.model import calls
from corral.model.task import TaskState
from corral.sdk.scheduler import CallFailed

APP = {"cmd": "sleep 1000", "cpus": 0.1, "mem": 32}
VOLUME = {
    "type": "MESOS", "volumes": [{"containerPath": "data", "mode": "RW", "persistent": {"size": 10}}]
}  # fmt: skip
ALLOWED = "got 'other', expected one of: "


def enforce(cluster: Any, group: str = "/dev", *, enforced: bool = True) -> None:
    cluster.ask(PatchGroup(id=group, enforce_role=enforced))
    cluster.settle()


def put_group(cluster: Any, body: Any, at: str = "/", **more: Any) -> Any:
    result = cluster.ask(UpdateGroup(update=read_group(body, at).update, **more))
    cluster.settle()
    return result


def role_of(cluster: Any, app_id: str) -> str | None:
    role: str | None = cluster.app(app_id).spec.role
    return role


def refused(cluster: Any, app_id: str, **fields: Any) -> str:
    """What is said of the role."""
    before = dict(cluster.records)
    with pytest.raises(Unprocessable) as caught:
        cluster.create(id=app_id, **fields)
    assert cluster.records == before
    (text,) = caught.value.details["/role"]
    return str(text)


# Which role an app has.


def test_an_app_may_have_the_framework_s_role_or_that_of_its_group_at_the_top(make_cluster: Any) -> None:
    cluster = make_cluster(Config(role="web"))
    cluster.subscribe()
    cluster.create(id="/dev/plain")
    cluster.create(id="/dev/deep/own", role="dev")
    cluster.create(id="/dev/shared", role="web")
    cluster.create(id="/top", role="web")
    assert [role_of(cluster, a) for a in ("/dev/plain", "/dev/deep/own", "/dev/shared", "/top")] == [
        None, "dev", "web", "web"
    ]  # fmt: skip
    assert refused(cluster, "/dev/x", role="other") == ALLOWED + "web, dev"
    assert refused(cluster, "/dev/deep/x", role="deep") == "got 'deep', expected one of: web, dev"
    assert refused(cluster, "/x", role="x") == "got 'x', expected one of: web"
    assert refused(cluster, "/dev/x", role="") == "got '', expected one of: web, dev"
    assert refused(cluster, "/dev/x", role="*") == "got '*', expected one of: web, dev"


def test_accepted_roles_are_those_of_the_app(cluster: Any) -> None:
    cluster.create(id="/dev/a", role="dev", acceptedResourceRoles=["*", "dev"])
    for role, accepted in (("dev", ["*", "other"]), ("*", ["*", "dev"])):
        with pytest.raises(Unprocessable) as caught:
            cluster.create(id="/dev/b", role=role, acceptedResourceRoles=accepted)
        assert "may hold only * and the app's role" in caught.value.details["/acceptedResourceRoles"][0]


def test_where_a_group_enforces_its_role_new_apps_have_it_and_no_other(cluster: Any) -> None:
    cluster.create(id="/dev/old")
    cluster.work()
    before = cluster.app("/dev/old").record
    enforce(cluster)
    assert cluster.app("/dev/old").record == before, "what is there stays as it is"
    cluster.create(id="/dev/new")
    cluster.create(id="/dev/deep/new", role="dev")
    assert [role_of(cluster, a) for a in ("/dev/new", "/dev/deep/new")] == ["dev", "dev"]
    assert refused(cluster, "/dev/x", role="*") == "got '*', expected one of: dev"
    assert role_of(cluster, "/dev/old") is None
    enforce(cluster, enforced=False)
    cluster.create(id="/dev/later")
    assert (role_of(cluster, "/dev/later"), role_of(cluster, "/dev/new")) == (None, "dev")


def test_an_app_keeps_its_role_until_another_one_is_named(cluster: Any) -> None:
    cluster.create(id="/dev/old")
    cluster.work()
    enforce(cluster)
    config = cluster.app("/dev/old").record.config
    cluster.update_app("/dev/old", instances=2)
    cluster.work()
    cluster.update_app("/dev/old", instances=3, role="*")  # as it is shown nowhere, and may be said
    cluster.work()
    cluster.update_app("/dev/old", partial=False, **APP, instances=3)
    put_group(cluster, {"apps": [{"id": "old", **APP, "instances": 3}]}, "/dev")
    put_group(cluster, {}, "/dev", scale_by=2.0)
    cluster.work()
    assert cluster.app("/dev/old").record.config == config, "nothing was restarted"
    assert (role_of(cluster, "/dev/old"), len(cluster.running("/dev/old"))) == (None, 6)
    cluster.update_app("/dev/old", role="dev")
    cluster.work()
    assert {i.role for i in cluster.running("/dev/old")} == {"dev"}
    with pytest.raises(Unprocessable):
        cluster.update_app("/dev/old", role="*")
    cluster.update_app("/dev/old", partial=False, **APP, instances=1)
    assert role_of(cluster, "/dev/old") == "dev"


def test_pods_have_roles_too(cluster: Any) -> None:
    container = {"name": "c", "exec": {"command": {"shell": "sleep 1000"}}, "resources": {"cpus": 0.1, "mem": 32}}
    enforce_new = {"id": "/dev", "enforceRole": True}
    cluster.ask(CreateGroup(update=read_group(enforce_new, "/").update))
    for pod_id, role in (("/dev/pod", None), ("/dev/said", "dev")):
        body = {"id": pod_id, "containers": [container], **({"role": role} if role else {})}
        cluster.ask(CreateApp(spec=read_pod(body)[0]))
    cluster.work()
    for pod_id in ("/dev/pod", "/dev/said"):
        assert cluster.ask(GetPod(id=pod_id))["role"] == "dev"
        status = cluster.ask(GetPod(id=pod_id, what="status"))
        assert (status["spec"]["role"], [i["role"] for i in status["instances"]]) == ("dev", ["dev"])
    told = [dict(task.command.environment)["MARATHON_APP_ENFORCE_GROUP_ROLE"] for task in cluster.launched]
    assert told == ["TRUE", "TRUE"]
    spec = read_pod({"id": "/dev/pod", "containers": [container], "role": "*"})[0]
    given = tuple(f for f in SPEC_FIELDS if f != "id")
    with pytest.raises(Unprocessable) as caught:
        cluster.ask(UpdateApps(updates=(AppUpdate(id="/dev/pod", spec=spec, given=given),), partial=False, pod=True))
    assert caught.value.details == {"/role": ["got '*', expected one of: dev"]}


def test_going_back_brings_the_old_role_whatever_is_enforced(cluster: Any) -> None:
    cluster.create(id="/dev/a")
    cluster.work()
    first = cluster.app("/dev/a").record.version
    enforce(cluster)
    cluster.update_app("/dev/a", role="dev")
    cluster.work()
    cluster.update_app("/dev/a", version=first)
    cluster.work()
    assert (role_of(cluster, "/dev/a"), [i.role for i in cluster.running("/dev/a")]) == (None, ["*"])
    cluster.update_app("/dev/a", role="dev")
    (deployment,) = cluster.ask(GetDeployments())
    cluster.ask(CancelDeployment(id=deployment["id"]))
    cluster.work()
    assert (role_of(cluster, "/dev/a"), [i.role for i in cluster.running("/dev/a")]) == (None, ["*"])


# Groups.


def test_a_group_shows_its_rule_at_the_top_alone_and_only_where_it_has_one(cluster: Any) -> None:
    cluster.create(id="/dev/deep/a")
    first = cluster.app("/dev/deep/a").record.version
    assert "enforceRole" not in cluster.ask(GetGroup(id="/dev"))
    cluster.listen()
    enforce(cluster)
    assert [e["groupId"] for e in cluster.heard("group_change_success")] == ["/dev"]
    root = cluster.ask(GetGroup())
    (dev,) = root["groups"]
    assert (dev["enforceRole"], "enforceRole" in root, "enforceRole" in dev["groups"][0]) == (True, False, False)
    now = cluster.ask(GetGroupVersion(id="/", version=dev["version"]))
    assert now["groups"][0]["enforceRole"] is True
    put_group(cluster, {"version": first}, "/dev", to_version=first)
    assert "enforceRole" not in cluster.ask(GetGroup(id="/dev")), "the version before had no such rule"


def test_a_group_that_is_made_may_enforce_its_role_from_the_start(cluster: Any) -> None:
    body = {"id": "/dev", "enforceRole": True, "apps": [{"id": "a", **APP}], "groups": [{"id": "deep", "apps": [
        {"id": "b", **APP}]}]}  # fmt: skip
    cluster.ask(CreateGroup(update=read_group(body, "/").update))
    assert [role_of(cluster, a) for a in ("/dev/a", "/dev/deep/b")] == ["dev", "dev"]
    other = {"id": "/ops", "enforceRole": True, "apps": [{"id": "a", **APP, "role": "*"}]}
    with pytest.raises(Unprocessable) as caught:
        cluster.ask(CreateGroup(update=read_group(other, "/").update))
    assert caught.value.details == {"/role": ["got '*', expected one of: ops"]}
    assert "/ops" not in cluster.state.groups


def test_the_rule_changes_by_itself_and_not_together_with_what_is_in_the_group(cluster: Any) -> None:
    cluster.create(id="/dev/a")
    bodies: tuple[Any, ...] = ({"apps": [{"id": "a", **APP}]}, {"pods": []}, {"groups": []})
    for body in bodies:
        with pytest.raises(Unprocessable) as caught:
            put_group(cluster, {"enforceRole": True, **body}, "/dev")
        assert list(caught.value.details) == ["/enforceRole"]
    whole = {"groups": [{"id": "dev", "enforceRole": True, "apps": [{"id": "a", **APP}]}]}
    with pytest.raises(Unprocessable):
        put_group(cluster, whole)
    put_group(cluster, {"enforceRole": True}, "/dev")
    assert cluster.state.groups["/dev"].enforce_role
    put_group(cluster, {"enforceRole": True, "apps": [{"id": "a", **APP}, {"id": "b", **APP}]}, "/dev")
    put_group(cluster, {"dependencies": []}, "/dev")
    put_group(cluster, {"enforceRole": True, "groups": []}, "/dev")
    assert (role_of(cluster, "/dev/a"), role_of(cluster, "/dev/b")) == (None, "dev")
    assert cluster.state.groups["/dev"].enforce_role


def test_new_groups_at_the_top_may_all_enforce_their_roles(make_cluster: Any) -> None:
    cluster = make_cluster(Config(enforce_group_roles=True))
    cluster.subscribe()
    cluster.create(id="/dev/deep/a")
    cluster.create(id="/top")
    cluster.ask(CreateGroup(update=read_group({"id": "/free", "enforceRole": False}, "/").update))
    cluster.ask(CreateGroup(update=read_group({"id": "/ops", "apps": [{"id": "a", **APP}]}, "/").update))
    found = {g: record.enforce_role for g, record in cluster.state.groups.items()}
    assert found == {"/dev": True, "/dev/deep": False, "/free": False, "/ops": True}
    assert [role_of(cluster, a) for a in ("/dev/deep/a", "/top", "/ops/a")] == ["dev", None, "ops"]


def test_a_rule_outlives_the_process(cluster: Any) -> None:
    cluster.create(id="/dev/a")
    enforce(cluster)
    cluster.crash()
    cluster.subscribe()
    cluster.create(id="/dev/b")
    assert role_of(cluster, "/dev/b") == "dev"


# In which roles the framework is.


def test_the_framework_is_in_the_roles_of_its_apps_and_wants_by_role(cluster: Any) -> None:
    cluster.create(id="/a")
    assert not [c for c in cluster.calls if isinstance(c, calls.UpdateFramework)]
    cluster.create(id="/dev/a", role="dev", instances=2)
    cluster.create(id="/ads/a", role="ads")
    assert cluster.roles == ("*", "ads", "dev")
    assert cluster.opened == {"ads", "dev"}, "what is reserved for them is asked for while they wait"
    assert {w.role: w.count for w in cluster.wants.values()} == {"*": 1, "dev": 2, "ads": 1}
    cluster.run()
    assert cluster.opened == set(), "it is offered what it wants and no more"
    assert {t["appId"]: t["role"] for t in cluster.ask(GetTasks())} == {"/a": "*", "/dev/a": "dev", "/ads/a": "ads"}
    registry = {one["id"]: one["role"] for one in cluster.ask(GetRegistry(apps=None))}
    assert registry == {"/a": "*", "/dev/a": "dev", "/ads/a": "ads"}
    environments = {t.name: dict(t.command.environment) for t in cluster.launched}
    assert {e["MARATHON_APP_ENFORCE_GROUP_ROLE"] for e in environments.values()} == {"FALSE"}


def test_a_role_that_no_app_has_any_more_is_given_up(cluster: Any) -> None:
    cluster.create(id="/dev/a", role="dev")
    cluster.work()
    cluster.ask(DeleteApp(id="/dev/a"))
    cluster.settle()
    assert cluster.roles == ("*", "dev"), "its last task has not ended yet"
    cluster.bury()
    cluster.settle()
    assert cluster.roles == ("*",)
    cluster.create(id="/dev/b")
    cluster.work()
    cluster.update_app("/dev/b", role="dev")
    assert cluster.roles == ("*", "dev")
    cluster.work()
    cluster.update_app("/dev/b", role="*")
    assert cluster.roles == ("*",)
    cluster.work()
    assert [i.role for i in cluster.running("/dev/b")] == ["*"]


def test_after_a_failover_the_framework_is_in_the_same_roles(cluster: Any) -> None:
    cluster.create(id="/dev/a", role="dev", instances=2)
    cluster.offer(most=1)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    assert cluster.roles == ("*", "dev")
    cluster.work()
    assert [i.role for i in cluster.running("/dev/a")] == ["dev", "dev"]
    cluster.disconnect()
    cluster.create(id="/ads/a", role="ads")
    cluster.subscribe()
    assert cluster.roles == ("*", "ads", "dev")


def test_tasks_are_told_whether_their_group_enforces_its_role(cluster: Any) -> None:
    cluster.create(id="/dev/a")
    enforce(cluster)
    cluster.create(id="/dev/b")
    cluster.create(id="/top")
    cluster.run()
    told = {dict(t.command.environment)["MARATHON_APP_ID"]: dict(t.command.environment) for t in cluster.launched}
    found = {app_id: e["MARATHON_APP_ENFORCE_GROUP_ROLE"] for app_id, e in told.items()}
    assert found == {"/dev/a": "TRUE", "/dev/b": "TRUE", "/top": "FALSE"}
    enforce(cluster, enforced=False)
    cluster.ask(RestartApp(id="/dev/a"))
    cluster.work()
    assert dict(cluster.launched[-1].command.environment)["MARATHON_APP_ENFORCE_GROUP_ROLE"] == "FALSE"


def test_a_plan_asks_for_the_role_that_the_app_would_have(cluster: Any) -> None:
    cluster.create(id="/dev/a")
    enforce(cluster)
    specs = tuple(read_app({"id": app_id, **APP}).spec for app_id in ("/dev/new", "/top"))
    wants = cluster.ask(PlanApps(specs=specs))["wants"]
    assert {w["group"]: w["role"] for w in wants} == {"/dev/new": "dev", "/top": "*"}
    with pytest.raises(Unprocessable):
        cluster.ask(PlanApps(specs=(read_app({"id": "/dev/x", **APP, "role": "*"}).spec,)))


# Roles that the framework may not have.


def forbid(cluster: Any, why: str) -> None:
    call = [c for c in cluster.calls if isinstance(c, calls.UpdateFramework)][-1]
    cluster.roles = ("*",)
    effects = cluster.core.take_forbidden(CallFailed(call, why, 1, forbidden=True), cluster.now)
    for effect in effects:
        cluster.perform(effect)
    cluster.settle()


def test_a_role_that_the_master_refuses_holds_up_its_own_apps_alone(cluster: Any) -> None:
    cluster.create(id="/dev/a", role="dev")
    cluster.create(id="/ads/a", role="ads")
    cluster.create(id="/a")
    forbid(cluster, "ci is bound to web, ads, so it may not subscribe in role 'dev'")
    assert cluster.roles == ("*", "ads")
    assert {w.role for w in cluster.wants.values()} == {"*", "ads"}
    (waits,) = [item for item in cluster.ask(GetQueue()) if item["app"]["id"] == "/dev/a"]
    (reason,) = waits["processedOffersSummary"]["reasons"]
    assert (reason["reason"], "may not subscribe in role 'dev'" in reason["detail"]) == ("role", True)
    cluster.work()
    assert [len(cluster.running(a)) for a in ("/dev/a", "/ads/a", "/a")] == [0, 1, 1]
    cluster.disconnect()
    cluster.subscribe()
    assert cluster.roles == ("*", "ads")
    cluster.update_app("/dev/a", role="*", force=True)
    cluster.work()
    assert len(cluster.running("/dev/a")) == 1


def test_when_nobody_says_which_role_is_refused_all_of_them_are(cluster: Any) -> None:
    cluster.create(id="/dev/a", role="dev")
    cluster.create(id="/a")
    forbid(cluster, "not you")
    assert cluster.roles == ("*",)
    assert {w.role for w in cluster.wants.values()} == {"*"}


# Volumes.


def test_volumes_are_reserved_for_the_app_s_own_role(cluster: Any) -> None:
    cluster.create(id="/dev/db", role="dev", container=VOLUME)
    assert cluster.roles == ("*", "dev")
    assert "dev" not in cluster.suppressed, "offers of what is reserved are wanted"
    cluster.run()
    (task,) = cluster.tasks.values()
    assert {r.identity.reservations[-1].role for r in task.resources} == {"dev"}
    cluster.update(task.task_id, TaskState.FAILED)
    cluster.advance(5)
    assert cluster.revived[-1] == ("dev",)
    assert len(cluster.offer_reserved()) == 1
    cluster.create(id="/plain/db", container=VOLUME)
    cluster.run()
    assert cluster.roles == ("*", "dev", "services")
    cluster.ask(DeleteApp(id="/dev/db"))
    cluster.bury()
    cluster.crash()
    cluster.subscribe()
    assert cluster.roles == ("*", "dev", "services"), "what it has reserved is to be freed"
    cluster.offer_reserved()
    assert {r.identity.reservations[-1].role for _, held in cluster.reserved.values() for r in held} == {"services"}


def test_the_first_releases_record_of_reservations_is_understood(cluster: Any) -> None:
    cluster.create(id="/db", container=VOLUME)
    cluster.records["residency"] = cluster.records.pop("residency/services")
    cluster.crash()
    cluster.subscribe()
    assert (cluster.roles, cluster.revived[-1]) == (("*", "services"), ("services",))


def test_the_role_of_an_app_with_volumes_changes_for_new_instances_alone(cluster: Any) -> None:
    cluster.create(id="/dev/db", container=VOLUME)
    cluster.work()
    (old,) = cluster.running("/dev/db")
    with pytest.raises(Unprocessable) as caught:
        cluster.update_app("/dev/db", role="dev")
    assert "force=true" in caught.value.details["/role"][0]
    cluster.update_app("/dev/db", role="dev", instances=2, force=True)
    for _ in range(6):
        cluster.run()
        cluster.bury()
        cluster.advance(5)
        for task_id in cluster.offer_reserved():
            cluster.update(task_id, TaskState.RUNNING)
    found = {i.id: i.role for i in cluster.running("/dev/db")}
    assert sorted(found.values()) == ["dev", "services"]
    assert found[old.id] == "services", "it came back to its volume"


def test_a_shown_app_may_be_sent_back(cluster: Any) -> None:
    cluster.create(id="/dev/a", role="dev")
    cluster.work()
    before = cluster.app("/dev/a").record
    shown = {k: v for k, v in cluster.ask(GetApp(id="/dev/a")).items() if k not in ("version", "versionInfo")}
    assert shown["role"] == "dev"
    cluster.update_app("/dev/a", partial=False, **shown)
    assert msgspec.structs.replace(cluster.app("/dev/a").record) == before


# All of it.

IDS = ("/top", "/dev/a", "/dev/deep/b", "/ops/c")
STEPS = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(IDS), st.sampled_from((None, "*", "dev", "ops")), st.booleans()),
    st.tuples(st.just("move"), st.sampled_from(IDS), st.sampled_from(("*", "dev", "ops"))),
    st.tuples(st.just("enforce"), st.sampled_from(("/dev", "/ops")), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(IDS)),
    st.tuples(st.sampled_from(("work", "crash", "connect again"))),
)


def step(cluster: Any, what: str, *words: Any) -> None:
    """Do it, or be refused; which of both does not matter here."""
    match what:
        case "create":
            app_id, role, volumes = words
            named = {"role": role} if role else {}
            cluster.create(id=app_id, instances=2, **named, **({"container": VOLUME} if volumes else {}))
        case "move":
            cluster.update_app(words[0], role=words[1], force=True)
        case "enforce":
            enforce(cluster, words[0], enforced=words[1])
        case "delete":
            cluster.ask(DeleteApp(id=words[0]))
            cluster.settle()
        case "work":
            come_to_rest(cluster)
        case "crash":
            cluster.crash()
            cluster.subscribe()
            cluster.reconcile()
        case _:
            cluster.disconnect()
            cluster.subscribe()


def come_to_rest(cluster: Any) -> None:
    for _ in range(4):
        cluster.work()
        cluster.advance(5)
        for task_id in cluster.offer_reserved():
            cluster.update(task_id, TaskState.RUNNING)


@given(steps=st.lists(STEPS, max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_the_framework_is_in_the_roles_of_its_apps(make_cluster: Any, steps: list[Any]) -> None:
    cluster = make_cluster()
    cluster.subscribe()
    for each in steps:
        before = dict(cluster.records)
        try:
            step(cluster, *each)
        except (Conflict, NotFound, Unprocessable):
            assert cluster.records == before, "who is refused changes nothing"
        # That all wants are of the framework's roles, the pretended master makes sure of.
        assert set(cluster.roles) == set(cluster.state.roles.wanted("*"))
    come_to_rest(cluster)
    for app_id, app in cluster.state.apps.items():
        of_group = app_id.split("/")[1] if app_id.count("/") > 1 else "*"
        assert app.spec.role in (None, "*", of_group)
        running = cluster.running(app_id)
        assert len(running) == 2
        if not app.spec.volumes:
            assert {i.role for i in running} == {app.spec.role or "*"}
