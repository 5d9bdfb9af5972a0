"""Whose turn it is: priority, ageing, owners' shares and limits, arrays, eviction, and that nothing waits unsaid."""

from collections import Counter
from collections.abc import Callable

import pytest
from batch_driver import Cluster, job_of

from corral.frameworks.batch.spec import GetMetrics, KillJobs, SetPriority
from corral.lib.errors import Conflict
from corral.model import events
from corral.model.task import TaskState
from corral.runtime.core import Asked
from corral.sdk.patience import LOOK_S


def owners(cluster: Cluster, tasks: list[str]) -> Counter[str]:
    return Counter(cluster.show(job_of(task))["owner"] for task in tasks)  # type: ignore[arg-type]


def test_within_an_owner_jobs_go_in_the_order_they_came(cluster: Cluster) -> None:
    ids = cluster.submit({}, {}, {}).ids
    assert [job_of(task) for task in cluster.offer()] == list(ids)


def test_owners_take_turns_however_many_jobs_one_of_them_has(cluster: Cluster) -> None:
    cluster.submit(*[{"owner": "ada"}] * 50)
    cluster.submit(*[{"owner": "bob"}] * 5)
    assert owners(cluster, cluster.start(10)) == {"ada": 5, "bob": 5}


def test_a_weight_is_a_claim_to_so_much_more(cluster: Cluster) -> None:
    cluster.set_owner("ada", weight=3.0)
    cluster.submit(*[{"owner": "ada"}] * 50, *[{"owner": "bob"}] * 50)
    found = owners(cluster, cluster.start(40))
    assert 29 <= found["ada"] <= 31


def test_what_counts_is_what_an_owner_has_running_and_not_how_many(cluster: Cluster) -> None:
    cluster.submit(*[{"owner": "ada", "cpus": 4}] * 10, *[{"owner": "bob", "cpus": 1}] * 100)
    wanted = {want.resources[0].milli: want.count for want in cluster.wants.values()}
    assert wanted == {4000: 10, 1000: 100}, "all fit into the window"
    cluster.explain()
    cluster.submit({"owner": "ada", "cpus": 4}, {"owner": "bob", "cpus": 1})
    assert cluster.wanted() <= 64, "what does not fit now is asked for in small numbers"


