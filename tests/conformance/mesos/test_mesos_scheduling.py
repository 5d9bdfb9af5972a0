"""The scheduler API's meaning against a real master and agent: streams, offers, tasks, reconciliation, failover."""

import time

import pytest
from mesos_client import Subscription, request, task, wait_until

PARTITION_AWARE = {"capabilities": [{"type": "PARTITION_AWARE"}]}
MULTI_ROLE = {"capabilities": [{"type": "MULTI_ROLE"}]}


def test_the_stream_is_chunked_and_opens_with_subscribed_and_a_heartbeat(cluster, info):
    with Subscription(cluster.url, info) as opened:
        assert opened.response.headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in opened.response.headers
        assert opened.response.headers["Content-Type"].startswith("application/json")
        assert opened.stream_id
        first, second = opened.read(), opened.read()
        assert (first["type"], second["type"]) == ("SUBSCRIBED", "HEARTBEAT")
        subscribed = first["subscribed"]
        assert subscribed["framework_id"]["value"]
        assert subscribed["heartbeat_interval_seconds"] == 1.0
        master = subscribed["master_info"]
        assert cluster.url.endswith(f":{master['address']['port']}")
        assert master["port"] == master["address"]["port"]
        assert all(piece.isdigit() for piece in master["version"].split("."))
        opened.next("HEARTBEAT", timeout_s=3)
        opened.next("HEARTBEAT", timeout_s=3)
        opened.framework_id = subscribed["framework_id"]["value"]
        opened.tell("TEARDOWN")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "a b"}, "role"),
        ({"role": "-a"}, "role"),
        ({"roles": ["a"]}, "MULTI_ROLE"),
        ({**MULTI_ROLE, "role": "a"}, "role"),
        ({**MULTI_ROLE, "roles": ["a", "a"]}, "a"),
        ({"failover_timeout": -1}, "failover_timeout"),
    ],
)
def test_a_framework_that_makes_no_sense_gets_an_error_event_and_the_end(cluster, info, change, words):
    with Subscription(cluster.url, {**info, **change}) as opened:
        (event,) = opened.drain()
        assert event["type"] == "ERROR"
        assert words in event["error"]["message"]


def test_suppressed_roles_must_be_the_frameworks_own(cluster, info):
    with Subscription(cluster.url, {**info, "role": "a"}, suppressed=("b",)) as opened:
        assert [event["type"] for event in opened.drain()] == ["ERROR"]


def test_an_offer_is_of_one_agent_and_one_role(cluster, scheduler):
    offer = scheduler.offer()
    agent = cluster.agent
    assert offer["agent_id"]["value"] == agent["id"]
    assert offer["framework_id"]["value"] == scheduler.framework_id
    assert offer["hostname"] == agent["hostname"]
    assert offer["url"]["address"]["port"] == agent["port"]
    assert offer["allocation_info"] == {"role": "*"}
    assert {r["allocation_info"]["role"] for r in offer["resources"]} == {"*"}
    assert {r["role"] for r in offer["resources"]} == {"*"}
    assert {a["name"]: a["type"] for a in offer["attributes"]} == {"rack": "TEXT", "level": "SCALAR"}
    names = {r["name"] for r in offer["resources"]}
    assert {"cpus", "mem", "ports"} <= names


def test_a_task_runs_to_its_end_and_every_update_waits_for_the_one_before(scheduler):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "ends", "true"))
    starting = scheduler.update(acknowledge=False)
    assert starting["state"] == "TASK_STARTING"
    assert starting["agent_id"] == offer["agent_id"]
    assert starting["timestamp"] > 1e9
    with pytest.raises(TimeoutError):
        scheduler.next("UPDATE", timeout_s=1.5)
    scheduler.acknowledge(starting)
    running = scheduler.update(acknowledge=False)
    assert running["state"] == "TASK_RUNNING"
    assert running["container_status"]["container_id"]["value"]
    assert running["uuid"] != starting["uuid"]
    scheduler.acknowledge(running)
    scheduler.acknowledge(running)  # a second acknowledgement is ignored
    finished = scheduler.update()
    assert finished["state"] == "TASK_FINISHED"
    assert "reason" not in finished


