"""Large JSON in pieces: joined it is the whole, and no piece is large."""

import json

import msgspec
import pytest
from test_mesos_legacy import VERSION, agent, cluster, framework, shown, task

from corral.mesos import legacy
from corral.mesos.operator import OperatorCall, plan_response, write_response
from corral.mesos.pieces import Rows, pieces, pieces_of, whole, whole_of
from corral.model.task import TaskState


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        (Rows((), str), []),
        (Rows((1, 2), str), ["1", "2"]),
        ({}, {}),
        ({"a": 1, "b": Rows((), str), "c": "x"}, {"a": 1, "b": [], "c": "x"}),
        ({"a": {"b": Rows((1,), lambda n: {"n": n})}}, {"a": {"b": [{"n": 1}]}}),
        (Rows((1, 2), lambda n: {"n": Rows(range(n), int)}), [{"n": [0]}, {"n": [0, 1]}]),
        (Rows(range(3), lambda n: {"n": Rows((), int)} if n == 1 else n), [0, {"n": []}, 2]),
        (Rows(range(101), int), list(range(101))),
        ([1, "é", None], [1, "é", None]),
    ],
)
def test_joined_the_pieces_are_the_json_of_the_whole(tree, wanted):
    assert json.loads(b"".join(pieces(tree))) == wanted


@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_a_piece_holds_so_many_rows_and_no_more(at_once):
    written = []
    found = pieces(Rows(range(100), lambda n: written.append(n) or n, at_once))
    next(found)
    assert len(written) == at_once


def test_a_plan_pauses_where_it_says_so():
    def plan():
        yield
        yield
        return {"a": Rows((1,), str)}

    assert list(pieces_of(plan()))[:2] == [b"", b""]
    assert whole_of(plan()) == {"a": ["1"]}
    assert whole({"a": Rows((1,), lambda n: {"b": Rows((n,), str)})}) == {"a": [{"b": ["1"]}]}


def large():
    tasks = tuple(task(f"t{n}", at=float(n % 97)) for n in range(300))
    rows = (
        framework("f1", tasks=tasks, completed_tasks=(task("over", TaskState.FINISHED),)),
        framework("f2", unreachable_tasks=(task("lost", TaskState.UNREACHABLE),)),
    )
    agents = (agent("a1", orphans=(task("orphan", TaskState.KILLING),)), *(agent(f"a{n}") for n in range(2, 90)))
    return cluster(agents=agents, frameworks=rows, completed_frameworks=(framework("f0"),))


VIEWS = {
    "/state": (lambda s: pieces(legacy.plan_state(s, VERSION)), lambda s: legacy.write_state(s, VERSION)),
    "/slaves": (lambda s: pieces(legacy.plan_slaves(s)), legacy.write_slaves),
    "/frameworks": (lambda s: pieces(legacy.plan_frameworks(s)), legacy.write_frameworks),
    "/state-summary": (lambda s: pieces_of(legacy.plan_summary(s)), legacy.write_summary),
    **{
        call: (lambda s, c=call: pieces(plan_response(c, s, VERSION)), lambda s, c=call: write_response(c, s, VERSION))
        for call in OperatorCall
    },
}


@pytest.mark.parametrize("name", VIEWS)
def test_each_view_in_pieces_is_the_view(name):
    in_pieces, at_once = VIEWS[name]
    found, wanted = list(in_pieces(large())), at_once(large())
    wanted = json.loads(wanted) if isinstance(wanted, bytes) else shown(wanted)
    assert json.loads(b"".join(found)) == wanted
    assert max(map(len, found)) < 64 * 1024


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize(("offset", "limit"), [(0, 5), (7, 10), (298, 10), (0, 1000), (1000, 5), (0, 0), (-3, 2)])
def test_a_page_of_many_tasks_is_cut_from_all_of_them_in_order(monkeypatch, ascending, offset, limit):
    def page():
        found = legacy.write_tasks(large(), limit=limit, offset=offset, ascending=ascending)
        return [t["id"] for t in found["tasks"]]

    monkeypatch.setattr(legacy, "_AT_ONCE", 10_000)
    whole_list = page()
    monkeypatch.setattr(legacy, "_AT_ONCE", 16)
    assert page() == whole_list
    assert len(whole_list) == max(0, min(limit, 302 - max(offset, 0)))


def test_orphans_are_shown_apart_from_the_tasks_of_frameworks():
    state = shown(legacy.write_state(large(), VERSION))
    assert [t["id"] for t in state["orphan_tasks"]] == ["orphan"]
    tasks = json.loads(write_response(OperatorCall.GET_TASKS, large(), VERSION))["get_tasks"]
    assert [t["name"] for t in tasks["orphan_tasks"]] == ["ORPHAN"]
    assert [len(tasks[kind]) for kind in ("tasks", "unreachable_tasks", "completed_tasks")] == [300, 1, 1]


def test_a_tree_is_what_the_encoder_takes_where_nothing_is_long():
    assert msgspec.json.encode(whole(legacy.plan_slaves(cluster()))) == b'{"slaves":[],"recovered_slaves":[]}'
