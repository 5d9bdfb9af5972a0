"""What a task's labels say about a node that was started again while the task ran."""

from corral.lib.errors import Invalid
from corral.model.partition import STOP_AFTER_LABEL, find_label
from corral.model.task import TaskInfo

AFTER_REBOOT_LABEL = "corral.after-reboot"
"""The label of a task whose value says what becomes of it then: `start` it again, or `leave` it ended."""

START, LEAVE = "start", "leave"


def starts_after_reboot(info: TaskInfo) -> bool:
    """Whether the agent starts it again without being told to.

    Shapes: never a task with a bound on running without a master, as nobody knows how long the node was away.
    Errors: `Invalid` when its label cannot be read.
    """
    value = find_label(info.labels, AFTER_REBOOT_LABEL)
    if value is None:
        return False
    check_after_reboot(value)
    return value == START and find_label(info.labels, STOP_AFTER_LABEL) is None


def check_after_reboot(text: str) -> None:
    """Errors: `Invalid` for a value that the label cannot have."""
    if text not in (START, LEAVE):
        raise Invalid(f"label {AFTER_REBOOT_LABEL} is {text!r}; it may be {START} or {LEAVE}")
