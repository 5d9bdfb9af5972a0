"""An app and an instance of it to what the kernel understands: the want it states and the task it launches.

Source: Marathon's contract, sections 2, 3, 11 and 15; Mesos v1 TaskInfo.
"""

import re
from collections.abc import Iterator

import msgspec

from corral.frameworks.services import partition, residency
from corral.frameworks.services.absent import find_absent
from corral.frameworks.services.app_spec import AppSpec, Docker, Network, PortDefinition, PortMapping
from corral.frameworks.services.checks import make_checks
from corral.frameworks.services.external import make_parameters
from corral.frameworks.services.linux import make_linux_parameters
from corral.frameworks.services.readiness import make_check, make_readiness_check
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.role_spec import launch_role
from corral.frameworks.services.secrets import make_variables, make_volumes, pull_source
from corral.frameworks.services.spec import Config
from corral.frameworks.services.state import App, task_id_of
from corral.model import container as wire
from corral.model.attributes import format_value
from corral.model.boot import AFTER_REBOOT_LABEL, START
from corral.model.constraints import HOSTNAME, Constraint, Operator, field_value, is_counting
from corral.model.health import HealthCheck
from corral.model.ids import WantId
from corral.model.offer import Offer, Want
from corral.model.resources import Resources, normal, scalar
from corral.model.tags import make_tags
from corral.model.task import (
    GROUP_LABEL,
    INSTANCE_LABEL,
    CommandInfo,
    DiscoveryInfo,
    DiscoveryPort,
    Label,
    TaskInfo,
    Uri,
)
from corral.sdk.match import Placement

HOME = "@home"
MOST_LABEL_NAME = 493
MOST_LABEL_VALUE = 512


def safe_id(app_id: str) -> str:
    """`/group/web` as `group_web`, the form in which it stands in task ids."""
    return app_id.lstrip("/").replace("/", "_")


def dns_id(app_id: str) -> str:
    """`/group/web` as `web.group`, the form of host names."""
    return ".".join(reversed(app_id.strip("/").split("/")))


def want_id_of(app: App) -> WantId:
    """Another definition of the app is another want, so that no offer shaped to the old one is taken for it."""
    return WantId(f"{safe_id(app.spec.id)}@{app.record.config}")


def home_want_id_of(app: App) -> WantId:
    """For those of the app's instances that would rather be started again where they failed."""
    return WantId(f"{want_id_of(app)}{HOME}")


def app_of_want(want_id: WantId) -> str:
    return "/" + want_id.partition("@")[0].replace("_", "/")


def make_want(app: App, config: Config, count: int) -> Want:
    """The app's demand for `count` more instances."""
    if app.want is None:
        spec = app.spec
        fixed, dynamic = _host_ports(spec)
        app.want = Want(
            id=want_id_of(app),
            role=launch_role(spec, config),
            count=0,
            resources=_resources(spec),
            ports=dynamic,
            fixed_ports=tuple(sorted(set(fixed))),
            constraints=tuple(read_constraint(c) for c in spec.constraints),
            group=spec.id,
            group_size=spec.instances,
            runtime="docker" if spec.has_image else "process",
            tags=_tags(spec),
        )
    return msgspec.structs.replace(app.want, count=count)


def _resources(spec: AppSpec) -> Resources:
    disk_mb = spec.disk_mb + residency.volume_mb(spec)
    named = (
        ("cpus", spec.cpus), ("mem", spec.mem_mb), ("disk", disk_mb), ("gpus", spec.gpus), *find_absent(spec)
    )  # fmt: skip
    return normal(scalar(name, value) for name, value in named if value or name != "gpus")


def _tags(spec: AppSpec) -> tuple[str, ...]:
    """What affinity of other apps may name: the app, its image, its labels."""
    docker = _docker(spec)
    return make_tags(name=spec.id.strip("/"), image=docker.image if docker is not None else "", labels=spec.labels)


def _host_ports(spec: AppSpec) -> tuple[list[int], int]:
    """The host ports that must be as they are, and how many any free ones."""
    fixed: list[int] = []
    dynamic = 0
    for port in _wanted_host_ports(spec):
        if port:
            fixed.append(port)
        elif port == 0:
            dynamic += 1
    return fixed, dynamic


