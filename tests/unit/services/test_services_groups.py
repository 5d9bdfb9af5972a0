"""Groups written as a whole: what a list leaves out goes, what waits for whom, and that a refusal changes nothing."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.frameworks.services import Config
from corral.frameworks.services.command_spec import (
    CancelDeployment,
    CreateGroup,
    DeleteGroup,
    GetDeployments,
    GetGroup,
    GetVersions,
    UpdateGroup,
)
from corral.frameworks.services.tree import ReadGroup, read_group
from corral.lib.errors import Conflict, NotFound, TooLarge, Unprocessable

PRODUCT = {
    "id": "/product",
    "groups": [
        {"id": "/product/database", "apps": [{"id": "mongo", "cmd": "sleep 1"}, {"id": "redis", "cmd": "sleep 2"}]},
        {
            "id": "service",
            "dependencies": ["/product/database"],
            "apps": [{"id": "/product/service/rails", "cmd": "sleep 3", "instances": 2, "dependencies": ["base"]},
                     {"id": "base", "cmd": "sleep 4"}],
        },
    ],
}  # fmt: skip


def app(name: str, **more) -> dict:
    return {"id": name, "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, **more}


def read(body: dict, path: str = "/") -> ReadGroup:
    return read_group(body, path)


def post(cluster, body: dict, path: str = "/", force: bool = False):
    result = cluster.ask(CreateGroup(update=read(body, path).update, force=force))
    cluster.settle()
    return result


def put(cluster, path: str, force: bool = False, dry_run: bool = False, **body):
    found = read(body, path)
    command = UpdateGroup(update=found.update, scale_by=found.scale_by, force=force, dry_run=dry_run)
    result = cluster.ask(command)
    cluster.settle()
    return result


def steps(cluster) -> list[list[str]]:
    (deployment,) = cluster.ask(GetDeployments())
    return [[f"{a['action']} {a['app']}" for a in step["actions"]] for step in deployment["steps"]]


def names(group: dict) -> list[str]:
    """All ids of a group's tree, groups before their apps."""
    return [group["id"], *(a["id"] for a in group["apps"]), *(n for g in group["groups"] for n in names(g))]


def test_a_tree_is_made_in_one_deployment_in_the_order_of_its_dependencies(cluster) -> None:
    post(cluster, PRODUCT)
    assert steps(cluster) == [
        [
            f"StartApplication /product/{a}"
            for a in ("database/mongo", "database/redis", "service/base", "service/rails")
        ],
        ["ScaleApplication /product/database/mongo", "ScaleApplication /product/database/redis"],
        ["ScaleApplication /product/service/base"],
        ["ScaleApplication /product/service/rails"],
    ]
    assert sorted(w.group for w in cluster.wants.values()) == ["/product/database/mongo", "/product/database/redis"]
    cluster.work()
    assert cluster.ask(GetDeployments()) == []
    assert len(cluster.running("/product/service/rails")) == 2
    shown = cluster.ask(GetGroup(id="/product"))
    assert names(shown) == [
        "/product", "/product/database", "/product/database/mongo", "/product/database/redis",
        "/product/service", "/product/service/base", "/product/service/rails",
    ]  # fmt: skip
    assert shown["groups"][1]["dependencies"] == ["/product/database"]


def test_a_group_s_dependency_orders_later_changes_of_its_apps_too(cluster) -> None:
    post(cluster, PRODUCT)
    cluster.work()
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    put(cluster, "/product/database", apps=[app("mongo", cmd="sleep 11"), app("redis", cmd="sleep 2")])
    cluster.work()
    groups = [
        {"id": "database", "apps": [app("mongo", cmd="sleep 12"), app("redis", cmd="sleep 2")]},
        {"id": "service", "apps": [app("base", cmd="sleep 44"), app("rails", cmd="sleep 3")]},
    ]
    put(cluster, "/product", groups=groups)
    order = [s[0].split(" ")[1] for s in steps(cluster)]
    assert order[0] == "/product/database/mongo"
    assert "/product/service/base" in order[1:]


