"""An instance that fails is tried again where it failed, then elsewhere; nodes where everything fails are avoided."""

from typing import Any

import pytest

from corral.frameworks.services.command_spec import GetQueue, ResetDelay
from corral.lib.errors import Unprocessable
from corral.model.constraints import Operator
from corral.model.ids import TaskId
from corral.model.offer import Want
from corral.model.task import Reason, TaskState
from corral.sdk.node_records import KEEP_S


def wishes(want: Want) -> dict[str, tuple[str, ...]]:
    """Where it would rather go: by the operator, only what is soft."""
    assert all(c.field == "@hostname" for c in want.constraints if c.weight)
    return {str(c.operator): c.values for c in want.constraints if c.weight}


def fail(cluster: Any, task_id: TaskId, after_s: float = 1.0, state: TaskState = TaskState.FAILED) -> None:
    cluster.advance(after_s)
    cluster.update(task_id, state, message="Command exited with status 1")
    cluster.advance(1.1)


def host_of(cluster: Any) -> str:
    (instance,) = cluster.running()
    return str(instance.hostname)


def start(cluster: Any, **more: Any) -> str:
    cluster.create(backoffSeconds=1, backoffFactor=1, **more)
    cluster.run()
    return host_of(cluster)


def test_a_failed_instance_would_rather_go_back_to_its_node(cluster: Any) -> None:
    node = start(cluster)
    fail(cluster, *cluster.task_ids())
    (want,) = cluster.wants.values()
    assert wishes(want) == {"in": (node,)}
    assert want.count == 1


def test_after_its_retries_it_moves_and_shuns_the_node(cluster: Any) -> None:
    node = start(cluster, labels={"corral.local-retries": "1"})
    cluster.notes.clear()
    for _ in range(2):
        fail(cluster, *cluster.task_ids())
        (want,) = cluster.wants.values()
        if wishes(want) == {"in": (node,)}:
            cluster._offers = int(node[-1]) - 1  # the next offer is of the same node
            cluster.run()
            assert host_of(cluster) == node
    assert wishes(want) == {"!=": (node,)}
    (moved,) = [n for n in cluster.notes if n.what == "instance moves"]
    assert "2 starts in a row failed" in moved.why
    assert "status 1" in moved.why


def test_without_retries_it_moves_at_once(cluster: Any) -> None:
    node = start(cluster, labels={"corral.local-retries": "0"})
    fail(cluster, *cluster.task_ids())
    (want,) = cluster.wants.values()
    assert wishes(want) == {"!=": (node,)}


def test_only_those_that_failed_there_wish_to_go_back(cluster: Any) -> None:
    cluster.create(instances=3, backoffSeconds=1)
    first, *_ = cluster.run()
    node = next(i.hostname for i in cluster.running() if i.id in first)
    cluster.update(first, TaskState.FAILED)
    cluster.update_app(instances=6, force=True)
    cluster.advance(2.0)
    found = sorted((want.count, tuple(wishes(want).values())) for want in cluster.wants.values())
    assert found == [(1, ((node,),)), (3, ())]
    assert len(cluster.run()) == 4
    assert cluster.wants == {}


def test_an_end_that_the_node_is_not_to_blame_for_binds_nobody_to_it(cluster: Any) -> None:
    start(cluster)
    for state, reason in (
        (TaskState.FINISHED, None), (TaskState.KILLED, None), (TaskState.GONE, Reason.RECONCILIATION),
        (TaskState.DROPPED, Reason.INVALID_OFFERS),
    ):  # fmt: skip
        (task,) = cluster.task_ids()
        cluster.update(task, state, reason=reason)
        cluster.advance(2.0)
        (want,) = cluster.wants.values()
        assert wishes(want) == {}
        cluster.run()


def test_a_long_life_begins_to_count_anew(cluster: Any) -> None:
    node = start(cluster, labels={"corral.local-retries": "1"})
    for _ in range(4):
        fail(cluster, *cluster.task_ids(), after_s=1000.0)
        (want,) = cluster.wants.values()
        assert wishes(want) == {"in": (node,)}
        cluster._offers = int(node[-1]) - 1
        cluster.run()


