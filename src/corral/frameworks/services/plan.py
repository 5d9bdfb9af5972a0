"""Desired and observed state to ordered steps, each with its why.

`plan_deployment` orders the changes of several apps; `plan_app` says what one app needs next. Both look only at what
is there now, so a plan that was interrupted anywhere goes on from there.
Source: Marathon's contract, section 8; numbers of the rolling restart as there.

Deviates: the rolling restart is computed anew from what is observed instead of counting events since its start, and an
old instance that is not healthy may always go: it adds nothing to the capacity that is to be kept.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.partition import must_wait
from corral.frameworks.services.record_spec import Action, ActionKind, Condition, Goal, Instance
from corral.frameworks.services.state import COUNTED, App, Phase, replace
from corral.lib.errors import Unprocessable


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Schedule so many new instances."""

    count: int
    why: str


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """End these instances and do not replace them."""

    instances: tuple[str, ...]
    why: str


Step = Start | Stop


class AppPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `done` when nothing is missing, nothing too much and all that was started is healthy.

    `more` when the bound was reached and the rest of the work is to follow at once. `held` when it goes no further
    until somebody promotes it.
    """

    steps: tuple[Step, ...] = ()
    done: bool = False
    more: bool = False
    held: bool = False


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How far a restart may go now. Shapes: at most `new` new instances; with `beside` all new ones run beside the old,
    whatever the capacities say, and no old one goes."""

    new: int | None = None
    beside: bool = False


