"""What `POST /v2/plan` makes of app files: the wants that a deployment of them would state."""

from typing import Any

import pytest

from corral.frameworks.services.command_spec import PlanApps
from corral.frameworks.services.marathon import read_app
from corral.lib.errors import Unprocessable
from corral.model.task import TaskState

DEFAULTS = {"cmd": "true", "cpus": 0.1, "mem": 32}


def plan(cluster: Any, *apps: dict[str, Any], **more: Any) -> tuple[dict[str, Any], ...]:
    answer = cluster.ask(PlanApps(specs=tuple(read_app({**DEFAULTS, **app}).spec for app in apps), **more))
    assert answer["framework_id"] == "F"
    wants: tuple[dict[str, Any], ...] = answer["wants"]
    return wants


def test_a_new_app_asks_what_its_deployment_will_ask(cluster: Any) -> None:
    (planned,) = plan(cluster, {"id": "/web", "instances": 3, "cpus": 0.5})
    cluster.create(id="/web", cmd="true", instances=3, cpus=0.5)
    (stated,) = cluster.wants.values()
    assert planned["count"] == stated.count == 3
    assert planned["ports"] == stated.ports == 1
    assert planned["tags"] == stated.tags
    assert planned["runtime"] == stated.runtime
    assert planned["group"] == stated.group


def test_an_app_that_has_all_its_instances_asks_nothing(cluster: Any) -> None:
    cluster.create(id="/web", cmd="true", instances=2)
    assert [want["count"] for want in plan(cluster, {"id": "/web", "instances": 2})] == [2]
    cluster.offer()
    for task in cluster.launched:
        cluster.update(task.task_id, TaskState.RUNNING)
    assert plan(cluster, {"id": "/web", "instances": 2}) == ()
    (more,) = plan(cluster, {"id": "/web", "instances": 5})
    assert (more["count"], more["group_size"]) == (3, 5)
    (changed,) = plan(cluster, {"id": "/web", "instances": 2, "cmd": "false"})
    assert changed["count"] == 2


def test_a_plan_changes_nothing(cluster: Any) -> None:
    before = dict(cluster.records)
    plan(cluster, {"id": "/web"})
    assert cluster.records == before
    assert cluster.wants == {}


@pytest.mark.parametrize(
    ("apps", "more", "path", "message"),
    [
        ([{"id": "/web"}], {"unknown": ("/cpu",)}, "/cpu", "is known to nobody"),
        ([{"id": "/web"}, {"id": "/web"}], {}, "/", "an app is named twice"),
        ([{"id": f"/web{i}"} for i in range(501)], {}, "/", "501 apps are given; 500 are the most"),
        ([{"id": "/web", "role": "other"}], {}, "/role", "app /web: "),
        ([{"id": "/web", "cpus": -1}], {}, "/cpus", "app /web: "),
        ([{"cmd": "true"}], {}, "/id", "id must be given"),
    ],
)
def test_what_a_deployment_would_refuse_is_refused(
    cluster: Any, apps: list[dict[str, Any]], more: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(Unprocessable) as refused:
        plan(cluster, *apps, **more)
    assert message in refused.value.details[path][0]
