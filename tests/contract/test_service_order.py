"""Services of one process: they end together, in order, with one exit code."""

import asyncio
import os
import signal

import pytest

from corral.lib.errors import Conflict
from corral.runtime.service import Background, run_services
from corral.store.base import StoreFailed


class Part:
    """Runs until stopped, or until told how to end; writes down when it was stopped and when it ended."""

    def __init__(self, name: str, story: list[str], *, slow: bool = False) -> None:
        self.name = name
        self.story = story
        self.end: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.slow = slow

    async def run(self) -> int | None:
        code = await self.end
        await asyncio.sleep(0.01)
        self.story.append(f"{self.name} ended")
        return code

    def stop(self) -> None:
        self.story.append(f"{self.name} stops")
        if not self.slow and not self.end.done():
            self.end.set_result(None)


async def test_the_last_listed_stops_first_and_each_ends_before_the_next_stops() -> None:
    story: list[str] = []
    parts = [Part(name, story) for name in ("loop", "server")]
    running = asyncio.create_task(run_services(parts))
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert story == ["server stops", "server ended", "loop stops", "loop ended"]


async def test_when_one_ends_all_end_with_its_code() -> None:
    story: list[str] = []
    parts = [Part(name, story) for name in ("a", "b", "c")]
    running = asyncio.create_task(run_services(parts))
    await asyncio.sleep(0.01)
    parts[1].end.set_result(7)
    assert await running == 7
    assert story == ["b ended", "c stops", "c ended", "a stops", "a ended"]


@pytest.mark.parametrize(
    ("error", "code"), [(Conflict("taken"), 4), (StoreFailed("full"), 70), (KeyError("bug"), 1)], ids=lambda x: str(x)
)
async def test_an_error_ends_all_with_its_code(error: Exception, code: int) -> None:
    story: list[str] = []
    parts = [Part(name, story) for name in ("a", "b")]
    running = asyncio.create_task(run_services(parts))
    await asyncio.sleep(0.01)
    parts[0].end.set_exception(error)
    assert await running == code
    assert story == ["b stops", "b ended"]


async def test_one_that_does_not_stop_in_time_is_cancelled() -> None:
    story: list[str] = []
    parts = [Part("loop", story), Part("server", story, slow=True)]
    running = asyncio.create_task(run_services(parts, grace_s=0.02))
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    assert await running == 0
    assert story == ["server stops", "loop stops", "loop ended"]


async def test_a_second_signal_cuts_the_grace_short() -> None:
    story: list[str] = []
    parts = [Part("server", story, slow=True)]
    running = asyncio.create_task(run_services(parts, grace_s=60))
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        assert await running == 0


async def test_background_work_is_cancelled_when_it_has_to_stop() -> None:
    tidied: list[str] = []

    async def work() -> int | None:
        try:
            await asyncio.Event().wait()
        finally:
            tidied.append("yes")
        return None

    background = Background("watch", work)
    running = asyncio.create_task(run_services([background], signals=False))
    await asyncio.sleep(0.01)
    background.stop()
    assert await running == 0
    assert tidied == ["yes"]


async def test_background_work_that_ends_gives_its_code() -> None:
    async def work() -> int | None:
        return 3

    assert await run_services([Background("watch", work)], signals=False) == 3


async def test_cancelling_all_leaves_nothing_behind() -> None:
    story: list[str] = []
    running = asyncio.create_task(run_services([Part("a", story)], signals=False))
    await asyncio.sleep(0.01)
    before = len(asyncio.all_tasks())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(asyncio.all_tasks()) < before
    assert asyncio.all_tasks() == {asyncio.current_task()}
