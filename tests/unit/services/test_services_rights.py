"""Who may change what: callers that are bound to roles, and the roles of what they would change."""

from typing import Any, get_args

import msgspec
import pytest

from corral.frameworks.services import Config
from corral.frameworks.services.command_spec import (
    READS,
    AppUpdate,
    Bound,
    CancelDeployment,
    Command,
    CreateApp,
    CreateGroup,
    DeleteApp,
    DeleteGroup,
    GetDeployments,
    KillPod,
    KillTasks,
    PatchGroup,
    PauseDeployment,
    PromoteDeployment,
    ResetDelay,
    RestartApp,
    UpdateApps,
    UpdateGroup,
)
from corral.frameworks.services.discovery_spec import Drained, ReportTraffic, SecretChanged, WatchBalancer
from corral.frameworks.services.marathon import read_app, read_update
from corral.frameworks.services.scaling_spec import Metric, Push, Resize, ScalingRecord, SetScaling
from corral.frameworks.services.state import task_id_of
from corral.frameworks.services.tree import read_group
from corral.frameworks.services.webhook_spec import AddWebhook, RemoveWebhook
from corral.lib.errors import CorralError, Forbidden
from corral.model.task import TaskState
from corral.net.auth import Caller, CallerKind

APP = {"cmd": "sleep 1000", "cpus": 0.1, "mem": 32}
VOLUME = {"type": "MESOS", "volumes": [{"containerPath": "data", "mode": "RW", "persistent": {"size": 10}}]}


def caller(*roles: str) -> Caller:
    return Caller(kind=CallerKind.TOKEN, name="ci", roles=roles)


DEV, WEB = caller("dev"), caller("web")


@pytest.fixture
def shared(make_cluster: Any) -> Any:
    """Apps of the roles `dev` and `web`, the framework's, in two groups."""
    cluster = make_cluster(Config(role="web"))
    cluster.subscribe()
    for app_id, role in (("/dev/a", "dev"), ("/dev/shared", "web"), ("/ops/b", "web")):
        cluster.create(id=app_id, role=role, instances=2)
    cluster.work()
    return cluster


def may(cluster: Any, who: Caller, command: Any) -> bool:
    """Whether it is let do that. Whoever is not has changed nothing."""
    before = dict(cluster.records)
    try:
        cluster.ask(Bound(caller=who, command=command))
    except Forbidden:
        assert cluster.records == before
        return False
    cluster.work()
    cluster.advance(1.0)
    cluster.work()
    return True


def update(app_id: str, **fields: Any) -> UpdateApps:
    found = read_update(fields, app_id)
    return UpdateApps(updates=(AppUpdate(id=app_id, spec=found.spec, given=found.given),), single=True)


def create(app_id: str, **fields: Any) -> CreateApp:
    return CreateApp(spec=read_app({"id": app_id, **APP, **fields}).spec)


def put(body: Any, at: str = "/", **more: Any) -> UpdateGroup:
    return UpdateGroup(update=read_group(body, at).update, **more)


ABOUT_ONE: tuple[Any, ...] = (
    lambda a: update(a, instances=3),
    lambda a: update(a, cmd="sleep 2000"),
    lambda a: RestartApp(id=a),
    lambda a: KillTasks(app=a),
    lambda a: KillTasks(app=a, scale=True),
    lambda a: SetScaling(id=a, record=ScalingRecord(app=a, least=1, most=4)),
    lambda a: Resize(id=a, by=1),
    lambda a: Push(id=a, metric=Metric.QUEUE, value=1.0),
    lambda a: SetScaling(id=a, record=None),
    lambda a: put({"scaleBy": 1}, a.rpartition("/")[0], scale_by=2.0) if a == "/ops/b" else update(a, instances=1),
    lambda a: DeleteApp(id=a),
)


@pytest.mark.parametrize(("app_id", "holder", "other"), [("/dev/a", DEV, WEB), ("/ops/b", WEB, DEV)])
def test_an_app_is_changed_by_those_who_hold_its_role(shared: Any, app_id: str, holder: Caller, other: Caller) -> None:
    for make in ABOUT_ONE:
        command = make(app_id)
        assert not may(shared, other, command), command
        assert may(shared, holder, command), command


