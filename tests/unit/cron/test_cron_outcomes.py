"""What follows from the end of an attempt: retries, counters, children, notices; and what a crash or a loss changes."""

import msgspec
import pytest
from cron_driver import START, Cluster, job_of

from corral.frameworks.cron.spec import (
    AddElements,
    DeleteJob,
    FindLog,
    GetGraph,
    GetMetrics,
    GetStat,
    GetStats,
    MarkSuccess,
    ReportTask,
    StartBackfill,
)
from corral.lib.errors import Invalid
from corral.model import events
from corral.model.offer import Explanation, Refusal
from corral.model.task import Reason, Source, TaskState, TaskStatus

FAR = "R/2026-06-01T00:00:00Z/P1D"
HOURLY = "R/2026-01-01T01:00:00Z/PT1H"


def run_all(cluster: Cluster) -> list[str]:
    """Run whatever is wanted until nothing is; the names of the jobs in order."""
    ran: list[str] = []
    while found := cluster.cycle():
        ran += found
    return ran


# Retries and counters.


def test_a_failed_attempt_is_retried_after_a_minute_as_often_as_the_job_says(cluster) -> None:
    cluster.put("a", schedule=HOURLY)
    cluster.advance(3600)
    for attempt in range(3):
        (task,) = cluster.start()
        assert task.split(":")[2] == str(attempt)
        assert cluster.environment(task)["CHRONOS_JOB_RUN_ATTEMPT"] == str(attempt)
        cluster.fail()
        assert cluster.wanted() == 0
        cluster.advance(59.8)
        assert cluster.wanted() == 0
        cluster.advance(0.3)
    assert cluster.wanted() == 0
    shown = cluster.show("a")
    assert (shown["errorCount"], shown["errorsSinceLastSuccess"], shown["successCount"]) == (1, 1, 0)
    assert cluster.summary("a") == ("failure", "idle")
    assert [row["final"] for row in cluster.history("a")["attempts"]] == [True, False, False]


def test_each_firing_has_its_full_retries_whatever_became_of_the_one_before(cluster) -> None:
    cluster.put("a", schedule=HOURLY, retries=1, retryDelay=1)
    for _ in range(2):
        cluster.advance(3600)
        assert cluster.cycle(TaskState.FAILED) == ["a"]
        cluster.advance(2)
        assert cluster.cycle(TaskState.FAILED) == ["a"]
        cluster.advance(2)
        assert cluster.wanted() == 0
    assert cluster.show("a")["errorCount"] == 2


def test_the_delay_between_retries_grows_by_the_jobs_factor(cluster) -> None:
    cluster.put("a", schedule=FAR, retries=3, retryDelay=10, retryBackoffFactor=3)
    cluster.run_now("a")
    for delay_s in (10, 30, 90):
        cluster.cycle(TaskState.FAILED)
        cluster.advance(delay_s - 0.5)
        assert cluster.wanted() == 0
        cluster.advance(0.6)
        assert cluster.wanted() == 1


