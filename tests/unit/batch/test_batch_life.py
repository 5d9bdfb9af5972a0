"""The life of a job: submitted, launched, run, over; what fails, what is lost, what is killed."""

from collections.abc import Callable
from typing import Any

import pytest
from batch_driver import Cluster, job_of

from corral.frameworks.batch.spec import JOB_STATES, TERMINAL, WaitJobs
from corral.lib.errors import NotFound
from corral.model.task import Reason, TaskState
from corral.runtime.core import Asked
from corral.sdk.feed import Followed


def test_a_job_is_launched_on_the_first_offer_and_succeeds(cluster: Cluster) -> None:
    job = cluster.one(command="echo hello")
    assert cluster.state_of(job) == "QUEUED"
    (task,) = cluster.offer()
    assert task == f"{job}.1"
    assert cluster.state_of(job) == "STARTING"
    assert all(task.omits_starting for task in cluster.launched)
    cluster.update(task, TaskState.RUNNING)
    assert cluster.state_of(job) == "RUNNING"
    cluster.finish(task)
    found = cluster.show(job)
    assert (found["state"], found["exit_code"], found["attempt"]) == ("SUCCEEDED", 0, 1)
    assert found["started_at"] <= found["finished_at"]


def test_ids_are_26_characters_in_the_order_of_submission(cluster: Cluster) -> None:
    ids = [*cluster.submit({}, {}, {}).ids]
    cluster.advance(1.0)
    ids += cluster.submit({}, {}).ids
    assert ids == sorted(ids)
    assert {len(each) for each in ids} == {26}
    assert len(set(ids)) == 5


def test_the_environment_tells_the_job_who_it_is(cluster: Cluster) -> None:
    job = cluster.one(owner="ada", env={"COLOUR": "red", "CORRAL_OWNER": "forged"})
    (task,) = cluster.offer()
    found = cluster.environment(task)
    assert found["COLOUR"] == "red"
    assert found["CORRAL_OWNER"] == "ada"
    assert found["CORRAL_JOB_ID"] == job
    assert found["CORRAL_ATTEMPT"] == "1"
    assert found["MESOS_TASK_ID"] == task
    assert int(found["CORRAL_FENCING_TOKEN"]) == 1


def test_a_failed_attempt_is_retried_as_often_as_the_job_says_and_no_more(cluster: Cluster) -> None:
    job = cluster.one(retries=2)
    tokens = []
    for attempt in (1, 2, 3):
        (task,) = cluster.start()
        assert task == f"{job}.{attempt}"
        tokens.append(int(cluster.environment(task)["CORRAL_FENCING_TOKEN"]))
        cluster.update(task, TaskState.FAILED, message="Command exited with status 7")
    found = cluster.show(job)
    assert (found["state"], found["exit_code"], found["failures"]) == ("FAILED", 7, 2)
    assert tokens == sorted(set(tokens))
    assert cluster.wanted() == 0


def test_a_retry_waits_for_its_delay_which_doubles_and_the_job_says_until_when(cluster: Cluster) -> None:
    job = cluster.one(retries=3, retry_delay=10)
    cluster.fail(*cluster.start())
    assert cluster.wanted() == 0
    assert "next attempt" in cluster.reason(job)
    cluster.advance(9.5)
    assert cluster.wanted() == 0
    cluster.advance(1.0)
    assert cluster.wanted() == 1
    cluster.fail(*cluster.start())
    cluster.advance(15.0)
    assert cluster.wanted() == 0
    cluster.advance(6.0)
    assert cluster.wanted() == 1


def test_a_lost_agent_does_not_use_up_retries_until_the_sixth_time(cluster: Cluster) -> None:
    job = cluster.one(retries=0)
    for _ in range(5):
        (task,) = cluster.start()
        cluster.update(task, TaskState.LOST, message="agent is gone")
        assert cluster.state_of(job) == "QUEUED"
        cluster.advance(61.0)
    (task,) = cluster.start()
    cluster.update(task, TaskState.LOST, message="agent is gone")
    assert cluster.state_of(job) == "FAILED"
    assert "lost 6 times" in cluster.reason(job)


def test_at_most_once_is_not_launched_again_when_its_fate_is_unknown(cluster: Cluster) -> None:
    job = cluster.one(delivery="at-most-once", retries=5)
    (task,) = cluster.start()
    cluster.update(task, TaskState.LOST)
    assert cluster.state_of(job) == "FAILED"
    assert cluster.wanted() == 0


