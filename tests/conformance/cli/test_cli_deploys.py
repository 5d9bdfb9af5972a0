"""App files compared, applied and gone back on; deployments followed and steered; the apps of a Marathon taken over."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corral_daemons import Answer, Daemon

Run = Callable[..., Answer]


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def sleeper(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "cmd": "sleep 1000", "cpus": 0.1, "mem": 16, "instances": 2, **more}


def test_a_file_is_compared_planned_and_applied_and_taken_back(run: Run, tmp_path: Path) -> None:
    first = write(tmp_path / "one.json", sleeper("/cycle"))
    assert "+ /cycle  new" in run("app", "diff", first).out
    planned = run("app", "plan", first)
    assert "step 1: StartApplication /cycle" in planned.out
    assert "everything fits" in planned.out
    assert run("app", "apply", first).code == 0
    same = run("app", "diff", first)
    assert (same.code, same.out) == (0, "")
    second = write(tmp_path / "two.json", sleeper("/cycle", cmd="sleep 2000", env={"A": "b"}, colour="red"))
    differs = run("app", "diff", second)
    assert differs.code == 1
    assert "~ /cycle  upgraded  all instances are replaced" in differs.out
    assert "    cmd: 'sleep 1000' -> 'sleep 2000'" in differs.out
    assert "    env.A: None -> 'b'" in differs.out
    assert "? /colour is known to nobody" in differs.out
    assert run("app", "apply", second).code == 0
    versions = run("app", "versions", "cycle")
    (newest, oldest) = versions.out.splitlines()[1:]
    assert "current" in newest
    assert "cmd" in newest
    assert "created" in oldest
    assert run("app", "rollback", "cycle").code == 0
    assert run("app", "status", "cycle", "-o", "json").json["cmd"] == "sleep 1000"
    assert run("app", "scale", "cycle", "1").code == 0
    before = run("app", "status", "cycle", "-o", "json").json["tasks"][0]["id"]
    assert run("app", "restart", "cycle").code == 0
    assert run("app", "status", "cycle", "-o", "json").json["tasks"][0]["id"] != before
    assert run("app", "destroy", "cycle").code == 0


def test_a_canary_is_shown_promoted_and_another_cancelled(run: Run, tmp_path: Path) -> None:
    assert run("app", "apply", write(tmp_path / "one.json", sleeper("/bird"))).code == 0
    second = write(tmp_path / "two.json", sleeper("/bird", cmd="sleep 2000"))
    applied = run("app", "apply", second, "--canary", "1")
    assert applied.code == 0
    assert "waits for promotion" in applied.err
    ((deployment,),) = [[d["id"] for d in run("deploy", "list", "-o", "json").json if "/bird" in d["affectedApps"]]]
    status = run("deploy", "status", deployment)
    assert "waits for promotion  /bird" in status.out
    assert "RestartApplication" in status.out
    assert run("deploy", "promote", deployment).code == 0
    ended = run("deploy", "status", deployment)
    assert "  done  /bird" in ended.out
    paused = run("app", "apply", write(tmp_path / "one.json", sleeper("/bird")), "--paused")
    assert "is paused" in paused.err
    (other,) = [d["id"] for d in run("deploy", "list", "-o", "json").json if "/bird" in d["affectedApps"]]
    assert run("deploy", "pause", other).code == 0
    cancelled = run("deploy", "cancel", other)
    assert cancelled.code == 0
    assert "is undone by" in cancelled.err
    assert run("app", "status", "bird", "-o", "json").json["cmd"] == "sleep 2000"
    assert "cancelled" in run("deploy", "list", "-a").out
    unknown = run("deploy", "promote", "nothing")
    assert unknown.code == 3
    assert "corral deploy list" in unknown.err
    assert run("app", "destroy", "bird").code == 0


def test_a_failing_deployment_ends_with_its_reason(run: Run, tmp_path: Path) -> None:
    assert run("app", "apply", write(tmp_path / "one.json", sleeper("/brittle"))).code == 0
    broken = sleeper("/brittle", fetch=[{"uri": "file:///nowhere/at/all"}], backoffSeconds=0)
    failed = run("app", "apply", write(tmp_path / "two.json", broken), "--deadline", "1", "--revert")
    assert failed.code == 1
    assert "got no further for 1 s" in failed.err
    assert "/nowhere/at/all" in failed.err
    assert "undone by" in failed.err
    assert run("app", "destroy", "brittle").code == 0


def test_a_marathon_is_taken_over_with_what_it_refuses_named(run: Run, cluster: Daemon, tmp_path: Path) -> None:
    exported = {
        "apps": [
            {**sleeper("/moved/a"), "tasksRunning": 3, "version": "2020-01-01T00:00:00.000Z", "odd": 1},
            sleeper("/moved/b", tty=True),
            sleeper("/other/c"),
        ]
    }
    file = write(tmp_path / "apps.json", exported)
    planned = run("import", "marathon", file, "--plan", "--below", "moved")
    assert planned.code == 1
    rows = {line.split()[0]: line for line in planned.out.splitlines()[1:]}
    assert set(rows) == {"/moved/a", "/moved/b"}
    assert " new " in rows["/moved/a"]
    assert "/odd is ignored" in rows["/moved/a"]
    assert " refused " in rows["/moved/b"]
    assert "terminals of tasks are not supported" in rows["/moved/b"]
    assert run("app", "status", "moved/a").code == 3
    done = run("import", "marathon", file, "--below", "moved/a", "--suspended")
    assert done.code == 0
    assert "app /moved/a accepted" in done.err
    assert run("app", "status", "moved/a", "-o", "json").json["instances"] == 0
    live = run("import", "marathon", cluster.url, "--plan", "--below", "moved")
    assert live.code == 0
    assert " same " in live.out
    tree = {"id": "/", "apps": [], "groups": [
        {"id": "/ruled", "enforceRole": True, "dependencies": ["/moved"], "apps": [sleeper("/ruled/d", role="ruled")]},
        {"id": "/left", "enforceRole": True, "apps": [sleeper("/left/e", role="left")]},
    ]}  # fmt: skip
    assert run("import", "marathon", write(tmp_path / "tree.json", tree), "--below", "ruled", "--suspended").code == 0
    with urllib.request.urlopen(f"{cluster.url}/v2/groups", timeout=10) as answer:
        groups = {one["id"]: one for one in json.load(answer)["groups"]}
    assert (groups["/ruled"]["enforceRole"], groups["/ruled"]["dependencies"]) == (True, ["/moved"])
    assert (groups["/ruled"]["apps"][0]["role"], "/left" in groups) == ("ruled", False)
    assert run("app", "destroy", "ruled/d").code == 0
    assert run("import", "marathon", "http://127.0.0.1:1", "--plan").code == 5
    assert run("import", "marathon", "nowhere.json").code == 2
    assert run("app", "destroy", "moved/a").code == 0
