"""Scheduler calls: which forms are read, how odd values are taken, and which text refuses what breaks the form."""

import json
import re
from pathlib import Path

import pytest

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos.scheduler import read_call
from corral.model import calls
from corral.model.constraints import Operator
from corral.model.container import NetworkMode
from corral.model.framework import Capability
from corral.model.offer import Filters, Want
from corral.model.offer_constraints import AttributeConstraint, Predicate, Pseudo, RoleConstraints
from corral.model.resources import Identity, Reservation

UUID = "AAECAwQFBgcICQoLDA0ODw=="
TASK = {
    "name": "t",
    "task_id": {"value": "t1"},
    "agent_id": {"value": "a"},
    "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}}],
    "command": {"value": "true"},
}


def call(kind, framework="f", **members):
    envelope = {"framework_id": {"value": framework}} if framework else {}
    return json.dumps({**envelope, "type": kind, **members}).encode()


def launch(**changes):
    task = {**TASK, **changes}
    operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    return call("ACCEPT", accept={"offer_ids": [{"value": "o"}], "operations": [operation]})


def launched(**changes):
    return read_call(launch(**changes)).operations[0].tasks[0]


def subscribe(id=None, framework="", suppressed=(), **info):
    whole = {"user": "u", "name": "n", **info, **({"id": {"value": id}} if id is not None else {})}
    return call("SUBSCRIBE", framework, subscribe={"framework_info": whole, "suppressed_roles": suppressed})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Failed to parse body into JSON"),
        (b"{", "Failed to parse body into JSON"),
        (b"\xff\xfe", "Failed to parse body into JSON"),
        (b"[]", "expected an object and found list"),
        (b"null", "expected an object and found null"),
        (b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "recursion"),
        (b"{}", "Expecting 'type' to be present"),
        (b'{"type":null,"framework_id":{"value":"f"}}', "Expecting 'type' to be present"),
        (call("EXPLODE"), "Expecting 'type' to be present; found 'EXPLODE'"),
        (b'{"type":7}', "field 'type'"),
        (call("TEARDOWN", ""), "Expecting 'framework_id' to be present"),
        (b'{"type":"TEARDOWN","framework_id":{"value":""}}', "Expecting 'framework_id' to be present"),
        (b'{"type":"TEARDOWN","framework_id":"f"}', "field 'framework_id'"),
        (b'{"type":"TEARDOWN","framework_id":{}}', "field 'framework_id'"),
        (b'{"type":"TEARDOWN","framework_id":[{"value":"f"}]}', "field 'framework_id'"),
        (call("SUBSCRIBE", ""), "Expecting 'subscribe' to be present"),
        (call("SUBSCRIBE", "", subscribe={}), "field 'subscribe': .*framework_info"),
        (call("SUBSCRIBE", "", subscribe={"framework_info": {"name": "n"}}), "framework_info.*user"),
        (subscribe(id="f1", framework="f2"), "'framework_id' differs from 'subscribe.framework_info.id'.*f2.*f1"),
        (subscribe(id="f1"), "'framework_id' differs"),
        (subscribe(framework="f1"), "'framework_id' differs"),
        (subscribe(roles={"a": 1}), "field 'subscribe.framework_info.roles\\[0\\]'"),
        (call("ACCEPT"), "Expecting 'accept' to be present"),
        (call("DECLINE"), "Expecting 'decline' to be present"),
        (call("KILL"), "Expecting 'kill' to be present"),
        (call("KILL", kill={}), "field 'kill': .*task_id"),
        (call("KILL", kill={"task_id": {"value": 7}}), "field 'kill.task_id.value'"),
        (
            call("KILL", kill={"task_id": {"value": "t"}, "kill_policy": {"grace_period": {"nanoseconds": -1}}}),
            "field 'kill.kill_policy.grace_period': -1 is negative",
        ),
        (call("SHUTDOWN"), "Expecting 'shutdown' to be present"),
        (call("SHUTDOWN", shutdown={"executor_id": {"value": "e"}}), "field 'shutdown': .*agent_id"),
        (call("ACKNOWLEDGE"), "Expecting 'acknowledge' to be present"),
        (call("ACKNOWLEDGE", acknowledge={"task_id": {"value": "t"}, "uuid": UUID}), "field 'acknowledge': .*agent_id"),
        (call("RECONCILE"), "Expecting 'reconcile' to be present"),
        (call("MESSAGE"), "Expecting 'message' to be present"),
        (call("REQUEST"), "Expecting 'request' to be present"),
        (call("UPDATE_FRAMEWORK"), "Expecting 'update_framework' to be present"),
        (
            call("UPDATE_FRAMEWORK", update_framework={"framework_info": {"user": "u", "name": "n"}}),
            "'framework_id' differs from 'update_framework.framework_info.id'",
        ),
        (call("ACCEPT_INVERSE_OFFERS"), "Expecting 'accept_inverse_offers' to be present"),
        (call("RECONCILE_OPERATIONS"), "Expecting 'reconcile_operations' to be present"),
        (call("ACCEPT", accept={"operations": [{"type": "LAUNCH"}]}), "Expecting 'accept.operations\\[0\\].launch'"),
        (call("ACCEPT", accept={"operations": [{"type": "LAUNCH_GROUP"}]}), "operations\\[0\\].launch_group'"),
        (launch(task_id=None), "task_infos\\[0\\]': .*task_id"),
        (launch(agent_id=None, slave_id={"value": "a"}), "task_infos\\[0\\]': .*agent_id"),
        (launch(data="not base64!"), "task_infos\\[0\\].data'"),
        (launch(resources=[{"name": "cpus"}]), "resources\\[0\\]': .*type"),
        (launch(resources=[{"name": "cpus", "type": "NUMBER"}]), "'NUMBER' is none of SCALAR, RANGES, SET"),
        (launch(resources=[{"name": "cpus", "type": "SCALAR"}]), "type is SCALAR, but 'scalar' is missing"),
        (launch(resources=[{"name": "cpus", "type": "SCALAR", "scalar": {"value": "x"}}]), "scalar.value'"),
        (launch(resources=[{"name": "cpus", "type": "SCALAR", "scalar": {"value": "nan"}}]), "not a finite number"),
        (
            launch(resources=[{"name": "p", "type": "RANGES", "ranges": {"range": [{"begin": 5, "end": 4}]}}]),
            "range 5-4 ends before it begins",
        ),
        (launch(container={"type": "LXC"}), "container.type': 'LXC' is none of DOCKER, MESOS"),
        (launch(container={"type": "MESOS", "volumes": [{"container_path": "/a", "mode": "RX"}]}), "'RX' is none of"),
        (launch(discovery={"visibility": "WORLD"}), "discovery.visibility': 'WORLD' is none of FRAMEWORK"),
        (launch(health_check=[1, 2]), "health_check': Expected `object"),
        (launch(health_check={"http": {"path": "/"}}), "health_check.http': .*port"),
        (launch(check=[1]), "check': Expected `object"),
        (launch(limits={"cpus": {"value": "many"}}), "limits.cpus': 'many' is neither a number"),
        (launch(kill_policy={"grace_period": 5}), "kill_policy.grace_period'"),
        (
            launch(
                container={
                    "type": "DOCKER",
                    "docker": {"image": "i", "port_mappings": [{"host_port": -1, "container_port": 1}]},
                }
            ),
            "port_mappings\\[0\\].host_port'",
        ),
    ],
)
def test_a_call_that_breaks_the_form_is_refused_by_the_name_of_its_field(body, text):
    with pytest.raises(Invalid) as refused:
        read_call(body)
    assert refused.value.status == 400
    assert re.search(text, refused.value.message), refused.value.message


