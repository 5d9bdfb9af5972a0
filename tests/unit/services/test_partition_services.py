"""What becomes of instances that are cut off: only ones are fenced, and on a return the app says who is too many."""

from random import Random
from typing import Any

import pytest

from corral.frameworks.services import Config, partition
from corral.frameworks.services.app_spec import AppSpec, PodContainer, PodSpec, Unreachable
from corral.frameworks.services.command_spec import DeleteApp, KillTasks, RestartApp
from corral.frameworks.services.record_spec import Condition, Goal
from corral.frameworks.services.state import task_id_of
from corral.lib.errors import Conflict, Unprocessable
from corral.model.ids import TaskId
from corral.model.partition import replace_after_s
from corral.model.task import Label, Reason, TaskState
from corral.runtime.core import Tick

ONLY = {"MARATHON_SINGLE_INSTANCE_APP": "true"}
GRACE_S = 3.0


def only(cluster: Any, **more: Any) -> TaskId:
    cluster.create(labels=ONLY, unreachableStrategy={"inactiveAfterSeconds": 20, "expungeAfterSeconds": 60}, **more)
    (task,) = cluster.run()
    return task


def labels(cluster: Any) -> dict[str, str | None]:
    return {label.key: label.value for label in cluster.launched[-1].labels}


def test_the_only_instance_tells_its_agent_when_to_end_it(cluster: Any) -> None:
    only(cluster)
    assert labels(cluster)["corral.stop-after"] == "20secs"
    assert cluster.launched[-1].kill_grace_s == GRACE_S


def test_without_a_number_of_its_own_the_configured_bound_holds(cluster: Any) -> None:
    cluster.create(labels=ONLY)
    cluster.run()
    assert labels(cluster)["corral.stop-after"] == "5mins"


def test_an_app_that_says_its_own_bound_has_that(cluster: Any) -> None:
    cluster.create(labels={**ONLY, "corral.stop-after": "90s"}, taskKillGracePeriodSeconds=7)
    cluster.run()
    stops = [label for label in cluster.launched[-1].labels if label.key == "corral.stop-after"]
    assert stops == [Label(key="corral.stop-after", value="90s")]
    (instance,) = cluster.running()
    assert instance.fence_s == replace_after_s(90.0, 7.0)


def test_a_disabled_strategy_neither_ends_nor_replaces_it(cluster: Any) -> None:
    cluster.create(labels=ONLY, unreachableStrategy="disabled")
    (task,) = cluster.run()
    assert "corral.stop-after" not in labels(cluster)
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.advance(1e6)
    assert cluster.wants == {}
    cluster.ask(KillTasks(app="/web"))
    cluster.settle()
    cluster.advance(1e6)
    assert cluster.wants == {}, "nobody knows whether it runs"
    cluster.update(task, TaskState.GONE_BY_OPERATOR, reason=Reason.AGENT_REMOVED_BY_OPERATOR)
    assert len(cluster.wants) == 1, "an operator knows"


def test_every_container_of_an_only_pod_has_the_bound_and_the_longest_grace_counts() -> None:
    containers = tuple(
        PodContainer(name=name, cpus=0.1, mem_mb=32.0, kill_grace_s=grace) for name, grace in (("a", None), ("b", 9.0))
    )
    spec = AppSpec(
        id="/pod",
        labels=ONLY,
        unreachable=Unreachable(inactive_after_s=20, expunge_after_s=60),
        pod=PodSpec(containers=containers),
    )
    assert partition.bound_labels(spec, Config()) == (Label(key="corral.stop-after", value="20secs"),)
    assert partition.fence_s(spec, Config()) == replace_after_s(20.0, 9.0)
    assert partition.container_grace_s(spec, None) == GRACE_S


def test_ordinary_apps_have_no_bound(cluster: Any) -> None:
    cluster.create()
    cluster.run()
    assert "corral.stop-after" not in labels(cluster)
    assert cluster.launched[-1].kill_grace_s is None


