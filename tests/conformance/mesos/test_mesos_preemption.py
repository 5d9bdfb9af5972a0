"""Tasks that make room for others, seen by the frameworks that own both: real processes, ended with their grace."""

import contextlib

import pytest
from mesos_client import Subscription, forget_roles, request, task, wait_until

CPUS = 4
"""Of the one node."""

STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def want(name, count, role="shop", cpus=1, **more):
    resources = [{"name": n, "type": "SCALAR", "scalar": {"value": v}} for n, v in (("cpus", cpus), ("mem", 32))]
    return {"id": name, "role": role, "count": count, "resources": resources, **more}


@pytest.fixture
def framework(cluster):
    """Opens frameworks on the idle cluster; they are torn down with all they run."""
    cluster.wait_until_idle()
    with contextlib.ExitStack() as opened:

        def subscribe(name, *roles):
            info = {
                "user": "root", "name": name, "roles": roles, "failover_timeout": 60.0,
                "capabilities": [{"type": "MULTI_ROLE"}],
            }  # fmt: skip
            one = opened.enter_context(Subscription(cluster.url, info)).registered()
            opened.callback(one.call, "TEARDOWN")
            one.tell("REQUEST", {"wants": []})
            return one

        yield subscribe
    cluster.wait_until_idle()
    forget_roles(cluster.url)


def run(framework, wants, *names, command=STAY, **fields):
    """State wants, and launch a task of each name on the next offer that is made for one of them."""
    framework.tell("REQUEST", {"wants": wants})
    waiting = list(names)
    while waiting:
        for offer in framework.next("OFFERS")["offers"]["offers"]:
            # Coarse ones are from before the first REQUEST, and have been taken back since.
            if offer.get("corral_want_id") in {each["id"] for each in wants}:
                shaped = {**task(offer, waiting.pop(0), command, **fields), "resources": offer["resources"]}
                framework.launch(offer, shaped)
    for _ in names:
        framework.update("TASK_RUNNING")


def tasks(cluster, framework):
    """By id: the state of its tasks, and who takes their place."""
    found = request(cluster.url, "GET", f"/corral/v1/tasks?framework={framework.framework_id}").json["tasks"]
    return {each["id"]: (each["state"], (each.get("preempted_by") or {}).get("want")) for each in found}


def wait_explained(cluster, want_id, *reasons):
    """The explanation of a want, once these are its reasons."""

    def look():
        found = request(cluster.url, "GET", f"/corral/v1/explain?want={want_id}").json["explanations"]
        return next((each for each in found if {r["reason"] for r in each["refusals"]} == set(reasons)), None)

    return wait_until(look, f"the explanation of {want_id} by {reasons}")


def test_a_want_of_higher_priority_evicts_the_least_costly_task_of_its_role(cluster, framework):
    low, high = framework("low", "shop"), framework("high", "shop")
    # The oldest is worth least by its priority; among the others the youngest would be.
    run(low, [want("zero", 1)], "worth-0")
    run(low, [want("one", 3, priority=1)], "worth-1a", "worth-1b", "worth-1c")
    urgent = want("urgent", 1, priority=5)

    planned = request(
        cluster.url, "POST", "/corral/v1/plan", {"framework_id": high.framework_id, "wants": [urgent]}
    ).json
    assert planned["fits"] is True
    assert [(each["task_id"], each["framework"]) for each in planned["evictions"]] == [("worth-0", "low")]
    assert tasks(cluster, low)["worth-0"] == ("TASK_RUNNING", None), "a plan ends nothing"

    high.tell("REQUEST", {"wants": [urgent]})
    victim = low.update("TASK_KILLED", "TASK_FINISHED", "TASK_FAILED")
    assert (victim["task_id"]["value"], victim["state"]) == ("worth-0", "TASK_KILLED")
    assert victim["reason"] == "REASON_CONTAINER_PREEMPTED"
    assert f"priority 0 made room for priority 5 of the same role: urgent of {high.framework_id}" in victim["message"]

    run(high, [urgent], "urgent-task")
    assert tasks(cluster, high)["urgent-task"][0] == "TASK_RUNNING"
    states = tasks(cluster, low)
    assert {name for name, (state, _) in states.items() if state == "TASK_RUNNING"} == {
        "worth-1a", "worth-1b", "worth-1c"
    }  # fmt: skip
    notes = request(cluster.url, "GET", "/corral/v1/events").text.splitlines()
    assert any('"task evicted"' in note and '"worth-0"' in note and high.framework_id in note for note in notes)


