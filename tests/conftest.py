"""What every tree of tests may use: a Docker Engine to run real containers on, and Debian's bubblewrap."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from corral.docker.daemon import PrivateEngine, install_packages, missing_packages, sweep
from corral.docker.image import engine_answers, import_busybox
from etcd_servers import Etcd

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):
    # Where CI is set, Hypothesis asks for no speed by itself.
    settings.load_profile("busy")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job is started deaf to Ctrl-C, and so would be what the tests start and press Ctrl-C for.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENGINE_PREFIX = "corral-engine-"
IMAGES = ("busybox:latest", "busybox:local", "libmesos/ubuntu:latest")


def lack(what: str) -> NoReturn:
    """A developer's machine may lack something; continuous integration may not, a skip there would hide a failure."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes run the tests, a file stays whole, and all files that need an Engine share one."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "engine" if _needs_engine(config.rootpath / file) else file

    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In continuous integration what lives by real time and real daemons gets a second try, which the counts show.

    Four processes share two cores there, so that a lease of a second may run out for want of a processor. A unit test
    has no such excuse, and on a developer's machine nothing is tried again.
    """
    if not os.environ.get("CI"):
        return
    for item in items:
        if item.path.relative_to(config.rootpath / "tests").parts[0] != "unit":
            item.add_marker(pytest.mark.flaky(reruns=1))


@cache
def _needs_engine(file: Path) -> bool:
    text = file.read_text()
    return any(name in text for name in ("engine_socket", "private_engine", "own_node", "mark.docker"))


@pytest.fixture(scope="session")
def as_root() -> None:
    """For what only root may do: mounts and namespaces."""
    if os.geteuid() != 0:
        lack("mounts and namespaces of one's own need root")


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """The program that gives a plain process its own view of the file system."""
    if shutil.which("bwrap") is None:
        if os.geteuid() != 0:
            lack("volumes of plain processes need bubblewrap; install it: sudo apt-get install bubblewrap")
        install_packages(["bubblewrap"])


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One etcd member for the whole run; every test takes a root of its own."""
    cluster = Etcd(tmp_path_factory.mktemp("etcd"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def private_engine() -> Iterator[PrivateEngine]:
    """An Engine that belongs to this run alone, for tests that stop, kill and restart it."""
    if os.geteuid() != 0:
        lack("a Docker Engine of one's own needs root; name a running one with CORRAL_TEST_DOCKER")
    install_packages(missing_packages())
    parent = Path(tempfile.gettempdir())
    sweep(parent, ENGINE_PREFIX)
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix=ENGINE_PREFIX, dir=parent)))
    try:
        engine.start()
        import_busybox(engine.url, IMAGES)
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def engine_socket(request: pytest.FixtureRequest) -> str:
    """The URL of an Engine with the images of the tests: the one that CORRAL_TEST_DOCKER names, else one of our own."""
    given = os.environ.get("CORRAL_TEST_DOCKER") or os.environ.get("DOCKER_HOST")
    if given:
        assert engine_answers(given, 5.0), f"the Docker Engine at {given} does not answer"
        import_busybox(given, IMAGES)
        return given
    engine: PrivateEngine = request.getfixturevalue("private_engine")
    return engine.url
