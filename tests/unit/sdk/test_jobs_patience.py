"""What waits is told of once it has waited long, and a master that says nothing of it is left."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from corral.model import calls, events
from corral.model.framework import FrameworkInfo
from corral.model.ids import FrameworkId, TaskId
from corral.runtime.core import Effect, Loaded, Note, SetTimer, Tick
from corral.sdk.effects import Connect, Disconnect
from corral.sdk.metrics import Counter, Gauge, Histogram, write_metrics
from corral.sdk.patience import MOST_TOLD, Patience, Waiting
from corral.sdk.scheduler import CONNECT, UNHEARD, Session

MASTER = events.MasterInfo(id="m", hostname="master", ip="127.0.0.1", port=4680, version="1")
SUBSCRIBED = events.Subscribed(framework_id=FrameworkId("F1"), heartbeat_interval_s=15.0, master=MASTER)


def wait(want: str = "w", since_at: float = 0.0, *, explained: bool = True) -> Waiting:
    return Waiting(want, since_at, 3, "a, b", "wants cpus 4, the most free is 1 on n1", explained)


def look(patience: Patience, waiting: list[Waiting], now: float, *, connected: bool = True) -> list[Effect]:
    return patience.look(waiting, now, slow_s=300.0, connected=connected)


def test_what_waits_long_is_told_once_with_its_reason_until_it_waits_anew() -> None:
    patience = Patience()
    assert look(patience, [wait()], 299.0) == []
    (note,) = look(patience, [wait()], 300.0)
    assert isinstance(note, Note)
    assert (note.what, note.why) == ("jobs wait long", "wants cpus 4, the most free is 1 on n1")
    assert note.facts == {"job": "a, b", "jobs": 3, "waited_s": 300, "want": "w"}
    assert look(patience, [wait()], 900.0) == []
    assert look(patience, [], 915.0) == []
    assert len(look(patience, [wait(since_at=1000.0)], 1300.0)) == 1


def test_of_many_only_the_oldest_are_told_at_a_time_and_the_rest_next() -> None:
    patience = Patience()
    many = [wait(f"w{n}", float(n)) for n in range(MOST_TOLD + 5)]
    first = look(patience, many, 1000.0)
    assert [note.facts["want"] for note in first if isinstance(note, Note)] == [f"w{n}" for n in range(MOST_TOLD)]
    assert len(look(patience, many, 1015.0)) == 5
    assert look(patience, many, 1030.0) == []


def test_silence_counts_from_the_first_look_that_finds_neither_an_offer_nor_a_reason() -> None:
    patience = Patience()
    quiet = [wait("v"), wait("w", explained=False)]
    look(patience, quiet, 15.0)
    assert patience.unheard_s(60.0) == 45.0
    patience.heard()
    assert patience.unheard_s(60.0) == 0.0
    look(patience, quiet, 75.0)
    look(patience, [wait("v"), wait("w")], 90.0)
    assert patience.unheard_s(120.0) == 0.0
    look(patience, quiet, 120.0)
    look(patience, quiet, 135.0, connected=False)
    assert patience.unheard_s(500.0) == 0.0


class Quiet:
    """A framework's core whose wants nobody hears of."""

    def __init__(self) -> None:
        self.silent_since: float | None = None

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        if isinstance(input, events.Subscribed):
            self.silent_since = now
        return ()

    def invariants(self) -> None:
        pass

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        return ()

    def is_live(self, task_id: TaskId) -> bool:
        return False

    def unheard_s(self, now: float) -> float:
        return 0.0 if self.silent_since is None else now - self.silent_since


def test_a_session_whose_wants_are_not_heard_of_subscribes_anew_ever_less_often() -> None:
    core = Quiet()
    session = Session(FrameworkInfo(user="root", name="f"), core, Random(1))
    session.handle(Loaded(), 0.0)
    now, breaks = 0.0, []
    effects = session.handle(SUBSCRIBED, now)
    while now < 2000.0:
        assert any(isinstance(e, SetTimer) and e.name == UNHEARD for e in effects)
        now += 15.0
        effects = session.handle(Tick(UNHEARD), now)
        if any(isinstance(e, Disconnect) for e in effects):
            breaks.append(now)
            assert any(isinstance(e, Connect) for e in session.handle(Tick(CONNECT), now))
            effects = session.handle(SUBSCRIBED, now)
    assert breaks[0] == 45.0
    gaps = [after - before for before, after in pairwise(breaks)]
    assert gaps == [90.0, 180.0, 360.0, 720.0]


def test_a_session_that_is_heard_of_stays_and_forgets_earlier_trouble() -> None:
    core = Quiet()
    session = Session(FrameworkInfo(user="root", name="f"), core, Random(1))
    session.handle(Loaded(), 0.0)
    session.handle(SUBSCRIBED, 0.0)
    assert any(isinstance(e, Disconnect) for e in session.handle(Tick(UNHEARD), 45.0))
    session.handle(SUBSCRIBED, 50.0)
    core.silent_since = None
    for at in range(65, 1000, 15):
        assert not any(isinstance(e, Disconnect) for e in session.handle(Tick(UNHEARD), float(at)))
    core.silent_since = 1000.0
    assert any(isinstance(e, Disconnect) for e in session.handle(Tick(UNHEARD), 1045.0))


@pytest.mark.parametrize("value", [0, 7, 999_999, 1_000_001, 123_456_789, 0.125])
def test_numbers_are_written_whole(value: float) -> None:
    text = write_metrics(
        [
            Gauge("corral_x_jobs", "Jobs", {"QUEUED": value, "RUNNING": 1}, "state"),
            Gauge("corral_x_live", "Live", {"": value}),
            Counter("corral_x_submitted_total", "Taken", value),
        ]
    ).decode()
    rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(rows['corral_x_jobs{state="QUEUED"}']) == value
    assert float(rows["corral_x_live"]) == value
    assert float(rows["corral_x_submitted_total"]) == value
    assert "# TYPE corral_x_submitted_total counter" in text


def test_a_histogram_counts_up_to_each_bound() -> None:
    text = write_metrics([Histogram("corral_x_s", "Wait", (0.1, 1.0), (2, 3, 4), 1_234_567.5)]).decode()
    rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert [float(rows[f'corral_x_s_bucket{{le="{bound}"}}']) for bound in ("0.1", "1.0", "+Inf")] == [2, 5, 9]
    assert (float(rows["corral_x_s_count"]), float(rows["corral_x_s_sum"])) == (9, 1_234_567.5)
