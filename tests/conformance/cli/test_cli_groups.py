"""Files of groups, applied as they are."""

import json
from collections.abc import Callable
from pathlib import Path

from corral_daemons import Answer

Run = Callable[..., Answer]


def app(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "cmd": "sleep 1000", "cpus": 0.1, "mem": 16, **more}


def test_a_group_s_file_is_applied_and_applied_again(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    body = {
        "id": "/shop",
        "groups": [
            {"id": "db", "apps": [app("mongo")]},
            {"id": "web", "apps": [app("front", instances=2)], "dependencies": ["/shop/db"]},
        ],
    }
    file.write_text(json.dumps(body), encoding="utf-8")
    first = run("app", "apply", str(file))
    assert first.code == 0
    assert first.err.splitlines() == [
        "group /shop accepted", "app /shop/db/mongo: 1/1 running", "app /shop/web/front: 2/2 running",
    ]  # fmt: skip
    assert len(first.out.splitlines()) == 3
    again = run("app", "apply", str(file))
    assert (again.code, again.out) == (0, first.out)

    del body["groups"]
    file.write_text(json.dumps({**body, "groups": [], "apps": [app("only")]}), encoding="utf-8")
    last = run("app", "apply", str(file))
    assert last.code == 0
    assert "app /shop/only: 1/1 running" in last.err
    assert [a["id"] for a in run("status", "-o", "json").json if a["id"].startswith("/shop")] == ["/shop/only"]
    assert run("stop", "shop/only").code == 0


def test_a_group_s_file_without_an_id_is_not_taken_for_everything(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"groups": []}), encoding="utf-8")
    refused = run("app", "apply", str(file))
    assert refused.code == 2
    assert "a group without an id" in refused.err


def test_a_fault_in_a_group_is_told_with_its_place(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({"id": "/bad", "apps": [app("x", cpus="many")]}), encoding="utf-8")
    refused = run("app", "apply", str(file))
    assert refused.code == 2
    assert "/apps(0)/cpus" in refused.err
