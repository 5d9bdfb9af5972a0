"""Pods and groups by the commands that take their names as those of apps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corral_daemons import Answer

Run = Callable[..., Answer]


def container(name: str) -> dict[str, Any]:
    command = {"command": {"shell": f"echo from {name}; exec sleep 1000"}}
    return {"name": name, "exec": command, "resources": {"cpus": 0.1, "mem": 16}}


def write(path: Path, body: Any) -> str:
    path.write_text(json.dumps(body), encoding="utf-8")
    return str(path)


def test_a_pod_lives_by_the_commands_for_apps(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "pod.json", {"id": "/pair", "containers": [container("one"), container("two")]})
    assert run("app", "apply", file).code == 0
    rows = {line.split()[0]: line for line in run("status").out.splitlines()}
    assert "pod of one, two" in rows["/pair"]
    assert rows["/pair"].split()[1:4] == ["running", "1", "1"]
    shown = run("status", "pair")
    assert shown.out.splitlines()[0] == "/pair  running  1/1 running  pod of one, two"
    assert [line.split()[1] for line in shown.out.splitlines()[2:]] == ["one", "two"]
    assert run("status", "pair", "-o", "json").json["status"] == "STABLE"

    scaled = run("scale", "pair", "2")
    assert (scaled.code, "pod /pair shall have 2" in scaled.err, "is done" in scaled.err) == (0, True, True)
    assert "2/2 running" in run("status", "pair").out
    versions = run("app", "versions", "pair", "-o", "json").json
    assert [v["scaling"]["instances"] for v in versions] == [2, 1]
    back = run("app", "rollback", "pair")
    assert (back.code, "pod /pair goes back to" in back.err) == (0, True)
    assert "1/1 running" in run("status", "pair").out
    restarted = run("app", "restart", "pair")
    assert (restarted.code, "is a pod" in restarted.err) == (2, True)

    stopped = run("stop", "pair")
    assert (stopped.code, stopped.err) == (0, "pod /pair stopped\n")
    assert run("status", "pair").code == 3
    assert run("app", "destroy", "pair").code == 3


def test_a_group_is_shown_and_destroyed_whole_only_when_that_is_said(run: Run, tmp_path: Path) -> None:
    app = {"cmd": "exec sleep 1000", "cpus": 0.1, "mem": 16}
    pod = {"id": "duo", "containers": [container("one")]}
    inner = {"id": "web", "apps": [{"id": "front", **app}]}
    file = write(
        tmp_path / "group.json", {"id": "/whole", "apps": [{"id": "db", **app}], "pods": [pod], "groups": [inner]}
    )
    applied = run("app", "apply", file)
    assert applied.code == 0
    rows = [line.split()[0] for line in run("status", "whole").out.splitlines()[1:]]
    assert rows == ["/whole/db", "/whole/web/front", "/whole/duo"]
    assert [a["id"] for a in run("status", "whole", "-o", "json").json] == ["/whole/db", "/whole/web/front"]
    refused = run("app", "destroy", "whole")
    assert (refused.code, "group of 3 apps and pods" in refused.err, "--group" in refused.err) == (2, True, True)
    assert len(run("status", "whole").out.splitlines()) == 4
    gone = run("app", "destroy", "--group", "whole")
    assert gone.code == 0
    assert all(name in gone.err for name in ("/whole/db", "/whole/web/front", "/whole/duo"))
    deployment = gone.err.split("corral deploy follow ")[1].split()[0]
    followed = run("deploy", "follow", deployment)
    assert (followed.code, followed.err.splitlines()[-1]) == (0, f"deployment {deployment} is done")
    assert run("status", "whole").code == 3
    assert "there is no group /whole" in run("app", "destroy", "--group", "whole").err


def test_a_restart_and_a_way_back_end_with_what_runs(run: Run, tmp_path: Path) -> None:
    body = {"id": "/ends", "cmd": "exec sleep 1000", "cpus": 0.1, "mem": 16}
    run("app", "apply", write(tmp_path / "a.json", body))
    restarted = run("app", "restart", "ends")
    assert (restarted.code, restarted.err.splitlines()[-1]) == (0, "app /ends: 1/1 running")
    back = run("app", "rollback", "ends")
    assert (back.code, back.err.splitlines()[-1]) == (0, "app /ends: 1/1 running")
    run("stop", "ends")


def test_a_file_without_apps_is_no_success(run: Run, tmp_path: Path) -> None:
    answer = run("app", "apply", write(tmp_path / "none.json", []))
    assert (answer.code, "holds no app" in answer.err) == (2, True)
