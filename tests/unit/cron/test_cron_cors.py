"""Pages of other sites read the API where it is allowed, and nowhere else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from corral.frameworks.cron.cors_routes import allow_origin
from corral.frameworks.cron.routes import routes
from corral.lib.errors import Invalid
from corral.net.routes import Request, Response, Route, Stream


async def ask(command: Any) -> Any:
    return []


def find(table: list[Route], method: str, path: str) -> Route:
    return next(route for route in table if (route.method, route.path) == (method, path))


def answer(route: Route, method: str = "GET") -> Response:
    found = asyncio.run(route.handler(Request(method=method, path=route.path)))  # type: ignore[arg-type]
    assert isinstance(found, Response)
    return found


def test_nobody_is_let_in_unless_it_is_said() -> None:
    table = allow_origin(routes(ask), "")
    assert not any(route.method == "OPTIONS" for route in table)
    assert not answer(find(table, "GET", "/scheduler/jobs")).headers


@pytest.mark.parametrize(("origin", "vary"), [("*", False), ("https://ui.example.org", True)])
def test_answers_and_refusals_may_be_read_by_the_pages_of_the_origin(origin: str, vary: bool) -> None:
    table = allow_origin(routes(ask), origin)
    for prefix in ("/v1/scheduler", "/scheduler"):
        route = find(table, "GET", f"{prefix}/jobs")
        refusal = route.errors(Invalid("no"), Request(method="GET", path=route.path))
        assert refusal.status == 400
        for found in (answer(route), refusal):
            assert found.headers["Access-Control-Allow-Origin"] == origin
            assert ("Vary" in found.headers) == vary


def test_a_log_that_goes_on_may_be_read_as_well() -> None:
    async def nothing(_: Request) -> Stream:
        return Stream(chunks=aiter_nothing(), content_type="text/plain")

    (route, _) = allow_origin([Route(method="GET", path="/log", handler=nothing)], "*")
    found = asyncio.run(route.handler(Request(method="GET", path="/log")))  # type: ignore[arg-type]
    assert found.headers["Access-Control-Allow-Origin"] == "*"


async def aiter_nothing() -> AsyncIterator[bytes]:
    return
    yield


def test_browsers_are_told_which_methods_a_path_takes() -> None:
    table = allow_origin(routes(ask), "*")
    for path, methods in (("/scheduler/iso8601", "OPTIONS, POST, PUT"), ("/ping", "GET, OPTIONS")):
        found = answer(find(table, "OPTIONS", path), "OPTIONS")
        assert found.status == 204
        assert found.headers["Access-Control-Allow-Methods"] == methods
        assert "Content-Type" in found.headers["Access-Control-Allow-Headers"]
