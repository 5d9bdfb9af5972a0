"""plan, explain --if and rebalance, on a cluster of two nodes that is really changed only where it is meant to be."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from corral_daemons import Answer, Daemon, Site, active_tasks, ask, read_app, run_corral, wait_running, wait_until

Run = Callable[..., Answer]

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
PLAIN = {"cmd": "sleep 1000", "cpus": 1, "mem": 32, "instances": 1, "portDefinitions": []}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Two nodes of 4 cpus."""
    with Site(tmp_path_factory.mktemp("pair")) as site:
        dev = site.dev("--agents", "2")
        wait_until(lambda: len(ask(dev.url, "GET", "/corral/v1/nodes")[1]["nodes"]) == 2, "both nodes")
        yield dev


@pytest.fixture
def run(pair: Daemon) -> Iterator[Run]:
    """`corral` against the two nodes; they are empty again afterwards."""
    yield lambda *words, **options: run_corral(pair.url, *words, **options)
    for app in ask(pair.url, "GET", "/v2/apps")[1]["apps"]:
        assert run_corral(pair.url, "stop", app["id"]).code == 0


def apply(run: Run, *apps: dict[str, Any]) -> None:
    """Create these apps, and wait until they run."""
    answer = run("app", "apply", "-", stdin=json.dumps([{**PLAIN, **app} for app in apps]))
    assert answer.code == 0, answer


def hosts(url: str, name: str) -> list[str]:
    return sorted(task["host"] for task in read_app(url, name)["tasks"])


def state(url: str) -> tuple[Any, Any]:
    """What a question must not change."""
    tasks = sorted(task["id"] for task in ask(url, "GET", "/v2/tasks")[1]["tasks"])
    return tasks, ask(url, "GET", "/v2/apps")[1]["apps"]


# plan


def test_a_plan_of_an_app_that_fits_tells_where_and_changes_nothing(pair: Daemon, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "app.json"
    file.write_text(json.dumps({"id": "/web", "cmd": "sleep 1000", "cpus": 1, "mem": 64, "instances": 3}))
    answer = run("plan", str(file))
    assert answer.code == 0, answer
    assert "everything fits" in answer.out
    assert "web@planned" in answer.out
    assert FIRST in answer.out
    assert SECOND in answer.out
    found = run("plan", str(file), "-o", "json")
    assert found.code == 0
    assert found.json["fits"] is True
    assert found.json["waiting"] == found.json["evictions"] == []
    assert {p["hostname"]: p["count"] for p in found.json["placements"]} in (
        {FIRST: 2, SECOND: 1},
        {FIRST: 1, SECOND: 2},
    )
    after = {(e["role"], e["resource"]): (e["before"], e["after"]) for e in found.json["roles"]}
    assert after["*", "cpus"] == (0, 3)
    assert after["*", "ports"] == (0, 3)
    assert state(pair.url) == ([], [])


def test_a_plan_that_does_not_fit_ends_with_2_and_says_why(pair: Daemon, run: Run) -> None:
    app = json.dumps({**PLAIN, "id": "/web", "cpus": 3, "instances": 3})
    answer = run("plan", "-", stdin=app)
    assert answer.code == 2
    assert "something would not fit" in answer.out
    assert "web@planned (role *): 1 waiting" in answer.out
    assert "wants cpus 3, the most free is 1 on 127.0.0." in answer.out
    assert "fits if cpus ≤ 1" in answer.out
    found = run("plan", "-", "-o", "json", stdin=app)
    assert found.code == 2
    (waiting,) = found.json["waiting"]
    assert (waiting["waiting"], waiting["never"]) == (1, False)
    assert waiting["refusals"][0]["reason"] == "cpus"
    assert sum(p["count"] for p in found.json["placements"]) == 2
    assert state(pair.url) == ([], [])


def test_a_plan_reads_lists_and_groups(run: Run) -> None:
    one, two = ({**PLAIN, "id": name} for name in ("/one", "/two"))
    listed = run("plan", "-", "-o", "json", stdin=json.dumps([one, two]))
    assert listed.code == 0
    assert {p["want_id"] for p in listed.json["placements"]} == {"one@planned", "two@planned"}
    group = {
        "id": "/shop",
        "version": "2026-01-01T00:00:00.000Z",
        "apps": [{**PLAIN, "id": "web"}],
        "groups": [{"id": "back", "apps": [{**PLAIN, "id": "db"}]}],
    }
    nested = run("plan", "-", "-o", "json", stdin=json.dumps(group))
    assert nested.code == 0, nested
    assert {p["want_id"] for p in nested.json["placements"]} == {"shop_web@planned", "shop_back_db@planned"}
    assert run("plan", "-", stdin="[]").out == "everything fits\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "x", "cmd": "true"', "- is not JSON"),
        ("3", "must be an object"),
        ("[1]", "must be an object"),
        ('{"cmd": "true"}', "id must be given"),
        ('{"id": "x", "cmd": "true", "cpu": 1}', "/cpu: is known to nobody and would be ignored"),
        ('[{"id": "x", "cmd": "true", "cpu": 1}]', "(0)/cpu: is known to nobody"),
        ('{"id": "/g", "apps": [{"id": "x", "cmd": "true", "cpu": 1}]}', "cpu: is known to nobody"),
        ('{"id": "x", "cmd": "true", "instances": "three"}', "/instances: must be a whole number"),
        ('{"id": "x"}', "app /x: "),
        ('{"id": "x", "cmd": "true", "role": "other"}', "/role: app /x: "),
        ('[{"id": "x", "cmd": "true"}, {"id": "/x", "cmd": "true"}]', "named twice"),
        ('{"id": "x", "cmd": "true", "constraints": [["rack", "FROB"]]}', "constraints"),
    ],
)
def test_a_plan_of_a_file_that_is_wrong_names_the_place(run: Run, text: str, message: str) -> None:
    answer = run("plan", "-", stdin=text)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("corral: ")
    assert message in answer.err