def test_equal_priority_and_other_roles_are_never_evicted(cluster, framework):
    low, same, other = framework("low", "shop"), framework("same", "shop"), framework("other", "field")
    run(low, [want("zero", CPUS)], *(f"t{i}" for i in range(CPUS)))
    same.tell("REQUEST", {"wants": [want("equal", 1), want("polite", 1, priority=9, preempts=False)]})
    other.tell("REQUEST", {"wants": [want("elsewhere", 1, role="field", priority=9)]})
    for name in ("equal", "polite", "elsewhere"):
        wait_explained(cluster, name, "cpus")
    assert set(tasks(cluster, low).values()) == {("TASK_RUNNING", None)}


def test_a_higher_want_evicts_as_many_as_it_needs_and_no_more(cluster, framework):
    low, high = framework("low", "shop"), framework("high", "shop")
    run(low, [want("zero", CPUS)], *(f"t{i}" for i in range(CPUS)))
    wide = want("wide", 1, cpus=2, priority=1)
    high.tell("REQUEST", {"wants": [wide]})
    for _ in range(2):
        assert low.update("TASK_KILLED")["reason"] == "REASON_CONTAINER_PREEMPTED"
    run(high, [wide], "wide-task")
    assert sorted(state for state, _ in tasks(cluster, low).values() if state == "TASK_RUNNING") == ["TASK_RUNNING"] * 2


def test_what_is_lent_of_a_guarantee_is_taken_back_when_its_role_asks(cluster, framework):
    answer = request(cluster.url, "PUT", "/corral/v1/roles/prod", {"guarantee": {"cpus": 3}})
    assert answer.status == 200, answer.text
    night, prod = framework("night", "night"), framework("prod", "prod")

    # Firm work gets what is left after the guarantee and is told why no more.
    run(night, [want("firm", 2, role="night")], "firm-task")
    refused = wait_explained(cluster, "firm", "guarantees")
    assert refused["waiting"] == 1
    assert refused["refusals"][0]["detail"] == "what is free is kept for guarantees: cpus 3"
    assert "it is revocable" in refused["fits_if"]

    # Revocable work runs on what is kept, until its role asks.
    run(night, [want("lent", 3, role="night", revocable=True)], "lent-0", "lent-1", "lent-2")
    mine = want("mine", 2, role="prod")
    prod.tell("REQUEST", {"wants": [mine]})
    ended = [night.update("TASK_KILLED", "TASK_FINISHED", "TASK_FAILED") for _ in range(2)]
    for status in ended:
        assert status["state"] == "TASK_KILLED"
        assert status["task_id"]["value"].startswith("lent-")
        assert status["reason"] == "REASON_CONTAINER_PREEMPTED"
        words = f"it ran on lent resources, which role prod takes back for mine of {prod.framework_id}"
        assert words in status["message"]
    run(prod, [mine], "prod-0", "prod-1")
    left = {name for name, (state, _) in tasks(cluster, night).items() if state == "TASK_RUNNING"}
    assert "firm-task" in left
    assert len(left) == 2


def test_a_victim_has_its_grace_and_its_place_is_kept_until_it_is_gone(cluster, framework):
    low, high, rival = framework("low", "shop"), framework("high", "shop"), framework("rival", "shop")
    slow = "trap 'sleep 1.5; exit 0' TERM; while :; do sleep 0.1; done"
    grace = {"grace_period": {"nanoseconds": 10_000_000_000}}
    run(low, [want("zero", 1, cpus=CPUS)], "slow", command=slow, kill_policy=grace)
    urgent = want("urgent", 1, cpus=CPUS, priority=5)
    high.tell("REQUEST", {"wants": [urgent]})
    wait_until(lambda: tasks(cluster, low)["slow"][1] == "urgent", "the decision")
    clearing = wait_explained(cluster, "urgent", "clearing", "cpus")
    assert clearing["refusals"][0]["detail"].startswith("room is being made on 127.0.0.1: 1 tasks of less claim")
    # A rival that came later and would fit as well does not get what was cleared.
    rival.tell("REQUEST", {"wants": [want("late", 1)]})
    assert low.update("TASK_KILLED")["reason"] == "REASON_CONTAINER_PREEMPTED"
    run(high, [urgent], "urgent-task")
    wait_explained(cluster, "late", "cpus")
