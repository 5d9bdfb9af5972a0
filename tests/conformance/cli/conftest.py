"""One real cluster for the commands, with an app that writes, one that is too big and one that always fails."""

from collections.abc import Callable, Iterator

import pytest
from corral_daemons import Answer, Daemon, Site, ask, run_corral, wait_running, wait_until

Run = Callable[..., Answer]

APPS = (
    {"id": "/ticker", "cmd": "echo first $PORT0; echo warning >&2; while sleep 0.1; do echo tick; done", "cpus": 0.1,
     "mem": 32, "instances": 1},
    {"id": "/huge", "cmd": "true", "cpus": 0.1, "mem": 1_000_000, "instances": 1},
    {"id": "/broken", "args": ["no-such-command"], "cpus": 0.1, "mem": 32, "instances": 1, "backoffSeconds": 60},
)  # fmt: skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Site(tmp_path_factory.mktemp("cli")) as site:
        dev = site.dev("--attributes", "rack:r1")
        for app in APPS:
            status, answer = ask(dev.url, "POST", "/v2/apps", app)
            assert status == 201, answer
        wait_running(dev.url, "ticker", 1)
        wait_until(lambda: ask(dev.url, "GET", "/corral/v1/explain?group=/huge")[1]["explanations"], "why /huge waits")
        wait_until(lambda: ask(dev.url, "GET", "/v2/apps/broken")[1]["app"].get("lastTaskFailure"), "a failure")
        yield dev


@pytest.fixture(scope="session")
def run(cluster: Daemon) -> Run:
    """`corral` against the cluster."""

    def call(*words: str, **options: str) -> Answer:
        return run_corral(cluster.url, *words, **options)

    return call
