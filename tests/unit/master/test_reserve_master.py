"""Reservations and volumes on the master: by frameworks and operators, offered again, refused without a trace."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from master_stage import Agent, Framework, Stage, agent_info, bundle, states, task_info, told

from corral.lib.errors import Conflict, CorralError, Invalid
from corral.master.spec import GetCluster, GetRoles
from corral.mesos.legacy import write_slaves
from corral.model import calls, events
from corral.model.command import CommandInfo
from corral.model.framework import Capability
from corral.model.ids import AgentId, ExecutorId
from corral.model.ledger import stripped
from corral.model.offer import Filters, Offer
from corral.model.operations import (
    Create,
    Destroy,
    Grow,
    OperationState,
    Reserve,
    Shrink,
    Unreserve,
    conserves,
    conversion,
    convert,
    find_fault,
)
from corral.model.operator import Operate, RemoveRole, SetRole
from corral.model.orders import ApplyOperation, ExecutorEnded, OperationDone, RunTask
from corral.model.resources import Disk, Identity, Reservation, Resource, Resources, add, normal, scalar
from corral.model.task import ExecutorInfo, Reason, TaskState

DISK = scalar("disk", 10_000)
WEB = (Reservation(role="web"),)
SHARED = (Capability.SHARED_RESOURCES,)


def reserved(name: str, value: float, *stack: Reservation) -> Resource:
    return scalar(name, value, Identity(reservations=stack or WEB))


def volume(id: str = "data", value: float = 1000, stack: tuple[Reservation, ...] = WEB, **more: Any) -> Resource:
    disk = Disk(
        persistence_id=id, container_path=more.pop("container_path", "data"), principal=more.pop("principal", None),
        source_type=more.pop("source_type", None),
    )  # fmt: skip
    return scalar("disk", value, Identity(reservations=stack, disk=disk, **more))


def with_disk(name: str = "h1", *more: Resource) -> Any:
    info = agent_info(name)
    return msgspec.structs.replace(info, resources=add(info.resources, (DISK, *more)))


def operate(framework: Framework, offers: list[Offer], *operations: Any, refuse_s: float = 0.0) -> None:
    ids = tuple(offer.id for offer in offers)
    call = calls.Accept(
        framework_id=framework.id, offer_ids=ids, operations=operations, filters=Filters(refuse_s=refuse_s)
    )
    framework.call(call)


def finish(agent: Agent) -> list[Any]:
    """The agent carries out what it was ordered."""
    found = agent.take(ApplyOperation)
    for order in found:
        agent.report(OperationDone(order.uuid))
    return [order.operation for order in found]


def seen(stage: Stage, agent: Agent) -> Any:
    """All that anybody can see, to tell that nothing has changed."""
    return stage.ask(GetCluster()), agent.entry().info, agent.free(), len(agent.orders)


def holds(bundle: Resources, *wanted: Resource) -> bool:
    return all(r in bundle for r in wanted)


def test_a_framework_reserves_creates_and_launches_in_one_accept() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    cpus, mem = reserved("cpus", 1), reserved("mem", 128)
    info = task_info("t1", agent.id, (cpus, mem, volume()))
    reserve = Reserve(resources=(cpus, mem, reserved("disk", 1000)))
    operate(framework, framework.offers(), reserve, Create(volumes=(volume(),)), calls.Launch(tasks=(info,)))
    kinds = [type(order).__name__ for order in agent.orders]
    assert kinds[-3:] == ["ApplyOperation", "ApplyOperation", "RunTask"]
    finish(agent)
    (run,) = agent.take(RunTask)
    assert stripped(run.info.resources) == normal((cpus, mem, volume()))
    agent.update("t1", TaskState.FINISHED, framework.id)
    (offer,) = framework.offers()
    assert holds(stripped(offer.resources), volume(), cpus, mem)


def test_what_is_reserved_is_offered_to_its_role_and_the_rest_to_others() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    web = stage.framework(role="web")
    operate(web, web.offers(), Reserve(resources=(reserved("cpus", 3), reserved("mem", 1024))))
    finish(agent)
    other = stage.framework(role="batch", name="other")
    found = {o.role: stripped(o.resources) for o in (*web.offers(), *other.offers())}
    assert holds(found["web"], reserved("cpus", 3))
    assert all(not r.identity.reservations for r in found.get("batch", ()))


def test_two_roles_are_offered_of_one_agent_what_each_may_have() -> None:
    stage = Stage()
    static = Reservation(role="web", static=True)
    agent = stage.agent(with_disk("h1", reserved("cpus", 2, static), reserved("mem", 256, static)))
    batch = stage.framework(role="batch")
    web = stage.framework(role="web", name="web")
    batch.decline(*batch.offers(), refuse_s=0)
    got = {o.role: stripped(o.resources) for f in (batch, web) for o in f.offers()}
    assert not any(r.identity.reservations for r in got.get("batch", ()))
    assert holds(got["web"], reserved("cpus", 2, static))
    assert agent.id


def test_refined_reservations_are_for_frameworks_that_know_them_and_below_their_parent() -> None:
    stage = Stage()
    parent = Reservation(role="a", static=True)
    agent = stage.agent(with_disk("h1", reserved("cpus", 2, parent), reserved("mem", 256, parent)))
    child = stage.framework(role="a/b", capabilities=(Capability.RESERVATION_REFINEMENT,))
    stack = (parent, Reservation(role="a/b"))
    operate(child, child.offers(), Reserve(resources=(reserved("cpus", 2, *stack), reserved("mem", 256, *stack))))
    finish(agent)
    (offer,) = child.offers()
    assert holds(stripped(offer.resources), reserved("cpus", 2, *stack))
    child.close()
    old = stage.framework(role="a/b", name="old")
    assert not any(len(r.identity.reservations) > 1 for o in old.offers() for r in o.resources)


def test_a_reservation_that_was_undone_is_for_everybody_again() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    before = agent.free()
    framework = stage.framework(role="web")
    operate(framework, framework.offers(), Reserve(resources=(reserved("cpus", 3),)))
    operate(framework, framework.offers(), Unreserve(resources=(reserved("cpus", 3),)))
    finish(agent)
    framework.close()
    assert agent.free() == before == agent.entry().info.resources


ILLEGAL = {
    "nothing named": Reserve(resources=()),
    "not reserved form": Reserve(resources=(scalar("cpus", 1),)),
    "another role": Reserve(resources=(reserved("cpus", 1, Reservation(role="batch")),)),
    "static": Reserve(resources=(reserved("cpus", 1, Reservation(role="web", static=True)),)),
    "below zero": Reserve(resources=(reserved("cpus", -1),)),
    "more than offered": Reserve(resources=(reserved("cpus", 5),)),
    "another principal": Reserve(resources=(reserved("cpus", 1, Reservation(role="web", principal="bob")),)),
    "revocable": Reserve(resources=(scalar("cpus", 1, Identity(reservations=WEB, revocable=True)),)),
    "refined without the capability": Reserve(
        resources=(reserved("cpus", 1, Reservation(role="w"), Reservation(role="w/x")),)
    ),
    "a source by a framework": Reserve(resources=(reserved("cpus", 1),), source=(scalar("cpus", 1),)),
    "a volume reserved": Reserve(resources=(volume(),)),
    "a provider's": Reserve(resources=(scalar("cpus", 1, Identity(reservations=WEB, provider="p")),)),
    "unreserve what is free": Unreserve(resources=(scalar("cpus", 1),)),
    "unreserve static": Unreserve(resources=(reserved("cpus", 1, Reservation(role="web", static=True)),)),
    "unreserve what is not there": Unreserve(resources=(reserved("cpus", 1),)),
    "unreserve a volume": Unreserve(resources=(volume("old"),)),
    "create on free disk": Create(volumes=(volume(stack=()),)),
    "create of cpus": Create(volumes=(scalar("cpus", 1, volume().identity),)),
    "create without id": Create(volumes=(reserved("disk", 1000),)),
    "create with a bad id": Create(volumes=(volume("a/b"),)),
    "create without path": Create(volumes=(volume(container_path=None),)),
    "create that leaves": Create(volumes=(volume(container_path="../x"),)),
    "create read-only": Create(volumes=(volume(),), unsupported=("disk.volume.mode other than RW",)),
    "create twice in one": Create(volumes=(volume("x", 100), volume("x", 100))),
    "create an id that is there": Create(volumes=(volume("old", 100),)),
    "create on a MOUNT disk": Create(volumes=(volume(source_type="MOUNT"),)),
    "create on a BLOCK disk": Create(volumes=(volume(source_type="BLOCK"),)),
    "create shared without the capability": Create(volumes=(volume(shared=True),)),
    "create for another principal": Create(volumes=(volume(principal="bob"),)),
    "destroy what is not there": Destroy(volumes=(volume("no"),)),
    "destroy a part": Destroy(volumes=(volume("old", 100),)),
    "grow by other disk": Grow(volume=volume("old"), addition=scalar("disk", 100)),
    "grow by nothing": Grow(volume=volume("old"), addition=reserved("disk", 0)),
    "grow a shared one": Grow(volume=volume("old", shared=True), addition=reserved("disk", 10)),
    "shrink to nothing": Shrink(volume=volume("old"), less_milli=1_000_000),
    "shrink below zero": Shrink(volume=volume("old"), less_milli=-1),
}


def make_kept() -> tuple[Stage, Agent, Framework]:
    """An agent with a volume `old` and plain reserved disk, and a framework of their role."""
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web", principal="amy")
    assert framework.entry().principal == "amy"
    stage.ask_later(Operate(agent_id=agent.id, operation=Reserve(resources=(reserved("disk", 3000),))))
    finish(agent)
    stage.ask_later(Operate(agent_id=agent.id, operation=Create(volumes=(volume("old"),))))
    finish(agent)
    return stage, agent, framework


def test_an_illegal_operation_of_a_framework_changes_nothing_and_says_why() -> None:
    stage, agent, framework = make_kept()
    offers = framework.offers()
    for name, illegal in ILLEGAL.items():
        operation = msgspec.structs.replace(illegal, operation_id=name)
        before = agent.entry().info, len(agent.orders)
        stage.notes.clear()
        operate(framework, offers, operation)
        assert (agent.entry().info, len(agent.orders)) == before, name
        (heard,) = framework.take(events.UpdateOperation)
        assert (heard.status.operation_id, heard.status.state) == (name, OperationState.ERROR)
        assert heard.status.message, name
        assert "operation refused" in stage.what(), name
        (again,) = framework.offers()
        assert again.resources == offers[0].resources, name
        offers = [again]


BY_OPERATOR = sorted(
    set(ILLEGAL)
    - {
        "another role", "more than offered", "another principal", "refined without the capability",
        "a source by a framework", "create shared without the capability", "create for another principal",
    }
)  # fmt: skip
ABSENT = {
    "unreserve what is not there", "create an id that is there", "destroy what is not there", "destroy a part",
}  # fmt: skip


def test_an_illegal_operation_of_an_operator_is_refused_and_changes_nothing() -> None:
    stage, agent, framework = make_kept()
    framework.offers()
    before = seen(stage, agent)
    for name in BY_OPERATOR:
        with pytest.raises(CorralError) as refused:
            stage.ask(Operate(agent_id=agent.id, operation=ILLEGAL[name]))
        assert refused.value.status == (409 if name in ABSENT else 400), name
        assert seen(stage, agent) == before, name


def test_an_operator_takes_back_offers_only_when_that_is_enough() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    (offer,) = framework.offers()
    with pytest.raises(Conflict, match="does not have"):
        stage.ask(Operate(agent_id=agent.id, operation=Reserve(resources=(reserved("cpus", 3), reserved("gpus", 1)))))
    framework.accept([offer], task_info("t1", agent.id, bundle(2)), refuse_s=0)
    framework.offers()
    with pytest.raises(Conflict, match="end what uses it"):
        stage.ask(Operate(agent_id=agent.id, operation=Reserve(resources=(reserved("cpus", 3),))))
    assert framework.rescinded() == []
    ask = stage.ask_later(Operate(agent_id=agent.id, operation=Reserve(resources=(reserved("cpus", 2),))))
    assert len(framework.rescinded()) == 1
    assert stage.answer(ask) is None, "the answer waits for the agent"
    finish(agent)
    assert stage.answer(ask) is not None
    assert reserved("cpus", 2) in agent.entry().info.resources


def test_an_operator_learns_why_the_agent_did_not_do_it() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    command = Operate(agent_id=agent.id, operation=Reserve(resources=(reserved("cpus", 2),)))
    refused = stage.ask_later(command)
    (order,) = agent.take(ApplyOperation)
    agent.report(OperationDone(order.uuid, "no disk"))
    assert isinstance(stage.error(refused), Conflict)
    agent.connect()
    away = stage.ask_later(command)
    agent.close()
    assert "went away" in str(stage.error(away)), "nobody waits for an agent that may never come back"
    agent.connect()
    cut = stage.ask_later(command)
    agent.connect()
    assert isinstance(stage.error(cut), Conflict), "the agent came back without it"
    with pytest.raises(Invalid, match="No agent found"):
        stage.ask(Operate(agent_id=AgentId("nobody"), operation=command.operation))
    agent.close()
    with pytest.raises(Conflict, match="disconnected"):
        stage.ask(command)


def test_what_an_agent_brings_is_the_truth_after_a_failover() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web", failover_timeout_s=100.0)
    reserve = Reserve(resources=(reserved("disk", 1000), reserved("cpus", 1)))
    operate(framework, framework.offers(), reserve, Create(volumes=(volume(),)))
    finish(agent)
    agent.info = agent.entry().info
    fresh = stage.restart()
    back = Agent(fresh, agent.info)
    back.connect()
    again = Framework(fresh, framework.info)
    again.subscribe()
    (offer,) = again.offers()
    assert holds(stripped(offer.resources), volume(), reserved("cpus", 1))


def test_reservations_and_volumes_outlive_their_framework() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    operate(framework, framework.offers(), Reserve(resources=(reserved("disk", 1000), reserved("cpus", 1))))
    operate(framework, framework.offers(), Create(volumes=(volume(),)))
    finish(agent)
    framework.call(calls.Teardown(framework_id=framework.id))
    (offer,) = stage.framework(role="web", name="next").offers()
    assert holds(stripped(offer.resources), volume())


def test_a_shared_volume_is_offered_while_it_is_used_and_not_destroyed_then() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web", capabilities=SHARED)
    shared = volume(shared=True)
    operate(
        framework, framework.offers(), Reserve(resources=(reserved("disk", 1000),)), Create(volumes=(shared,)),
        calls.Launch(tasks=(task_info("t1", agent.id, normal((*bundle(1, 128), shared))),)),
    )  # fmt: skip
    finish(agent)
    offers = framework.offers()
    assert holds(stripped(offers[0].resources), shared)
    second = task_info("t2", agent.id, normal((*bundle(1, 128), shared)))
    operate(framework, offers, calls.Launch(tasks=(second,)), Destroy(volumes=(shared,)))
    assert len(agent.take(RunTask)) == 2
    assert framework.updates() == []
    assert not any(isinstance(o, ApplyOperation) for o in agent.orders)
    info = agent.entry().info
    agent.info = info
    agent.connect(
        [told(task_info(t, agent.id, normal((*bundle(1, 128), shared))), framework, role="web") for t in ("t1", "t2")],
        [framework.info],
    )
    assert agent.entry().session == agent.session, "two tasks of one shared volume fit"
    plain = stage.framework(role="web", name="plain")
    framework.decline(*framework.offers(), refuse_s=60)
    assert not any(r.identity.shared for o in plain.offers() for r in o.resources)


def test_destroying_a_shared_volume_takes_it_back_from_other_offers() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    one = stage.framework(role="web", capabilities=SHARED)
    shared = volume(shared=True)
    operate(one, one.offers(), Reserve(resources=(reserved("disk", 1000),)), Create(volumes=(shared,)))
    finish(agent)
    (offer,) = one.offers()
    one.accept([offer], task_info("t1", agent.id, bundle(1, 128)), refuse_s=0)
    ask = stage.ask_later(Operate(agent_id=agent.id, operation=Destroy(volumes=(shared,))))
    finish(agent)
    assert stage.answer(ask) is not None
    assert not any(r.identity.shared for r in agent.free())


def test_a_volume_is_taken_whole_and_by_one_task() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    tasks = tuple(
        task_info(f"t{i}", agent.id, normal((*bundle(1, 128), v)))
        for i, v in enumerate((volume(value=10), volume(), volume()))
    )
    reserve = Reserve(resources=(reserved("disk", 1000),))
    operate(framework, framework.offers(), reserve, Create(volumes=(volume(),)), calls.Launch(tasks=tasks))
    assert [run.info.task_id for run in agent.take(RunTask)] == ["t1"]
    assert states(framework.updates()) == [
        ("t0", TaskState.ERROR, Reason.TASK_INVALID), ("t2", TaskState.ERROR, Reason.TASK_INVALID),
    ]  # fmt: skip


def test_a_volume_grows_and_shrinks() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    operate(framework, framework.offers(), Reserve(resources=(reserved("disk", 1500),)), Create(volumes=(volume(),)))
    charged_to = msgspec.structs.replace(volume().identity, allocation_role="web")
    whole = msgspec.structs.replace(volume(), identity=charged_to)
    operate(framework, framework.offers(), Grow(volume=whole, addition=reserved("disk", 500)))
    assert volume(value=1500) in agent.entry().info.resources
    operate(framework, framework.offers(), Shrink(volume=volume(value=1500), less_milli=300_000))
    assert holds(agent.entry().info.resources, volume(value=1200), reserved("disk", 300))
    assert len(finish(agent)) == 4


def test_feedback_is_told_until_it_is_acknowledged_and_reconciled() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web", failover_timeout_s=100.0)
    operate(framework, framework.offers(), Reserve(resources=(reserved("cpus", 1),), operation_id="op"))

    def reconciled(*ids: str) -> list[tuple[str, OperationState]]:
        asked = tuple((id, None) for id in ids)
        framework.call(calls.ReconcileOperations(framework_id=framework.id, operations=asked))
        return [(e.status.operation_id, e.status.state) for e in framework.take(events.UpdateOperation)]

    assert reconciled() == [("op", OperationState.PENDING)]
    finish(agent)
    (told_once,) = framework.take(events.UpdateOperation)
    assert told_once.status.state is OperationState.FINISHED
    assert told_once.status.converted == (reserved("cpus", 1),)
    framework.close()
    framework.subscribe()
    (told_again,) = framework.take(events.UpdateOperation)
    assert told_again == told_once
    assert told_again.status.uuid is not None
    for uuid in (b"\0" * 16, told_again.status.uuid):
        assert reconciled() == [("op", OperationState.FINISHED)]
        framework.call(calls.AcknowledgeOperation(framework_id=framework.id, operation_id="op", uuid=uuid))
    assert reconciled() == []
    assert reconciled("op") == [("op", OperationState.UNKNOWN)]


def test_operations_of_an_accept_without_valid_offers_are_dropped() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    (offer,) = framework.offers()
    framework.decline(offer)
    operate(framework, [offer], Reserve(resources=(reserved("cpus", 1),), operation_id="op"))
    (told_once,) = framework.take(events.UpdateOperation)
    assert told_once.status.state is OperationState.DROPPED
    assert not agent.take(ApplyOperation)


AMOUNTS = st.integers(1, 3000)
NAMES = st.sampled_from(["cpus", "mem", "disk"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, AMOUNTS, st.integers(0, 5)), max_size=12))
def test_operations_conserve_every_amount_and_their_inverses_undo_them(steps: list[tuple[str, int, int]]) -> None:
    have = normal((scalar("cpus", 4), scalar("mem", 4), scalar("disk", 9)))
    amounts = {name: sum(r.milli for r in have if r.name == name) for name in ("cpus", "mem", "disk")}
    undo: list[Any] = []
    for number, (name, milli, kind) in enumerate(steps):
        one = Resource(name=name, milli=milli, identity=Identity(reservations=WEB))
        kept_one = Resource(name="disk", milli=milli, identity=volume(f"v{number}").identity)
        operation: Any = [
            Reserve(resources=(one,)), Unreserve(resources=(one,)), Create(volumes=(kept_one,)),
            Destroy(volumes=(kept_one,)), Grow(volume=kept_one, addition=msgspec.structs.replace(one, name="disk")),
            Shrink(volume=kept_one, less_milli=milli // 2),
        ][kind]  # fmt: skip
        if find_fault(operation) is not None:
            continue
        change = conversion(operation)
        assert conserves(change)
        after = convert(have, change)
        if after is None:
            continue
        undo.append((have, change))
        have = after
        assert {n: sum(r.milli for r in have if r.name == n) for n in amounts} == amounts
    for before, change in reversed(undo):
        back = convert(have, type(change)(change.converted, change.consumed))
        assert back == before
        have = before


def test_reservations_are_a_part_of_their_roles_quota() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    stage.ask(SetRole(role="web", limit=(scalar("cpus", 3),), guarantee=(scalar("cpus", 3),)))
    stack = (Reservation(role="web/a"),)
    stage.ask_later(Operate(agent_id=agent.id, operation=Reserve(resources=(reserved("cpus", 2, *stack),))))
    finish(agent)
    (row,) = [r for r in stage.ask(GetRoles())["roles"] if r["name"] == "web"]
    assert row["consumed"]["cpus"] == 2
    (offer,) = stage.framework(role="web").offers()
    assert scalar("cpus", 1) in stripped(offer.resources), "two of its limit are reserved"
    (rest,) = stage.framework(role="other", name="other").offers()
    assert scalar("cpus", 1) in stripped(rest.resources), "its guarantee keeps nothing back any more"
    stage.ask(SetRole(role="web", limit=(scalar("cpus", 2),), guarantee=(), force=True))
    assert stage.core.state.allocator.roles["web"].limit == (scalar("cpus", 0),)
    agent.close()
    stage.ask(RemoveRole(role="web"))


def test_views_tell_what_is_reserved_offered_and_used_apart() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    cpus = reserved("cpus", 1)
    info = task_info("t1", agent.id, normal((cpus, scalar("mem", 64), volume())))
    operate(
        framework, framework.offers(), Reserve(resources=(reserved("cpus", 3), reserved("disk", 1000))),
        Create(volumes=(volume(),)), calls.Launch(tasks=(info,)),
    )  # fmt: skip
    finish(agent)
    framework.offers()
    (row,) = stage.ask(GetCluster()).frameworks
    assert {r.name: r.milli for r in row.used} == {"cpus": 1000, "mem": 64_000, "disk": 1_000_000}
    (web,) = [r for r in stage.ask(GetCluster()).roles if r.name == "web"]
    assert {r.name: r.milli for r in web.reserved} == {"cpus": 3000, "disk": 1_000_000}
    assert {r.name: r.milli for r in web.consumed}["cpus"] == 4000, "three reserved, one offered"
    (slave,) = write_slaves(stage.ask(GetCluster()))["slaves"]
    assert slave["reserved_resources"]["web"]["cpus"] == 3
    assert slave["unreserved_resources"]["cpus"] == 1


def test_an_executor_has_its_volume_to_itself_until_it_ends() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    command = CommandInfo(value="./run")
    executor = ExecutorInfo(
        executor_id=ExecutorId("e"), kind="CUSTOM", command=command, resources=normal((*bundle(0.5, 64), volume()))
    )
    operate(
        framework, framework.offers(), Reserve(resources=(reserved("disk", 1000),)), Create(volumes=(volume(),)),
        calls.Launch(tasks=(task_info("t1", agent.id, command=None, executor=executor),)),
    )  # fmt: skip
    finish(agent)
    assert len(agent.take(RunTask)) == 1
    with pytest.raises(Conflict, match="executor e"):
        stage.ask(Operate(agent_id=agent.id, operation=Destroy(volumes=(volume(),))))
    (row,) = stage.ask(GetCluster()).frameworks
    assert {r.name: r.milli for r in row.used}["disk"] == 1_000_000
    agent.update("t1", TaskState.FINISHED, framework.id)
    agent.report(ExecutorEnded(framework.id, ExecutorId("e")))
    stage.ask_later(Operate(agent_id=agent.id, operation=Destroy(volumes=(volume(),))))
    assert finish(agent) == [Destroy(volumes=(volume(),))]


def test_an_operation_that_nobody_carries_out_is_told_as_an_error_when_it_has_an_id() -> None:
    stage = Stage()
    stage.agent(with_disk())
    framework = stage.framework()
    offers = framework.offers()
    named = calls.Unsupported(kind="CREATE_DISK", operation_id="o1")
    operate(framework, offers, calls.Unsupported(kind="DESTROY_DISK"), named)
    (told,) = (event.status for event in framework.take(events.UpdateOperation))
    assert (told.operation_id, told.state, told.uuid) == ("o1", OperationState.ERROR, None)
    assert "CREATE_DISK" in told.message
    operate(framework, offers, named)
    assert [e.status.state for e in framework.take(events.UpdateOperation)] == [OperationState.DROPPED]