FULL = Pace()


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The two bounds of a rolling restart, in instances."""

    least_healthy: int
    most: int


def capacity(instances: int, minimum: float, over: float, healthy: int, *, resident: bool = False) -> Capacity:
    """How many instances stay healthy at least and run at most.

    When both numbers leave no room at all and everything is healthy, one more than allowed may run; of `resident` ones
    one less, as each has to start where it was.
    """
    least = math.ceil(round(instances * minimum, 9))
    most = math.floor(round(instances * (1 + over), 9))
    if least == most and most <= healthy:
        if resident:
            least -= 1
        else:
            most += 1
    return Capacity(least_healthy=least, most=most)


def plan_app(app: App, action: ActionKind | None, began_at: float, most: int, pace: Pace = FULL) -> AppPlan:
    """What the app needs next. Shapes: `action` None when no deployment works on it; at most `most` ends at once."""
    match action:
        case ActionKind.START:
            return AppPlan(done=True)
        case ActionKind.STOP:
            return plan_stop(app, most)
        case ActionKind.RESTART:
            return plan_restart(app, most, pace)
        case ActionKind.SCALE | None:
            return plan_scale(app, began_at, most)


def plan_stop(app: App, most: int) -> AppPlan:
    """End everything."""
    live = [i.id for phase in Phase if phase is not Phase.LEAVING for i in app.in_phase(phase)]
    steps = (Stop(instances=tuple(live[:most]), why=f"app {app.spec.id} was deleted"),) if live else ()
    return AppPlan(steps=steps, done=not app.instances, more=len(live) > most)


def plan_scale(app: App, began_at: float, most: int) -> AppPlan:
    """As many instances as wanted: end the surplus, then schedule what is missing."""
    wanted, there = app.spec.instances, app.counted
    if there > wanted:
        why = f"app {app.spec.id} has {there} instances and wants {wanted}"
        victims = tuple(i.id for i in islice(choose_victims(app), min(there - wanted, most)))
        return AppPlan(steps=(Stop(instances=victims, why=why),), more=there - wanted > most)
    if there < wanted and must_wait(app):
        return AppPlan()
    # Those that stop and have volumes are started again, in their places, as soon as they have ended.
    stopping = sum(i.goal is Goal.STOPPED for i in app.in_phase(Phase.LEAVING)) if app.spec.volumes else 0
    missing = wanted - there - stopping
    if missing > 0:
        why = f"app {app.spec.id} has {there} instances and wants {wanted}"
        return AppPlan(steps=(Start(count=missing, why=why),))
    if there < wanted:
        return AppPlan()
    return AppPlan(done=not app.count(Phase.LEAVING) and not _has_new_unhealthy(app, began_at))


def _has_new_unhealthy(app: App, began_at: float) -> bool:
    """Whether an instance is not healthy yet that was made for this deployment, or was on its way there before."""
    return any(
        instance.created_at >= began_at
        or (instance.incarnation == 1 and phase is not Phase.UNREACHABLE and not _was_healthy(instance))
        for phase in (Phase.SCHEDULED, Phase.LAUNCHING, Phase.UNHEALTHY, Phase.UNREACHABLE)
        for instance in app.in_phase(phase)
    )


def _was_healthy(instance: Instance) -> bool:
    """Whether each of its checks has passed once."""
    passed = sum(result.first_success_at is not None for result in instance.health)
    return 0 < instance.checks <= passed


def plan_restart(app: App, most: int, pace: Pace = FULL) -> AppPlan:
    """Replace all outdated instances, within the two capacities and as far as the pace allows."""
    spec = app.spec
    wanted = spec.instances
    old_idle = list(islice(app.outdated[Phase.SCHEDULED], most))
    if old_idle:
        why = f"app {spec.id} has a new definition and these were not launched yet"
        return AppPlan(steps=(Stop(instances=tuple(old_idle), why=why),), more=True)
    old_healthy = len(app.outdated[Phase.RUNNING])
    old_unhealthy = sum(len(app.outdated[p]) for p in (Phase.LAUNCHING, Phase.UNHEALTHY, Phase.UNREACHABLE))
    old_inactive = len(app.outdated[Phase.INACTIVE])
    old_active = old_healthy + old_unhealthy
    started = sum(len(app.up_to_date[p]) for p in COUNTED)
    new_healthy = len(app.up_to_date[Phase.RUNNING])
    leaving = app.count(Phase.LEAVING)
    healthy = old_healthy + new_healthy
    bounds = capacity(
        wanted, spec.upgrade.minimum_health_capacity, spec.upgrade.maximum_over_capacity, healthy,
        resident=bool(spec.volumes),
    )  # fmt: skip
    steps: list[Step] = []
    if pace is not FULL and started <= wanted:
        return _plan_held(app, most, pace, bounds)
    if started > wanted:
        surplus = tuple(i.id for i in islice(_in_kill_order(app, app.up_to_date), min(started - wanted, most)))
        steps.append(Stop(instances=surplus, why=f"app {spec.id} started {started} new instances and wants {wanted}"))
    spare = max(healthy - bounds.least_healthy, old_active - wanted, 0)
    kills = min(old_unhealthy + old_inactive + min(spare, old_healthy), most)
    if kills > 0:
        victims = tuple(islice(_outdated_in_kill_order(app), kills))
        why = f"{healthy} instances of app {spec.id} are healthy and {bounds.least_healthy} have to be"
        steps.append(Stop(instances=victims, why=why))
    startable = max(0, min(wanted - started, bounds.most - old_active - leaving - started))
    if startable:
        why = f"app {spec.id} runs {started} of {wanted} in its new definition and may run {bounds.most} in all"
        steps.append(Start(count=startable, why=why))
    done = not steps and new_healthy == wanted and old_active + old_inactive == 0 and not _leaving_outdated(app)
    return AppPlan(steps=tuple(steps), done=done, more=kills == most)


def _plan_held(app: App, most: int, pace: Pace, bounds: Capacity) -> AppPlan:
    """Only so many new instances, and all others stay; what of the others ends by itself is replaced by new ones."""
    spec, wanted = app.spec, app.spec.instances
    old_active = sum(len(app.outdated[p]) for p in (Phase.LAUNCHING, Phase.UNHEALTHY, Phase.UNREACHABLE, Phase.RUNNING))
    old_inactive = len(app.outdated[Phase.INACTIVE])
    started = sum(len(app.up_to_date[p]) for p in COUNTED)
    new_healthy = len(app.up_to_date[Phase.RUNNING])
    healthy = new_healthy + len(app.outdated[Phase.RUNNING])
    limit = wanted if pace.beside else min(wanted, max(pace.new or 0, wanted - old_active))
    steps: list[Step] = []
    surplus = 0 if pace.beside else max(0, old_active - (wanted - limit))
    spare = max(healthy - bounds.least_healthy, old_active - wanted, old_active - len(app.outdated[Phase.RUNNING]), 0)
    kills = min(old_inactive + min(surplus, spare), most)
    if kills > 0:
        victims = tuple(islice(_outdated_in_kill_order(app), kills))
        why = f"{limit} of {wanted} instances of app {spec.id} run its new definition until it is promoted"
        steps.append(Stop(instances=victims, why=why))
    room = limit if pace.beside else bounds.most - old_active - app.count(Phase.LEAVING)
    startable = max(0, min(limit, room) - started)
    if startable:
        why = f"app {spec.id} tries its new definition with {limit} instances"
        steps.append(Start(count=startable, why=why))
    held = not steps and new_healthy >= limit and not app.count(Phase.LEAVING)
    return AppPlan(steps=tuple(steps), held=held, more=kills == most)


def _leaving_outdated(app: App) -> bool:
    return bool(app.outdated[Phase.LEAVING])


def _outdated_in_kill_order(app: App) -> Iterator[str]:
    """Those that are not healthy first."""
    for phase in (Phase.INACTIVE, Phase.UNREACHABLE, Phase.LAUNCHING, Phase.UNHEALTHY, Phase.RUNNING):
        yield from app.outdated[phase]


def choose_victims(app: App) -> Iterator[Instance]:
    """Who goes when an app scales down, first who goes first.

    What was not launched, then what evens out the groups of GROUP_BY, then by condition, then by `killSelection`.
    """
    ordered = _in_kill_order(app, None)
    return _evening_out(list(ordered)) if any(c[1] == "GROUP_BY" for c in app.spec.constraints) else ordered


_WEIGHT = {
    Condition.SCHEDULED: 0,
    Condition.UNREACHABLE: 1,
    Condition.PROVISIONED: 2,
    Condition.STAGING: 3,
    Condition.STARTING: 4,
    Condition.KILLING: 4,
    Condition.RUNNING: 5,
}


def _in_kill_order(app: App, side: tuple[dict[str, Instance], ...] | None) -> Iterator[Instance]:
    """Phase by phase, so that nothing is sorted that does not have to go."""
    youngest_first = app.spec.kill_selection == "YOUNGEST_FIRST"

    def since(instance: Instance) -> float:
        return instance.started_at or instance.staged_at or instance.created_at

    for phase in COUNTED:
        members = list(app.in_phase(phase) if side is None else side[phase].values())
        members.sort(key=since, reverse=youngest_first)
        members.sort(key=lambda i: _WEIGHT[i.condition])
        yield from members


def _evening_out(ordered: list[Instance]) -> Iterator[Instance]:
    """The same instances, always next the first in order of the group that holds most."""
    groups: dict[str, list[Instance]] = {}
    for instance in reversed(ordered):
        if instance.condition is not Condition.SCHEDULED:
            groups.setdefault(instance.group_value, []).append(instance)
    yield from (i for i in ordered if i.condition is Condition.SCHEDULED)
    place = {instance.id: at for at, instance in enumerate(ordered)}
    while groups:
        fullest = max(groups, key=lambda g: (len(groups[g]), -place[groups[g][-1].id]))
        yield groups[fullest].pop()
        if not groups[fullest]:
            del groups[fullest]


# Several apps.


class AppChange(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `new` None removes the app; `outdated` when instances of an older definition still run."""

    id: str
    old: AppSpec | None
    new: AppSpec | None
    restart: bool = False
    outdated: bool = False


