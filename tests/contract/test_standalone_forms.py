"""A master serves in plain Python while its engine is compiled aside, and then goes on with equal decisions."""

import asyncio
import sys
from random import Random

import pytest

from corral.allocator.engine import Mode
from corral.allocator.view import AgentView, WantView
from corral.master.core import MasterCore
from corral.master.spec import MasterConfig
from corral.model.flags import parse_resources
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.standalone.config import Config
from corral.standalone.forms import Form

PYTHON = sys.executable


def waiting_core() -> MasterCore:
    core = MasterCore(MasterConfig(compiled="no"), Random(1))
    allocator = core.state.allocator
    for name in ("a", "b"):
        allocator.set_agent(AgentView(id=AgentId(name), hostname=name, total=parse_resources("cpus:4;mem:4096")))
    want = Want(id=WantId("w"), role="r", count=9, resources=parse_resources("cpus:1;mem:64"))
    allocator.set_want(WantView(want=want, framework_id=FrameworkId("f"), missing=9, since_at=0.0))
    return core


async def compile_aside(form: Form, core: MasterCore, until: Mode) -> None:
    form.follow(core)
    (service,) = form.services
    running = asyncio.create_task(service.run())
    for _ in range(500):
        if core.state.allocator.mode is until:
            break
        await asyncio.sleep(0.01)
    service.stop()
    await running


def test_the_engine_is_taken_over_once_it_is_compiled_and_decides_as_before() -> None:
    core, plain = waiting_core(), waiting_core()
    for each in (core, plain):
        assert len(each.state.allocator.run(1.0, most=3).grants) == 3
    form = Form("auto", (PYTHON, "-c", "pass"), Mode.ARRAYS)
    assert form.of(Config()).kernel.compiled == "no"
    asyncio.run(compile_aside(form, core, Mode.ARRAYS))
    assert (core.state.allocator.mode, form.of(Config()).kernel.compiled) == (Mode.ARRAYS, "yes")
    assert core.state.allocator.run(2.0) == plain.state.allocator.run(2.0)
    core.state.allocator.invariants()
    assert core.state.allocator.decision_hash() == plain.state.allocator.decision_hash()


@pytest.mark.parametrize("command", [(PYTHON, "-c", "import nothing_of_that_name"), ("/nowhere/python",)])
def test_a_master_goes_on_in_plain_python_when_compiling_fails(command: tuple[str, ...]) -> None:
    core, form = waiting_core(), Form("auto", command, Mode.ARRAYS)

    async def try_it() -> None:
        form.follow(core)
        (service,) = form.services
        running = asyncio.create_task(service.run())
        await asyncio.sleep(0.5)
        assert not running.done()
        service.stop()
        await running

    asyncio.run(try_it())
    assert (core.state.allocator.mode, form.of(Config()).kernel.compiled) == (Mode.PLAIN, "no")


def test_what_shall_not_be_compiled_has_nothing_beside_it() -> None:
    form = Form("no")
    asyncio.run(form.warm())
    assert (form.services, form.of(Config()).kernel.compiled) == ([], "no")
