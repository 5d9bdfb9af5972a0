"""Hypothesis strategies for the model's nouns, as far as the Mesos dialect can say them."""

import msgspec
from hypothesis import strategies as st

from corral.model import calls, events
from corral.model.attributes import Attribute, AttributeKind
from corral.model.constraints import Constraint, Operator
from corral.model.container import (
    ContainerInfo,
    ContainerKind,
    DockerInfo,
    NetworkInfo,
    NetworkMode,
    Parameter,
    PortMapping,
    Volume,
    VolumeMode,
    make_image,
)
from corral.model.domain import Domain
from corral.model.framework import Capability, FrameworkInfo
from corral.model.health import CheckKind, CheckResult, CheckStatus, HealthCheck
from corral.model.maintenance import InverseOffer, Unavailability
from corral.model.offer import Explanation, Filters, Offer, Refusal, Want
from corral.model.offer_constraints import AttributeConstraint, Predicate, Pseudo, RoleConstraints
from corral.model.operations import Destroy, Reserve, Unreserve
from corral.model.resources import Disk, Identity, Reservation, Resource, ResourceKind, coalesce, normal
from corral.model.task import (
    CommandInfo,
    ContainerStatus,
    DiscoveryInfo,
    DiscoveryPort,
    ExecutorInfo,
    ExecutorKind,
    Label,
    Reason,
    Source,
    TaskInfo,
    TaskState,
    TaskStatus,
    Uri,
)

MUTE = (Predicate.EXISTS, Predicate.NOT_EXISTS)
texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
ids = st.text(alphabet="abcXYZ019._- ü", min_size=1, max_size=8)
names = st.sampled_from(["cpus", "mem", "disk", "ports", "bugs", "ü"])
roles = st.sampled_from(["*", "ads", "ads/etl", "ads/etl/nightly"])
seconds = st.integers(0, 10**7).map(lambda ms: ms / 1000)
instants = st.floats(0, 4e9)
ports = st.integers(0, 65535)
blobs = st.binary(max_size=8)
uuids = st.binary(min_size=16, max_size=16)


def maybe(strategy):
    return st.none() | strategy


def few(strategy):
    return st.lists(strategy, max_size=3).map(tuple)


domains = st.builds(Domain, region=texts, zone=texts)
nanoseconds = st.integers(0, 2**63 - 1)
unavailabilities = st.builds(Unavailability, start_ns=nanoseconds, duration_ns=maybe(nanoseconds))
spans = few(st.tuples(ports, st.integers(0, 40)).map(lambda p: (p[0], p[0] + p[1]))).map(coalesce)
item_sets = st.sets(texts, max_size=3).map(lambda s: tuple(sorted(s)))


def _stack(parts):
    role, stack = "", []
    for i, (name, principal, labels, static) in enumerate(parts):
        role = f"{role}/{name}" if role else name
        stack.append(Reservation(role=role, principal=principal, labels=labels, static=static and i == 0))
    return tuple(stack)


# A static reservation has neither principal nor labels in the older form.
stacks = few(
    st.tuples(st.sampled_from(["a", "b"]), maybe(texts), few(st.tuples(texts, texts)), st.just(False))
    | st.tuples(st.sampled_from(["a", "b"]), st.none(), st.just(()), st.just(True))
).map(_stack)
disks = st.builds(
    Disk,
    persistence_id=texts,
    principal=maybe(texts),
    container_path=maybe(texts),
    source_type=st.just("MOUNT"),
    source_root=maybe(texts),
) | st.builds(Disk, source_type=st.sampled_from(["PATH", "BLOCK"]), source_root=maybe(texts))
identities = st.builds(
    Identity,
    reservations=stacks,
    allocation_role=maybe(roles),
    revocable=st.booleans(),
    shared=st.booleans(),
    disk=maybe(disks),
    provider=maybe(ids),
)
resource_values = (
    st.builds(Resource, name=names, milli=st.integers(1, 10**12), identity=identities)
    | st.builds(Resource, name=names.map("r-{}".format), kind=st.just(ResourceKind.RANGES), ranges=spans)
    | st.builds(Resource, name=names.map("s-{}".format), kind=st.just(ResourceKind.SET), items=item_sets)
)
bundles = st.lists(resource_values, max_size=4).map(normal)
scalar_bundles = st.lists(st.builds(Resource, name=names, milli=st.integers(1, 10**9)), max_size=3).map(normal)
attributes = (
    st.builds(Attribute, name=texts, text=texts)
    | st.builds(Attribute, name=texts, kind=st.just(AttributeKind.SCALAR), milli=st.integers(-(10**12), 10**12))
    | st.builds(Attribute, name=texts, kind=st.just(AttributeKind.RANGES), ranges=spans)
    | st.builds(Attribute, name=texts, kind=st.just(AttributeKind.SET), items=item_sets)
)

