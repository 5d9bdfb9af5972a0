"""Reservations and volumes on the agent: on disk before they are answered, taken up again, mounted, deleted."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agent_driver import CONFIG, Driver, make_task

from corral.agent import effects as fx
from corral.agent import volumes
from corral.agent.execution import volume_path
from corral.agent.spec import Started, VolumeDeleted
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo
from corral.model.execution import Launched, Mount
from corral.model.operations import Create, Destroy, Grow, Reserve, ResourceOperation, Unreserve
from corral.model.orders import ApplyOperation, OperationDone, Register
from corral.model.resources import Disk, Identity, Reservation, Resource, Resources, add, normal, scalar, subtract
from corral.model.task import Reason, TaskState
from corral.runtime.core import Persist, Stop

TOTAL = add(CONFIG.resources, (scalar("disk", 1000),))
WEB = (Reservation(role="web/front"),)
CPUS = scalar("cpus", 2, Identity(reservations=WEB))
FREE = scalar("disk", 400, Identity(reservations=WEB))
PATH = "/var/corral/volumes/roles/web front/data"


def volume(id: str = "data", value: float = 400, path: str = "data", **more: Any) -> Resource:
    disk = Disk(persistence_id=id, container_path=path, **more.pop("disk", {}))
    return scalar("disk", value, Identity(reservations=WEB, disk=disk, **more))


def order(driver: Driver, operation: ResourceOperation, uuid: bytes = b"u" * 16) -> OperationDone:
    driver.order(ApplyOperation(driver.epoch, uuid, operation))
    (done,) = [e.report for e in driver.all(fx.Send) if isinstance(e.report, OperationDone)]
    assert done.uuid == uuid
    return done


def brought(driver: Driver) -> Resources:
    """What the agent brings to a master now."""
    driver.open()
    (told,) = [e.report for e in driver.all(fx.Send) if isinstance(e.report, Register)]
    return told.info.resources


@pytest.fixture
def reserving(make_driver: Callable[..., Driver]) -> Driver:
    """An agent with reserved cpus, a volume and nothing else made."""
    driver = make_driver(resources=TOTAL).ready()
    assert order(driver, Reserve(resources=(CPUS, FREE))).why is None
    assert order(driver, Create(volumes=(volume(),))).why is None
    return driver


MADE = add(subtract(TOTAL, normal((scalar("cpus", 2), scalar("disk", 400)))), (CPUS, volume()))


def test_an_operation_is_on_disk_before_it_is_answered_and_outlives_the_agent(reserving: Driver) -> None:
    driver = reserving
    places = [type(e) for e in driver.effects]
    assert places.index(Persist) < places.index(fx.Send)
    assert brought(driver) == MADE
    driver.start()
    driver.recover(runtime="process")
    driver.recover(runtime="docker")
    assert brought(driver) == MADE


@pytest.mark.parametrize(
    "operation",
    [
        Reserve(resources=(scalar("cpus", 3, Identity(reservations=WEB)),)),
        Create(volumes=(volume(),)),
        Create(volumes=(volume("other"),)),
        Unreserve(resources=(FREE,)),
        Destroy(volumes=(volume(value=100),)),
        Grow(volume=volume(), addition=scalar("disk", 10, Identity(reservations=WEB))),
        Reserve(resources=()),
    ],
)
def test_what_cannot_be_carried_out_changes_nothing_and_has_the_master_look_anew(
    reserving: Driver, operation: ResourceOperation
) -> None:
    records = dict(reserving.records)
    assert order(reserving, operation).why
    assert reserving.one(fx.Reconnect).why
    assert reserving.records == records
    assert brought(reserving) == MADE


def launch(driver: Driver, *resources: Resource, id: str = "t1", **more: Any) -> None:
    info = msgspec.structs.replace(make_task(id, **more), resources=normal(resources))
    driver.launch(info)


@pytest.mark.parametrize(
    ("path", "container", "target"),
    [
        ("data", None, "data"),
        ("/srv", None, "/srv"),
        ("data", ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="i")), "/mnt/mesos/sandbox/data"),
        ("/srv", ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="i")), "/srv"),
    ],
)
def test_a_volume_is_made_and_mounted_where_it_says(
    make_driver: Callable[..., Driver], path: str, container: ContainerInfo | None, target: str
) -> None:
    driver = make_driver(resources=TOTAL).ready()
    order(driver, Reserve(resources=(FREE,)))
    order(driver, Create(volumes=(volume(path=path),)))
    info = msgspec.structs.replace(make_task("t1"), resources=(volume(path=path),), container=container)
    driver.launch(info)
    start = driver.one(fx.Start)
    assert start.volumes == (PATH,)
    assert start.execution.mounts[-1] == Mount(source=PATH, target=target)


def test_a_task_on_what_the_agent_does_not_have_is_dropped(reserving: Driver) -> None:
    launch(reserving, scalar("cpus", 1), volume("other"))
    assert (reserving.status().state, reserving.status().reason) == (TaskState.LOST, Reason.RESOURCES_UNKNOWN)
    launch(reserving, scalar("cpus", 3, CPUS.identity), id="t2")
    assert reserving.status().reason is Reason.RESOURCES_UNKNOWN


def test_one_task_has_a_volume_at_a_time_and_then_nobody_destroys_it(reserving: Driver) -> None:
    launch(reserving, volume())
    start = reserving.one(fx.Start)
    reserving.tell(Started(Launched(container_id=start.execution.container_id, pid=1)))
    launch(reserving, volume(), id="t2")
    assert "that task t1 has" in (reserving.status().message or "")
    assert "t1" in (order(reserving, Destroy(volumes=(volume(),))).why or "")


def test_a_shared_volume_is_had_by_many(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(resources=TOTAL).ready()
    order(driver, Reserve(resources=(FREE,)))
    order(driver, Create(volumes=(volume(shared=True),)))
    for id in ("t1", "t2"):
        launch(driver, volume(shared=True), id=id)
        driver.one(fx.Start)


def test_destroyed_data_is_deleted_even_when_the_agent_ends_meanwhile(reserving: Driver) -> None:
    driver = reserving
    order(driver, Destroy(volumes=(volume(),)))
    assert driver.one(fx.DeleteVolume).path == PATH
    assert "still being deleted" in (order(driver, Create(volumes=(volume(),))).why or "")
    driver.start()
    assert driver.one(fx.DeleteVolume).path == PATH
    driver.tell(VolumeDeleted(PATH, "disk is read-only"))
    assert driver.notes() == ["volume not deleted"]
    driver.tell(VolumeDeleted(PATH))
    driver.start()
    assert driver.none(fx.DeleteVolume)
    driver.ready()
    assert order(driver, Create(volumes=(volume(),))).why is None
    order(driver, Destroy(volumes=(volume(),)))
    driver.tell(VolumeDeleted(PATH))
    order(driver, Unreserve(resources=(CPUS, FREE)))
    assert "resources" not in driver.records


def test_an_agent_with_less_than_was_reserved_does_not_start(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(resources=TOTAL).ready()
    order(driver, Reserve(resources=(CPUS,)))
    driver.config = msgspec.structs.replace(driver.config, resources=normal((scalar("cpus", 1),)))
    driver.start()
    (stop,) = driver.effects
    assert isinstance(stop, Stop)
    assert "cpus 2" in stop.why


def test_a_disk_of_its_own_holds_its_volumes(tmp_path: Path) -> None:
    own = {"source_type": "PATH", "source_root": "/mnt/ssd"}
    assert volume_path("/var/corral", volume(disk=own)) == "/mnt/ssd/volumes/roles/web front/data"
    assert volume_path("/var/corral", volume()) == PATH


def test_directories_are_made_once_and_deleted_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "volumes" / "roles" / "web" / "data")
    asyncio.run(volumes.make((path,), None))
    (Path(path) / "file").write_text("kept")
    asyncio.run(volumes.make((path,), None))
    assert (Path(path) / "file").read_text() == "kept"
    asyncio.run(volumes.delete(path))
    asyncio.run(volumes.delete(path))
    assert not Path(path).exists()
    assert list((tmp_path / "volumes" / volumes.DESTROYED).iterdir()) == []
