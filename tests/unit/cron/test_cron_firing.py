"""What fires when: schedules, missed firings, epsilon, concurrency, run-now, disabled jobs, backfill."""

import pytest
from cron_driver import due_of, job_of

from corral.frameworks.cron.spec import GetNext, PurgeQueue, StartBackfill, StopBackfill
from corral.lib.errors import Conflict, Invalid
from corral.lib.units import parse_timestamp
from corral.model import events
from corral.model.task import TaskState


def ms(text: str) -> int:
    return round(parse_timestamp(text) * 1000)


def test_a_job_fires_at_its_occurrences_and_at_no_other_time(cluster) -> None:
    cluster.put("tick", schedule="R3/2026-01-01T01:00:00Z/PT1H")
    assert cluster.wanted() == 0
    for hour in (1, 2, 3):
        cluster.advance(3600 - 60 if hour == 1 else 3600 - 0.5)
        cluster.advance(61 if hour == 1 else 0.5)
        (task,) = cluster.start()
        assert due_of(task) == f"2026-01-01T0{hour}:00:00"
        assert cluster.environment(task)["CHRONOS_JOB_RUN_TIME"] == str(ms(f"2026-01-01T0{hour}:00:00Z"))
        cluster.finish()
    cluster.advance(86400)
    assert cluster.wanted() == 0
    assert cluster.show("tick")["disabled"] is True
    assert cluster.show("tick")["schedule"].startswith("R0/")
    assert cluster.show("tick")["successCount"] == 3


