"""What the engine promises, one promise at a time."""

import numpy as np
import pytest

from corral.allocator.engine import Engine
from corral.lib.errors import Conflict, Invalid, NotFound
from corral.model.constraints import HOSTNAME, Constraint, Operator

CORE = {"cpus": 1000, "mem": 1_024_000}


def engine_with(*cores: int, **attributes: str) -> Engine:
    engine = Engine()
    for i, each in enumerate(cores):
        engine.add_node({"cpus": each * 1000, "mem": each * 4_096_000}, f"h{i}", attributes)
    return engine


def held_tasks(engine: Engine, *names: str) -> list[int]:
    return [engine.held(engine.role(name))["cpus"] // 1000 for name in names]


def test_siblings_that_both_wait_never_differ_by_more_than_one_task() -> None:
    engine = engine_with(30, 30)
    core = engine.intern_class(CORE)
    roles = [engine.add_role(name) for name in ("a", "b", "c")]
    engine.submit(roles, core, 100)
    while len(engine.tick(1)):
        held = held_tasks(engine, "a", "b", "c")
        assert max(held) - min(held) <= 1
    assert held_tasks(engine, "a", "b", "c") == [20, 20, 20]


def test_weights_divide_at_every_level() -> None:
    engine = engine_with(90)
    core = engine.intern_class(CORE)
    engine.add_role("ads", weight=2)
    for name in ("ads/etl", "ads/web", "lab"):
        engine.submit(engine.add_role(name, weight=3 if name == "ads/etl" else 1), core, 90)
    engine.tick()
    assert held_tasks(engine, "ads", "lab", "ads/etl", "ads/web") == [60, 30, 45, 15]


def test_a_third_level_divides_as_the_first() -> None:
    engine = engine_with(40)
    core = engine.intern_class(CORE)
    for name in ("ads/etl/nightly", "ads/etl/hourly", "ads/web", "lab"):
        engine.submit(engine.add_role(name), core, 40)
    engine.tick()
    assert held_tasks(engine, "lab", "ads/web", "ads/etl/nightly", "ads/etl/hourly") == [20, 10, 5, 5]


def test_a_role_with_children_shares_with_them_as_one_more_child() -> None:
    engine = engine_with(30)
    core = engine.intern_class(CORE)
    ads = engine.add_role("ads")
    engine.submit(ads, core, 4)
    early = engine.tick()
    engine.submit(engine.add_role("ads/etl"), core, 90)
    engine.submit(ads, core, 90)
    engine.tick()
    assert held_tasks(engine, "ads", "ads/etl") == [30, 15]
    engine.release(early.task)
    assert held_tasks(engine, "ads", "ads/etl") == [26, 15]
    engine.invariants()


def test_the_dominant_resource_counts() -> None:
    engine = Engine()
    engine.add_node({"cpus": 9000, "mem": 18_000_000})
    engine.submit(engine.add_role("mem"), engine.intern_class({"cpus": 1000, "mem": 4_000_000}), 9)
    engine.submit(engine.add_role("cpu"), engine.intern_class({"cpus": 3000, "mem": 1_000_000}), 9)
    engine.tick()
    assert engine.held(engine.role("mem")) == {"cpus": 3000, "mem": 12_000_000, "disk": 0, "gpus": 0, "ports": 0}
    assert engine.held(engine.role("cpu")) == {"cpus": 6000, "mem": 2_000_000, "disk": 0, "gpus": 0, "ports": 0}


def test_a_guarantee_comes_before_fair_share_and_no_further() -> None:
    engine = engine_with(40)
    core = engine.intern_class(CORE)
    for name in ("a", "b"):
        engine.submit(engine.add_role(name), core, 40)
    engine.submit(engine.add_role("late", guarantee={"cpus": 24_000}, weight=0.001), core, 40)
    engine.tick()
    assert held_tasks(engine, "late", "a", "b") == [24, 8, 8]


def test_a_guarantee_that_was_taken_back_gives_no_precedence() -> None:
    engine = engine_with(8)
    core = engine.intern_class(CORE)
    a, b = engine.add_role("a", guarantee={"cpus": 8000}), engine.add_role("b")
    engine.submit([a, b], core, 8)
    assert engine.tick(2).role.tolist() == [a, a]
    engine.add_role("a")
    engine.tick()
    assert held_tasks(engine, "a", "b") == [4, 4]
    engine.invariants()


def test_a_guarantee_whose_demand_fits_nowhere_holds_nobody_up_beyond_the_reserve() -> None:
    engine = engine_with(8)
    engine.set_reserve({})
    core, huge = engine.intern_class(CORE), engine.intern_class({"cpus": 99_000})
    owed = engine.add_role("ads/etl", guarantee={"cpus": 8000})
    engine.submit(owed, huge, 5)
    engine.submit(engine.add_role("ads/web"), core, 8)
    engine.submit(engine.add_role("lab"), core, 8)
    engine.tick()
    assert held_tasks(engine, "ads", "lab") == [4, 4]


def test_a_limit_of_a_parent_binds_its_children_and_frees_them_again() -> None:
    engine = engine_with(40)
    core = engine.intern_class(CORE)
    engine.add_role("ads", limit={"cpus": 10_000})
    for name in ("ads/etl", "ads/web", "lab"):
        engine.submit(engine.add_role(name), core, 25)
    placed = engine.tick()
    assert held_tasks(engine, "ads/etl", "ads/web", "lab") == [5, 5, 25]
    engine.release(placed.task[placed.role == engine.role("ads/web")][:3])
    assert len(engine.tick()) == 3
    assert held_tasks(engine, "ads") == [10]
    engine.add_role("ads", limit={"cpus": 12_000})
    assert len(engine.tick()) == 2
    engine.invariants()


def test_a_role_has_no_more_tasks_than_it_may() -> None:
    engine = engine_with(40)
    engine.submit(engine.add_role("ads", max_tasks=7), engine.intern_class(CORE), 25)
    assert len(engine.tick()) == 7
    assert engine.waiting == 18


def test_priority_among_siblings_comes_before_their_shares() -> None:
    engine = engine_with(10)
    core = engine.intern_class(CORE)
    engine.submit(engine.add_role("a"), core, 10)
    engine.submit(engine.add_role("vip", priority=1), core, 6)
    engine.tick()
    assert held_tasks(engine, "vip", "a") == [6, 4]


def test_priority_within_a_role_comes_before_age() -> None:
    engine = engine_with(4)
    role = engine.add_role("a")
    first, second = engine.intern_class(CORE), engine.intern_class({"cpus": 1000, "mem": 1000})
    engine.submit(role, first, 3)
    engine.submit(role, second, 3, 5)
    assert engine.tick().cls.tolist() == [second, second, second, first]


def test_what_fits_goes_before_what_does_not() -> None:
    engine = engine_with(4)
    role = engine.add_role("a")
    engine.submit(role, engine.intern_class({"cpus": 5000}), 3, 9)
    engine.submit(role, engine.intern_class(CORE), 9)
    assert len(engine.tick()) == 4


def test_a_demand_that_fits_nowhere_is_placed_where_room_was_made() -> None:
    engine = engine_with(4, 4)
    role, core, pair = engine.add_role("a"), engine.intern_class(CORE), engine.intern_class({"cpus": 2000})
    engine.submit(role, core, 8)
    running = engine.tick()
    engine.submit(role, pair, 1)
    assert not len(engine.tick())
    engine.release(running.task[running.node == 1][:1])
    assert not len(engine.tick())
    engine.release(running.task[running.node == 1][1:2])
    assert engine.tick().node.tolist() == [1]


def test_binpack_fills_one_node_before_the_next_and_spread_evens_out() -> None:
    for strategy, expected in (("binpack", [8, 0, 0, 0]), ("spread", [2, 2, 2, 2])):
        engine = engine_with(8, 8, 8, 8)
        engine.submit(engine.add_role("a"), engine.intern_class(CORE, strategy=strategy), 8)
        nodes = engine.tick().node
        assert sorted(np.bincount(nodes, minlength=4).tolist(), reverse=True) == expected


def test_the_tightest_node_that_fits_is_taken() -> None:
    engine = engine_with(16, 3, 8)
    engine.submit(engine.add_role("a"), engine.intern_class({"cpus": 2500}), 1)
    assert engine.tick().node.tolist() == [1]


def test_a_node_that_a_bounded_walk_does_not_reach_is_found_all_the_same() -> None:
    engine = Engine()
    for i in range(200):
        engine.add_node({"cpus": 4000, "mem": 8_000_000, "disk": 1000 if i else 5000})
    role = engine.add_role("a")
    engine.submit(role, engine.intern_class({"cpus": 1000, "disk": 4000}), 2)
    assert engine.tick().node.tolist() == [0]
    assert engine.counts.exact_passes


def test_gpus_are_kept_for_those_who_ask_them() -> None:
    engine = Engine()
    engine.add_node({"cpus": 4000, "mem": 8_000_000, "gpus": 2000})
    engine.add_node({"cpus": 64_000, "mem": 640_000_000})
    role = engine.add_role("a")
    engine.submit(role, engine.intern_class({"cpus": 4000}), 17)
    nodes = engine.tick().node.tolist()
    assert nodes == [1] * 16 + [0]
    engine.submit(role, engine.intern_class({"cpus": 1000, "gpus": 1000}), 1)
    assert engine.explain(engine.intern_class({"cpus": 1000, "gpus": 1000})).short == {"cpus": 2, "gpus": 1}


def test_constraints_choose_by_attribute_and_by_host() -> None:
    engine = Engine()
    for i in range(6):
        engine.add_node({"cpus": 2000, "mem": 2_000_000}, f"h{i}", {"zone": "ab"[i % 2]})
    role = engine.add_role("a")
    in_b = engine.intern_class({"cpus": 1000}, [Constraint(field="zone", operator=Operator.EQUAL, values=("b",))])
    on_h4 = engine.intern_class({"cpus": 1000}, [Constraint(field=HOSTNAME, operator=Operator.EQUAL, values=("h4",))])
    engine.submit(role, [in_b, on_h4], 9)
    placed = engine.tick()
    assert sorted(placed.node[placed.cls == in_b].tolist()) == [1, 1, 3, 3, 5, 5]
    assert placed.node[placed.cls == on_h4].tolist() == [4, 4]
    engine.add_node({"cpus": 1000, "mem": 2_000_000}, "late", {"zone": "b"})
    assert engine.tick().node.tolist() == [6]
    engine.invariants()


def test_a_closed_node_takes_nothing_until_it_opens() -> None:
    engine = engine_with(2, 2)
    engine.submit(engine.add_role("a"), engine.intern_class(CORE), 4)
    engine.set_eligible(0, False)
    assert engine.tick().node.tolist() == [1, 1]
    engine.set_eligible(0, True)
    assert engine.tick().node.tolist() == [0, 0]


def test_a_node_goes_when_it_is_empty_and_another_may_take_its_row() -> None:
    engine = engine_with(2)
    engine.submit(engine.add_role("a"), engine.intern_class(CORE), 3)
    tasks = engine.tick().task
    with pytest.raises(Conflict, match="2 tasks"):
        engine.remove_node(0)
    engine.release(tasks)
    engine.remove_node(0)
    assert not len(engine.tick())
    with pytest.raises(NotFound):
        engine.set_eligible(0, True)
    assert engine.add_node({"cpus": 1000, "mem": 9_000_000}) == 0
    assert engine.tick().node.tolist() == [0]
    engine.invariants()


def test_an_explanation_counts_each_reason() -> None:
    engine = Engine()
    for i in range(6):
        engine.add_node({"cpus": 1000 * i + 1000, "mem": 4_000_000}, f"h{i}", {"zone": "a" if i else "b"})
    engine.set_eligible(5, False)
    cls = engine.intern_class(
        {"cpus": 3000, "mem": 3_000_000}, [Constraint(field="zone", operator=Operator.EQUAL, values=("a",))]
    )
    reasons = engine.explain(cls)
    assert reasons == (6, 3, 1, 1, {"cpus": 1})


def test_taking_demands_back_leaves_the_rest_in_line() -> None:
    engine = engine_with(9)
    role, core = engine.add_role("a"), engine.intern_class(CORE)
    engine.submit(role, core, 5)
    assert engine.withdraw(role, core, 3) == 3
    assert engine.withdraw(role, core, 9) == 2
    assert engine.withdraw(role, core, 9) == 0
    assert not len(engine.tick())
    engine.invariants()


def test_a_refused_call_changes_nothing() -> None:
    engine = engine_with(4)
    role, core = engine.add_role("a"), engine.intern_class(CORE)
    engine.submit(role, core, 3)
    task = engine.tick().task
    for wrong in ([int(task[0]), 99], [int(task[0]), int(task[0])], -1, [int(task[1]), 50]):
        with pytest.raises(Conflict):
            engine.release(wrong)
    for bad in ((99, core, 1), (role, 7, 1), (role, core, 0), (0, core, 1), (-1, core, 1)):
        with pytest.raises(Invalid):
            engine.submit(*bad)
        with pytest.raises(Invalid):
            engine.withdraw(*bad)
    for call in (
        lambda: engine.add_role("x//y"),
        lambda: engine.add_role("x", weight=0),
        lambda: engine.add_role("x", priority=1024),
        lambda: engine.add_role("x", limit={"bananas": 1}),
        lambda: engine.intern_class({"cpus": -1}),
        lambda: engine.intern_class(CORE, strategy="luck"),
        lambda: engine.intern_class(CORE, [Constraint(field="zone", operator=Operator.UNIQUE)]),
        lambda: engine.add_node({"bananas": 1}),
        lambda: engine.explain(99),
        lambda: Engine(["cpus"]),
    ):
        with pytest.raises(Invalid):
            call()
    with pytest.raises(NotFound):
        engine.role("x")
    assert engine.running == 3
    engine.invariants()


def test_a_share_follows_the_size_of_the_cluster() -> None:
    engine = engine_with(10)
    core, fat = engine.intern_class(CORE), engine.intern_class({"cpus": 100, "mem": 8_192_000})
    a, b = engine.add_role("a"), engine.add_role("b")
    engine.submit([a, b], [core, fat], [2, 1])
    engine.tick()
    engine.add_node({"cpus": 1000, "mem": 400_000_000})
    engine.submit([a, b], core, 1)
    # Two cores of eleven outweigh 8 GB now that memory is plenty, so b is further behind.
    assert engine.tick(1).role.tolist() == [b]
    engine.invariants()
