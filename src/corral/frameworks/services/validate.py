"""What is wrong with an app as a whole, and what is filled in: the rules that look at more than one field.

Source: Marathon's contract, sections 1 to 4. Paths of errors are those of the JSON form.
"""

import re
from collections import Counter
from collections.abc import Generator, Iterator

import msgspec

from corral.frameworks.services import accepted, residency, retry
from corral.frameworks.services.app_spec import AppSpec, Network, PortDefinition, PortMapping, Residency, Upgrade
from corral.frameworks.services.checks import find_faults
from corral.frameworks.services.external import find_external_faults
from corral.frameworks.services.linux import find_linux_faults
from corral.frameworks.services.partition import SINGLE_INSTANCE, find_label_faults, is_single
from corral.frameworks.services.readiness import find_readiness_faults
from corral.frameworks.services.secrets import find_secret_faults
from corral.frameworks.services.spec import Config
from corral.lib.errors import Invalid, Unprocessable
from corral.model.boot import AFTER_REBOOT_LABEL, LEAVE, check_after_reboot
from corral.model.offer import MOST_CONSTRAINTS, MOST_FIXED_PORTS
from corral.model.patterns import compile_pattern
from corral.model.tags import find_tag_fault

_LABEL = r"[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]"
_SEGMENT = re.compile(rf"(?:(?:{_LABEL})\.)*(?:{_LABEL})")
_PORT_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_IS_VALUE = re.compile(r"[a-zA-Z0-9_/.-]*")
LEAST_OF_EXECUTORS = {"cpus": 0.1, "mem": 32.0, "disk": 10.0}
_COUNT = re.compile(r"0{0,8}[1-9][0-9]{0,8}")
_RESERVED = ("restart", "tasks", "versions", ".", "..")
_MOST_ID = 200
OPERATORS = ("UNIQUE", "CLUSTER", "GROUP_BY", "LIKE", "UNLIKE", "MAX_PER", "IS", "NEAR", "APART")
"""Marathon's, and at the end corral's own two."""


Errors = Iterator[tuple[str, str]]