def test_what_a_list_leaves_out_goes_and_what_is_not_named_stays(cluster) -> None:
    post(cluster, {"id": "/g", "apps": [app("a"), app("b")], "groups": [{"id": "sub", "apps": [app("c")]}]})
    cluster.work()
    before = cluster.task_ids("/g/a")
    put(cluster, "/g", apps=[app("a")])
    assert steps(cluster) == [["StopApplication /g/b"]]
    cluster.work()
    assert names(cluster.ask(GetGroup(id="/g"))) == ["/g", "/g/a", "/g/sub", "/g/sub/c"]
    assert cluster.task_ids("/g/a") == before
    put(cluster, "/g", groups=[])
    cluster.work()
    assert names(cluster.ask(GetGroup(id="/g"))) == ["/g", "/g/a"]
    assert "group/g/sub" not in cluster.records
    put(cluster, "/g", apps=[])
    cluster.work()
    assert names(cluster.ask(GetGroup(id="/g"))) == ["/g"]
    assert cluster.tasks == {}


def test_an_app_in_a_group_is_a_whole_definition(cluster) -> None:
    post(cluster, {"id": "/g", "apps": [app("a", labels={"x": "y"}, instances=2)]})
    cluster.work()
    put(cluster, "/g", apps=[app("a")])
    cluster.work()
    shown = cluster.show("/g/a")
    assert (shown["labels"], shown["instances"]) == ({}, 1)
    assert len(cluster.ask(GetVersions(id="/g/a"))) == 2


def test_a_tree_that_was_fetched_can_be_sent_back_and_changes_nothing(cluster) -> None:
    post(cluster, PRODUCT)
    cluster.work()
    before = dict(cluster.records)
    body = cluster.ask(GetGroup(id="/product", embed=("group.groups", "group.apps", "group.apps.tasks")))
    body.pop("version")
    put(cluster, "/product", **body)
    assert cluster.records == before
    assert cluster.ask(GetDeployments()) == []


def test_a_missing_group_is_made_by_a_put_with_those_above_it(cluster) -> None:
    result = put(cluster, "/a/b/c", apps=[])
    assert names(cluster.ask(GetGroup(id="/a"))) == ["/a", "/a/b", "/a/b/c"]
    assert cluster.state.groups["/a/b/c"].version == result.version
    assert cluster.ask(GetDeployments()) == []
    again = put(cluster, "/a/b/c", apps=[])
    assert again.version == result.version


def test_ids_are_read_from_the_group_of_the_path(cluster) -> None:
    assert read({"id": "sub"}, "/g").update.id == "/g/sub"
    assert read({"id": "g"}, "/g").update.id == "/g"
    assert read({"id": "/g"}, "/g").update.id == "/g"
    assert read({}, "/g").update.id == "/g"
    assert read({"id": "x", "dependencies": ["../y", "/z"]}, "/g").update.dependencies == ("/g/y", "/z")
    post(cluster, {"id": "sub"}, "/g")
    assert names(cluster.ask(GetGroup(id="/"))) == ["/", "/g", "/g/sub"]


def test_a_group_that_is_there_is_not_made_again(cluster) -> None:
    post(cluster, {"id": "/g"})
    with pytest.raises(Conflict, match="already created"):
        post(cluster, {"id": "/g"})
    with pytest.raises(Conflict, match="already created"):
        post(cluster, {"apps": []})
    cluster.create(id="/web")
    with pytest.raises(Conflict, match="An app with the path /web already exists"):
        post(cluster, {"id": "/web"})


def test_a_group_is_scaled_with_all_below_it(cluster) -> None:
    post(cluster, {"id": "/g", "apps": [app("a", instances=10)], "groups": [{"id": "s", "apps": [app("b")]}]})
    cluster.work()
    put(cluster, "/g", scaleBy=1.1)
    assert steps(cluster) == [["ScaleApplication /g/a", "ScaleApplication /g/s/b"]]
    cluster.work()
    assert (len(cluster.running("/g/a")), len(cluster.running("/g/s/b"))) == (11, 2)
    put(cluster, "/g", scaleBy=0)
    cluster.work()
    assert cluster.tasks == {}
    with pytest.raises(NotFound, match="'/nobody'"):
        put(cluster, "/nobody", scaleBy=2)


