"""Durations are summed up as monitoring of Mesos reads them."""

from corral.lib.timings import MOST_KEPT, Timings


def test_without_any_all_numbers_are_there_and_nothing() -> None:
    found = Timings().read("run_ms")
    assert set(found.values()) == {0.0}
    parts = ("count", "min", "max", "p50", "p90", "p95", "p99", "p999", "p9999")
    assert list(found) == ["run_ms", *(f"run_ms/{part}" for part in parts)]


def test_percentiles_lie_between_the_durations_around_them() -> None:
    timings = Timings()
    for ms in (4, 1, 3, 2, 5):
        timings.add(ms / 1000)
    found = {name: round(value, 6) for name, value in timings.read("t").items()}
    assert (found["t"], found["t/count"], found["t/min"], found["t/max"]) == (5.0, 5.0, 1.0, 5.0)
    assert (found["t/p50"], found["t/p90"], found["t/p99"]) == (3.0, 4.6, 4.96)


def test_only_the_newest_count() -> None:
    timings = Timings()
    for second in range(MOST_KEPT + 500):
        timings.add(float(second))
    found = timings.read("t")
    assert (found["t/count"], found["t/min"]) == (MOST_KEPT, 500_000.0)
