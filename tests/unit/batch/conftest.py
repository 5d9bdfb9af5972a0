"""A batch core with a pretended master, subscribed."""

from collections.abc import Callable, Iterator

import pytest
from batch_driver import Cluster

from corral.frameworks.batch import Config


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    made.subscribe()
    yield made
    made.core.invariants()


@pytest.fixture
def make_cluster() -> Callable[..., Cluster]:
    def make(**config: object) -> Cluster:
        made = Cluster(Config(**config))
        made.subscribe()
        return made

    return make
