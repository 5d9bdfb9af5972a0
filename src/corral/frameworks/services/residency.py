"""Apps with persistent volumes: what an instance reserves once, how it comes back to that, what is undone when it goes.

An instance reserves all it needs on the agent of its first launch, under a name of its own, and is started again on
that and nowhere else; offers hold what is reserved as soon as its task has ended. What bears a name that no instance
has any more is destroyed when it is offered, so that nothing has to be remembered of what was given up.
Source: Marathon's contract, section 3; Mesos v1, offer operations.
"""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from corral.frameworks.services import backoff
from corral.frameworks.services.absent import ROOT
from corral.frameworks.services.app_spec import AppSpec, PortDefinition, TaskLost, Unreachable
from corral.frameworks.services.record_spec import Condition, Goal, Instance, LocalVolume
from corral.frameworks.services.state import App, Phase, State, replace
from corral.lib.errors import Invalid
from corral.lib.ids import mint_uuid
from corral.model import calls
from corral.model.ids import FrameworkId
from corral.model.offer import Offer
from corral.model.operations import Create, Destroy, Reserve, Unreserve, is_volume
from corral.model.patterns import compile_pattern
from corral.model.resources import Disk, Identity, Reservation, Resource, Resources, normal, total_milli

OWNER = "corral.framework"
NAME = "corral.reservation"
LEAST_CPUS, LEAST_MEM_MB = 0.01, 32.0
"""What is below both is offered to nobody again."""


def volume_mb(spec: AppSpec) -> int:
    """How much of the root disk. Units: MiB."""
    return sum(volume.size_mb for volume in spec.volumes if volume.kind == ROOT)


def strategy_of(spec: AppSpec) -> Unreachable | None:
    """What the silence of an agent leads to; None waits for ever."""
    residency = spec.residency
    if spec.volumes and residency is not None and residency.task_lost is TaskLost.RELAUNCH_AFTER_TIMEOUT:
        return Unreachable(inactive_after_s=residency.relaunch_after_s, expunge_after_s=residency.relaunch_after_s)
    return spec.unreachable


# The first launch.


def settle_down(state: State, app: App, instance: Instance) -> Instance:
    """The instance with names for what it is going to reserve."""
    volumes = []
    for volume in app.spec.volumes:
        uuid = mint_uuid(state.random)
        stem = app.spec.id.strip("/").replace("/", "_")[-120:]
        volumes.append(
            LocalVolume(
                container_path=volume.container_path,
                persistence_id=f"{stem}#{volume.container_path}#{uuid}",
                uuid=uuid,
            )
        )
    return replace(instance, reservation=f"{instance.id}@{instance.incarnation}", volumes=tuple(volumes), kept=False)


def first_operations(
    app: App, instance: Instance, resources: Resources, role: str, framework_id: FrameworkId, principal: str | None
) -> tuple[tuple[calls.Operation, ...], Resources]:
    """RESERVE and CREATE on what an offer has for the instance, and what to launch with then."""
    labels = ((OWNER, framework_id), (NAME, instance.reservation))
    reservation = Reservation(role=role, principal=principal, labels=labels)
    reserved = normal(
        replace(r, identity=Identity(reservations=(*r.identity.reservations, reservation))) for r in resources
    )
    volumes = make_volumes(app.spec, instance, reservation)
    plain = _less_disk(reserved, sum(v.milli for v in volumes))
    return (Reserve(resources=reserved), Create(volumes=volumes)), normal((*plain, *volumes))


def make_volumes(spec: AppSpec, instance: Instance, reservation: Reservation) -> Resources:
    sizes = {volume.container_path: volume.size_mb for volume in spec.volumes}
    return normal(
        Resource(
            name="disk",
            milli=sizes[volume.container_path] * 1000,
            identity=Identity(
                reservations=(reservation,),
                disk=Disk(
                    persistence_id=volume.persistence_id,
                    principal=reservation.principal,
                    container_path=volume.container_path,
                ),
            ),
        )
        for volume in instance.volumes
    )


