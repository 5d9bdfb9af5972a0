"""Turns an execution into the Engine's container and what the Engine tells back into our words.

Every container is named `corral-<container id>` and labelled, so that a restarted agent finds what an earlier one left.
Sources: Docker Engine API 1.41, `docker run` as Mesos' docker executor calls it (Mesos v1, "docker executor").
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from corral.docker.parameters import apply_parameters
from corral.docker.pause import HOLDER_IMAGE, PROGRAM
from corral.lib.errors import CorralError, Failed, Invalid
from corral.lib.units import parse_timestamp
from corral.model.container import NetworkMode, PortMapping
from corral.model.execution import Execution, Exit, Found, Launched, SharedNetwork
from corral.model.ids import ContainerId, FrameworkId, TaskId

NAME_PREFIX = "corral-"
LABEL_CONTAINER = "corral.container"
LABEL_TASK = "corral.task"
LABEL_FRAMEWORK = "corral.framework"
LABEL_AGENT = "corral.agent"
LABEL_SANDBOX = "corral.sandbox"
LABEL_NETWORK = "corral.network"
"""Of a container that shares a network: which."""
LABEL_HOLDER = "corral.holder"
"""Of what holds a shared network: which."""

SANDBOX_INSIDE = "/mnt/mesos/sandbox"
LEAST_MEMORY_MB = 32
"""Below this a container may not even start. Source: Mesos, the docker containerizer's minimum."""

# A copy of the output lies in the sandbox; the Engine's own need only span the time in which an agent is away.
_LOG_CONFIG: Mapping[str, Any] = {"Type": "json-file", "Config": {"max-size": "256m", "max-file": "2"}}

_LAST_SIGNAL = 64


def container_name(container_id: str) -> str:
    """The Engine's name for a run; the characters it does not take are replaced."""
    return NAME_PREFIX + re.sub(r"[^a-zA-Z0-9_.-]", "_", container_id)


def create_body(execution: Execution, owner: str) -> dict[str, Any]:
    """The Engine's `POST /containers/create` for this execution; `owner` tells this agent's containers from others'.

    Errors: `Failed` names a docker parameter or path that cannot be used.
    """
    docker = execution.docker
    if docker is None:
        raise Failed(
            f"task {execution.task_id} names no image; the docker runtime needs one, or use the process runtime"
        )
    body: dict[str, Any] = {
        "Image": docker.image,
        "Labels": dict(execution.labels),
        "HostConfig": {
            "Binds": _binds(execution),
            "NetworkMode": _network_mode(execution),
            "Privileged": docker.privileged,
            "LogConfig": {"Type": _LOG_CONFIG["Type"], "Config": dict(_LOG_CONFIG["Config"])},
            "RestartPolicy": {"Name": "no"},
        },
    }
    if execution.shared is not None:
        body["Labels"][LABEL_NETWORK] = execution.shared.id
    if execution.user:
        body["User"] = execution.user
    if execution.hostname:
        body["Hostname"] = execution.hostname
    _set_limits(body["HostConfig"], execution)
    _set_ports(body, port_mappings(execution))
    apply_parameters(body, docker.parameters)
    _set_command(body, execution)
    _set_environment(body, execution)
    _set_aliases(body)
    if "Memory" in body["HostConfig"] and "MemorySwap" not in body["HostConfig"]:
        body["HostConfig"]["MemorySwap"] = body["HostConfig"]["Memory"]  # the limit is the limit, no swap on top
    body["Labels"] |= {
        LABEL_CONTAINER: execution.container_id,
        LABEL_TASK: execution.task_id,
        LABEL_FRAMEWORK: execution.framework_id,
        LABEL_AGENT: owner,
        LABEL_SANDBOX: execution.sandbox,
    }
    return body


def holder_body(shared: SharedNetwork, owner: str) -> dict[str, Any]:
    """The same for what holds a shared network, with its ports; it may do nothing else."""
    body: dict[str, Any] = {
        "Image": HOLDER_IMAGE,
        "Entrypoint": [PROGRAM],
        "User": "65534:65534",
        "Labels": {LABEL_HOLDER: shared.id, LABEL_AGENT: owner},
        "HostConfig": {
            "NetworkMode": shared.networks[0],
            "CapDrop": ["ALL"],
            "ReadonlyRootfs": True,
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no"},
        },
    }
    if shared.hostname:
        body["Hostname"] = shared.hostname
    _set_ports(body, shared.port_mappings)
    return body


