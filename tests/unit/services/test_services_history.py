"""Root versions: what was wanted before can be looked at and gone back to, group by group."""

from typing import Any

import pytest

from corral.frameworks.services import Config
from corral.frameworks.services.command_spec import (
    CreateGroup,
    DeleteApp,
    DeleteGroup,
    GetGroup,
    GetGroupVersion,
    GetGroupVersions,
    PatchGroup,
    UpdateGroup,
)
from corral.frameworks.services.tree import read_group, read_group_patch
from corral.lib.errors import NotFound, Unprocessable

APPS = [{"id": "one", "cmd": "sleep 1"}, {"id": "two", "cmd": "sleep 2", "instances": 2}]


def put(cluster: Any, body: dict[str, Any], at: str = "/shop", **more: Any) -> Any:
    found = read_group(body, at)
    return cluster.ask(UpdateGroup(update=found.update, to_version=found.to_version, force=True, **more))


def make(cluster: Any) -> str:
    version: str = cluster.ask(CreateGroup(update=read_group({"apps": APPS}, "/shop").update)).version
    cluster.work()
    return version


def names(group: Any) -> list[str]:
    return [app["id"] for app in group["apps"]]


def test_a_version_shows_the_group_as_it_was(cluster: Any) -> None:
    first = make(cluster)
    cluster.update_app("/shop/one", cmd="sleep 100")
    cluster.ask(DeleteApp(id="/shop/two"))
    cluster.work()
    was = cluster.ask(GetGroupVersion(id="/shop", version=first))
    assert names(was) == ["/shop/one", "/shop/two"]
    assert [app["cmd"] for app in was["apps"]] == ["sleep 1", "sleep 2"]
    assert was["version"] == first
    versions = cluster.ask(GetGroupVersions(id="/shop"))
    assert len(versions) == 3
    assert versions == sorted(versions, reverse=True)
    assert versions[-1] == first
    assert names(cluster.ask(GetGroupVersion(id="/", version=first))["groups"][0]) == ["/shop/one", "/shop/two"]


def test_going_back_restores_what_was_deleted_and_removes_what_was_added(cluster: Any) -> None:
    first = make(cluster)
    cluster.update_app("/shop/one", instances=3)
    cluster.ask(DeleteApp(id="/shop/two"))
    cluster.create(id="/shop/new")
    cluster.create(id="/elsewhere")
    cluster.work()
    put(cluster, {"version": first})
    cluster.work()
    group = cluster.ask(GetGroup(id="/shop"))
    assert {app["id"]: app["instances"] for app in group["apps"]} == {"/shop/one": 1, "/shop/two": 2}
    assert "/elsewhere" in cluster.state.apps


def test_a_group_that_was_deleted_comes_back_with_its_version(cluster: Any) -> None:
    first = make(cluster)
    cluster.ask(DeleteGroup(id="/shop", force=True))
    cluster.work()
    put(cluster, {"version": first})
    cluster.work()
    assert len(cluster.running("/shop/two")) == 2


def test_instances_that_are_as_they_were_are_not_replaced(cluster: Any) -> None:
    first = make(cluster)
    kept = cluster.task_ids("/shop/two")
    cluster.update_app("/shop/one", cmd="sleep 100")
    cluster.work()
    put(cluster, {"version": first})
    cluster.work()
    assert cluster.task_ids("/shop/two") == kept


def test_versions_outlive_the_process_and_the_oldest_go(make_cluster: Any) -> None:
    cluster = make_cluster(Config(most_versions=3))
    cluster.subscribe()
    first = make(cluster)
    second = cluster.update_app("/shop/one", cmd="sleep 100").version
    cluster.work()
    cluster.crash()
    cluster.subscribe()
    assert cluster.ask(GetGroupVersions())[-1] == first
    for seconds in range(3):
        cluster.update_app("/shop/one", cmd=f"sleep {seconds}00")
        cluster.work()
    assert len(cluster.ask(GetGroupVersions())) == 3
    assert len([key for key in cluster.records if key.startswith("history/")]) == 3
    for gone in (first, second):
        with pytest.raises(NotFound, match="/v2/groups/versions"):
            cluster.ask(GetGroupVersion(id="/", version=gone))


def test_an_unknown_version_and_a_group_it_did_not_have_change_nothing(cluster: Any) -> None:
    cluster.create(id="/alone")
    cluster.work()
    (first,) = cluster.ask(GetGroupVersions())
    make(cluster)
    before = dict(cluster.records)
    for at, version in (("/shop", "2001-01-01T00:00:00.000Z"), ("/shop", first)):
        with pytest.raises(Unprocessable) as refused:
            put(cluster, {"version": version}, at)
        assert list(refused.value.details) == ["/version"]
    assert cluster.records == before


def test_a_dry_run_of_going_back_tells_its_steps(cluster: Any) -> None:
    first = make(cluster)
    cluster.ask(DeleteApp(id="/shop/two"))
    cluster.work()
    steps = put(cluster, {"version": first}, dry_run=True)["steps"]
    assert [a["action"] for step in steps for a in step["actions"]] == ["StartApplication", "ScaleApplication"]
    assert "/shop/two" not in cluster.state.apps


def test_a_patch_takes_enforce_role_alone(cluster: Any) -> None:
    make(cluster)
    assert [read_group_patch({"enforceRole": given}) for given in (False, True)] == [False, True]
    same = cluster.ask(PatchGroup(id="/shop", enforce_role=False))
    assert same.version == cluster.state.groups["/shop"].version
    for body in ({}, {"enforceRole": None}, {"enforceRole": 1}, {"apps": []}, {"enforceRole": False, "apps": []}):
        with pytest.raises(Unprocessable):
            read_group_patch(body)
    with pytest.raises(NotFound):
        cluster.ask(PatchGroup(id="/nowhere", enforce_role=True))
    for at in ("/", "/shop/inner"):
        with pytest.raises(Unprocessable):
            cluster.ask(PatchGroup(id=at, enforce_role=True))