labels = few(st.builds(Label, key=texts, value=maybe(texts)))
infos = st.builds(
    FrameworkInfo,
    user=texts,
    name=texts,
    id=maybe(ids),
    failover_timeout_s=st.floats(0, 1e9),
    checkpoint=st.booleans(),
    role=maybe(roles),
    roles=few(roles),
    hostname=maybe(texts),
    principal=maybe(texts),
    webui_url=maybe(texts),
    capabilities=few(st.sampled_from(Capability)),
    labels=labels,
)
uris = st.builds(
    Uri,
    value=texts,
    executable=st.booleans(),
    extract=st.booleans(),
    cache=st.booleans(),
    output_file=maybe(texts),
    checksum=maybe(texts),
)
commands = st.builds(
    CommandInfo,
    value=maybe(texts),
    shell=st.booleans(),
    arguments=few(texts),
    environment=few(st.tuples(texts, texts)),
    uris=few(uris),
    user=maybe(texts),
)
mappings = few(st.builds(PortMapping, container_port=ports, host_port=ports, protocol=st.sampled_from(["tcp", "udp"])))
networks = st.builds(
    NetworkInfo,
    name=maybe(texts),
    ip_addresses=few(st.sampled_from(["10.0.0.7", "fe80::1"])),
    port_mappings=mappings,
    labels=few(st.tuples(texts, maybe(texts))),
)
dockers = st.builds(
    DockerInfo,
    image=texts,
    network=st.sampled_from(NetworkMode),
    port_mappings=mappings,
    privileged=st.booleans(),
    parameters=few(st.builds(Parameter, key=texts, value=texts)),
    force_pull_image=st.booleans(),
    pull_config=st.sampled_from([None, "secret:docker/config"]),
)
any_containers = st.builds(
    ContainerInfo,
    kind=st.sampled_from(ContainerKind),
    docker=maybe(dockers),
    volumes=few(
        st.builds(Volume, container_path=texts, mode=st.sampled_from(VolumeMode), host_path=maybe(texts))
        | st.builds(
            Volume, container_path=texts, mode=st.sampled_from(VolumeMode), host_path=texts, of_executor=st.just(True)
        )
    ),
    hostname=maybe(texts),
    network_infos=few(networks),
    share_cgroups=st.booleans(),
)


def _settle(container: ContainerInfo) -> ContainerInfo:
    """Of one of type MESOS, its networks say everything but the image."""
    docker = container.docker
    if container.kind is ContainerKind.DOCKER or docker is None:
        return container
    image = make_image(
        docker.image, container.network_infos, force_pull=docker.force_pull_image, pull_config=docker.pull_config
    )
    return msgspec.structs.replace(container, docker=image)


