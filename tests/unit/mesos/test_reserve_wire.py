"""Reservations and volumes on the wire: operations, feedback, operator calls, forms, and an agent's resources."""

import json
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from corral.lib.errors import Invalid
from corral.mesos import operator
from corral.mesos.agent_resources import read_agent_resources
from corral.mesos.events import read_event, write_event
from corral.mesos.operations import read_form
from corral.mesos.scheduler import read_call, write_call
from corral.model import calls, events
from corral.model.flags import parse_resources
from corral.model.ids import AgentId, FrameworkId, OfferId
from corral.model.operations import (
    Create,
    Destroy,
    Grow,
    OperationState,
    OperationStatus,
    Reserve,
    Shrink,
    Unreserve,
)
from corral.model.operator import Operate
from corral.model.resources import Disk, Identity, Reservation, ports, scalar

F = FrameworkId("f")
WEB = (Reservation(role="web", principal="amy", labels=(("k", "v"),)),)
CPUS = scalar("cpus", 1, Identity(reservations=WEB))
FREE = scalar("disk", 10, Identity(reservations=WEB))
VOLUME = scalar(
    "disk", 10, Identity(reservations=WEB, disk=Disk(persistence_id="v", principal="amy", container_path="v"))
)
PRE = {
    "name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "role": "web",
    "reservation": {"principal": "amy", "labels": {"labels": [{"key": "k", "value": "v"}]}},
}  # fmt: skip
STATIC = Identity(reservations=(Reservation(role="web", static=True),))


def test_operations_are_read_as_they_were_written() -> None:
    operations = (
        Reserve(resources=(CPUS,), source=(scalar("cpus", 1),)), Unreserve(resources=(CPUS,), operation_id="o"),
        Create(volumes=(VOLUME,)), Destroy(volumes=(VOLUME,)), Grow(volume=VOLUME, addition=FREE),
        Shrink(volume=VOLUME, less_milli=1500),
    )  # fmt: skip
    told: list[calls.Call] = [
        calls.Accept(framework_id=F, offer_ids=(OfferId("o"),), operations=operations),
        calls.AcknowledgeOperation(framework_id=F, operation_id="o", uuid=b"u" * 16, agent_id=AgentId("a")),
        calls.ReconcileOperations(framework_id=F, operations=(("o", AgentId("a")), ("p", None))),
    ]
    for call in told:
        assert read_call(write_call(call)) == call


@pytest.mark.parametrize("refinement", [True, False])
def test_feedback_is_read_as_it_was_written(refinement: bool) -> None:
    status = OperationStatus(
        operation_id="o", state=OperationState.FINISHED, message="m", converted=(CPUS,), uuid=b"u" * 16,
        agent_id=AgentId("a"),
    )  # fmt: skip
    event = events.UpdateOperation(status=status)
    written = write_event(event, refinement=refinement)
    assert read_event(written) == event
    (shown,) = json.loads(written)["update_operation_status"]["status"]["converted_resources"]
    assert ("reservations" in shown) == refinement


def accept(**operation: Any) -> calls.Call:
    body = {"offer_ids": [{"value": "o"}], "operations": [operation]}
    return read_call(json.dumps({"type": "ACCEPT", "framework_id": {"value": "f"}, "accept": body}).encode())


def test_both_forms_of_a_reservation_are_the_same_operation() -> None:
    found = accept(type="RESERVE", reserve={"resources": [PRE]})
    assert isinstance(found, calls.Accept)
    assert found.operations == (Reserve(resources=(CPUS,)),)


@pytest.mark.parametrize(
    "operation",
    [
        {"type": "RESERVE"},
        {"type": "CREATE"},
        {"type": "RESERVE", "reserve": {"resources": [PRE | {"reservations": [{"type": "DYNAMIC", "role": "web"}]}]}},
        {"type": "RESERVE", "reserve": {"resources": [PRE | {"role": "*"}]}},
        {"type": "GROW_VOLUME", "grow_volume": {"volume": PRE}},
        {"type": "SHRINK_VOLUME", "shrink_volume": {"volume": PRE, "subtract": "much"}},
    ],
)
def test_an_operation_of_a_broken_form_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        accept(**operation)


