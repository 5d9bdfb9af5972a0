"""What is decided from what is wanted and what is there: rolling restarts, scaling, the order of deployments."""

import math
from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.frameworks.services.app_spec import AppSpec, Upgrade
from corral.frameworks.services.plan import (
    AppChange,
    Start,
    Stop,
    capacity,
    chain_lengths,
    plan_app,
    plan_deployment,
)
from corral.frameworks.services.record_spec import ActionKind, AppRecord, Condition, Goal, Instance
from corral.frameworks.services.state import App, Phase, phase_of, replace
from corral.lib.errors import Unprocessable
from corral.model.health import CheckResult

NEW, OLD = "v2", "v1"


def make_app(wanted: int, *, minimum: float = 1.0, over: float = 1.0, **more: Any) -> App:
    upgrade = Upgrade(minimum_health_capacity=minimum, maximum_over_capacity=over)
    spec = AppSpec(id="/web", cmd="sleep 9", instances=wanted, upgrade=upgrade, **more)
    return App(AppRecord(spec=spec, version=NEW, config=NEW, scaled_at=NEW, configured_at=NEW), 0.0)


def put(app: App, count: int, condition: Condition, config: str = NEW, created_at: float = 0.0, **more: Any) -> None:
    for _ in range(count):
        number = max((int(i.rpartition("-")[2]) for i in app.instances), default=-1) + 1
        app.place(
            Instance(
                id=f"web.instance-{number}", app="/web", version=config, config=config, created_at=created_at,
                condition=condition, staged_at=float(number), **more,
            )
        )  # fmt: skip


def decisions(app: App, action: ActionKind | None = ActionKind.RESTART) -> tuple[int, int, bool]:
    """How many are started, how many ended, and whether it is done."""
    plan = plan_app(app, action, 0.0, 1000)
    started = sum(s.count for s in plan.steps if isinstance(s, Start))
    ended = sum(len(s.instances) for s in plan.steps if isinstance(s, Stop))
    assert all(s.why for s in plan.steps)
    return started, ended, plan.done


@pytest.mark.parametrize(
    ("wanted", "minimum", "over", "least", "most"),
    [(4, 1, 0.5, 4, 6), (4, 0.5, 0, 2, 4), (2, 1, 0, 2, 3), (1, 0, 0, 0, 1), (10, 1, 1, 10, 20), (3, 0.5, 0.5, 2, 4)],
)
def test_the_two_capacities_are_marathons(wanted: int, minimum: float, over: float, least: int, most: int) -> None:
    bounds = capacity(wanted, minimum, over, healthy=wanted)
    assert (bounds.least_healthy, bounds.most) == (least, most)


def test_shares_are_not_lost_to_rounding() -> None:
    assert capacity(10, 0.7, 0.1, healthy=0).least_healthy == 7
    assert capacity(100, 0.29, 0.29, healthy=0).most == 129


def test_no_extra_one_is_allowed_while_something_is_ill_already() -> None:
    assert capacity(2, 1, 0, healthy=1).most == 2


@pytest.mark.parametrize(
    ("wanted", "minimum", "over", "started", "ended"),
    [(4, 1.0, 0.5, 2, 0), (4, 0.5, 0.0, 0, 2), (2, 1.0, 0.0, 1, 0), (1, 0.0, 0.0, 0, 1), (10, 1.0, 1.0, 10, 0)],
)
def test_a_restart_begins_as_the_contracts_examples_say(
    wanted: int, minimum: float, over: float, started: int, ended: int
) -> None:
    app = make_app(wanted, minimum=minimum, over=over)
    put(app, wanted, Condition.RUNNING, OLD)
    assert decisions(app) == (started, ended, False)


def test_what_is_not_healthy_is_replaced_first() -> None:
    app = make_app(4, minimum=0.5, over=0)
    put(app, 3, Condition.RUNNING, OLD)
    put(app, 1, Condition.STAGING, OLD)
    plan = plan_app(app, ActionKind.RESTART, 0.0, 1000)
    (stop,) = [s for s in plan.steps if isinstance(s, Stop)]
    assert stop.instances[0] == "web.instance-3"


def test_an_old_instance_that_never_gets_well_does_not_hold_a_restart_for_ever() -> None:
    app = make_app(1, minimum=1, over=0)
    put(app, 1, Condition.STAGING, OLD)
    assert decisions(app) == (0, 1, False)


def test_left_overs_beyond_the_wanted_number_go_at_once() -> None:
    app = make_app(2, minimum=1, over=1)
    put(app, 5, Condition.RUNNING, OLD)
    assert decisions(app)[1] == 3