@pytest.mark.parametrize("uuid", ["", "AAAA", UUID[:-4], "%%%", 5])
def test_an_acknowledgement_needs_an_uuid_of_sixteen_bytes(uuid):
    body = call("ACKNOWLEDGE", acknowledge={"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": uuid})
    with pytest.raises(Invalid, match=r"acknowledge\.uuid"):
        read_call(body)


def test_the_explicit_unknown_type_is_not_implemented():
    with pytest.raises(Unimplemented) as refused:
        read_call(call("UNKNOWN"))
    assert refused.value.status == 501


def test_a_reconciliation_of_operations_without_any_asks_for_all():
    assert read_call(call("RECONCILE_OPERATIONS", reconcile_operations={})) == calls.ReconcileOperations(
        framework_id="f"
    )


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("ACCEPT_INVERSE_OFFERS", calls.AcceptInverseOffers), ("DECLINE_INVERSE_OFFERS", calls.DeclineInverseOffers)],
)
def test_answers_to_inverse_offers_name_them_and_say_for_how_long(kind, wanted):
    body = {"inverse_offer_ids": [{"value": "i"}], "filters": {"refuse_seconds": 60}}
    found = read_call(call(kind, **{kind.lower(): body}))
    assert found == wanted(framework_id="f", inverse_offer_ids=("i",), filters=Filters(refuse_s=60.0))
    with pytest.raises(Invalid, match=kind.lower()):
        read_call(call(kind))


