"""Upgrades through the whole core, while tasks fail and the leader dies at any step: at every look enough instances are
healthy and not too many are there, and the upgrade ends."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.frameworks.services.state import Phase
from corral.model.task import Reason, TaskState

CHECKS = [{"protocol": "MESOS_TCP", "portIndex": 0, "gracePeriodSeconds": 1}]
VOLUME = {"containerPath": "data", "mode": "RW", "persistent": {"size": 10}}


class Upgrade:
    """One app that is upgraded, and a world in which things happen one at a time."""

    def __init__(
        self, cluster: Any, wanted: int, minimum: float, over: float, seed: int, *, checks: bool, resident: bool
    ) -> None:
        self.random = Random(seed)
        self.cluster = cluster
        self.cluster.subscribe()
        self.resident = resident
        more: dict[str, Any] = {"healthChecks": CHECKS} if checks else {}
        if resident:
            more["container"] = {"type": "MESOS", "volumes": [VOLUME]}
        strategy = {"minimumHealthCapacity": minimum, "maximumOverCapacity": over}
        self.checks = checks
        self.cluster.create(instances=wanted, backoffSeconds=0, upgradeStrategy=strategy, **more)
        while self.cluster.state.deployments:
            self.step(0.0)
        lo = math.ceil(round(wanted * minimum, 9))
        hi = math.floor(round(wanted * (1 + over), 9))
        # Where both leave no room one more may run, or with volumes one fewer.
        self.least = lo - (resident and lo == hi)
        self.most = hi + (not resident and lo == hi)

    def healthy(self) -> int:
        """Healthy instances that nobody wants to end."""
        return self.cluster.app().count(Phase.RUNNING)

    def step(self, trouble: float) -> None:
        """One thing that happens: mostly in favour of the upgrade, now and then trouble."""
        cluster, random = self.cluster, self.random
        if random.random() < trouble:
            self.suffer()
            return
        starting = [t for t, info in cluster.tasks.items() if t not in self.seen_running()]
        dying = [t for t in cluster.killed if t in cluster.tasks]
        kind = random.random()
        if kind < 0.4 and starting:
            cluster.update(random.choice(starting), TaskState.RUNNING, healthy=True if self.checks else None)
        elif kind < 0.7 and dying:
            cluster.update(random.choice(dying), TaskState.KILLED)
        elif self.resident and cluster.reserved and kind < 0.85:
            cluster.offer_reserved()
        else:
            cluster.offer(most=1)
        cluster.advance(0.1)

    def seen_running(self) -> set[str]:
        found = set()
        for instance in self.cluster.app().instances.values():
            if instance.condition == "Running" and (not self.checks or instance.healthy):
                found.update(t for t in self.cluster.tasks if t.startswith(f"{instance.id}."))
        return found

    def suffer(self) -> None:
        if self.random.random() < 0.5:
            self.die()
        elif self.cluster.tasks:
            self.cluster.update(self.random.choice(list(self.cluster.tasks)), TaskState.FAILED)

    def die(self) -> None:
        """The leader dies; the next one reconciles."""
        cluster, ran = self.cluster, self.seen_running()
        cluster.crash()
        cluster.subscribe()
        for task in list(cluster.core.live_tasks()):
            state = TaskState.GONE
            if task.task_id in cluster.tasks:
                state = TaskState.RUNNING if task.task_id in ran else TaskState.STAGING
            healthy = True if self.checks and state is TaskState.RUNNING else None
            cluster.update(task.task_id, state, reason=Reason.RECONCILIATION, healthy=healthy)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.integers(1, 6),
    minimum=st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]),
    over=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    trouble=st.sampled_from([0.0, 0.0, 0.15]),
    checks=st.booleans(),
    resident=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_both_capacities_hold_at_every_look_at_an_upgrade_that_ends(
    make_cluster: Any, wanted: int, minimum: float, over: float, trouble: float, checks: bool, resident: bool, seed: int
) -> None:
    world = Upgrade(make_cluster(), wanted, minimum, 0.0 if resident else over, seed, checks=checks, resident=resident)
    cluster = world.cluster
    before = world.healthy()
    cluster.update_app(cmd="sleep 2000")
    for _ in range(600):
        after = world.healthy()
        # What fails by itself may bring fewer than that; what is ended on purpose may not.
        lost = max(0, before - 1) if trouble else before
        assert after >= min(lost, world.least), f"{after} healthy, {world.least} have to be"
        running = len(cluster.tasks)
        assert running <= world.most, f"{running} tasks, {world.most} may be"
        if not cluster.state.deployments:
            break
        before = after
        world.step(trouble)
        if trouble and cluster.now - 1_700_000_000.0 > 30:
            trouble = 0.0
    assert not cluster.state.deployments, "it does not end"
    assert all(task.command.value == "sleep 2000" for task in cluster.tasks.values() if task.command is not None)
    assert len(cluster.running()) == wanted


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("checks", [False, True])
def test_a_leader_that_dies_after_every_single_step_of_a_deployment_still_ends_it(
    make_cluster: Any, checks: bool, resident: bool
) -> None:
    for dies_at in range(40):
        world = Upgrade(make_cluster(), 3, 0.5, 0.0, 7, checks=checks, resident=resident)
        world.cluster.update_app(cmd="sleep 2000")
        for step in range(400):
            if step == dies_at:
                world.die()
            if not world.cluster.state.deployments:
                break
            world.step(0.0)
        assert not world.cluster.state.deployments, f"it does not end after a death at step {dies_at}"
        assert len(world.cluster.running()) == 3