@pytest.mark.parametrize(
    ("command", "words"),
    [("exit 3", "3"), ("kill -KILL $$", "signal")],
)
def test_a_task_that_fails_says_how(scheduler, command, words):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "fails", command))
    assert words in scheduler.update("TASK_FAILED")["message"]


def test_a_command_that_does_not_exist_fails_with_its_name(scheduler):
    offer = scheduler.offer()
    command = {"shell": False, "value": "no-such-command", "arguments": ["no-such-command"]}
    scheduler.launch(offer, {**task(offer, "absent"), "command": command})
    assert "no-such-command" in scheduler.update("TASK_FAILED")["message"]


def test_a_killed_task_is_killed_even_when_it_exits_well(scheduler):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "polite", "trap 'exit 0' TERM; for i in $(seq 300); do sleep 0.1; done"))
    scheduler.update("TASK_RUNNING")
    scheduler.tell("KILL", {"task_id": {"value": "polite"}, "agent_id": offer["agent_id"]})
    assert scheduler.update("TASK_KILLED", "TASK_FINISHED", "TASK_FAILED")["state"] == "TASK_KILLED"


def test_a_task_that_ignores_sigterm_is_killed_after_the_grace(scheduler, tmp_path):
    offer = scheduler.offer()
    grace = {"kill_policy": {"grace_period": {"nanoseconds": 300_000_000}}}
    ready = tmp_path / "ready"
    command = f"trap '' TERM; touch {ready}; for i in $(seq 300); do sleep 0.1; done"
    scheduler.launch(offer, task(offer, "stubborn", command, **grace))
    scheduler.update("TASK_RUNNING")
    wait_until(ready.exists, "the trap")
    begun = time.monotonic()
    scheduler.tell("KILL", {"task_id": {"value": "stubborn"}})
    scheduler.update("TASK_KILLED")
    assert 0.25 < time.monotonic() - begun < 10


def test_a_capable_framework_is_told_that_killing_has_begun(cluster, info):
    capable = {**info, "capabilities": [{"type": "TASK_KILLING_STATE"}]}
    with Subscription(cluster.url, capable) as opened:
        opened.registered()
        offer = opened.offer()
        opened.launch(
            offer, task(offer, "slow", "trap 'sleep 0.3; exit 0' TERM; for i in $(seq 300); do sleep 0.1; done")
        )
        opened.update("TASK_RUNNING")
        opened.tell("KILL", {"task_id": {"value": "slow"}})
        assert opened.update()["state"] == "TASK_KILLING"
        assert opened.update()["state"] == "TASK_KILLED"
        opened.tell("TEARDOWN")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpus": 64.0}, "more than available"),
        ({"cpus": -1.0}, "cpus"),
        ({"resources": []}, "resources"),
        ({"task_id": {"value": "a/b"}}, "a/b"),
        ({"agent_id": {"value": "elsewhere"}}, "elsewhere"),
        ({"command": None}, "command"),
        ({"container": {"type": "MESOS", "mesos": {"image": {"type": "DOCKER"}}}}, "container.mesos.image"),
        ({"limits": {"cpus": {"value": 0.01}}}, "limit"),
    ],
)
def test_a_task_that_cannot_be_launched_is_an_error_with_its_reason(scheduler, change, words):
    offer = scheduler.offer()
    wanted = {key: change.pop(key) for key in ("cpus",) if key in change}
    good, bad = task(offer, "good", "true"), {**task(offer, "bad", "true", **wanted), **change}
    scheduler.launch(offer, bad, good)
    status = scheduler.update("TASK_ERROR")
    assert words in status["message"]
    assert (status["source"], status["reason"]) == ("SOURCE_MASTER", "REASON_TASK_INVALID")
    assert "uuid" not in status
    scheduler.update("TASK_FINISHED", task_id="good")