def test_revive_and_suppress_need_no_body():
    assert read_call(call("REVIVE")) == calls.Revive(framework_id="f")
    assert read_call(call("SUPPRESS", suppress={"roles": "ads"})) == calls.Suppress(framework_id="f", roles=("ads",))


def test_a_plain_request_states_no_wants_and_an_empty_list_withdraws_all():
    plain = call("REQUEST", request={"requests": [{"resources": []}]})
    assert read_call(plain) == calls.Request(framework_id="f", wants=None)
    assert read_call(call("REQUEST", request={"wants": []})) == calls.Request(framework_id="f", wants=())


def gpus(amount):
    return {"name": "gpus", "type": "SCALAR", "scalar": {"value": amount}}


RACK = {"field": "rack", "operator": "==", "values": ["r1"]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"id": ""}, r"request\.wants\[0\]\.id' must not be empty"),
        ({"id": None}, "missing required field `id`"),
        ({"role": "a//b"}, "empty level"),
        ({"count": -1}, r"request\.wants\[0\]\.count"),
        ({"resources": [{"name": "p", "type": "RANGES", "ranges": {}}]}, None),
        ({"resources": [{"name": "p", "type": "RANGES", "ranges": {"range": {"begin": 1, "end": 2}}}]}, "plain scalar"),
        ({"resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": -1}}]}, "plain scalar of 0 or more"),
        ({"fixed_ports": [0]}, "0 is no port"),
        ({"fixed_ports": [70000]}, "70000 is no port"),
        ({"ports": 70000}, "more than a host has"),
        ({"fixed_ports": list(range(1, 34))}, r"\[0\]\.fixed_ports': 33 ports are given; 32 are the most"),
        (
            {"constraints": [{"field": "rack", "operator": "beside"}]},
            r"constraints\[0\]\.operator': 'beside' is none of",
        ),
        ({"constraints": [{"field": "rack", "operator": "=="}]}, r"constraints\[0\]': .* at least one in 'values'"),
        ({"constraints": [{"field": "rack", "operator": "max-per"}]}, "has no count"),
        ({"constraints": [{"field": "rack", "operator": "regex", "values": ["("]}]}, "no valid regular expression"),
        ({"constraints": [{"field": "rack", "operator": "regex", "values": ["(a+)+"]}]}, "very long to match"),
        ({"constraints": [RACK, {"field": "rack", "operator": "range", "values": ["x"]}]}, r"constraints\[1\]': .*'x'"),
        ({"constraints": [{"field": "rack", "operator": "near"}]}, "has no value"),
        ({"constraints": [{"field": "rack", "operator": "apart", "values": ["port:1"]}]}, "kept for the allocator"),
        ({"constraints": [{"field": "rack", "operator": "spread", "values": ["a=99", "b=2"]}]}, "101 percent"),
        ({"constraints": [{**RACK, "weight": 1001}]}, "weight 1001"),
        ({"constraints": [{**RACK, "weight": -1}]}, "weight -1"),
        ({"constraints": [RACK] * 25}, r"\[0\]\.constraints': 25 are given; 24 are the most"),
        ({"priority": 512}, r"\[0\]\.priority': 512 is outside of -512 to 511"),
        ({"priority": -513}, r"\[0\]\.priority': -513"),
        ({"gang": -1}, r"\[0\]\.gang': -1 is outside of 0 to 10000"),
        ({"gang": 10_001, "count": 10_001}, r"\[0\]\.gang': 10001 is outside"),
        ({"run_s": 2e9}, r"\[0\]\.run_s': 2e\+09 is not above 0 and at most 1e\+09"),
        ({"gang": 4, "count": 6}, r"\[0\]\.count': 6 is no multiple of the gang of 4"),
        ({"gang_timeout_s": 0}, r"\[0\]\.gang_timeout_s': 0 is not above 0"),
        ({"gang_timeout_s": "Infinity"}, r"\[0\]\.gang_timeout_s': inf is not"),
        ({"run_s": -2.5}, r"\[0\]\.run_s': -2.5 is not above 0"),
        ({"run_s": 0}, r"\[0\]\.run_s': 0 is not above 0"),
        ({"tags": ["t"] * 65}, r"\[0\]\.tags': 65 tags are given; 64 are the most"),
        ({"tags": ["t" * 256]}, r"\[0\]\.tags': .*of 256 characters; 255 are the most"),
        ({"tags": ["ok", ""]}, r"\[0\]\.tags': has an empty tag"),
        ({"group": "a\nb"}, r"\[0\]\.group': .* line breaks"),
        ({"resources": [gpus(1.5)]}, r"\[0\]\.resources': gpus 1\.5 is more than one and not whole"),
    ],
)
def test_a_want_that_nobody_could_serve_is_refused_with_its_reason(change, text):
    want = {"id": "w", "role": "*", "count": 1, **change}
    body = call("REQUEST", request={"wants": [want]})
    if text is None:
        assert read_call(body).wants[0].resources == ()
        return
    with pytest.raises(Invalid, match=text):
        read_call(body)


