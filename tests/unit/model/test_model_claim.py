"""A task's claim goes wherever the task goes, and what was written before there were claims is still read."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.agent.spec import TaskRecord
from corral.model.agent import AgentInfo
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, ContainerId, FrameworkId, TaskId, WantId
from corral.model.orders import AgentTask, Order, Register, Report, RunTask
from corral.model.resources import scalar
from corral.model.task import Claim, TaskInfo, TaskState
from corral.runtime.core import encode_record

FRAMEWORK = FrameworkId("F")
FULL = Claim(
    priority=-7, revocable=True, group="/web", tags=("image:nginx", "label:tier=db"), run_s=90.5, devices=(0, 3),
    want_id=WantId("web@1"),
)  # fmt: skip
claims = st.builds(
    Claim,
    priority=st.integers(-512, 511),
    revocable=st.booleans(),
    group=st.text(max_size=9),
    tags=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    run_s=st.none() | st.floats(0.1, 1e9),
    devices=st.lists(st.integers(0, 15), max_size=4).map(tuple),
    want_id=st.none() | st.text(max_size=9),
)


def task(claim: Claim | None) -> TaskInfo:
    return TaskInfo(
        task_id=TaskId("t"), name="t", agent_id=AgentId("A"), resources=(scalar("cpus", 1),), claim=claim
    )  # fmt: skip


def record_of(info: TaskInfo) -> TaskRecord:
    return TaskRecord(FRAMEWORK, "web", info, ContainerId("c"), "process", "/sandbox")


def without_claim(text: bytes) -> bytes:
    """What an earlier release would have written: the same message whose tasks know no claims."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(each) for key, each in value.items() if key != "claim"}
        return [strip(each) for each in value] if isinstance(value, list) else value

    stripped = msgspec.msgpack.encode(strip(msgspec.msgpack.decode(text)))
    assert b"claim" in text
    assert b"claim" not in stripped
    return stripped


@given(claims)
def test_a_claim_survives_the_agents_journal_the_order_and_the_report(claim: Claim) -> None:
    info = task(claim)
    record = msgspec.msgpack.decode(encode_record(record_of(info)), type=TaskRecord)
    order = msgspec.msgpack.decode(
        msgspec.msgpack.encode(RunTask(1, FrameworkInfo(user="u", name="f"), "web", record.info)), type=Order
    )
    assert isinstance(order, RunTask)
    told = Register(
        AgentInfo(hostname="h", port=5051, resources=()), (AgentTask(order.info, FRAMEWORK, "web", TaskState.RUNNING),)
    )
    report = msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Report)
    assert isinstance(report, Register)
    assert report.tasks[0].info == info


def test_records_orders_and_reports_without_claims_are_still_read() -> None:
    record = msgspec.msgpack.decode(without_claim(encode_record(record_of(task(FULL)))), type=TaskRecord)
    assert record == record_of(task(None))
    run = RunTask(1, FrameworkInfo(user="u", name="f"), "web", task(FULL))
    order = msgspec.msgpack.decode(without_claim(msgspec.msgpack.encode(run)), type=Order)
    assert isinstance(order, RunTask)
    assert order.info == task(None)
    told = Register(
        AgentInfo(hostname="h", port=5051, resources=()), (AgentTask(task(FULL), FRAMEWORK, "web", TaskState.RUNNING),)
    )
    report = msgspec.msgpack.decode(without_claim(msgspec.msgpack.encode(told)), type=Report)
    assert isinstance(report, Register)
    assert report.tasks[0].info == task(None)


@pytest.mark.parametrize("field", TaskInfo.__struct_fields__[4:])
def test_every_later_field_of_a_task_has_a_default_so_that_older_records_are_read(field: str) -> None:
    defaults = dict(zip(reversed(TaskInfo.__struct_fields__), reversed(TaskInfo.__struct_defaults__), strict=False))
    assert field in defaults
    assert TaskInfo.__struct_fields__[-1] == "omits_starting"
