"""What the docs show is run as it is written there, against a real `corral dev`."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.own_ports import write_task_ports

ROOT = Path(__file__).parents[3]
SIMULATE = "docs/operate/simulate.md"
CORRAL = [sys.executable, "-m", "corral.cli.main"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a cluster of one node that runs plain processes."""
    command = [
        *CORRAL, "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--runtime", "process",
        "--work-dir", str(tmp_path_factory.mktemp("corral")), "--resources", f"cpus:4;mem:2048;{write_task_ports()}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        assert ready.startswith("ready url="), "corral dev ended before it was ready"
        found = ready.strip().removeprefix("ready url=")
        yield found
        end_tasks(found)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def end_tasks(url: str) -> None:
    """Tasks outlive their cluster, as they should; the tests' own shall not."""
    for app in get(url, "/v2/apps")["apps"]:
        done = run([*CORRAL, "stop", app["id"]], url, ROOT)
        assert done.returncode == 0, done.stderr


def get(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return json.load(answer)


def run(command: list[str], url: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CORRAL_ADDR": url, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, env=environment, cwd=cwd, text=True, capture_output=True, timeout=60)


def commands_of(page: str, heading: str) -> list[str]:
    """The `corral` commands of a chapter, without their remarks."""
    chapter = (ROOT / page).read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.split("  ")[0].strip() for line in re.findall(r"^    (corral .*)$", chapter, re.MULTILINE)]


def test_the_first_five_minutes_go_as_the_readme_says(url: str, tmp_path: Path) -> None:
    app = {"id": "from-file", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32}
    (tmp_path / "app.json").write_text(json.dumps(app), encoding="utf-8")
    told = {}
    for line in commands_of("README.md", "First five minutes"):
        words = shlex.split(line)[1:]
        match words:
            case ["dev"]:
                continue
            case ["run", "busybox", *_]:
                words.insert(1, "-d")  # there is no Docker here: it waits, and says why
            case ["logs", "-f", name]:
                words = ["logs", name]
            case ["exec", "-it", name, "--", *_]:
                words = ["exec", name, "--", "sh", "-c", "echo inside"]
        done = run([*CORRAL, *words], url, tmp_path)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        told[line.split()[1]] = done.stdout
    assert "inside" in told["exec"]
    assert "/ticker" in told["status"]
    assert "runtime docker" in told["explain"]
    assert "reachable" in told["nodes"]
    assert "deployment done" in told["events"]
    assert {a["id"] for a in get(url, "/v2/apps")["apps"]} == {"/busybox", "/from-file"}


def test_roles_are_set_as_the_page_on_roles_says(url: str, tmp_path: Path) -> None:
    page = (ROOT / "docs/operate/roles.md").read_text(encoding="utf-8")
    page = re.sub(r"## A group for each team.*?(?=\n## )", "", page, flags=re.DOTALL)  # has a test of its own
    lines = re.findall(r"^    ((?:corral|curl) .*)$", page, re.MULTILINE)
    assert len(lines) == 9
    for line in lines:
        words = shlex.split(line.replace("cpus=10,mem=10240", "cpus=1,mem=1024").replace("http://127.0.0.1:4680", url))
        done = run([*CORRAL, *words[1:]] if words[0] == "corral" else [*words, "--fail"], url, tmp_path)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    (left,) = [role for role in get(url, "/corral/v1/roles")["roles"] if role["set"]]
    assert (left["name"], left["guarantee"], left["limit"]) == ("ads", {"cpus": 1.0, "mem": 1024.0}, {"cpus": 40.0})


def test_simulations_go_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples/sim/small.trace", tmp_path / "life.trace")
    lines = [line for title in ("Try it", "Record a cluster of your own") for line in commands_of(SIMULATE, title)]
    assert [line.split()[1] for line in lines] == ["sim"] * 4 + ["dev", "master"] + ["sim"] * 2
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "sim":
            done = run([*CORRAL, *words], "", tmp_path)
            assert done.returncode == 0, f"{line}: {done.stderr}"
            assert "placed" in done.stdout
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_example_framework_runs_its_tasks_through_wants(url: str, tmp_path: Path) -> None:
    flag = tmp_path / "failed-once"
    command = f"mkdir {flag} || exit 0; exit 3"
    done = run([sys.executable, str(ROOT / "examples/hello.py"), url, "3", command], url, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = get(url, "/corral/v1/tasks?framework=hello")["tasks"]
    states = sorted(task["state"] for task in tasks)
    assert states == ["TASK_FAILED", *["TASK_FINISHED"] * 3], "the one that failed was run again"


def test_the_example_framework_is_short() -> None:
    code = (ROOT / "examples/hello.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in code if line]) <= 60


def test_wants_are_answered_as_the_docs_show(url: str) -> None:
    """The REQUEST of the page is sent; the event that comes has at least what the page shows."""
    request, offers, explanations, constraints = json_of("docs/api/mesos.md")
    subscribe = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "docs"}}}
    with post(url, subscribe) as stream:
        header = {"Mesos-Stream-Id": stream.headers["Mesos-Stream-Id"]}
        subscribed = read_record(stream)
        request["framework_id"] = subscribed["subscribed"]["framework_id"]
        post(url, request, header).close()
        offer = wait_for(stream, lambda e: e["type"] == "OFFERS" and "corral_want_id" in e["offers"]["offers"][0])
        explained = wait_for(stream, lambda e: e["type"] == "EXPLANATIONS")
        (want,) = request["request"]["wants"]
        request["request"]["wants"] = [{**want, **constraints}]
        post(url, request, header).close()
        post(url, {"type": "TEARDOWN", "framework_id": request["framework_id"]}, header).close()
    assert shape(offers).items() <= shape(offer).items()
    (got,), (shown,) = explained["explanations"]["explanations"], explanations["explanations"]["explanations"]
    assert shape(shown).items() <= shape(got).items()
    assert (got["waiting"], got["refusals"][0]["reason"]) == (shown["waiting"], shown["refusals"][0]["reason"])
    (one,) = offer["offers"]["offers"]
    amounts = {r["name"]: r.get("scalar") for r in one["resources"]}
    assert amounts == {"cpus": {"value": 0.5}, "mem": {"value": 64.0}, "ports": None}


def test_a_plan_is_answered_as_the_docs_show(url: str) -> None:
    body, plan, moves = json_of("docs/api/routes.md")
    # Other examples leave some of the node in use: small instances fit beside them, and too many never do.
    body["wants"][0] |= {"count": 1000}
    body["wants"][0]["resources"][0]["scalar"]["value"] = 0.05
    made = urllib.request.Request(f"{url}/corral/v1/plan", json.dumps({**body, "framework_id": "F"}).encode())
    with urllib.request.urlopen(made, timeout=20) as answer:
        found = json.load(answer)
    assert found.keys() == plan.keys()
    for list_of in ("placements", "roles", "waiting"):
        assert found[list_of], list_of
        assert found[list_of][0].keys() == plan[list_of][0].keys(), list_of
    assert found["fits"] is plan["fits"] is False
    assert get(url, "/corral/v1/rebalance").keys() == moves.keys()


def json_of(page: str) -> list[Any]:
    """The blocks of JSON on a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def post(url: str, call: Any, headers: dict[str, str] | None = None) -> Any:
    headers = {"Content-Type": "application/json", **(headers or {})}
    made = urllib.request.Request(f"{url}/api/v1/scheduler", json.dumps(call).encode(), headers)
    return urllib.request.urlopen(made, timeout=20)


def read_record(stream: Any) -> Any:
    return json.loads(stream.read(int(stream.readline())))


def wait_for(stream: Any, wanted: Any) -> Any:
    while not wanted(event := read_record(stream)):
        pass
    return event


def shape(value: Any, at: str = "") -> dict[str, str]:
    """Every path of a JSON value with the kind of what stands there; of lists the first."""
    if isinstance(value, dict):
        return {path: kind for key, inner in value.items() for path, kind in shape(inner, f"{at}.{key}").items()}
    if isinstance(value, list):
        return shape(value[0], at + "[]") if value else {}
    return {at: "number" if isinstance(value, (int, float)) else type(value).__name__}