def test_a_node_where_every_app_fails_is_avoided_by_all_and_said_so(cluster: Any) -> None:
    for name in ("/a", "/b", "/c"):
        cluster.create(id=name, backoffSeconds=1, backoffFactor=1)
    cluster.notes.clear()
    for _ in range(2):
        for info in cluster.launched[:]:
            if info.task_id in cluster.tasks:
                cluster.update(info.task_id, TaskState.RUNNING)
                cluster.update(info.task_id, TaskState.FAILED, message="no such file")
        cluster.advance(1.1)
        cluster.offer(hosts=1)
    for info in cluster.launched[:]:
        if info.task_id in cluster.tasks:
            cluster.update(info.task_id, TaskState.FAILED, message="no such file")
    (note,) = [n for n in cluster.notes if n.what == "node is avoided"]
    assert note.facts == {"node": "host0"}
    cluster.create(id="/fresh")
    want = next(w for w in cluster.wants.values() if w.group == "/fresh")
    assert wishes(want) == {"!=": ("host0",)}
    item = next(i for i in cluster.ask(GetQueue()) if i["app"]["id"] == "/fresh")
    (reason,) = [r for r in item["processedOffersSummary"]["reasons"] if r["reason"] == "avoided"]
    assert "host0" in reason["detail"]
    assert "3 different ones" in reason["detail"]
    found = cluster.core.state.nodes.avoided(None, cluster.now)
    assert [a.hostname for a in found if a.subject is None] == ["host0"]
    cluster.advance(KEEP_S)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    assert wishes(next(w for w in cluster.wants.values() if w.group == "/fresh")) == {"!=": ("host0",)}


@pytest.mark.parametrize("off_s", [-7200.0, 7200.0])
def test_a_node_whose_clock_is_wrong_is_judged_by_how_long_things_live_there(cluster: Any, off_s: float) -> None:
    """The instants of a start and of an end are the node's own, so only what lies between them counts."""
    cluster.create(id="/slow", backoffSeconds=1, backoffFactor=1)
    cluster.offer(hosts=1)
    (task,) = cluster.task_ids("/slow")
    for lived_s, avoided in ((1000.0, 0), (1.0, 1)):
        cluster.update(task, TaskState.RUNNING, at=cluster.now + off_s)
        cluster.advance(lived_s)
        cluster.update(task, TaskState.FAILED, message="status 1", at=cluster.now + off_s)
        assert len(list(cluster.state.nodes.failures("host0"))) == avoided
        cluster.advance(2.0)
        cluster.offer(hosts=1)
        (task,) = cluster.task_ids("/slow")


def test_a_new_definition_and_a_reset_delay_shun_nothing(cluster: Any) -> None:
    node = start(cluster, labels={"corral.local-retries": "0"})
    fail(cluster, *cluster.task_ids())
    cluster.ask(ResetDelay(id="/web"))
    cluster.settle()
    (want,) = cluster.wants.values()
    assert wishes(want) == {}
    cluster.run()
    fail(cluster, *cluster.task_ids())
    (want,) = cluster.wants.values()
    assert "!=" in wishes(want)
    cluster.update_app(cmd="sleep 2000", force=True)
    cluster.advance(2.0)
    (want,) = cluster.wants.values()
    assert wishes(want) == {}
    assert node


def test_hard_constraints_of_the_app_stay_beside_the_wishes(cluster: Any) -> None:
    start(cluster, constraints=[["rack", "LIKE", "r1"], ["hostname", "UNIQUE"]])
    fail(cluster, *cluster.task_ids())
    (want,) = cluster.wants.values()
    assert [(c.field, c.operator) for c in want.constraints if not c.weight] == [
        ("rack", Operator.MATCH), ("@hostname", Operator.UNIQUE)
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "", "1001", "9" * 40, "²"])
def test_a_number_of_retries_that_is_none_is_refused(cluster: Any, value: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        cluster.create(labels={"corral.local-retries": value})
    assert list(refused.value.details or {}) == ["/labels/corral.local-retries"]
