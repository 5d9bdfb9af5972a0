"""Roles of groups on a real cluster: the kernel's limits, guarantees and weights hold for the apps of each group."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from corral_daemons import end_tasks
from marathon.models import MarathonApp
from marathon_site import Daemon, Site, start_dev, start_framework


@pytest.fixture(params=["inside the master", "a process of its own"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A cluster of 8 cpus that runs nothing else."""
    daemons: list[Daemon] = []
    try:
        if request.param == "inside the master":
            daemons.append(start_dev(tmp_path / "dev"))
        else:
            config = tmp_path / "corral.toml"
            config.write_text("[master]\nframeworks = []\n")
            daemons.append(start_dev(tmp_path / "dev", "--config", str(config)))
            daemons.append(start_framework(tmp_path / "services", daemons[0].url))
        yield Site(daemons[-1].url, daemons[0].url)
    finally:
        for daemon in reversed(daemons):
            daemon.stop()
        end_tasks(tmp_path)


def app(name: str, instances: int, cpus: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"id": name, "cmd": "exec sleep 1000", "cpus": cpus, "mem": 16, "instances": instances, **more}


def call(site: Site, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    answer = requests.request(method, site.url + path, json=body, timeout=20)
    assert answer.status_code == status, answer.text
    return answer.json()


def set_role(site: Site, role: str, **settings: Any) -> None:
    assert requests.put(f"{site.master}/corral/v1/roles/{role}", json=settings, timeout=20).status_code < 300


def running(site: Site) -> dict[str, int]:
    """How many tasks run in each role, as Marathon's API has it."""
    tasks = call(site, "GET", "/v2/tasks?status=running")["tasks"]
    return dict(Counter(task["role"] for task in tasks))


def roles_of_framework(site: Site) -> list[str]:
    found = requests.get(f"{site.master}/master/frameworks", timeout=20).json()["frameworks"]
    (services,) = [each for each in found if each["name"] == "services"]
    return sorted(services["roles"])


def rejected(site: Site, app_id: str) -> dict[str, Any]:
    (item,) = [one for one in call(site, "GET", "/v2/queue")["queue"] if one["app"]["id"] == app_id]
    summary: dict[str, Any] = item["processedOffersSummary"]
    return summary


def test_two_groups_have_their_own_shares_of_the_cluster(site: Site) -> None:
    set_role(site, "gold", weight=3)
    set_role(site, "tin", weight=1)
    assert roles_of_framework(site) == ["*"]
    groups = [{"id": name, "enforceRole": True, "apps": [app("web", 10)]} for name in ("gold", "tin")]
    call(site, "PUT", "/v2/groups", {"groups": groups})
    # Both ask in the same breath for all that there is: it is divided by weight.
    site.wait(lambda: running(site) == {"gold": 6, "tin": 2}, "three quarters and one quarter of the cluster")
    assert roles_of_framework(site) == ["*", "gold", "tin"]
    kernel = {one["name"]: one for one in requests.get(f"{site.master}/corral/v1/roles", timeout=20).json()["roles"]}
    assert (kernel["gold"]["allocated"]["cpus"], kernel["tin"]["allocated"]["cpus"]) == (6, 2)
    assert {a.id: (a.role, a.tasks_running) for a in site.client.list_apps()} == {
        "/gold/web": ("gold", 6), "/tin/web": ("tin", 2)
    }  # fmt: skip
    assert {t.role for t in site.client.get_app("/gold/web").tasks} == {"gold"}
    call(site, "DELETE", "/v2/groups/tin?force=true")
    site.wait(lambda: running(site) == {"gold": 8}, "the rest for who is left")
    site.wait(lambda: roles_of_framework(site) == ["*", "gold"], "the role given up")


def test_what_a_role_may_have_holds_for_the_apps_of_its_group(site: Site) -> None:
    set_role(site, "gold", guarantee={"cpus": 4})
    set_role(site, "tin", limit={"cpus": 2})
    site.client.create_app("/free/web", MarathonApp(cmd="exec sleep 1000", cpus=1, mem=16, instances=8))
    site.wait(lambda: running(site) == {"*": 4}, "what is not guaranteed to others")
    call(site, "DELETE", "/v2/apps/free/web")
    site.wait(lambda: not running(site), "the end")
    call(site, "POST", "/v2/groups", {"id": "tin"}, 201)
    call(site, "PATCH", "/v2/groups/tin", {"enforceRole": True})
    assert call(site, "GET", "/v2/groups/tin")["enforceRole"] is True
    made = site.client.create_app("/tin/web", MarathonApp(cmd="exec sleep 1000", cpus=0.5, mem=16, instances=6))
    assert made.role == "tin"
    site.wait(lambda: running(site) == {"tin": 4}, "all that the limit allows")

    def reason() -> Any:
        rows = {row["reason"]: row["declined"] for row in rejected(site, "/tin/web")["rejectSummaryLastOffers"]}
        return rows["UnfulfilledRole"] == 1

    site.wait(reason, "the limit as the reason")
    told = rejected(site, "/tin/web")["reasons"]
    assert any("tin" in one["detail"] for one in told), told
    call(site, "POST", "/v2/apps", app("/tin/x", 1, role="*"), 422)
    call(site, "POST", "/v2/apps", app("/gold/web", 5, role="gold"), 201)
    site.wait(lambda: running(site) == {"tin": 4, "gold": 5}, "the guarantee, and more as it is there")
    set_role(site, "tin", limit={"cpus": 3})
    site.wait(lambda: running(site) == {"tin": 6, "gold": 5}, "the limit raised")


def test_an_app_moves_to_its_group_s_role_one_instance_after_the_other(site: Site) -> None:
    site.client.create_app("/dev/web", MarathonApp(cmd="exec env sleep 1000", cpus=0.5, mem=16, instances=2))
    site.wait(lambda: running(site) == {"*": 2}, "the framework's role")
    call(site, "PATCH", "/v2/groups/dev", {"enforceRole": True})
    call(site, "PUT", "/v2/apps/dev/web", {"instances": 3})
    site.wait(lambda: running(site) == {"*": 3}, "the role that it had")
    call(site, "PUT", "/v2/apps/dev/web", {"role": "dev"})
    site.wait(lambda: running(site) == {"dev": 3}, "the group's role")
    shown = call(site, "GET", "/v2/apps/dev/web")["app"]
    back = call(site, "PUT", "/v2/apps/dev/web", {"version": shown["version"], "role": "*"}, 422)
    assert back["message"]
    wrong = call(site, "PUT", "/v2/apps/dev/web", {"role": "*"}, 422)
    assert wrong["details"] == [{"path": "/role", "errors": ["got '*', expected one of: dev"]}]
    call(site, "PATCH", "/v2/groups/dev", {"enforceRole": False})
    assert "enforceRole" not in call(site, "GET", "/v2/groups/dev")
    assert site.client.get_group("/dev").id == "/dev"
    for path, body, status in (
        ("/v2/groups/dev/deep", {"enforceRole": True}, 422), ("/v2/groups/nowhere", {"enforceRole": True}, 404),
        ("/v2/groups", {"enforceRole": True}, 422), ("/v2/groups/dev", {"apps": []}, 422),
    ):  # fmt: skip
        call(site, "PATCH", path, body, status)