def test_a_want_may_ask_up_to_every_bound():
    change = {
        "count": 8, "gang": 4, "gang_timeout_s": 0.5, "run_s": 60, "revocable": True, "preempts": False,
        "priority": -512, "tags": ["t" * 255] * 64, "fixed_ports": list(range(1, 33)), "strategy": "nobody's",
        "constraints": [{**RACK, "weight": 1000}] * 24, "resources": [gpus(0.5)],
    }  # fmt: skip
    body = call("REQUEST", request={"wants": [{"id": "w", "role": "*", **change}]})
    (want,) = read_call(body).wants
    assert (want.gang, want.gang_timeout_s, want.run_s, want.revocable, want.preempts) == (4, 0.5, 60.0, True, False)
    assert (want.priority, len(want.tags), want.strategy) == (-512, 64, "nobody's")
    assert want.constraints[0].weight == 1000
    for amount in (0.001, 1, 8):
        plain = {"id": "w", "role": "*", "count": 1, "resources": [gpus(amount)]}
        (want,) = read_call(call("REQUEST", request={"wants": [plain]})).wants
        assert want.resources[0].milli == amount * 1000


def test_two_wants_of_one_id_are_refused():
    want = {"id": "w", "role": "*", "count": 1}
    with pytest.raises(Invalid, match="'w' is given twice"):
        read_call(call("REQUEST", request={"wants": [want, want]}))


