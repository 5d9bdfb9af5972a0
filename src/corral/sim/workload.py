"""What a simulation is given: agents and roles as they come and go, and batches of instances with their fates.

Made of corral's own traces, or of openb's lists. Rule: a fate belongs to the instance and not to where it was placed:
how long it runs, or when it was wanted no more. So the same work meets every policy.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import msgspec

from corral.allocator.packing import WHOLE
from corral.allocator.view import AgentView
from corral.lib.errors import Invalid
from corral.model.constraints import Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId, check_role
from corral.model.offer import Want
from corral.model.resources import Resource, ResourceKind, Resources, all_ranges, count_range, normal
from corral.sim.openb import Node, Pod, read_nodes, read_pods
from corral.sim.trace import (
    AgentCame,
    AgentLeft,
    Arrived,
    Begin,
    Ended,
    Event,
    RoleSet,
    RoleUnset,
    SettingsSet,
    Started,
    Withdrawn,
    count_of,
)

GPU_MODEL = "gpu_model"
"""The attribute of an agent that names its GPUs."""

Fact = AgentCame | AgentLeft | RoleSet | RoleUnset | SettingsSet


class Fate(msgspec.Struct, frozen=True, gc=False):
    """Of one instance. Units: `run_s` seconds, None for ever; `withdrawn_at` when nobody wanted it any more."""

    run_s: float | None = None
    withdrawn_at: float | None = None


class Batch(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Instances of one want that arrive together, one fate for each."""

    at: float
    framework_id: FrameworkId
    want: Want
    fates: tuple[Fate, ...]