def test_a_dry_run_tells_the_steps_and_changes_nothing(cluster) -> None:
    post(cluster, {"id": "/g", "apps": [app("a"), app("b")]})
    cluster.work()
    before = (dict(cluster.records), cluster.state.last_version_at)
    found = put(cluster, "/g", dry_run=True, apps=[app("a", cmd="sleep 9"), app("c")])
    assert found == {
        "steps": [
            {"actions": [{"action": "StopApplication", "app": "/g/b"}]},
            {"actions": [{"action": "StartApplication", "app": "/g/c"}]},
            {
                "actions": [
                    {"action": "RestartApplication", "app": "/g/a"}, {"action": "ScaleApplication", "app": "/g/c"},
                ]
            },
        ]
    }  # fmt: skip
    assert (dict(cluster.records), cluster.state.last_version_at) == before
    assert cluster.ask(GetDeployments()) == []


def test_a_deleted_group_is_gone_at_once_and_ends_in_one_deployment(cluster) -> None:
    post(cluster, PRODUCT)
    cluster.work()
    cluster.create(id="/other")
    cluster.work()
    cluster.ask(DeleteGroup(id="/product"))
    cluster.settle()
    with pytest.raises(NotFound):
        cluster.ask(GetGroup(id="/product"))
    (step,) = steps(cluster)
    assert len(step) == 4
    cluster.work()
    assert list(cluster.state.apps) == ["/other"]
    assert not any(key.startswith("group") for key in cluster.records)
    with pytest.raises(NotFound, match="Group '/product' does not exist"):
        cluster.ask(DeleteGroup(id="/product"))
    cluster.ask(DeleteGroup(id="/"))
    cluster.work()
    assert cluster.state.apps == {}


def test_a_group_with_an_app_under_deployment_is_locked_unless_forced(cluster) -> None:
    post(cluster, {"id": "/g", "apps": [app("a"), app("b")]})
    before = dict(cluster.records)
    with pytest.raises(Conflict) as locked:
        put(cluster, "/g", apps=[app("a", instances=3), app("b")])
    assert len(locked.value.blockers) == 1
    with pytest.raises(Conflict):
        cluster.ask(DeleteGroup(id="/g"))
    assert cluster.records == before
    cluster.ask(DeleteGroup(id="/g", force=True))
    cluster.work()
    assert cluster.state.apps == {}


def test_going_back_removes_the_groups_that_were_made_and_restores_those_that_went(cluster) -> None:
    made = post(cluster, PRODUCT)
    cluster.ask(CancelDeployment(id=made.deployment_id))
    cluster.work()
    assert cluster.state.groups == {}
    assert cluster.state.apps == {}
    post(cluster, PRODUCT)
    cluster.work()
    before = dict(cluster.state.groups)
    deleted = cluster.ask(DeleteGroup(id="/product"))
    cluster.ask(CancelDeployment(id=deleted.deployment_id))
    cluster.work()
    assert {g: r.dependencies for g, r in cluster.state.groups.items()} == {
        g: r.dependencies for g, r in before.items()
    }
    assert names(cluster.ask(GetGroup(id="/product")))[-1] == "/product/service/rails"
    assert len(cluster.running("/product/service/rails")) == 2


def test_a_group_that_something_was_put_into_meanwhile_stays_when_going_back(cluster) -> None:
    made = post(cluster, {"id": "/g", "apps": [app("a")]})
    cluster.create(id="/g/mine")
    cluster.ask(CancelDeployment(id=made.deployment_id))
    cluster.work()
    assert names(cluster.ask(GetGroup(id="/g"))) == ["/g", "/g/mine"]


def test_circles_through_groups_are_refused_even_when_no_app_changes(cluster) -> None:
    post(cluster, {"id": "/g", "groups": [{"id": "x", "apps": [app("a")]}, {"id": "y", "apps": [app("b")]}]})
    cluster.work()
    put(cluster, "/g/x", dependencies=["/g/y"])
    before = dict(cluster.records)
    with pytest.raises(Unprocessable, match="not valid") as refused:
        put(cluster, "/g/y", dependencies=["../x"])
    assert "circle" in refused.value.details["/dependencies"][0]
    with pytest.raises(Unprocessable):
        cluster.update_app("/g/y/b", dependencies=["/g/x/a"])
    assert cluster.records == before


