"""The page on roles in a real cluster: its commands as they stand there, and groups' roles through a killed master."""

import re
import subprocess
from pathlib import Path
from typing import Any

from corral_daemons import Daemon, Site, ask, run_corral, wait_running, wait_until
from tests.own_ports import write_task_ports

ROOT = Path(__file__).parents[3]
TWELVE = ("--resources", f"cpus:12;mem:2048;disk:4096;{write_task_ports()}")


def lines_of(chapter: str) -> list[str]:
    """The commands of one chapter of the page."""
    page = (ROOT / "docs/operate/roles.md").read_text()
    text = page.partition(f"## {chapter}\n")[2].partition("\n## ")[0]
    return re.findall(r"^    (\S.*)$", text, re.MULTILINE)


def run_line(dev: Daemon, line: str) -> None:
    if line.startswith("corral "):
        answer = run_corral(dev.url, *line.split()[1:])
        assert answer.code == 0, answer
        return
    command = line.replace("http://127.0.0.1:4680", dev.url).replace("curl ", "curl -sS -f -m 10 ", 1)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, (line, done)


def held(dev: Daemon) -> dict[str, tuple[float, int]]:
    """By role what is allocated of cpus, and how many instances wait."""
    rows = ask(dev.url, "GET", "/corral/v1/roles")[1]["roles"]
    return {row["name"]: (row["allocated"].get("cpus", 0), row["waiting"]) for row in rows if row["name"] != "*"}


def roles(dev: Daemon) -> list[str]:
    (one,) = (f for f in ask(dev.url, "GET", "/master/frameworks")[1]["frameworks"] if f["name"] == "services")
    return sorted(one["roles"])


def test_a_group_for_each_team_shares_the_cluster_as_the_page_says(daemons: Site) -> None:
    dev = daemons.dev(*TWELVE)
    lines = lines_of("A group for each team")
    assert len(lines) == 7
    old = {"id": "/shop/old", "cmd": "exec sleep 1000", "cpus": 0.5, "mem": 16, "instances": 1}
    assert ask(dev.url, "POST", "/v2/apps", old)[0] == 201
    wait_running(dev.url, "shop/old", 1)
    assert ask(dev.url, "DELETE", "/v2/groups/shop?force=true")[0] == 200
    wait_until(lambda: not ask(dev.url, "GET", "/v2/tasks")[1]["tasks"], "an empty cluster")
    for line in lines[:4]:
        run_line(dev, line)
    # Lab comes first here, so that it is its limit and not its share which ends it.
    run_line(dev, lines[5])
    wait_until(lambda: held(dev).get("lab") == (6, 4), "the limit")
    run_line(dev, lines[4])
    wait_until(lambda: held(dev) == {"lab": (6, 4), "shop": (6, 4)}, "all that is left, guarantee and more")
    shown = run_corral(dev.url, "role", "ls").out
    assert re.search(r"shop.*\b3\b", shown), shown
    why = run_corral(dev.url, "explain", "lab/sim").out
    assert "lab" in why, why
    # As it ends, what is free goes by weight: three of four to shop.
    assert ask(dev.url, "DELETE", "/v2/apps/lab/sim/tasks")[0] == 200
    wait_until(lambda: held(dev) == {"lab": (3, 7), "shop": (9, 1)}, "shares by weight")
    moved = {**old, "role": "*"}
    assert ask(dev.url, "POST", "/v2/apps", moved)[0] == 422
    assert ask(dev.url, "PUT", "/v2/apps/shop/web", {"instances": 2})[0] == 409
    assert ask(dev.url, "PUT", "/v2/apps/shop/web?force=true", {"instances": 2})[0] == 200
    wait_until(lambda: held(dev)["shop"] == (2, 0), "fewer of them")
    assert ask(dev.url, "PATCH", "/v2/groups/shop", {"enforceRole": False})[0] == 200
    assert ask(dev.url, "POST", "/v2/apps", old)[0] == 201
    wait_running(dev.url, "shop/old", 1)
    run_line(dev, lines[6])
    wait_until(lambda: held(dev)["shop"] == (2.5, 0), "what was there before moved")


def volumes(root: Path, role: str) -> list[Path]:
    return [path for path in root.rglob(f"volumes/roles/{role}/*") if "#data#" in path.name]


def test_roles_of_groups_and_their_volumes_outlive_a_killed_master(daemons: Site) -> None:
    root = daemons.directory
    dev = daemons.dev()
    db: dict[str, Any] = {
        "cmd": "echo run >> data/log; exec sleep 1000", "cpus": 0.1, "mem": 32, "backoffSeconds": 0,
        "container": {"type": "MESOS", "volumes": [
            {"containerPath": "data", "mode": "RW", "persistent": {"size": 16}}]},
    }  # fmt: skip
    web = {"cmd": "exec sleep 1000", "cpus": 0.1, "mem": 16, "instances": 1}
    for name in ("shop", "lab"):
        assert ask(dev.url, "POST", "/v2/groups", {"id": f"/{name}", "enforceRole": True})[0] == 201
    assert ask(dev.url, "POST", "/v2/apps", {"id": "/shop/db", **db})[0] == 201
    assert ask(dev.url, "POST", "/v2/apps", {"id": "/lab/web", **web})[0] == 201
    (task,) = wait_running(dev.url, "shop/db", 1)["tasks"]
    wait_running(dev.url, "lab/web", 1)
    (volume,) = volumes(root, "shop")
    assert (task["role"], volume.name) == ("shop", task["localVolumes"][0]["persistenceId"])

    dev.kill()
    dev = daemons.dev()
    wait_until(lambda: roles(dev) == ["*", "lab", "shop"], "the same roles")
    assert ask(dev.url, "GET", "/v2/groups/shop")[1]["enforceRole"] is True
    assert ask(dev.url, "DELETE", f"/v2/apps/shop/db/tasks/{task['id']}")[0] == 200
    wait_until(lambda: (volume / "log").read_text().count("run") == 2, "another run on the same volume")
    assert ask(dev.url, "PUT", "/v2/apps/lab/web", {"instances": 2})[0] == 200
    found = wait_running(dev.url, "lab/web", 2)["tasks"]
    assert {one["role"] for one in found} == {"lab"}

    for name in ("shop", "lab"):
        assert ask(dev.url, "DELETE", f"/v2/groups/{name}?force=true")[0] == 200
    wait_until(lambda: not volumes(root, "shop"), "the end of the volume")
    wait_until(lambda: roles(dev) == ["*", "shop"], "what reserved something stays, the other role is given up")