def _wanted_host_ports(spec: AppSpec) -> Iterator[int | None]:
    """Per declared port: the number it must have, 0 for any, None for none at all."""
    for port in spec.ports:
        if isinstance(port, PortDefinition):
            yield port.port if spec.require_ports else 0
        else:
            yield port.host_port


def assign_ports(spec: AppSpec, dynamic: tuple[int, ...]) -> tuple[int, ...]:
    """The host port of each declared port in order; 0 where it has none."""
    free = iter(dynamic)
    return tuple(0 if wanted is None else wanted or next(free) for wanted in _wanted_host_ports(spec))


_OPERATORS = {
    "UNIQUE": Operator.UNIQUE,
    "GROUP_BY": Operator.GROUP_BY,
    "MAX_PER": Operator.MAX_PER,
    "LIKE": Operator.MATCH,
    "UNLIKE": Operator.MISMATCH,
    "IS": Operator.EQUAL,
    "NEAR": Operator.NEAR,
    "APART": Operator.APART,
}


def read_constraint(constraint: tuple[str, ...]) -> Constraint:
    """Marathon's operators, and corral's NEAR and APART, in the kernel's vocabulary."""
    field, operator = constraint[0], constraint[1]
    value = constraint[2] if len(constraint) > 2 else None
    field = HOSTNAME if field == "hostname" else field
    if operator == "CLUSTER":
        if value is None or value == "":
            return Constraint(field=field, operator=Operator.CLUSTER)
        return Constraint(field=field, operator=Operator.EQUAL, values=(value,))
    if operator in ("GROUP_BY", "MAX_PER"):
        return Constraint(field=field, operator=_OPERATORS[operator], count=int(value) if value else None)
    values = () if value is None else (_plain_number(value) if operator == "IS" else value,)
    return Constraint(field=field, operator=_OPERATORS[operator], values=values)


def _plain_number(text: str) -> str:
    """Numbers as attributes are written: at most three decimals, no trailing zeros."""
    if re.fullmatch(r"-?\d+(\.\d+)?", text) is None:
        return text
    whole = f"{float(text):.3f}".rstrip("0").rstrip(".")
    return whole or "0"


def group_value(spec: AppSpec, offer: Offer) -> str:
    """The offer's value of the field that the app groups by; empty when it groups by none."""
    field = next((c[0] for c in spec.constraints if c[1] == "GROUP_BY"), None)
    if field is None:
        return ""
    texts = {a.name: format_value(a) for a in offer.attributes}
    return field_value(HOSTNAME if field == "hostname" else field, offer.hostname, texts) or ""


def counted_values(spec: AppSpec, offer: Offer) -> tuple[tuple[str, str], ...]:
    """The offer's values of the attributes that the app's constraints count by."""
    counting = filter(is_counting, map(read_constraint, spec.constraints))
    fields = sorted({c.field for c in counting if c.field != HOSTNAME})
    if not fields:
        return ()
    texts = {a.name: format_value(a) for a in offer.attributes}
    return tuple((field, texts[field]) for field in fields if field in texts)