def test_an_ordinary_app_may_have_its_instances_ended_and_replaces_them_when_it_likes(cluster: Any) -> None:
    cluster.create(labels={"corral.stop-after": "2m"}, instances=2)
    first, _ = cluster.run()
    assert labels(cluster)["corral.stop-after"] == "2m"
    cluster.update(first, TaskState.UNREACHABLE)
    assert len(cluster.run()) == 1


def test_the_only_instance_is_replaced_after_its_bound_grace_and_margin(cluster: Any) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.UNREACHABLE, unreachable_at=cluster.now - 1e5)
    cluster.advance(replace_after_s(20.0, GRACE_S) - 0.2)
    assert cluster.wants == {}
    assert cluster.show()["tasks"][0]["state"] == "TASK_UNREACHABLE"
    cluster.advance(0.3)
    assert len(cluster.run()) == 1


def test_a_clock_that_is_set_replaces_nothing_early(cluster: Any) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.now += 1e6
    cluster.timers = {name: at + 1e6 for name, at in cluster.timers.items()}
    cluster.advance(10.0)
    assert cluster.wants == {}


def test_a_restarted_framework_waits_for_the_whole_bound_again(cluster: Any) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.advance(25.0)
    cluster.crash()
    cluster.subscribe()
    cluster.update(task, TaskState.UNREACHABLE, reason=Reason.RECONCILIATION)
    cluster.advance(replace_after_s(20.0, GRACE_S) - 1.0)
    assert cluster.wants == {}
    cluster.advance(1.5)
    assert len(cluster.run()) == 1


def test_one_that_is_back_in_time_runs_on_and_an_old_timer_counts_for_nothing(cluster: Any) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.advance(20.0)
    stale = next(name for name in cluster.timers if name.startswith("fence/"))
    cluster.update(task, TaskState.RUNNING, reason=Reason.AGENT_REREGISTERED)
    cluster.advance(5.0)
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.send(Tick(stale))
    assert cluster.wants == {}
    assert cluster.task_ids() == [task]
    cluster.update(task, TaskState.KILLED, reason=Reason.AGENT_DISCONNECTED, message="its agent was cut off")
    assert len(cluster.run()) == 1, "its agent has said so, and nobody is to blame"


@pytest.mark.parametrize("do", ["kill", "restart", "delete"])
def test_whoever_asks_for_its_end_the_next_one_waits_for_it(cluster: Any, do: str) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.UNREACHABLE)
    match do:
        case "kill":
            cluster.ask(KillTasks(app="/web"))
        case "restart":
            cluster.ask(RestartApp(id="/web", force=True))
        case _:
            cluster.ask(DeleteApp(id="/web"))
            cluster.settle()
            with pytest.raises(Conflict):
                cluster.create(labels=ONLY)
            cluster.create(labels=ONLY, force=True)
    cluster.settle()
    cluster.advance(20.0)
    assert cluster.wants == {}
    (instance,) = cluster.app().instances.values()
    assert instance.goal is Goal.DECOMMISSIONED
    cluster.advance(10.0)
    assert len(cluster.run()) == 1
    assert cluster.state.deployments == {}


def test_one_that_was_to_end_is_ended_when_its_agent_is_back(cluster: Any) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.ask(KillTasks(app="/web"))
    cluster.settle()
    assert cluster.killed == []
    cluster.update(task, TaskState.RUNNING, reason=Reason.AGENT_REREGISTERED)
    assert cluster.killed == [task]
    assert cluster.wants == {}
    cluster.advance(40.0)
    assert len(cluster.killed) > 1, "a kill that nobody answers is repeated"
    cluster.bury()
    assert len(cluster.run()) == 1


