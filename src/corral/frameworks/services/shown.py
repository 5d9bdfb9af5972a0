"""An app as Marathon's clients are shown it: exactly the keys that they accept, in the types that they expect.

Source: Marathon's contract, sections 2, 3 and 19.
"""

from typing import Any

from corral.frameworks.services.app_spec import (
    AppSpec,
    Container,
    ExternalVolume,
    Fetch,
    Network,
    NetworkSpec,
    PersistentVolume,
    PortDefinition,
    PortMapping,
    Unreachable,
)
from corral.frameworks.services.checks import write_health_check
from corral.frameworks.services.linux import write_linux
from corral.frameworks.services.readiness import write_check, write_readiness_check
from corral.frameworks.services.record_spec import AppRecord, GroupRecord, VersionRecord

Json = Any


def number(value: float) -> float | int:
    """Whole numbers without a fraction, as they were written."""
    return int(value) if value == int(value) else value


def write_rule(group: GroupRecord | None) -> dict[str, Json]:
    """That a group enforces its role. Shapes: nothing of one that does not, as older clients know no such field."""
    return {"enforceRole": True} if group is not None and group.enforce_role else {}


def write_app(spec: AppSpec) -> dict[str, Json]:
    """The definition alone; optional fields that are unset are left out."""
    out: dict[str, Json] = {
        "id": spec.id,
        "backoffFactor": number(spec.backoff_factor),
        "backoffSeconds": spec.backoff_s,
        "constraints": [list(c) for c in spec.constraints],
        "cpus": number(spec.cpus),
        "dependencies": list(spec.dependencies),
        "disk": number(spec.disk_mb),
        "env": {**spec.env, **{variable: {"secret": name} for variable, name in spec.env_secrets.items()}},
        "executor": spec.executor,
        "fetch": [write_fetch(f) for f in spec.fetch],
        "gpus": spec.gpus,
        "healthChecks": [write_health_check(c) for c in spec.health_checks],
        "instances": spec.instances,
        "killSelection": spec.kill_selection,
        "labels": spec.labels,
        "maxLaunchDelaySeconds": spec.most_backoff_s,
        "mem": number(spec.mem_mb),
        "networks": [write_network(n) for n in spec.networks],
        "readinessChecks": [] if spec.readiness is None else [write_readiness_check(spec.readiness)],
        "requirePorts": spec.require_ports,
        "unreachableStrategy": write_unreachable(spec.unreachable),
        "upgradeStrategy": {
            "minimumHealthCapacity": number(spec.upgrade.minimum_health_capacity),
            "maximumOverCapacity": number(spec.upgrade.maximum_over_capacity),
        },
    }
    if spec.cmd is not None:
        out["cmd"] = spec.cmd
    if spec.args:
        out["args"] = list(spec.args)
    if spec.secrets:
        out["secrets"] = {name: {"source": source} for name, source in spec.secrets.items()}
    if spec.user is not None:
        out["user"] = spec.user
    if spec.container is not None:
        out["container"] = _write_container(spec.container)
    if spec.network is Network.HOST:
        out["portDefinitions"] = [_write_definition(p) for p in spec.port_definitions or ()]
    if spec.kill_grace_s is not None:
        out["taskKillGracePeriodSeconds"] = spec.kill_grace_s
    if spec.accepted_resource_roles:
        out["acceptedResourceRoles"] = list(spec.accepted_resource_roles)
    if spec.role is not None:
        out["role"] = spec.role
    if spec.check is not None:
        out["check"] = write_check(spec.check)
    if spec.executor_resources:
        out["executorResources"] = {name: number(value) for name, value in spec.executor_resources.items()}
    if spec.residency is not None:
        out["residency"] = {
            "relaunchEscalationTimeoutSeconds": spec.residency.relaunch_after_s,
            "taskLostBehavior": str(spec.residency.task_lost),
        }
    if spec.limits:
        out["resourceLimits"] = {n: "unlimited" if v is None else number(v) for n, v in spec.limits}
    return out


def write_versioned(record: AppRecord | VersionRecord) -> dict[str, Json]:
    """The definition with its version, as every answer shows it."""
    out = write_app(record.spec)
    out["version"] = record.version
    out["versionInfo"] = {"lastScalingAt": record.scaled_at, "lastConfigChangeAt": record.configured_at}
    return out


def write_fetch(fetch: Fetch) -> Json:
    out: dict[str, Json] = {
        "uri": fetch.uri,
        "extract": fetch.extract,
        "executable": fetch.executable,
        "cache": fetch.cache,
    }
    return out if fetch.dest_path is None else {**out, "destPath": fetch.dest_path}


def write_network(network: NetworkSpec) -> Json:
    out: dict[str, Json] = {"mode": str(network.mode)}
    if network.name is not None:
        out["name"] = network.name
    if network.labels:
        out["labels"] = network.labels
    return out


def write_unreachable(strategy: Unreachable | None) -> Json:
    if strategy is None:
        return "disabled"
    return {
        "inactiveAfterSeconds": strategy.inactive_after_s,
        "expungeAfterSeconds": strategy.expunge_after_s,
    }


def _write_definition(port: PortDefinition) -> Json:
    out: dict[str, Json] = {"port": port.port, "protocol": port.protocol, "labels": port.labels}
    return out if port.name is None else {**out, "name": port.name}


def _write_mapping(port: PortMapping) -> Json:
    out: dict[str, Json] = {
        "containerPort": port.container_port,
        "servicePort": port.service_port,
        "protocol": port.protocol,
        "labels": port.labels,
    }
    if port.host_port is not None:
        out["hostPort"] = port.host_port
    if port.name is not None:
        out["name"] = port.name
    if port.network_names:
        out["networkNames"] = list(port.network_names)
    return out


def _write_persistent(volume: PersistentVolume) -> Json:
    persistent: dict[str, Json] = {"size": volume.size_mb, "type": volume.kind}
    if volume.most_mb is not None:
        persistent["maxSize"] = volume.most_mb
    if volume.constraints:
        persistent["constraints"] = [list(constraint) for constraint in volume.constraints]
    if volume.profile_name is not None:
        persistent["profileName"] = volume.profile_name
    return {"containerPath": volume.container_path, "mode": "RW", "persistent": persistent}


def _write_external(volume: ExternalVolume) -> Json:
    external: dict[str, Json] = {"name": volume.name, "provider": "dvdi", "options": volume.options}
    if volume.size_gb is not None:
        external["size"] = volume.size_gb
    if volume.shared:
        external["shared"] = True
    return {"containerPath": volume.container_path, "mode": volume.mode, "external": external}


def _write_container(container: Container) -> Json:
    out: dict[str, Json] = {
        "type": container.kind,
        "volumes": [
            *({"containerPath": v.container_path, "hostPath": v.host_path, "mode": v.mode} for v in container.volumes),
            *({"containerPath": v.container_path, "secret": v.secret} for v in container.secret_volumes),
            *(_write_persistent(v) for v in container.persistent_volumes),
            *(_write_external(v) for v in container.external_volumes),
        ],
    }
    if container.docker is not None:
        out["docker"] = {
            "image": container.docker.image,
            "forcePullImage": container.docker.force_pull_image,
            "privileged": container.docker.privileged,
            "parameters": [{"key": k, "value": v} for k, v in container.docker.parameters],
        }
        if container.docker.pull_config is not None:
            out["docker"]["pullConfig"] = {"secret": container.docker.pull_config}
    if container.linux is not None:
        out["linuxInfo"] = write_linux(container.linux)
    if container.port_mappings is not None:
        out["portMappings"] = [_write_mapping(m) for m in container.port_mappings]
    return out