def _less_disk(resources: Resources, milli: int) -> Resources:
    """What is left when so much plain disk has become volumes."""
    found = []
    for r in resources:
        if r.name == "disk" and not is_volume(r):
            taken = min(milli, r.milli)
            milli -= taken
            r = replace(r, milli=r.milli - taken)
        if r.name != "disk" or r.milli:
            found.append(r)
    return tuple(found)


# Coming back.


class Held(msgspec.Struct, frozen=True):
    """What an offer holds under one name."""

    name: str
    resources: Resources


def held_in(offer: Offer, framework_id: FrameworkId) -> list[Held]:
    """What this framework has reserved of an offer, by name."""
    found: dict[str, list[Resource]] = {}
    for r in offer.resources:
        labels = dict(r.identity.reservations[-1].labels) if r.identity.reservations else {}
        if labels.get(OWNER) == framework_id and NAME in labels:
            found.setdefault(labels[NAME], []).append(r)
    return [Held(name, normal(resources)) for name, resources in sorted(found.items())]


def unreserved_part(offer: Offer) -> Offer | None:
    """The offer without all that is reserved; None when nothing is left."""
    rest = tuple(r for r in offer.resources if not r.identity.reservations)
    return replace(offer, resources=rest) if rest else None


def unheld_part(offer: Offer) -> Offer | None:
    """The offer without what bears somebody's labels; None when nothing is left."""
    rest = tuple(r for r in offer.resources if not any(each.labels for each in r.identity.reservations))
    return replace(offer, resources=rest) if rest else None


def waiting(state: State, now: float) -> dict[str, tuple[App, Instance]]:
    """The instances that wait for what they have reserved and may be started now, by its name."""
    return {
        instance.reservation: (app, instance)
        for app in state.apps.values()
        if app.spec.volumes and not app.record.stopping and backoff.wait_s(app, now) <= 0
        for instance in app.up_to_date[Phase.SCHEDULED].values()
        if instance.kept
    }


def names_in_use(state: State) -> set[str]:
    resident = [app for app in state.apps.values() if app.spec.volumes]
    return {i.reservation for app in resident for i in app.instances.values() if i.reservation}


def operations_to_launch(
    app: App, instance: Instance, held: Held
) -> tuple[tuple[calls.Operation, ...], Resources] | None:
    """What to do before the launch, and what to launch with; None when not all that was reserved is in the offer."""
    reservation = held.resources[0].identity.reservations[-1]
    wanted = make_volumes(app.spec, instance, reservation)
    there = {_persistence_id(r) for r in held.resources if is_volume(r)}
    missing = tuple(v for v in wanted if _persistence_id(v) not in there)
    disk = total_milli(tuple(r for r in held.resources if not is_volume(r)), "disk")
    if disk < sum(v.milli for v in missing):
        return None
    for name, least in (("cpus", app.spec.cpus), ("mem", app.spec.mem_mb)):
        if total_milli(held.resources, name) < round(least * 1000):
            return None
    if not missing:
        return (), held.resources
    plain = _less_disk(held.resources, sum(v.milli for v in missing))
    return (Create(volumes=missing),), normal((*plain, *missing))


def _persistence_id(resource: Resource) -> str | None:
    return resource.identity.disk.persistence_id if resource.identity.disk is not None else None


def operations_to_free(held: Held) -> tuple[calls.Operation, ...]:
    """Destroy its volumes and give back all that was reserved."""
    volumes = tuple(r for r in held.resources if is_volume(r))
    plain = normal(
        replace(r, identity=Identity(reservations=r.identity.reservations)) if is_volume(r) else r
        for r in held.resources
    )
    return (*((Destroy(volumes=volumes),) if volumes else ()), Unreserve(resources=plain))


# Ends.


def come_back(ended: Instance, again: Instance) -> Instance:
    """The next launch of an instance that has ended, on what it has reserved."""
    if not ended.kept:
        return again
    return replace(
        again, reservation=ended.reservation, volumes=ended.volumes, kept=True, ports=ended.ports,
        agent_id=ended.agent_id, hostname=ended.hostname,
    )  # fmt: skip


def park(instance: Instance) -> Instance:
    """What remains of an instance that is stopped: its name and what it has reserved."""
    again = Instance(
        id=instance.id, app=instance.app, version=instance.version, config=instance.config,
        created_at=instance.created_at, incarnation=instance.incarnation + (instance.staged_at is not None),
        goal=Goal.STOPPED,
    )  # fmt: skip
    return come_back(instance, again)


