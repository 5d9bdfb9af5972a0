"""Scores of nodes: what fails fast counts, what lasts counts against it, all fades, and nothing is ever forbidden."""

from hypothesis import given
from hypothesis import strategies as st

from corral.model.constraints import Constraint, Operator
from corral.model.ids import WantId
from corral.model.offer import Want, find_want_fault
from corral.model.resources import scalar
from corral.sdk.nodes import BAD, HALF_LIFE_S, MOST_SHUN_S, SHUN_S, NodeScores

WANT = Want(id=WantId("w"), role="*", count=1, resources=(scalar("cpus", 1.0),))


def fail_all(scores: NodeScores, subjects: int, hostname: str = "n1", times: int = 2, now: float = 0.0) -> bool:
    told = [scores.fail(f"/app{n}", hostname, 1.0, now) for _ in range(times) for n in range(subjects)]
    return any(told)


def test_a_node_where_everything_fails_at_once_is_avoided_by_all() -> None:
    scores = NodeScores()
    assert fail_all(scores, 3)
    (found,) = scores.avoided("/other", 0.0)
    assert (found.hostname, found.subject) == ("n1", None)
    assert "3 different ones" in found.why
    (wish,) = scores.wish(WANT, "/other", 0.0).constraints
    assert (wish.operator, wish.values) == (Operator.UNEQUAL, ("n1",))
    assert wish.weight > 0, "a wish, which the last node there is may break"


def test_what_fails_everywhere_makes_no_node_bad() -> None:
    scores = NodeScores()
    for n in range(1000):
        assert not scores.fail("/broken", f"n{n % 3}", 0.5, float(n))
    assert scores.avoided("/other", 1000.0) == ()
    scores = NodeScores()
    assert not fail_all(scores, 2, times=50)
    assert scores.avoided("/other", 0.0) == ()


def test_what_ran_for_long_is_no_fault_of_its_node() -> None:
    scores = NodeScores()
    for n in range(20):
        assert not scores.fail(f"/app{n}", "n1", 3600.0, 0.0)
    assert scores.score("n1", 0.0) == 0.0


def test_one_that_does_well_clears_the_node() -> None:
    scores = NodeScores()
    fail_all(scores, 3)
    scores.last("/fine", "n1", 1.0)
    assert scores.avoided("/other", 1.0) == ()
    assert scores.bad == {}


def test_it_is_forgiven_with_time_but_not_at_the_edge() -> None:
    scores = NodeScores()
    fail_all(scores, 3)
    (found,) = scores.avoided("/other", 0.0)
    assert scores.avoided("/other", found.until_at - 1.0)
    assert scores.avoided("/other", found.until_at + 1.0) == ()
    assert found.until_at > HALF_LIFE_S


def test_an_app_shuns_a_node_for_longer_each_time_in_a_row_and_alone() -> None:
    scores = NodeScores()
    assert scores.shun("/web", "n1", "it fails", 0.0) == SHUN_S
    assert scores.avoided("/other", 1.0) == ()
    assert [a.subject for a in scores.avoided("/web", 1.0)] == ["/web"]
    assert scores.avoided("/web", SHUN_S) == ()
    assert scores.shun("/web", "n1", "it fails", SHUN_S + 10.0) == SHUN_S + 10.0 + 2 * SHUN_S
    for _ in range(30):
        until = scores.shun("/web", "n1", "it fails", 1000.0)
    assert until == 1000.0 + MOST_SHUN_S
    assert scores.shun("/web", "n1", "it fails", 1e6) == 1e6 + SHUN_S, "after a quiet time it begins anew"
    scores.forget("/web")
    assert scores.avoided(None, 1e6) == ()


def test_a_home_is_wished_for_unless_it_is_avoided() -> None:
    scores = NodeScores()
    (wish,) = scores.wish(WANT, "/web", 0.0, ["n2", "n1", "n2"]).constraints
    assert (wish.operator, wish.values) == (Operator.IN, ("n1", "n2"))
    scores.shun("/web", "n1", "it fails", 0.0)
    found = {w.operator: w for w in scores.wish(WANT, "/web", 0.0, ["n1", "n2"]).constraints}
    assert found[Operator.IN].values == ("n2",)
    assert found[Operator.UNEQUAL].values == ("n1",)
    assert found[Operator.UNEQUAL].weight > found[Operator.IN].weight


@given(
    deeds=st.lists(
        st.tuples(
            st.sampled_from(["fail", "last", "shun", "forget"]), st.integers(0, 4), st.integers(0, 3),
            st.floats(0.0, 200.0), st.floats(0.0, 100.0),
        ),
        max_size=80,
    ),
    own=st.integers(0, 24),
)  # fmt: skip
def test_whatever_happened_wishes_are_soft_well_formed_and_end(
    deeds: list[tuple[str, int, int, float, float]], own: int
) -> None:
    scores, now = NodeScores(), 0.0
    for deed, app, node, lived_s, passes_s in deeds:
        now += passes_s
        subject, hostname = f"/app{app}", f"n{node}"
        match deed:
            case "fail":
                became = scores.fail(subject, hostname, lived_s, now)
                assert not became or scores.score(hostname, now) >= BAD
            case "last":
                scores.last(subject, hostname, now)
                assert not [a for a in scores.avoided(subject, now) if a.subject and a.hostname == hostname]
            case "shun":
                assert scores.shun(subject, hostname, "why", now) <= now + MOST_SHUN_S
            case _:
                scores.forget(subject)
        want = Want(
            id=WantId("w"), role="*", count=1, resources=WANT.resources,
            constraints=tuple(Constraint(field=f"a{n}", operator=Operator.EQUAL, values=("x",)) for n in range(own)),
        )  # fmt: skip
        wished = scores.wish(want, subject, now, ["n0"])
        assert wished.constraints[:own] == want.constraints, "what must hold stays"
        assert all(c.weight > 0 for c in wished.constraints[own:])
        assert find_want_fault(wished) is None
        for each in scores.avoided(None, now):
            assert each.until_at >= now
    assert scores.avoided(None, now + MOST_SHUN_S + 20 * HALF_LIFE_S) == ()