containers = any_containers.map(_settle)
visibilities = st.sampled_from(["FRAMEWORK", "CLUSTER", "EXTERNAL"])
discoveries = st.builds(
    DiscoveryInfo,
    visibility=visibilities,
    name=maybe(texts),
    environment=maybe(texts),
    location=maybe(texts),
    version=maybe(texts),
    ports=few(
        st.builds(
            DiscoveryPort,
            number=ports,
            name=maybe(texts),
            protocol=maybe(texts),
            visibility=maybe(visibilities),
            labels=labels,
        )
    ),
    labels=labels,
)
executors = st.builds(
    ExecutorInfo,
    executor_id=ids,
    command=maybe(commands),
    container=maybe(containers),
    resources=bundles,
    name=maybe(texts),
    data=maybe(blobs),
    kind=maybe(st.sampled_from(ExecutorKind)),
    framework_id=maybe(ids),
    source=maybe(texts),
    discovery=maybe(discoveries),
    shutdown_grace_s=maybe(seconds),
    labels=labels,
)
_looked_at = {"delay_s": seconds, "interval_s": seconds, "timeout_s": seconds}
checks = maybe(
    st.one_of(
        st.builds(HealthCheck, kind=st.just(CheckKind.HTTP), port=ports, path=texts.map("/{}".format), **_looked_at),
        st.builds(HealthCheck, kind=st.just(CheckKind.TCP), port=ports, **_looked_at),
        st.builds(
            HealthCheck, kind=st.just(CheckKind.COMMAND), command=st.builds(CommandInfo, value=texts), **_looked_at
        ),
        st.builds(HealthCheck, kind=st.just(CheckKind.UNKNOWN), **_looked_at),
    )
)
check_statuses = st.one_of(
    st.builds(CheckStatus, kind=st.sampled_from([CheckKind.HTTP, CheckKind.COMMAND]), code=maybe(st.integers(0, 599))),
    st.builds(CheckStatus, kind=st.just(CheckKind.TCP), succeeded=maybe(st.booleans())),
)
_timed = {
    "delay_s": seconds, "interval_s": seconds, "timeout_s": seconds, "grace_s": seconds,
    "consecutive_failures": st.integers(0, 9), "spares": st.booleans(), "on_node": st.booleans(),
    "keeps_redirects": st.booleans(), "ignore_1xx": st.booleans(),
}  # fmt: skip
health_checks = st.one_of(
    st.builds(
        HealthCheck, kind=st.just(CheckKind.HTTP), port=ports, scheme=st.sampled_from(["http", "https"]),
        path=texts.map("/{}".format), statuses=few(st.integers(100, 599)), **_timed,
    ),
    st.builds(HealthCheck, kind=st.just(CheckKind.TCP), port=ports, **_timed),
    st.builds(
        HealthCheck, kind=st.just(CheckKind.COMMAND),
        command=st.builds(
            CommandInfo, value=texts, shell=st.booleans(), arguments=few(texts),
            environment=few(st.tuples(texts, texts)),
        ),
        **_timed,
    ),
    st.builds(HealthCheck, kind=st.just(CheckKind.UNKNOWN), **_timed),
)  # fmt: skip
results = st.builds(
    CheckResult, index=st.integers(0, 9), alive=st.booleans(), consecutive_failures=st.integers(0, 9),
    first_success_at=maybe(instants), last_success_at=maybe(instants), last_failure_at=maybe(instants), cause=texts,
)  # fmt: skip
limits = st.dictionaries(st.sampled_from(["cpus", "mem"]), maybe(st.integers(0, 10**9))).map(
    lambda found: tuple(sorted(found.items()))
)
tasks = st.builds(
    TaskInfo,
    task_id=ids,
    name=texts,
    agent_id=ids,
    resources=bundles,
    command=maybe(commands),
    executor=maybe(executors),
    container=maybe(containers),
    kill_grace_s=maybe(seconds),
    max_completion_s=maybe(seconds),
    data=maybe(blobs),
    labels=labels,
    discovery=maybe(discoveries),
    health_checks=few(health_checks),
    check=checks,
    limits=limits,
    unsupported=st.just(()),
    omits_starting=st.booleans(),
)
statuses = st.builds(
    TaskStatus,
    task_id=ids,
    state=st.sampled_from(TaskState),
    at=instants,
    source=st.sampled_from(Source),
    message=maybe(texts),
    reason=maybe(st.sampled_from(Reason)),
    agent_id=maybe(ids),
    executor_id=maybe(ids),
    uuid=maybe(uuids),
    data=maybe(blobs),
    healthy=maybe(st.booleans()),
    health=few(results),
    labels=labels,
    container_status=maybe(
        st.builds(
            ContainerStatus,
            container_id=ids,
            parent=maybe(ids),
            network_infos=few(networks),
            executor_pid=maybe(st.integers(1, 2**22)),
        )
    ),
    check=maybe(check_statuses),
    unreachable_at=maybe(st.floats(1e9, 4e9)),
    limitation=bundles,
)
offers = st.builds(
    Offer,
    id=ids,
    framework_id=ids,
    agent_id=ids,
    hostname=texts,
    ip=st.just("10.0.0.7"),
    port=ports,
    role=roles,
    resources=bundles.map(lambda bundle: bundle),
    attributes=few(attributes),
    want_id=maybe(ids),
    executor_ids=few(ids),
    domain=maybe(domains),
    unavailability=maybe(unavailabilities),
)
fields = texts.filter(bool)
weights = st.integers(0, 1000)
tags = st.sampled_from(["image:nginx", "label:tier=db", "task:web", "ü"])


