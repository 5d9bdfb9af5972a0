"""The agent's link over real sockets: dialling, redirects, cuts, masters that misbehave."""

import asyncio
from random import Random
from typing import Any

import pytest
from agent_master import AGENT, TinyMaster, running, serving

from corral.agent.link import Link
from corral.agent.spec import Connected, Disconnected, Ordered
from corral.lib.errors import Invalid
from corral.model.agent import AgentInfo
from corral.model.orders import Ping, Pong, Register, Registered
from corral.net.access import complete_url


class Told:
    """What the link told the core, to be waited for."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self._news = asyncio.Event()

    def __call__(self, input: Any) -> None:
        self.inputs.append(input)
        self._news.set()

    async def next(self, kind: type) -> Any:
        async with asyncio.timeout(10.0):
            while True:
                for index, input in enumerate(self.inputs):
                    if isinstance(input, kind):
                        del self.inputs[: index + 1]
                        return input
                self._news.clear()
                await self._news.wait()


REGISTER = Register(AgentInfo(hostname="n", port=1, resources=()))


def make_link(told: Told, *urls: str) -> Link:
    link = Link(urls, Random(1), told)
    link.connect()
    return link


async def test_orders_come_down_and_reports_go_up_in_their_order() -> None:
    told = Told()
    async with serving(TinyMaster()) as master:
        link = make_link(told, master.url)
        async with running(link.run()):
            connected = await told.next(Connected)
            assert connected.master == master.url
            link.send([REGISTER])
            ordered = await told.next(Ordered)
            assert (ordered.session, ordered.order) == (connected.session, Registered(1, AGENT, 15.0))
            link.send([Pong()] * 500)
            link.send([Pong()])
            master.order(*[Ping(n) for n in range(500)])
            assert [(await told.next(Ordered)).order.epoch for _ in range(500)] == list(range(500))
            await master.until(lambda: len(master.reports) == 502)


async def test_nothing_is_dialled_before_the_core_says_so() -> None:
    told = Told()
    async with serving(TinyMaster()) as master:
        link = Link([master.url], Random(1), told)
        async with running(link.run()):
            await asyncio.sleep(0.05)
            assert master.dials == 0
            link.connect()
            await told.next(Connected)


async def test_a_cut_session_is_told_and_dialled_anew_under_another_name() -> None:
    told = Told()
    async with serving(TinyMaster()) as master, running(make_link(told, master.url).run()):
        first = await told.next(Connected)
        master.cut()
        assert (await told.next(Disconnected)).session == first.session
        assert (await told.next(Connected)).session != first.session


async def test_a_follower_leads_to_the_leader_at_once() -> None:
    told = Told()
    async with serving(TinyMaster()) as leader, serving(TinyMaster()) as follower:
        follower.redirect = leader.url
        async with running(make_link(told, follower.url).run()):
            assert (await told.next(Connected)).master == leader.url
            assert leader.dials == 1
            assert not [i for i in told.inputs if isinstance(i, Disconnected)]


async def test_a_leader_that_was_lost_may_still_be_the_one_when_nobody_else_comes() -> None:
    told = Told()
    async with serving(TinyMaster()) as leader, serving(TinyMaster()) as follower:
        async with running(make_link(told, leader.url, follower.url).run()):
            await told.next(Connected)
            follower.refuse = 503  # as after waiting in vain for another to lead
            leader.cut()
            await told.next(Disconnected)
            await follower.until(lambda: follower.dials >= 1)
            assert (await told.next(Connected)).master == leader.url
        assert follower.lost[0] == leader.url
        assert leader.lost[-1] == "", "the leader is not named as lost to anybody any more"


async def test_two_followers_that_point_at_each_other_do_not_spin() -> None:
    told = Told()
    async with serving(TinyMaster()) as one, serving(TinyMaster()) as two:
        one.redirect, two.redirect = two.url, one.url
        async with running(make_link(told, one.url).run()):
            await asyncio.sleep(0.5)
            assert one.dials + two.dials < 60
            two.redirect = None
            await told.next(Connected)


async def test_the_next_master_is_tried_when_one_does_not_answer() -> None:
    told = Told()
    async with serving(TinyMaster()) as master, running(make_link(told, "http://127.0.0.1:9", master.url).run()):
        assert (await told.next(Connected)).master == master.url


async def test_a_master_that_is_not_ready_is_asked_again() -> None:
    told = Told()
    async with serving(TinyMaster()) as master:
        master.refuse = 503
        async with running(make_link(told, master.url).run()):
            await master.until(lambda: master.dials >= 2)
            master.refuse = None
            await told.next(Connected)


async def test_a_master_that_speaks_another_form_ends_the_session_with_its_reason() -> None:
    told = Told()
    async with serving(TinyMaster()) as master, running(make_link(told, master.url).run()):
        await told.next(Connected)
        await master.until(lambda: master.dials)
        master.write(b"\x00\x00\x00\x03xyz")
        assert "no message that this side knows" in (await told.next(Disconnected)).why
        await told.next(Connected)


async def test_reconnect_ends_the_session_and_waits_as_long_as_told() -> None:
    told = Told()
    async with serving(TinyMaster()) as master:
        link = make_link(told, master.url)
        async with running(link.run()):
            await told.next(Connected)
            link.reconnect("the docker runtime is ready now", 0.4)
            before = asyncio.get_running_loop().time()
            assert "docker runtime is ready" in (await told.next(Disconnected)).why
            await told.next(Connected)
            assert asyncio.get_running_loop().time() - before >= 0.4


async def test_what_is_sent_without_a_session_is_dropped() -> None:
    told = Told()
    async with serving(TinyMaster()) as master:
        link = make_link(told, master.url)
        link.send([Pong()])
        async with running(link.run()):
            await told.next(Connected)
            link.send([REGISTER])
            await master.until(lambda: master.reports)
            assert isinstance(master.reports[0], Register)


async def test_a_master_that_takes_no_reports_does_not_fill_the_memory() -> None:
    told = Told()
    async with serving(TinyMaster()) as master:
        link = make_link(told, master.url)
        async with running(link.run()):
            await told.next(Connected)
            big = REGISTER.__class__(AgentInfo(hostname="n" * (9 << 20), port=1, resources=()))
            for _ in range(8):
                link.send([big])
            assert "takes no reports" in (await told.next(Disconnected)).why


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:4680", "http://127.0.0.1:4680"),
        ("http://m:4680/some/path?x=1", "http://m:4680"),
        ("//10.0.0.2:4680/api", "http://10.0.0.2:4680"),
        ("https://m", "https://m"),
    ],
)
def test_masters_are_named_in_many_forms(text: str, url: str) -> None:
    assert complete_url(text) == url


def test_a_master_without_a_host_is_refused() -> None:
    with pytest.raises(Invalid, match="write for example"):
        Link(["http:///x"], Random(1))
