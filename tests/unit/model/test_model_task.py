import pytest

from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, TaskId
from corral.model.task import (
    GROUP_LABEL,
    PARTITION_AWARE_ONLY,
    TERMINAL,
    Label,
    TaskInfo,
    TaskState,
    group_of,
    seen_state,
)


def task(*labels: Label) -> TaskInfo:
    return TaskInfo(task_id=TaskId("t"), name="t", agent_id=AgentId("a"), resources=(), labels=labels)


def test_the_group_of_a_task_is_its_group_label() -> None:
    assert group_of(task(Label(key="x", value="y"), Label(key=GROUP_LABEL, value="/web"))) == "/web"
    assert group_of(task(Label(key="x", value="y"))) is None


@pytest.mark.parametrize("state", list(TaskState))
def test_a_framework_without_partition_awareness_sees_lost_instead(state: TaskState) -> None:
    assert seen_state(state, partition_aware=True) is state
    expected = TaskState.LOST if state in PARTITION_AWARE_ONLY else state
    assert seen_state(state, partition_aware=False) is expected


def test_an_unreachable_task_may_come_back() -> None:
    assert TaskState.UNREACHABLE not in TERMINAL
    assert TaskState.UNKNOWN not in TERMINAL
    assert TaskState.GONE in TERMINAL


def test_a_framework_is_in_its_roles_or_its_role_or_the_default_one() -> None:
    info = FrameworkInfo(user="u", name="n", role="a", roles=("b", "c"))
    assert info.subscribed_roles == ("a",)
    assert FrameworkInfo(user="u", name="n").subscribed_roles == ("*",)
    many = FrameworkInfo(user="u", name="n", roles=("b", "c"), capabilities=(Capability.MULTI_ROLE,))
    assert many.subscribed_roles == ("b", "c")