def test_old_instances_that_were_not_launched_are_dropped() -> None:
    app = make_app(2)
    put(app, 2, Condition.SCHEDULED, OLD)
    assert decisions(app) == (0, 2, False)


def test_a_restart_is_done_when_the_old_ones_are_gone_and_all_new_ones_run() -> None:
    app = make_app(2)
    put(app, 2, Condition.RUNNING)
    assert decisions(app) == (0, 0, True)
    put(app, 1, Condition.RUNNING, OLD, goal=Goal.DECOMMISSIONED)
    assert decisions(app) == (0, 0, False)


def test_a_stop_is_done_when_nothing_is_left() -> None:
    app = make_app(2)
    assert decisions(app, ActionKind.STOP) == (0, 0, True)
    put(app, 2, Condition.RUNNING)
    put(app, 1, Condition.SCHEDULED)
    assert decisions(app, ActionKind.STOP) == (0, 3, False)


def test_no_more_is_ended_at_once_than_the_bound_allows() -> None:
    app = make_app(0)
    put(app, 10, Condition.RUNNING)
    plan = plan_app(app, ActionKind.SCALE, 0.0, 4)
    assert [len(s.instances) for s in plan.steps if isinstance(s, Stop)] == [4]
    assert plan.more


def test_scaling_down_takes_the_least_useful_first() -> None:
    app = make_app(1)
    put(app, 1, Condition.RUNNING)
    put(app, 1, Condition.STARTING)
    put(app, 1, Condition.STAGING)
    put(app, 1, Condition.UNREACHABLE)
    put(app, 1, Condition.SCHEDULED)
    (stop,) = plan_app(app, None, 0.0, 1000).steps
    assert isinstance(stop, Stop)
    assert [app.instances[i].condition for i in stop.instances] == [
        Condition.SCHEDULED, Condition.UNREACHABLE, Condition.STAGING, Condition.STARTING
    ]  # fmt: skip


def test_scaling_down_keeps_groups_even() -> None:
    app = make_app(3, constraints=(("rack", "GROUP_BY"),))
    for rack, count in (("a", 4), ("b", 1), ("c", 2)):
        put(app, count, Condition.RUNNING, group_value=rack)
    (stop,) = plan_app(app, None, 0.0, 1000).steps
    assert isinstance(stop, Stop)
    gone = [app.instances[i].group_value for i in stop.instances]
    assert sorted(gone) == ["a", "a", "a", "c"]


def test_inactive_instances_do_not_count() -> None:
    app = make_app(2)
    put(app, 1, Condition.RUNNING)
    put(app, 1, Condition.INACTIVE)
    assert decisions(app, None) == (1, 0, False)


def test_a_scaling_is_done_although_an_older_instance_crashes() -> None:
    app = make_app(2)
    put(app, 1, Condition.RUNNING, created_at=20.0)
    put(app, 1, Condition.STAGING, created_at=5.0, incarnation=7)
    assert plan_app(app, ActionKind.SCALE, 10.0, 1000).done
    put(app, 1, Condition.SCHEDULED, created_at=20.0)
    assert not plan_app(app, ActionKind.SCALE, 10.0, 1000).done


ILL = {"checks": 1, "healthy": False}
UNKNOWN = {"checks": 1, "healthy": None}
WELL = {"checks": 1, "healthy": True}


@pytest.mark.parametrize("health", [ILL, UNKNOWN])
def test_an_instance_with_checks_counts_only_once_they_pass(health: dict[str, Any]) -> None:
    app = make_app(2, minimum=1, over=1)
    put(app, 2, Condition.RUNNING, OLD)
    put(app, 2, Condition.RUNNING, **health)
    assert decisions(app) == (0, 0, False)
    for instance in list(app.up_to_date[Phase.UNHEALTHY].values()):
        app.place(replace(instance, healthy=True))
    assert decisions(app) == (0, 2, False)


def test_ill_instances_of_an_old_definition_go_before_healthy_ones() -> None:
    app = make_app(4, minimum=0.5, over=0)
    put(app, 2, Condition.RUNNING, OLD, **WELL)
    put(app, 2, Condition.RUNNING, OLD, **ILL)
    plan = plan_app(app, ActionKind.RESTART, 0.0, 1000)
    (stop,) = [s for s in plan.steps if isinstance(s, Stop)]
    assert stop.instances == ("web.instance-2", "web.instance-3")