def test_subscribing_takes_capabilities_that_nobody_knows_for_unset():
    info = read_call(
        subscribe(
            capabilities=[{"type": "PARTITION_AWARE"}, {"type": "FLY"}, {}, {"type": None}], failover_timeout="7.5"
        )
    ).info
    assert info.capabilities == (Capability.PARTITION_AWARE,)
    assert info.failover_timeout_s == 7.5
    assert info.id is None


def test_an_empty_framework_id_counts_as_none():
    assert read_call(subscribe(id="")).info.id is None
    assert read_call(subscribe(id="f1", framework="f1")).info.id == "f1"


@pytest.mark.parametrize(
    ("refuse", "seconds"),
    [(None, 5.0), (0, 0.0), (-3, 5.0), ("nan", 5.0), (1e12, 365 * 86400.0), ("Infinity", 365 * 86400.0), (60, 60.0)],
)
def test_declined_offers_are_refused_for_a_sensible_time(refuse, seconds):
    body = call("DECLINE", decline={"offer_ids": {"value": "o"}, "filters": {"refuse_seconds": refuse}})
    assert read_call(body).filters.refuse_s == seconds


def test_without_filters_an_offer_is_refused_for_five_seconds():
    assert read_call(call("DECLINE", decline={})).filters.refuse_s == 5.0


def test_a_launch_defaults_to_a_shell_command_on_the_hosts_network():
    task = launched(container={"type": "DOCKER", "docker": {"image": "i", "network": "TOKEN_RING"}})
    assert task.command.shell
    assert task.container.docker.network == "HOST"
    assert not launched(command={"shell": "false", "value": "x"}).command.shell


def test_a_name_that_reads_null_is_a_name():
    assert launched(name="null", task_id={"value": "null"}).task_id == "null"


def test_fractions_of_nanoseconds_are_cut_off():
    assert launched(kill_policy={"grace_period": {"nanoseconds": 2.5e9}}).kill_grace_s == 2.5
    assert launched(kill_policy={"grace_period": {"nanoseconds": "1500000000.7"}}).kill_grace_s == 1.5


def test_resources_of_one_name_add_up_and_zeros_vanish():
    def cpus(value):
        return {"name": "cpus", "type": "SCALAR", "scalar": {"value": value}}

    gpus = {"name": "gpus", "type": "SCALAR", "scalar": {"value": 0}}
    (found,) = launched(resources=[cpus(0.1), cpus("0.2"), cpus(0.0004), gpus]).resources
    assert (found.name, found.milli) == ("cpus", 300)


@pytest.mark.parametrize(("name", "kept"), [("cpus", True), ("mem", True), ("disk", False), ("gpus", False)])
def test_a_task_that_names_cpus_or_mem_and_asks_none_keeps_that_for_its_validation(name, kept):
    given = [{"name": n, "type": "SCALAR", "scalar": {"value": v}} for n, v in (("cpus", 1), ("mem", 32), (name, 0))]
    found = launched(
        resources=[each for each in given if each["name"] != name or not each["scalar"]["value"]]
    ).resources
    assert any(r.name == name and r.milli == 0 for r in found) is kept


def test_a_negative_amount_stays_visible_for_the_tasks_validation():
    resources = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": v}} for v in (2, -1)]
    assert sorted(r.milli for r in launched(resources=resources).resources) == [-1000, 2000]


def image(name="busybox", cached=None, **more):
    return {"type": "DOCKER", "docker": {"name": name, **more}, "cached": cached}


def test_an_image_of_the_mesos_containerizer_is_one_of_dockers_and_its_networks_are_those_of_the_container():
    reference = {"type": "REFERENCE", "reference": {"name": "secret:docker/config"}}
    plain = launched(container={"type": "MESOS", "mesos": {"image": image(config=reference)}})
    assert plain.unsupported == ()
    docker = plain.container.docker
    assert (docker.image, docker.network, docker.force_pull_image) == ("busybox", NetworkMode.HOST, False)
    assert docker.pull_config == "secret:docker/config"
    ports = [{"container_port": 80, "host_port": 31000}]
    networks = [{"name": "blue", "port_mappings": ports}]
    container = {"type": "MESOS", "mesos": {"image": image(cached=False)}, "network_infos": networks}
    docker = launched(container=container).container.docker
    assert (docker.network, docker.force_pull_image) == (NetworkMode.USER, True)
    assert [(m.container_port, m.host_port) for m in docker.port_mappings] == [(80, 31000)]