def changed_fields(old: AppSpec, new: AppSpec) -> frozenset[str]:
    return frozenset(f for f in AppSpec.__struct_fields__ if getattr(old, f) != getattr(new, f))


def is_upgrade(old: AppSpec, new: AppSpec) -> bool:
    """Whether the change replaces instances, instead of only their number."""
    return bool(changed_fields(old, new) - {"instances"})


def _kind_of(change: AppChange) -> ActionKind | None:
    assert change.new is not None
    if change.old is None:
        return ActionKind.RESTART if change.outdated else ActionKind.SCALE
    if change.old == change.new and not change.restart:
        return None
    if change.new.instances == 0:
        return ActionKind.SCALE
    if change.restart or change.outdated or is_upgrade(change.old, change.new):
        return ActionKind.RESTART
    return ActionKind.SCALE


def plan_deployment(
    changes: Sequence[AppChange], dependencies_of: Callable[[str], Iterable[str]]
) -> tuple[tuple[Action, ...], ...]:
    """First what is removed stops, then what is new starts, then step by step what others depend on.

    Shapes: `dependencies_of` answers for the state after the change. Empty when nothing changes.
    Errors: `Unprocessable` when apps depend on each other in a circle.
    """
    stops = [Action(kind=ActionKind.STOP, app=c.id) for c in changes if c.new is None]
    starts = [Action(kind=ActionKind.START, app=c.id) for c in changes if c.old is None and c.new is not None]
    kinds = {c.id: kind for c in changes if c.new is not None and (kind := _kind_of(c)) is not None}
    depths = chain_lengths(sorted(kinds), dependencies_of)
    by_depth: dict[int, list[Action]] = {}
    for app_id in sorted(kinds):
        by_depth.setdefault(depths[app_id], []).append(Action(kind=kinds[app_id], app=app_id))
    steps = [sorted(stops, key=_by_app), sorted(starts, key=_by_app)]
    steps += [by_depth[depth] for depth in sorted(by_depth)]
    pods = {c.id for c in changes if (spec := c.new or c.old) is not None and spec.pod is not None}
    if pods:
        steps = [[replace(a, pod=a.app in pods) for a in step] for step in steps]
    return tuple(tuple(step) for step in steps if step)


def _by_app(action: Action) -> str:
    return action.app


def chain_lengths(apps: Iterable[str], dependencies_of: Callable[[str], Iterable[str]]) -> Mapping[str, int]:
    """The length of each app's longest chain of dependencies.

    Errors: `Unprocessable` naming the circle, when there is one.
    """
    lengths: dict[str, int] = {}
    for root in apps:
        stack: list[tuple[str, Iterator[str]]] = [(root, iter(dependencies_of(root)))]
        path = {root: None}
        best = {root: 0}
        while stack and root not in lengths:
            node, rest = stack[-1]
            child = next(rest, None)
            if child is None:
                stack.pop()
                del path[node]
                lengths[node] = best.pop(node)
                if stack:
                    parent = stack[-1][0]
                    best[parent] = max(best[parent], lengths[node] + 1)
            elif child in path:
                circle = " -> ".join([*list(path)[list(path).index(child) :], child])
                raise Unprocessable(
                    "Object is not valid", {"/dependencies": [f"apps depend on each other in a circle: {circle}"]}
                )
            elif child in lengths:
                best[node] = max(best[node], lengths[child] + 1)
            else:
                path[child] = None
                best[child] = 0
                stack.append((child, iter(dependencies_of(child))))
    return lengths
