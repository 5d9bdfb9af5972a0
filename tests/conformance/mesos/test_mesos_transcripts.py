"""Dialect transcripts: bodies as clients really send and get them, with what they mean. No server is needed here."""

import json

import pytest

from corral.mesos.recordio import RecordReader
from corral.mesos.scheduler import read_call, read_event, write_event
from corral.model import calls, events
from corral.model.attributes import Attribute, AttributeKind
from corral.model.framework import Capability, FrameworkInfo
from corral.model.maintenance import InverseOffer, Unavailability
from corral.model.offer import Filters, Offer
from corral.model.operations import OperationState, OperationStatus
from corral.model.resources import Identity, normal, ports, scalar, with_allocation
from corral.model.task import CommandInfo, ContainerStatus, Label, Source, TaskInfo, TaskState, TaskStatus

FRAMEWORK = "5806ebec-2d1f-4802-9e02-bf7bbc7b98ae-0001"
AGENT = "5806ebec-2d1f-4802-9e02-bf7bbc7b98ae-S0"
ENVELOPE = '"framework_id": {"value": "' + FRAMEWORK + '"}'
UUID = bytes.fromhex("1b6e4d305fc641108f2f6a033373ade0")

# pymesos 0.3.15, recorded.
PYMESOS = [
    (
        '{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "demo", "capabilities": '
        '[{"type": "GPU_RESOURCES"}], "failover_timeout": 100}}}',
        calls.Subscribe(
            info=FrameworkInfo(
                user="root", name="demo", failover_timeout_s=100.0, capabilities=(Capability.GPU_RESOURCES,)
            )
        ),
    ),
    (
        '{"type": "ACCEPT", '
        + ENVELOPE
        + ', "accept": {"offer_ids": [{"value": "m-O0"}], "operations": [{"type": "LAUNCH",'
        ' "launch": {"task_infos": [{"name": "t1", "task_id": {"value": "t1"}, "agent_id": {"value": "' + AGENT + '"},'
        ' "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}, {"name": "mem", "type": "SCALAR",'
        ' "scalar": {"value": 32}}], "command": {"value": "sleep 60"}}]}}], "filters": {"refuse_seconds": 0.2}}}',
        calls.Accept(
            framework_id=FRAMEWORK,
            offer_ids=("m-O0",),
            operations=(
                calls.Launch(
                    tasks=(
                        TaskInfo(
                            name="t1",
                            task_id="t1",
                            agent_id=AGENT,
                            resources=normal((scalar("cpus", 0.1), scalar("mem", 32))),
                            command=CommandInfo(value="sleep 60"),
                        ),
                    )
                ),
            ),
            filters=Filters(refuse_s=0.2),
        ),
    ),
    (
        '{"type": "ACKNOWLEDGE", ' + ENVELOPE + ', "acknowledge": {"agent_id": {"value": "' + AGENT + '"}, "task_id": '
        '{"value": "t1"}, "uuid": "G25NMF/GQRCPL2oDM3Ot4A=="}}',
        calls.Acknowledge(framework_id=FRAMEWORK, agent_id=AGENT, task_id="t1", uuid=UUID),
    ),
    (
        '{"type": "RECONCILE", ' + ENVELOPE + ', "reconcile": {"tasks": [{"task_id": {"value": "t1"}}]}}',
        calls.Reconcile(framework_id=FRAMEWORK, tasks=(calls.ReconcileTask(task_id="t1"),)),
    ),
    (
        '{"type": "SUPPRESS", ' + ENVELOPE + "}",
        calls.Suppress(framework_id=FRAMEWORK),
    ),
    (
        '{"type": "REVIVE", ' + ENVELOPE + ', "revive": {"roles": ["*"]}}',
        calls.Revive(framework_id=FRAMEWORK, roles=("*",)),
    ),
    (
        '{"type": "KILL", ' + ENVELOPE + ', "kill": {"task_id": {"value": "t1"}}}',
        calls.Kill(framework_id=FRAMEWORK, task_id="t1"),
    ),
    (
        '{"type": "DECLINE", ' + ENVELOPE + ', "decline": {"offer_ids": [{"value": "m-O1"}]}}',
        calls.Decline(framework_id=FRAMEWORK, offer_ids=("m-O1",)),
    ),
    (
        '{"type": "TEARDOWN", ' + ENVELOPE + "}",
        calls.Teardown(framework_id=FRAMEWORK),
    ),
]