def test_a_plan_needs_a_file_and_a_master(run: Run) -> None:
    missing = run("plan", "/does/not/exist.json")
    assert missing.code == 2
    assert "does not exist" in missing.err
    assert run_corral("http://127.0.0.1:1", "plan", "-", stdin='{"id": "x", "cmd": "true"}').code == 5


def test_a_plan_of_an_app_that_runs_asks_for_what_it_lacks(pair: Daemon, run: Run) -> None:
    app = {**PLAIN, "id": "/web", "instances": 3}
    apply(run, app)
    assert run("plan", "-", "-o", "json", stdin=json.dumps(app)).json["placements"] == []
    more = run("plan", "-", "-o", "json", stdin=json.dumps({**app, "instances": 5})).json
    assert sum(p["count"] for p in more["placements"]) == 2
    cpus = next(e for e in more["roles"] if e["resource"] == "cpus")
    assert (cpus["before"], cpus["after"]) == (3, 5)
    assert len(active_tasks(pair.url, "web")) == 3


def test_a_plan_minds_the_limit_of_the_role(run: Run) -> None:
    assert run("role", "set", "*", "--limit", "cpus=2").code == 0
    try:
        answer = run("plan", "-", stdin=json.dumps({**PLAIN, "id": "/web", "instances": 3}))
        assert answer.code == 2
        assert "role * may have cpus 2 and has 2; one more takes 1" in answer.out
        assert "fits if role-limit cpus ≥ 3" in answer.out
    finally:
        assert run("role", "rm", "*").code == 0


# explain --if


@pytest.fixture
def big(pair: Daemon, run: Run) -> dict[str, Any]:
    """An app of which one of three instances finds no node that it may share."""
    app = {**PLAIN, "id": "/big", "cpus": 3, "instances": 3, "constraints": [["hostname", "UNIQUE"]]}
    assert run("app", "apply", "-", "--detach", stdin=json.dumps(app)).code == 0

    def only_one_waits() -> Any:
        found = ask(pair.url, "GET", "/corral/v1/explain?group=/big")[1]["explanations"]
        whole = read_app(pair.url, "big")["tasksRunning"] == 2
        return whole and found and found[0]["waiting"] == 1 and len(found[0]["refusals"]) == 2 and found[0]

    found: dict[str, Any] = wait_until(only_one_waits, "the one that waits")
    return found


