"""A placed instance of a pod to the group of tasks that the agent's default executor runs.

The offer is shared out: each container takes what it asks and the ports of its endpoints, the executor takes the rest.
Source: Marathon's contract, sections 6 and 15; Mesos v1 LAUNCH_GROUP.
"""

import re
from collections.abc import Iterator

import msgspec

from corral.frameworks.services import partition
from corral.frameworks.services.app_spec import AppSpec, Network, PodCheck, PodContainer
from corral.frameworks.services.launch import dns_id, label_variables, merge_environment
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.secrets import make_pod_volume, make_variables, pull_source
from corral.frameworks.services.spec import Config
from corral.frameworks.services.state import App, task_id_of
from corral.model import calls
from corral.model import container as wire
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ExecutorId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, normal, scalar, subtract
from corral.model.task import (
    GROUP_LABEL,
    INSTANCE_LABEL,
    CommandInfo,
    DiscoveryInfo,
    DiscoveryPort,
    ExecutorInfo,
    Label,
    TaskInfo,
    Uri,
)
from corral.sdk.match import Placement, take

BRIDGE = "bridge"
"""What every Docker Engine calls the network of mode container/bridge."""


def build_group(app: App, instance: Instance, placement: Placement, config: Config) -> calls.LaunchGroup:
    """Shapes: `instance` already has its ports, in the order of the containers' endpoints."""
    pod = app.spec.pod
    assert pod is not None
    executor = ExecutorInfo(
        executor_id=ExecutorId(f"{instance.id}.{instance.incarnation}"),
        kind="DEFAULT",
        container=_make_network(app.spec, instance),
        resources=(),
        name=dns_id(app.spec.id),
    )
    left = placement.resources
    ports = iter(instance.ports)
    tasks: list[TaskInfo] = []
    # Siblings that constraints count are instances; one task of each says so.
    counted = any(c[1] in ("MAX_PER", "GROUP_BY") for c in app.spec.constraints)
    for index, container in enumerate(pod.containers):
        own = tuple(next(ports) for _ in container.endpoints)
        share, left = _share(placement, left, container, own)
        grouped = (Label(key=GROUP_LABEL, value=app.spec.id),) if index == 0 or not counted else ()
        tasks.append(_build_task(app, instance, container, own, share, placement, config, grouped))
    return calls.LaunchGroup(executor=msgspec.structs.replace(executor, resources=left), tasks=tuple(tasks))


def _share(
    placement: Placement, left: Resources, container: PodContainer, ports: tuple[int, ...]
) -> tuple[Resources, Resources]:
    """What the container gets of what is left, and what remains."""
    asked = normal((scalar("cpus", container.cpus), scalar("mem", container.mem_mb), scalar("disk", container.disk_mb)))
    fixed = tuple(port for port in ports if port)
    want = Want(id=WantId("share"), role=placement.offer.role, count=1, resources=asked, fixed_ports=fixed)
    taken = take(placement.offer, left, want)
    assert taken is not None, "the offer was asked for all containers together"
    return taken.resources, subtract(left, taken.resources)


def _build_task(
    app: App, instance: Instance, container: PodContainer, ports: tuple[int, ...], resources: Resources,
    placement: Placement, config: Config, grouped: tuple[Label, ...],
) -> TaskInfo:  # fmt: skip
    spec = app.spec
    task_id = task_id_of(instance, container.name)
    labels = {**spec.labels, **container.labels}
    environment = merge_environment(
        list(_context_variables(app, container, labels)),
        [("MESOS_TASK_ID", task_id), (config.env_prefix + "HOST", placement.offer.hostname)],
        list(_endpoint_variables(spec, instance, config.env_prefix)),
        # A text of the pod gives way to a secret that the container has under the same name.
        tuple(sorted((k, v) for k, v in {**spec.env, **container.env}.items() if k not in container.env_secrets)),
    )
    return TaskInfo(
        task_id=task_id,
        name=container.name,
        agent_id=placement.offer.agent_id,
        resources=resources,
        command=msgspec.structs.replace(
            _make_command(spec, container), environment=environment, secrets=make_variables(spec, container)
        ),
        container=_make_container(spec, container),
        kill_grace_s=partition.container_grace_s(spec, container.kill_grace_s),
        labels=(
            *grouped,
            *(Label(key=k, value=v) for k, v in sorted(labels.items())),
            Label(key=INSTANCE_LABEL, value=instance.id),
            # The last of a name counts: a container cannot outlive what its pod says.
            *partition.bound_labels(spec, config),
        ),
        discovery=_make_discovery(spec, container, ports),
        health_checks=() if container.check is None else (_make_check(container, container.check, ports),),
    )


def _make_network(spec: AppSpec, instance: Instance) -> wire.ContainerInfo | None:
    """The network that the containers share, with the ports that show on the node; None for the node's own."""
    if spec.network is Network.HOST:
        return None
    assert spec.pod is not None
    endpoints = [endpoint for container in spec.pod.containers for endpoint in container.endpoints]
    mapped = [
        (endpoint.network_names, wire.PortMapping(container_port=endpoint.inner_port(port), host_port=port, protocol=p))
        for endpoint, port in zip(endpoints, instance.ports, strict=True)
        for p in endpoint.protocols
        if port
    ]
    infos = tuple(
        wire.NetworkInfo(
            name=network.name or BRIDGE,
            labels=tuple(sorted(network.labels.items())),
            port_mappings=tuple(mapping for names, mapping in mapped if not names or network.name in names),
        )
        for network in spec.networks
    )
    return wire.ContainerInfo(kind=wire.ContainerKind.MESOS, network_infos=infos)