def test_at_most_once_is_launched_again_when_it_is_certain_that_nobody_started_it(cluster: Cluster) -> None:
    job = cluster.one(delivery="at-most-once")
    (task,) = cluster.offer()
    cluster.update(task, TaskState.DROPPED, reason=Reason.INVALID_OFFERS)
    assert cluster.state_of(job) == "QUEUED"
    assert cluster.offer() == [f"{job}.2"]


def test_a_timeout_is_told_to_the_agent_and_named_as_such(cluster: Cluster) -> None:
    job = cluster.one(timeout=5, retries=1)
    for _ in range(2):
        (task,) = cluster.start()
        assert cluster.launched[-1].max_completion_s == 5
        cluster.update(task, TaskState.FAILED, reason=Reason.MAX_COMPLETION_TIME_REACHED)
    assert cluster.state_of(job) == "TIMEOUT"


def test_a_job_that_waits_too_long_expires(cluster: Cluster) -> None:
    job = cluster.one(queue_timeout=60)
    cluster.advance(59.0)
    assert cluster.state_of(job) == "QUEUED"
    cluster.advance(2.0)
    assert cluster.state_of(job) == "EXPIRED"
    assert cluster.wanted() == 0


def test_an_array_of_which_nothing_is_launched_in_time_expires_and_so_do_its_elements(cluster: Cluster) -> None:
    array = cluster.one(array={"count": 3}, queue_timeout=60)
    begun = cluster.one(array={"count": 3}, queue_timeout=60)
    cluster.kill(f"{array}[2]")
    cluster.set_owner("default", max_running=1)
    cluster.kill(f"{begun}[0]")
    cluster.advance(61.0)
    found = cluster.show(array)
    assert (found["state"], found["counts"]) == ("EXPIRED", {"KILLED": 1, "EXPIRED": 2})
    assert found["reason"] == "it waited for 60 s"
    for _ in range(2):
        assert [cluster.state_of(f"{array}[{k}]") for k in range(3)] == ["EXPIRED", "EXPIRED", "KILLED"]
        assert cluster.stats()["states"]["EXPIRED"] == 4
        cluster.recover()


def test_a_queued_job_is_dequeued_and_a_running_one_is_ended(cluster: Cluster) -> None:
    running, queued = cluster.submit({}, {}).ids
    (task,) = cluster.start(1)
    assert job_of(task) == running
    assert cluster.kill(queued) is True
    assert cluster.state_of(queued) == "KILLED"
    assert cluster.wanted() == 0
    cluster.kill(running)
    assert cluster.state_of(running) == "RUNNING"
    assert cluster.killed == [task]
    cluster.advance(31.0)
    assert cluster.killed == [task, task], "an order to end that has no effect is repeated"
    cluster.bury()
    assert cluster.state_of(running) == "KILLED"
    assert cluster.kill(running) is False


def test_a_job_that_ends_well_while_it_is_killed_has_succeeded(cluster: Cluster) -> None:
    job = cluster.one()
    (task,) = cluster.start()
    cluster.kill(job)
    cluster.finish(task)
    assert cluster.state_of(job) == "SUCCEEDED"


def test_an_ended_job_is_forgotten_after_its_ttl_with_its_records(cluster: Cluster) -> None:
    job = cluster.one(ttl=100)
    cluster.finish(*cluster.start())
    cluster.advance(99.0)
    assert cluster.state_of(job) == "SUCCEEDED"
    cluster.advance(3.0)
    with pytest.raises(NotFound):
        cluster.show(job)
    cluster.advance(3.0)
    assert not [key for key in cluster.records if key.startswith(("job/", "bundle/"))]
    assert cluster.stats()["totals"]["finished"] == 1


def test_a_forgotten_job_does_not_run_again_after_a_restart_though_another_of_its_request_is_still_there(
    cluster: Cluster,
) -> None:
    gone, long = cluster.submit({"ttl": 100, "name": "gone"}, {"ttl": 5000, "name": "long"}).ids
    cluster.finish(*cluster.start())
    cluster.advance(105.0)
    cluster.recover()
    assert cluster.start() == []
    assert cluster.state_of(long) == "SUCCEEDED"
    with pytest.raises(NotFound):
        cluster.show(gone)
    cluster.advance(5000.0)
    assert not [key for key in cluster.records if key.startswith(("job/", "bundle/"))]