def test_a_task_group_is_refused_with_its_reason(scheduler):
    offer = scheduler.offer()
    group = {
        "executor": {"executor_id": {"value": "e"}, "type": "DEFAULT"},
        "task_group": {"tasks": [task(offer, "g1", "true")]},
    }
    operations = [{"type": "LAUNCH_GROUP", "launch_group": group}]
    scheduler.tell("ACCEPT", {"offer_ids": [offer["id"]], "operations": operations})
    status = scheduler.update()
    assert (status["state"], status["reason"]) == ("TASK_ERROR", "REASON_TASK_GROUP_INVALID")
    assert status["message"]


def test_an_operation_that_is_not_carried_out_gives_its_offer_back(scheduler):
    offer = scheduler.offer()
    reserve = {"type": "RESERVE", "reserve": {"resources": []}}
    accept = {"offer_ids": [offer["id"]], "operations": [reserve], "filters": {"refuse_seconds": 0}}
    scheduler.tell("ACCEPT", accept)
    again = scheduler.offer()
    assert again["id"] != offer["id"]
    assert _cpus(again) == _cpus(offer)


def test_a_second_task_of_the_same_id_is_an_error(scheduler):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "twin", "sleep 30"), task(offer, "twin", "sleep 30"))
    assert scheduler.update("TASK_ERROR")["task_id"]["value"] == "twin"
    assert scheduler.update("TASK_RUNNING")["task_id"]["value"] == "twin"


@pytest.mark.parametrize(("capable", "state"), [({}, "TASK_LOST"), (PARTITION_AWARE, "TASK_DROPPED")])
def test_a_stale_offer_is_accepted_and_its_tasks_are_lost(cluster, info, capable, state):
    with Subscription(cluster.url, {**info, **capable}) as opened:
        opened.registered()
        offer = opened.offer()
        opened.tell("DECLINE", {"offer_ids": [offer["id"]]})
        opened.launch(offer, task(offer, "late", "true"))
        status = opened.update()
        assert (status["state"], status["reason"]) == (state, "REASON_INVALID_OFFERS")
        assert status["source"] == "SOURCE_MASTER"
        assert offer["id"]["value"] in status["message"]
        assert "uuid" not in status
        opened.tell("TEARDOWN")


def test_what_a_task_does_not_take_is_offered_again(scheduler):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "small", "sleep 30", cpus=1))
    rest = scheduler.offer()
    cpus = {o["id"]["value"]: _cpus(o) for o in (offer, rest)}
    assert cpus[rest["id"]["value"]] == cpus[offer["id"]["value"]] - 1


def _cpus(offer):
    return sum(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "cpus")


def test_a_declined_offer_stays_away_until_revive(scheduler):
    offer = scheduler.offer()
    scheduler.tell("DECLINE", {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 1000}})
    with pytest.raises(TimeoutError):
        scheduler.next("OFFERS", timeout_s=1.5)
    begun = time.monotonic()
    scheduler.tell("REVIVE")
    scheduler.next("OFFERS", timeout_s=3)
    assert time.monotonic() - begun < 1


def test_a_suppressed_framework_gets_no_offers_until_revive(scheduler):
    offer = scheduler.offer()
    scheduler.tell("SUPPRESS")
    scheduler.tell("DECLINE", {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0}})
    with pytest.raises(TimeoutError):
        scheduler.next("OFFERS", timeout_s=1.5)
    scheduler.tell("REVIVE")
    scheduler.next("OFFERS", timeout_s=3)


def test_a_framework_of_many_roles_gets_an_offer_per_role(cluster, info):
    with Subscription(cluster.url, {**info, **MULTI_ROLE, "roles": ["red", "blue"]}) as opened:
        opened.registered()
        seen = set()
        while seen != {"red", "blue"}:
            offer = opened.offer()
            seen.add(offer["allocation_info"]["role"])
            assert {r["allocation_info"]["role"] for r in offer["resources"]} == {offer["allocation_info"]["role"]}
            declined = {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 100}}
            opened.tell("DECLINE", declined)
        opened.tell("TEARDOWN")