def test_scaling_down_takes_ill_instances_before_healthy_ones() -> None:
    app = make_app(1)
    put(app, 1, Condition.RUNNING, **ILL)
    put(app, 1, Condition.RUNNING, **WELL)
    (stop,) = plan_app(app, None, 0.0, 1000).steps
    assert isinstance(stop, Stop)
    assert stop.instances == ("web.instance-0",)


def test_a_scaling_waits_for_the_health_of_what_it_started_and_not_for_older_ones() -> None:
    app = make_app(2)
    passed = CheckResult(index=0, alive=False, first_success_at=1.0)
    put(app, 1, Condition.RUNNING, created_at=5.0, **ILL, health=(passed,))
    put(app, 1, Condition.RUNNING, created_at=20.0, **UNKNOWN)
    assert not plan_app(app, ActionKind.SCALE, 10.0, 1000).done
    app.place(replace(app.instances["web.instance-1"], healthy=True))
    assert plan_app(app, ActionKind.SCALE, 10.0, 1000).done
    put(app, 1, Condition.RUNNING, created_at=5.0, **UNKNOWN)
    app.drop("web.instance-0")
    assert not plan_app(app, ActionKind.SCALE, 10.0, 1000).done, "it was on its way when the scaling began"


# A whole restart, with the world doing as it likes in between.


def perform(app: App, action: ActionKind, most: int = 1000, checks: int = 0) -> bool:
    """Carry out the plan as `upkeep` does, until it asks for nothing more; returns whether it is done."""
    for _ in range(500):
        plan = plan_app(app, action, 0.0, most)
        if not plan.steps:
            return plan.done
        for step in plan.steps:
            if isinstance(step, Start):
                put(app, step.count, Condition.SCHEDULED, checks=checks)
            else:
                for instance_id in step.instances:
                    instance = app.instances[instance_id]
                    if phase_of(instance) in (Phase.SCHEDULED, Phase.UNREACHABLE, Phase.INACTIVE):
                        app.drop(instance_id)
                    else:
                        app.place(replace(instance, goal=Goal.DECOMMISSIONED))
    raise AssertionError("the plan never comes to an end")


def happen(app: App, random: Random) -> None:
    """One thing that may happen by itself, in favour of the restart."""
    moves = [i for i in app.instances.values() if phase_of(i) is not Phase.RUNNING]
    if not moves:
        return
    instance = random.choice(moves)
    if instance.leaves:
        app.drop(instance.id)
    elif instance.condition is Condition.SCHEDULED:
        app.place(replace(instance, condition=Condition.STAGING))
    elif instance.condition is Condition.RUNNING:
        # Health is told when it is known, and a failure may come before.
        app.place(replace(instance, healthy=instance.healthy is False or random.random() < 0.7))
    else:
        app.place(replace(instance, condition=Condition.RUNNING))


@settings(max_examples=150, deadline=None)
@given(
    wanted=st.integers(1, 8),
    before=st.integers(0, 8),
    minimum=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    over=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    seed=st.integers(0, 1000),
    crash=st.integers(0, 40),
    checks=st.integers(0, 2),
)
def test_a_rolling_restart_ends_and_never_leaves_its_bounds(
    wanted: int, before: int, minimum: float, over: float, seed: int, crash: int, checks: int
) -> None:
    random = Random(seed)
    app = make_app(wanted, minimum=minimum, over=over)
    put(app, before, Condition.RUNNING, OLD, checks=checks, healthy=True if checks else None)
    least = min(before, math.ceil(round(wanted * minimum, 9)))
    most = max(before, math.floor(round(wanted * (1 + over), 9)) + 1)
    for turn in range(500):
        done = perform(app, ActionKind.RESTART, checks=checks)
        counted = [i for i in app.instances.values() if i.goal is Goal.RUNNING]
        assert sum(phase_of(i) is Phase.RUNNING for i in counted) >= least
        launched = [i for i in app.instances.values() if i.condition is not Condition.SCHEDULED]
        assert len(launched) <= most
        if done:
            assert {i.config for i in app.instances.values()} == {NEW}
            assert len(counted) == wanted
            return
        if turn == crash:
            # What was only waiting is not remembered over a crash.
            for instance in list(app.instances.values()):
                if instance.condition is Condition.SCHEDULED:
                    app.drop(instance.id)
        happen(app, random)
    raise AssertionError("the restart does not end")


