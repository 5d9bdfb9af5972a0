"""What views and numbers say in sum of what is lent, reserved and offered: each thing once, and nothing below zero."""

import json
from typing import Any

import pytest
from master_stage import Stage, task_info
from test_kernel_loaned import POD, group, pods
from test_lend_guarantees import keep
from test_over_master import fill
from test_over_master import lend as tell_slack
from test_reserve_loans import REVOCABLE, STATIC, borrow, lend, revocable
from test_reserve_master import reserved

from corral.master import cluster_view, numbers, role_views, sums
from corral.master.spec import GetCluster
from corral.mesos import legacy
from corral.mesos.operator import OperatorCall, write_response
from corral.model.framework import Capability
from corral.model.resources import Resources, add

REFINED = (*REVOCABLE, Capability.RESERVATION_REFINEMENT)


def shown(stage: Stage) -> Any:
    return cluster_view.cluster(stage.core.state, GetCluster(agents=True, frameworks=True, tasks=True, roles=True))


def roles(stage: Stage) -> dict[str, Any]:
    return {r["name"]: r for r in legacy.write_roles(shown(stage))["roles"]}


def frameworks(stage: Stage) -> dict[str, Any]:
    return {f["name"]: f for f in legacy.write_frameworks(shown(stage))["frameworks"]}


def figures(stage: Stage) -> dict[str, float]:
    return dict(numbers.metrics(stage.core.state, stage.now))


def operator(stage: Stage, call: OperatorCall) -> Any:
    return json.loads(write_response(call, shown(stage), "1.11.0"))[call.value.lower()]


def check(stage: Stage) -> None:
    """Whatever is asked: sums of frameworks, roles and agents tell the same, and nothing is below zero."""
    state = stage.core.state
    of_roles: Resources = add(*(tally.bundle() for tally in sums.by_role(state).values()))
    of_frameworks: Resources = add(*(tally.bundle() for tally in sums.by_framework(state).values()))
    assert of_roles == of_frameworks
    for found in (*roles(stage).values(), *frameworks(stage).values()):
        for kind in ("resources", "allocated", "offered", "used_resources", "offered_resources"):
            amounts = {name: n for name, n in found.get(kind, {}).items() if not isinstance(n, str)}
            assert all(n >= 0 for n in amounts.values()), (found["name"], kind, amounts)
    (agent,) = legacy.write_slaves(shown(stage))["slaves"]
    every = frameworks(stage).values()
    for kind in ("used_resources", "offered_resources"):
        for name in ("cpus", "mem", "cpus_revocable"):
            assert agent[kind].get(name, 0) == sum(f[kind].get(name, 0) for f in every), (kind, name)


@pytest.mark.parametrize("capabilities", [REVOCABLE, REFINED])
@pytest.mark.parametrize("loan", ["reservation", "guarantee"])
def test_a_loan_counts_as_what_it_is_taken_from_for_whoever_has_it(
    loan: str, capabilities: tuple[Capability, ...]
) -> None:
    stage, agent, _, first = lend() if loan == "reservation" else keep()
    first.decline(*first.offers(), refuse_s=3600)
    borrower = stage.framework(role="other", name="again", capabilities=capabilities)
    stage.run(1)
    (offer,) = borrower.offers()
    cpus = sum(r.milli for r in offer.resources if r.name == "cpus") / 1000
    check(stage)
    assert roles(stage)["other"]["allocated"]["cpus"] == 0
    assert roles(stage)["other"]["offered"]["cpus"] == roles(stage)["other"]["resources"]["cpus"] == cpus
    borrower.accept([offer], task_info("b1", agent.id, revocable(1)), refuse_s=3600)
    stage.run(1)
    check(stage)
    found = roles(stage)["other"]
    assert (found["allocated"]["cpus"], found["resources"]["cpus"], found["offered"]["cpus"]) == (1, 1, 0)
    assert frameworks(stage)["again"]["used_resources"]["cpus"] == 1
    (task,) = (t for t in operator(stage, OperatorCall.GET_TASKS)["tasks"] if t["name"] == "b1")
    assert all("revocable" in r and r["role"] == "*" for r in task["resources"])
    before = figures(stage)
    assert before["master/cpus_used"] <= before["master/cpus_total"]
    assert before["master/cpus_revocable_used"] == before["master/cpus_revocable_total"] == 0


def test_what_a_role_holds_of_its_own_reservation_counts_as_allocated() -> None:
    stage, agent, _, _ = lend()
    owner = stage.framework(role="web", name="owner")
    stage.run(1)
    offers = owner.offers()
    check(stage)
    assert roles(stage)["web"]["offered"]["cpus"] == 2
    owner.accept(offers, task_info("w1", agent.id, (reserved("cpus", 1, STATIC), reserved("mem", 64, STATIC))))
    stage.run(1)
    check(stage)
    assert roles(stage)["web"]["allocated"]["cpus"] == 1
    (row,) = (r for r in operator(stage, OperatorCall.GET_ROLES)["roles"] if r["name"] == "web")
    assert {r["name"]: r["scalar"]["value"] for r in row["resources"]}["cpus"] >= 1


def test_what_others_leave_unused_is_counted_apart() -> None:
    stage, agent, _, borrower = fill()
    tell_slack(agent, 2)
    borrower.accept(borrower.offers(), task_info("b1", agent.id, revocable(1.5)), refuse_s=3600)
    stage.run(1)
    check(stage)
    used = frameworks(stage)["borrower"]["used_resources"]
    assert (used["cpus"], used["cpus_revocable"]) == (0, 1.5)
    assert roles(stage)["batch"]["allocated"]["cpus_revocable"] == 1.5
    native = {r["name"]: r for r in role_views.roles(stage.core.state, role_views.GetRoles())["roles"]}
    assert native["batch"]["allocated"]["cpus"] == 1.5
    found = figures(stage)
    assert (found["master/cpus_revocable_used"], found["master/cpus_revocable_total"]) == (1.5, 2)
    assert found["master/cpus_used"] == found["master/cpus_total"]


def test_an_executor_on_a_loan_is_shown_with_it() -> None:
    stage, agent, _, borrower = lend()
    group(borrower, agent, *pods(agent))
    check(stage)
    (row,) = operator(stage, OperatorCall.GET_EXECUTORS)["executors"]
    assert {r["name"] for r in row["executor_info"]["resources"] if "revocable" in r} == {"cpus", "mem"}
    (older,) = frameworks(stage)["borrower"]["executors"]
    assert older["resources"]["cpus_revocable"] == sum(r.milli for r in POD.resources if r.name == "cpus") / 1000


def test_a_loan_of_a_reservation_leaves_what_the_owner_consumes_as_it_was() -> None:
    stage, agent, _, borrower = lend()
    before = roles(stage)["web"]["quota"]["consumed"]
    borrow(agent, borrower)
    assert roles(stage)["web"]["quota"]["consumed"] == before
