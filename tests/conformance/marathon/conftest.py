"""A real cluster with the services framework, once inside the master's process and once as a process of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corral_daemons import end_tasks
from marathon import MarathonClient
from marathon_site import Daemon, Site, start_dev, start_framework


@pytest.fixture(scope="session", params=["inside the master", "a process of its own"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work_dir = tmp_path_factory.mktemp("corral")
    daemons: list[Daemon] = []
    try:
        if request.param == "inside the master":
            daemons.append(start_dev(work_dir / "dev"))
            yield Site(daemons[0].url, daemons[0].url)
        else:
            config = work_dir / "corral.toml"
            config.write_text("[master]\nframeworks = []\n")
            daemons.append(start_dev(work_dir / "dev", "--config", str(config)))
            daemons.append(start_framework(work_dir / "services", daemons[0].url))
            yield Site(daemons[1].url, daemons[0].url)
    finally:
        for daemon in reversed(daemons):
            daemon.stop()
        end_tasks(work_dir)


@pytest.fixture
def client(site: Site) -> MarathonClient:
    return site.client


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[tuple[Daemon, Path, Callable[[], Daemon]]]:
    """A master with an agent and no framework, and a way to start the framework, which may be killed meanwhile."""
    config = tmp_path / "corral.toml"
    config.write_text("[master]\nframeworks = []\n")
    dev = start_dev(tmp_path / "dev", "--config", str(config))
    started: list[Daemon] = []

    def start() -> Daemon:
        started.append(start_framework(tmp_path / "services", dev.url))
        return started[-1]

    try:
        yield dev, tmp_path, start
    finally:
        for daemon in started:
            daemon.stop()
        dev.stop()
        end_tasks(tmp_path)