def field_values(instance: Instance) -> dict[str, str]:
    """What is known of the node of an instance, by the fields of constraints."""
    return {**dict(instance.values), HOSTNAME: instance.hostname}


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What all tasks of one version of an app have in common."""

    name: str
    before: tuple[tuple[str, str], ...]
    after: tuple[tuple[str, str], ...]
    command: CommandInfo
    labels: tuple[Label, ...]
    discovery_labels: tuple[Label, ...]


def make_template(app: App, config: Config) -> Template:
    spec = app.spec
    labels = tuple(Label(key=k, value=v) for k, v in sorted(spec.labels.items()))
    # A service should run for as long as it may; an app whose label says otherwise has it among its own.
    again = () if AFTER_REBOOT_LABEL in spec.labels else (Label(key=AFTER_REBOOT_LABEL, value=START),)
    return Template(
        name=dns_id(spec.id),
        before=tuple(_context_variables(app)),
        after=tuple(sorted(spec.env.items())),
        command=_make_command(spec),
        labels=(Label(key=GROUP_LABEL, value=spec.id), *labels, *again, *partition.extra_labels(spec, config)),
        discovery_labels=labels,
    )


def scaling_variables(app_id: str, token: str, config: Config) -> tuple[tuple[str, str], ...]:
    """Where the app may ask to grow and shrink, and what it shows there."""
    return (
        ("CORRAL_SCALING_URL", f"{config.scheme}://{config.address}/corral/v1/scaling{app_id}"),
        ("CORRAL_SCALING_TOKEN", token),
    )


def build_task(
    app: App, instance: Instance, placement: Placement, config: Config, more: tuple[tuple[str, str], ...] = ()
) -> TaskInfo:
    """The task of a placed instance. Shapes: `instance` already has its ports and incarnation; `more` are variables."""
    if app.template is None:
        app.template = make_template(app, config)
    template = app.template
    assert isinstance(template, Template)
    spec = app.spec
    offer = placement.offer
    task_id = task_id_of(instance)
    environment = merge_environment(
        template.before,
        [("MESOS_TASK_ID", task_id), *more],
        port_variables(spec, instance.ports, offer.hostname, config.env_prefix),
        template.after,
    )
    return TaskInfo(
        task_id=task_id,
        name=template.name,
        agent_id=offer.agent_id,
        resources=placement.resources,
        command=msgspec.structs.replace(template.command, environment=environment, secrets=make_variables(spec)),
        container=make_container(spec, instance.ports),
        kill_grace_s=partition.grace_s(spec),
        labels=(*template.labels, Label(key=INSTANCE_LABEL, value=instance.id)),
        discovery=_make_discovery(template, spec, instance),
        health_checks=_make_checks(spec, instance.ports),
        check=make_check(spec, instance.ports),
        limits=tuple((name, None if value is None else round(value * 1000)) for name, value in spec.limits),
    )


def _make_checks(spec: AppSpec, host_ports: tuple[int, ...]) -> tuple[HealthCheck, ...]:
    """The readiness check comes last, so that the places of the others are those of the definition."""
    if not spec.health_checks and spec.readiness is None:
        return ()
    found = make_checks(spec, host_ports)
    return found if spec.readiness is None else (*found, make_readiness_check(spec, spec.readiness, host_ports))


def _make_command(spec: AppSpec) -> CommandInfo:
    uris = tuple(
        Uri(value=f.uri, extract=f.extract, executable=f.executable, cache=f.cache, output_file=f.dest_path)
        for f in spec.fetch
    )
    if spec.cmd is not None:
        return CommandInfo(value=spec.cmd, uris=uris, user=spec.user)
    if spec.args and _docker(spec) is None:
        return CommandInfo(value=spec.args[0], shell=False, arguments=spec.args, uris=uris, user=spec.user)
    return CommandInfo(shell=False, arguments=spec.args, uris=uris, user=spec.user)


def _docker(spec: AppSpec) -> Docker | None:
    return spec.image


def _context_variables(app: App) -> Iterator[tuple[str, str]]:
    spec = app.spec
    yield "MARATHON_APP_ID", spec.id
    yield "MARATHON_APP_VERSION", app.record.version
    docker = _docker(spec)
    if docker is not None:
        yield "MARATHON_APP_DOCKER_IMAGE", docker.image
    yield "MARATHON_APP_RESOURCE_CPUS", str(float(spec.cpus))
    yield "MARATHON_APP_RESOURCE_MEM", str(float(spec.mem_mb))
    yield "MARATHON_APP_RESOURCE_DISK", str(float(spec.disk_mb))
    yield "MARATHON_APP_RESOURCE_GPUS", str(spec.gpus)
    yield from label_variables(spec.labels)


def label_variables(labels: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The labels as variables; those with very long names or values are left out."""
    exported = {
        _upper_name(key): value
        for key, value in sorted(labels.items())
        if len(key) < MOST_LABEL_NAME and len(value) < MOST_LABEL_VALUE
    }
    yield "MARATHON_APP_LABELS", " ".join(exported)
    for name, value in exported.items():
        yield f"MARATHON_APP_LABEL_{name}", value


def _upper_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", label).upper()