def is_parked(instance: Instance) -> bool:
    return instance.goal is Goal.STOPPED and instance.condition is Condition.SCHEDULED


# What is wrong.


def find_volume_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    """Paths and what is wrong there."""
    if not spec.volumes:
        return
    paths = [volume.container_path for volume in spec.volumes]
    for index, volume in enumerate(spec.volumes):
        at = f"/container/volumes({index})"
        if "/" in volume.container_path or volume.container_path in (".", "..") or "\0" in volume.container_path:
            yield f"{at}/containerPath", f"got {volume.container_path!r}, must be a name without slashes"
        if not 0 < volume.size_mb < 2**31:
            yield f"{at}/persistent/size", f"got {volume.size_mb}, must be 1 or more"
        if volume.kind == ROOT and volume.constraints:
            yield f"{at}/persistent/constraints", "constraints are for volumes on disks of their own, not of type root"
        for constraint in volume.constraints:
            wrong = _constraint_fault(constraint)
            if wrong is not None:
                yield f"{at}/persistent/constraints", wrong
        if volume.most_mb is not None and volume.kind != "mount":
            yield f"{at}/persistent/maxSize", "maxSize is for volumes of type mount"
        elif volume.most_mb is not None and volume.most_mb < volume.size_mb:
            yield f"{at}/persistent/maxSize", f"got {volume.most_mb}, must be the size, {volume.size_mb}, or more"
        if paths.count(volume.container_path) > 1:
            yield f"{at}/containerPath", f"{volume.container_path!r} is there twice; containerPaths must be unique"
    if spec.upgrade.maximum_over_capacity > 0 and spec.upgrade != type(spec.upgrade)():
        # What is left out, or as if it were, is filled in later.
        yield "/upgradeStrategy/maximumOverCapacity", "must be 0 for an app with persistent volumes"
    if spec.unreachable not in (None, Unreachable()):
        yield "/unreachableStrategy", 'must be "disabled" for an app with persistent volumes; see residency'
    if spec.cpus < LEAST_CPUS and spec.mem_mb < LEAST_MEM_MB:
        yield "/cpus", f"an app with persistent volumes needs cpus {LEAST_CPUS} or mem {LEAST_MEM_MB:g} at least"


def _constraint_fault(constraint: tuple[str, ...]) -> str | None:
    if len(constraint) != 3 or constraint[0] != "path" or constraint[1] not in ("LIKE", "UNLIKE"):
        return f'a constraint is ["path", "LIKE" or "UNLIKE", EXPRESSION], got {list(constraint)}'
    try:
        compile_pattern(constraint[2])
    except Invalid as error:
        return f"{constraint[1]} has the regular expression {constraint[2]!r}, which {error.message}"
    return None


_FIXED: Mapping[str, Callable[[AppSpec], object]] = {
    "/container/volumes": lambda spec: spec.volumes,
    "/cpus": lambda spec: spec.cpus,
    "/mem": lambda spec: spec.mem_mb,
    "/disk": lambda spec: spec.disk_mb,
    "/gpus": lambda spec: spec.gpus,
    "/requirePorts": lambda spec: spec.require_ports,
    "/portDefinitions": lambda spec: tuple(_host_ports(spec)),
}


def _host_ports(spec: AppSpec) -> Iterator[int | None]:
    for port in spec.ports:
        if isinstance(port, PortDefinition):
            yield port.port if spec.require_ports else 0
        else:
            yield port.host_port


def find_changed(old: AppSpec, new: AppSpec, *, force: bool = False) -> dict[str, list[str]]:
    """What an update may not change, as it is reserved, by path. Shapes: with `force` the role of what is new may."""
    if not old.volumes and not new.volumes:
        return {}
    text = "cannot be changed while the app has persistent volumes; make another app, or delete this one first"
    found = {path: [text] for path, of in _FIXED.items() if of(old) != of(new)}
    if old.role != new.role and not force:
        found["/role"] = ["instances that have volumes keep their role; with force=true it is that of new ones alone"]
    return found