def _context_variables(app: App, container: PodContainer, labels: dict[str, str]) -> Iterator[tuple[str, str]]:
    yield "MARATHON_APP_ID", app.spec.id
    yield "MARATHON_APP_VERSION", app.record.version
    yield "MARATHON_APP_RESOURCE_CPUS", str(float(container.cpus))
    yield "MARATHON_APP_RESOURCE_MEM", str(float(container.mem_mb))
    yield "MARATHON_APP_RESOURCE_DISK", str(float(container.disk_mb))
    yield "MARATHON_APP_RESOURCE_GPUS", "0"
    yield "MARATHON_CONTAINER_ID", container.name
    yield "MARATHON_CONTAINER_RESOURCE_CPUS", str(float(container.cpus))
    yield "MARATHON_CONTAINER_RESOURCE_MEM", str(float(container.mem_mb))
    yield "MARATHON_CONTAINER_RESOURCE_DISK", str(float(container.disk_mb))
    yield "MARATHON_CONTAINER_RESOURCE_GPUS", "0"
    if container.image is not None:
        yield "MARATHON_APP_DOCKER_IMAGE", container.image.image
    yield from label_variables(labels)


def _endpoint_variables(spec: AppSpec, instance: Instance, prefix: str) -> Iterator[tuple[str, str]]:
    """Every container knows the ports of all of them: where it is to listen, and where the node shows that."""
    assert spec.pod is not None
    ports = iter(instance.ports)
    for container in spec.pod.containers:
        for endpoint in container.endpoints:
            name = re.sub(r"[^A-Za-z0-9]+", "_", endpoint.name).upper()
            host_port = next(ports)
            inner_port = str(endpoint.inner_port(host_port))
            yield f"{prefix}ENDPOINT_{name}", inner_port
            yield f"{prefix}EP_CONTAINER_{name}", inner_port
            if host_port:
                yield f"{prefix}EP_HOST_{name}", str(host_port)


def _make_command(spec: AppSpec, container: PodContainer) -> CommandInfo:
    uris = tuple(
        Uri(value=f.uri, extract=f.extract, executable=f.executable, cache=f.cache, output_file=f.dest_path)
        for f in container.fetch
    )
    user = container.user or spec.user
    if container.command is None:
        # Without a value the words are for the image's own program, if there are any.
        value = container.argv[0] if container.image is None or container.replaces else None
        return CommandInfo(value=value, shell=False, arguments=container.argv, uris=uris, user=user)
    return CommandInfo(value=container.command, uris=uris, user=user)


def _make_container(spec: AppSpec, container: PodContainer) -> wire.ContainerInfo | None:
    image = container.image
    if image is None and not container.mounts:
        return None
    assert spec.pod is not None
    volumes = tuple(
        make_pod_volume(spec, name, path)
        if name in spec.pod.secret_volumes
        else wire.Volume(
            container_path=path,
            host_path=spec.pod.volumes[name] or f"volumes/{name}",
            mode=wire.VolumeMode.RO if read_only else wire.VolumeMode.RW,
            of_executor=spec.pod.volumes[name] is None,
        )
        for name, path, read_only in container.mounts
    )
    docker = None
    if image is not None:
        source = pull_source(spec, image)
        docker = wire.make_image(image.image, (), force_pull=image.force_pull_image, pull_config=source)
    return wire.ContainerInfo(kind=wire.ContainerKind.MESOS, docker=docker, volumes=volumes)


def _make_check(container: PodContainer, check: PodCheck, ports: tuple[int, ...]) -> HealthCheck:
    common = HealthCheck(
        grace_s=float(check.grace_s),
        interval_s=float(check.interval_s),
        timeout_s=float(check.timeout_s),
        delay_s=float(check.delay_s),
        consecutive_failures=check.most_failures,
    )
    if check.endpoint is None:
        command = CommandInfo(value=check.command)
        if check.argv:
            command = CommandInfo(shell=False, value=check.argv[0], arguments=check.argv)
        return msgspec.structs.replace(common, kind=CheckKind.COMMAND, command=command)
    endpoint, host_port = next(
        (e, port) for e, port in zip(container.endpoints, ports, strict=True) if e.name == check.endpoint
    )
    port = endpoint.inner_port(host_port)
    if check.path is None:
        return msgspec.structs.replace(common, kind=CheckKind.TCP, port=port)
    path = "/" + check.path.removeprefix("/")
    return msgspec.structs.replace(common, kind=CheckKind.HTTP, port=port, path=path, scheme=check.scheme)


def _make_discovery(spec: AppSpec, container: PodContainer, ports: tuple[int, ...]) -> DiscoveryInfo | None:
    if not ports:
        return None
    found = tuple(
        DiscoveryPort(
            number=port or endpoint.inner_port(port),
            name=endpoint.name,
            protocol=protocol,
            labels=tuple(Label(key=k, value=v) for k, v in sorted(endpoint.labels.items())),
        )
        for endpoint, port in zip(container.endpoints, ports, strict=True)
        for protocol in endpoint.protocols
    )
    return DiscoveryInfo(visibility="FRAMEWORK", name=dns_id(spec.id), ports=found)
