"""The graph of jobs: circles, roots, and when joins fire, against the rules stated one by one."""

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.frameworks.cron.graph import (
    MOST_ROUNDS,
    adopt_parents,
    check_parents,
    common_root,
    find_path,
    find_roots,
    hear_success,
    inherit,
    reset,
)
from corral.frameworks.cron.spec import Edges
from corral.lib.errors import Invalid

DIAMOND = {"root": (), "a": ("root",), "b": ("root",), "join": ("a", "b"), "other": ()}


def hear(parents: tuple[str, ...], told: str, *, by_round: bool = False) -> list[int]:
    """At which of these successes a job fires. Shapes: `told` are words `parent` or `parent@round`."""
    edges, fired = Edges(), []
    for n, word in enumerate(told.split()):
        if word == "start":
            edges = reset(edges)
            continue
        parent, _, round = word.partition("@")
        edges, fires = hear_success(edges, parents, parent, round or f"r{n}", by_round)
        if fires is not None:
            fired.append(n)
    return fired


def test_by_counters_a_job_fires_when_every_parent_has_succeeded() -> None:
    assert hear(("a", "b"), "a a b") == [2]
    assert hear(("a", "b"), "a b start a b") == [1, 4]
    assert hear(("a", "b"), "a a a b start b a") == [3, 6]
    assert hear(("a",), "a a a") == [0, 1, 2]


def test_by_rounds_a_job_fires_once_for_each_complete_round_in_whatever_order() -> None:
    assert hear(("a", "b"), "a@1 b@2 a@2 b@1", by_round=True) == [2, 3]
    assert hear(("a", "b"), "a@1 a@1 a@1", by_round=True) == []
    assert hear(("a", "b"), "a@1 start b@1", by_round=True) == [2]


def test_open_rounds_are_forgotten_oldest_first() -> None:
    edges = Edges()
    for n in range(MOST_ROUNDS + 10):
        edges, _ = hear_success(edges, ("a", "b"), "a", str(n), True)
    assert len(edges.rounds) == MOST_ROUNDS
    assert edges.rounds[-1][0] == str(MOST_ROUNDS + 9)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=40))
def test_a_round_fires_exactly_when_its_last_parent_is_heard(told: list[tuple[str, int]]) -> None:
    edges, heard = Edges(), {n: set[str]() for n in range(5)}
    for parent, number in told:
        edges, fires = hear_success(edges, "abc", parent, str(number), True)
        heard[number].add(parent)
        complete = heard[number] == set("abc")
        assert (fires == str(number)) is complete
        if complete:
            heard[number].clear()


def test_roots_and_the_one_in_common_are_found() -> None:
    assert find_roots("join", DIAMOND) == {"root"}
    assert find_roots("root", DIAMOND) == {"root"}
    assert common_root(("a", "b"), DIAMOND) == "root"
    assert common_root(("a", "other"), DIAMOND) is None


def test_a_circle_is_named_by_its_path() -> None:
    assert find_path("root", ("join",), DIAMOND) in (
        ["root", "a", "join", "root"], ["root", "b", "join", "root"],
    )  # fmt: skip
    assert find_path("new", ("join",), DIAMOND) == []
    with pytest.raises(Invalid, match=r"root -> . -> join -> root"):
        check_parents("root", ("join",), DIAMOND)


def test_edges_that_stay_keep_what_they_have_heard() -> None:
    edges, _ = hear_success(Edges(), ("a", "b"), "a", "1", True)
    changed = adopt_parents(edges, ("a", "c"))
    assert changed.counts == {"a": 1}
    assert changed.rounds == (("1", ("a",)),)
    assert adopt_parents(edges, ("c",)) == Edges(counts={}, rounds=())


def test_children_inherit_the_parents_of_a_deleted_parent() -> None:
    assert inherit(("a", "b"), "a", ("x", "b")) == ("b", "x")
    assert inherit(("a",), "a", ()) == ()


def test_ten_thousand_jobs_are_checked_and_joined_in_a_second() -> None:
    random = Random(1)
    known: dict[str, tuple[str, ...]] = {"j0": ()}
    began = time.monotonic()
    for n in range(1, 10_000):
        parents = tuple(sorted({f"j{random.randrange(max(0, n - 50), n)}" for _ in range(3)}))
        check_parents(f"j{n}", parents, known, has_children=False)
        known[f"j{n}"] = parents
    assert find_path("j0", ("j9999",), known)[0] == "j0"
    assert common_root(known["j9999"], known) == "j0"
    edges = {name: Edges() for name in known}
    children: dict[str, list[str]] = {name: [] for name in known}
    for name, parents in known.items():
        for parent in parents:
            children[parent].append(name)
    queue, ran = ["j0"], []
    for name in queue:
        ran.append(name)
        for child in children[name]:
            edges[child], fires = hear_success(edges[child], known[child], name, "r", True)
            if fires:
                queue.append(child)
    assert sorted(ran) == sorted(known)
    assert time.monotonic() - began < 5.0