def test_the_role_that_an_app_would_have_counts_as_that_which_it_has(shared: Any) -> None:
    both = caller("web", "dev")
    assert not may(shared, DEV, create("/dev/x")), "it would be of the framework's role"
    assert not may(shared, WEB, create("/dev/x", role="dev"))
    assert may(shared, DEV, create("/dev/x", role="dev"))
    assert may(shared, WEB, create("/dev/y"))
    for who in (DEV, WEB):
        assert not may(shared, who, update("/dev/shared", role="dev"))
    assert may(shared, both, update("/dev/shared", role="dev"))
    assert may(shared, DEV, update("/dev/shared", cmd="sleep 2000"))


def test_where_the_group_enforces_its_role_its_holders_need_not_say_it(shared: Any) -> None:
    assert may(shared, DEV, PatchGroup(id="/dev", enforce_role=True))
    assert may(shared, DEV, create("/dev/x"))
    assert shared.app("/dev/x").spec.role == "dev"
    assert not may(shared, WEB, create("/dev/y"))
    assert not may(shared, DEV, PatchGroup(id="/ops", enforce_role=True))
    assert may(shared, WEB, PatchGroup(id="/ops", enforce_role=True)), "the framework's role has all groups"


def test_a_group_is_changed_by_those_who_hold_what_changes_in_it(shared: Any) -> None:
    same = {"id": "shared", **APP, "instances": 2, "role": "web"}
    assert may(shared, DEV, put({"apps": [same, {"id": "a", **APP, "instances": 1, "role": "dev"}]}, "/dev"))
    assert not may(shared, DEV, put({"apps": [{"id": "a", **APP, "instances": 1}]}, "/dev")), "one of web would go"
    assert not may(shared, DEV, put({"groups": []}))
    assert not may(shared, DEV, DeleteGroup(id="/dev"))
    assert not may(shared, DEV, DeleteGroup(id="/"))
    assert not may(shared, DEV, put({"dependencies": ["/dev"]}, "/ops"))
    assert may(shared, DEV, put({"dependencies": ["/ops"]}, "/dev"))
    for group, holder, other in (("/dev/inner", DEV, None), ("/new", WEB, DEV), ("/new/deep", WEB, DEV)):
        made = CreateGroup(update=read_group({"id": group}, "/").update)
        assert other is None or not may(shared, other, made)
        assert may(shared, holder, made)
        assert other is None or not may(shared, other, DeleteGroup(id=group))
    assert may(shared, DEV, DeleteGroup(id="/dev/inner"))
    assert may(shared, caller("dev", "web"), DeleteGroup(id="/dev"))


def test_tasks_are_killed_by_those_who_hold_the_roles_of_all_of_them(shared: Any) -> None:
    ids = {a: tuple(shared.app(a).instances) for a in ("/dev/a", "/ops/b")}
    assert not may(shared, DEV, KillTasks(instances=(*ids["/dev/a"], *ids["/ops/b"])))
    assert may(shared, DEV, KillTasks(instances=ids["/dev/a"]))
    assert may(shared, caller("dev", "web"), KillTasks(instances=(*ids["/dev/a"], *ids["/ops/b"])))


def test_a_delay_is_forgotten_for_those_who_hold_the_app(shared: Any) -> None:
    shared.update(task_id_of(shared.running("/dev/a")[0]), TaskState.FAILED)
    assert not may(shared, WEB, ResetDelay(id="/dev/a"))
    assert may(shared, DEV, ResetDelay(id="/dev/a"))