def test_an_infinite_limit_is_no_limit():
    assert launched(limits={"mem": {"value": "Infinity"}, "cpus": {"value": "1.5"}}).limits == (
        ("cpus", 1500),
        ("mem", None),
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"container": {"type": "MESOS", "mesos": {"image": {"type": "DOCKER"}}}}, "container.mesos.image"),
        (
            {"container": {"type": "MESOS", "mesos": {"image": {"type": "APPC", "appc": {"name": "x"}}}}},
            "container.mesos.image",
        ),
        (
            {"container": {"type": "MESOS", "mesos": {"image": image(config={"type": "VALUE"})}}},
            "container.mesos.image",
        ),
        ({"container": {"type": "MESOS", "docker": {"image": "x"}}}, "container.docker"),
        ({"container": {"type": "MESOS", "linux_info": {}}}, "container.linux_info"),
        ({"container": {"type": "MESOS", "tty_info": {}}}, "container.tty_info"),
        (
            {
                "container": {
                    "type": "MESOS",
                    "volumes": {"container_path": "a", "mode": "RW", "source": {"type": "SECRET"}},
                }
            },
            "container.volumes.source",
        ),
        (
            {"command": {"value": "x", "environment": {"variables": {"name": "A", "type": "SECRET", "secret": {}}}}},
            "command.environment.variables.secret",
        ),
    ],
)
def test_what_no_agent_carries_out_is_listed_with_the_task(change, path):
    assert launched(**change).unsupported == (path,)
    assert launched().unsupported == ()


def test_a_launch_that_asks_for_operation_feedback_marks_its_tasks():
    operation = {"type": "LAUNCH", "id": {"value": "op"}, "launch": {"task_infos": TASK}}
    found = read_call(call("ACCEPT", accept={"operations": operation}))
    assert found.operations[0].tasks[0].unsupported == ("operation.id",)


def test_other_operations_are_kept_by_name_with_their_id():
    operations = [{"type": "CREATE_DISK", "id": {"value": "op"}}, {"type": "DANCE"}, {}]
    assert read_call(call("ACCEPT", accept={"operations": operations})).operations == (
        calls.Unsupported(kind="CREATE_DISK", operation_id="op"),
        calls.Unsupported(kind="DANCE"),
        calls.Unsupported(kind="UNKNOWN"),
    )


def _identity(**form):
    resource = {"name": "disk", "type": "SCALAR", "scalar": {"value": 1}, **form}
    return launched(resources=[resource]).resources[0].identity


@pytest.mark.parametrize(
    ("form", "identity"),
    [
        ({}, Identity()),
        ({"role": "*"}, Identity()),
        ({"role": "ads"}, Identity(reservations=(Reservation(role="ads", static=True),))),
        (
            {"role": "ads", "reservation": {"principal": "p", "labels": {"labels": [{"key": "k", "value": "v"}]}}},
            Identity(reservations=(Reservation(role="ads", principal="p", labels=(("k", "v"),)),)),
        ),
        (
            {"reservations": [{"type": "STATIC", "role": "a"}, {"type": "DYNAMIC", "role": "a/b", "principal": "p"}]},
            Identity(reservations=(Reservation(role="a", static=True), Reservation(role="a/b", principal="p"))),
        ),
        ({"allocation_info": {"role": "ads"}}, Identity(allocation_role="ads")),
        ({"allocation_info": {}}, Identity()),
        ({"revocable": {}}, Identity(revocable=True)),
    ],
)
def test_reservations_are_read_in_both_forms(form, identity):
    assert _identity(**form) == identity


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"role": "a", "reservations": [{"type": "DYNAMIC", "role": "a"}]}, "mixes 'reservations' with 'role'"),
        ({"reservation": {}, "reservations": [{"type": "DYNAMIC", "role": "a"}]}, "mixes 'reservations'"),
        ({"role": "*", "reservation": {}}, "reserved to '\\*'"),
        ({"reservation": {}}, "reserved to '\\*'"),
        ({"reservations": [{"role": "a"}]}, "neither STATIC nor DYNAMIC"),
        ({"reservations": [{"type": "DYNAMIC", "role": "*"}]}, "a role other than '\\*'"),
        ({"reservations": [{"type": "DYNAMIC", "role": "a"}, {"type": "DYNAMIC", "role": "ab"}]}, "does not refine a"),
        ({"reservations": [{"type": "DYNAMIC", "role": "a"}, {"type": "STATIC", "role": "a/b"}]}, "may be STATIC"),
    ],
)
def test_reservations_of_a_mixed_or_impossible_form_are_refused(form, text):
    with pytest.raises(Invalid, match=text):
        _identity(**form)