# Clients that print every field of the message they hold, with nulls, empty lists and defaults.
VERBOSE = [
    (
        '{"frameworkId":null,"framework_id":null,"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"","name":"n",'
        '"id":null,"failover_timeout":604800.0,"checkpoint":true,"role":null,"roles":["ads/etl"],"hostname":null,'
        '"principal":"p","webui_url":null,"capabilities":[{"type":"MULTI_ROLE"},{"type":"PARTITION_AWARE"}],"labels":'
        '{"labels":[{"key":"team","value":"a"}]},"offer_filters":{}},"suppressed_roles":["ads/etl"],"offer_constraints":'
        "null}}",
        calls.Subscribe(
            info=FrameworkInfo(
                user="",
                name="n",
                failover_timeout_s=604800.0,
                checkpoint=True,
                roles=("ads/etl",),
                principal="p",
                capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE),
                labels=(Label(key="team", value="a"),),
            ),
            suppressed_roles=("ads/etl",),
        ),
    ),
    (
        '{"type":"DECLINE",' + ENVELOPE + ',"decline":{"offer_ids":[{"value":"m-O1"},{"value":"m-O2"}],"filters":'
        '{"refuse_seconds":"3600"}},"accept":null,"revive":null}',
        calls.Decline(framework_id=FRAMEWORK, offer_ids=("m-O1", "m-O2"), filters=Filters(refuse_s=3600.0)),
    ),
    (
        '{"type":"RECONCILE",' + ENVELOPE + ',"reconcile":{"tasks":[]}}',
        calls.Reconcile(framework_id=FRAMEWORK),
    ),
    (
        '{"type":"KILL",' + ENVELOPE + ',"kill":{"task_id":{"value":"t1"},"agent_id":{"value":"' + AGENT + '"},'
        '"kill_policy":{"grace_period":{"nanoseconds":5000000000}}}}',
        calls.Kill(framework_id=FRAMEWORK, task_id="t1", agent_id=AGENT, grace_s=5.0),
    ),
]


@pytest.mark.parametrize(("body", "meaning"), [*PYMESOS, *VERBOSE])
def test_a_recorded_call_means_what_its_client_meant(body, meaning):
    assert read_call(body.encode()) == meaning


OFFER = Offer(
    id="m-O0",
    framework_id=FRAMEWORK,
    agent_id=AGENT,
    hostname="node1",
    ip="10.0.0.7",
    port=5051,
    role="*",
    resources=with_allocation(
        normal(
            (
                scalar("cpus", 3.9),
                scalar("cpus", 1, Identity(revocable=True)),
                scalar("mem", 2016),
                ports((31000, 31099)),
            )
        ),
        "*",
    ),
    attributes=(Attribute(name="rack", text="r1"), Attribute(name="level", kind=AttributeKind.SCALAR, milli=2500)),
)
STATUS = TaskStatus(
    task_id="t1",
    state=TaskState.RUNNING,
    at=1795259897.122387,
    source=Source.EXECUTOR,
    agent_id=AGENT,
    executor_id="t1",
    uuid=UUID,
    container_status=ContainerStatus(container_id="97bba349-d7eb-433b-8fc4-c0bf77dbdba6", executor_pid=5416),
)