def test_a_retry_survives_a_crash_and_waits_for_what_is_left_of_its_delay(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    cluster.cycle(TaskState.FAILED)
    cluster.recover(40)
    assert cluster.wanted() == 0
    cluster.advance(20)
    assert cluster.wanted() == 1
    (task,) = cluster.start()
    assert task.split(":")[2] == "1"


@pytest.mark.parametrize("crash", [False, True])
def test_a_retry_is_not_lost_when_the_wall_clock_is_set_back_before_it_began_to_wait(cluster, crash: bool) -> None:
    cluster.advance(400 * 86_400)
    cluster.put("a", schedule="R1//P")
    assert cluster.cycle(TaskState.FAILED) == ["a"]
    cluster.advance(10)
    assert cluster.wanted() == 0
    cluster.set_clock(-365 * 86_400)
    if crash:
        cluster.recover()
    cluster.advance(61)
    assert cluster.cycle() == ["a"]
    assert cluster.summary("a") == ("success", "idle")


@pytest.mark.parametrize("crash", [False, True])
def test_a_silent_agent_and_a_missing_report_are_waited_for_no_longer_when_the_clock_is_set_back(
    cluster, crash: bool
) -> None:
    cluster.advance(400 * 86_400)
    cluster.put("silent", schedule="R1//P", retries=0)
    cluster.put("late", schedule="R1//P", retries=0, maxCompletionTime=60, **{"async": True})
    silent, late = sorted(cluster.start(), key=lambda task: job_of(task) == "late")
    cluster.update(silent, TaskState.UNREACHABLE)
    cluster.finish(late)
    cluster.set_clock(-365 * 86_400)
    if crash:
        cluster.crash()
        cluster.subscribe()
    cluster.advance(120)
    assert cluster.summary("late") == ("failure", "idle")
    assert cluster.summary("silent") == ("fresh", "1 running")
    cluster.advance(300)
    assert cluster.summary("silent") == ("failure", "idle")


def test_a_clock_that_is_set_back_a_little_hurries_no_retry(cluster) -> None:
    cluster.put("a", schedule="R1//P")
    assert cluster.cycle(TaskState.FAILED) == ["a"]
    cluster.advance(30)
    cluster.set_clock(-10)
    cluster.advance(39)
    assert cluster.wanted() == 0
    cluster.advance(2)
    assert cluster.cycle() == ["a"]


def test_run_now_tries_a_waiting_retry_at_once(cluster) -> None:
    cluster.put("a", schedule=FAR, retryDelay=3600)
    cluster.run_now("a")
    cluster.cycle(TaskState.FAILED)
    cluster.run_now("a")
    (task,) = cluster.start()
    assert task.split(":")[2] == "1"


def test_a_success_sets_the_count_of_errors_in_a_row_back(cluster) -> None:
    cluster.put("a", schedule=HOURLY, retries=0)
    for state in (TaskState.FAILED, TaskState.FAILED, TaskState.FINISHED):
        cluster.advance(3600)
        cluster.cycle(state)
    shown = cluster.show("a")
    assert (shown["errorCount"], shown["errorsSinceLastSuccess"], shown["successCount"]) == (2, 0, 1)
    assert shown["lastSuccess"] > shown["lastError"]
    assert cluster.summary("a") == ("success", "idle")


def test_a_killed_run_is_neither_retried_nor_counted(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    (task,) = cluster.start()
    cluster.kill("a")
    assert cluster.killed == [task]
    cluster.bury()
    assert cluster.summary("a") == ("fresh", "idle")
    cluster.advance(3600)
    assert cluster.wanted() == 0
    cluster.kill("a")


def test_a_task_that_somebody_else_has_killed_is_a_failed_attempt(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    (task,) = cluster.start()
    cluster.update(task, TaskState.KILLED, message="the node is drained")
    assert cluster.history("a")["attempts"][0]["message"] == "killed by somebody else: the node is drained"
    cluster.advance(61)
    assert cluster.wanted() == 1


def test_a_kill_is_repeated_until_it_is_heard(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    (task,) = cluster.start()
    cluster.kill("a")
    cluster.advance(31)
    assert cluster.killed == [task, task]
    cluster.recover()
    assert len(cluster.killed) >= 3
    cluster.bury()
    count = len(cluster.killed)
    cluster.advance(300)
    assert len(cluster.killed) == count


def test_the_last_scheduled_run_disables_its_job_however_it_ends(cluster) -> None:
    cluster.put("a", schedule="R1/2026-01-01T01:00:00Z/PT1H", retries=0)
    cluster.put("b", schedule="R1/2026-01-01T01:00:00Z/PT1H", retries=1)
    cluster.advance(3600)
    cluster.cycle(TaskState.FAILED)
    assert cluster.show("a")["disabled"] is True
    assert cluster.show("b")["disabled"] is False
    cluster.advance(60)
    cluster.cycle(TaskState.FAILED)
    assert cluster.show("b")["disabled"] is True
    assert cluster.show("b")["schedule"].startswith("R0/")


def test_a_job_that_fails_too_often_in_a_row_is_disabled(make_cluster) -> None:
    cluster = make_cluster(disable_after=2)
    cluster.put("a", schedule=HOURLY, retries=0)
    for disabled in (False, True):
        cluster.advance(3600)
        cluster.cycle(TaskState.FAILED)
        assert cluster.show("a")["disabled"] is disabled
    cluster.advance(7200)
    assert cluster.wanted() == 0


def test_a_job_disabled_in_the_middle_of_a_run_stays_disabled(cluster) -> None:
    cluster.put("a", schedule=HOURLY)
    cluster.advance(3600)
    cluster.start()
    cluster.put("a", schedule=HOURLY, disabled=True)
    cluster.fail()
    cluster.advance(7200)
    assert cluster.show("a")["disabled"] is True
    assert cluster.wanted() == 0


def test_a_task_that_is_invalid_is_not_tried_again(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    (task,) = cluster.offer()
    cluster.update(task, TaskState.ERROR, reason=Reason.TASK_INVALID, message="no such user")
    cluster.advance(3600)
    assert cluster.wanted() == 0
    assert cluster.show("a")["errorCount"] == 1
    assert cluster.history("a")["attempts"][0]["message"] == "no such user"


# Losses.


def lost_launch(cluster: Cluster, delivery: str, state: TaskState, reason: Reason | None) -> int:
    """How many runs are wanted some time after a launch that nobody saw start."""
    cluster.put("a", schedule=FAR, retries=0, delivery=delivery)
    cluster.run_now("a")
    (task,) = cluster.offer()
    cluster.update(task, state, reason=reason)
    cluster.advance(2)
    return cluster.wanted()


@pytest.mark.parametrize("state", [TaskState.GONE, TaskState.UNKNOWN, TaskState.DROPPED, TaskState.LOST])
def test_at_least_once_repeats_a_launch_that_nobody_saw_start_and_spends_no_retry(cluster, state) -> None:
    assert lost_launch(cluster, "at-least-once", state, None) == 1
    (again,) = cluster.start()
    assert again.split(":")[2] == "0"
    tokens = [int(cluster.environment(t.task_id)["CORRAL_FENCING_TOKEN"]) for t in cluster.launched]
    assert tokens[0] < tokens[1]
    cluster.finish()
    assert cluster.show("a")["successCount"] == 1


@pytest.mark.parametrize("state", [TaskState.GONE, TaskState.UNKNOWN, TaskState.DROPPED, TaskState.LOST])
def test_at_most_once_never_repeats_a_launch_whose_fate_is_unknown(cluster, state) -> None:
    assert lost_launch(cluster, "at-most-once", state, Reason.AGENT_RESTARTED) == 0
    assert cluster.show("a")["errorCount"] == 1
    assert cluster.history("a")["attempts"][0]["result"] == "lost"


def test_at_most_once_repeats_a_launch_that_certainly_never_was(cluster) -> None:
    assert lost_launch(cluster, "at-most-once", TaskState.DROPPED, Reason.INVALID_OFFERS) == 1


def test_at_most_once_still_retries_what_is_known_to_have_failed(cluster) -> None:
    cluster.put("a", schedule=FAR, retries=1, delivery="at-most-once")
    cluster.run_now("a")
    cluster.cycle(TaskState.FAILED)
    cluster.advance(61)
    (task,) = cluster.start()
    cluster.update(task, TaskState.FAILED, reason=Reason.EXECUTOR_TERMINATED)
    cluster.advance(3600)
    assert cluster.wanted() == 0


def test_an_attempt_that_its_agent_had_started_is_spent_though_nobody_saw_it_run(cluster) -> None:
    cluster.put("a", schedule=FAR, retries=1, retryDelay=1)
    cluster.run_now("a")
    (task,) = cluster.offer()
    assert cluster.tasks[task].omits_starting
    cluster.update(task, TaskState.FAILED, reason=Reason.EXECUTOR_TERMINATED)
    assert cluster.history("a")["attempts"][0]["result"] == "lost"
    cluster.advance(2)
    (again,) = cluster.start()
    assert again.split(":")[2] == "1"


def test_launches_that_go_astray_again_and_again_are_repeated_ever_more_slowly(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    gaps = []
    for _ in range(9):
        (task,) = cluster.offer()
        cluster.update(task, TaskState.DROPPED, reason=Reason.INVALID_OFFERS)
        waited = 0.0
        while not cluster.wanted():
            cluster.advance(1)
            waited += 1
        gaps.append(waited)
    assert gaps == sorted(gaps)
    assert gaps[0] <= 1
    assert 55 <= gaps[-1] <= 60


def test_a_run_whose_agent_is_silent_keeps_its_place_and_goes_on_when_it_is_back(cluster) -> None:
    cluster.put("a", schedule=HOURLY)
    cluster.advance(3600)
    (task,) = cluster.start()
    cluster.update(task, TaskState.UNREACHABLE, unreachable_at=cluster.now)
    cluster.advance(299)
    assert cluster.summary("a")[1] == "1 running"
    assert cluster.wanted() == 0
    cluster.update(task, TaskState.RUNNING)
    cluster.advance(600)
    assert cluster.summary("a")[1] == "1 running"
    cluster.finish()
    assert cluster.show("a")["successCount"] == 1


@pytest.mark.parametrize(("delivery", "again"), [("at-least-once", 1), ("at-most-once", 0)])
def test_a_run_whose_agent_stays_silent_is_given_up_and_its_return_ends_it(cluster, delivery, again) -> None:
    cluster.put("a", schedule=FAR, delivery=delivery)
    cluster.run_now("a")
    (task,) = cluster.start()
    cluster.update(task, TaskState.UNREACHABLE, unreachable_at=cluster.now)
    cluster.advance(301)
    cluster.advance(60)
    assert cluster.wanted() == again
    cluster.update(task, TaskState.RUNNING)
    assert cluster.killed == [task]


def test_a_crash_between_the_record_of_a_launch_and_the_launch_neither_loses_nor_doubles_it(cluster) -> None:
    cluster.put("a", schedule="R2/2026-01-01T01:00:00Z/PT1H")
    cluster.advance(3600)
    (task,) = cluster.offer()
    del cluster.tasks[task]  # the record was written, and the call never reached the master
    cluster.recover()
    cluster.advance(2)
    (again,) = cluster.start()
    assert again != task
    assert again.split(":")[:3] == task.split(":")[:3]
    cluster.finish()
    assert cluster.show("a")["schedule"].startswith("R1/2026-01-01T02:00:00")
    assert cluster.show("a")["successCount"] == 1


def test_a_running_task_is_found_again_after_a_crash(cluster) -> None:
    cluster.put("a", schedule=HOURLY)
    cluster.advance(3600)
    (task,) = cluster.start()
    cluster.recover(7200)
    assert cluster.wanted() == 0
    assert cluster.summary("a")[1] == "1 running"
    cluster.finish(task)
    assert cluster.cycle() == ["a"]


def test_fencing_tokens_grow_over_crashes_and_deletions(cluster) -> None:
    tokens = []
    for _ in range(3):
        cluster.put("a", schedule=FAR)
        cluster.run_now("a")
        (task,) = cluster.start()
        tokens.append(int(cluster.environment(task)["CORRAL_FENCING_TOKEN"]))
        cluster.finish()
        cluster.delete("a")
        cluster.recover()
    assert tokens == sorted(set(tokens))


# Children.


def test_a_child_runs_after_all_parents_and_once_for_each_complete_round(cluster) -> None:
    for name in ("a", "b"):
        cluster.put(name, schedule=FAR)
    cluster.put("child", parents=["a", "b"])
    for name in ("a", "a", "b"):
        cluster.run_now(name)
        assert cluster.cycle()[0] == name
        if name == "a":
            assert cluster.wanted() == 0
    assert run_all(cluster) == ["child"]
    for name in ("a", "b"):
        cluster.run_now(name)
        cluster.cycle()
    assert run_all(cluster) == ["child"]


def diamond(cluster: Cluster) -> None:
    cluster.put("root", schedule=HOURLY)
    cluster.put("fast", parents=["root"])
    cluster.put("slow", parents=["root"], retries=0)
    cluster.put("join", parents=["fast", "slow"])


def test_a_join_waits_for_its_own_round_when_a_sibling_failed_in_the_one_before(cluster) -> None:
    diamond(cluster)
    cluster.advance(3600)
    cluster.cycle()
    fast, slow = sorted(cluster.start(), key=job_of)
    cluster.finish(fast)
    cluster.fail(slow)
    assert cluster.wanted() == 0
    cluster.advance(3600)
    cluster.cycle()
    fast, slow = sorted(cluster.start(), key=job_of)
    cluster.finish(slow)
    assert cluster.wanted() == 0, "the success of the first round's fast sibling must not count"
    cluster.finish(fast)
    assert run_all(cluster) == ["join"]


def test_a_run_by_hand_of_the_failed_sibling_completes_the_round_it_failed_in(cluster) -> None:
    diamond(cluster)
    cluster.advance(3600)
    cluster.cycle()
    fast, slow = sorted(cluster.start(), key=job_of)
    cluster.finish(fast)
    cluster.fail(slow)
    cluster.run_now("slow")
    assert cluster.cycle() == ["slow"]
    assert run_all(cluster) == ["join"]


def test_marking_the_failed_sibling_as_succeeded_completes_the_round_too(cluster) -> None:
    diamond(cluster)
    cluster.advance(3600)
    cluster.cycle()
    fast, slow = sorted(cluster.start(), key=job_of)
    cluster.finish(fast)
    cluster.fail(slow)
    assert cluster.ask(MarkSuccess(name="slow")) is True
    cluster.settle()
    assert cluster.show("slow")["successCount"] == 1
    assert run_all(cluster) == ["join"]
    assert cluster.ask(MarkSuccess(name="nobody")) is False


def test_joins_survive_a_crash_between_their_parents(cluster) -> None:
    diamond(cluster)
    cluster.advance(3600)
    cluster.cycle()
    fast, slow = sorted(cluster.start(), key=job_of)
    cluster.finish(fast)
    cluster.recover(1800)
    cluster.finish(slow)
    cluster.recover()
    assert run_all(cluster) == ["join"]


def test_a_child_with_one_parent_fires_at_each_of_its_successes(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.put("child", parents=["a"])
    for _ in range(3):
        cluster.run_now("a")
        assert run_all(cluster) == ["a", "child"]


def test_a_failed_parent_fires_no_child_unless_its_error_is_soft(cluster) -> None:
    cluster.put("hard", schedule=FAR, retries=0)
    cluster.put("soft", schedule=FAR, retries=0, softError=True)
    cluster.put("after-hard", parents=["hard"])
    cluster.put("after-soft", parents=["soft"])
    for name in ("hard", "soft"):
        cluster.run_now(name)
        cluster.cycle(TaskState.FAILED)
    assert run_all(cluster) == ["after-soft"]
    assert cluster.show("soft")["errorCount"] == 1


def test_a_disabled_child_is_passed_over_and_fires_at_the_next_round_after_it_is_enabled(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.put("child", parents=["a"], disabled=True)
    cluster.run_now("a")
    assert run_all(cluster) == ["a"]
    cluster.put("child", parents=["a"])
    assert run_all(cluster) == []
    cluster.run_now("a")
    assert run_all(cluster) == ["a", "child"]


def test_many_children_hear_of_a_success_even_when_the_process_dies_in_between(make_cluster) -> None:
    cluster = make_cluster(most_writes=64)
    cluster.put("root", schedule=FAR)
    for n in range(70):
        cluster.put(f"c{n:02}", parents=["root"])
    cluster.run_now("root")
    (task,) = cluster.start()
    cluster.tasks.pop(task)
    status = TaskStatus(task_id=task, state=TaskState.FINISHED, at=cluster.now, source=Source.EXECUTOR)
    cluster.send(events.Update(status=status))
    assert any(key.startswith("signal/") for key in cluster.records)
    cluster.recover()
    assert sorted(run_all(cluster)) == [f"c{n:02}" for n in range(70)]
    assert not any(key.startswith("signal/") for key in cluster.records)


def test_deleting_a_job_in_the_middle_hands_its_parents_to_its_children(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.put("b", parents=["a"])
    cluster.put("c", parents=["b"])
    cluster.delete("b")
    assert cluster.show("c")["parents"] == ["a"]
    cluster.run_now("a")
    assert run_all(cluster) == ["a", "c"]


def test_deleting_a_root_makes_only_an_orphan_scheduled_and_keeps_all_else(cluster) -> None:
    cluster.put("a", schedule="R7/2026-01-01T01:00:00Z/PT1H", scheduleTimeZone="Europe/Paris")
    cluster.put("b", schedule=FAR)
    cluster.put("orphan", parents=["a"], environmentVariables=[{"name": "K", "value": "v"}], mem=77)
    cluster.put("both", parents=["a", "b"])
    cluster.delete("a")
    assert cluster.show("both")["parents"] == ["b"]
    orphan = cluster.show("orphan")
    assert orphan["schedule"].startswith("R7/2026-01-01T01:00:00.000+01:00")
    assert orphan["environmentVariables"] == [{"name": "K", "value": "v"}]
    assert orphan["mem"] == 77
    cluster.recover()
    assert cluster.show("orphan")["schedule"] == orphan["schedule"]


def test_deleting_a_job_kills_its_tasks_and_forgets_its_runs(cluster) -> None:
    cluster.put("a", schedule=HOURLY, concurrent=True)
    cluster.advance(3600)
    (task,) = cluster.start()
    cluster.run_now("a")
    cluster.delete("a")
    assert cluster.killed == [task]
    cluster.settle()
    assert not [k for k in cluster.records if "/a" in k]
    cluster.update(task, TaskState.FINISHED)
    with pytest.raises(Invalid, match="does not exist"):
        cluster.show("a")


def test_a_deletion_that_a_crash_cuts_in_two_is_gone_through_with(cluster) -> None:
    cluster.put("a", schedule=FAR)
    for n in range(40):
        cluster.put(f"c{n:02}", parents=["a"])
    cluster.ask(DeleteJob(name="a"))
    with pytest.raises(Invalid):
        cluster.show("a")
    assert sum(bool(j.spec.parents) for j in cluster.state.jobs.values()) == 24
    cluster.recover()
    cluster.settle()
    assert "job/a" not in cluster.records
    assert not any(j.spec.parents for j in cluster.state.jobs.values())


def test_a_success_that_comes_while_a_child_is_being_deleted_fires_nothing(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.put("b", parents=["a"])
    for n in range(40):
        cluster.put(f"c{n:02}", parents=["b"])
    cluster.run_now("a")
    (task,) = cluster.start()
    cluster.ask(DeleteJob(name="b"))
    assert "b" in cluster.state.leaving
    cluster.tasks.pop(task)
    status = TaskStatus(task_id=task, state=TaskState.FINISHED, at=cluster.now, source=Source.EXECUTOR)
    cluster.send(events.Update(status=status))
    cluster.settle()
    assert "b" not in cluster.state.jobs
    assert not [key for key in cluster.records if key.startswith(("run/b/", "edge/b", "job/b"))]


def test_a_circle_or_a_missing_parent_is_refused_with_the_path(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.put("b", parents=["a"])
    cluster.put("c", parents=["b"])
    with pytest.raises(Invalid, match="a -> b -> c -> a"):
        cluster.put("a", parents=["c"])
    with pytest.raises(Invalid, match="a -> a"):
        cluster.put("a", parents=["a"])
    with pytest.raises(Invalid, match="nobody, which do not exist"):
        cluster.put("d", parents=["a", "nobody"])
    assert "schedule" in cluster.show("a")


def test_a_job_may_change_its_kind_and_edges_that_stay_keep_what_they_heard(cluster) -> None:
    for name in ("a", "b", "c"):
        cluster.put(name, schedule=FAR)
    cluster.put("child", parents=["a", "b"])
    cluster.run_now("a")
    cluster.cycle()
    cluster.put("child", parents=["a", "c"])
    cluster.run_now("c")
    assert run_all(cluster) == ["c", "child"]
    cluster.put("child", schedule=FAR)
    assert "edge/child" not in cluster.records
    cluster.run_now("a")
    assert run_all(cluster) == ["a"]


# Asynchronous jobs.


def test_an_asynchronous_run_lasts_until_it_is_reported(cluster) -> None:
    cluster.put("a", **{"schedule": HOURLY, "async": True})
    cluster.put("child", parents=["a"])
    cluster.advance(3600)
    (task,) = cluster.start()
    cluster.finish()
    assert cluster.summary("a")[1] == "1 running"
    cluster.recover()
    cluster.advance(7200)
    assert cluster.wanted() == 0
    cluster.ask(ReportTask(task_id=task, code=0))
    cluster.settle()
    assert cluster.show("a")["successCount"] == 1
    assert sorted(cluster.start(), key=job_of)
    with pytest.raises(Invalid, match="not known or has ended"):
        cluster.ask(ReportTask(task_id=task, code=0))


def test_a_report_of_failure_leads_to_a_retry_and_one_before_the_end_counts_at_the_end(cluster) -> None:
    cluster.put("a", **{"schedule": FAR, "async": True})
    cluster.run_now("a")
    (task,) = cluster.start()
    cluster.ask(ReportTask(task_id=task, code=7))
    assert cluster.summary("a")[1] == "1 running"
    cluster.finish()
    cluster.advance(61)
    (task,) = cluster.start()
    cluster.finish()
    cluster.ask(ReportTask(task_id=task, code=0))
    assert cluster.show("a")["successCount"] == 1


def test_an_asynchronous_run_that_is_never_reported_fails_in_time(cluster) -> None:
    cluster.put("a", **{"schedule": FAR, "async": True, "maxCompletionTime": 600, "retries": 0})
    cluster.run_now("a")
    cluster.cycle()
    cluster.advance(590)
    assert cluster.summary("a")[1] == "1 running"
    cluster.advance(11)
    assert cluster.summary("a") == ("failure", "idle")


def test_a_report_of_a_job_that_is_not_asynchronous_is_refused(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    (task,) = cluster.start()
    with pytest.raises(Invalid, match="not asynchronous"):
        cluster.ask(ReportTask(task_id=task, code=0))


def test_killing_an_asynchronous_run_whose_process_has_ended_ends_it(cluster) -> None:
    cluster.put("a", **{"schedule": FAR, "async": True})
    cluster.run_now("a")
    cluster.cycle()
    cluster.kill("a")
    assert cluster.summary("a") == ("fresh", "idle")


# Notices.


def test_owners_and_webhooks_hear_of_failure_recovery_and_disabling(make_cluster) -> None:
    cluster = make_cluster(mail_from="cron@example.org", webhook_url="http://hook/", cluster_name="c1")
    cluster.put("a", schedule="R2/2026-01-01T01:00:00Z/PT1H", retries=0, owner="x@example.org , y@example.org")
    cluster.advance(3600)
    cluster.cycle(TaskState.FAILED)
    mail, post = cluster.deliver()
    assert mail.mail_to == ("x@example.org", "y@example.org")
    assert mail.subject == "[c1] [Chronos] job 'a' failed!"
    assert post.url == "http://hook/"
    assert '"event":"failed"' in post.body
    cluster.advance(3600)
    cluster.cycle()
    kinds = [n.subject.split("'")[2].strip() for n in cluster.deliver() if n.url]
    assert kinds == ["recovered", "disabled"]
    assert not [k for k in cluster.records if k.startswith("notice/")]


def test_a_chat_hears_of_a_failure_in_words(make_cluster) -> None:
    cluster = make_cluster(slack_url="http://chat/hook")
    cluster.put("a", schedule=FAR, retries=0)
    cluster.run_now("a")
    cluster.cycle(TaskState.FAILED)
    (post,) = cluster.deliver()
    assert post.url == "http://chat/hook"
    text = msgspec.json.decode(post.body)["text"]
    assert text.startswith("[Chronos] job 'a' failed!\n")
    assert "attempt 1 of 1" in text


def test_a_notice_is_sent_again_after_a_crash_and_after_a_refusal_until_it_is_given_up(make_cluster) -> None:
    cluster = make_cluster()
    cluster.put("a", schedule=FAR, retries=0, webhook="http://own/")
    cluster.run_now("a")
    cluster.cycle(TaskState.FAILED)
    assert len(cluster.sent) == 1
    cluster.sent.clear()
    cluster.recover()
    tries = 0
    while cluster.deliver("refused"):
        tries += 1
        cluster.advance(700)
    assert tries == 8
    assert not [k for k in cluster.records if k.startswith("notice/")]


def test_without_anybody_to_tell_nothing_is_sent(cluster) -> None:
    cluster.put("a", schedule=FAR, retries=0, owner="x@example.org")
    cluster.run_now("a")
    cluster.cycle(TaskState.FAILED)
    assert cluster.sent == []


# Views.


def test_statistics_measure_from_when_a_run_was_due(cluster) -> None:
    cluster.put("a", schedule=HOURLY)
    cluster.put("never", schedule=FAR)
    cluster.advance(3600)
    (task,) = cluster.start()
    cluster.advance(10)
    cluster.finish(task)
    stat = cluster.ask(GetStat(name="a"))
    assert 9_900 < stat["histogram"]["median"] < 10_500
    assert stat["histogram"]["count"] == 1
    (row,) = stat["taskStatHistory"]
    assert row["status"] == "Success"
    assert row["duration"] == "10s"
    assert row["startTime"].startswith("01/01/26 01:00:0")
    assert [r["jobNameLabel"] for r in cluster.ask(GetStats(which="mean"))] == ["a", "never"]
    assert cluster.ask(GetStats(which="mode")) == []
    empty = cluster.ask(GetStat(name="never"))
    assert empty["taskStatHistory"] == []
    assert set(empty["histogram"].values()) == {0}


def test_statistics_measure_what_a_backfill_runs_from_its_launch(cluster) -> None:
    cluster.put("a", schedule="R/2027-01-01T00:00:00Z/P1D")
    day = 86_400_000
    start = round(START * 1000) + 365 * day
    assert cluster.ask(StartBackfill(name="a", start=start, end=start + 2 * day)) == 2
    for _ in range(2):
        cluster.settle()
        (task,) = cluster.start()
        cluster.advance(5)
        cluster.finish(task)
    histogram = cluster.ask(GetStat(name="a"))["histogram"]
    assert histogram["count"] == 2
    assert 4_900 < histogram["median"] < 5_500


def test_history_is_kept_by_number_and_by_time_and_survives_a_crash(make_cluster) -> None:
    cluster = make_cluster(most_history=5, history_s=86400.0)
    cluster.put("a", schedule=HOURLY)
    for _ in range(8):
        cluster.advance(3600)
        cluster.cycle()
    cluster.settle()
    assert len([k for k in cluster.records if k.startswith("history/")]) == 5
    cluster.recover()
    assert len(cluster.history("a")["attempts"]) == 5
    cluster.put("a", schedule=HOURLY, disabled=True)
    cluster.advance(2 * 86400)
    assert cluster.history("a")["attempts"] == []
    assert not [k for k in cluster.records if k.startswith("history/")]


def test_the_log_of_every_attempt_in_the_history_is_found_where_it_ran(make_cluster) -> None:
    cluster = make_cluster(most_history=2)
    cluster.put("a", schedule=FAR)
    with pytest.raises(Invalid, match="made no attempt yet"):
        cluster.ask(FindLog(name="a"))
    tasks = []
    for _ in range(3):
        cluster.run_now("a")
        tasks += cluster.start()
        cluster.finish()
    url = cluster.ask(FindLog(name="a"))[1]
    assert url.startswith("http://")
    cluster.recover()
    assert cluster.ask(FindLog(name="a")) == (tasks[2], url)
    assert cluster.ask(FindLog(name="a", task_id=tasks[1])) == (tasks[1], url)
    with pytest.raises(Invalid, match="no attempt with the task"):
        cluster.ask(FindLog(name="a", task_id=tasks[0]))
    cluster.run_now("a")
    (live,) = cluster.start()
    assert cluster.ask(FindLog(name="a")) == (live, url)


def test_elements_are_counted_for_jobs_that_process_data(cluster) -> None:
    cluster.put("a", schedule=FAR, dataProcessingJobType=True)
    cluster.put("b", schedule=FAR)
    cluster.run_now("a")
    (task,) = cluster.start()
    for _ in range(2):
        cluster.ask(AddElements(name="a", task_id=task, count=21))
    assert cluster.ask(GetStat(name="a"))["taskStatHistory"][0]["numElementsProcessed"] == 42
    cluster.finish()
    assert cluster.history("a")["attempts"][0]["elements"] == 42
    with pytest.raises(Invalid, match="counts no elements"):
        cluster.ask(AddElements(name="b", task_id=task, count=1))
    with pytest.raises(Invalid, match="no live task"):
        cluster.ask(AddElements(name="a", task_id=task, count=1))


def test_the_graph_is_written_as_csv_and_as_dot_with_its_names_quoted(cluster) -> None:
    cluster.put("a b#1", schedule=FAR)
    cluster.put("c", parents=["a b#1"])
    assert cluster.ask(GetGraph(form="csv")) == "node,a b#1,fresh,idle\nnode,c,fresh,idle\nlink,a b#1,c\n"
    assert cluster.ask(GetGraph(form="dot")).splitlines() == [
        "digraph G {", '  1 [label="a b#1"];', '  2 [label="c"];', "  1 -> 2;", "}",
    ]  # fmt: skip


def test_metrics_have_the_layout_of_dropwizard(cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    assert cluster.ask(GetMetrics())["gauges"]["queue.normal.size"]["value"] == 1
    cluster.cycle()
    found = cluster.ask(GetMetrics())
    assert found["counters"]["jobs.run.success.a"] == {"count": 1}
    assert found["histograms"]["jobs.run.time.a"]["count"] == 1


def test_why_a_job_waits_is_shown_and_said_once_when_it_can_never_run(cluster) -> None:
    cluster.put("huge", schedule=FAR, mem=1_000_000)
    cluster.run_now("huge")
    (want,) = cluster.wants.values()
    refusal = Refusal(reason="mem", detail="1000000 MiB wanted, 4096 at most", agents=3)
    explanation = Explanation(
        want_id=want.id, framework_id="F", role="*", waiting=1, since_at=0.0, agents=3, refusals=(refusal,), never=True
    )
    for _ in range(2):
        cluster.send(events.Explanations(explanations=(explanation,)))
    assert cluster.history("huge")["waiting"][0]["detail"] == "1000000 MiB wanted, 4096 at most"
    assert len(cluster.told("job can never run")) == 1