def test_the_constraints_that_the_documentation_shows_are_taken():
    text = (Path(__file__).parents[3] / "docs" / "api" / "mesos.md").read_text()
    shown = next(block for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"spread"' in block)
    want = {"id": "w", "role": "*", "count": 1, **json.loads(shown)}
    (read,) = read_call(call("REQUEST", request={"wants": [want]})).wants
    assert [c.operator for c in read.constraints] == ["spread", "==", "range", "near", "apart"]
    listed = set(re.findall(r"`([^`]+)`", text.split("### Constraints")[1].split("An agent that lacks")[0]))
    assert set(Operator) <= listed, "an operator is not in the documentation"


def test_every_field_of_a_want_is_in_the_documentation():
    text = (Path(__file__).parents[3] / "docs" / "api" / "mesos.md").read_text()
    table = text.split("| field of a want | meaning |")[1].split("A want that could")[0]
    for field in (*Want.__struct_fields__, "weight"):
        assert f"`{field}`" in table or f", {field}}}`" in table, field


def test_offer_constraints_are_read_as_they_are_said():
    found = {
        "role_constraints": {
            "*": {
                "groups": [
                    {
                        "attribute_constraints": [
                            {"selector": {"attribute_name": "rack"}, "predicate": {"text_matches": {"regex": "r.*"}}},
                            {"selector": {"pseudoattribute_type": "ZONE"}, "predicate": {"not_exists": {}}},
                            {"selector": {"pseudoattribute_type": "MOON"}, "predicate": {}},
                        ]
                    }
                ]
            }
        }
    }
    info = {"user": "u", "name": "n"}
    read = read_call(
        call("SUBSCRIBE", framework_id=None, subscribe={"framework_info": info, "offer_constraints": found})
    )
    assert read.offer_constraints == (
        RoleConstraints(
            role="*",
            groups=(
                (
                    AttributeConstraint(name="rack", test=Predicate.TEXT_MATCHES, value="r.*"),
                    AttributeConstraint(pseudo=Pseudo.ZONE, test=Predicate.NOT_EXISTS),
                    AttributeConstraint(),
                ),
            ),
        ),
    )


@pytest.mark.parametrize(
    "request_body",
    [
        {"requests": [3]},
        {"requests": [{"agent_id": 3}]},
        {"requests": [{"resources": [{"name": "cpus"}]}]},
        {"wants": 3},
    ],
)
def test_a_request_that_is_none_is_refused_and_a_plain_one_is_taken(request_body):
    plain = {"requests": [{"agent_id": {"value": "a"}, "resources": [{"name": "cpus", "type": "SCALAR"}]}]}
    assert read_call(call("REQUEST", request=plain)) == calls.Request(framework_id="f")
    with pytest.raises(Invalid, match="request"):
        read_call(call("REQUEST", request=request_body))
    with pytest.raises(Invalid, match="'request' to be present"):
        read_call(call("REQUEST"))
