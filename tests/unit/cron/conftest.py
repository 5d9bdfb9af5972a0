"""A cron core with a pretended master, subscribed."""

from collections.abc import Callable, Iterator

import pytest
from cron_driver import START, Cluster

from corral.frameworks.cron import Config


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    made.subscribe()
    yield made
    made.core.invariants()


@pytest.fixture
def make_cluster() -> Callable[..., Cluster]:
    def make(now: float = START, **config: object) -> Cluster:
        made = Cluster(Config(**config), now)
        made.subscribe()
        return made

    return make