class Workload(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: both in the order of time."""

    source: str
    facts: tuple[Fact, ...]
    batches: tuple[Batch, ...]

    @property
    def instances(self) -> int:
        return sum(len(batch.fates) for batch in self.batches)


class _Open:
    """A batch whose fates are not all known yet."""

    def __init__(self, event: Arrived | Started, want: Want) -> None:
        self.event = event
        self.want = want
        run_s = event.run_s if isinstance(event, Arrived) else None
        self.fates = [Fate(run_s) for _ in range(want.count)]

    def closed(self) -> Batch:
        event = self.event
        return Batch(at=event.at, framework_id=event.framework_id, want=self.want, fates=tuple(self.fates))


_Slot = tuple[_Open, int]


def from_trace(events: Iterable[Event]) -> Workload:
    """Bring starts and ends together with the wants they are of.

    Shapes: the instances of a want start in the order they arrived. What started without a want is a want of its own,
    free to go to any agent; what runs at the end of the trace runs for ever.
    """
    source, facts, batches = "", [], []
    waiting: dict[tuple[FrameworkId, WantId], deque[_Slot]] = {}
    running: dict[tuple[FrameworkId, str], tuple[_Slot, float]] = {}
    for event in events:
        match event:
            case Begin():
                source = event.source
            case Arrived():
                batches.append(new := _Open(event, event.want))
                line = waiting.setdefault((event.framework_id, event.want.id), deque())
                line.extend((new, number) for number in range(event.want.count))
            case Withdrawn():
                line = waiting.get((event.framework_id, event.want_id), deque())
                for _ in range(min(count_of(event), len(line))):
                    batch, number = line.pop()
                    batch.fates[number] = Fate(batch.fates[number].run_s, event.at)
            case Started():
                line = waiting.get((event.framework_id, event.want_id or WantId("")), deque())
                if line:
                    slot = line.popleft()
                else:
                    batches.append(new := _Open(event, _want_of_task(event)))
                    slot = (new, 0)
                running[event.framework_id, event.task] = (slot, event.at)
            case Ended():
                found = running.pop((event.framework_id, event.task), None)
                if found is not None:
                    (batch, number), started_at = found
                    batch.fates[number] = Fate(event.at - started_at)
            case AgentCame() | AgentLeft() | RoleSet() | RoleUnset() | SettingsSet():
                facts.append(event)
    return Workload(source=source, facts=tuple(facts), batches=tuple(batch.closed() for batch in batches))


def _want_of_task(event: Started) -> Want:
    scalars = tuple(r for r in event.resources if r.kind is ResourceKind.SCALAR)
    ports = count_range(all_ranges(event.resources, "ports"))
    return Want(id=WantId(f"task/{event.task}"), role=event.role, count=1, resources=scalars, ports=ports)


# openb's lists.


def agents_of(nodes: Iterable[Node]) -> tuple[AgentCame, ...]:
    """An agent for each machine, there from the start."""
    return tuple(
        AgentCame(
            at=0.0,
            agent=AgentView(
                id=AgentId(node.name),
                hostname=node.name,
                total=_bundle(node.supply.cpu_milli, node.supply.mem_mb, node.supply.gpus * WHOLE),
                attributes={GPU_MODEL: node.supply.model} if node.supply.model else {},
            ),
        )
        for node in nodes
    )


def _bundle(cpu_milli: int, mem_mb: int, gpu_milli: int) -> Resources:
    return normal(
        (
            Resource(name="cpus", milli=cpu_milli),
            Resource(name="mem", milli=mem_mb * 1000),
            Resource(name="gpus", milli=gpu_milli),
        )
    )


def from_pods(pods: Sequence[Pod], *, role_by: str, source: str) -> Workload:
    """A batch of one for each pod. Shapes: `role_by` is `qos` or `app`, the column that names the role.

    A pod runs from when it was scheduled, or else created, until it was deleted. One that has no time of creation comes
    a second after the one before it and runs for ever, as one does that was never deleted. No pod names a strategy.
    Errors: `Invalid` for a name that no role may have, or when pods have only the other of the two.
    """
    by = {"qos": [pod.qos for pod in pods], "app": [pod.app for pod in pods]}
    names, other = by[role_by], "qos" if role_by == "app" else "app"
    if not any(names) and any(by[other]):
        raise Invalid(f"{source} names no {role_by} for any of its {len(pods)} pods; use --role-by {other}")
    batches, at = [], 0.0
    for pod, name in zip(pods, names, strict=True):
        role = name or f"no-{role_by}"
        check_role(role)
        at = at + 1.0 if pod.created_at is None else pod.created_at
        batches.append(_batch(pod, role, at))
    batches.sort(key=_at)
    return Workload(source=source, facts=(), batches=tuple(batches))


def _at(batch: Batch) -> float:
    return batch.at


def _batch(pod: Pod, role: str, at: float) -> Batch:
    demand = pod.demand
    models = (Constraint(field=GPU_MODEL, operator=Operator.IN, values=demand.models),) if demand.models else ()
    run_s = None
    if pod.created_at is not None and pod.deleted_at is not None:
        begun_at = pod.created_at if pod.scheduled_at is None else pod.scheduled_at
        run_s = max(0.0, pod.deleted_at - begun_at)
    want = Want(
        id=WantId(pod.name),
        role=role,
        count=1,
        resources=_bundle(demand.cpu_milli, demand.mem_mb, demand.asked_milli),
        constraints=models,
        strategy="",
    )
    return Batch(at=at, framework_id=FrameworkId("openb"), want=want, fates=(Fate(run_s),))


def load_openb(pods: Path, nodes: Path, role_by: str) -> Workload:
    """Errors: those of the readers and of `from_pods`; `Invalid` when two pods or two nodes have one name."""
    found = from_pods(list(read_pods(pods)), role_by=role_by, source=pods.name)
    _check_names(pods, (batch.want.id for batch in found.batches))
    return with_nodes(found, nodes)


def with_nodes(workload: Workload, nodes: Path) -> Workload:
    """The same work on these machines instead of those it met."""
    kept = [fact for fact in workload.facts if not isinstance(fact, AgentCame | AgentLeft)]
    came = agents_of(read_nodes(nodes))
    _check_names(nodes, (each.agent.id for each in came))
    start_at = workload.batches[0].at if workload.batches else 0.0
    shifted = [msgspec.structs.replace(each, at=min(0.0, start_at)) for each in came]
    return msgspec.structs.replace(workload, facts=(*shifted, *kept))


def _check_names(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Invalid(f"{path} names {name} twice; give each line a name of its own")
        seen.add(name)


# Less of it, or more.


def cut(workload: Workload, limit: int) -> Workload:
    """The first so many instances."""
    kept, left = [], limit
    for batch in workload.batches:
        if left <= 0:
            break
        if len(batch.fates) > left:
            want = msgspec.structs.replace(batch.want, count=left)
            batch = msgspec.structs.replace(batch, want=want, fates=batch.fates[:left])
        kept.append(batch)
        left -= len(batch.fates)
    return msgspec.structs.replace(workload, batches=tuple(kept))


def inflate(workload: Workload, factor: float, random: Random) -> Workload:
    """So many times the batches: random ones come once more, at the same time and under names of their own.

    Errors: `Invalid` for a factor below 1.
    """
    if not 1.0 <= factor <= 1000.0:
        raise Invalid(f"a workload cannot be inflated {factor:g} times; give 1 to 1000")
    found = list(workload.batches)
    for number in range(1, round(len(workload.batches) * (factor - 1.0)) + 1):
        drawn = workload.batches[random.randrange(len(workload.batches))]
        want = msgspec.structs.replace(drawn.want, id=WantId(f"{drawn.want.id}+{number}"))
        found.append(msgspec.structs.replace(drawn, want=want))
    found.sort(key=_at)
    return msgspec.structs.replace(workload, batches=tuple(found))
