"""Persistent volumes in a real cluster: data outlive tasks, killed daemons and an upgrade; a wipe ends them."""

from pathlib import Path
from typing import Any

from corral_daemons import Site, ask, wait_running, wait_until

APP: dict[str, Any] = {
    "id": "/db", "cmd": "echo run >> data/log; until rm data/fail 2>/dev/null; do sleep 0.1; done; exit 1",
    "cpus": 0.1, "mem": 32, "backoffSeconds": 0,
    "container": {"type": "MESOS", "volumes": [
        {"containerPath": "data", "mode": "RW", "persistent": {"size": 16}}]},
}  # fmt: skip


def volumes(root: Path) -> list[Path]:
    return [path for path in root.rglob("volumes/roles/services/*") if path.name.startswith("db#data#")]


def runs(root: Path) -> list[int]:
    """How often something ran on each volume there is."""
    return sorted((path / "log").read_text().count("run") for path in volumes(root) if (path / "log").exists())


def test_data_outlive_tasks_daemons_and_upgrades_and_end_when_they_are_wiped(daemons: Site) -> None:
    root = daemons.directory
    dev = daemons.dev()
    url = dev.url
    assert ask(url, "POST", "/v2/apps", APP)[0] == 201
    (task,) = wait_running(url, "db", 1)["tasks"]
    wait_until(lambda: runs(root) == [1], "the first run")
    (volume,) = task["localVolumes"]
    assert (volume["runSpecId"], volume["containerPath"]) == ("/db", "data")
    assert [path.name for path in volumes(root)] == [volume["persistenceId"]]

    assert ask(url, "DELETE", f"/v2/apps/db/tasks/{task['id']}")[0] == 200
    wait_until(lambda: runs(root) == [2], "another run on the same volume")

    dev.kill()
    url = daemons.dev().url
    (task,) = wait_running(url, "db", 1)["tasks"]
    assert (task["localVolumes"], runs(root)) == ([volume], [2]), "it has run on"
    (volumes(root)[0] / "fail").touch()
    wait_until(lambda: runs(root) == [3], "a run after a failure, on the same volume")
    assert ask(url, "PUT", "/v2/apps/db?force=true", {"env": {"A": "1"}})[0] == 200
    wait_until(lambda: runs(root)[0] == 4 and not ask(url, "GET", "/v2/deployments")[1], "the upgrade")
    (task,) = wait_running(url, "db", 1)["tasks"]
    assert (task["localVolumes"], len(volumes(root))) == ([volume], 1)
    assert ask(url, "PUT", "/v2/apps/db", {"mem": 64})[0] == 422

    assert ask(url, "PUT", "/v2/apps/db", {"instances": 0})[0] == 200
    wait_until(lambda: not ask(url, "GET", "/v2/deployments")[1], "the end of the task")
    before = runs(root)[0]
    assert ask(url, "PUT", "/v2/apps/db", {"instances": 1})[0] == 200
    wait_until(lambda: runs(root) == [before + 1], "a run on what was kept")

    assert ask(url, "DELETE", "/v2/apps/db/tasks?wipe=true")[0] == 200
    wait_until(lambda: runs(root) == [1], "a run on another volume, and the end of the first")
    assert [path.name for path in volumes(root)] != [volume["persistenceId"]]
    assert ask(url, "DELETE", "/v2/apps/db")[0] == 200
    wait_until(lambda: volumes(root) == [], "the end of the volume")
    wait_until(lambda: not ask(url, "GET", "/slaves")[1]["slaves"][0]["reserved_resources_full"], "the end of it all")
