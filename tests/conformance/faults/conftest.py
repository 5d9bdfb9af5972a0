"""One cluster that many faults are tried on, one after the other; it has to be whole after each."""

from collections.abc import Iterator

import pytest
from corral_daemons import Daemon, Site, ask


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Site(tmp_path_factory.mktemp("faults")) as site:
        yield site.dev("--set", "kernel.heartbeat_s=0.5")


@pytest.fixture
def cluster(shared: Daemon) -> Iterator[Daemon]:
    """The cluster, which still answers and holds nothing back afterwards."""
    yield shared
    assert shared.process.poll() is None, shared.text
    assert "a bug" not in shared.text
    assert "Traceback" not in shared.text
    status, _ = ask(shared.url, "GET", "/health/ready")
    assert status == 200