def test_a_firing_is_persisted_before_it_is_launched_and_answered_after_it_is_persisted(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T00:00:10Z/PT1H")
    assert {"job/a", "progress/a"} <= set(cluster.records)
    cluster.advance(10)
    assert not [key for key in cluster.records if key.startswith("run/")]
    cluster.offer()
    assert len([key for key in cluster.records if key.startswith("run/")]) == 1


def test_the_shown_schedule_moves_on_and_counts_down(cluster) -> None:
    cluster.put("a", schedule="R5/2026-01-01T01:00:00Z/PT1H")
    assert cluster.show("a")["schedule"] == "R5/2026-01-01T01:00:00.000Z/PT1H"
    cluster.advance(3600)
    cluster.cycle()
    assert cluster.show("a")["schedule"] == "R4/2026-01-01T02:00:00.000Z/PT1H"


def test_any_number_of_missed_occurrences_is_one_run_and_the_grid_stays(cluster) -> None:
    cluster.put("a", schedule="R/2014-01-01T00:00:00Z/PT60M")
    (task,) = cluster.start()
    assert due_of(task) == "2026-01-01T00:00:00"
    cluster.finish()
    assert cluster.wanted() == 0
    cluster.advance(3600)
    (task,) = cluster.start()
    assert due_of(task) == "2026-01-01T01:00:00"
    cluster.finish()
    cluster.crash(5 * 3600 + 600)
    cluster.subscribe()
    (task,) = cluster.start()
    assert due_of(task) == "2026-01-01T06:00:00"
    cluster.finish()
    assert cluster.wanted() == 0


def test_missed_occurrences_do_not_use_up_a_finite_count(cluster) -> None:
    cluster.put("a", schedule="R3/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(10 * 3600)
    cluster.cycle()
    assert cluster.show("a")["schedule"].startswith("R2/2026-01-01T11:00:00")


def test_with_misfire_all_each_missed_occurrence_runs_in_order(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", misfirePolicy="all")
    cluster.advance(3 * 3600 + 60)
    ran = []
    while cluster.wanted():
        (task,) = cluster.start()
        ran.append(due_of(task)[11:13])
        cluster.finish()
    assert ran == ["01", "02", "03"]


def test_with_misfire_skip_what_is_more_than_a_minute_late_is_forgotten(cluster) -> None:
    cluster.put("a", schedule="R3/2026-01-01T01:00:00Z/PT1H", misfirePolicy="skip")
    cluster.crash(3600 + 59)
    cluster.subscribe()
    assert cluster.cycle() == ["a"]
    cluster.crash(3600 + 10)
    cluster.subscribe()
    assert cluster.wanted() == 0
    assert cluster.told("firing skipped")
    assert cluster.show("a")["schedule"].startswith("R2/2026-01-01T03:00:00")
    cluster.advance(3540)
    assert cluster.cycle() == ["a"]


def test_epsilon_bounds_how_long_a_firing_waits_for_resources(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", epsilon="PT5M")
    cluster.advance(3600)
    assert cluster.wanted() == 1
    cluster.advance(299)
    assert cluster.wanted() == 1
    cluster.advance(2)
    assert cluster.wanted() == 0
    assert cluster.summary("a") == ("fresh", "idle")
    cluster.advance(3600 - 301)
    assert cluster.cycle() == ["a"]


def test_epsilon_with_misfire_all_runs_only_what_is_young_enough(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T00:10:00Z/PT10M", misfirePolicy="all", epsilon="PT25M")
    cluster.crash(3600 + 60)
    cluster.subscribe()
    ran = []
    while cluster.wanted():
        (task,) = cluster.start()
        ran.append(due_of(task)[11:16])
        cluster.finish()
    assert ran == ["00:40", "00:50", "01:00"]


def test_an_offer_that_comes_too_late_for_a_firing_is_given_back(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", epsilon="PT5M")
    cluster.advance(3600)
    offers = cluster.make_offers()
    cluster.now += 400
    cluster.send(events.Offers(offers=offers))
    assert cluster.tasks == {}
    assert cluster.declined == [offers[0].id]


def test_a_cron_line_fires_in_its_zone(cluster) -> None:
    cluster.put("a", schedule="30 9 * * MON-FRI", scheduleTimeZone="America/New_York")
    assert cluster.show("a")["schedule"] == "30 9 * * MON-FRI"
    found = cluster.ask(GetNext(name="a", count=3))["next"]
    assert [n["at"] for n in found] == [
        "2026-01-01T14:30:00.000Z", "2026-01-02T14:30:00.000Z", "2026-01-05T14:30:00.000Z",
    ]  # fmt: skip
    assert found[0]["local"] == "2026-01-01T09:30:00.000-05:00"
    cluster.advance(14.5 * 3600)
    (task,) = cluster.start()
    assert due_of(task) == "2026-01-01T14:30:00"


def test_a_cron_line_does_not_make_up_for_what_was_before_it_was_created(cluster) -> None:
    cluster.put("a", schedule="0 * * * *")
    assert cluster.wanted() == 0


# Concurrency.


def test_forbidden_to_overlap_a_firing_waits_for_the_run_before_it_and_many_are_one(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(3600)
    (first,) = cluster.start()
    cluster.advance(3 * 3600 + 60)
    assert cluster.wanted() == 0
    assert cluster.summary("a") == ("fresh", "1 running")
    cluster.finish(first)
    (second,) = cluster.start()
    assert due_of(second) == "2026-01-01T04:00:00"
    cluster.finish(second)
    assert cluster.wanted() == 0


def test_allowed_to_overlap_runs_stand_side_by_side(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", concurrent=True)
    for _ in range(3):
        cluster.advance(3600)
        cluster.start()
    assert cluster.summary("a")[1] == "3 running"
    assert cluster.show("a")["concurrent"] is True


def test_a_job_that_may_no_longer_overlap_lets_its_runs_end_first(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", concurrent=True)
    for _ in range(2):
        cluster.advance(3600)
        cluster.start()
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(3600)
    first, second = cluster.tasks
    cluster.finish(first)
    assert cluster.wanted() == 0
    cluster.finish(second)
    assert cluster.wanted() == 1


def test_the_clock_forgets_what_no_longer_counts(cluster) -> None:
    cluster.put("a", schedule="R/2030-01-01T00:00:00Z/P1D", retryDelay=1, retries=9)
    for _ in range(560):
        cluster.run_now("a")
        cluster.cycle(TaskState.FAILED)
        cluster.advance(1.1)
        cluster.cycle()
    assert len(cluster.state.heap) <= 1002 + 1


def test_a_replacing_firing_ends_the_run_before_it_and_never_runs_beside_it(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", concurrencyPolicy="replace")
    cluster.advance(3600)
    (first,) = cluster.start()
    cluster.advance(3600)
    assert cluster.killed == [first]
    assert cluster.wanted() == 0
    cluster.bury()
    (second,) = cluster.start()
    assert due_of(second) == "2026-01-01T02:00:00"
    assert cluster.history("a")["attempts"][0]["result"] == "killed"
    assert cluster.show("a")["errorCount"] == 0


def test_a_replacing_firing_takes_the_place_of_a_retry(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", concurrencyPolicy="replace", retryDelay=7200)
    cluster.advance(3600)
    cluster.cycle(TaskState.FAILED)
    assert cluster.summary("a")[1] == "queued"
    cluster.advance(3600)
    (task,) = cluster.start()
    assert task.split(":")[2] == "0"
    cluster.finish()
    cluster.advance(1800)
    assert cluster.wanted() == 0


def test_the_last_firing_of_a_job_may_end_by_being_replaced(cluster) -> None:
    cluster.put("a", schedule="R1/2026-01-01T01:00:00Z/PT1H", concurrencyPolicy="replace", retryDelay=7200)
    cluster.advance(3600)
    cluster.cycle(TaskState.FAILED)
    assert cluster.show("a")["disabled"] is False
    cluster.run_now("a", arguments="other")
    cluster.settle()
    assert cluster.show("a")["disabled"] is True


# Asked for.


def test_run_now_runs_at_once_and_leaves_schedule_and_count_alone(cluster) -> None:
    cluster.put("a", schedule="R5/2026-02-01T00:00:00Z/P1D")
    cluster.run_now("a", arguments="--fast")
    (task,) = cluster.start()
    assert task.split(":")[4] == "--fast"
    assert cluster.launched[0].command.value == "echo a --fast"
    cluster.finish()
    assert cluster.show("a")["schedule"] == "R5/2026-02-01T00:00:00.000Z/P1D"
    assert cluster.show("a")["successCount"] == 1


def test_run_now_of_a_job_that_waits_already_is_passed_over(cluster) -> None:
    cluster.put("a", schedule="R/2026-02-01T00:00:00Z/P1D")
    cluster.run_now("a")
    cluster.run_now("a")
    assert cluster.wanted() == 1
    cluster.run_now("a", arguments="other")
    assert cluster.cycle() == ["a"]
    assert cluster.cycle() == ["a"]
    assert cluster.cycle() == []


def test_run_now_of_a_disabled_or_unknown_job_runs_nothing(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T00:00:00Z/P1D", disabled=True)
    cluster.run_now("a")
    assert cluster.wanted() == 0
    with pytest.raises(Invalid, match="'b' does not exist"):
        cluster.run_now("b")


def test_run_now_survives_a_crash_before_it_is_launched(cluster) -> None:
    cluster.put("a", schedule="R/2026-02-01T00:00:00Z/P1D")
    cluster.run_now("a")
    cluster.recover()
    assert cluster.cycle() == ["a"]
    assert cluster.cycle() == []


def test_a_job_without_schedule_and_parents_runs_once_now(cluster) -> None:
    cluster.put("a")
    assert cluster.cycle() == ["a"]
    assert cluster.show("a")["disabled"] is True
    cluster.put("a")
    assert cluster.cycle() == ["a"]


def test_a_parked_job_is_never_fired_and_not_disabled_by_a_run(cluster) -> None:
    cluster.put("a", schedule="R0/2014-01-01T00:00:00Z/PT1H")
    assert cluster.wanted() == 0
    cluster.run_now("a")
    assert cluster.cycle() == ["a"]
    assert cluster.show("a")["disabled"] is False


def test_disabling_a_job_drops_what_waits_of_it_and_enabling_it_goes_on(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(3600)
    cluster.run_now("a")
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", disabled=True)
    assert cluster.wanted() == 0
    cluster.advance(3600)
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H")
    assert cluster.cycle() == ["a"]
    assert cluster.cycle() == []


def test_purging_drops_all_that_waits_and_a_crash_does_not_bring_it_back(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H")
    cluster.put("b", schedule="R/2026-02-01T00:00:00Z/P1D")
    cluster.advance(3600)
    cluster.run_now("b")
    assert cluster.wanted() == 2
    cluster.ask(PurgeQueue())
    records = dict(cluster.records)
    cluster.settle()
    assert cluster.wanted() == 0
    cluster.records = records
    cluster.recover(60)
    assert cluster.wanted() == 0
    cluster.put("c", schedule="R/2014-01-01T00:00:00Z/P1D")
    assert cluster.cycle() == ["c"]
    cluster.advance(3600)
    assert cluster.cycle() == ["a"]


# Parameters and backfill.


def test_parameters_have_defaults_and_are_seen_by_the_task(cluster) -> None:
    cluster.put(
        "a", schedule="R/2026-02-01T00:00:00Z/P1D",
        parameters=[{"name": "day", "default": "today"}, {"name": "mode"}],
    )  # fmt: skip
    with pytest.raises(Invalid, match="needs a value for mode"):
        cluster.run_now("a")
    with pytest.raises(Invalid, match="has no parameter colour; it has day, mode"):
        cluster.run_now("a", mode="x", colour="red")
    with pytest.raises(Invalid, match="cannot be split into words"):
        cluster.run_now("a", "'half", mode="x")
    with pytest.raises(Invalid, match="NUL"):
        cluster.run_now("a", "a\0b", mode="x")
    with pytest.raises(Invalid, match="NUL"):
        cluster.run_now("a", mode="\0")
    cluster.run_now("a", mode="full")
    (task,) = cluster.start()
    assert {k: v for k, v in cluster.environment(task).items() if k in ("day", "mode")} == {
        "day": "today", "mode": "full",
    }  # fmt: skip
    assert cluster.history("a")["unfinished"][0]["parameters"] == {"mode": "full"}
    cluster.finish()
    cluster.run_now("a", "now " * 500, mode="x" * 2000)
    cluster.start()
    cluster.finish()
    long, short = cluster.history("a")["attempts"][:2]
    assert (short["arguments"], short["parameters"]) == ("", {"mode": "full"})
    assert (long["arguments"], long["parameters"]) == ("now " * 250, {"mode": "x" * 1000})


def test_a_backfill_runs_every_occurrence_of_its_range_once_and_survives_a_crash(cluster) -> None:
    cluster.put("a", schedule="R/2025-12-01T03:00:00Z/P1D", parameters=[{"name": "v", "default": "1"}])
    cluster.cycle()
    command = StartBackfill(
        name="a", start=ms("2025-12-05T00:00:00Z"), end=ms("2025-12-08T03:00:00Z"), parameters={"v": "2"}
    )
    assert cluster.ask(command) == 3
    with pytest.raises(Conflict, match="under way"):
        cluster.ask(command)
    ran = []
    while True:
        cluster.settle()
        tasks = cluster.start()
        if not tasks:
            break
        ran += [due_of(t)[:10] for t in tasks]
        assert cluster.environment(tasks[0])["v"] == "2"
        if len(ran) == 2:
            cluster.recover()
        cluster.finish()
    assert ran == ["2025-12-05", "2025-12-06", "2025-12-07"]
    assert not [k for k in cluster.records if k.startswith("backfill/")]
    assert cluster.ask(command) == 3


@pytest.mark.parametrize("command", [StopBackfill(name="a"), PurgeQueue()])
def test_a_backfill_is_stopped_and_a_crash_does_not_bring_it_back(cluster, command) -> None:
    cluster.put("a", schedule="R/2026-06-01T00:00:00Z/P1D")
    start = ms("2026-06-01T00:00:00Z")
    assert cluster.ask(StartBackfill(name="a", start=start, end=start + 5 * 86_400_000)) == 5
    cluster.settle()
    (task,) = cluster.start()
    cluster.ask(command)
    cluster.settle()
    cluster.recover()
    cluster.finish(task)
    cluster.settle()
    assert cluster.wanted() == 0
    assert cluster.show("a")["successCount"] == 1
    assert cluster.history("a")["backfill"] is None
    with pytest.raises(Invalid, match="has no backfill under way"):
        cluster.ask(StopBackfill(name="a"))


def test_a_definition_that_was_read_before_a_firing_and_is_sent_after_it_fires_nothing_twice(cluster) -> None:
    cluster.put("a", schedule="R5/2026-01-01T01:00:00Z/PT1H")
    cluster.put("b", schedule="R/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(3700)
    assert sorted(cluster.cycle()) == ["a", "b"]
    read = {name: cluster.show(name) for name in ("a", "b")}
    cluster.advance(3600)
    assert sorted(cluster.cycle()) == ["a", "b"]
    for name, shown in read.items():
        cluster.put(**{**shown, "command": "echo new", "name": name})
    assert cluster.cycle() == []
    assert cluster.show("a")["schedule"] == "R3/2026-01-01T03:00:00.000Z/PT1H"
    assert cluster.show("b")["schedule"] == "R/2026-01-01T03:00:00.000Z/PT1H"
    assert cluster.show("a")["command"] == "echo new"


def test_a_backfill_that_makes_no_sense_is_refused(make_cluster) -> None:
    cluster = make_cluster(most_backfill=10)
    cluster.put("a", schedule="R/2026-01-01T00:00:00Z/P1D")
    cluster.put("b", parents=["a"])
    day = ms("2026-03-01T00:00:00Z")
    with pytest.raises(Invalid, match="no schedule"):
        cluster.ask(StartBackfill(name="b", start=day, end=day + 1))
    with pytest.raises(Invalid, match="no occurrence"):
        cluster.ask(StartBackfill(name="a", start=day + 1, end=day + 2))
    with pytest.raises(Invalid, match="more than 10"):
        cluster.ask(StartBackfill(name="a", start=day, end=day + 11 * 86_400_000))


# Many.


def test_jobs_of_one_shape_are_one_want_and_high_priority_goes_first(cluster) -> None:
    for n in range(20):
        cluster.put(f"job{n}", schedule="R/2026-01-01T01:00:00Z/PT1H", highPriority=n >= 18)
    cluster.advance(3600)
    assert sorted((w.priority, w.count) for w in cluster.wants.values()) == [(0, 18), (1, 2)]
    assert len(cluster.start()) == 20


def test_runs_of_one_shape_are_launched_first_come_first_served(cluster) -> None:
    for name, second in (("c", 1), ("a", 2), ("b", 3)):
        cluster.put(name, schedule=f"R1/2026-01-01T00:00:0{second}Z/P")
    cluster.advance(10)
    assert [job_of(t) for t in (cluster.offer(1) + cluster.offer(1) + cluster.offer(1))] == ["c", "a", "b"]


def test_a_job_that_is_changed_while_it_waits_waits_in_its_new_shape(cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(3600)
    old = set(cluster.wants)
    cluster.put("a", schedule="R/2026-01-01T01:00:00Z/PT1H", mem=999)
    assert len(cluster.wants) == 1
    assert not old & set(cluster.wants)
    cluster.start()
    assert {r.name: r.milli for r in cluster.launched[0].resources}["mem"] == 999_000


def test_no_input_writes_more_than_a_small_store_takes(make_cluster) -> None:
    cluster = make_cluster(most_writes=20)
    cluster.put("root", schedule="R/2026-01-01T01:00:00Z/PT1H")
    for n in range(100):
        cluster.put(f"child{n:03}", parents=["root"])
    cluster.most_written = 0
    cluster.advance(3600)
    assert cluster.cycle() == ["root"]
    assert cluster.wanted() == 100
    ran = []
    while cluster.wanted():
        ran += cluster.cycle()
    assert len(ran) == 100
    cluster.delete("root")
    cluster.advance(1)
    assert cluster.most_written <= 60
    assert cluster.show("child007")["schedule"].startswith("R/2026-01-01T02:00:00")
    assert all(job.spec.parents == () for job in cluster.state.jobs.values())
