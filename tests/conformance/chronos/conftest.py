"""A real cluster with the cron framework, once inside the master's process and once as a process of its own."""

from collections.abc import Iterator

import pytest
from chronos_site import CronSite
from corral_daemons import Site

FAST = ("--set", "cron.retry_delay_s=0.2")


@pytest.fixture(scope="session", params=["inside the master", "a process of its own"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CronSite]:
    with Site(tmp_path_factory.mktemp("corral")) as daemons:
        if request.param == "inside the master":
            yield CronSite(daemons.dev(*FAST).url)
        else:
            master = daemons.dev("--set", "master.frameworks=")
            own = daemons.start(
                "framework", "cron", "--master", master.url, "--listen", "127.0.0.1:0",
                "--work-dir", str(daemons.directory / "cron"), *FAST,
            )  # fmt: skip
            yield CronSite(own.url)
