"""What every tree of tests may use: a Docker Engine to run real containers on."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.docker.daemon import PrivateEngine, install_packages, missing_packages, sweep
from corral.docker.image import engine_answers, import_busybox

ENGINE_PREFIX = "corral-engine-"
IMAGES = ("busybox:latest", "busybox:local", "libmesos/ubuntu:latest")


@pytest.fixture(scope="session")
def private_engine() -> Iterator[PrivateEngine]:
    """An Engine of this session's own, for tests that stop, kill and restart it."""
    if os.geteuid() != 0:
        pytest.skip("a Docker Engine of one's own needs root")
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