def test_wants_are_shared_out_between_owners_while_the_cluster_is_full(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(window=16)
    cluster.submit(*[{"owner": "ada", "cpus": 1}] * 100)
    cluster.submit(*[{"owner": "bob", "cpus": 2}] * 100)
    wanted = {want.resources[0].milli: want.count for want in cluster.wants.values()}
    assert sum(wanted.values()) == 16
    assert wanted[1000] > wanted[2000] > 0, "in cpus both ask for about as much"


def test_an_owner_never_has_more_under_way_than_it_may(cluster: Cluster) -> None:
    cluster.set_owner("ada", max_running=2)
    ids = cluster.submit(*[{"owner": "ada"}] * 5).ids
    assert cluster.wanted() == 2
    tasks = cluster.start()
    assert len(tasks) == 2
    assert "may have 2" in cluster.reason(ids[4])
    cluster.finish(tasks[0])
    assert cluster.wanted() == 1


def test_a_paused_owner_waits_and_says_so(cluster: Cluster) -> None:
    job = cluster.one(owner="ada")
    cluster.set_owner("ada", paused=True)
    assert cluster.wanted() == 0
    assert "paused" in cluster.reason(job)
    cluster.recover()
    assert cluster.wanted() == 0
    cluster.set_owner("ada")
    assert cluster.wanted() == 1


def test_higher_priorities_are_asked_for_first(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(window=10)
    cluster.submit(*[{"priority": 0}] * 20, *[{"priority": 7}] * 6)
    wanted = {want.priority: want.count for want in cluster.wants.values()}
    assert wanted == {7: 6, 0: 4}


def test_waiting_raises_the_priority_up_to_a_bound(cluster: Cluster) -> None:
    cluster.one(priority=5)
    for minutes, priority in ((9, 5), (11, 7), (600, 25)):
        cluster.advance(minutes * 60.0)
        assert [want.priority for want in cluster.wants.values()] == [priority]


def test_the_priority_of_a_waiting_job_can_be_changed_and_outlives_a_crash(cluster: Cluster) -> None:
    first, second = cluster.submit({}, {}).ids
    assert cluster.ask(SetPriority(id=second, priority=9))["priority"] == 9
    cluster.settle()
    assert {want.priority: want.count for want in cluster.wants.values()} == {0: 1, 9: 1}
    cluster.recover()
    assert {want.priority: want.count for want in cluster.wants.values()} == {0: 1, 9: 1}
    cluster.start()
    with pytest.raises(Conflict):
        cluster.ask(SetPriority(id=first, priority=1))


def test_shapes_that_do_not_fit_hold_up_nothing_else(cluster: Cluster) -> None:
    cluster.submit(*[{"cpus": 32}] * 100)
    cluster.explain()
    cluster.submit(*[{"cpus": 1}] * 10)
    wanted = {want.resources[0].milli: want.count for want in cluster.wants.values()}
    assert wanted == {32_000: 64, 1000: 10}


def test_offers_of_one_agent_are_answered_by_one_accept(cluster: Cluster) -> None:
    cluster.submit(*[{}] * 9)
    cluster.calls.clear()
    cluster.offer()
    accepts = [call for call in cluster.calls if type(call).__name__ == "Accept"]
    assert len(accepts) == 3


def test_thousands_of_offers_are_worked_off_in_portions_that_a_transaction_takes(cluster: Cluster) -> None:
    cluster.submit(*[{}] * 1000)
    cluster.most_written = 0
    assert len(cluster.offer()) == 1000
    assert cluster.most_written <= cluster.config.most_writes


def test_offers_without_work_are_given_back(cluster: Cluster) -> None:
    job = cluster.one()
    offers = cluster.make_offers()
    cluster.kill(job)
    cluster.send(events.Offers(offers=offers))
    assert cluster.declined == [offers[0].id]


# Arrays.


def test_an_array_runs_each_element_once_and_succeeds_when_all_have(cluster: Cluster) -> None:
    array = cluster.one(array={"count": 3})
    tasks = cluster.start()
    assert tasks == [f"{array}[{k}].1" for k in range(3)]
    assert cluster.environment(tasks[2])["CORRAL_ARRAY_INDEX"] == "2"
    assert cluster.environment(tasks[2])["CORRAL_ARRAY_COUNT"] == "3"
    cluster.finish(*tasks[:2])
    found = cluster.show(array)
    assert (found["state"], found["counts"]) == ("RUNNING", {"RUNNING": 1, "SUCCEEDED": 2})
    cluster.finish(tasks[2])
    assert cluster.state_of(array) == "SUCCEEDED"
    assert cluster.state_of(f"{array}[1]") == "SUCCEEDED"


def test_an_array_in_which_one_element_fails_has_failed_when_all_are_over(cluster: Cluster) -> None:
    array = cluster.one(array={"count": 3})
    tasks = cluster.start()
    cluster.fail(tasks[0])
    assert cluster.state_of(array) == "RUNNING"
    cluster.finish(*tasks[1:])
    assert cluster.state_of(array) == "FAILED"


def test_so_many_elements_run_at_once_as_may(cluster: Cluster) -> None:
    array = cluster.one(array={"count": 7, "max_running": 2})
    ran = []
    for _ in range(20):
        tasks = cluster.start()
        assert len(cluster.tasks) <= 2
        ran += tasks
        cluster.finish(*list(cluster.tasks)[:1])
        if cluster.state_of(array) == "SUCCEEDED":
            break
    assert len(ran) == 7
    assert cluster.state_of(array) == "SUCCEEDED"


def test_killing_an_array_ends_its_elements_in_whatever_state(cluster: Cluster) -> None:
    array = cluster.one(array={"count": 5})
    tasks = cluster.start(2)
    cluster.finish(tasks[0])
    cluster.kill(array)
    assert cluster.wanted() == 0
    assert cluster.state_of(f"{array}[4]") == "QUEUED" or cluster.show(array)["counts"]["KILLED"] == 3
    cluster.bury()
    found = cluster.show(array)
    assert (found["state"], found["counts"]) == ("KILLED", {"SUCCEEDED": 1, "KILLED": 4})
    assert cluster.state_of(f"{array}[4]") == "KILLED"


def test_one_element_can_be_killed_before_its_turn(cluster: Cluster) -> None:
    array = cluster.one(array={"count": 4})
    cluster.kill(f"{array}[2]")
    cluster.kill(f"{array}[3]")
    assert cluster.wanted() == 2
    cluster.recover()
    tasks = cluster.start()
    assert tasks == [f"{array}[0].1", f"{array}[1].1"]
    cluster.finish(*tasks)
    assert cluster.state_of(array) == "KILLED"


@pytest.mark.parametrize("moment", range(6))
def test_an_array_goes_on_after_a_crash_where_it_was(cluster: Cluster, moment: int) -> None:
    array = cluster.one(array={"count": 4, "max_running": 2}, retries=1)
    failed = False
    for step in range(12):
        if step == moment:
            cluster.recover()
        tasks = cluster.start()
        if tasks and not failed:
            failed = True
            cluster.fail(tasks[0])
        cluster.finish(*list(cluster.tasks)[:1]) if cluster.tasks else None
    assert cluster.state_of(array) == "SUCCEEDED"
    assert len(cluster.launched) == 5


# Eviction.


def test_an_urgent_job_has_the_least_and_youngest_ended_for_it(cluster: Cluster) -> None:
    old = cluster.one(priority=10, cpus=1)
    cluster.start()
    cluster.advance(10.0)
    young = cluster.one(priority=10, cpus=1)
    cluster.start()
    kept = cluster.one(priority=10, cpus=1, preemptible=False)
    cluster.start()
    urgent = cluster.one(priority=60, cpus=1)
    cluster.explain()
    cluster.advance(4.0)
    assert not cluster.killed
    cluster.advance(3.0)
    assert cluster.killed == [f"{young}.1"]
    assert "others" in cluster.reason(young)
    cluster.bury()
    found = cluster.show(young)
    assert (found["state"], found["preemptions"], found["failures"]) == ("QUEUED", 1, 0)
    assert f"{urgent}.1" in cluster.offer()
    assert cluster.state_of(old) == cluster.state_of(kept) == "RUNNING"


def test_nobody_is_ended_for_a_job_that_is_hardly_more_urgent_or_not_urgent_at_all(cluster: Cluster) -> None:
    cluster.submit({"priority": 45, "cpus": 1}, {"priority": 0, "cpus": 1})
    cluster.start()
    for priority in (49, 60):
        cluster.one(priority=priority, cpus=1)
    cluster.explain()
    cluster.advance(30.0)
    assert [cluster.show(job_of(task))["priority"] for task in dict.fromkeys(cluster.killed)] == [0]


def test_a_job_is_ended_for_others_three_times_at_most(cluster: Cluster) -> None:
    job = cluster.one(cpus=1)
    for _ in range(3):
        cluster.start()
        urgent = cluster.one(priority=90, cpus=1)
        cluster.explain()
        cluster.advance(7.0)
        cluster.bury()
        urgent_tasks = [t for t in cluster.start() if job_of(t) == urgent]
        cluster.finish(*urgent_tasks)
    cluster.start()
    assert cluster.show(job)["preemptions"] == 3
    cluster.killed.clear()
    cluster.one(priority=90, cpus=1)
    cluster.explain()
    cluster.advance(20.0)
    assert not cluster.killed


# Many.


def test_killing_by_owner_and_label_ends_exactly_those_even_through_a_crash(cluster: Cluster) -> None:
    for owner, label in (("ada", "x"), ("ada", "y"), ("bob", "x")):
        cluster.submit(*[{"owner": owner, "labels": {"kind": label}}] * 100)
    cluster.start(30)
    cluster._asks += 1

    cluster.send(Asked(cluster._asks, KillJobs(owner="ada", label="kind:x")))
    assert cluster.replies.pop(cluster._asks) == 100
    cluster.recover()
    cluster.bury()
    cluster.advance(1.0)
    counts = Counter((j["owner"], j["labels"]["kind"], j["state"]) for j in cluster.list(limit=1000)["jobs"])
    assert counts["ada", "x", "KILLED"] == 100
    assert not [key for key in counts if key[2] == "KILLED" and key[:2] != ("ada", "x")]
    assert not [key for key in cluster.records if key.startswith("kill/")]


def test_an_array_that_runs_is_not_ended_with_what_waits(cluster: Cluster) -> None:
    array, other = cluster.submit({"array": {"count": 3, "max_running": 1}}, {}).ids
    assert cluster.start(1) == [f"{array}[0].1"]
    assert cluster.kill_many(state="QUEUED") == 1
    assert (cluster.state_of(array), cluster.state_of(other)) == ("RUNNING", "KILLED")
    assert cluster.kill_many(state="RUNNING") == 1
    cluster.bury()
    assert cluster.state_of(array) == "KILLED"


def test_listing_pages_through_everything_newest_first(cluster: Cluster) -> None:
    ids = [job for _ in range(5) for job in cluster.submit(*[{}] * 7).ids]
    seen: list[str] = []
    cursor = ""
    while True:
        page = cluster.list(limit=4, cursor=cursor)
        seen += [row["id"] for row in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert seen == ids[::-1]


def test_everything_that_waits_says_why(cluster: Cluster) -> None:
    cluster.submit({}, {"priority": 3}, {"array": {"count": 3}}, {"retries": 1, "retry_delay": 50, "cpus": 3})
    for task in cluster.start(1):
        cluster.update(task, TaskState.FAILED)
    cluster.explain()
    waiting = [row for row in cluster.list()["jobs"] if row["state"] == "QUEUED"]
    assert len(waiting) >= 3
    assert all(row["reason"] for row in waiting)


def test_jobs_that_wait_long_are_told_of_once_by_shape_with_the_reason(cluster: Cluster) -> None:
    (first, *_) = cluster.submit({}, {}, {"cpus": 3}, {"owner": "idle"}).ids
    cluster.set_owner("idle", paused=True)
    cluster.explain()
    cluster.advance(299)
    assert cluster.told("jobs wait long") == []
    assert oldest_waiting_s(cluster) == pytest.approx(299, abs=1)
    cluster.advance(1000)
    small, large = sorted(cluster.told("jobs wait long"), key=lambda note: str(note.facts["jobs"]), reverse=True)
    assert (small.facts["job"], small.facts["jobs"], large.facts["jobs"]) == (first, 2, 1)
    assert small.why == cluster.reason(first)
    cluster.finish(*cluster.start())
    cluster.settle()
    assert oldest_waiting_s(cluster) == 0, "who is paused waits for nobody"


def oldest_waiting_s(cluster: Cluster) -> float:
    numbers = {each.name: each for each in cluster.ask(GetMetrics())}
    found: float = numbers["corral_batch_oldest_waiting_seconds"].values[""]
    return found


def test_a_master_that_says_nothing_of_what_waits_is_noticed_and_one_that_does_is_believed(cluster: Cluster) -> None:
    cluster.submit({}, {"cpus": 3})
    cluster.advance(LOOK_S + 45)
    assert cluster.core.unheard_s(cluster.now) == pytest.approx(45, abs=1)
    cluster.explain()
    cluster.advance(LOOK_S)
    assert cluster.core.unheard_s(cluster.now) == 0
    cluster.subscribe()
    assert "turn" in cluster.reason(cluster.list()["jobs"][0]["id"]), "what an earlier master said counts no more"
    cluster.advance(2 * LOOK_S)
    assert cluster.core.unheard_s(cluster.now) > 0
    cluster.start(1)
    assert cluster.core.unheard_s(cluster.now) == 0


def test_statistics_add_up(cluster: Cluster) -> None:
    cluster.submit(*[{"owner": "ada"}] * 6, *[{"owner": "bob"}] * 4)
    tasks = cluster.start(4)
    cluster.finish(tasks[0])
    cluster.advance(5.0)
    found = cluster.stats()
    assert found["states"]["QUEUED"] == 6
    assert found["states"]["RUNNING"] == 3
    assert found["states"]["SUCCEEDED"] == 1
    assert sum(owner["queued"] for owner in found["owners"].values()) == 6
    assert found["queue_age_s"]["p99"] >= 5
    assert found["totals"]["submitted"] == 10


def test_of_very_many_owners_those_that_have_nothing_are_forgotten(cluster: Cluster) -> None:
    cluster.set_owner("set", weight=2.0)
    ids = cluster.submit(*[{"owner": f"user{n}", "ttl": 10} for n in range(1500)]).ids
    cluster.kill_many(ids=ids)
    cluster.submit({"owner": "waits"})
    cluster.advance(15.0)
    assert sorted(cluster.state.owners) == ["set", "waits"]
    cluster.submit({"owner": "user7"})
    assert cluster.stats()["owners"]["user7"]["queued"] == 1
