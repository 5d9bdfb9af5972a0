"""An agent that was told of an Engine which is not there, or which takes connections and never answers."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from corral_daemons import RESOURCES, Site, run_corral, wait_until


@pytest.fixture
def silent_engine(tmp_path: Path) -> Iterator[str]:
    """A socket that accepts and says nothing."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        taken: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    taken.append(listener.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"unix://{path}"
        listener.shutdown(socket.SHUT_RDWR)
        for one in taken:
            one.close()


@pytest.mark.parametrize("kind", ["missing", "silent"])
def test_process_tasks_run_and_images_wait_with_a_reason(daemons: Site, kind: str, silent_engine: str) -> None:
    url = "unix:///does/not/exist.sock" if kind == "missing" else silent_engine
    dev = daemons.start(
        "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--resources", RESOURCES,
        "--work-dir", str(daemons.directory / "dev"), "--docker-host", url,
    )  # fmt: skip
    assert any("docker not ready" in line for line in dev.log), dev.text
    assert run_corral(dev.url, "run", "--process", "--name", "plain", "--", "sleep", "1000").code == 0
    answer = run_corral(dev.url, "run", "busybox", "--name", "boxed", "--timeout", "1")
    assert answer.code == 1
    wait_until(lambda: "docker" in run_corral(dev.url, "explain", "boxed").out, "why the image waits")
    explained = run_corral(dev.url, "explain", "boxed").out
    assert "runtime" in explained
    assert "127.0.0.1" in explained
    assert run_corral(dev.url, "stop", "boxed").code == 0
    assert dev.stop() == 0


def test_an_agent_that_must_have_docker_starts_says_so_and_refuses_images_by_reason(
    daemons: Site, silent_engine: str
) -> None:
    dev = daemons.start(
        "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--resources", RESOURCES,
        "--work-dir", str(daemons.directory / "dev"), "--docker-host", "unix:///does/not/exist.sock",
        "--runtime", "docker,process",
    )  # fmt: skip
    assert any("docker not ready" in line and "/does/not/exist.sock" in line for line in dev.log), dev.text
    answer = run_corral(dev.url, "run", "busybox", "--name", "boxed", "--timeout", "2")
    assert answer.code == 1
    assert "ocker" in answer.err
    assert run_corral(dev.url, "run", "--process", "--name", "plain", "--", "sleep", "1000").code == 0
    assert run_corral(dev.url, "stop", "boxed").code == 0
