"""Groups through the PyPI client `marathon` 0.13.0 and by hand."""

from typing import Any

import pytest
import requests
from marathon import MarathonClient
from marathon.exceptions import ConflictError, MarathonHttpError, NotFoundError
from marathon.models import MarathonApp
from marathon.models.group import MarathonGroup
from marathon_site import Site


def app(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "cmd": "sleep 1000", "cpus": 0.1, "mem": 16, **more}


def client_app(name: str, **more: Any) -> MarathonApp:
    return MarathonApp(id=name, cmd="sleep 1000", cpus=0.1, mem=16, instances=1, **more)


def wait_gone(site: Site, group_id: str) -> None:
    def look() -> bool:
        busy = [a for d in site.client.list_deployments() for a in d.affected_apps if a.startswith(group_id + "/")]
        return not busy

    site.wait(look, f"the end of {group_id}")


def test_a_group_lives_from_create_to_delete_through_the_client(site: Site, client: MarathonClient) -> None:
    inner = MarathonGroup(id="back", apps=[client_app("db")])
    made = client.create_group(
        MarathonGroup(id="/shop", apps=[client_app("front", dependencies=["/shop/back"])], groups=[inner])
    )
    assert set(made) == {"version", "deploymentId"}
    site.wait_running("/shop/front", 1)
    (shop,) = [g for g in client.list_groups() if g.id == "/shop"]
    assert [a.id for a in shop.apps] == ["/shop/front"]
    assert [g.id for g in shop.groups] == ["/shop/back"]
    assert client.get_group("/shop").groups[0].apps[0].id == "/shop/back/db"
    with pytest.raises(ConflictError):
        client.create_group(MarathonGroup(id="/shop"))

    answer = client.scale_group("/shop", 2)
    assert set(answer) == {"version", "deploymentId"}
    site.wait_running("/shop/front", 2)
    site.wait_running("/shop/back/db", 2)

    shop = client.get_group("/shop")
    client.update_group("/shop", MarathonGroup(apps=[client_app("front"), client_app("side")]))
    site.wait_running("/shop/front", 1)
    site.wait_running("/shop/side", 1)
    assert client.get_app("/shop/back/db").instances == 2
    client.update_group("/shop", shop)
    site.wait(lambda: {a.id for a in client.get_group("/shop").apps} == {"/shop/front"}, "the old group")
    site.wait_running("/shop/front", 2)

    client.delete_group("/shop")
    with pytest.raises(NotFoundError):
        client.get_group("/shop")
    wait_gone(site, "/shop")
    with pytest.raises(NotFoundError):
        client.delete_group("/shop")


def test_what_others_depend_on_runs_first(site: Site, client: MarathonClient) -> None:
    body = {
        "id": "/order",
        "groups": [
            {"id": "first", "apps": [app("a"), app("b")]},
            {"id": "second", "apps": [app("c")], "dependencies": ["/order/first"]},
        ],
    }
    answer = requests.post(f"{site.url}/v2/groups", json=body, timeout=10)
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/v2/groups/order"
    assert answer.headers["Marathon-Deployment-Id"] == answer.json()["deploymentId"]
    tasks = [site.wait_running(f"/order/{name}", 1).tasks[0] for name in ("first/a", "first/b", "second/c")]
    assert max(tasks[0].started_at, tasks[1].started_at) <= tasks[2].staged_at
    shown = requests.get(f"{site.url}/v2/groups/order", timeout=10).json()
    assert shown["groups"][1]["dependencies"] == ["/order/first"]
    client.delete_group("/order")
    wait_gone(site, "/order")


def test_a_dry_run_only_tells_the_steps(site: Site) -> None:
    body = {"id": "/dry", "apps": [app("a")]}
    answer = requests.put(f"{site.url}/v2/groups", params={"dryRun": "true"}, json=body, timeout=10)
    assert answer.json() == {
        "steps": [
            {"actions": [{"action": "StartApplication", "app": "/dry/a"}]},
            {"actions": [{"action": "ScaleApplication", "app": "/dry/a"}]},
        ]
    }
    assert requests.get(f"{site.url}/v2/groups/dry", timeout=10).status_code == 404


def test_a_group_under_deployment_is_locked_unless_forced(site: Site, client: MarathonClient) -> None:
    body = {"apps": [app("big", cpus=1000)]}
    first = requests.put(f"{site.url}/v2/groups/locked", json=body, timeout=10)
    assert first.status_code == 200
    body["apps"][0]["instances"] = 2
    second = requests.put(f"{site.url}/v2/groups/locked", json=body, timeout=10)
    assert second.status_code == 409
    assert second.json()["deployments"] == [{"id": first.json()["deploymentId"]}]
    with pytest.raises(ConflictError):
        client.delete_group("/locked")
    client.delete_group("/locked", force=True)
    wait_gone(site, "/locked")


def test_undoing_the_deployment_takes_the_group_away_again(site: Site, client: MarathonClient) -> None:
    made = client.create_group(MarathonGroup(id="/undone", apps=[client_app("a", constraints=[])]))
    client.delete_deployment(made["deploymentId"])
    wait_gone(site, "/undone")
    with pytest.raises(NotFoundError):
        client.get_group("/undone")


def test_faults_are_told_by_their_place(site: Site, client: MarathonClient) -> None:
    body = {"id": "/bad", "groups": [{"id": "x", "apps": [app("a", cpus="many")]}]}
    answer = requests.post(f"{site.url}/v2/groups", json=body, timeout=10)
    assert answer.status_code == 422
    assert answer.json()["details"][0]["path"] == "/groups(0)/apps(0)/cpus"
    for path in (
        "/bad/versions",
        "/versions/2026-01-01T00:00:00.000Z",
        "/bad/versions/2026-01-01T00:00:00.000Z",
        "/bad/apps",
    ):
        assert requests.get(f"{site.url}/v2/groups{path}", timeout=10).status_code == 404
    with pytest.raises(MarathonHttpError):
        client.rollback_group("/bad", "2026-01-01T00:00:00.000Z")
    with pytest.raises(MarathonHttpError):
        client.scale_group("/bad", -1)
    assert requests.post(f"{site.url}/v2/groups", data="{", timeout=10).status_code == 400
    loop = {"id": "/bad", "groups": [{"id": "x", "apps": [app("a")], "dependencies": ["/bad/y"]},
                                     {"id": "y", "apps": [app("b")], "dependencies": ["/bad/x"]}]}  # fmt: skip
    answer = requests.post(f"{site.url}/v2/groups", json=loop, timeout=10)
    assert answer.status_code == 422
    assert "circle" in answer.text
    assert requests.get(f"{site.url}/v2/groups/bad", timeout=10).status_code == 404