def test_volumes_other_than_read_write_and_of_host_paths_are_marked_for_refusal() -> None:
    disk = {"persistence": {"id": "v"}, "volume": {"mode": "RO", "container_path": "v", "host_path": "/x"}}
    found = accept(type="CREATE", create={"volumes": [PRE | {"name": "disk", "disk": disk}]})
    assert isinstance(found, calls.Accept)
    (create,) = found.operations
    assert isinstance(create, Create)
    assert create.unsupported == ("disk.volume.mode other than RW", "disk.volume.host_path")


def test_an_operators_call_and_the_older_form_are_the_same_command() -> None:
    body = {"type": "RESERVE_RESOURCES", "reserve_resources": {"agent_id": {"value": "a"}, "resources": [PRE]}}
    wanted = Operate(agent_id=AgentId("a"), operation=Reserve(resources=(CPUS,)))
    assert operator.read_call(json.dumps(body).encode()) == wanted
    form = urlencode({"slaveId": "a", "resources": json.dumps([PRE])})
    assert read_form("/reserve", parse_qs(form)) == wanted


@pytest.mark.parametrize(
    "body", ["", "slaveId=a", "resources=[]", "slaveId=a&resources=[", "slaveId=&resources=[]", "x"]
)
def test_a_form_without_its_fields_is_refused(body: str) -> None:
    with pytest.raises(Invalid):
        read_form("/reserve", parse_qs(body, keep_blank_values=True))


def test_static_reservations_have_mesos_grammar() -> None:
    found = parse_resources("cpus(web):2;mem( web ):1024;ports(*):[31000-32000];bugs(web):{a};cpus:1;cpus(web):1")
    assert scalar("cpus", 3, STATIC) in found
    assert scalar("cpus", 1) in found
    assert scalar("mem", 1024, STATIC) in found
    assert ports((31000, 32000)) in found
    assert any(r.items == ("a",) and r.identity == STATIC for r in found)


@pytest.mark.parametrize("text", ["cpus(web:2", "cpus(we b):2", "cpus():2", "(web):2", "cpus(-x):1", "cpus(a/*):1"])
def test_a_role_that_cannot_be_is_no_reservation(text: str) -> None:
    with pytest.raises(Invalid):
        parse_resources(text)


def test_an_agents_resources_may_be_json_with_path_disks() -> None:
    path = {"source": {"type": "PATH", "path": {"root": "/mnt/ssd"}}}
    disk = {"name": "disk", "type": "SCALAR", "scalar": {"value": 100}, "disk": path}
    static = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}, "role": "web"}
    found = read_agent_resources(json.dumps([disk, static]))
    assert scalar("cpus", 2, STATIC) in found
    assert scalar("disk", 100, Identity(disk=Disk(source_type="PATH", source_root="/mnt/ssd"))) in found
    assert read_agent_resources("cpus:2") == parse_resources("cpus:2")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"disk": {"source": {"type": "MOUNT", "mount": {"root": "/m"}}}}, "MOUNT"),
        ({"disk": {"source": {"type": "BLOCK"}}}, "BLOCK"),
        ({"disk": {"source": {"type": "PATH"}}}, "path.root"),
        ({"disk": {"persistence": {"id": "v"}, "volume": {"mode": "RW", "container_path": "v"}}}, "persistent volume"),
        ({"disk": {}}, "without source"),
        ({"role": "web", "reservation": {}}, "dynamic"),
        ({"revocable": {}}, "revocable"),
        ({"scalar": {"value": -1}}, "below 0"),
    ],
)
def test_what_an_agent_cannot_have_is_refused_by_name(more: dict[str, Any], why: str) -> None:
    disk = {"name": "disk", "type": "SCALAR", "scalar": {"value": 100}}
    with pytest.raises(Invalid, match=why):
        read_agent_resources(json.dumps([disk | more]))
