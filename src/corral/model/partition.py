"""What a task's labels say about the time in which its agent is cut off from every master.

A task that names a bound is ended by its agent once the agent has been cut off for that long: the agent counts from a
sign of life that a master has answered, by a clock that no one sets. Who replaces such a task waits, from when it was
declared unreachable, for the bound, the task's grace and a margin for clocks of different speed; then no two run.
"""

from corral.lib.errors import Invalid
from corral.lib.units import parse_duration_s
from corral.model.task import Label, TaskInfo

STOP_AFTER_LABEL = "corral.stop-after"
"""The label of a task whose value says how long its agent lets it run without any master, as `90s` or `5m`."""

LEAST_STOP_AFTER_S = 1.0
MOST_STOP_AFTER_S = 30 * 86400.0
MARGIN_S = 5.0
MARGIN_SHARE = 0.02


def read_stop_after_s(text: str) -> float:
    """Errors: `Invalid` names the label, the text and what would be one."""
    try:
        seconds = parse_duration_s(text)
    except Invalid as error:
        raise Invalid(f"label {STOP_AFTER_LABEL}: {error.message}") from None
    if not LEAST_STOP_AFTER_S <= seconds <= MOST_STOP_AFTER_S:
        raise Invalid(f"label {STOP_AFTER_LABEL} is {text!r}; it may be from 1s to 30days")
    return seconds


def stop_after_s(info: TaskInfo) -> float | None:
    """How long the task may run cut off; None for ever.

    Errors: `Invalid` when its label cannot be read.
    """
    text = find_label(info.labels, STOP_AFTER_LABEL)
    return None if text is None else read_stop_after_s(text)


def find_label(labels: tuple[Label, ...], key: str) -> str | None:
    """The value of the last label of this key; empty when it has none."""
    return next((label.value or "" for label in reversed(labels) if label.key == key), None)


def replace_after_s(stop_s: float, grace_s: float) -> float:
    """Units: seconds from when its agent was declared unreachable, after which a task with this bound surely ended."""
    return stop_s + grace_s + MARGIN_S + MARGIN_SHARE * (stop_s + grace_s)