def test_a_change_is_tried_and_not_made(pair: Daemon, run: Run, big: dict[str, Any]) -> None:
    before = state(pair.url)
    for changes, fits in (
        (["agents=1"], True),
        (["cpus=1", "without=@hostname unique"], True),
        (["cpus=1"], False),
        (["without=@hostname unique"], False),
        (["agents=1", "cpus=5"], False),
        (["agents=2", "count=3"], False),
        (["agents=3", "count=3"], True),
        (["priority=5"], False),
        (["role-limit=cpus:8"], False),
        (["agents=1", "role-limit=cpus:8"], False),
        (["agents=1", "role-limit=cpus:9"], True),
        (["agents=1", "role-limit=cpus=9;mem=9999"], True),
        (["agents=1", "max-tasks=2"], False),
        (["agents=1", "max-tasks=none", "weight=2", "revocable=yes"], True),
    ):
        words = [word for change in changes for word in ("--if", change)]
        answer = run("explain", "big", *words)
        assert answer.code == 0, answer
        verdict = "would fit" if fits else "would still wait"
        assert answer.out.startswith(f"{big['want_id']} {verdict} if {' and '.join(changes)}\n"), answer
        assert run("explain", "big", *words, "-o", "json").json["fits"] is fits
    assert state(pair.url) == before
    assert read_app(pair.url, "big")["tasksRunning"] == 2


def test_what_would_still_wait_says_why(run: Run, big: dict[str, Any]) -> None:
    answer = run("explain", "big", "--if", "cpus=1")
    assert "constraint @hostname unique" in answer.out
    assert "fits if without the constraint @hostname unique" in answer.out
    fitting = run("explain", "big", "--if", "agents=1")
    assert "new-1" in fitting.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cpus", "'cpus' is no change; write NAME=VALUE"),
        ("=3", "is no change"),
        ("frob=1", "frob=1 changes nothing that is known; give cpus=2"),
        ("cpus=x", "cpus=x is no number"),
        ("cpus=-1", "is out of range"),
        ("count=1.5", "is no whole number"),
        ("count=100001", "at most 100000"),
        ("agents=1001", "at most 1000"),
        ("without=rack == a", "has no constraint 'rack == a'; it has @hostname unique"),
        ("role-limit=8", "names no amounts"),
        ("weight=0", "is not above 0"),
        ("revocable=perhaps", "neither yes nor no"),
        ("priority=600", "field 'priority': 600 is outside of -512 to 511"),
        ("gang=3", "no multiple of the gang of 3"),
    ],
)
def test_a_change_that_is_not_understood_is_exit_code_2(
    run: Run, big: dict[str, Any], change: str, message: str
) -> None:
    answer = run("explain", "big", "--if", change)
    assert answer.code == 2
    assert answer.err.startswith("corral: ")
    assert message in answer.err


def test_changes_are_tried_for_what_waits_alone(pair: Daemon, run: Run) -> None:
    assert run("explain", "nope", "--if", "cpus=1").code == 3
    unnamed = run("explain", "--if", "cpus=1")
    assert unnamed.code == 2
    assert "name it before --if" in unnamed.err
    apply(run, {"id": "/fine"})
    answer = run("explain", "fine", "--if", "cpus=1")
    assert answer.code == 0
    assert "does not wait for resources" in answer.out


# rebalance


@contextmanager
def blocked(run: Run, host: str, cpus: float) -> Iterator[None]:
    """So much of a node is taken by somebody else meanwhile."""
    apply(run, {"id": "/block", "cpus": cpus, "constraints": [["hostname", "CLUSTER", host]]})
    yield
    assert run("stop", "block").code == 0


@contextmanager
def watched(url: str, name: str) -> Iterator[list[int]]:
    """Each number of running instances that an app is seen with."""
    seen: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.append(read_app(url, name)["tasksRunning"])
            time.sleep(0.02)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()


MOVABLE = {"labels": {"corral.rebalance": "true"}}