@pytest.mark.parametrize(
    ("body", "path", "text"),
    [
        ({"apps": [app("/elsewhere")]}, "/apps(0)/id", "not in the group /g"),
        ({"apps": [app("deep/er")]}, "/apps(0)/id", "not in the group /g"),
        ({"apps": [app("a"), app("a")]}, "/apps(1)/id", "named twice"),
        ({"apps": [{"cmd": "sleep 1"}]}, "/apps(0)/id", "must be given"),
        ({"groups": [{"apps": []}]}, "/groups(0)/id", "must be given"),
        ({"groups": [{"id": "/h"}]}, "/groups(0)/id", "not in the group /g"),
        ({"groups": [{"id": "x"}, {"id": "x"}]}, "/groups(1)/id", "named twice"),
        ({"groups": [{"id": "UPPER"}]}, "/groups(0)/id", "lower-case"),
        ({"groups": [{"id": "x", "apps": [app("a", cpus="1")]}]}, "/groups(0)/apps(0)/cpus", "a number"),
        ({"pods": [{"id": "p"}]}, "/pods(0)/containers", "at least one"),
        ({"groups": [{"id": "x", "enforceRole": True}]}, "/groups(0)/enforceRole", "only a group at the top"),
        ({"version": "2026-01-01T00:00:00.000Z", "apps": []}, "/version", "must stand alone"),
        ({"scaleBy": 2, "apps": []}, "/scaleBy", "stand alone"),
        ({"scaleBy": 2, "enforceRole": True}, "/scaleBy", "stand alone"),
        ({"version": "2026-01-01T00:00:00.000Z", "enforceRole": False}, "/version", "must stand alone"),
        ({"scaleBy": -1}, "/scaleBy", "0 or more"),
        ({"dependencies": ["Bad"]}, "/dependencies(0)", "lower-case"),
        ({"id": "/other"}, "/id", "cannot be moved"),
    ],
)
def test_a_faulty_group_is_refused_by_the_place_of_the_fault(body, path, text) -> None:
    with pytest.raises(Unprocessable) as refused:
        read(body, "/g")
    assert text in refused.value.details[path][0]


def test_the_root_waits_for_nothing() -> None:
    with pytest.raises(Unprocessable):
        read({"dependencies": ["/a"]}, "/")


def test_unknown_fields_are_reported_by_their_place() -> None:
    found = read({"apps": [app("a", colour="red")], "groups": [{"id": "x", "shape": 1}], "taste": 2}, "/g")
    assert sorted(found.unknown) == ["/apps(0)/colour", "/groups(0)/shape", "/taste"]


def test_a_fault_of_one_app_is_told_with_its_name_and_nothing_is_taken_on(cluster) -> None:
    before = dict(cluster.records)
    with pytest.raises(Unprocessable) as refused:
        post(cluster, {"id": "/g", "apps": [app("a"), app("b", cpus=-1)]})
    assert refused.value.details["/cpus"][0].startswith("app /g/b: ")
    assert cluster.records == before
    assert cluster.state.groups == {}
    assert not cluster.state.service_ports


def test_new_apps_of_one_request_get_service_ports_of_their_own(cluster) -> None:
    post(cluster, {"id": "/g", "apps": [app("a"), app("b"), app("c")]})
    ports = [cluster.state.apps[f"/g/{name}"].spec.service_ports for name in "abc"]
    assert len({p for each in ports for p in each}) == 3


def test_apps_and_groups_do_not_share_ids(cluster) -> None:
    cluster.create(id="/web")
    cluster.work()
    post(cluster, {"id": "/g", "groups": [{"id": "full", "apps": [app("x")]}, {"id": "empty"}]})
    cluster.work()
    before = dict(cluster.records)
    for path, body in (
        ("/web", {"apps": []}),
        ("/web/below", {"apps": []}),
        ("/g", {"apps": [app("full")]}),
        ("/g", {"apps": [app("empty")], "groups": [{"id": "empty"}]}),
        ("/g", {"apps": [app("full")], "groups": [{"id": "full", "apps": []}]}),
    ):
        with pytest.raises(Unprocessable):
            put(cluster, path, **body)
    assert cluster.records == before
    put(cluster, "/g", apps=[app("empty")])
    cluster.work()
    assert names(cluster.ask(GetGroup(id="/g"))) == ["/g", "/g/empty", "/g/full", "/g/full/x"]