def canonical_id(path: str, base: str = "/") -> str:
    """The absolute form of an id, relative ones read from `base`; `.` and `..` are followed."""
    parts: list[str] = [] if path.startswith("/") else [p for p in base.split("/") if p]
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def parent_id(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def check_path(path: str) -> str | None:
    """What is wrong with an absolute id, or None."""
    for segment in path.strip("/").split("/"):
        if _SEGMENT.fullmatch(segment) is None:
            return (
                f"id {path!r} has the segment {segment!r}; segments are lower-case letters, digits, dashes and dots, "
                "and neither start nor end with a dash"
            )
    return None


def check_app(spec: AppSpec, config: Config) -> None:
    """Errors: `Unprocessable` with every rule that the app breaks, by field."""
    details: dict[str, list[str]] = {}
    for path, text in _errors(spec, config):
        details.setdefault(path, []).append(text)
    if details:
        raise Unprocessable("Object is not valid", details)


def _errors(spec: AppSpec, config: Config) -> Errors:
    yield from _id_errors(spec)
    yield from _command_errors(spec)
    yield from _text_errors(spec)
    yield from _number_errors(spec, config)
    yield from _network_errors(spec)
    yield from _port_errors(spec)
    yield from find_faults(spec)
    yield from find_readiness_faults(spec)
    yield from find_secret_faults(spec)
    yield from residency.find_volume_faults(spec)
    yield from find_external_faults(spec)
    yield from find_linux_faults(spec)
    yield from _constraint_errors(spec)
    yield from accepted.find_faults(spec, config)


def _id_errors(spec: AppSpec) -> Errors:
    if spec.id in ("", "/"):
        yield "/id", "id must name an app, not the root group"
        return
    wrong = check_path(spec.id)
    if wrong is not None:
        yield "/id", wrong
    if spec.id.rpartition("/")[2] in _RESERVED:
        yield "/id", f"id must not end in one of {', '.join(_RESERVED)}"
    if len(spec.id) > _MOST_ID:
        yield "/id", f"id is {len(spec.id)} characters long and may be {_MOST_ID}; task ids are made of it"
    for index, dependency in enumerate(spec.dependencies):
        if dependency != "/" and (wrong := check_path(dependency)) is not None:
            yield f"/dependencies({index})", wrong


def _command_errors(spec: AppSpec) -> Errors:
    if spec.cmd is not None and spec.args:
        yield "/", "AppDefinition must either contain 'cmd' or 'args', not both; drop one of them"
    if spec.cmd is not None and len(spec.cmd) < 2:
        yield "/cmd", "cmd must be longer than one character"
    container = spec.container
    image = container is not None and container.docker is not None
    if spec.cmd is None and not spec.args and not image:
        yield "/", "AppDefinition must contain 'cmd', 'args' or a container with an image"
    if container is not None and container.kind == "DOCKER" and container.docker is None:
        yield "/container/docker", "container of type DOCKER must have a docker section with an image"
    if spec.gpus and image:
        yield "/gpus", "GPUs are for commands of the node in this release; leave the image out, or gpus"
    if container is not None and container.kind == "MESOS" and container.docker is not None:
        # Such an image runs by the Docker Engine too, but what only that has is not for it.
        for field, given in (("privileged", container.docker.privileged), ("parameters", container.docker.parameters)):
            if given:
                yield f"/container/docker/{field}", f"{field} is for containers of type DOCKER"


def _text_errors(spec: AppSpec) -> Errors:
    """Texts that no system takes: with them, every start would fail and be tried again."""
    try:
        check_after_reboot(spec.labels.get(AFTER_REBOOT_LABEL, LEAVE))
    except Invalid as error:
        yield f"/labels/{AFTER_REBOOT_LABEL}", error.message
    for name in (*spec.env, *spec.env_secrets):
        if not name or "=" in name:
            yield "/env", f"variable {name!r} must have a name without ="
    for path, text in _texts(spec):
        if "\0" in text:
            yield path, "must not contain a NUL character"


def _texts(spec: AppSpec) -> Iterator[tuple[str, str]]:
    yield from (("/cmd", spec.cmd or ""), ("/user", spec.user or ""))
    yield from (("/args", text) for text in spec.args)
    for name, value in spec.env.items():
        yield from (("/env", name), (f"/env/{name}", value))
    for index, item in enumerate(spec.fetch):
        yield from ((f"/fetch({index})/uri", item.uri), (f"/fetch({index})/destPath", item.dest_path or ""))
    container = spec.container
    if container is not None:
        for index, volume in enumerate(container.volumes):
            yield f"/container/volumes({index})/containerPath", volume.container_path
            yield f"/container/volumes({index})/hostPath", volume.host_path
        if container.docker is not None:
            yield "/container/docker/image", container.docker.image
            for pair in container.docker.parameters:
                yield from (("/container/docker/parameters", text) for text in pair)


def _number_errors(spec: AppSpec, config: Config) -> Errors:
    for path, value in (
        ("/cpus", spec.cpus),
        ("/mem", spec.mem_mb),
        ("/disk", spec.disk_mb),
        ("/gpus", spec.gpus),
        ("/instances", spec.instances),
        ("/backoffSeconds", spec.backoff_s),
        ("/maxLaunchDelaySeconds", spec.most_backoff_s),
        ("/taskKillGracePeriodSeconds", spec.kill_grace_s or 0),
    ):
        if not 0 <= value < 1e12:
            yield path, f"got {value:g}, must be 0 or more and finite"
    for name, least in LEAST_OF_EXECUTORS.items():
        if not least <= spec.executor_resources.get(name, least) < 1e12:
            yield f"/executorResources/{name}", f"got {spec.executor_resources[name]:g}, must be {least:g} or more"
    if spec.instances > config.most_instances:
        yield "/instances", f"got {spec.instances}, this installation takes at most {config.most_instances} of one app"
    if not 1 <= spec.backoff_factor < 1e6:
        yield "/backoffFactor", f"got {spec.backoff_factor:g}, must be 1 or more"
    upgrade = spec.upgrade
    for path, share in (
        ("/upgradeStrategy/minimumHealthCapacity", upgrade.minimum_health_capacity),
        ("/upgradeStrategy/maximumOverCapacity", upgrade.maximum_over_capacity),
    ):
        if not 0 <= share <= 1:
            yield path, f"got {share:g}, must be between 0 and 1"
    if spec.unreachable is not None:
        inactive, expunge = spec.unreachable.inactive_after_s, spec.unreachable.expunge_after_s
        if inactive < 0 or expunge < 0:
            yield "/unreachableStrategy", "both numbers must be 0 or more"
        if inactive > expunge:
            yield (
                "/unreachableStrategy",
                f"inactiveAfterSeconds ({inactive}) must not be greater than expungeAfterSeconds ({expunge})",
            )
    yield from find_label_faults(spec)
    yield from retry.find_label_faults(spec)
    if is_single(spec):
        if spec.instances > 1:
            yield "/instances", f"label {SINGLE_INSTANCE} allows one instance, got {spec.instances}"
        # What is left out, or as if it were, is filled in later.
        if spec.upgrade not in (Upgrade(), Upgrade(minimum_health_capacity=0.0, maximum_over_capacity=0.0)):
            yield "/upgradeStrategy", f"with label {SINGLE_INSTANCE} both capacities must be 0"


def find_mode_faults(spec: AppSpec) -> Generator[tuple[str, str], None, bool]:
    """Whether the networks are of one mode, so that there is more to be said of them."""
    modes = {n.mode for n in spec.networks}
    if len(modes) > 1:
        yield "/networks", f"networks must be of one mode, got {', '.join(sorted(modes))}"
        return False
    if spec.network is not Network.CONTAINER and len(spec.networks) > 1:
        yield "/networks", f"there may be one network of mode {spec.network}, got {len(spec.networks)}"
    return True


def _network_errors(spec: AppSpec) -> Errors:
    if not (yield from find_mode_faults(spec)):
        return
    mode = spec.network
    names = [n.name for n in spec.networks if n.name is not None]
    for index, network in enumerate(spec.networks):
        if mode is Network.HOST and (network.name is not None or network.labels):
            yield f"/networks({index})", "a host network has neither name nor labels"
        if mode is Network.BRIDGE and network.name is not None:
            yield f"/networks({index})/name", "a bridge network has no name"
        if mode is Network.CONTAINER and network.name is None:
            yield f"/networks({index})/name", "a container network needs a name, as there is no default network"
    for name, times in Counter(names).items():
        if times > 1:
            yield "/networks", f"network {name} is named {times} times"
    if mode is Network.HOST:
        return
    if spec.image is None:
        yield (
            "/networks",
            f"networks of mode {mode} need a container with an image in this release; "
            "add one or use the host's network",
        )
    elif len(spec.networks) > 1 and spec.container is not None and spec.container.kind == "DOCKER":
        yield (
            "/networks",
            f"a container of type DOCKER takes one network, got {len(spec.networks)}; type MESOS takes several",
        )


def _port_errors(spec: AppSpec) -> Errors:
    where = "/portDefinitions" if spec.network is Network.HOST else "/container/portMappings"
    if spec.network is Network.HOST and spec.container is not None and spec.container.port_mappings:
        yield "/container/portMappings", "portMappings need a bridge or container network, not the host's"
    if spec.network is not Network.HOST and spec.port_definitions:
        yield "/portDefinitions", "portDefinitions need the host's network; use container.portMappings"
    wanted = (p.port if isinstance(p, PortDefinition) else p.host_port for p in spec.ports)
    fixed = {port for port in wanted if port} if spec.require_ports or spec.network is not Network.HOST else set()
    if len(fixed) > MOST_FIXED_PORTS:
        yield where, f"an app may have {MOST_FIXED_PORTS} host ports of its own choice, this one has {len(fixed)}"
    numbers: Counter[int] = Counter()
    names: Counter[str] = Counter()
    for index, port in enumerate(spec.ports):
        path = f"{where}({index})"
        fields: dict[str, int | None]
        if isinstance(port, PortDefinition):
            fields = {"port": port.port}
            numbers[port.port] += 1
        else:
            fields = {
                "containerPort": port.container_port, "hostPort": port.host_port, "servicePort": port.service_port
            }  # fmt: skip
            numbers[port.service_port] += 1
            yield from _mapping_errors(spec, port, path)
        for field, number in fields.items():
            if number is not None and not 0 <= number <= 65535:
                yield f"{path}/{field}", f"got {number}, must be between 0 and 65535"
        if port.protocol not in ("tcp", "udp", "udp,tcp", "tcp,udp"):
            yield f"{path}/protocol", f"got {port.protocol!r}, must be tcp, udp or udp,tcp"
        if port.name is not None:
            names[port.name] += 1
            if _PORT_NAME.fullmatch(port.name) is None:
                yield f"{path}/name", f"got {port.name!r}, must be lower-case letters, digits and dashes"
    for number, times in numbers.items():
        if number and times > 1:
            yield where, f"port {number} is given {times} times; ports must be unique"
    for name, times in names.items():
        if times > 1:
            yield where, f"port name {name} is given {times} times; names must be unique"


def _mapping_errors(spec: AppSpec, port: PortMapping, path: str) -> Errors:
    known = {n.name for n in spec.networks}
    for name in port.network_names:
        if name not in known:
            yield f"{path}/networkNames", f"network {name!r} is not among the app's networks"
    if len(spec.networks) > 1 and port.host_port is not None and len(port.network_names) != 1:
        yield f"{path}/networkNames", "with a hostPort and several networks, one of them must be named"
    if spec.network is Network.CONTAINER and port.host_port is None and port.container_port == 0:
        yield f"{path}/containerPort", "a mapping without hostPort needs a containerPort"


def _constraint_errors(spec: AppSpec) -> Errors:
    for index, constraint in enumerate(spec.constraints):
        path = f"/constraints({index})"
        if not 2 <= len(constraint) <= 3:
            yield path, f"a constraint is [field, operator] or [field, operator, value], got {len(constraint)} texts"
            continue
        field, operator = constraint[0], constraint[1]
        value = constraint[2] if len(constraint) == 3 else None
        if not field:
            yield path, "the field must not be empty"
        wrong = _constraint_error(operator, value)
        if wrong is not None:
            yield path, wrong
    if len(spec.constraints) > MOST_CONSTRAINTS:
        yield "/constraints", f"an app may have {MOST_CONSTRAINTS} constraints, this one has {len(spec.constraints)}"
    if len(set(spec.constraints)) < len(spec.constraints):
        yield "/constraints", "constraints must be unique"


def _constraint_error(operator: str, value: str | None) -> str | None:
    if operator not in OPERATORS:
        return f"operator {operator!r} is not one of {', '.join(OPERATORS)}"
    if operator == "UNIQUE" and value is not None:
        return "UNIQUE takes no value"
    if operator in ("LIKE", "UNLIKE"):
        if not value:
            return f"{operator} needs a regular expression as its value"
        try:
            compile_pattern(value)
        except Invalid as error:
            return f"{operator} has the regular expression {value!r}, which {error.message}"
    if operator == "MAX_PER" and (value is None or _COUNT.fullmatch(value) is None):
        return f"MAX_PER needs a number of 1 or more as its value, got {value!r}"
    if operator == "GROUP_BY" and value and _COUNT.fullmatch(value) is None:
        return f"GROUP_BY takes a number of groups of 1 or more, got {value!r}"
    if operator in ("NEAR", "APART"):
        fault = "needs a tag as its value, such as label:tier=db" if value is None else find_tag_fault(value)
        return fault and f"{operator} {fault}"
    if operator == "IS" and (value is None or _IS_VALUE.fullmatch(value) is None):
        return f"IS needs a value of letters, digits and _ / . -, got {value!r}"
    return None


# What is filled in.


def complete(spec: AppSpec, config: Config) -> AppSpec:
    """The app with the defaults that depend on other fields; its service ports are still as given."""
    changes: dict[str, object] = {}
    if spec.network is Network.HOST:
        if spec.port_definitions is None:
            changes["port_definitions"] = (PortDefinition(),)
        if spec.container is not None and spec.container.port_mappings == ():
            changes["container"] = msgspec.structs.replace(spec.container, port_mappings=None)
    else:
        changes["require_ports"] = False
        changes["port_definitions"] = spec.port_definitions or None
        if spec.container is not None:
            changes["container"] = _complete_mappings(spec)
        if spec.network is Network.CONTAINER and config.default_network is not None:
            changes["networks"] = tuple(
                msgspec.structs.replace(n, name=n.name or config.default_network) for n in spec.networks
            )
    if is_single(spec) and spec.upgrade == Upgrade():
        changes["upgrade"] = Upgrade(minimum_health_capacity=0.0, maximum_over_capacity=0.0)
    elif (spec.volumes or spec.external_volumes) and spec.upgrade == Upgrade():
        changes["upgrade"] = Upgrade(minimum_health_capacity=0.5, maximum_over_capacity=0.0)
    if spec.volumes:
        changes["unreachable"] = None
        changes["residency"] = spec.residency or Residency()
    elif spec.residency is not None:
        changes["residency"] = None
    return msgspec.structs.replace(spec, **changes)


def _complete_mappings(spec: AppSpec) -> object:
    container = spec.container
    assert container is not None
    bridge = spec.network is Network.BRIDGE
    mappings = container.port_mappings
    if mappings is None:
        # Without a host port such a mapping would name no port at all, so the default one asks for a free one.
        mappings = (PortMapping(container_port=0, host_port=0),)
    return msgspec.structs.replace(
        container,
        port_mappings=tuple(
            msgspec.structs.replace(m, host_port=0) if bridge and m.host_port is None else m for m in mappings
        ),
    )


def assign_service_ports(spec: AppSpec, old: AppSpec | None, taken: Counter[int], config: Config) -> AppSpec:
    """Give every port without a service port one: the app's own of before where possible, else the lowest free.

    Shapes: `taken` counts the service ports of all apps, the old form of this one included.
    Errors: `Unprocessable` when the range of service ports is used up.
    """
    given = {p for p in spec.service_ports if p}
    if 0 not in spec.service_ports:
        return spec
    before = [p for p in (old.service_ports if old is not None else ()) if p and p not in given]
    fresh = _free_ports(taken, given | set(before), config)
    numbers = iter([*before])
    assigned: list[PortDefinition | PortMapping] = []
    for port in spec.ports:
        if isinstance(port, PortDefinition):
            number = port.port or next(numbers, 0) or next(fresh)
            assigned.append(msgspec.structs.replace(port, port=number))
        else:
            number = port.service_port or next(numbers, 0) or next(fresh)
            assigned.append(msgspec.structs.replace(port, service_port=number))
    if spec.network is Network.HOST:
        return msgspec.structs.replace(spec, port_definitions=tuple(assigned))
    assert spec.container is not None
    container = msgspec.structs.replace(spec.container, port_mappings=tuple(assigned))
    return msgspec.structs.replace(spec, container=container)


def _free_ports(taken: Counter[int], besides: set[int], config: Config) -> Iterator[int]:
    for port in range(config.first_service_port, config.last_service_port + 1):
        if taken[port] <= 0 and port not in besides:
            yield port
    raise Unprocessable(
        "Object is not valid",
        {
            "/portDefinitions": [
                f"all service ports from {config.first_service_port} to {config.last_service_port} are taken; "
                "name one yourself or delete an app"
            ]
        },
    )
