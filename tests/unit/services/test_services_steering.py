"""Deployments beyond Marathon's: canaries, blue and green, pauses, deadlines, undoing, and who may interfere."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_services_plan import NEW, OLD, make_app, put

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import (
    CancelDeployment,
    DeleteApp,
    GetDeployment,
    GetDeployments,
    GetEnded,
    PauseDeployment,
    PromoteDeployment,
    RestartApp,
)
from corral.frameworks.services.discovery_spec import GetRegistry
from corral.frameworks.services.pace import pace_of, read_policy, read_policy_labels, read_seen, weight_of
from corral.frameworks.services.plan import FULL, Pace, Start, Stop, capacity, plan_restart
from corral.frameworks.services.record_spec import Condition, Deployment, Goal, Policy
from corral.frameworks.services.state import App, Phase, replace
from corral.lib.errors import Conflict, Invalid, NotFound, Stale, Unprocessable
from corral.model.task import TaskState

FOUR: dict[str, Any] = {"instances": 4, "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.25}}


def labelled(**fields: str) -> dict[str, Any]:
    return {"labels": {f"corral.deploy.{name}": value for name, value in fields.items()}}


def start(cluster: Any, **fields: Any) -> str:
    """Four instances run, and a new definition is under way."""
    cluster.create(**FOUR)
    cluster.work()
    deployment_id: str = cluster.update_app(cmd="sleep 9999", **fields).deployment_id
    return deployment_id


def sides(cluster: Any) -> tuple[int, int]:
    app = cluster.app()
    return len(app.up_to_date[Phase.RUNNING]), len(app.outdated[Phase.RUNNING])


def show(cluster: Any, deployment_id: str) -> Any:
    return cluster.ask(GetDeployment(id=deployment_id))


# Canaries.


def test_a_canary_runs_a_few_new_instances_and_waits(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(canary="1"))
    cluster.work()
    assert sides(cluster) == (1, 3)
    shown = show(cluster, deployment_id)
    assert shown["state"] == "waits for promotion"
    assert shown["progress"][0] | {"reason": ""} == {
        "app": "/web", "action": "RestartApplication", "wanted": 4, "new": 1, "newHealthy": 1, "old": 3, "leaving": 0,
        "reason": "",
    }  # fmt: skip
    cluster.advance(10_000)
    assert sides(cluster) == (1, 3)


def test_a_promoted_canary_becomes_the_whole_app(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(canary="25%"))
    cluster.work()
    assert cluster.ask(PromoteDeployment(id=deployment_id))["promoted"] is True
    cluster.work()
    assert sides(cluster) == (4, 0)
    assert show(cluster, deployment_id)["state"] == "done"
    assert cluster.ask(GetDeployments()) == []


def test_a_canary_that_is_cancelled_leaves_no_new_instance_and_the_old_untouched(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(canary="1"))
    old = {i.id for i in cluster.app().outdated[Phase.RUNNING].values()}
    cluster.work()
    cluster.ask(CancelDeployment(id=deployment_id))
    cluster.work()
    assert sides(cluster) == (4, 0)
    assert len(old & set(cluster.app().instances)) == 3
    (ended, *_) = [e for e in cluster.ask(GetEnded()) if e["id"] == deployment_id]
    assert ended["state"] == "cancelled"
    assert ended["successor"]


def test_what_is_not_ready_cannot_be_promoted(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(canary="1"))
    with pytest.raises(Conflict, match="not all ready"):
        cluster.ask(PromoteDeployment(id=deployment_id))
    cluster.work()
    cluster.ask(PromoteDeployment(id=deployment_id))
    with pytest.raises(Conflict, match="waits for no promotion"):
        cluster.ask(PromoteDeployment(id=deployment_id))


def test_a_canary_goes_on_after_a_crash(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(canary="2"))
    cluster.run(most=1)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    cluster.work()
    assert sides(cluster) == (2, 2)
    cluster.ask(PromoteDeployment(id=deployment_id))
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    cluster.work()
    assert sides(cluster) == (4, 0)


def test_an_old_instance_that_dies_during_a_canary_is_replaced(cluster: Any) -> None:
    start(cluster, **labelled(canary="1"))
    cluster.work()
    victim = next(iter(cluster.app().outdated[Phase.RUNNING].values()))
    cluster.update(f"{victim.id}._app.{victim.incarnation}", TaskState.FAILED, message="oops")
    cluster.advance(5)
    cluster.work()
    assert sum(sides(cluster)) == 4


# Blue and green.


def test_blue_green_runs_all_new_ones_beside_the_old_and_moves_the_traffic(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(blueGreen="true"))
    cluster.work()
    assert sides(cluster) == (4, 4)
    app = cluster.app()
    new = next(iter(app.up_to_date[Phase.RUNNING].values()))
    old = next(iter(app.outdated[Phase.RUNNING].values()))

    def weights() -> tuple[int, int]:
        deployment = cluster.state.deployments[deployment_id]
        return weight_of(deployment, app, new), weight_of(deployment, app, old)

    assert weights() == (0, 100)
    (registered,) = cluster.ask(GetRegistry(apps=("/web",)))
    assert sorted(i["weight"] for i in registered["instances"]) == [0] * 4 + [100] * 4
    assert cluster.ask(PromoteDeployment(id=deployment_id, share=20))["weight"] == 20
    assert weights() == (25, 100)
    cluster.ask(PromoteDeployment(id=deployment_id))
    assert weights() == (100, 0)
    cluster.work()
    assert sides(cluster) == (4, 0)
    assert weight_of(None, app, new) == 100


# Pause and resume.


def test_a_paused_deployment_stands_still_until_it_is_resumed(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(deadline="60", revert="true"))
    cluster.run(most=1)
    assert cluster.ask(PauseDeployment(id=deployment_id))["state"] == "paused"
    cluster.work()
    before = sides(cluster)
    cluster.advance(1000)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    cluster.advance(1000)
    cluster.work()
    assert sides(cluster) == before
    assert before[1] > 0
    cluster.ask(PauseDeployment(id=deployment_id, paused=False))
    cluster.work()
    assert sides(cluster) == (4, 0)


def test_an_instance_that_dies_while_its_deployment_is_paused_is_replaced(cluster: Any) -> None:
    deployment_id = start(cluster)
    cluster.ask(PauseDeployment(id=deployment_id))
    (victim, *_) = cluster.running()
    cluster.update(f"{victim.id}._app.{victim.incarnation}", TaskState.FAILED, message="oops")
    assert len(cluster.app().instances) >= 4


def test_a_deployment_may_begin_paused(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(paused="true"))
    cluster.work()
    assert sides(cluster) == (0, 4)
    cluster.ask(PauseDeployment(id=deployment_id, paused=False))
    cluster.work()
    assert sides(cluster) == (4, 0)


# Deadlines.


def fail_all(cluster: Any, seconds: float) -> None:
    """New instances fail as soon as they start, for so long."""
    end = cluster.now + seconds
    while cluster.now < end:
        for task_id in cluster.offer():
            cluster.update(task_id, TaskState.FAILED, message="exit 3")
        cluster.bury()
        cluster.advance(1)


def test_a_deployment_that_gets_no_further_is_undone_by_itself(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(deadline="60", revert="true"))
    old = {i.id for i in cluster.app().outdated[Phase.RUNNING].values()}
    fail_all(cluster, 65)
    cluster.work()
    ended = show(cluster, deployment_id)
    assert ended["state"] == "reverted"
    assert "no further for 60 s" in ended["why"]
    assert "exit 3" in ended["why"]
    assert show(cluster, ended["successor"])["state"] == "done"
    assert cluster.show()["cmd"] == "sleep 1000"
    assert sides(cluster) == (4, 0)
    assert old & set(cluster.app().instances)
    assert any(n.what == "deployment failed" and n.level == "warning" for n in cluster.notes)


def test_a_deployment_that_fails_without_a_way_back_lets_go_of_its_app(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(deadline="60"))
    fail_all(cluster, 65)
    assert show(cluster, deployment_id)["state"] == "failed"
    assert cluster.state.locks == {}
    cluster.update_app(cmd="sleep 5")
    cluster.work()
    assert sides(cluster) == (4, 0)


def test_who_gets_further_has_all_the_time_again(cluster: Any) -> None:
    cluster.create(**FOUR)
    cluster.work()
    strategy = {"minimumHealthCapacity": 1, "maximumOverCapacity": 0}
    deployment_id = cluster.update_app(
        cmd="sleep 9999", upgradeStrategy=strategy, **labelled(deadline="60")
    ).deployment_id
    for _ in range(4):
        cluster.advance(45)
        assert deployment_id in cluster.state.deployments
        cluster.run()
        cluster.bury()
    assert show(cluster, deployment_id)["state"] == "done"


def test_a_new_app_whose_deployment_fails_is_removed_again(cluster: Any) -> None:
    cluster.create(**labelled(deadline="30", revert="true"))
    cluster.advance(31)
    cluster.work()
    assert cluster.state.visible("/web") is None


def test_a_deadline_begins_anew_with_a_new_leader(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(deadline="60"))
    cluster.advance(50)
    cluster.crash()
    cluster.subscribe()
    cluster.advance(50)
    assert deployment_id in cluster.state.deployments
    cluster.advance(11)
    assert deployment_id not in cluster.state.deployments


def test_a_canary_that_waits_for_people_does_not_fail(cluster: Any) -> None:
    deployment_id = start(cluster, **labelled(canary="1", deadline="60", revert="true"))
    cluster.work()
    cluster.advance(600)
    assert show(cluster, deployment_id)["state"] == "waits for promotion"


# Who may interfere.


def test_a_request_that_names_the_version_it_saw_takes_the_place_of_a_deployment(cluster: Any) -> None:
    deployment_id = start(cluster)
    app = cluster.app()
    with pytest.raises(Conflict, match="force=true"):
        cluster.update_app(cmd="sleep 5")
    with pytest.raises(Stale, match="read it again"):
        cluster.ask(RestartApp(id="/web", seen="2001-01-01T00:00:00.000Z"))
    cluster.ask(RestartApp(id="/web", seen=app.record.version))
    assert show(cluster, deployment_id)["state"] == "cancelled"
    cluster.work()
    assert sides(cluster) == (4, 0)


def test_a_stale_version_changes_nothing(cluster: Any) -> None:
    cluster.create()
    cluster.work()
    before = dict(cluster.records)
    for command in (DeleteApp(id="/web", seen="2001-01-01T00:00:00.000Z"), RestartApp(id="/web", seen="x")):
        with pytest.raises(Stale):
            cluster.ask(command)
    assert cluster.records == before


def test_versions_are_read_from_the_header_without_their_quotes() -> None:
    assert read_seen(None) is None
    assert read_seen('"2026-01-01T00:00:00.000Z"') == "2026-01-01T00:00:00.000Z"
    assert read_seen('W/"x"') == "x"


def test_the_ends_of_deployments_are_kept_within_bounds(make_cluster: Any) -> None:
    from corral.frameworks.services import Config

    cluster = make_cluster(Config(most_outcomes=3))
    cluster.subscribe()
    first = cluster.create().deployment_id
    cluster.work()
    for seconds in range(4):
        cluster.update_app(cmd=f"sleep {seconds}00")
        cluster.work()
    assert len(cluster.ask(GetEnded())) == 3
    assert len([key for key in cluster.records if key.startswith("outcome/")]) == 3
    with pytest.raises(NotFound):
        show(cluster, first)
    newest = cluster.ask(GetEnded())[0]["id"]
    cluster.crash()
    assert cluster.ask(GetEnded())[0]["id"] == newest


# Policies as they are given.


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({"deadline": "30", "revert": "true"}, Policy(deadline_s=30, revert=True)),
        ({"canary": "10%"}, Policy(canary="10%")),
        ({"blueGreen": ""}, Policy(blue_green=True)),
        ({"paused": "TRUE"}, Policy(paused=True)),
    ],
)
def test_a_policy_reads_the_same_from_a_request_and_from_labels(given: dict[str, str], policy: Policy) -> None:
    assert read_policy({name: [value] for name, value in given.items()}) == policy
    assert read_policy_labels([{f"corral.deploy.{name}": value for name, value in given.items()}]) == policy
    assert read_policy({"force": ["true"]}) is None


@pytest.mark.parametrize(
    "given",
    [
        {"deadline": "soon"}, {"deadline": "-1"}, {"deadline": "nan"}, {"canary": "0"}, {"canary": "101%"},
        {"canary": "x"}, {"revert": "perhaps"}, {"canary": "1", "blueGreen": "true"},
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused_by_its_name(given: dict[str, str]) -> None:
    name = next(iter(given))
    with pytest.raises(Invalid, match=name):
        read_policy({key: [value] for key, value in given.items()})
    with pytest.raises(Unprocessable) as refused:
        read_policy_labels([{f"corral.deploy.{key}": value for key, value in given.items()}])
    assert "corral.deploy." in refused.value.details["/labels"][0]


def test_a_share_of_a_canary_is_rounded_up() -> None:
    deployment = Deployment(id="d", version="v", steps=(), originals=(), policy=Policy(canary="10%"))
    assert pace_of(deployment, AppSpec(id="/a", instances=11)).new == 2
    assert pace_of(deployment, AppSpec(id="/a", instances=1)).new == 1


# Whatever happens, the capacities hold.


def _perform(app: App, pace: Pace, picks: list[int]) -> None:
    """One plan, carried out; then the world does something of its own."""
    for step in plan_restart(app, 1000, pace).steps:
        if isinstance(step, Start):
            put(app, step.count, Condition.SCHEDULED)
        elif isinstance(step, Stop):
            for instance_id in step.instances:
                instance = app.instances[instance_id]
                if instance.condition is Condition.SCHEDULED:
                    app.drop(instance_id)
                else:
                    app.place(replace(instance, goal=Goal.DECOMMISSIONED))
    ordered = sorted(app.instances.values(), key=lambda i: i.id)
    for pick in picks:
        if not ordered:
            return
        instance = app.instances.get(ordered[pick % len(ordered)].id)
        if instance is None:
            continue
        if instance.goal is Goal.DECOMMISSIONED:
            app.drop(instance.id)
        else:
            app.place(replace(instance, condition=Condition.RUNNING))


@settings(max_examples=80, deadline=None)
@given(
    wanted=st.integers(1, 12),
    minimum=st.floats(0, 1),
    over=st.floats(0, 1),
    canary=st.integers(1, 12),
    beside=st.booleans(),
    worlds=st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=25),
)
def test_the_capacities_hold_at_every_poll_of_a_canary_and_of_what_follows(
    wanted: int, minimum: float, over: float, canary: int, beside: bool, worlds: list[list[int]]
) -> None:
    app = make_app(wanted, minimum=minimum, over=over)
    put(app, wanted, Condition.RUNNING, OLD)
    pace = Pace(beside=True) if beside else Pace(new=min(canary, wanted))
    bounds = capacity(wanted, minimum, over, healthy=wanted)
    promoted = False
    for round_, picks in enumerate([*worlds, *[list(range(60))] * (6 * wanted + 6)]):
        if round_ == len(worlds) + 3 * wanted + 3:
            plan = plan_restart(app, 1000, pace)
            assert plan.held, "everything was done for it, so it waits to be promoted"
            new = len(app.up_to_date[Phase.RUNNING])
            assert new == (wanted if beside else min(canary, wanted))
            promoted = True
        _perform(app, FULL if promoted else pace, picks)
        healthy = len(app.up_to_date[Phase.RUNNING]) + len(app.outdated[Phase.RUNNING])
        assert healthy >= min(bounds.least_healthy, wanted)
        most = 2 * wanted if beside else max(bounds.most, wanted)
        assert len(app.instances) <= most
    assert len(app.up_to_date[Phase.RUNNING]) == wanted
    assert plan_restart(app, 1000).done


def test_a_canary_never_takes_more_places_than_its_share() -> None:
    app = make_app(10, minimum=0.5, over=0)
    put(app, 10, Condition.RUNNING, OLD)
    _perform(app, Pace(new=2), [])
    assert len(app.outdated[Phase.LEAVING]) == 2
    assert len(app.outdated[Phase.RUNNING]) == 8 >= math.ceil(10 * 0.5)
    assert app.record.config == NEW