# A Mesos 1.x master prints proto defaults, deprecated twins and messages that corral has no use for.
FROM_MESOS = [
    (
        '{"type":"SUBSCRIBED","subscribed":{"framework_id":{"value":"'
        + FRAMEWORK
        + '"},"heartbeat_interval_seconds":15.0,'
        '"master_info":{"address":{"hostname":"m1","ip":"10.0.0.1","port":5050},"capabilities":[{"type":"AGENT_UPDATE"}],'
        '"hostname":"m1","id":"5806ebec","ip":16777226,"pid":"master@10.0.0.1:5050","port":5050,"version":"1.11.0"}}}',
        events.Subscribed(
            framework_id=FRAMEWORK,
            heartbeat_interval_s=15.0,
            master=events.MasterInfo(id="5806ebec", hostname="m1", ip="10.0.0.1", port=5050, version="1.11.0"),
        ),
    ),
    (
        '{"type":"HEARTBEAT"}',
        events.Heartbeat(),
    ),
    (
        '{"offers":{"offers":[{"agent_id":{"value":"'
        + AGENT
        + '"},"allocation_info":{"role":"*"},"attributes":[{"name":'
        '"rack","text":{"value":"r1"},"type":"TEXT"},{"name":"level","scalar":{"value":2.5},"type":"SCALAR"}],"domain":null,'
        '"framework_id":{"value":"' + FRAMEWORK + '"},"hostname":"node1","id":{"value":"m-O0"},"resources":['
        '{"allocation_info":{"role":"*"},"name":"mem","role":"*","scalar":{"value":2016.0},"type":"SCALAR"},'
        '{"allocation_info":{"role":"*"},"name":"ports","ranges":{"range":[{"begin":31000,"end":31050},{"begin":31051,'
        '"end":31099}]},"role":"*","type":"RANGES"},{"allocation_info":{"role":"*"},"name":"cpus","role":"*","scalar":'
        '{"value":3.9},"type":"SCALAR"},{"allocation_info":{"role":"*"},"name":"cpus","role":"*","revocable":{},"scalar":'
        '{"value":1.0},"type":"SCALAR"}],"url":{"address":{"hostname":"node1","ip":"10.0.0.7","port":5051},"path":'
        '"\\/slave(1)","scheme":"http"}}]},"type":"OFFERS"}',
        events.Offers(offers=(OFFER,)),
    ),
    (
        '{"type":"UPDATE","update":{"status":{"agent_id":{"value":"' + AGENT + '"},"container_status":{"container_id":'
        '{"value":"97bba349-d7eb-433b-8fc4-c0bf77dbdba6"},"executor_pid":5416},"executor_id":{"value":"t1"},"source":"SOURCE_EXECUTOR",'
        '"state":"TASK_RUNNING","task_id":{"value":"t1"},"timestamp":1795259897.122387,"uuid":"G25NMF/GQRCPL2oDM3Ot4A=="}}}',
        events.Update(status=STATUS),
    ),
    (
        '{"type":"FAILURE","failure":{"agent_id":{"value":"' + AGENT + '"},"executor_id":{"value":"e"},"status":256}}',
        events.Failure(agent_id=AGENT, executor_id="e", status=256),
    ),
    (
        '{"type":"ERROR","error":{"message":"Framework failed over"}}',
        events.Error(message="Framework failed over"),
    ),
    (
        '{"type":"INVERSE_OFFERS","inverse_offers":{"inverse_offers":[{"id":{"value":"M-I0"},"url":{"scheme":"http",'
        '"address":{"hostname":"h","ip":"10.0.0.7","port":5051},"path":"/slave(1)","query":[]},"framework_id":{"value":"F"},'
        '"agent_id":{"value":"M-S0"},"unavailability":{"start":{"nanoseconds":5},"duration":{"nanoseconds":7}},'
        '"resources":[]}]}}',
        events.InverseOffers(
            inverse_offers=(
                InverseOffer(
                    id="M-I0",
                    framework_id="F",
                    agent_id="M-S0",
                    hostname="h",
                    ip="10.0.0.7",
                    port=5051,
                    unavailability=Unavailability(start_ns=5, duration_ns=7),
                ),
            )
        ),
    ),
    (
        '{"type":"RESCIND_INVERSE_OFFER","rescind_inverse_offer":{"inverse_offer_id":{"value":"M-I0"}}}',
        events.RescindInverseOffer(inverse_offer_id="M-I0"),
    ),
    (
        '{"type":"UPDATE_OPERATION_STATUS","update_operation_status":{"status":{"state":"OPERATION_FINISHED",'
        '"operation_id":{"value":"op-1"}}}}',
        events.UpdateOperation(status=OperationStatus(state=OperationState.FINISHED, operation_id="op-1")),
    ),
]


@pytest.mark.parametrize(("body", "meaning"), FROM_MESOS)
def test_a_recorded_event_is_read_as_what_it_tells(body, meaning):
    assert read_event(body.encode()) == meaning


def test_a_stream_is_read_through_pieces_of_any_size():
    stream = b"".join(b"%d\n%b" % (len(body.encode()), body.encode()) for body, _ in FROM_MESOS)
    for size in (1, 7, 1000, len(stream)):
        reader = RecordReader()
        pieces = (stream[at : at + size] for at in range(0, len(stream), size))
        found = [read_event(record) for piece in pieces for record in reader.feed(piece)]
        assert found == [meaning for _, meaning in FROM_MESOS]


@pytest.mark.parametrize(
    ("body", "meaning"), [row for row in FROM_MESOS if isinstance(row[1], events.Offers | events.Update)]
)
def test_what_we_write_has_all_that_a_mesos_master_writes_of_it(body, meaning):
    """Key by key; only lists may be in another order."""
    ours = json.loads(write_event(meaning, refinement=False))
    assert _covers(ours, json.loads(body))


def _covers(ours, theirs):
    if isinstance(theirs, dict):
        return all(value is None or _covers(ours.get(key), value) for key, value in theirs.items())
    if isinstance(theirs, list) and theirs and "begin" in theirs[0]:
        return True  # touching ranges are merged
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(any(_covers(mine, each) for mine in ours) for each in theirs)
    return ours == theirs
