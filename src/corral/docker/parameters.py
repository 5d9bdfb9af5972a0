"""Reads the `parameters` of a Docker container: flags of `docker run`, each turned into fields of the Engine's API.

One table says what is understood. What is not, or would take the container out of the agent's hands, is refused by name
rather than dropped. Source: Mesos v1 DockerInfo.parameters; Docker `run` reference; Engine API 1.41.
"""

from collections.abc import Callable, Iterable
from typing import Any

from corral.lib.errors import CorralError, Failed
from corral.lib.units import parse_bytes, parse_duration_s
from corral.model.container import Parameter

Body = dict[str, Any]
Setter = Callable[[Body, str], None]


def _host(body: Body) -> Body:
    found: Body = body.setdefault("HostConfig", {})
    return found


def _flag(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in ("", "true", "1", "t"):
        return True
    if lowered in ("false", "0", "f"):
        return False
    raise Failed(f"{value!r} is neither true nor false")


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise Failed(f"{value!r} is not a whole number") from None


def _nano_cpus(value: str) -> int:
    try:
        return round(float(value) * 1_000_000_000)
    except ValueError:
        raise Failed(f"{value!r} is not a number of cpus") from None


def _bytes_or_unlimited(value: str) -> int:
    return -1 if value.strip() == "-1" else parse_bytes(value)


def _pair(value: str) -> tuple[str, str]:
    key, _, rest = value.partition("=")
    if not key:
        raise Failed(f"{value!r} is not KEY=VALUE")
    return key, rest


def _text(value: str) -> str:
    return value


def _own(field: str, read: Callable[[str], Any] = _text) -> Setter:
    """Set one field of the container itself."""

    def put(body: Body, value: str) -> None:
        body[field] = read(value)

    return put


def _on_host(field: str, read: Callable[[str], Any] = _text) -> Setter:
    """Set one field of its HostConfig."""

    def put(body: Body, value: str) -> None:
        _host(body)[field] = read(value)

    return put


def _more(field: str, read: Callable[[str], Any] = _text) -> Setter:
    """Append to a list in HostConfig."""

    def put(body: Body, value: str) -> None:
        _host(body).setdefault(field, []).append(read(value))

    return put


def _entry(field: str, read: Callable[[str], tuple[str, Any]] = _pair) -> Setter:
    """Add an entry to a map in HostConfig."""

    def put(body: Body, value: str) -> None:
        key, content = read(value)
        _host(body).setdefault(field, {})[key] = content

    return put


def _put_label(body: Body, value: str) -> None:
    key, content = _pair(value)
    if key.startswith("corral."):
        raise Failed(f"label {key!r} is the agent's own")
    body.setdefault("Labels", {})[key] = content


def _put_env(body: Body, value: str) -> None:
    body.setdefault("Env", []).append(value)


def _put_volume(body: Body, value: str) -> None:
    if ":" in value:
        _host(body).setdefault("Binds", []).append(value)
    else:
        body.setdefault("Volumes", {})[value] = {}


def _ulimit(value: str) -> Body:
    name, limits = _pair(value)
    soft, _, hard = limits.partition(":")
    return {"Name": name, "Soft": _whole(soft), "Hard": _whole(hard or soft)}


def _device(value: str) -> Body:
    outside, _, rest = value.partition(":")
    inside, _, rights = rest.partition(":")
    if inside and not inside.startswith("/"):
        inside, rights = "", inside
    return {"PathOnHost": outside, "PathInContainer": inside or outside, "CgroupPermissions": rights or "rwm"}


def _tmpfs(value: str) -> tuple[str, str]:
    path, _, options = value.partition(":")
    return path, options


def _put_log_driver(body: Body, value: str) -> None:
    # The default driver's bounds mean nothing to another driver, which would refuse them.
    _host(body)["LogConfig"] = {"Type": value, "Config": {}}


def _put_log_option(body: Body, value: str) -> None:
    key, content = _pair(value)
    _host(body).setdefault("LogConfig", {"Type": "json-file", "Config": {}})["Config"][key] = content


def _put_health_none(body: Body, value: str) -> None:
    if _flag(value):
        body["Healthcheck"] = {"Test": ["NONE"]}


def _put_alias(body: Body, value: str) -> None:
    body.setdefault("corral.aliases", []).append(value)  # `containers` moves them to the network they belong to


def _seconds(value: str) -> int:
    return round(parse_duration_s(value))


PARAMETERS: dict[str, Setter] = {
    "add-host": _more("ExtraHosts"),
    "blkio-weight": _on_host("BlkioWeight", _whole),
    "cap-add": _more("CapAdd"),
    "cap-drop": _more("CapDrop"),
    "cgroupns": _on_host("CgroupnsMode"),
    "cpu-period": _on_host("CpuPeriod", _whole),
    "cpu-quota": _on_host("CpuQuota", _whole),
    "cpu-shares": _on_host("CpuShares", _whole),
    "cpus": _on_host("NanoCpus", _nano_cpus),
    "cpuset-cpus": _on_host("CpusetCpus"),
    "cpuset-mems": _on_host("CpusetMems"),
    "device": _more("Devices", _device),
    "device-cgroup-rule": _more("DeviceCgroupRules"),
    "dns": _more("Dns"),
    "dns-opt": _more("DnsOptions"),
    "dns-option": _more("DnsOptions"),
    "dns-search": _more("DnsSearch"),
    "domainname": _own("Domainname"),
    "entrypoint": _own("Entrypoint", lambda value: [value] if value else [""]),
    "env": _put_env,
    "group-add": _more("GroupAdd"),
    "hostname": _own("Hostname"),
    "init": _on_host("Init", _flag),
    "ipc": _on_host("IpcMode"),
    "label": _put_label,
    "log-driver": _put_log_driver,
    "log-opt": _put_log_option,
    "mac-address": _own("MacAddress"),
    "memory": _on_host("Memory", parse_bytes),
    "memory-reservation": _on_host("MemoryReservation", parse_bytes),
    "memory-swap": _on_host("MemorySwap", _bytes_or_unlimited),
    "memory-swappiness": _on_host("MemorySwappiness", _whole),
    "net-alias": _put_alias,
    "network-alias": _put_alias,
    "no-healthcheck": _put_health_none,
    "oom-kill-disable": _on_host("OomKillDisable", _flag),
    "oom-score-adj": _on_host("OomScoreAdj", _whole),
    "pid": _on_host("PidMode"),
    "pids-limit": _on_host("PidsLimit", _whole),
    "privileged": _on_host("Privileged", _flag),
    "read-only": _on_host("ReadonlyRootfs", _flag),
    "runtime": _on_host("Runtime"),
    "security-opt": _more("SecurityOpt"),
    "shm-size": _on_host("ShmSize", parse_bytes),
    "stop-signal": _own("StopSignal"),
    "stop-timeout": _own("StopTimeout", _seconds),
    "storage-opt": _entry("StorageOpt"),
    "sysctl": _entry("Sysctls"),
    "tmpfs": _entry("Tmpfs", _tmpfs),
    "ulimit": _more("Ulimits", _ulimit),
    "user": _own("User"),
    "userns": _on_host("UsernsMode"),
    "uts": _on_host("UTSMode"),
    "volume": _put_volume,
    "volume-driver": _on_host("VolumeDriver"),
    "volumes-from": _more("VolumesFrom"),
    "workdir": _own("WorkingDir"),
}
"""What each flag sets. A flag given twice adds to a list and replaces anything else, as on the command line."""

SHORT = {
    "a": "attach", "c": "cpu-shares", "d": "detach", "e": "env", "h": "hostname", "i": "interactive", "l": "label",
    "m": "memory", "P": "publish-all", "p": "publish", "t": "tty", "u": "user", "v": "volume", "w": "workdir",
}  # fmt: skip

REFUSED = {
    "attach": "the agent follows the output itself",
    "cgroup-parent": "the agent owns the place of its containers among the cgroups",
    "cidfile": "the container id is in the task's status",
    "detach": "every task is detached",
    "interactive": "a task has no terminal; use corral exec -it",
    "name": "the agent names its containers to find them again",
    "net": "the network is said by the container's own network field",
    "network": "the network is said by the container's own network field",
    "publish": "ports are said by portMappings",
    "publish-all": "ports are said by portMappings",
    "restart": "a task that ended is restarted by its framework, not behind its back by Docker",
    "rm": "the agent removes ended containers",
    "tty": "a task has no terminal; use corral exec -it",
}
"""Flags that would take the container out of the agent's hands, and what to do instead."""


def apply_parameters(body: Body, parameters: Iterable[Parameter]) -> None:
    """Set on `body` what these flags ask for, in their order.

    Errors: `Failed` names a flag that is unknown, refused or has a value that it does not take.
    """
    for parameter in parameters:
        given = parameter.key.strip().lstrip("-")
        key = SHORT.get(given, given)
        if why := REFUSED.get(key):
            raise Failed(f"docker parameter {parameter.key!r} is not allowed: {why}")
        put = PARAMETERS.get(key)
        if put is None:
            raise Failed(
                f"docker parameter {parameter.key!r} is not one that this agent knows; leave it out or use one of: "
                + " ".join(PARAMETERS)
            )
        try:
            put(body, parameter.value)
        except CorralError as error:
            raise Failed(f"docker parameter {parameter.key}={parameter.value!r}: {error.message}") from None
        except (ValueError, OverflowError):
            raise Failed(f"docker parameter {parameter.key}={parameter.value!r}: no number of use") from None
