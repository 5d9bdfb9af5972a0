"""The master loses each of its writes about roles once.

What it has answered is known to the next one, and what was under way is there whole or not at all.
"""

import asyncio
from random import Random

import pytest

from corral.lib.errors import Unavailable
from corral.master.core import MasterCore
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig, WeightRecord
from corral.model.operator import RemoveRole, SetRole, UpdateQuota, UpdateWeights
from corral.model.resources import scalar
from corral.model.role import Quota, RoleSettings
from corral.runtime.core import encode_record
from corral.runtime.loop import Loop
from corral.store.base import Store, StoreFailed
from corral.store.faulty import Fail, FaultyStore, fault_at
from corral.store.memory import MemoryStore

ONE, TWO = (scalar("cpus", 1),), (scalar("cpus", 2),)
COMMANDS = (
    UpdateWeights(weights=(("a", 2.0), ("b", 3.0))),
    UpdateQuota(quotas=(Quota(role="a", guarantee=ONE, limit=TWO), Quota(role="c", limit=ONE)), force=True),
    SetRole(role="a", priority=7),
    UpdateQuota(quotas=(Quota(role="a"), Quota(role="c"))),
    RemoveRole(role="b"),
)
STEPS = 1 + len(COMMANDS)
"""The first commit is the master's start, which takes over the old weight."""


async def start(store: Store) -> tuple[MasterCore, Loop, "asyncio.Task[int]"]:
    core, shell = MasterCore(MasterConfig(), Random(1)), MasterShell()
    loop = Loop(core, shell, store, prefix="master/", check=True)
    shell.attach(loop)
    running = asyncio.create_task(loop.run())
    ready = asyncio.create_task(loop.ready.wait())
    await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    return core, loop, running


async def fresh_store() -> MemoryStore:
    store = MemoryStore()
    await store.commit({"master/weights/old": encode_record(WeightRecord(5.0))})
    return store


async def remembered(store: Store) -> dict[str, RoleSettings]:
    """What a new master knows."""
    core, loop, running = await start(store)
    found = dict(core.state.roles)
    loop.stop()
    await running
    return found


async def stories() -> list[dict[str, RoleSettings]]:
    """What is known after the start and after each command, when nothing fails."""
    core, loop, running = await start(await fresh_store())
    found = [dict(core.state.roles)]
    for command in COMMANDS:
        await loop.ask(command)
        found.append(dict(core.state.roles))
    loop.stop()
    await running
    return found


@pytest.mark.parametrize("fail", [Fail.BEFORE, Fail.AFTER])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_a_write_that_is_lost_leaves_a_role_as_it_was_or_as_it_was_to_be(step: int, fail: Fail) -> None:
    whole = await stories()
    inner = await fresh_store()
    _, loop, running = await start(FaultyStore(inner, fault_at(step, fail)))
    answered = 0
    for command in COMMANDS:
        try:
            await loop.ask(command)
        except Unavailable:
            break
        answered += 1
    with pytest.raises(StoreFailed):
        await running
    assert answered == max(step - 2, 0)
    written = step - (1 if fail is Fail.BEFORE else 0)
    assert await remembered(inner) == whole[max(written - 1, 0)]
    assert (await inner.get("master/weights/old")) is None


async def test_without_a_fault_every_command_is_known_afterwards() -> None:
    whole = await stories()
    assert whole[0] == {"old": RoleSettings(weight=5.0)}
    assert whole[2]["a"] == RoleSettings(weight=2.0, guarantee=ONE, limit=TWO)
    assert whole[-1] == {"old": RoleSettings(weight=5.0), "a": RoleSettings(weight=2.0, priority=7)}
    assert [len(roles) for roles in whole] == [1, 3, 4, 4, 3, 2]