def test_the_next_only_instance_waits_for_the_grace_of_the_one_before(cluster: Any) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.KILLING, reason=Reason.AGENT_DRAINING)
    assert cluster.wants == {}
    cluster.update(task, TaskState.KILLED, reason=Reason.AGENT_DRAINING)
    assert len(cluster.run()) == 1


@pytest.mark.parametrize(
    ("state", "reason"),
    [(TaskState.GONE, Reason.AGENT_REMOVED), (TaskState.UNKNOWN, Reason.RECONCILIATION),
     (TaskState.LOST, Reason.AGENT_REMOVED)],
)  # fmt: skip
def test_an_end_that_nobody_has_seen_is_waited_out(cluster: Any, state: TaskState, reason: Reason) -> None:
    task = only(cluster)
    cluster.update(task, state, reason=reason)
    cluster.advance(20.0)
    assert cluster.wants == {}
    cluster.advance(10.0)
    assert len(cluster.run()) == 1


def test_an_end_that_its_agent_has_seen_needs_no_wait(cluster: Any) -> None:
    task = only(cluster)
    cluster.update(task, TaskState.GONE, reason=Reason.RECONCILIATION)
    assert len(cluster.run()) == 1


@pytest.mark.parametrize(
    ("field", "value"), [("corral.stop-after", "soon"), ("corral.stop-after", "0"), ("corral.on-return", "both")]
)
def test_a_label_that_says_nothing_is_refused_by_its_name(cluster: Any, field: str, value: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        cluster.create(labels={field: value})
    assert refused.value.details is not None
    assert list(refused.value.details) == [f"/labels/{field}"]


# Who goes when one comes back.


def replaced(cluster: Any, **more: Any) -> tuple[TaskId, TaskId, TaskId]:
    """The one that stayed, the one that was cut off, and the one that took its place."""
    cluster.create(instances=2, unreachableStrategy={"inactiveAfterSeconds": 10, "expungeAfterSeconds": 9000}, **more)
    stayed, cut = cluster.run()
    cluster.advance(100.0)
    cluster.update(cut, TaskState.UNREACHABLE)
    cluster.advance(11.0)
    (new,) = cluster.run()
    cluster.advance(5.0)
    return stayed, cut, new


@pytest.mark.parametrize(("choice", "goes"), [("old", "new"), ("new", "cut"), ("best", "new")])
def test_the_app_says_who_goes(cluster: Any, choice: str, goes: str) -> None:
    _, cut, new = replaced(cluster, labels={"corral.on-return": choice}, killSelection="OLDEST_FIRST")
    cluster.update(cut, TaskState.RUNNING, reason=Reason.AGENT_REREGISTERED)
    assert cluster.killed == [{"new": new, "cut": cut}[goes]]
    cluster.bury()
    assert len(cluster.running()) == 2
    cluster.advance(60.0)
    assert len(cluster.killed) == 1


def test_an_app_that_says_nothing_scales_down_as_ever(cluster: Any) -> None:
    _, cut, new = replaced(cluster)
    cluster.update(cut, TaskState.RUNNING, reason=Reason.AGENT_REREGISTERED)
    assert cluster.killed == [new]


def test_the_best_is_the_one_that_is_healthy(cluster: Any) -> None:
    check = {"protocol": "TCP", "portIndex": 0}
    _, cut, new = replaced(cluster, labels={"corral.on-return": "best"}, healthChecks=[check])
    cluster.update(new, TaskState.RUNNING, healthy=True)
    cluster.update(cut, TaskState.RUNNING, reason=Reason.AGENT_REREGISTERED, healthy=False)
    assert cluster.killed == [cut]


def test_the_new_one_is_not_kept_before_it_is_up(cluster: Any) -> None:
    cluster.create(
        instances=1, labels={"corral.on-return": "new"},
        unreachableStrategy={"inactiveAfterSeconds": 10, "expungeAfterSeconds": 9000},
    )  # fmt: skip
    (cut,) = cluster.run()
    cluster.update(cut, TaskState.UNREACHABLE)
    cluster.advance(11.0)
    assert len(cluster.wants) == 1
    cluster.update(cut, TaskState.RUNNING, reason=Reason.AGENT_REREGISTERED)
    assert cluster.wants == {}
    assert cluster.killed == []
    assert [i.condition for i in cluster.app().instances.values()] == [Condition.RUNNING]


# Anything at all.


class Nodes:
    """What really runs where, while the pretended master and the framework only hear of it."""

    def __init__(self, cluster: Any, random: Random) -> None:
        self.cluster = cluster
        self.random = random
        self.ends: dict[TaskId, float | None] = {}
        """The tasks that run; with the instant at which an agent that is cut off ends it."""
        self.seen = 0

    def look(self) -> None:
        for task_id, at in list(self.ends.items()):
            if at is not None and at <= self.cluster.now:
                del self.ends[task_id]
        for info in self.cluster.launched[self.seen :]:
            assert not self.ends, f"{info.task_id} starts while {sorted(self.ends)} may run"
            self.ends[info.task_id] = None
        self.seen = len(self.cluster.launched)

    def end(self, task_id: TaskId, state: TaskState, reason: Reason | None = None) -> None:
        self.ends.pop(task_id, None)
        self.cluster.update(task_id, state, reason=reason)

    def act(self) -> None:
        """One thing that may happen to a cluster."""
        cluster, random = self.cluster, self.random
        running = [t for t, at in self.ends.items() if at is None]
        away = [t for t, at in self.ends.items() if at is not None]
        match random.choice(["cut", "cut", "back", "fail", "kill", "restart", "crash", "bury", "delete", "drain"]):
            case "cut" if running:
                # The agent counts from before the master has given it up.
                self.ends[running[0]] = cluster.now + 23.0
                cluster.update(running[0], TaskState.UNREACHABLE)
            case "back" if away:
                self.ends[away[0]] = None
                cluster.update(away[0], TaskState.RUNNING, reason=Reason.AGENT_REREGISTERED)
            case "fail" if running:
                self.end(running[0], TaskState.FAILED)
            case "kill":
                cluster.ask(KillTasks(app="/web")) if "/web" in cluster.state.apps else None
            case "restart" if "/web" in cluster.state.apps:
                cluster.ask(RestartApp(id="/web", force=True))
            case "crash":
                cluster.crash()
                cluster.subscribe()
                for task_id in [t for t in cluster.task_ids() if t in away]:
                    cluster.update(task_id, TaskState.UNREACHABLE, reason=Reason.RECONCILIATION)
            case "bury" if running and running[0] in cluster.killed:
                self.end(running[0], TaskState.KILLED)
            case "delete":
                cluster.ask(DeleteApp(id="/web"))
                cluster.settle()
                only_again(cluster)
            case "drain" if running:
                cluster.update(running[0], TaskState.KILLING, reason=Reason.AGENT_DRAINING)


def only_again(cluster: Any) -> None:
    cluster.create(
        labels=ONLY, unreachableStrategy={"inactiveAfterSeconds": 20, "expungeAfterSeconds": 60}, force=True,
        backoffSeconds=0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_two_only_instances_never_run(cluster: Any, seed: int) -> None:
    random = Random(seed)
    nodes = Nodes(cluster, random)
    only_again(cluster)
    for _ in range(40):
        cluster.run()
        nodes.look()
        nodes.act()
        cluster.advance(random.expovariate(1 / 8.0))
        nodes.look()
    for _ in range(40):
        for task_id in [t for t, at in nodes.ends.items() if at is None and t in cluster.killed]:
            nodes.end(task_id, TaskState.KILLED)
        cluster.run()
        nodes.look()
        cluster.advance(5.0)
        nodes.look()
    assert len(nodes.ends) == 1, "in the end one runs"
    assert task_id_of(next(iter(cluster.app().instances.values()))) in nodes.ends