def test_no_job_runs_again_when_its_records_are_deleted_bit_by_bit_and_the_process_dies_at_any_of_them(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(most_writes=2)
    cluster.submit(*[{"ttl": 10}] * 6)
    while tasks := cluster.start():
        cluster.finish(*tasks)
    cluster.advance(9.5)
    left: list[dict[str, bytes]] = []
    send = cluster.send

    def watch(input: Any) -> None:
        send(input)
        left.append(dict(cluster.records))

    cluster.send = watch  # type: ignore[method-assign]
    cluster.advance(5.0)
    assert len(left) > 3
    for records in left:
        again = make_cluster(most_writes=2)
        again.records, again.now = records, cluster.now
        again.recover()
        assert again.start() == []
        again.advance(20.0)
        assert not [key for key in again.records if key.startswith(("job/", "bundle/"))]


def test_more_ended_jobs_than_may_be_kept_lose_the_oldest(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(most_kept=3)
    ids = cluster.submit(*[{}] * 5).ids
    cluster.finish(*cluster.start())
    cluster.advance(2.0)
    found = {row["id"] for row in cluster.list()["jobs"]}
    assert len(found) == 3
    assert found < set(ids)


def test_waiting_is_answered_when_all_are_over_and_when_the_time_is(cluster: Cluster) -> None:
    first, second = cluster.submit({}, {}).ids
    cluster._asks += 1
    ask = cluster._asks

    cluster.send(Asked(ask, WaitJobs(ids=(first, second), timeout=30.0)))
    tasks = cluster.start()
    cluster.finish(tasks[0])
    assert ask not in cluster.replies
    cluster.finish(tasks[1])
    assert cluster.replies.pop(ask) == {"done": [first, second], "pending": []}
    third = cluster.one()
    cluster._asks += 1
    cluster.send(Asked(cluster._asks, WaitJobs(ids=(first, third), timeout=30.0)))
    cluster.advance(31.0)
    assert cluster.replies.pop(cluster._asks) == {"done": [first], "pending": [third]}
    assert not cluster.state.waiters


def test_a_status_of_an_attempt_that_was_given_up_ends_the_task(cluster: Cluster) -> None:
    job = cluster.one()
    (task,) = cluster.start()
    cluster.update(task, TaskState.UNREACHABLE)
    assert "silent" in cluster.reason(job)
    cluster.advance(301.0)
    assert cluster.offer() == [f"{job}.2"]
    cluster.update(task, TaskState.RUNNING)
    assert cluster.killed[-1] == task


def test_an_agent_that_comes_back_in_time_keeps_its_job(cluster: Cluster) -> None:
    job = cluster.one()
    (task,) = cluster.start()
    cluster.update(task, TaskState.UNREACHABLE)
    cluster.advance(100.0)
    cluster.update(task, TaskState.RUNNING)
    cluster.advance(500.0)
    assert cluster.state_of(job) == "RUNNING"
    assert cluster.show(job)["attempt"] == 1


def test_terminal_states_never_change() -> None:
    assert not [state for state, _ in JOB_STATES if state in TERMINAL]


def test_a_callback_gets_the_final_record_and_is_tried_again_through_a_crash(cluster: Cluster) -> None:
    job = cluster.one(callback="http://example.test/done")
    cluster.finish(*cluster.start())
    (first,) = cluster.deliver("nobody answers")
    assert first.url == "http://example.test/done"
    assert f'"id":"{job}"' in first.body
    assert '"state":"SUCCEEDED"' in first.body
    cluster.advance(6.0)
    assert len(cluster.deliver("nobody answers")) == 1
    cluster.recover()
    assert len(cluster.deliver()) == 1
    assert not [key for key in cluster.records if key.startswith("notice/")]


def test_events_are_published_while_somebody_follows(cluster: Cluster) -> None:
    cluster.one()
    cluster.send(Followed(True))
    cluster.finish(*cluster.start())
    assert [event.kind for event in cluster.published] == ["STARTING", "RUNNING", "SUCCEEDED"]
    cluster.send(Followed(False))
    cluster.one()
    cluster.finish(*cluster.start())
    assert len(cluster.published) == 3