def test_an_app_may_take_the_place_of_a_group_that_goes_with_its_apps(cluster) -> None:
    post(cluster, {"id": "/g", "groups": [{"id": "x", "apps": [app("a")]}]})
    cluster.work()
    put(cluster, "/g", apps=[app("x")], groups=[])
    cluster.work()
    assert names(cluster.ask(GetGroup(id="/g"))) == ["/g", "/g/x"]


def test_a_refused_app_does_not_cost_an_empty_group_its_place(cluster) -> None:
    post(cluster, {"id": "/g"})
    with pytest.raises(Unprocessable):
        cluster.create(id="/g", cpus=-1)
    assert "/g" in cluster.state.groups
    cluster.create(id="/g")
    assert "/g" not in cluster.state.groups
    assert "group/g" not in cluster.records


def test_too_many_apps_at_once_are_refused(make_cluster) -> None:
    cluster = make_cluster(Config(most_apps_per_request=2))
    with pytest.raises(TooLarge, match="3 apps in one request"):
        post(cluster, {"id": "/g", "apps": [app("a")], "groups": [{"id": "x", "apps": [app("b"), app("c")]}]})


def test_a_change_of_groups_is_told_with_the_group_s_id(cluster) -> None:
    cluster.listen()
    result = post(cluster, {"id": "/g", "apps": [app("a")]})
    (success,) = cluster.heard("group_change_success")
    assert (success["groupId"], success["version"]) == ("/g", result.version)
    empty = put(cluster, "/g/empty")
    (success,) = cluster.heard("group_change_success")
    assert (success["groupId"], success["version"]) == ("/g/empty", empty.version)
    with pytest.raises(Conflict):
        post(cluster, {"id": "/g"})
    (failed,) = cluster.heard("group_change_failed")
    assert failed["groupId"] == "/g"


_names = st.sampled_from(["a", "b", "c"])


@st.composite
def bodies(draw, depth: int = 2) -> dict:
    body: dict = {}
    if draw(st.booleans()):
        ids = draw(st.lists(_names, unique=True, max_size=2))
        body["apps"] = [app(f"app-{i}", instances=draw(st.integers(0, 2))) for i in ids]
    if depth and draw(st.booleans()):
        ids = draw(st.lists(_names, unique=True, max_size=2))
        body["groups"] = [{"id": f"group-{i}", **draw(bodies(depth - 1))} for i in ids]
    return body


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.sampled_from(["/g", "/g/group-a", "/g/group-b"]), bodies()), min_size=1, max_size=5)
)
def test_after_any_changes_what_is_there_is_what_the_records_say(make_cluster, changes) -> None:
    cluster = make_cluster()
    cluster.subscribe()
    for path, body in changes:
        put(cluster, path, force=True, **body)
        for key, wanted in (("apps", body.get("apps")), ("groups", body.get("groups"))):
            if wanted is not None:
                shown = cluster.ask(GetGroup(id=path))[key]
                assert [i["id"].rpartition("/")[2] for i in shown] == sorted(i["id"] for i in wanted)
    cluster.work()
    tree = cluster.ask(GetGroup(id="/g"))
    assert all(app_id.rpartition("/")[0] in cluster.state.groups for app_id in cluster.state.apps)
    assert len(cluster.tasks) == sum(a.spec.instances for a in cluster.state.apps.values())
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    assert cluster.ask(GetGroup(id="/g")) == tree


def test_records_of_before_groups_had_dependencies_are_read(make_cluster) -> None:
    cluster = make_cluster()
    cluster.subscribe()
    post(cluster, {"id": "/g", "apps": [app("a")]})
    for key in [k for k in cluster.records if k.startswith(("group", "deployment"))]:
        fields = msgspec.msgpack.decode(cluster.records[key])
        fields.pop("dependencies" if key.startswith("group") else "groups", None)
        cluster.records[key] = msgspec.msgpack.encode(fields)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    cluster.work()
    assert names(cluster.ask(GetGroup(id="/g"))) == ["/g", "/g/a"]
    assert len(cluster.running("/g/a")) == 1