def _binds(execution: Execution) -> list[str]:
    mounts = [(m.source, m.target, m.read_only) for m in execution.mounts]
    if execution.sandbox and all(target.rstrip("/") != SANDBOX_INSIDE for _, target, _ in mounts):
        mounts.insert(0, (execution.sandbox, SANDBOX_INSIDE, False))
    for source, target, _ in mounts:
        for path in (source, target):
            if ":" in path or not path.startswith("/"):
                raise Failed(f"volume path {path!r} must be absolute and hold no colon to be mounted by Docker")
    return [f"{source}:{target}:{'ro' if read_only else 'rw'}" for source, target, read_only in mounts]


def _network_mode(execution: Execution) -> str:
    if execution.shared is not None:
        return f"container:{container_name(execution.shared.id)}"
    mode = execution.docker.network if execution.docker is not None else NetworkMode.HOST
    if mode is not NetworkMode.USER:
        return mode.value.lower()
    if not execution.network:
        raise Failed(f"task {execution.task_id} asks for a user network but names none; name it in networkInfos")
    return execution.network


def _set_limits(host: dict[str, Any], execution: Execution) -> None:
    if execution.cpu_milli > 0:
        host["CpuShares"] = max(2, execution.cpu_milli * 1024 // 1000)  # 2 is the least the kernel takes
    if execution.cpu_limit_milli is not None:
        host["NanoCpus"] = execution.cpu_limit_milli * 1_000_000
    if execution.mem_mb is not None:
        host["Memory"] = max(execution.mem_mb, LEAST_MEMORY_MB) << 20


def _set_ports(body: dict[str, Any], mappings: Iterable[PortMapping]) -> None:
    mode = body["HostConfig"]["NetworkMode"]
    if not mappings or mode in ("host", "none") or mode.startswith("container:"):
        return
    exposed: dict[str, Any] = {}
    bound: dict[str, list[dict[str, str]]] = {}
    for mapping in mappings:
        for protocol in mapping.protocol.lower().split(","):
            inside = f"{mapping.container_port}/{protocol.strip()}"
            exposed[inside] = {}
            if mapping.host_port:
                bound.setdefault(inside, []).append({"HostPort": str(mapping.host_port)})
    body["ExposedPorts"] = exposed
    body["HostConfig"]["PortBindings"] = bound


def port_mappings(execution: Execution) -> tuple[PortMapping, ...]:
    """The ports as settled by the agent, else as the image's container asked for them."""
    if execution.port_mappings or execution.docker is None or execution.shared is not None:
        return execution.port_mappings
    return execution.docker.port_mappings


def _set_command(body: dict[str, Any], execution: Execution) -> None:
    if not execution.argv:
        return
    if execution.entrypoint_args:
        body["Cmd"] = list(execution.argv)
        return
    # A flag `entrypoint` takes the place of the program, such as /bin/bash for the /bin/sh of a shell command.
    body.setdefault("Entrypoint", [execution.argv[0]])
    body["Cmd"] = list(execution.argv[1:])


def _set_environment(body: dict[str, Any], execution: Execution) -> None:
    environment = (
        {"MESOS_CONTAINER_NAME": container_name(execution.container_id)}
        | dict(execution.environment)
        | {name: secret.reveal().decode() for name, secret in execution.hidden}
    )
    bare: list[str] = []
    for given in body.get("Env", ()):
        key, equals, value = given.partition("=")
        if equals:
            environment[key] = value
        else:
            bare.append(key)  # takes the image's variable away
            environment.pop(key, None)
    body["Env"] = [f"{key}={value}" for key, value in environment.items()] + bare


def _set_aliases(body: dict[str, Any]) -> None:
    aliases = body.pop("corral.aliases", [])
    if not aliases:
        return
    network = body["HostConfig"]["NetworkMode"]
    if network in ("host", "bridge", "none"):
        raise Failed(f"docker parameter net-alias needs a user network, not {network}")
    body["NetworkingConfig"] = {"EndpointsConfig": {network: {"Aliases": aliases}}}


# What the Engine tells.


def read_launched(container_id: ContainerId, inspected: Mapping[str, Any]) -> Launched:
    """Pid and addresses of a container from the Engine's `inspect`."""
    state = inspected.get("State") or {}
    found = read_addresses(inspected)
    ip = found[0][1] if found else None
    return Launched(container_id=container_id, pid=state.get("Pid") or None, ip=ip, more_ips=found[1:])


def read_addresses(inspected: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The container's networks with its address there: its first, then the others by name; none on the host's."""
    settings = inspected.get("NetworkSettings") or {}
    first = (inspected.get("HostConfig") or {}).get("NetworkMode")
    networks = sorted((settings.get("Networks") or {}).items(), key=lambda pair: (pair[0] != first, pair[0]))
    return tuple((name, n["IPAddress"]) for name, n in networks if n and n.get("IPAddress"))


def is_running(inspected: Mapping[str, Any]) -> bool:
    return bool((inspected.get("State") or {}).get("Running"))


def labels_of(inspected: Mapping[str, Any]) -> dict[str, str]:
    return (inspected.get("Config") or {}).get("Labels") or {}


def has_ended(inspected: Mapping[str, Any]) -> bool:
    """Whether it ran and ended. Shapes: False for one that was created and never started."""
    state = inspected.get("State") or {}
    return not state.get("Running") and state.get("Status") != "restarting" and not never_started(inspected)


def never_started(inspected: Mapping[str, Any]) -> bool:
    """Whether no process of it ever ran, also when a start was tried."""
    state = inspected.get("State") or {}
    # After a start that failed the Engine shows it as exited; only the instant tells that it never began.
    return state.get("Status") == "created" or str(state.get("StartedAt") or "").startswith("0001-")


def read_exit(container_id: ContainerId, inspected: Mapping[str, Any], oom_kills: int | None) -> Exit:
    """How an ended container ended.

    Shapes: `oom_kills` is the count of the container's own cgroup where it could be read. It overrules the Engine,
    which marks every container below a cgroup that ran out of memory. A code of 128+n is a death by signal n.
    """
    state = inspected.get("State") or {}
    code = int(state.get("ExitCode") or 0)
    limited = bool((inspected.get("HostConfig") or {}).get("Memory"))
    killed_for_memory = oom_kills > 0 if oom_kills is not None else bool(state.get("OOMKilled")) and limited
    signum = code - 128 if 128 < code <= 128 + _LAST_SIGNAL else None
    return Exit(
        container_id=container_id,
        code=code if signum is None else None,
        signal=signum,
        oom=killed_for_memory and code != 0,
        message=str(state.get("Error") or ""),
        at=_read_instant(str(state.get("FinishedAt") or "")),
    )


def _read_instant(text: str) -> float:
    try:
        return max(0.0, parse_timestamp(text))
    except (Invalid, OverflowError, ValueError):
        return 0.0


def read_found(inspected: Mapping[str, Any], oom_kills: int | None = None) -> Found | None:
    """What a restarted agent finds; None for a container that is not one of an agent's."""
    labels = labels_of(inspected)
    if LABEL_CONTAINER not in labels:
        return None
    container_id = ContainerId(labels[LABEL_CONTAINER])
    ended = has_ended(inspected)
    return Found(
        container_id=container_id,
        task_id=TaskId(labels.get(LABEL_TASK, "")),
        framework_id=FrameworkId(labels.get(LABEL_FRAMEWORK, "")),
        launched=None if ended else read_launched(container_id, inspected),
        exit=read_exit(container_id, inspected, oom_kills) if ended else None,
    )


_PORT_TAKEN = re.compile(
    r"(?:listen \w+ \S*?:(\d+): bind: address already in use|Bind for \S*?:(\d+) failed: port is already allocated)"
)
_NO_NETWORK = re.compile(r"\bnetwork (\S+) not found")
_NO_PROGRAM = re.compile(r'exec: \\*"([^"\\]*)\\*": (?:executable file not found|stat [^:]*: no such file)')
_NO_FILE = re.compile(r'(?:exec|stat|exec:?) \\*"?([^"\\:]+)\\*"?: no such file or directory')
_NO_RIGHT = re.compile(r'exec: \\*"([^"\\]*)\\*": permission denied')


def explain_start(execution: Execution, error: CorralError) -> Failed:
    """The Engine's refusal to start a container in words that say what to do."""
    words = error.message
    image = execution.docker.image if execution.docker is not None else ""
    if match := _PORT_TAKEN.search(words):
        port = match[1] or match[2]
        return Failed(
            f"port {port} on this host is taken by another program; free it or let the task have another port"
        )
    if match := _NO_NETWORK.search(words):
        return Failed(
            f"network {match[1]} not found on this node; make it there with docker network create {match[1]}, or "
            "launch elsewhere"
        )
    if match := _NO_PROGRAM.search(words) or _NO_FILE.search(words):
        return Failed(f"command {match[1]!r} not found in image {image}; check the command and the image's PATH")
    if match := _NO_RIGHT.search(words):
        return Failed(f"command {match[1]!r} in image {image} may not be executed; make it executable")
    return Failed(f"Docker did not start task {execution.task_id} from image {image}: {_shorten(words)}")


def explain_pull(image: str, error: CorralError) -> Failed:
    return Failed(
        f"image {image}: not found on this node and pulling it failed: {_shorten(error.message)}; "
        "check its name and that its registry can be reached"
    )


def _shorten(words: str, most: int = 600) -> str:
    flat = " ".join(words.split()).rstrip(".")
    return flat if len(flat) <= most else flat[: most - 1] + "…"