def port_variables(
    spec: AppSpec, host_ports: tuple[int, ...], hostname: str, prefix: str = ""
) -> list[tuple[str, str]]:
    """HOST and the PORT family; without ports only HOST."""
    found: list[tuple[str, str]] = [("HOST", hostname)]
    seen: list[str] = []
    for index, (port, host_port) in enumerate(zip(spec.ports, host_ports, strict=True)):
        declared = port.port if isinstance(port, PortDefinition) else port.container_port
        number = str(host_port or declared)
        seen.append(number)
        found.append((f"PORT{index}", number))
        found.append((f"PORT_{declared or number}", number))
        if port.name:
            # The dashed form is Marathon's; shells drop such names, so the one with underscores is set too.
            found.append((f"PORT_{port.name.upper()}", number))
            if "-" in port.name:
                found.append((f"PORT_{port.name.upper().replace('-', '_')}", number))
    if seen:
        found += [("PORT", seen[0]), ("PORTS", ",".join(seen))]
    return [(prefix + name, value) for name, value in found] if prefix else found


def merge_environment(*parts: "tuple[tuple[str, str], ...] | list[tuple[str, str]]") -> tuple[tuple[str, str], ...]:
    """All variables, the later value of a name winning."""
    merged: dict[str, str] = {}
    for part in parts:
        merged.update(part)
    return tuple(merged.items())


_NETWORKS = {
    Network.HOST: wire.NetworkMode.HOST,
    Network.BRIDGE: wire.NetworkMode.BRIDGE,
    Network.CONTAINER: wire.NetworkMode.USER,
}


def make_container(spec: AppSpec, host_ports: tuple[int, ...]) -> wire.ContainerInfo | None:
    container = spec.container
    if container is None:
        return None
    volumes = tuple(
        wire.Volume(container_path=v.container_path, host_path=v.host_path, mode=wire.VolumeMode(v.mode))
        for v in container.volumes
    )
    volumes += make_volumes(spec)
    if container.docker is None:
        return wire.ContainerInfo(kind=wire.ContainerKind.MESOS, volumes=volumes)
    flags = (*container.docker.parameters, *make_parameters(spec), *make_linux_parameters(spec))
    docker = wire.DockerInfo(
        image=container.docker.image,
        network=_NETWORKS[spec.network],
        port_mappings=_wire_mappings(spec, host_ports),
        privileged=container.docker.privileged,
        parameters=tuple(wire.Parameter(key=key, value=value) for key, value in flags),
        force_pull_image=container.docker.force_pull_image,
        pull_config=pull_source(spec, container.docker),
    )
    networks = tuple(
        wire.NetworkInfo(name=n.name, labels=tuple(sorted(n.labels.items())))
        for n in spec.networks
        if n.mode is Network.CONTAINER
    )
    return wire.ContainerInfo(kind=wire.ContainerKind.DOCKER, docker=docker, volumes=volumes, network_infos=networks)


def _wire_mappings(spec: AppSpec, host_ports: tuple[int, ...]) -> tuple[wire.PortMapping, ...]:
    found: list[wire.PortMapping] = []
    if spec.network is Network.HOST:
        return ()
    for port, host_port in zip(spec.ports, host_ports, strict=True):
        assert isinstance(port, PortMapping)
        if host_port:
            found.extend(
                wire.PortMapping(
                    container_port=port.container_port or host_port, host_port=host_port, protocol=protocol
                )
                for protocol in port.protocol.split(",")
            )
    return tuple(found)


def _make_discovery(template: Template, spec: AppSpec, instance: Instance) -> DiscoveryInfo | None:
    if not spec.ports:
        return None
    ports: list[DiscoveryPort] = []
    for port, host_port in zip(spec.ports, instance.ports, strict=True):
        number = host_port or (port.container_port if isinstance(port, PortMapping) else 0)
        if number:
            labels = tuple(Label(key=k, value=v) for k, v in sorted(port.labels.items()))
            ports.extend(
                DiscoveryPort(number=number, name=port.name, protocol=protocol, labels=labels)
                for protocol in port.protocol.split(",")
            )
    return DiscoveryInfo(
        visibility="FRAMEWORK", name=template.name, ports=tuple(ports), labels=template.discovery_labels
    )
