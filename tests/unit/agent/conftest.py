"""Agents to be driven by hand; every one of them is checked at the end."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from agent_driver import CONFIG, Driver


@pytest.fixture
def make_driver() -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def make(**changes: Any) -> Driver:
        made.append(Driver(msgspec.structs.replace(CONFIG, **changes)))
        return made[-1]

    yield make
    for driver in made:
        driver.core.invariants()


@pytest.fixture
def agent(make_driver: Callable[..., Driver]) -> Driver:
    """An agent in a cluster: both runtimes answered, registered."""
    driver = make_driver()
    return driver.ready()