@pytest.mark.parametrize(
    ("capable", "nowhere", "here"),
    [({}, "TASK_LOST", "TASK_LOST"), (PARTITION_AWARE, "TASK_UNKNOWN", "TASK_GONE")],
)
def test_reconciling_answers_for_what_nobody_knows(cluster, info, capable, nowhere, here):
    with Subscription(cluster.url, {**info, **capable}) as opened:
        opened.registered()
        agent_id = {"value": cluster.agent["id"]}
        asked = [{"task_id": {"value": "ghost"}}, {"task_id": {"value": "spook"}, "agent_id": agent_id}]
        opened.tell("RECONCILE", {"tasks": asked})
        answers = {s["task_id"]["value"]: s for s in (opened.update(), opened.update())}
        assert [answers[name]["state"] for name in ("ghost", "spook")] == [nowhere, here]
        for status in answers.values():
            assert (status["source"], status["reason"]) == ("SOURCE_MASTER", "REASON_RECONCILIATION")
            assert "uuid" not in status
        opened.tell("KILL", {"task_id": {"value": "ghost"}})
        assert opened.update()["state"] == nowhere
        opened.tell("TEARDOWN")


def test_reconciling_tells_the_state_of_known_tasks(scheduler):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "r1", "sleep 30"), task(offer, "r2", "sleep 30"))
    running = {scheduler.update("TASK_RUNNING")["task_id"]["value"] for _ in range(2)}
    assert running == {"r1", "r2"}
    scheduler.tell("RECONCILE", {"tasks": [{"task_id": {"value": "r1"}}]})
    status = scheduler.update()
    assert (status["task_id"]["value"], status["state"]) == ("r1", "TASK_RUNNING")
    scheduler.tell("RECONCILE", {})
    both = [scheduler.update() for _ in range(2)]
    assert {s["task_id"]["value"] for s in both} == {"r1", "r2"}
    assert {s["reason"] for s in both} == {"REASON_RECONCILIATION"}


def test_a_new_subscription_takes_over_and_the_old_stream_ends(cluster, info):
    old = Subscription(cluster.url, info).registered()
    offer = old.offer()
    old.launch(offer, task(offer, "survivor", "sleep 30"))
    old.update("TASK_RUNNING")
    with Subscription(cluster.url, {**info, "id": {"value": old.framework_id}}) as new:
        assert new.registered().framework_id == old.framework_id
        assert new.stream_id != old.stream_id
        last = old.drain()[-1]
        assert last["type"] == "ERROR"
        assert "failed over" in last["error"]["message"].lower()
        assert old.call("REVIVE").status == 400
        new.tell("RECONCILE", {})
        assert new.update()["state"] == "TASK_RUNNING"
        new.tell("TEARDOWN")
    old.close()


def test_an_update_that_was_not_acknowledged_comes_again_after_a_failover(cluster, info):
    old = Subscription(cluster.url, info).registered()
    offer = old.offer()
    old.launch(offer, task(offer, "again", "sleep 30"))
    starting = old.update(acknowledge=False)
    old.close()
    with Subscription(cluster.url, {**info, "id": {"value": old.framework_id}}) as new:
        new.registered()
        repeated = new.update(acknowledge=False)
        assert (repeated["uuid"], repeated["state"]) == (starting["uuid"], "TASK_STARTING")
        new.acknowledge(repeated)
        assert new.update("TASK_RUNNING")
        new.tell("TEARDOWN")


def test_tasks_outlive_a_broken_stream_until_the_failover_timeout(cluster, info):
    opened = Subscription(cluster.url, {**info, "failover_timeout": 1.0}).registered()
    offer = opened.offer()
    opened.launch(offer, task(offer, "orphan", "sleep 60"))
    opened.update("TASK_RUNNING")
    opened.close()
    shown = f"/frameworks?framework_id={opened.framework_id}"
    assert cluster.get(shown).json["frameworks"]

    def removed():
        return cluster.get(shown).json["completed_frameworks"]

    wait_until(removed, "the framework's removal")
    with Subscription(cluster.url, {**info, "id": {"value": opened.framework_id}}) as late:
        (event,) = late.drain()
        assert event["type"] == "ERROR"
        assert "removed" in event["error"]["message"].lower()
    cluster.wait_until_idle()


