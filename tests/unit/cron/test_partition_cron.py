"""The next attempt of a job is made elsewhere if there is room, and a node where every job fails is used last."""

from typing import Any

from corral.model.constraints import Operator
from corral.sdk.node_records import KEEP_S

HOURLY = "R/2026-01-01T01:00:00Z/PT1H"


def wishes(cluster: Any) -> list[tuple[Operator, tuple[str, ...]]]:
    return [(c.operator, c.values) for want in cluster.wants.values() for c in want.constraints if c.weight]


def test_a_retry_would_rather_run_elsewhere(cluster) -> None:
    cluster.put("a", schedule=HOURLY, retries=1, retryDelay=1)
    cluster.advance(3600)
    cluster.start()
    (run,) = cluster.job("a").runs.values()
    node = run.hostname
    cluster.fail()
    cluster.advance(1.2)
    assert wishes(cluster) == [(Operator.UNEQUAL, (node,))]
    cluster.start()
    cluster.finish()
    cluster.advance(3600)
    assert cluster.wanted() == 1


def test_a_long_run_that_fails_is_no_fault_of_its_node(cluster) -> None:
    cluster.put("a", schedule=HOURLY, retries=1, retryDelay=1)
    cluster.advance(3600)
    cluster.start()
    cluster.advance(600)
    cluster.fail()
    cluster.advance(1.2)
    assert cluster.wanted() == 1
    assert wishes(cluster) == []


def test_a_node_where_every_job_fails_is_used_last_until_one_succeeds_there(cluster) -> None:
    names = ["a", "b", "c"]
    for name in names:
        cluster.put(name, schedule=HOURLY, retries=0)
    cluster.advance(3600)
    nodes = cluster.core.state.nodes
    for name in names:
        nodes.fail(name, "host9", 0.0, cluster.now)
    assert nodes.bad == {}
    for name in names:
        nodes.fail(name, "host9", 0.0, cluster.now)
    cluster.put("d", schedule="R1//PT1M")
    cluster.advance(1.0)
    assert (Operator.UNEQUAL, ("host9",)) in wishes(cluster)
    cluster.advance(KEEP_S)
    cluster.crash()
    cluster.subscribe()
    cluster.advance(1.0)
    assert (Operator.UNEQUAL, ("host9",)) in wishes(cluster)
    nodes = cluster.core.state.nodes
    nodes.last("d", "host9", cluster.now)
    cluster.put("e", schedule="R1//PT1M")
    cluster.advance(1.0)
    assert (Operator.UNEQUAL, ("host9",)) not in wishes(cluster)
