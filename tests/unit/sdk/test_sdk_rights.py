"""Who may change what the first-party frameworks run: by the roles that these launch in."""

from random import Random
from typing import Any

import pytest

from corral.frameworks import batch, cron, services
from corral.frameworks.services.command_spec import Bound
from corral.lib.errors import CorralError, Forbidden
from corral.net.auth import ANYBODY, Caller, CallerKind
from corral.net.routes import Request, Response, Route
from corral.sdk.rights import check_roles, guard

ETL = Caller(kind=CallerKind.TOKEN, name="ci", roles=("ads/etl",))
ADS = Caller(kind=CallerKind.TOKEN, name="ads", roles=("lab", "ads"))
OPERATOR = Caller(kind=CallerKind.TOKEN, name="ops")


@pytest.mark.parametrize("caller", [ADS, OPERATOR, ANYBODY])
def test_a_role_is_held_by_itself_by_one_above_and_by_those_without_bounds(caller: Caller) -> None:
    check_roles(caller, ("ads", "ads/etl"), "services")


@pytest.mark.parametrize("roles", [("*",), ("ads",), ("ads/etl", "web"), ("ads/etls",)])
def test_every_role_has_to_be_held(roles: tuple[str, ...]) -> None:
    with pytest.raises(Forbidden, match="ci is bound to ads/etl") as caught:
        check_roles(ETL, roles, "services")
    assert repr(roles[-1]) in caught.value.message


async def answer(request: Request) -> Response:
    return Response(status=204)


async def test_changes_alone_are_guarded() -> None:
    made = [Route(method=m, path=p, handler=answer) for m in ("GET", "HEAD", "POST", "*") for p in ("/a", "/free")]
    for route in guard(made, "services", ("web",), free={"/free"}):
        request = Request(method="POST", path=route.path, caller=ETL)
        if route.method in ("GET", "HEAD") or route.path == "/free":
            assert (await route.handler(request)).status == 204
        else:
            with pytest.raises(Forbidden):
                await route.handler(request)


FRAMEWORKS: tuple[tuple[Any, Any], ...] = (
    (services.build, services.Config(role="ads/etl")),
    (cron.build, cron.Config(role="ads/etl", allow_origin="*")),
    (batch.build, batch.Config(role="ads/etl")),
)
POD = b"""{"id": "/x", "containers": [{"name": "c", "exec": {"command": {"shell": "sleep 1"}}}]}"""
CHANGES_NOTHING = {
    ("POST", "/v2/plan"), ("POST", "/logging"), ("POST", "/corral/v1/registry/drained"),
    ("POST", "/corral/v1/registry/traffic"), ("POST", "/scheduler/jobs/plan"), ("POST", "/v1/scheduler/jobs/plan"),
    ("POST", "/corral/v1/dags/plan"), ("POST", "/v1/batch/query"), ("POST", "/v1/batch/wait"),
}  # fmt: skip


BODIES = {
    ("POST", "/v2/apps"): b'{"id": "x", "cmd": "sleep 1"}', ("PUT", "/v2/apps"): b"[]", ("PATCH", "/v2/apps"): b"[]",
    ("POST", "/v2/tasks/delete"): b'{"ids": []}', ("POST", "/v2/pods"): POD, ("PUT", "/v2/pods/"): POD,
    ("DELETE", "/v2/pods/"): b"[]", ("PATCH", "/v2/groups"): b'{"enforceRole": true}',
    ("PATCH", "/v2/groups/"): b'{"enforceRole": true}', ("PUT", "/corral/v1/scaling/"): b'{"max": 3}',
    ("POST", "/corral/v1/scaling/"): b'{"metric": "queue", "value": 1}',
}  # fmt: skip
"""What the dialects of the services framework take as a change, where that is not an empty object."""


class Asked(Exception):
    """The request has passed the guard and the dialect."""


async def ask(command: Any) -> Any:
    """Shapes: a core that is told who asks decides for itself; nothing of this one's is the caller's."""
    if isinstance(command, Bound):
        check_roles(command.caller, ("ads/etl",), "all of it")
    raise Asked


async def passes(route: Route, caller: Caller) -> bool:
    """Whether nobody has said no; what the dialect says of an empty request does not matter here."""
    params = dict.fromkeys(("id", "group", "name", "instance", "owner", "run", "which"), "x")
    params |= {"task": "x.instance-1._app.1", "version": "2026-01-01T00:00:00.000Z"}
    request = Request(
        method=route.method, path=route.path, params=params, query={"callbackUrl": ["http://x"]}, caller=caller,
        body=BODIES.get((route.method, route.path.partition("{")[0]), b"{}"),
    )  # fmt: skip
    try:
        await route.handler(request)
    except Forbidden:
        return False
    except (Asked, CorralError):
        return True
    return True


@pytest.mark.parametrize(("build", "config"), FRAMEWORKS)
async def test_every_change_of_every_door_wants_the_role_and_no_read_does(build: Any, config: Any) -> None:
    other = Caller(kind=CallerKind.TOKEN, name="web", roles=("web",))
    routes = build(config, Random(1)).routes(ask)
    guarded = [r for r in routes if not await passes(r, other)]
    assert {(r.method, r.path) for r in routes if r.method not in ("GET", "HEAD", "OPTIONS")} - {
        (r.method, r.path) for r in guarded
    } <= CHANGES_NOTHING - {("POST", "/logging")}
    assert not [r.path for r in guarded if r.method in ("GET", "HEAD", "OPTIONS")]
    for caller in (ETL, ADS, OPERATOR, ANYBODY):
        refused = [r.path for r in routes if not await passes(r, caller)]
        assert refused == (["/logging"] if caller.roles and "services" in build.__module__ else [])