def test_a_framework_without_failover_timeout_ends_with_its_stream(cluster, info):
    opened = Subscription(cluster.url, {**info, "failover_timeout": 0}).registered()
    opened.close()
    wait_until(
        lambda: cluster.get(f"/frameworks?framework_id={opened.framework_id}").json["completed_frameworks"],
        "the framework's removal",
    )


def test_an_invented_framework_id_is_taken(cluster, info):
    with Subscription(cluster.url, {**info, "id": {"value": "invented by me"}}) as opened:
        assert opened.registered().framework_id == "invented by me"
        opened.tell("TEARDOWN")


def test_teardown_ends_the_tasks_the_stream_and_the_id(cluster, info):
    opened = Subscription(cluster.url, info).registered()
    offer = opened.offer()
    opened.launch(offer, task(offer, "doomed", "sleep 60"))
    opened.update("TASK_RUNNING")
    opened.tell("TEARDOWN")
    opened.drain()
    assert opened.call("REVIVE").status == 400
    with Subscription(cluster.url, {**info, "id": {"value": opened.framework_id}}) as late:
        assert [event["type"] for event in late.drain()] == ["ERROR"]
    cluster.wait_until_idle()


def test_a_changed_principal_is_refused(cluster, info):
    opened = Subscription(cluster.url, {**info, "principal": "p"}).registered()
    with Subscription(cluster.url, {**info, "principal": "q", "id": {"value": opened.framework_id}}) as other:
        assert [event["type"] for event in other.drain()] == ["ERROR"]
    assert opened.call("TEARDOWN").status == 202
    opened.close()


def test_a_want_is_answered_with_an_offer_of_its_shape(scheduler):
    scheduler.tell("SUPPRESS")
    scalars = {"cpus": 0.5, "mem": 64}
    resources = [{"name": n, "type": "SCALAR", "scalar": {"value": v}} for n, v in scalars.items()]
    want = {"id": "w1", "role": "*", "count": 2, "resources": resources, "ports": 1}
    scheduler.tell("REQUEST", {"wants": [want]})
    offers = []
    while len(offers) < 2:
        offers += [o for o in scheduler.next("OFFERS")["offers"]["offers"] if o.get("corral_want_id") == "w1"]
    assert {_cpus(o) for o in offers} == {0.5}
    for offer in offers:
        (ports,) = (r["ranges"]["range"] for r in offer["resources"] if r["name"] == "ports")
        assert [span["end"] - span["begin"] for span in ports] == [0]
        shaped = {**task(offer, f"want-{offer['id']['value']}", "true"), "resources": offer["resources"]}
        scheduler.launch(offer, shaped)
        assert scheduler.update("TASK_FINISHED")


def test_a_want_that_fits_nowhere_is_explained(cluster, scheduler):
    resources = [{"name": "mem", "type": "SCALAR", "scalar": {"value": 1_000_000}}]
    want = {"id": "huge", "role": "*", "count": 1, "resources": resources}
    scheduler.tell("REQUEST", {"wants": [want]})
    while not (rows := scheduler.next("EXPLANATIONS")["explanations"].get("explanations")):
        pass
    (row,) = rows
    assert (row["want_id"], row["waiting"], row["never"]) == ("huge", 1, True)
    assert row["refusals"][0]["reason"] == "mem"
    assert row["refusals"][0]["detail"]
    scheduler.tell("REQUEST", {"wants": []})


