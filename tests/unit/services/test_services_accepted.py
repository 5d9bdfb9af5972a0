"""Apps on what is reserved for their role: asked for while they wait, never what bears labels, and why they wait."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from corral.frameworks.services import Config
from corral.frameworks.services.accepted import find_parts, takes_plain, takes_reserved
from corral.frameworks.services.command_spec import CreateApp, DeleteApp, GetQueue, KillTasks, PlanApps, RestartApp
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.pod_dialect import read_pod
from corral.lib.errors import Unprocessable
from corral.model import calls, events
from corral.model.attributes import Attribute
from corral.model.ids import AgentId, FrameworkId, OfferId
from corral.model.maintenance import Unavailability
from corral.model.offer import Offer
from corral.model.resources import Disk, Identity, Reservation, Resources, add, all_ranges, normal, scalar, total_milli
from corral.model.task import Reason, TaskState

ROLE = "slave_public"
ONLY: dict[str, Any] = {"acceptedResourceRoles": [ROLE]}
LB: dict[str, Any] = {
    "id": "/marathon-lb", "cpus": 1, "mem": 512, "instances": 2, "requirePorts": True,
    "portDefinitions": [{"port": 80}, {"port": 443}, {"port": 9090}], "constraints": [["hostname", "UNIQUE"]], **ONLY,
}  # fmt: skip


@pytest.fixture
def public(make_cluster: Any) -> Any:
    """A cluster whose framework is in the role of public agents, of which there are none yet."""
    cluster = make_cluster(Config(role=ROLE))
    cluster.subscribe()
    return cluster


def reserve(cluster: Any, *hosts: str, role: str = ROLE, **more: Any) -> None:
    for host in hosts:
        cluster.reserve(host, role, **{"cpus": 4, "mem": 2048, "disk": 100, "ports": (1, 60000), **more})


def run(cluster: Any) -> list[str]:
    """Launch on what is reserved and let it run, until nothing more happens."""
    found = []
    for _ in range(100):
        made = cluster.offer_open()
        for task_id in made:
            cluster.update(task_id, TaskState.RUNNING)
        found += made
        if not made and not any(t in cluster.tasks for t in cluster.killed):
            return found
        cluster.bury()
    raise AssertionError("the cluster does not come to rest")


def is_reserved(resources: Resources) -> bool:
    """Whether all of it is; nothing that is in parts is looked for."""
    (found,) = {bool(r.identity.reservations) for r in resources}
    return found


def waits(cluster: Any, app_id: str = "/web") -> dict[str, Any]:
    (item,) = [i for i in cluster.ask(GetQueue()) if i.get("app", i.get("pod"))["id"] == app_id]
    summary: dict[str, Any] = item["processedOffersSummary"]
    return summary


def declined(summary: dict[str, Any]) -> dict[str, int]:
    return {row["reason"]: row["declined"] for row in summary["rejectSummaryLastOffers"] if row["declined"]}


# Which.


@pytest.mark.parametrize(
    ("role", "accepted", "plain", "reserved"),
    [
        (ROLE, [], True, True), (ROLE, ["*"], True, False), (ROLE, [ROLE], False, True),
        (ROLE, ["*", ROLE], True, True), ("*", [], True, False), ("*", ["*"], True, False),
    ],
)  # fmt: skip
def test_a_list_says_on_which_resources_an_app_runs(
    role: str, accepted: list[str], plain: bool, reserved: bool
) -> None:
    body = {"id": "/web", "cmd": "x", **({"acceptedResourceRoles": accepted} if accepted else {})}
    spec = read_app(body).spec
    assert (takes_plain(spec), takes_reserved(spec, Config(role=role))) == (plain, reserved)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"acceptedResourceRoles": ["other"]}, "may hold only * and the app's role slave_public"),
        ({**ONLY, "gpus": 1}, "GPUs that are reserved are not offered"),
        ({**ONLY, "constraints": [["hostname", "NEAR", "app:db"]]}, "NEAR and APART"),
        ({**ONLY, "container": {"type": "MESOS", "volumes": [
            {"containerPath": "d", "mode": "RW", "persistent": {"size": 1}}]}}, "reserves for itself"),
    ],
)  # fmt: skip
def test_what_could_never_run_on_reserved_resources_is_refused(public: Any, fields: Any, said: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        public.create(**fields)
    assert any(said in text for text in caught.value.details["/acceptedResourceRoles"])


def test_only_what_is_reserved_for_the_role_and_for_nobody_in_particular_is_free_for_apps() -> None:
    def of(**more: Any) -> Identity:
        return Identity(reservations=(Reservation(**{"role": ROLE, **more}),))

    kinds = {
        1: of(static=True), 2: of(principal="ops"), 4: of(labels=(("corral.reservation", "web.1@1"),)),
        8: of(labels=(("resource_id", "7"),)), 16: of(role="other"), 32: Identity(),
        64: Identity(reservations=of().reservations, disk=Disk(persistence_id="v")),
        128: Identity(reservations=of().reservations, revocable=True),
    }  # fmt: skip
    resources = normal(scalar("disk", n, identity) for n, identity in kinds.items())
    offer = Offer(
        id=OfferId("O"), framework_id=FrameworkId("F"), agent_id=AgentId("a"), hostname="h", ip="", port=1, role=ROLE,
        resources=resources,
    )  # fmt: skip
    (part,) = find_parts([offer])
    assert total_milli(part.free, "disk") == 3000


# On what is reserved alone.


def test_a_balancer_of_public_agents_runs_on_what_they_have_reserved_and_once_on_each(public: Any) -> None:
    public.create(**LB)
    assert public.wants == {}, "the kernel serves wants of what is for everybody"
    assert public.opened == {ROLE}
    assert public.offer_open() == []
    reserve(public, "public1", "public2", "public3")
    assert len(run(public)) == 2
    assert len({t.agent_id for t in public.launched}) == 2
    for task in public.launched:
        assert is_reserved(task.resources)
        assert (total_milli(task.resources, "cpus"), total_milli(task.resources, "mem")) == (1000, 512_000)
        assert all_ranges(task.resources, "ports") == ((80, 80), (443, 443), (9090, 9090))
    shown = public.show("/marathon-lb")
    assert [t["role"] for t in shown["tasks"]] == [ROLE] * 2
    assert (shown["acceptedResourceRoles"], shown["tasksRunning"], shown["deployments"]) == ([ROLE], 2, [])
    assert public.opened == set(), "nothing waits any more"


def test_scaling_killing_restarting_and_upgrading_go_on_on_what_is_reserved(public: Any) -> None:
    reserve(public, "public1", "public2")
    public.create(**{**LB, "instances": 1})
    run(public)
    public.update_app("/marathon-lb", instances=2)
    run(public)
    assert len(public.running("/marathon-lb")) == 2
    public.ask(KillTasks(app="/marathon-lb", instances=(public.running("/marathon-lb")[0].id,)))
    public.settle()
    run(public)
    before = set(public.task_ids("/marathon-lb"))
    assert len(before) == len(public.running("/marathon-lb")) == 2
    public.update_app("/marathon-lb", upgradeStrategy={"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0})
    run(public)
    public.ask(RestartApp(id="/marathon-lb"))
    public.settle()
    run(public)
    after = set(public.task_ids("/marathon-lb"))
    assert len(after) == len(public.running("/marathon-lb")) == 2
    assert not before & after
    public.update_app("/marathon-lb", instances=1)
    run(public)
    assert all(is_reserved(t.resources) for t in public.launched)
    assert not public.state.deployments
    assert public.wants == {}
    public.ask(DeleteApp(id="/marathon-lb"))
    public.settle()
    public.bury()
    assert (public.opened, public.state.apps) == (set(), {})


@pytest.mark.parametrize("crashes", [False, True])
def test_one_that_fails_is_started_again_after_its_delay(public: Any, crashes: bool) -> None:
    reserve(public, "public1")
    public.create(cpus=4, mem=32, backoffSeconds=30, **ONLY)
    (first,) = run(public)
    public.revived.clear()
    public.update(first, TaskState.FAILED)
    assert (public.opened, public.offer_open()) == (set(), [])
    if crashes:
        public.crash()
        public.subscribe()
    else:
        public.advance(31)
    assert public.revived[-1] == (ROLE,)
    (second,) = run(public)
    assert second != first


def test_what_waits_is_asked_for_anew_after_a_failover_of_master_and_framework(public: Any) -> None:
    public.create(**ONLY)
    for _ in range(2):
        public.disconnect()
        public.subscribe()
        assert public.opened == {ROLE}
    public.crash()
    public.subscribe()
    assert public.opened == {ROLE}
    reserve(public, "public1")
    (task_id,) = run(public)
    public.crash()
    public.subscribe()
    public.reconcile()
    assert (public.opened, public.task_ids()) == (set(), [task_id])


def test_one_whose_agent_is_silent_is_replaced_elsewhere(public: Any) -> None:
    reserve(public, "public1", "public2")
    public.create(unreachableStrategy={"inactiveAfterSeconds": 10, "expungeAfterSeconds": 20}, **ONLY)
    (first,) = run(public)
    silent = public.launched[-1].agent_id
    del public.open[silent.removeprefix("agent-")]
    public.update(first, TaskState.UNREACHABLE, reason=Reason.AGENT_REMOVED, unreachable_at=public.now)
    public.advance(11)
    assert len(run(public)) == 1
    assert public.launched[-1].agent_id != silent


def test_more_than_one_input_may_write_about_are_launched_one_after_the_other(make_cluster: Any) -> None:
    cluster = make_cluster(Config(role=ROLE, most_writes=4))
    cluster.subscribe()
    reserve(cluster, "public1", "public2", "public3", cpus=10)
    cluster.create(cpus=1, mem=1, instances=25, **ONLY)
    assert len(run(cluster)) == 25
    placed = sorted(sum(t.agent_id == f"agent-{host}" for t in cluster.launched) for host in cluster.open)
    assert placed == [8, 8, 9], "spread over the nodes"
    accepts = [c for c in cluster.calls if isinstance(c, calls.Accept)]
    assert max(len(c.operations) for c in accepts) <= 4
    assert all(len(c.offer_ids) == 1 for c in accepts)


def test_pods_run_on_what_is_reserved_too(public: Any) -> None:
    reserve(public, "public1", cpus=2)
    containers = [
        {"name": name, "exec": {"command": {"shell": "sleep 9"}}, "resources": {"cpus": 0.5, "mem": 32},
         "endpoints": [{"name": name, "hostPort": 0}]}
        for name in ("a", "b")
    ]  # fmt: skip
    body = {"id": "/pod", "networks": [{"mode": "host"}], "containers": containers, "scheduling": {"placement": ONLY}}
    public.ask(CreateApp(spec=read_pod(body)[0]))
    public.settle()
    assert public.wants == {}
    tasks = run(public)
    assert len(tasks) == 2
    assert all(is_reserved(t.resources) for t in public.launched)
    (launch,) = [o for c in public.calls if isinstance(c, calls.Accept) for o in c.operations]
    assert is_reserved(launch.executor.resources)
    public.update(tasks[0], TaskState.FAILED)
    public.bury()
    public.advance(3)
    assert len(run(public)) == 2


# On either.


@pytest.mark.parametrize("fields", [{"acceptedResourceRoles": ["*", ROLE]}, {}])
def test_one_that_takes_either_runs_on_what_is_offered(public: Any, fields: Any) -> None:
    public.create(cpus=4, mem=32, instances=2, **fields)
    (want,) = public.wants.values()
    assert (want.role, want.count, public.opened) == (ROLE, 2, {ROLE})
    reserve(public, "public1")
    run(public)
    (want,) = public.wants.values()
    assert want.count == 1
    public.work()
    assert [is_reserved(t.resources) for t in public.launched] == [True, False]
    assert (public.opened, public.wants) == (set(), {})


def test_where_both_are_offered_together_what_is_reserved_is_taken_first(public: Any) -> None:
    public.create(cpus=1, mem=32)
    reserve(public, "public1")
    shaped = public.make_offers()
    plain = public._make_open("public1")
    public.send(events.Offers(offers=(*shaped, plain)))
    public.settle()
    (task,) = public.launched
    assert is_reserved(task.resources)
    assert public.declined == [shaped[0].id]


def test_one_that_takes_what_is_for_everybody_alone_asks_for_nothing_reserved(public: Any) -> None:
    public.create(acceptedResourceRoles=["*"])
    assert (public.opened, public.revived, len(public.wants)) == (set(), [], 1)


def test_apps_without_a_list_may_be_kept_off_what_is_reserved(make_cluster: Any) -> None:
    cluster = make_cluster(Config(role=ROLE, use_reserved=False))
    cluster.subscribe()
    reserve(cluster, "public1")
    cluster.create()
    assert (cluster.opened, len(cluster.wants)) == (set(), 1)
    cluster.create(id="/either", acceptedResourceRoles=["*", ROLE])
    cluster.create(id="/only", **ONLY)
    assert len(run(cluster)) == 2


def test_nobody_is_asked_for_what_nothing_can_be_reserved_for(cluster: Any) -> None:
    cluster.create(instances=3)
    cluster.work()
    cluster.update_app(instances=5)
    assert not [c for c in cluster.calls if isinstance(c, calls.Revive | calls.Suppress)]


def test_roles_of_groups_are_asked_for_each_on_its_own(cluster: Any) -> None:
    for name in ("dev", "ops"):
        cluster.create(id=f"/{name}/web", role=name, acceptedResourceRoles=[name])
    assert cluster.opened == {"dev", "ops"}
    reserve(cluster, "host1", role="ops")
    run(cluster)
    assert (cluster.opened, [t.agent_id for t in cluster.launched]) == ({"dev"}, ["agent-host1"])
    cluster.ask(DeleteApp(id="/dev/web", force=True))
    cluster.settle()
    assert (cluster.opened, cluster.roles) == (set(), ("*", "ops"))


def test_changing_the_list_replaces_the_instances_one_by_one(public: Any) -> None:
    reserve(public, "public1")
    public.create(acceptedResourceRoles=["*"], instances=2)
    public.work()
    public.update_app(**ONLY)
    run(public)
    assert [is_reserved(t.resources) for t in public.launched] == [False, False, True, True]
    public.update_app(acceptedResourceRoles=["*"])
    public.work()
    assert not any(is_reserved(t.resources) for t in public.launched[4:])
    assert len(public.running()) == 2


# Labels.


def test_what_an_instance_with_volumes_has_reserved_is_for_no_other(public: Any) -> None:
    volume = {"containerPath": "data", "mode": "RW", "persistent": {"size": 100}}
    public.create(id="/db", cpus=1, mem=64, container={"type": "MESOS", "volumes": [volume]}, backoffSeconds=600)
    public.work()
    public.update(public.launched[0].task_id, TaskState.FAILED)
    public.create(cpus=0.5, mem=32, **ONLY)
    assert public.offer_reserved() == []
    assert len(public.reserved) == 1
    reserve(public, "public1")
    assert len(run(public)) == 1
    assert ROLE in public.opened, "volumes that somebody may still give back are looked for"


def test_of_an_offer_that_holds_both_an_app_takes_what_is_for_any(public: Any) -> None:
    volume = {"containerPath": "data", "mode": "RW", "persistent": {"size": 100}}
    public.create(id="/db", cpus=1, mem=64, container={"type": "MESOS", "volumes": [volume]}, backoffSeconds=600)
    public.work()
    (held,) = public.reserved.values()
    public.update(public.launched[0].task_id, TaskState.FAILED)
    host = held[0].removeprefix("agent-")
    reserve(public, host, cpus=1)
    public.create(cpus=1, mem=32, instances=2, **ONLY)
    offer = public._make_open(host)
    offer = replace(offer, resources=add(offer.resources, held[1]))
    public.send(events.Offers(offers=(offer,)))
    public.settle()
    (task,) = public.launched[1:]
    assert not any(each.labels for r in task.resources for each in r.identity.reservations)
    assert list(public.reserved.values()) == [held]
    again = replace(public._make_open(host), resources=held[1])
    public.send(events.Offers(offers=(again,)))
    assert public.declined == [again.id]
    assert len(public.launched) == 2


# Why not.


def test_the_queue_says_that_nothing_reserved_was_offered(public: Any) -> None:
    public.create(**ONLY)
    summary = waits(public)
    assert declined(summary) == {"UnfulfilledRole": 1}
    (reason,) = summary["reasons"]
    assert reason["detail"].startswith("nothing that is free and reserved for role slave_public has been offered")


def test_the_queue_says_what_of_the_reserved_is_too_little(public: Any) -> None:
    reserve(public, "public1", cpus=1)
    reserve(public, "public2", mem=16)
    reserve(public, "public3", ports=(100, 200))
    reserve(public, "public4", attributes=(Attribute(name="rack", text="b"),))
    public.create(cpus=2, mem=32, portDefinitions=[{"port": 80}], requirePorts=True,
                  constraints=[["rack", "UNLIKE", "b"]], **ONLY)  # fmt: skip
    assert run(public) == []
    summary = waits(public)
    assert declined(summary) == {
        "InsufficientCpus": 1, "InsufficientMemory": 1, "InsufficientPorts": 1, "UnfulfilledConstraint": 1
    }  # fmt: skip
    assert (summary["processedOffersCount"], summary["unusedOffersCount"]) == (4, 4)
    details = {r["reason"]: r["detail"] for r in summary["reasons"]}
    assert details["cpus"] == "asks cpus 2, public1 offers 1 of what is reserved for role slave_public"
    assert details["ports"] == "asks the ports 80, which public3 has not among 100-200 reserved for role slave_public"
    assert details["constraint"] == "rack not regex b excludes public4"
    reserve(public, "public5")
    public.update_app(cpus=3, force=True)
    assert declined(waits(public)) == {"UnfulfilledRole": 1}, "what was in the way of the old one is forgotten"
    assert len(run(public)) == 1
    assert public.ask(GetQueue()) == []


def test_one_that_waits_for_its_delay_has_not_been_turned_away(public: Any) -> None:
    reserve(public, "public1")
    public.create(backoffSeconds=30, **ONLY)
    (task_id,) = run(public)
    public.update(task_id, TaskState.FAILED)
    summary = waits(public)
    assert (declined(summary), summary.get("reasons", [])) == ({}, [])


def test_a_plan_names_what_asks_nothing_of_the_kernel(public: Any) -> None:
    specs = tuple(read_app({"id": i, "cmd": "true", **more}).spec for i, more in (("/a", ONLY), ("/b", {})))
    answer = public.ask(PlanApps(specs=specs))
    assert [want["group"] for want in answer["wants"]] == ["/b"]
    assert answer["unplanned"] == [{"id": "/a", "why": "it takes only what is reserved for role slave_public"}]


def test_nothing_new_is_started_on_a_node_in_its_maintenance_window(public: Any) -> None:
    reserve(public, "public1")
    start_ns = round(public.now * 1e9)
    public.leaves["public1"] = Unavailability(start_ns=start_ns, duration_ns=60_000_000_000)
    public.create(**ONLY)
    assert run(public) == []
    assert declined(waits(public)) == {"AgentMaintenance": 1}
    public.advance(61)
    assert len(run(public)) == 1


def test_an_agent_that_is_gone_for_good_is_no_reason_any_more(public: Any) -> None:
    reserve(public, "public1", cpus=1)
    public.create(cpus=2, **ONLY)
    assert run(public) == []
    assert declined(waits(public)) == {"InsufficientCpus": 1}
    public.send(events.Failure(agent_id=AgentId("agent-public1")))
    assert declined(waits(public)) == {"UnfulfilledRole": 1}


def test_what_was_refused_is_asked_for_again_once_it_may_be_taken(public: Any) -> None:
    reserve(public, "h0", attributes=(Attribute(name="rack", text="a"),))
    reserve(public, "h1", cpus=3, attributes=(Attribute(name="rack", text="a"),))
    public.create(cpus=4, mem=32, constraints=[["rack", "UNIQUE"]], **ONLY)
    run(public)
    public.update_app(instances=2)
    assert run(public) == []
    refused = {c.filters.refuse_s for c in public.calls if isinstance(c, calls.Decline)}
    assert refused == {120.0}, "what cannot be used now is left to others for a while"
    public.revived.clear()
    reserve(public, "h1", attributes=(Attribute(name="rack", text="a"),))
    public.ask(KillTasks(app="/web"))
    public.settle()
    public.bury()
    assert public.revived, "the other is not in the way any more"
    assert len(run(public)) == 1


def test_one_that_takes_either_says_too_why_what_is_reserved_will_not_do(public: Any) -> None:
    reserve(public, "public1", cpus=1)
    public.create(cpus=2)
    assert run(public) == []
    assert any("offers 1 of what is reserved" in r["detail"] for r in waits(public)["reasons"])


# Constraints.


@pytest.mark.parametrize(
    ("constraint", "racks", "expected"),
    [
        (["rack", "UNIQUE"], "aabb", "ab"), (["rack", "MAX_PER", "2"], "aaab", "aabb"),
        (["rack", "GROUP_BY", "2"], "aab", "aabb"), (["rack", "GROUP_BY"], "aab", "aabb"),
        (["rack", "CLUSTER"], "ab", "aaaa"), (["rack", "LIKE", "a"], "ab", "aaaa"),
        (["hostname", "UNIQUE"], "aab", "aab"), (["hostname", "LIKE", "h2"], "aab", "bbbb"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("crashes", [False, True])
def test_constraints_hold_on_what_is_reserved(
    public: Any, constraint: list[str], racks: str, expected: str, crashes: bool
) -> None:
    for index, rack in enumerate(racks):
        reserve(public, f"h{index}", attributes=(Attribute(name="rack", text=rack),))
    public.create(instances=2 if crashes else 4, constraints=[constraint], **ONLY)
    run(public)
    if crashes:
        public.crash()
        public.subscribe()
        public.reconcile()
        public.update_app(instances=4, force=True)
        run(public)
    rack_of = {f"agent-h{index}": rack for index, rack in enumerate(racks)}
    found = "".join(sorted(rack_of[t.agent_id] for t in public.launched))
    if constraint[1] == "CLUSTER":
        assert found in ("aaaa", "bbbb")
    else:
        assert found == expected


# By chance.

STEPS = st.lists(
    st.sampled_from(["offer", "open", "fail", "scale", "kill", "crash", "cut", "bury", "list", "wait", "delete"]),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, choices=st.randoms(use_true_random=False))
def test_whatever_happens_each_runs_where_it_may_and_nothing_is_asked_for_in_vain(
    make_cluster: Any, steps: list[str], choices: Any
) -> None:
    cluster = make_cluster(Config(role=ROLE))
    cluster.subscribe()
    reserve(cluster, "public1", "public2", cpus=1)
    lists = [{}, {"acceptedResourceRoles": ["*"]}, ONLY]
    cluster.create(cpus=0.5, mem=32, instances=2, **choices.choice(lists))
    for step in steps:
        known = cluster.state.visible("/web")
        accepted = known.spec.accepted_resource_roles if known is not None else None
        before = len(cluster.launched)
        match step:
            case "offer":
                cluster.offer(most=1)
            case "open":
                cluster.offer_open()
            case "fail" if cluster.tasks:
                cluster.update(choices.choice(sorted(cluster.tasks)), TaskState.FAILED)
            case "scale" if accepted is not None:
                cluster.update_app(instances=choices.randrange(6), force=True)
            case "kill" if known is not None and known.present:
                cluster.ask(KillTasks(app="/web"))
            case "crash":
                cluster.crash()
                cluster.subscribe()
                cluster.reconcile()
            case "cut":
                cluster.disconnect()
                cluster.subscribe()
            case "bury":
                cluster.bury()
            case "list" if accepted is not None:
                cluster.update_app(force=True, **choices.choice(lists[1:]))
            case "wait":
                cluster.advance(5)
            case "delete" if accepted is not None:
                cluster.ask(DeleteApp(id="/web", force=True))
            case _:
                pass
        cluster.settle()
        for task in cluster.launched[before:]:
            assert is_reserved(task.resources) or accepted != (ROLE,)
            assert not is_reserved(task.resources) or accepted != ("*",)
        app = cluster.state.visible("/web")
        if app is None or not app.up_to_date[0]:
            assert (cluster.opened, cluster.wants) == (set(), {})