def test_room_is_made_for_what_waits_without_falling_below_the_minimum(pair: Daemon, run: Run) -> None:
    names = ("one", "two", "three")
    with blocked(run, SECOND, 4):
        half = {"cpus": 0.5, "instances": 2, "upgradeStrategy": {"minimumHealthCapacity": 0.5}, **MOVABLE}
        apply(run, *({"id": f"/{name}", **half} for name in names))
    apply(run, {"id": "/pin", "cpus": 2, "constraints": [["hostname", "CLUSTER", SECOND]]})
    assert {tuple(hosts(pair.url, name)) for name in names} == {(FIRST, FIRST)}
    big = json.dumps({**PLAIN, "id": "/big", "cpus": 2.5})
    assert run("app", "apply", "-", "--detach", stdin=big).code == 0
    wait_until(lambda: ask(pair.url, "GET", "/corral/v1/explain?group=/big")[1]["explanations"], "why /big waits")

    before = state(pair.url)[0]
    planned = run("rebalance", "--plan")
    assert planned.code == 0
    assert planned.out.count("makes room on 127.0.0.1 for big@") == 3
    assert "makes room" not in run("rebalance", "--most", "2").out, "two moves alone would help nobody"
    moves = run("rebalance", "-o", "json").json
    assert {(m["from_host"], m["to_host"], m["framework"]) for m in moves} == {(FIRST, SECOND, "services")}
    assert {read_name(m["task_id"]) for m in moves} == set(names)
    assert state(pair.url)[0] == before

    with watched(pair.url, "one") as first, watched(pair.url, "two") as second, watched(pair.url, "three") as third:
        applied = run("rebalance", "--apply", "--per-minute", "600", timeout_s=60.0)
    assert applied.code == 0, applied
    assert applied.err.endswith("3 of 3 moved\n")
    assert applied.err.count("is moved from 127.0.0.1") == 3
    assert min(*first, *second, *third) >= 1, "each may have one of two at least"
    wait_running(pair.url, "big", 1)
    for name in names:
        wait_running(pair.url, name, 2)
        assert hosts(pair.url, name) == [FIRST, SECOND]
    assert hosts(pair.url, "big") == [FIRST]
    assert hosts(pair.url, "pin") == [SECOND]


def test_nodes_are_evened_out_with_what_its_owners_allow(pair: Daemon, run: Run) -> None:
    """Of four alike on one node, one may move: one has no label, one no spare instance, one is in the way of nobody."""
    half = {"minimumHealthCapacity": 0.5}
    with blocked(run, SECOND, 4):
        apply(
            run,
            {"id": "/firm", **MOVABLE},
            {"id": "/free", "cpus": 0.5, "instances": 2, "upgradeStrategy": half, **MOVABLE},
            {"id": "/kept", "cpus": 1, "upgradeStrategy": half},
        )
    (firm,), kept = (read_app(pair.url, name)["tasks"] for name in ("firm", "kept"))
    most = run("rebalance", "--most", "1", "-o", "json").json
    assert [move["task_id"] for move in most] == [firm["id"]]
    moves = run("rebalance", "-o", "json").json
    assert {read_name(move["task_id"]) for move in moves} == {"firm", "free"}
    assert moves[0]["why"] == "127.0.0.1 is 75% used and 127.0.0.2 0%"

    with watched(pair.url, "free") as seen:
        applied = run("rebalance", "--apply", "--per-minute", "600", timeout_s=60.0)
    assert applied.code == 0, applied
    assert f"{firm['id']} stays: app /firm has 1 instances and needs 1; lower its minimumHealthCapacity" in applied.err
    assert applied.err.endswith("1 of 2 moved\n")
    assert min(seen) >= 1
    wait_running(pair.url, "free", 2)
    assert hosts(pair.url, "free") == [FIRST, SECOND]
    assert read_app(pair.url, "firm")["tasks"][0]["id"] == firm["id"]
    assert read_app(pair.url, "kept")["tasks"][0]["id"] == kept[0]["id"]


def read_name(task_id: str) -> str:
    return task_id.partition(".")[0]


def test_moves_are_no_faster_than_asked(pair: Daemon, run: Run) -> None:
    with blocked(run, SECOND, 4):
        apply(
            run,
            *({"id": f"/m{i}", "instances": 1, "upgradeStrategy": {"minimumHealthCapacity": 0}, **MOVABLE}
              for i in range(4)),
        )  # fmt: skip
    began = time.monotonic()
    applied = run("rebalance", "--apply", "--per-minute", "20", timeout_s=60.0)
    assert applied.err.endswith("2 of 2 moved\n"), applied
    assert time.monotonic() - began >= 3.0
    everybody = wait_until(
        lambda: len(found := ask(pair.url, "GET", "/v2/tasks")[1]["tasks"]) == 4 and found, "all four again"
    )
    assert sorted(task["host"] for task in everybody) == [FIRST, FIRST, SECOND, SECOND]


def test_a_balanced_cluster_has_nothing_to_move(run: Run) -> None:
    answer = run("rebalance")
    assert (answer.code, answer.out, answer.err) == (0, "nothing is better placed elsewhere\n", "")
    applied = run("rebalance", "--apply")
    assert (applied.code, applied.err) == (0, "0 of 0 moved\n")