def test_a_tasks_sandbox_is_found_and_read_as_mesos_tools_do(cluster, scheduler):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "writer", "echo out; echo err >&2; sleep 60"))
    scheduler.update("TASK_RUNNING")
    agent = cluster.agent_url
    executors = _executors(agent, scheduler.framework_id)
    (directory,) = [e["directory"] for e in executors if e["id"] == "writer"]

    def read(name, **query):
        words = "&".join(f"{key}={value}" for key, value in query.items())
        return request(agent, "GET", f"/files/read?path={directory}/{name}&{words}")

    wait_until(lambda: read("stdout", offset=0).json["data"] == "out\n", "the task's output")
    assert read("stderr", offset=0, length=2).json == {"data": "er", "offset": 0}
    assert read("stdout", offset=-1).json == {"data": "", "offset": 4}
    assert read("stdout", offset=-2).status == 400
    assert read("nothing", offset=0).status == 404
    names = {e["path"].rpartition("/")[2]: e for e in request(agent, "GET", f"/files/browse?path={directory}").json}
    assert {"stdout", "stderr"} <= names.keys()
    assert names["stdout"]["mode"].startswith("-rw")
    assert {"nlink", "size", "mtime", "uid", "gid"} <= names["stdout"].keys()
    assert request(agent, "GET", f"/files/download?path={directory}/stdout").body == b"out\n"
    assert request(agent, "GET", "/files/browse?path=/etc").status in (403, 404)


def _executors(agent_url, framework_id):
    frameworks = request(agent_url, "GET", "/state").json["frameworks"]
    return next(f for f in frameworks if f["id"] == framework_id)["executors"]


HEALTH_UPDATED = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED"


def test_a_health_check_is_told_by_updates_and_a_task_that_fails_it_is_killed(scheduler):
    check = {
        "command": {"value": "test ! -e ill"}, "delay_seconds": 0.1, "interval_seconds": 0.2, "timeout_seconds": 5,
        "grace_period_seconds": 0, "consecutive_failures": 2,
    }  # fmt: skip
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "frail", "sleep 1.5; touch ill; sleep 600", health_check=check))
    running = scheduler.update("TASK_RUNNING")
    assert "healthy" not in running
    well, ill = scheduler.update(), scheduler.update()
    assert [(u["state"], u["healthy"], u["reason"]) for u in (well, ill)] == [
        ("TASK_RUNNING", True, HEALTH_UPDATED),
        ("TASK_RUNNING", False, HEALTH_UPDATED),
    ]
    assert "exited with status 1" in ill["message"]
    assert ill["corral_health"][0]["consecutive_failures"] == 1
    killed = scheduler.update()
    assert (killed["state"], killed["healthy"]) == ("TASK_KILLED", False)
    assert "failed 2 times in a row" in killed["message"]
    assert "reason" not in killed


def test_health_is_part_of_what_reconciliation_and_reads_tell(cluster, scheduler):
    check = {"type": "COMMAND", "command": {"value": "true"}, "delay_seconds": 0, "interval_seconds": 0.2}
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "sound", "sleep 600", health_check=check))
    scheduler.update("TASK_RUNNING")
    assert scheduler.update()["healthy"] is True
    scheduler.tell("RECONCILE", {"tasks": [{"task_id": {"value": "sound"}}]})
    answer = scheduler.update(acknowledge=False)
    assert (answer["reason"], answer["healthy"]) == ("REASON_RECONCILIATION", True)
    tasks = {t["id"]: t for t in request(cluster.url, "GET", "/tasks").json["tasks"]}
    assert tasks["sound"]["health_check"]["command"]["value"] == "true"
    assert tasks["sound"]["statuses"][-1]["healthy"] is True


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"type": "HTTP"}, "of port 0"),
        ({}, "without a type"),
        ({"http": {"port": 80, "path": "up"}}, "starts with /"),
        ({"tcp": {"port": 80, "protocol": "IPV6"}}, "health_check.tcp.protocol"),
        ({"tcp": {"port": 80}, "interval_seconds": -1}, "interval"),
    ],
)
def test_a_health_check_that_makes_no_sense_is_a_task_error(scheduler, check, words):
    offer = scheduler.offer()
    scheduler.launch(offer, task(offer, "senseless", "sleep 600", health_check=check))
    error = scheduler.update("TASK_ERROR", acknowledge=False)
    assert error["reason"] == "REASON_TASK_INVALID"
    assert words in error["message"]
