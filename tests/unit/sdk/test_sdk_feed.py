"""The feed: nothing while nobody follows, everything in order while somebody does, and a way back after a break."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from corral.sdk.effects import Publish
from corral.sdk.feed import Feed, Followed, Follower
from corral.sdk.framework import FrameworkShell


class Told:
    """A feed with what it tells its framework."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.inputs: list[Any] = []
        self.feed = Feed(clock=lambda: self.now, **options)
        self.feed.attach(self.inputs.append)

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.feed.publish("number", {"n": number})


async def pass_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def take(follower: Follower, batches: int = 1) -> list[int]:
    found: list[int] = []
    events: AsyncIterator[Any] = follower.batches(0.01)
    async with aclosing(events) as open_events:  # type: ignore[type-var]
        async for batch in open_events:
            found += [json.loads(event.data)["n"] for event in batch]
            batches -= 1
            if not batches:
                break
    return found


async def test_nothing_is_kept_while_nobody_follows() -> None:
    told = Told()
    told.publish(1, 2)
    follower = told.feed.follow()
    told.publish(3)
    assert told.inputs == [Followed(True)]
    assert await take(follower) == [3]


async def test_every_follower_gets_everything_at_its_own_pace() -> None:
    told = Told()
    first, second = told.feed.follow(), told.feed.follow()
    told.publish(1)
    assert await take(first) == [1]
    told.publish(2, 3)
    assert await take(first) == [2, 3]
    assert await take(second) == [1, 2, 3]


async def test_quiet_times_are_told() -> None:
    follower = Told().feed.follow()
    assert await take(follower, 2) == []


async def test_a_follower_waits_for_news_without_asking_for_them() -> None:
    told = Told()
    follower = told.feed.follow()
    waiting = asyncio.ensure_future(anext(aiter(follower.batches(10.0))))
    await asyncio.sleep(0)
    told.publish(1)
    assert len(await waiting) == 1


async def test_a_follower_that_comes_back_gets_what_it_missed() -> None:
    told = Told()
    follower = told.feed.follow()
    told.publish(1)
    last = told.feed.id_of(told.feed.since(0)[0])
    follower.close()
    told.publish(2, 3)
    back = told.feed.follow(last)
    assert not back.lost
    assert await take(back) == [2, 3]
    assert told.inputs == [Followed(True)]


async def test_a_follower_that_comes_back_too_late_is_told_so() -> None:
    told = Told(most_kept=2)
    follower = told.feed.follow()
    told.publish(1)
    last = told.feed.id_of(told.feed.since(0)[0])
    follower.close()
    told.publish(2, 3)
    assert not told.feed.follow(last).lost
    told.publish(4)
    assert told.feed.follow(last).lost
    for wrong in ("nonsense", "-", "1-1", last.replace("-", "-9"), last + "0" * 30):
        assert told.feed.follow(wrong).lost, wrong


async def test_publishing_ends_a_while_after_the_last_follower_has_left_and_old_ids_are_void() -> None:
    told = Told(linger_s=0.0)
    follower = told.feed.follow()
    told.publish(1)
    last = told.feed.id_of(told.feed.since(0)[0])
    follower.close()
    follower.close()
    while len(told.inputs) < 2:
        await asyncio.sleep(0)
    assert told.inputs == [Followed(True), Followed(False)]
    told.now += 1
    assert told.feed.follow(last).lost
    assert told.inputs[-1] == Followed(True)


async def test_one_that_leaves_does_not_end_it_for_another() -> None:
    told = Told(linger_s=0.0)
    first, second = told.feed.follow(), told.feed.follow()
    first.close()
    await pass_turns()
    assert told.feed.is_followed
    told.publish(1)
    assert await take(second) == [1]
    second.close()
    told.feed.follow()
    await pass_turns()
    assert told.inputs == [Followed(True)]


async def test_a_slow_follower_is_let_go() -> None:
    told = Told(most_unsent=3, patience_s=0.0)
    follower = told.feed.follow()
    told.publish(1)
    taken = []
    async for batch in follower.batches(1.0):
        taken += [event.seq for event in batch]
        told.publish(*range(3 if len(taken) == 1 else 4))
    assert taken == [1, 2, 3, 4]


async def test_a_burst_does_not_make_slow() -> None:
    told = Told(most_unsent=3)
    follower = told.feed.follow()
    told.publish(*range(1000))
    assert await take(follower, 4) == list(range(1000))


async def test_one_who_missed_what_is_no_longer_kept_is_let_go() -> None:
    told = Told(most_kept=3)
    follower = told.feed.follow()
    told.publish(1, 2, 3)
    assert await take(follower) == [1, 2, 3]
    told.publish(4, 5, 6, 7)
    assert [batch async for batch in follower.batches(1.0)] == []


async def test_the_effect_reaches_the_feed_of_the_framework() -> None:
    told = Told()
    shell = FrameworkShell(transport=None, feed=told.feed)  # type: ignore[arg-type]
    follower = told.feed.follow()
    shell.perform(Publish("number", {"n": 5}))
    assert await take(follower) == [5]
    FrameworkShell(transport=None).perform(Publish("number", {"n": 6}))  # type: ignore[arg-type]