def test_a_deployment_is_steered_by_those_who_hold_all_that_is_in_it(shared: Any) -> None:
    both = caller("dev", "web")
    shared.ask(put({"groups": [{"id": "dev", "apps": [
        {"id": "a", **APP, "cmd": "sleep 3", "instances": 2, "role": "dev"},
        {"id": "shared", **APP, "cmd": "sleep 3", "instances": 2, "role": "web"},
    ]}, {"id": "ops"}]}))  # fmt: skip
    (deployment,) = shared.ask(GetDeployments())
    steer: tuple[Any, ...] = (
        PauseDeployment(id=deployment["id"]), PromoteDeployment(id=deployment["id"]),
        CancelDeployment(id=deployment["id"], force=True), CancelDeployment(id=deployment["id"]),
    )  # fmt: skip
    for command in steer:
        for who in (DEV, WEB):
            with pytest.raises(Forbidden):
                shared.ask(Bound(caller=who, command=command))
    # By force it would end for both.
    forced: tuple[Any, ...] = (
        msgspec.structs.replace(update("/dev/a", cmd="sleep 9"), force=True), RestartApp(id="/dev/a", force=True),
        DeleteApp(id="/dev/a"), Resize(id="/dev/a", by=1, force=True), KillTasks(app="/dev/a", scale=True, force=True),
    )  # fmt: skip
    for command in forced:
        with pytest.raises(Forbidden, match="app /dev/shared is of role 'web'"):
            shared.ask(Bound(caller=DEV, command=command))
    shared.ask(Bound(caller=DEV, command=KillTasks(app="/dev/a")))
    shared.ask(Bound(caller=both, command=steer[0]))
    shared.ask(Bound(caller=both, command=steer[-1]))


def test_undoing_wants_the_roles_that_come_back(shared: Any) -> None:
    shared.ask(update("/dev/shared", role="dev"))
    (deployment,) = shared.ask(GetDeployments())
    with pytest.raises(Forbidden):
        shared.ask(Bound(caller=DEV, command=CancelDeployment(id=deployment["id"])))
    shared.ask(Bound(caller=caller("dev", "web"), command=CancelDeployment(id=deployment["id"])))


def test_volumes_of_another_role_want_that_role_too(make_cluster: Any) -> None:
    cluster = make_cluster(Config(role="web", volume_role="disks"))
    cluster.subscribe()
    assert may(cluster, WEB, create("/plain"))
    assert not may(cluster, WEB, create("/db", container=VOLUME))
    assert may(cluster, caller("web", "disks"), create("/db", container=VOLUME))


def test_nobody_who_is_bound_holds_the_role_of_everybody(cluster: Any) -> None:
    cluster.create(id="/dev/a")
    assert not may(cluster, DEV, update("/dev/a", instances=2))
    assert may(cluster, DEV, create("/dev/b", role="dev"))


CHECKED = (
    CreateApp, UpdateApps, DeleteApp, RestartApp, CreateGroup, UpdateGroup, DeleteGroup, PatchGroup, KillTasks, KillPod,
    ResetDelay, PauseDeployment, PromoteDeployment, CancelDeployment, SetScaling, Resize, Push,
)  # fmt: skip


def commands(union: Any) -> set[type]:
    return {kind for each in get_args(union) for kind in (commands(each) or {each})}


def test_what_is_about_no_app_belongs_to_the_framework_s_roles(shared: Any) -> None:
    rest: dict[type, Any] = {
        AddWebhook: AddWebhook(url="http://h/x", client_ip=""),
        RemoveWebhook: RemoveWebhook(url="http://h/x", client_ip=""),
        SecretChanged: SecretChanged(source="x"),
        WatchBalancer: WatchBalancer(name="lb", groups=(), present=True),
        Drained: Drained(balancer="lb", instances=()),
        ReportTraffic: ReportTraffic(balancer="lb", apps={}),
    }
    assert commands(Command) == {*READS, *CHECKED, *rest, Bound}, "a new command is in one of these"
    for command in rest.values():
        assert not may(shared, DEV, command)
        assert may(shared, WEB, command)


def test_what_is_not_there_is_not_found_before_anything_else(shared: Any) -> None:
    for command in (RestartApp(id="/no"), KillTasks(app="/no"), CancelDeployment(id="no"), DeleteGroup(id="/no")):
        with pytest.raises(CorralError) as caught:
            shared.ask(Bound(caller=DEV, command=command))
        assert caught.value.status == 404
