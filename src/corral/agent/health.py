"""Decides when a task's health is probed, what a probe has shown, and when a task has failed too often to live on.

Rules: of one check one probe is under way at a time; a failure before the first success counts only after the grace;
what is told is a change, and each failure that brings the task nearer to its end. A restarted agent goes on from what
it told last, with no failure counted. Source: Mesos v1 HealthCheck.

Deviates: checks look at the task's address from the node instead of from within its network, so a task that listens on
its own loopback only is not found; failures of a check that spares its task are told once, not each time.
"""

from corral.agent import updates
from corral.agent.deadlines import Due
from corral.agent.effects import Probe
from corral.agent.spec import Probed
from corral.agent.state import AgentState, CheckState, Task
from corral.model.health import CheckKind, CheckStatus, HealthCheck, describe_check
from corral.model.ids import ContainerId
from corral.model.task import Reason, TaskState
from corral.runtime.core import Effect, Note

LEAST_INTERVAL_S = 0.1
"""A shorter one would do nothing but probe."""


def watch(state: AgentState, task: Task, now: float) -> None:
    """Begin to probe a task that runs; to be called when it is known to."""
    if task.probes:
        for each in task.probes:
            each.due_at = now + each.check.delay_s
        _arm(state, task)


def _arm(state: AgentState, task: Task) -> None:
    due = [each.due_at for each in task.probes if not each.probing]
    if due:
        state.deadlines.set(task.container_id, Due.PROBE, min(due))
    else:
        state.deadlines.cancel(task.container_id, Due.PROBE)


def probe(state: AgentState, task: Task, now: float) -> list[Effect]:
    """The checks whose time has come. Shapes: none of a task that is being ended; its health is of no interest."""
    if task.ending is not None:
        return []
    effects: list[Effect] = []
    for index, each in enumerate(task.probes):
        if not each.probing and each.due_at <= now:
            each.probing = True
            each.due_at = now + max(each.check.interval_s, LEAST_INTERVAL_S)
            effects.append(Probe(task.runtime, task.container_id, index, each.check, _address(state, task, each.check)))
    _arm(state, task)
    return effects


def _address(state: AgentState, task: Task, check: HealthCheck) -> str:
    """Where the check's port is: on the task's own network, or else on the node, which a task without one shares."""
    if check.on_node:
        return state.config.ip
    ip = task.launched.ip if task.launched is not None else None
    return ip or "127.0.0.1"


def find(state: AgentState, container_id: ContainerId, index: int) -> tuple[Task, CheckState] | None:
    """The check that was probed, unless its task has ended or is being ended."""
    task = state.by_container.get(container_id)
    if task is None or not task.live or task.ending is not None or index >= len(task.probes):
        return None
    return task, task.probes[index]


def judge(check: HealthCheck, input: Probed) -> tuple[bool | None, str]:
    """Whether a probe was passed, and why not. Shapes: None when it counts as nothing."""
    if input.void:
        return None, ""
    if input.why is not None:
        return False, input.why
    if check.kind is CheckKind.TCP:
        return True, ""
    code = input.code
    assert code is not None, "a probe that did not fail has its answer's code"
    if check.kind is CheckKind.COMMAND:
        said = f": {input.said}" if input.said else ""
        return (True, "") if code == 0 else (False, f"the command exited with status {code}{said}")
    if 100 <= code < 200 and check.ignore_1xx:
        return None, ""
    if code in check.statuses if check.statuses else 200 <= code < 400:
        return True, ""
    wanted = ", ".join(map(str, check.statuses)) or "200 to 399"
    return False, f"it answered {code}, wanted is {wanted}"


def probed(state: AgentState, task: Task, each: CheckState, input: Probed, now: float) -> tuple[list[Effect], str]:
    """Take in what a probe has shown.

    Shapes: the second value says why the task is to be ended, empty when it is not.
    """
    each.probing = False
    each.due_at = max(each.due_at, now + LEAST_INTERVAL_S)
    check = each.check
    passed, cause = judge(check, input)
    _arm(state, task)
    if passed is None or (passed is False and _is_graced(task, each, now)):
        return [], ""
    was_alive = each.alive
    each.alive = passed
    if passed:
        each.failures = 0
        each.last_success_at = now
        if each.first_success_at is None:
            each.first_success_at = now
        return (_tell(state, task, each, now) if was_alive is not True else []), ""
    each.failures += 1
    each.last_failure_at = now
    each.cause = cause
    if check.spares:
        return (_tell(state, task, each, now) if was_alive is not False else []), ""
    if each.failures < check.consecutive_failures:
        return _tell(state, task, each, now), ""
    times = "once" if each.failures == 1 else f"{each.failures} times in a row"
    return [], f"{describe_check(check)} failed {times}, last because {cause}"


def checked(state: AgentState, task: Task, each: CheckState, input: Probed, now: float) -> list[Effect]:
    """Take in what the probe of a check has shown, which interprets nothing: told is each result unlike the last."""
    each.probing = False
    each.due_at = max(each.due_at, now + LEAST_INTERVAL_S)
    _arm(state, task)
    if input.void:
        return []
    kind = each.check.kind
    succeeded = input.why is None if kind is CheckKind.TCP else None
    found = CheckStatus(kind=kind, code=None if kind is CheckKind.TCP else input.code, succeeded=succeeded)
    if found == task.check_status:
        return []
    task.check_status = found
    why = f"{describe_check(each.check)}: {input.why or _describe(found)}"
    return updates.enqueue(state, task, TaskState.RUNNING, now, message=why, reason=Reason.TASK_CHECK_STATUS_UPDATED)


def _describe(found: CheckStatus) -> str:
    match found.kind:
        case CheckKind.TCP:
            return "connected"
        case CheckKind.HTTP:
            return f"answered {found.code}"
        case _:
            return f"exited with status {found.code}"


def _is_graced(task: Task, each: CheckState, now: float) -> bool:
    """A task has a while to come up; once it was healthy that while is over."""
    return each.first_success_at is None and now - (task.started_at or now) <= each.check.grace_s


def _tell(state: AgentState, task: Task, each: CheckState, now: float) -> list[Effect]:
    name = describe_check(each.check)
    why = f"{name} passed" if each.alive else f"{name} failed: {each.cause}"
    facts = {"task": task.info.task_id, "framework": task.framework_id}
    what, level = ("task healthy", "info") if each.alive else ("task unhealthy", "warning")
    return [
        *updates.enqueue(
            state, task, TaskState.RUNNING, now, message=why, reason=Reason.TASK_HEALTH_CHECK_STATUS_UPDATED
        ),
        Note(what, why, level, facts),
    ]