def _rules(operators, values, **more):
    return st.builds(
        Constraint, field=fields, operator=st.sampled_from(operators), values=values, weight=weights, **more
    )  # fmt: skip


constraints = st.one_of(
    _rules(
        [Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.GLOB],
        st.lists(texts, min_size=1, max_size=3).map(tuple),
    ),
    _rules([Operator.MATCH, Operator.MISMATCH], st.sampled_from([("a.*b",), ("[0-9]+", "x")])),
    _rules(
        [Operator.UNIQUE, Operator.MAX_PER, Operator.GROUP_BY, Operator.CLUSTER],
        few(texts),
        count=st.integers(1, 100),
    ),
    _rules([Operator.RANGE], st.sampled_from([("10-20",), ("5", "100-"), ("-3",)])),
    _rules([Operator.NEAR, Operator.APART], st.lists(tags, min_size=1, max_size=3).map(tuple)),
    _rules([Operator.SPREAD], st.sampled_from([("z1=60", "z2=40"), ("*=10",), ("z1", "z2")])),
)
gpu_amounts = st.integers(1, 999) | st.integers(1, 16).map(lambda n: n * 1000)
want_bundles = st.tuples(scalar_bundles, maybe(st.builds(Resource, name=st.just("gpus"), milli=gpu_amounts))).map(
    lambda found: normal(r for r in (*found[0], found[1]) if r is not None)
)
wants = st.builds(
    Want,
    id=ids.filter(lambda i: i not in (".", "..")),
    role=roles,
    count=st.integers(0, 10**6),
    resources=want_bundles,
    ports=ports,
    fixed_ports=few(st.integers(1, 65535)),
    constraints=few(constraints),
    strategy=st.sampled_from(["", "spread", "binpack", "nobody's"]),
    priority=st.integers(-512, 511),
    group=texts.filter(lambda text: all(ord(c) >= 32 for c in text)),
    group_size=st.integers(0, 100),
    runtime=st.sampled_from(["", "docker", "process"]),
    gang=st.integers(0, 9),
    gang_timeout_s=st.floats(0.001, 1e9),
    run_s=maybe(st.floats(0.001, 1e9)),
    revocable=st.booleans(),
    preempts=st.booleans(),
    tags=few(tags),
).map(lambda want: msgspec.structs.replace(want, count=want.count * max(want.gang, 1)))
explanations = st.builds(
    Explanation,
    want_id=ids,
    framework_id=ids,
    role=roles,
    waiting=st.integers(0, 100),
    since_at=instants,
    agents=st.integers(0, 100),
    refusals=few(st.builds(Refusal, reason=texts, detail=texts, agents=st.integers(0, 9), best=maybe(texts))),
    fits_if=few(texts),
    never=st.booleans(),
)

