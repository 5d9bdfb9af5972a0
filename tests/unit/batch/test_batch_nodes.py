"""A node where jobs fail at once is used last: by those that fail only there, by all when several owners do."""

from typing import Any

from corral.model.constraints import Operator
from corral.model.ids import TaskId
from corral.model.task import TaskState
from corral.sdk.node_records import KEEP_S
from corral.sdk.nodes import SHUN_S

HOST = "host1"


def place(cluster: Any, owner: str = "ann", host: str = HOST, **job: Any) -> TaskId:
    """Launch one job on this node."""
    job_id = cluster.one(owner=owner, **job)
    cluster._offers = {"host0": 2, "host1": 0, "host2": 1}[host]
    cluster.offer(1)
    task: TaskId = next(t for t in cluster.tasks if t.startswith(job_id))
    assert cluster.state.active[task].run.hostname == host
    return task


def run(cluster: Any, state: TaskState, lived_s: float = 1.0, **more: Any) -> None:
    task = place(cluster, **more)
    cluster.update(task, TaskState.RUNNING)
    cluster.advance(lived_s)
    cluster.update(task, state, message="Command exited with status 1")


def wishes(cluster: Any) -> list[tuple[str, ...]]:
    """What a fresh job would rather not be offered."""
    job_id = cluster.one(owner="new")
    found = [c.values for w in cluster.wants.values() for c in w.constraints if c.operator is Operator.UNEQUAL]
    cluster.kill(job_id)
    return found


def test_three_failures_in_a_row_on_one_node_alone_make_it_the_last_one(cluster) -> None:
    for _ in range(2):
        run(cluster, TaskState.FAILED)
        assert wishes(cluster) == []
    run(cluster, TaskState.FAILED)
    assert wishes(cluster) == [(HOST,)]
    (avoided,) = cluster.stats()["avoided"]
    assert avoided["hostname"] == HOST
    assert "jobs of ann fail there at once and nowhere else" in avoided["reason"]
    assert [n.facts["node"] for n in cluster.notes if n.what == "node is avoided"] == [HOST]
    cluster.advance(SHUN_S + 1.0)
    assert wishes(cluster) == []


def test_what_fails_everywhere_avoids_no_node(cluster) -> None:
    for n in range(30):
        run(cluster, TaskState.FAILED, host=f"host{n % 3}")
    assert (wishes(cluster), cluster.stats()["avoided"]) == ([], [])


def test_a_success_there_or_a_long_life_counts_for_the_node(cluster) -> None:
    for _ in range(5):
        run(cluster, TaskState.FAILED)
        run(cluster, TaskState.FAILED)
        run(cluster, TaskState.FINISHED)
    for _ in range(5):
        run(cluster, TaskState.FAILED, lived_s=100.0)
    assert (wishes(cluster), cluster.stats()["avoided"]) == ([], [])


def test_what_somebody_killed_says_nothing_of_a_node(cluster) -> None:
    for _ in range(5):
        run(cluster, TaskState.KILLED)
    assert cluster.stats()["avoided"] == []


def test_a_success_of_such_jobs_ends_it(cluster) -> None:
    for _ in range(3):
        run(cluster, TaskState.FAILED)
    assert wishes(cluster) == [(HOST,)]
    run(cluster, TaskState.FINISHED)
    assert wishes(cluster) == []


def test_a_node_where_jobs_of_three_owners_fail_is_the_last_one_for_all(cluster) -> None:
    for owner in ("ann", "bob", "cid") * 2:
        run(cluster, TaskState.FAILED, owner=owner, cpus=0.5)
    assert wishes(cluster) == [(HOST,)], "also for jobs of other needs"
    assert any("3 different ones failed there" in n.why for n in cluster.notes if n.what == "node is avoided")


def test_the_next_leader_knows_it(cluster) -> None:
    for _ in range(3):
        run(cluster, TaskState.FAILED)
    cluster.advance(KEEP_S)
    cluster.crash()
    cluster.subscribe()
    cluster.advance(1.0)
    assert wishes(cluster) == [(HOST,)]
