"""A process is ended for its successor only when that starts."""

import pytest

from corral import __version__
from corral.lib.errors import Conflict
from corral.runtime.renewal import Renewal


async def test_a_successor_that_does_not_start_is_refused_with_its_own_words() -> None:
    renewal = Renewal("agent", "i", arguments=["-c", "raise SystemExit('key agent.nam is not known')"])
    with pytest.raises(Conflict, match=r"key agent\.nam is not known; this process goes on"):
        await renewal.renew()
    assert not renewal.wanted


async def test_the_successor_is_asked_with_the_arguments_it_will_have() -> None:
    program = "import sys; raise SystemExit(sys.argv[1:] != ['master', '--listen', '127.0.0.1:9', '--show-config'])"
    renewal = Renewal("master", "i", arguments=["-c", program, "master"])
    renewal.fixed += ["--listen", "127.0.0.1:9"]
    await renewal.renew()
    assert renewal.wanted
    assert await renewal.run() is None


async def test_asking_twice_is_asking_once() -> None:
    renewal = Renewal("agent", "i", arguments=["-c", "pass"])
    await renewal.renew()
    await renewal.renew()
    assert await renewal.run() is None


async def test_a_process_says_what_runs_and_what_is_installed() -> None:
    view = Renewal("master", "i", leads=lambda: True, arguments=()).view()
    assert (view.kind, view.instance, view.version, view.leads) == ("master", "i", __version__, True)
    assert view.installed
