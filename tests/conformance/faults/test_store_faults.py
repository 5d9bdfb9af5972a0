"""The store goes away under a real master: what runs goes on, reads say that they are stale, writes are refused, and
everything goes on by itself once the store is back."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from corral_daemons import UNCOMPILED, Daemon, Site, ask, end_tasks, read_app, run_corral, wait_running, wait_until
from tests.own_ports import free_ports

from etcd_servers import Etcd

QUICK = ("--set", "store.timeout_s=1", "--set", "kernel.lease_ttl_s=2")


def fetch(url: str, method: str, path: str, body: Any = None, accept: str = "*/*") -> tuple[int, dict[str, str], Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", "Accept": accept})
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, dict(response.headers), json.loads(text) if text[:1] in "{[" and text else text
    finally:
        connection.close()


class Work:
    """Apps on one agent, and how they are while the store is away and after."""

    def __init__(self, master: Daemon, directory: Path) -> None:
        self.master = master
        self.url = master.url
        self.goes = directory / "goes"
        apps = {"steady": "exec sleep 1000", "ends": f'while [ ! -e "{self.goes}" ]; do sleep 0.05; done; exit 7'}
        for name, command in apps.items():
            app = {"id": name, "cmd": command, "cpus": 0.1, "mem": 16, "backoffSeconds": 60}
            assert ask(self.url, "POST", "/v2/apps", app)[0] == 201
        self.before = {name: wait_running(self.url, name, 1)["tasks"][0]["id"] for name in apps}

    def provoke(self) -> None:
        """A write makes a store that is written only when something happens notice what has become of it.

        It is under way when the store goes, so it may be found done afterwards.
        """
        status, headers, _ = fetch(self.url, "PUT", "/corral/v1/roles/provoked", {"weight": 3})
        assert status in (200, 503, 504)
        assert status != 504 or "Retry-After" not in headers

    def _is_stale(self) -> bool:
        assert self.master.process.poll() is None, self.master.text
        return "Corral-Stale" in fetch(self.url, "GET", "/v2/apps/steady")[1]

    def check_away(self) -> None:
        """Shapes: returns when all of the following held while the store was away."""
        try:
            wait_until(self._is_stale, "stale answers", 40.0)
        except OSError:
            raise AssertionError(f"{self.master.process.wait(5)} {self.master.text}") from None
        for path in ("/v2/apps", "/v2/apps/steady", "/v2/queue", "/corral/v1/tasks", "/state", "/tasks",
                     "/v1/scheduler/jobs", "/metrics"):  # fmt: skip
            status, headers, _ = fetch(self.url, "GET", path)
            assert status == 200, path
            assert float(headers["Corral-Stale"]) >= 0, path
            assert headers["Warning"].startswith("110 "), path
        _, _, found = fetch(self.url, "GET", "/v2/apps/steady")
        assert found["app"]["tasks"][0]["id"] == self.before["steady"]
        shown = run_corral(self.url, "status")
        assert shown.code == 0
        assert "steady" in shown.out
        assert "the store is away; this is as of" in shown.err
        wait_until(lambda: "store away" in run_corral(self.url, "events").out, "the event")
        job = {"name": "j", "command": "true", "schedule": "R/2030-01-01T00:00:00Z/PT1H", "epsilon": "PT1H"}
        for method, path, body in (
            ("POST", "/v2/apps", {"id": "new", "cmd": "sleep 1"}), ("DELETE", "/v2/apps/steady", None),
            ("PUT", "/corral/v1/roles/web", {"weight": 2}), ("POST", "/v1/scheduler/iso8601", job),
        ):  # fmt: skip
            status, headers, said = fetch(self.url, method, path, body)
            assert status == 503, (path, said)
            assert int(headers["Retry-After"]) > 0
            assert "try again when it is back" in json.dumps(said), said
        assert fetch(self.url, "GET", "/v2/events", accept="text/event-stream")[0] == 503
        subscribe = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "u", "name": "n"}}}
        assert fetch(self.url, "POST", "/api/v1/scheduler", subscribe)[0] == 503

    def check_back(self) -> None:
        """It goes on: what ran still runs, what ended meanwhile is known, what was refused is taken."""
        more = {"id": "more", "cmd": "sleep 1000", "cpus": 0.1, "mem": 16}
        wait_until(lambda: ask(self.url, "POST", "/v2/apps", more)[0] in (201, 409), "a write that is taken", 60.0)
        assert wait_running(self.url, "more", 1, 60.0)
        assert wait_running(self.url, "steady", 1, 60.0)["tasks"][0]["id"] == self.before["steady"]
        failure = wait_until(lambda: read_app(self.url, "ends").get("lastTaskFailure"), "word of the exit", 60.0)
        assert failure["taskId"] == self.before["ends"]
        assert "7" in failure["message"]
        assert "Corral-Stale" not in fetch(self.url, "GET", "/v2/apps")[1]
        assert "store back" in run_corral(self.url, "events").out
        assert self.master.process.poll() is None
        assert "a bug" not in self.master.text
        assert ask(self.url, "GET", "/v2/apps/new")[0] == 404

    def outlast(self, away: Callable[[], None], back: Callable[[], None]) -> None:
        away()
        self.provoke()
        self.check_away()
        self.goes.touch()
        time.sleep(1)
        back()
        self.check_back()


def test_an_etcd_that_hangs_costs_nothing_that_runs(daemons: Site, tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "etcd")
    try:
        etcd.start()
        master = daemons.master("--store", etcd.store, *QUICK)
        daemons.agent(master.url)
        work = Work(master, tmp_path)
        member = etcd.members[0]
        work.outlast(lambda: member.signal(signal.SIGSTOP), lambda: member.signal(signal.SIGCONT))
    finally:
        etcd.stop()


@pytest.mark.slow
def test_three_members_without_a_quorum_cost_nothing_that_runs(daemons: Site, tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "etcd", 3)

    def back() -> None:
        for member in etcd.members[:2]:
            member.start()

    def away() -> None:
        for member in etcd.members[:2]:
            member.kill()

    try:
        etcd.start()
        master = daemons.master("--store", etcd.store, *QUICK)
        daemons.agent(master.url)
        Work(master, tmp_path).outlast(away, back)
    finally:
        etcd.stop()


@pytest.mark.slow
def test_of_three_masters_without_a_quorum_the_leader_reads_on_and_one_leads_again(
    daemons: Site, tmp_path: Path
) -> None:
    etcd = Etcd(tmp_path / "etcd", 3)
    listen = [f"127.0.0.1:{port}" for port in free_ports(3)]
    try:
        etcd.start()
        masters = [
            daemons.start(
                "master", "--listen", each, "--work-dir", str(daemons.directory / each), "--store", etcd.store,
                "--set", "kernel.agent_timeout_s=30", *QUICK, *UNCOMPILED,
            )
            for each in listen
        ]  # fmt: skip
        daemons.agent(",".join(listen))
        leader = next(each for each in masters if ask(each.url, "GET", "/health/leader")[0] == 200)
        work = Work(leader, tmp_path)
        for member in etcd.members[:2]:
            member.kill()
        wait_until(lambda: "Corral-Stale" in fetch(work.url, "GET", "/v2/apps")[1], "stale answers", 60.0)
        for other in masters:
            if other is not leader:
                wait_until(lambda: fetch(other.url, "GET", "/v2/apps")[0] == 503, "a follower that knows no leader")  # noqa: B023
        assert "steady" in run_corral(",".join(listen), "status").out
        work.goes.touch()
        for member in etcd.members[:2]:
            member.start()
        wait_until(lambda: sum(ask(m.url, "GET", "/health/leader")[0] == 200 for m in masters) == 1, "one leader", 60.0)
        work.check_back()
    finally:
        etcd.stop()


@pytest.mark.slow
def test_an_sqlite_store_that_another_program_locks_costs_nothing_that_runs(daemons: Site, tmp_path: Path) -> None:
    master = daemons.master()
    daemons.agent(master.url)
    work = Work(master, tmp_path)
    other = sqlite3.connect(daemons.directory / "master" / "master.db", isolation_level=None)

    def back() -> None:
        other.execute("ROLLBACK")
        other.close()

    work.outlast(lambda: other.execute("BEGIN IMMEDIATE") and None, back)
    assert "another program holds it open" in "\n".join(master.log)


@pytest.fixture
def small(daemons: Site, as_root: None) -> Iterator[Path]:
    """A directory of 8 MB for the master, seen through a mount of its own."""
    seen = daemons.directory / "master"
    seen.mkdir()
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c",
         'mount -t tmpfs -o size=8m tmpfs "$0" && echo mounted && exec sleep 1000', str(seen)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"mounted\n"
    try:
        yield Path(f"/proc/{holder.pid}/root{seen}")
    finally:
        for daemon in daemons.daemons:
            daemon.stop()
        end_tasks(daemons.directory)
        holder.kill()
        holder.wait(5)


@pytest.mark.slow
def test_a_full_disk_under_the_master_costs_nothing_that_runs(daemons: Site, small: Path, tmp_path: Path) -> None:
    inside = ("nsenter", "--target", small.parts[2], "--mount", "--")
    master = daemons.start(
        "master", "--listen", "127.0.0.1:0", "--work-dir", str(daemons.directory / "master"), "--set",
        "kernel.compiled=no", inside=inside,
    )  # fmt: skip
    daemons.agent(master.url)
    work = Work(master, tmp_path)

    def fill() -> None:
        with (small / "fill").open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue
        # The log of the database may have room left in pages it holds already: fill those too.
        for n in range(200):
            if fetch(work.url, "PUT", "/v2/apps/steady", {"labels": {f"l{n}": "x" * 4000}})[0] != 200:
                break

    work.outlast(fill, lambda: os.unlink(small / "fill"))
    assert "free space on its disk" in "\n".join(master.log)