@settings(max_examples=100, deadline=None)
@given(
    wanted=st.integers(0, 6),
    conditions=st.lists(
        st.tuples(
            st.sampled_from([c for c in Condition if c in (
                Condition.SCHEDULED, Condition.STAGING, Condition.RUNNING, Condition.UNREACHABLE, Condition.INACTIVE)]),
            st.sampled_from([OLD, NEW]),
            st.sampled_from(list(Goal)),
            st.sampled_from([(0, None), (1, None), (1, False), (1, True)]),
        ),
        max_size=8,
    ),
    action=st.sampled_from([ActionKind.SCALE, ActionKind.RESTART, ActionKind.STOP]),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_from_any_state_each_action_comes_to_its_end(
    wanted: int, conditions: list[tuple[Condition, str, Goal, tuple[int, bool | None]]], action: ActionKind, seed: int
) -> None:
    random = Random(seed)
    app = make_app(wanted, minimum=0.5, over=0.2)
    for condition, config, goal, (checks, healthy) in conditions:
        if goal is Goal.RUNNING or condition in (Condition.STAGING, Condition.RUNNING):
            put(app, 1, condition, config, goal=goal, checks=checks, healthy=healthy)
    for _ in range(500):
        done = perform(app, action, most=2, checks=seed % 2)
        for instance in list(app.instances.values()):
            if instance.condition is Condition.INACTIVE and random.random() < 0.3:
                app.drop(instance.id)
        if done:
            break
        happen(app, random)
    else:
        raise AssertionError("it does not end")
    if action is ActionKind.STOP:
        assert not app.instances
    else:
        assert app.counted == wanted
    if action is ActionKind.RESTART:
        assert {i.config for i in app.instances.values()} <= {NEW}


# Several apps.


def spec(app_id: str, instances: int = 1, cmd: str = "sleep 9") -> AppSpec:
    return AppSpec(id=app_id, cmd=cmd, instances=instances)


def actions(changes: list[AppChange], dependencies: Mapping[str, list[str]] | None = None) -> list[list[str]]:
    found = plan_deployment(changes, lambda a: (dependencies or {}).get(a, []))
    return [[f"{a.kind.removesuffix('Application')} {a.app}" for a in step] for step in found]


def test_removed_apps_stop_before_new_ones_start() -> None:
    changes = [
        AppChange(id="/new", old=None, new=spec("/new")),
        AppChange(id="/gone", old=spec("/gone"), new=None),
    ]
    assert actions(changes) == [["Stop /gone"], ["Start /new"], ["Scale /new"]]


def test_a_change_of_number_scales_and_any_other_restarts() -> None:
    old = spec("/a")
    assert actions([AppChange(id="/a", old=old, new=spec("/a", 3))]) == [["Scale /a"]]
    assert actions([AppChange(id="/a", old=old, new=spec("/a", 1, "sleep 8"))]) == [["Restart /a"]]
    assert actions([AppChange(id="/a", old=old, new=spec("/a", 0, "sleep 8"))]) == [["Scale /a"]]
    assert actions([AppChange(id="/a", old=old, new=old)]) == []
    assert actions([AppChange(id="/a", old=old, new=old, restart=True)]) == [["Restart /a"]]
    assert actions([AppChange(id="/a", old=old, new=spec("/a", 3), outdated=True)]) == [["Restart /a"]]


def test_what_others_depend_on_comes_first() -> None:
    changes = [AppChange(id=a, old=spec(a), new=spec(a, 2)) for a in ("/web", "/db", "/cache", "/lonely")]
    dependencies = {"/web": ["/db", "/cache"], "/cache": ["/db"], "/db": ["/not/here"]}
    assert actions(changes, dependencies) == [
        ["Scale /lonely"], ["Scale /db"], ["Scale /cache"], ["Scale /web"]
    ]  # fmt: skip


def test_an_app_that_does_not_change_still_stands_between_two_that_do() -> None:
    changes = [AppChange(id=a, old=spec(a), new=spec(a, 2)) for a in ("/web", "/db")]
    assert actions(changes, {"/web": ["/middle"], "/middle": ["/db"]}) == [["Scale /db"], ["Scale /web"]]


def test_a_circle_is_named() -> None:
    with pytest.raises(Unprocessable) as caught:
        chain_lengths(["/a"], lambda a: {"/a": ["/b"], "/b": ["/c"], "/c": ["/b"]}[a])
    assert "/b -> /c -> /b" in caught.value.details["/dependencies"][0]


def test_a_long_chain_needs_no_deep_stack() -> None:
    ids = [f"/a{n}" for n in range(5000)]
    following = dict(pairwise(ids))
    lengths = chain_lengths(ids, lambda a: [following[a]] if a in following else [])
    assert lengths["/a0"] == 4999