operations = (
    st.builds(calls.Launch, tasks=few(tasks))
    | st.builds(calls.LaunchGroup, executor=executors, tasks=few(tasks))
    | st.builds(calls.Unsupported, kind=st.sampled_from(["CREATE_DISK", "DESTROY_DISK"]), operation_id=maybe(ids))
    | st.builds(Reserve, resources=bundles, source=bundles, operation_id=maybe(ids))
    | st.builds(Unreserve, resources=bundles, operation_id=maybe(ids))
    | st.builds(Destroy, volumes=bundles, operation_id=maybe(ids))
)
attribute_constraints = st.builds(
    lambda name, pseudo, test, value: AttributeConstraint(
        name=name, pseudo=pseudo, test=test, value="" if test in (None, *MUTE) else value
    ),
    maybe(texts), maybe(st.sampled_from(Pseudo)), maybe(st.sampled_from(Predicate)), texts,
)  # fmt: skip
offer_constraints = st.dictionaries(roles, few(few(attribute_constraints)), max_size=2).map(
    lambda found: tuple(RoleConstraints(role=role, groups=groups) for role, groups in sorted(found.items()))
)
filters = st.builds(Filters, refuse_s=st.floats(0, 365 * 86400.0))
all_calls = st.one_of(
    st.builds(calls.Subscribe, info=infos, suppressed_roles=few(roles), offer_constraints=offer_constraints),
    st.builds(calls.Teardown, framework_id=ids),
    st.builds(calls.Accept, framework_id=ids, offer_ids=few(ids), operations=few(operations), filters=filters),
    st.builds(calls.Decline, framework_id=ids, offer_ids=few(ids), filters=filters),
    st.builds(calls.AcceptInverseOffers, framework_id=ids, inverse_offer_ids=few(ids), filters=filters),
    st.builds(calls.DeclineInverseOffers, framework_id=ids, inverse_offer_ids=few(ids), filters=filters),
    st.builds(calls.Revive, framework_id=ids, roles=few(roles)),
    st.builds(calls.Suppress, framework_id=ids, roles=few(roles)),
    st.builds(calls.Kill, framework_id=ids, task_id=ids, agent_id=maybe(ids), grace_s=maybe(seconds)),
    st.builds(calls.Shutdown, framework_id=ids, executor_id=ids, agent_id=ids),
    st.builds(calls.Acknowledge, framework_id=ids, agent_id=ids, task_id=ids, uuid=uuids),
    st.builds(
        calls.Reconcile,
        framework_id=ids,
        tasks=few(st.builds(calls.ReconcileTask, task_id=ids, agent_id=maybe(ids))),
    ),
    st.builds(calls.Message, framework_id=ids, agent_id=ids, executor_id=ids, data=blobs),
    st.builds(
        calls.Request,
        framework_id=ids,
        wants=maybe(st.lists(wants, max_size=3, unique_by=lambda w: w.id).map(tuple)),
    ),
    st.builds(
        calls.UpdateFramework,
        info=infos.filter(lambda i: i.id),
        suppressed_roles=few(roles),
        offer_constraints=offer_constraints,
    ),
    st.builds(calls.AcknowledgeOperation, framework_id=ids, operation_id=ids, uuid=uuids, agent_id=maybe(ids)),
    st.builds(calls.ReconcileOperations, framework_id=ids, operations=few(st.tuples(ids, maybe(ids)))),
)

inverse_offers = st.builds(
    InverseOffer, id=ids, framework_id=ids, agent_id=ids, hostname=texts.filter(bool), ip=st.just("127.0.0.1"),
    port=ports, unavailability=unavailabilities,
)  # fmt: skip

masters = st.builds(
    events.MasterInfo,
    id=ids,
    hostname=texts.filter(bool),
    ip=st.just("127.0.0.1"),
    port=ports,
    version=st.just("1.11.0"),
    domain=maybe(domains),
)
all_events = st.one_of(
    st.builds(events.Subscribed, framework_id=ids, heartbeat_interval_s=st.floats(0.1, 100), master=masters),
    st.builds(events.Offers, offers=few(offers)),
    st.builds(events.Rescind, offer_id=ids),
    st.builds(events.InverseOffers, inverse_offers=few(inverse_offers)),
    st.builds(events.RescindInverseOffer, inverse_offer_id=ids),
    st.builds(events.Update, status=statuses),
    st.builds(events.Message, agent_id=ids, executor_id=ids, data=blobs),
    st.builds(events.Explanations, explanations=few(explanations)),
    st.builds(events.Failure, agent_id=ids, executor_id=maybe(ids), status=maybe(st.integers(0, 65535))),
    st.builds(events.Error, message=texts),
    st.just(events.Heartbeat()),
)