@pytest.mark.parametrize(
    "words", [("--most", "0"), ("--most", "1001"), ("--per-minute", "0"), ("--per-minute", "601"), ("--frob",)]
)
def test_a_number_of_moves_out_of_range_is_exit_code_2(run: Run, words: tuple[str, ...]) -> None:
    assert run("rebalance", *words).code == 2


# The same over HTTP, with what nobody should send.

CPU = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}
WANT = {"id": "x", "role": "*", "count": 1, "resources": [CPU]}


def test_wants_are_planned_over_http(pair: Daemon) -> None:
    assert ask(pair.url, "POST", "/corral/v1/plan", {}) == (
        200, {"fits": True, "placements": [], "evictions": [], "roles": [], "waiting": []}
    )  # fmt: skip
    status, found = ask(pair.url, "POST", "/corral/v1/plan", {"framework_id": "F", "wants": [{**WANT, "count": 9}]})
    assert status == 200
    assert sum(p["count"] for p in found["placements"]) == 8
    assert [w["waiting"] for w in found["waiting"]] == [1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "nothing can be planned from this body"),
        ("{", "nothing can be planned from this body"),
        ("[]", "Expected `object`"),
        ("[" * 100_000, "nothing can be planned from this body"),
        ({"want": []}, "unknown field `want`"),
        ({"framework_id": 3}, "framework_id"),
        ({"wants": 3}, "$.wants"),
        ({"wants": [{"id": "x", "role": "*"}]}, "missing required field `count`"),
        ({"wants": [{**WANT, "count": -1}]}, "$.wants[0].count"),
        ({"wants": [{**WANT, "id": ""}]}, "request.wants[0].id"),
        ({"wants": [{**WANT, "role": "a//b"}]}, "role"),
        ({"wants": [{**WANT, "priority": 512}]}, "field 'request.wants[0].priority': 512 is outside"),
        ({"wants": [{**WANT, "count": 3, "gang": 2}]}, "no multiple of the gang of 2"),
        ({"wants": [{**WANT, "strategy": "frob"}]}, "strategy"),
        ({"wants": [{**WANT, "resources": []}]}, "ask more than 0"),
        ({"wants": [WANT, WANT]}, "given twice"),
        ({"wants": [{**WANT, "count": 4_000_000_000}]}, "at most 100000"),
        ({"wants": [{**WANT, "constraints": [{"field": "a", "operator": "frob"}]}]}, "operator"),
        ({"wants": [{**WANT, "constraints": [{"field": "a", "operator": "regex", "values": ["(a+)+"]}]}]}, "regex"),
    ],
)
def test_a_body_that_is_no_plan_is_400(pair: Daemon, body: Any, message: str) -> None:
    status, found = ask(pair.url, "POST", "/corral/v1/plan", body)
    assert status == 400, found
    assert found["error"]["status"] == 400
    assert message in found["error"]["message"]


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, "no want is named"),
        ("?want=", 400, "no want is named"),
        ("?want=x", 404, "no framework has a want x that waits"),
        ("?want=x&framework=F", 404, "framework F has no want x that waits"),
        ("?want=x&if=cpus", 400, "'cpus' is no change"),
        ("?want=x&if=", 400, "'' is no change"),
    ],
)
def test_a_what_if_about_nothing_is_refused(pair: Daemon, query: str, status: int, message: str) -> None:
    answer = ask(pair.url, "GET", f"/corral/v1/whatif{query}")
    assert (answer[0], answer[1]["error"]["status"]) == (status, status)
    assert message in answer[1]["error"]["message"]


@pytest.mark.parametrize("most", ["0", "-1", "1001", "x", "1.5", "9" * 5000])
def test_a_number_of_moves_that_is_none_is_400(pair: Daemon, most: str) -> None:
    status, found = ask(pair.url, "GET", f"/corral/v1/rebalance?most={most}")
    assert (status, found["error"]["status"]) == (400, 400)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/corral/v1/plan"), ("POST", "/corral/v1/whatif"), ("PUT", "/corral/v1/rebalance")]
)
def test_another_method_is_405(pair: Daemon, method: str, path: str) -> None:
    assert ask(pair.url, method, path, {} if method != "GET" else None)[0] == 405
