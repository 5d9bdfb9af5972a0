"""An only instance whose agent is stopped: its supervisor ends it, and not before that another takes its place."""

import pytest

from corral.sim.containers import Container, SimRuntime
from corral.sim.histories import ONLY, History, app_of, only_app


def live_through_a_stop(history: History, stop_s: float) -> list[str]:
    """Where instances of the app started, with its first one's agent stopped meanwhile."""
    cluster, started = history.cluster, []
    see_start = cluster.ledger.on_start
    assert see_start is not None

    def see(node: str, container: Container) -> None:
        see_start(node, container)
        if app_of(container.execution.task_id) == ONLY:
            started.append(node)

    cluster.ledger.on_start = see
    cluster.start()
    history._put(only_app())
    assert cluster.run(10.0, lambda: bool(started))
    cluster.run(2.0)
    cluster.agents[started[0]].freeze(stop_s)
    cluster.run(stop_s - 0.5)
    return started


@pytest.mark.parametrize("seed", [2, 3])
def test_it_is_fenced_and_replaced_while_its_agent_is_stopped(seed: int) -> None:
    history = History(seed)
    first, second = live_through_a_stop(history, 30.0)
    assert first != second
    assert any("fences only." in line for line in history.cluster.world.story)
    assert history.cluster.run(60.0, lambda: not history.unsettled()), history.unsettled()


def test_without_its_supervisor_two_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimRuntime, "_look_at_bound", lambda self, container, bound: None)
    with pytest.raises(AssertionError, match="of which there may be one"):
        live_through_a_stop(History(2), 30.0)
