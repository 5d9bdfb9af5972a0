"""What is answered while the records cannot be written: which commands count as reads, and how answers are marked."""

import typing
from random import Random
from typing import Any

import pytest

from corral.frameworks.batch import core as batch
from corral.frameworks.batch.spec import Config as BatchConfig
from corral.frameworks.cron import core as cron
from corral.frameworks.cron.dags.spec import PlanDag
from corral.frameworks.cron.spec import Config as CronConfig
from corral.frameworks.services import core as services
from corral.frameworks.services.spec import Config as ServicesConfig
from corral.lib.clock import steady_clock
from corral.lib.errors import Unavailable
from corral.master import core as master
from corral.master.spec import Command as MasterCommand
from corral.master.spec import MasterConfig, WatchCluster
from corral.model.framework import FrameworkInfo
from corral.net.routes import RawRoute, Request, Response, Route, Stream
from corral.net.stale import mark, marked
from corral.runtime.core import Asked, Loaded, Persist
from corral.sdk.scheduler import Session
from corral.trust import core as trust
from corral.trust.spec import Command as TrustCommand
from corral.trust.spec import TrustConfig


def commands_of(inputs: Any) -> set[type]:
    """The commands that a component's inputs may carry."""
    asked = next(each for each in typing.get_args(inputs) if typing.get_origin(each) is Asked)
    (union,) = typing.get_args(asked)
    return set(typing.get_args(union))


# Those left out may have to wait for somebody's word.
CORES = {
    "master": (master.MasterCore(MasterConfig(hostname="h", ip="1.2.3.4", port=1), Random(1)),
               set(typing.get_args(MasterCommand)) - {WatchCluster}),
    "services": (services.ServicesCore(ServicesConfig(), Random(1)), commands_of(services.Input)),
    "trust": (trust.TrustCore(TrustConfig()), set(typing.get_args(TrustCommand))),
    "batch": (batch.BatchCore(BatchConfig(), Random(1)), commands_of(batch.Input)),
    "cron": (cron.CronCore(CronConfig(), Random(1)), commands_of(cron.Input) - {PlanDag}),
}  # fmt: skip


@pytest.mark.parametrize("name", CORES)
def test_every_command_that_asks_for_a_view_is_a_read_and_no_other_is(name: str) -> None:
    core, commands = CORES[name]
    named = {
        each for each in commands if each.__name__.startswith(("Get", "List", "Query", "Search", "Plan", "Prepare"))
    }
    assert set(core.reads) == named


@pytest.mark.parametrize("name", CORES)
def test_a_read_writes_nothing(name: str) -> None:
    core, _ = CORES[name]
    core.handle(Loaded(), 1.0)
    for kind in core.reads:
        try:
            read = kind()
        except TypeError:
            continue  # it names something, and then needs it to be there
        assert not [e for e in core.handle(Asked(1, read), 1.0) if isinstance(e, Persist)], kind


def test_a_session_reads_what_its_framework_names() -> None:
    core = services.ServicesCore(ServicesConfig(), Random(1))
    assert Session(FrameworkInfo(user="u", name="n"), core, Random(1)).reads == core.reads


class Plain:
    def handle(self, input: Any, now: float) -> list[Any]:
        return []


def test_a_framework_that_names_no_reads_has_none() -> None:
    assert Session(FrameworkInfo(user="u", name="n"), Plain(), Random(1)).reads == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [Response(headers={"X": "y"}), Stream(chunks=None, headers={"X": "y"})])  # type: ignore[arg-type]
def test_an_answer_is_marked_with_its_age(answer: Response | Stream) -> None:
    found = mark(answer, steady_clock() - 100.0)
    assert 100.0 <= float(found.headers["Corral-Stale"]) < 160.0
    assert 100 <= int(found.headers["Age"]) < 160
    assert found.headers["Warning"].startswith("110 ")
    assert found.headers["X"] == "y"


async def test_routes_are_marked_from_the_moment_on_and_links_refused() -> None:
    at: float | None = None

    async def answer(request: Request) -> Response:
        return Response()

    async def hold(raw: object) -> str:
        return "held"

    plain, raw = marked(
        [Route(method="GET", path="/", handler=answer), RawRoute(method="GET", path="/l", handler=hold)], lambda: at
    )
    assert isinstance(plain, Route)
    request, away = Request(method="GET", path="/"), Unavailable("away")
    assert "Corral-Stale" not in (await plain.handler(request)).headers
    assert await raw.handler(None) == "held"  # type: ignore[arg-type]
    assert "Retry-After" not in plain.errors(away, request).headers
    at = 1.0
    assert "Corral-Stale" in (await plain.handler(request)).headers
    assert plain.errors(away, request).headers["Retry-After"] == "5"
    with pytest.raises(Unavailable, match="come again"):
        await raw.handler(None)  # type: ignore[arg-type]
