"""An agent whose disk is full: a small file system that only it and its tasks see, gone when the last of them ends."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from corral_daemons import Daemon, Site, ask, end_tasks, read_app, wait_running, wait_until


class SmallDisk:
    """A mount namespace with 8 MB at the agent's directory, and a way to fill it from outside."""

    def __init__(self, site: Site, master: str) -> None:
        self._site = site
        self._master = master
        self._seen = site.directory / "agent"
        self._seen.mkdir()
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             'mount -t tmpfs -o size=8m tmpfs "$0" && echo mounted && exec sleep 1000', str(self._seen)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"mounted\n"

    @property
    def path(self) -> Path:
        """The agent's directory as the agent sees it."""
        return Path(f"/proc/{self._holder.pid}/root{self._seen}")

    def start(self, *, ready: bool = True) -> Daemon:
        inside = ("nsenter", "--target", str(self._holder.pid), "--mount", "--")
        return self._site.agent(self._master, inside=inside, ready=ready)

    def fill(self) -> None:
        with (self.path / "fill").open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / "fill").unlink()

    def close(self) -> None:
        for daemon in self._site.daemons:
            daemon.stop()
        end_tasks(self.path)
        self._holder.kill()
        self._holder.wait(5)


@pytest.fixture
def small(daemons: Site, as_root: None) -> Iterator[tuple[SmallDisk, str]]:
    master = daemons.master()
    disk = SmallDisk(daemons, master.url)
    try:
        yield disk, master.url
    finally:
        disk.close()


def test_a_full_disk_ends_the_agent_with_its_reason_and_no_task_or_exit_is_lost(
    small: tuple[SmallDisk, str], tmp_path: Path
) -> None:
    disk, url = small
    agent = disk.start()
    goes = tmp_path / "goes"
    apps = {
        "steady": "exec sleep 1000",
        "ends": f'while [ ! -e "{goes}" ]; do sleep 0.05; done; exit 7',
    }
    for name, command in apps.items():
        app = {"id": name, "cmd": command, "cpus": 0.1, "mem": 16, "backoffSeconds": 60}
        assert ask(url, "POST", "/v2/apps", app)[0] == 201
    before = {name: wait_running(url, name, 1)["tasks"][0]["id"] for name in apps}

    disk.fill()
    assert ask(url, "POST", "/v2/apps", {"id": "more", "cmd": "sleep 1000", "cpus": 0.1, "mem": 16})[0] == 201
    assert agent.process.wait(15) == 70
    wait_until(lambda: "disk is full; free space" in agent.text, "the reason")
    goes.touch()

    disk.fill()
    # With the last room gone it either cannot open its records, or starts and says that it can run nothing new.
    again = disk.start(ready=False)
    wait_until(lambda: again.process.poll() == 70 or "No space left on device; free the disk" in again.text, "a word")

    disk.free()
    if again.process.poll() is not None:
        disk.start()
    assert wait_running(url, "more", 1)
    assert wait_running(url, "steady", 1)["tasks"][0]["id"] == before["steady"]
    failure = wait_until(lambda: read_app(url, "ends").get("lastTaskFailure"), "word of the exit")
    assert failure["taskId"] == before["ends"]
    assert failure["state"] == "TASK_FAILED"
    assert "7" in failure["message"]
