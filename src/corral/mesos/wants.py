"""Reads and writes corral's extension of the REQUEST call: wants, and the explanations of those that wait.

`request.wants[]` states demands: `{id, role, count, resources[], ports, fixed_ports[], constraints[{field, operator,
values[], count, weight}], strategy, priority, group, group_size, runtime, gang, gang_timeout_s, run_s, revocable,
preempts, tags[]}` with resources in the Mesos form. A plain Mesos REQUEST has no `wants`. The event EXPLANATIONS says
why wants wait; offers name their want in `corral_want_id`.
"""

from collections.abc import Iterable

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.common import read_enum
from corral.mesos.resources import read_resources, write_resources
from corral.model.constraints import Constraint, Operator
from corral.model.ids import FrameworkId, WantId, check_id, check_role
from corral.model.offer import Explanation, Refusal, Want, find_want_fault
from corral.model.resources import PLAIN, ResourceKind


class WireConstraint(wire.Wire):
    field: str
    operator: str
    values: tuple[str, ...] = ()
    count: wire.UInt | None = None
    weight: int = 0


class WireWant(wire.Wire):
    id: str
    role: str
    count: wire.UInt
    resources: tuple[wire.Resource, ...] = ()
    ports: wire.UInt = 0
    fixed_ports: tuple[wire.UInt, ...] = ()
    constraints: tuple[WireConstraint, ...] = ()
    strategy: str = ""
    priority: int = 0
    group: str = ""
    group_size: wire.UInt = 0
    runtime: str = ""
    gang: int = 0
    gang_timeout_s: float = 300.0
    run_s: float | None = None
    revocable: bool = False
    preempts: bool = True
    tags: tuple[str, ...] = ()


class WireRefusal(wire.Wire):
    reason: str
    detail: str
    agents: int
    best: str | None = None


class WireExplanation(wire.Wire):
    want_id: str
    framework_id: wire.Id
    role: str
    waiting: int
    since_at: float
    agents: int
    refusals: tuple[WireRefusal, ...] = ()
    fits_if: tuple[str, ...] = ()
    never: bool = False


def read_wants(found: Iterable[WireWant]) -> tuple[Want, ...]:
    """Errors: `Invalid` names the want and the field when a want could never be understood by the allocator."""
    wants = tuple(_read_want(w, f"request.wants[{i}]") for i, w in enumerate(found))
    seen: set[str] = set()
    for want in wants:
        if want.id in seen:
            raise Invalid(f"field 'request.wants': id {want.id!r} is given twice; each want needs its own")
        seen.add(want.id)
    return wants


def write_wants(wants: Iterable[Want]) -> tuple[WireWant, ...]:
    return tuple(
        WireWant(
            id=w.id,
            role=w.role,
            count=w.count,
            resources=write_resources(w.resources, refinement=True),
            ports=w.ports,
            fixed_ports=w.fixed_ports,
            constraints=tuple(
                WireConstraint(
                    field=c.field, operator=c.operator.value, values=c.values, count=c.count, weight=c.weight
                )
                for c in w.constraints
            ),
            strategy=w.strategy,
            priority=w.priority,
            group=w.group,
            group_size=w.group_size,
            runtime=w.runtime,
            gang=w.gang,
            gang_timeout_s=float(w.gang_timeout_s),
            run_s=None if w.run_s is None else float(w.run_s),
            revocable=w.revocable,
            preempts=w.preempts,
            tags=w.tags,
        )
        for w in wants
    )


def _read_want(found: WireWant, at: str) -> Want:
    check_id(found.id, f"field '{at}.id'")
    check_role(found.role)
    resources = read_resources(found.resources, at + ".resources")
    for resource in resources:
        if resource.kind is not ResourceKind.SCALAR or resource.milli < 0 or resource.identity != PLAIN:
            raise Invalid(
                f"field '{at}.resources': {resource.name} is not a plain scalar of 0 or more; state ports as 'ports' "
                "or 'fixed_ports'"
            )
    want = Want(
        id=WantId(found.id),
        role=found.role,
        count=found.count,
        resources=resources,
        ports=found.ports,
        fixed_ports=found.fixed_ports,
        constraints=tuple(_read_constraint(c, f"{at}.constraints[{i}]") for i, c in enumerate(found.constraints)),
        strategy=found.strategy,
        priority=found.priority,
        group=found.group,
        group_size=found.group_size,
        runtime=found.runtime,
        gang=found.gang,
        gang_timeout_s=found.gang_timeout_s,
        run_s=found.run_s,
        revocable=found.revocable,
        preempts=found.preempts,
        tags=found.tags,
    )
    fault = find_want_fault(want)
    if fault is not None:
        raise Invalid(f"field '{at}.{fault[0]}': {fault[1]}")
    return want


def _read_constraint(found: WireConstraint, at: str) -> Constraint:
    operator = read_enum(Operator, found.operator, at + ".operator")
    return Constraint(
        field=found.field, operator=operator, values=found.values, count=found.count, weight=found.weight
    )  # fmt: skip


def read_explanation(found: WireExplanation) -> Explanation:
    return Explanation(
        want_id=WantId(found.want_id),
        framework_id=FrameworkId(found.framework_id.value),
        role=found.role,
        waiting=found.waiting,
        since_at=found.since_at,
        agents=found.agents,
        refusals=tuple(Refusal(reason=r.reason, detail=r.detail, agents=r.agents, best=r.best) for r in found.refusals),
        fits_if=found.fits_if,
        never=found.never,
    )


def write_explanation(explanation: Explanation) -> WireExplanation:
    return WireExplanation(
        want_id=explanation.want_id,
        framework_id=wire.Id(value=explanation.framework_id),
        role=explanation.role,
        waiting=explanation.waiting,
        since_at=float(explanation.since_at),
        agents=explanation.agents,
        refusals=tuple(
            WireRefusal(reason=r.reason, detail=r.detail, agents=r.agents, best=r.best) for r in explanation.refusals
        ),
        fits_if=explanation.fits_if,
        never=explanation.never,
    )
