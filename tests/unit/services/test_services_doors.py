"""The doors of Marathon's API without a socket: which methods a path has, and who may change what is logged."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.services.conftest import Cluster

from corral.frameworks.services.command_spec import GetConfig, GetNumbers
from corral.frameworks.services.numbers import HELP, list_gauges, write_numbers
from corral.frameworks.services.routes import routes
from corral.lib.errors import Forbidden, Unprocessable
from corral.lib.log import configure_log, least_level
from corral.model.task import TaskState
from corral.net.auth import Caller, CallerKind
from corral.net.routes import Request, Response
from corral.net.server import Router
from corral.sdk.metrics import write_metrics

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


async def ask_nobody(command: Any) -> Any:
    raise AssertionError("nothing is asked here")


def router() -> Router:
    return Router(routes(ask_nobody))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2/apps", "GET PATCH POST PUT"),
        ("/v2/apps/*", "GET"),
        ("/v2/apps/shop/*", "GET"),
        ("/v2/apps/shop/web", "DELETE GET PATCH PUT"),
        ("/v2/apps/shop/web/restart", "POST"),
        ("/v2/apps/shop/web/tasks", "DELETE GET"),
        ("/v2/apps/shop/web/tasks/shop_web.instance-1._app.1", "DELETE"),
        ("/v2/apps/shop/*/tasks", "GET"),
        ("/v2/apps/shop/web/versions", "GET"),
        ("/v2/apps/shop/web/versions/2020-01-01T00:00:00.000Z", "GET"),
        ("/v2/tasks", "GET"),
        ("/v2/tasks/delete", "POST"),
        ("/v2/pods", "GET HEAD POST"),
        ("/v2/pods::status", "GET"),
        ("/v2/pods/shop/web", "DELETE GET PUT"),
        ("/v2/pods/shop/web::status", "GET"),
        ("/v2/pods/shop/web::versions", "GET"),
        ("/v2/pods/shop/web::instances", "DELETE"),
        ("/v2/pods/shop/web::instances/one", "DELETE"),
        ("/v2/groups", "DELETE GET PATCH POST PUT"),
        ("/v2/groups/shop", "DELETE GET PATCH POST PUT"),
        ("/v2/deployments", "GET"),
        ("/v2/deployments/one", "DELETE GET"),
        ("/v2/deployments/one/pause", "POST"),
        ("/v2/queue", "GET"),
        ("/v2/queue/shop/web/delay", "DELETE"),
        ("/v2/events", "GET"),
        ("/v2/eventSubscriptions", "DELETE GET POST"),
        ("/v2/info", "GET"),
        ("/v2/leader", "GET"),
        ("/v2/plugins", "GET"),
        ("/v2/metrics", "GET"),
        ("/ping", "GET"),
        ("/logging", "GET POST"),
        ("/config", "GET"),
    ],
)
def test_a_path_tells_the_methods_that_it_has(path: str, allowed: str) -> None:
    found = router()
    for method in METHODS:
        served, _, told = found.find(method, path)
        assert (served is None) == (method not in allowed.split()), method
        assert served is not None or " ".join(told) == allowed
    assert found.find("HEAD", path)[0] is not None or "GET" not in allowed


@pytest.mark.parametrize("path", ["/v2/artifacts", "/v2/schemas", "/v2/apps/", "/v2/tasks/one", "/v2/nothing/at/all"])
def test_paths_of_no_release_are_unknown_whatever_the_method(path: str) -> None:
    expected = ("GET", "PATCH", "POST", "PUT") if path == "/v2/apps/" else ()
    assert router().find("MOVE", path)[2] == expected


def test_a_group_may_have_the_name_of_what_is_below_groups() -> None:
    found = router()
    for name in ("apps", "versions", "shop/apps"):
        served, params, _ = found.find("PUT", f"/v2/groups/{name}")
        assert served is not None
        assert params == {"id": name}


@pytest.fixture
def logged() -> Iterator[None]:
    configure_log()
    yield
    configure_log()


async def log(body: bytes, **caller: Any) -> Response:
    served, _, _ = router().find("POST", "/logging")
    assert served is not None
    made = Caller(kind=CallerKind.TOKEN, name="ci", **caller)
    answer = await served.route.handler(Request(method="POST", path="/logging", body=body, caller=made))
    assert isinstance(answer, Response)
    return answer


@pytest.mark.usefixtures("logged")
async def test_an_operator_changes_what_is_logged() -> None:
    answer = await log(b'{"logger": "mesosphere.marathon", "level": "debug"}')
    assert (answer.body, least_level()) == (b'{"ROOT":"DEBUG"}', "debug")
    assert (await log(b'{"level": "WARN", "durationSeconds": 60}')).body == b'{"ROOT":"WARN"}'
    assert (await log(b'{"level": "INHERIT"}')).body == b'{"ROOT":"INFO"}'


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("body", [b"{}", b'{"level": "LOUD"}', b'{"level": "INFO", "durationSeconds": -1}', b"[]"])
async def test_a_level_that_is_none_changes_nothing(body: bytes) -> None:
    with pytest.raises(Unprocessable):
        await log(body)
    assert least_level() == "info"


@pytest.mark.usefixtures("logged")
async def test_a_caller_with_roles_may_not_change_what_is_logged() -> None:
    with pytest.raises(Forbidden, match="without roles"):
        await log(b'{"level": "DEBUG"}', roles=("etl",))
    assert least_level() == "info"


def test_numbers_count_what_there_is(cluster: Cluster) -> None:
    cluster.create(id="/shop/front/web", instances=2)
    launched = cluster.offer()
    cluster.create(id="/shop/huge", instances=1)
    found = cluster.ask(GetNumbers())
    assert set(found) == set(HELP)
    assert (found["apps.active"], found["groups.active"], found["deployments.active"]) == (2, 2, 2)
    assert (found["instances.staged"], found["instances.waiting"]) == (2, 1)
    for task_id in launched:
        cluster.update(task_id, TaskState.RUNNING)
    found = cluster.ask(GetNumbers())
    assert (found["instances.running"], found["instances.staged"]) == (2, 0)
    written: Any = write_numbers(found)
    assert written["gauges"]["marathon.instances.running.gauge"] == {"value": 2.0}
    assert b"\nmarathon_instances_running 2.0\n" in write_metrics(list_gauges(found))


def test_the_configuration_is_told(cluster: Cluster) -> None:
    assert cluster.ask(GetConfig())["role"] == "*"


@pytest.mark.parametrize(("words", "accepted"), [(10, "gzip"), (4_000, "gzip"), (40_000, "gzip"), (40_000, "identity")])
async def test_an_answer_is_compressed_by_its_size_and_for_those_who_take_it(words: int, accepted: str) -> None:
    async def ask(command: Any) -> Any:
        return [{"id": "/a", "labels": {"text": "word " * words}}]

    served, _, _ = Router(routes(ask, leader="http://m:1")).find("GET", "/v2/apps")
    assert served is not None
    request = Request(method="GET", path="/v2/apps", headers={"accept-encoding": accepted})
    answer = await served.route.handler(request)
    assert isinstance(answer, Response)
    is_small = accepted == "identity" or words < 3_000
    assert ("Content-Encoding" in answer.headers) == (not is_small)
    body = answer.body if is_small else gzip.decompress(answer.body)
    assert json.loads(body)["apps"][0]["labels"]["text"] == "word " * words
    assert answer.headers["X-Marathon-Leader"] == "http://m:1"
    assert "no-store" in answer.headers["Cache-Control"]
