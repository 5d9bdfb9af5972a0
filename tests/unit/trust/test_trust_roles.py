"""What a caller that is bound to roles may do in which."""

import pytest

from corral.lib.errors import CorralError, Forbidden, Invalid
from corral.master.admit import check_call, check_change
from corral.model import calls
from corral.model.calls import Accept, Launch, UpdateFramework
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId
from corral.model.maintenance import StartMaintenance
from corral.model.operations import Create, Destroy, Reserve, Unreserve
from corral.model.operator import (
    Change,
    Operate,
    RemoveQuota,
    RemoveRole,
    SetQuota,
    SetRole,
    Teardown,
    UpdateQuota,
    UpdateWeights,
)
from corral.model.resources import Identity, Reservation, Resource, scalar
from corral.model.role import Quota
from corral.model.task import TaskInfo
from corral.net.auth import ANYBODY, Caller, CallerKind

BOUND = Caller(kind=CallerKind.TOKEN, name="etl", roles=("ads", "lab"))
UNBOUND = Caller(kind=CallerKind.TOKEN, name="ops")
AGENT = AgentId("a1")


def cpus(*roles: str, allocated: str | None = None) -> Resource:
    reservations = tuple(Reservation(role=role) for role in roles)
    return scalar("cpus", 1.0, Identity(reservations=reservations, allocation_role=allocated))


def accept(*operations: calls.Operation) -> Accept:
    return Accept(framework_id=FrameworkId("f"), offer_ids=(OfferId("o"),), operations=operations)


def launch(*resources: Resource) -> Accept:
    task = TaskInfo(task_id=TaskId("t"), name="t", agent_id=AGENT, resources=resources)
    return accept(Launch(tasks=(task,)))


def update(*roles: str, principal: str | None = None) -> UpdateFramework:
    info = FrameworkInfo(user="u", name="f", roles=roles, principal=principal, capabilities=(Capability.MULTI_ROLE,))
    return UpdateFramework(info=info)


ALLOWED = [
    launch(cpus("ads", allocated="ads")),
    launch(cpus(allocated="ads/etl")),
    launch(cpus()),
    accept(Reserve(resources=(cpus("ads"),)), Reserve(resources=(cpus("ads", "ads/etl"),))),
    accept(Unreserve(resources=(cpus("lab"),))),
    update("ads", "ads/x"),
    calls.Revive(framework_id=FrameworkId("f")),
]
REFUSED: list[tuple[calls.Call, type[CorralError], str]] = [
    (launch(cpus("web")), Forbidden, "launch t"),
    (launch(cpus(allocated="web")), Forbidden, "'web'"),
    (launch(cpus(allocated="adserver")), Forbidden, "'adserver'"),
    (accept(Reserve(resources=(cpus("web"),))), Forbidden, "reserve"),
    (accept(Reserve(resources=(cpus("ads"),), source=(cpus("web"),))), Forbidden, "'web'"),
    (accept(Unreserve(resources=(cpus("ads", "web"),))), Forbidden, "unreserve"),
    (accept(Create(volumes=(cpus("web"),))), Forbidden, "volume"),
    (accept(Destroy(volumes=(cpus("web"),))), Forbidden, "volume"),
    (update("ads", "*"), Forbidden, "subscribe"),
    (update("ads", principal="other"), Invalid, "principal"),
]


@pytest.mark.parametrize("call", ALLOWED)
def test_a_bound_caller_acts_in_its_roles_and_below(call: calls.Call) -> None:
    assert check_call(call, BOUND) == "etl"


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED)
def test_a_bound_caller_is_refused_other_roles(call: calls.Call, kind: type[CorralError], words: str) -> None:
    with pytest.raises(kind, match=words):
        check_call(call, BOUND)


@pytest.mark.parametrize("call", [call for call, kind, _ in REFUSED if kind is Forbidden])
def test_whoever_is_bound_to_nothing_may_all_that(call: calls.Call) -> None:
    assert check_call(call, UNBOUND) == "ops"
    assert check_call(call, ANYBODY) is None


QUOTA = Quota(role="ads/etl", guarantee=(scalar("cpus", 1.0),))
CHANGES: list[tuple[Change, bool]] = [
    (Operate(agent_id=AGENT, operation=Reserve(resources=(cpus("ads"),))), True),
    (Operate(agent_id=AGENT, operation=Reserve(resources=(cpus("web"),))), False),
    (SetRole(role="ads/etl", weight=2.0), True),
    (SetRole(role="ads", weight=2.0), False),
    (SetRole(role="*", weight=2.0), False),
    (RemoveRole(role="ads"), False),
    (UpdateWeights(weights=(("ads/a", 1.0), ("lab/b", 2.0))), True),
    (UpdateWeights(weights=(("ads/a", 1.0), ("lab", 2.0))), False),
    (SetQuota(quota=QUOTA), True),
    (UpdateQuota(quotas=(QUOTA, Quota(role="web"))), False),
    (RemoveQuota(role="lab"), False),
    (Teardown(framework_id=FrameworkId("f")), False),
    (StartMaintenance(machines=()), False),
]


@pytest.mark.parametrize(("command", "allowed"), CHANGES)
def test_operators_bound_to_roles_change_what_is_theirs(command: Change, allowed: bool) -> None:
    check_change(command, UNBOUND)
    check_change(command, ANYBODY)
    if allowed:
        check_change(command, BOUND)
        return
    with pytest.raises(Forbidden, match="etl"):
        check_change(command, BOUND)
