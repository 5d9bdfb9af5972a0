"""What an app wants for the time in which one of its instances is cut off, and after it: pure rules, by its labels.

Rules: the only instance of an app that says there is to be one is replaced when its agent has surely ended it, never
before; an app whose unreachable strategy is "disabled" is neither ended nor replaced. Who goes when an instance comes
back, it or what took its place, is the app's choice. Source: Marathon's contract, section 13; corral's own labels.
"""

from collections.abc import Iterator
from enum import StrEnum

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.spec import Config
from corral.frameworks.services.state import COUNTED, App, Phase, phase_of
from corral.lib.errors import Invalid
from corral.lib.units import format_duration
from corral.model.partition import (
    LEAST_STOP_AFTER_S,
    MOST_STOP_AFTER_S,
    STOP_AFTER_LABEL,
    read_stop_after_s,
    replace_after_s,
)
from corral.model.task import Label

ON_RETURN_LABEL = "corral.on-return"
SINGLE_INSTANCE = "MARATHON_SINGLE_INSTANCE_APP"
GRACE_S = 3.0
"""The grace of a single instance whose app names none: the agent's own may differ from node to node."""


class OnReturn(StrEnum):
    """Which of two to keep: the one that came back, the one in its place, or whichever does better."""

    OLD = "old"
    NEW = "new"
    BEST = "best"


def find_label_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    """Paths and what is wrong there."""
    text = spec.labels.get(STOP_AFTER_LABEL)
    if text is not None:
        try:
            read_stop_after_s(text)
        except Invalid as error:
            yield f"/labels/{STOP_AFTER_LABEL}", error.message
    choice = spec.labels.get(ON_RETURN_LABEL)
    if choice is not None and choice not in tuple(OnReturn):
        yield f"/labels/{ON_RETURN_LABEL}", f"got {choice!r}, must be one of {', '.join(OnReturn)}"


def is_single(spec: AppSpec) -> bool:
    """Whether two instances must never run at once."""
    return spec.labels.get(SINGLE_INSTANCE) == "true"


def stop_after_s(spec: AppSpec, config: Config) -> float | None:
    """How long an instance may run while its agent is cut off; None for ever."""
    text = spec.labels.get(STOP_AFTER_LABEL)
    if text is not None:
        return read_stop_after_s(text)
    if not is_single(spec) or spec.unreachable is None:
        return None
    wanted_s = spec.unreachable.inactive_after_s or config.single_stop_after_s
    return min(max(float(wanted_s), LEAST_STOP_AFTER_S), MOST_STOP_AFTER_S)


def grace_s(spec: AppSpec) -> float | None:
    """How long a task may take to end; None leaves it to its agent."""
    if spec.pod is not None and is_single(spec):
        return max(container_grace_s(spec, each.kill_grace_s) or 0.0 for each in spec.pod.containers)
    return container_grace_s(spec, spec.kill_grace_s)


def container_grace_s(spec: AppSpec, own_s: float | None) -> float | None:
    """The grace of a task that names this one of its own."""
    if own_s is not None:
        return float(own_s)
    return GRACE_S if is_single(spec) else None


def fence_s(spec: AppSpec, config: Config) -> float | None:
    """How long after its agent was declared unreachable an only instance has surely ended; None when nobody ends it."""
    stop_s = stop_after_s(spec, config)
    if stop_s is None or spec.unreachable is None or not is_single(spec):
        return None
    return max(replace_after_s(stop_s, grace_s(spec) or 0.0), float(spec.unreachable.inactive_after_s))


def extra_labels(spec: AppSpec, config: Config) -> tuple[Label, ...]:
    """What a task's labels say beside the app's own."""
    return () if STOP_AFTER_LABEL in spec.labels else bound_labels(spec, config)


def bound_labels(spec: AppSpec, config: Config) -> tuple[Label, ...]:
    """What tells the agent when to end a task that is cut off."""
    stop_s = stop_after_s(spec, config)
    if stop_s is None:
        return ()
    return (Label(key=STOP_AFTER_LABEL, value=format_duration(stop_s)),)


def must_wait(app: App) -> bool:
    """Whether an instance that may still run keeps the only one from being started."""
    return is_single(app.spec) and app.count(Phase.LEAVING) > 0


_RANKS = {Phase.RUNNING: 3, Phase.UNHEALTHY: 2, Phase.LAUNCHING: 1}


def choose_leaver(app: App, returned: Instance, since_at: float) -> tuple[Instance, str] | None:
    """Which of one that came back and those made since `since_at` goes, and why; None when the app says nothing.

    Shapes: the one that came back goes with NEW only if another is healthy in its place.
    """
    choice = app.spec.labels.get(ON_RETURN_LABEL)
    if choice is None or app.counted <= app.spec.instances:
        return None
    others = [
        i for phase in COUNTED for i in app.in_phase(phase) if i.id != returned.id and i.created_at >= since_at
    ]  # fmt: skip
    if not others:
        return None
    others.sort(key=_merit)
    why = f"an instance came back and label {ON_RETURN_LABEL} is {choice}"
    if choice == OnReturn.OLD:
        return others[0], why
    if choice == OnReturn.NEW and any(phase_of(i) is Phase.RUNNING for i in others):
        return returned, why
    return min([*others, returned], key=_merit), why


def _merit(instance: Instance) -> tuple[int, float, float]:
    """Healthy before running before the rest; among equals, what has run for longest."""
    return _RANKS.get(phase_of(instance), 0), -(instance.started_at or float("inf")), -instance.created_at
