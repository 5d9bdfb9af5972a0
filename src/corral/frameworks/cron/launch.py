"""A job and a run of it to what the kernel understands: the want it states and the task it launches.

Source: Chronos' contract, sections 1.3 to 1.5; Mesos v1 TaskInfo.
"""

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache

from corral.frameworks.cron.spec import Config, Container, JobSpec, Run
from corral.frameworks.cron.state import digest
from corral.lib.errors import Invalid
from corral.lib.units import format_timestamp
from corral.model import container as wire
from corral.model.constraints import HOSTNAME, Constraint, Operator, check_constraint
from corral.model.ids import TaskId, WantId
from corral.model.offer import Want
from corral.model.resources import normal, scalar
from corral.model.task import INSTANCE_LABEL, RESULT_LABEL, CommandInfo, Label, TaskInfo, Uri
from corral.sdk.match import Placement

MOST_TASK_ID = 255
HIGH_PRIORITY = 1
_PRESENT = r"(?s).*"
_FETCHED = ("http://", "https://", "ftp://", "ftps://")


def cpus_of(spec: JobSpec, config: Config) -> float:
    return spec.cpus or config.default_cpus


def mem_of(spec: JobSpec, config: Config) -> float:
    return spec.mem_mb or config.default_mem_mb


def disk_of(spec: JobSpec, config: Config) -> float:
    return spec.disk_mb or config.default_disk_mb


def make_want(spec: JobSpec, config: Config) -> Want:
    """The demand of every run of this shape; jobs of equal shape share it. Shapes: its count is 0."""
    amounts = cpus_of(spec, config), mem_of(spec, config), disk_of(spec, config)
    runtime = "docker" if spec.container is not None else "process"
    return _want_of(amounts, spec.constraints, runtime, HIGH_PRIORITY if spec.high_priority else 0, config.role)


@lru_cache(maxsize=1024)
def _want_of(
    amounts: tuple[float, float, float], given: tuple[tuple[str, str, str], ...], runtime: str, priority: int, role: str
) -> Want:
    resources = normal(tuple(scalar(*each) for each in zip(("cpus", "mem", "disk"), amounts, strict=True)))
    constraints = tuple(c for one in given for c in read_constraint(one))
    shape = digest(resources, constraints, runtime, priority)
    return Want(
        id=WantId(f"cron-{shape}"), role=role, count=0, resources=resources, constraints=constraints,
        priority=priority, runtime=runtime,
    )  # fmt: skip


def read_constraint(constraint: tuple[str, str, str]) -> tuple[Constraint, ...]:
    """Chronos' operators in the kernel's vocabulary. An agent without the attribute never matches, UNLIKE included.

    Errors: `Invalid` for an operator that is not known or an expression that cannot be compiled.
    """
    field, operator, value = constraint
    field = HOSTNAME if field == "hostname" else field
    found: tuple[Constraint, ...]
    match operator.upper():
        case "EQUALS":
            found = (Constraint(field=field, operator=Operator.EQUAL, values=(value,)),)
        case "LIKE":
            found = (Constraint(field=field, operator=Operator.MATCH, values=(value,)),)
        case "UNLIKE":
            found = (
                Constraint(field=field, operator=Operator.MATCH, values=(_PRESENT,)),
                Constraint(field=field, operator=Operator.MISMATCH, values=(value,)),
            )
        case _:
            raise Invalid(f"constraint {list(constraint)} has the operator {operator!r}; use EQUALS, LIKE or UNLIKE")
    for one in found:
        check_constraint(one)
    return found


def name_task(run: Run, attempt: int, token: int, arguments: str) -> TaskId:
    """`ct:<due>:<attempt>:<job>:<arguments>:<token>`, arguments left out where a name may not hold them.

    Deviates: the token is a sixth part, so that no two launches ever share an id.
    """
    tail = f":{token}"
    head = f"ct:{run.due}:{attempt}:{run.job.replace('/', '.')}:"
    text = arguments.replace(";", "")
    if re.search(r"[/\\:\s\x00-\x1f\x7f]", text) or len((head + text + tail).encode()) > MOST_TASK_ID:
        text = ""
    return TaskId(head + text + tail)


def build_task(spec: JobSpec, run: Run, placement: Placement, config: Config) -> TaskInfo:
    """The task of one launch. Shapes: `run` already has its token, task id and agent."""
    assert run.task_id is not None
    container = spec.container
    return TaskInfo(
        task_id=run.task_id,
        name=f"ChronosTask:{spec.name}",
        agent_id=placement.offer.agent_id,
        resources=placement.resources,
        command=_make_command(
            spec, run, tuple(_environment(spec, run, placement.offer.hostname, config).items()), _user_of(spec, config)
        ),
        container=None if container is None else make_container(container),
        max_completion_s=float(spec.most_run_s) if spec.most_run_s > 0 else None,
        labels=tuple(_labels(spec, run)),
        omits_starting=True,
    )


def _labels(spec: JobSpec, run: Run) -> Iterator[Label]:
    yield Label(key="corral.job", value=spec.name)
    yield Label(key=INSTANCE_LABEL, value=f"{spec.name}@{run.due}")
    if spec.result:
        yield Label(key=RESULT_LABEL, value=spec.result)


def _user_of(spec: JobSpec, config: Config) -> str | None:
    """Shapes: None leaves it to the image, or to the framework's user.

    A listing shows the server's user with every job, so one that says no more has said nothing of its image's.
    """
    if spec.container is not None and spec.user == config.user:
        return None
    return spec.user or None


def _make_command(spec: JobSpec, run: Run, environment: tuple[tuple[str, str], ...], user: str | None) -> CommandInfo:
    uris = [
        Uri(value=f.uri, executable=f.executable, cache=f.cache, extract=f.extract, output_file=f.output_file or None)
        for f in spec.fetch
    ]
    uris += [Uri(value=uri) for uri in spec.uris]
    command = spec.command
    if command.lower().startswith(_FETCHED):
        uris.append(Uri(value=command, executable=True, extract=False))
        command = "./" + (command.partition("?")[0].rstrip("/").rpartition("/")[2] or "command")
    if spec.shell and command:
        text = f"{command} {run.arguments}" if run.arguments else command
        return CommandInfo(value=text, environment=environment, uris=tuple(uris), user=user)
    words = (*spec.arguments, *_split(run.arguments))
    if command and spec.container is None:
        words = (command, *words)
    return CommandInfo(
        value=command or None, shell=False, arguments=words, environment=environment, uris=tuple(uris), user=user
    )


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        # Checked when the run was asked for; a text that cannot be split is one word.
        return (text,)


def _environment(spec: JobSpec, run: Run, hostname: str, config: Config) -> dict[str, str]:
    found = dict(spec.env)
    found.update(run.values)
    found.update(parameter_values(spec, run))
    found.update(_own_variables(spec, run, hostname, config))
    return found


def parameter_values(spec: JobSpec, run: Run) -> Iterator[tuple[str, str]]:
    for parameter in spec.parameters:
        value = run.parameters.get(parameter.name, parameter.default)
        if value is not None:
            yield parameter.name, value


def _own_variables(spec: JobSpec, run: Run, hostname: str, config: Config) -> dict[str, str]:
    """What the framework tells every task; a job's own variables never replace these."""
    return {
        "MESOS_TASK_ID": run.task_id or "",
        "mesos_task_id": run.task_id or "",
        "CHRONOS_JOB_NAME": spec.name,
        "CHRONOS_JOB_OWNER": spec.owner,
        "CHRONOS_JOB_RUN_TIME": str(run.due),
        "CHRONOS_JOB_RUN_ATTEMPT": str(run.attempt),
        "CHRONOS_RESOURCE_CPU": str(float(cpus_of(spec, config))),
        "CHRONOS_RESOURCE_MEM": str(float(mem_of(spec, config))),
        "CHRONOS_RESOURCE_DISK": str(float(disk_of(spec, config))),
        "HOST": hostname,
        "CORRAL_FENCING_TOKEN": str(run.token),
        "CORRAL_RUN_DUE": format_timestamp(run.due / 1000),
        "CORRAL_RUN_CAUSE": str(run.cause),
        "CORRAL_RUN_ROUND": run.round,
    }


_NETWORKS = {
    "HOST": wire.NetworkMode.HOST, "BRIDGE": wire.NetworkMode.BRIDGE, "USER": wire.NetworkMode.USER,
    "NONE": wire.NetworkMode.NONE,
}  # fmt: skip


def make_container(container: Container) -> wire.ContainerInfo:
    docker = wire.DockerInfo(
        image=container.image,
        network=_NETWORKS[container.network],
        parameters=tuple(wire.Parameter(key=k, value=v) for k, v in container.parameters),
        force_pull_image=container.force_pull_image,
    )
    volumes = tuple(
        wire.Volume(container_path=v.container_path, host_path=v.host_path, mode=wire.VolumeMode(v.mode))
        for v in container.volumes
    )
    networks = tuple(wire.NetworkInfo(name=n.name, labels=n.labels) for n in container.networks if n.name)
    if not networks and container.network_name:
        networks = (wire.NetworkInfo(name=container.network_name),)
    return wire.ContainerInfo(
        kind=wire.ContainerKind.DOCKER, docker=docker, volumes=volumes,
        network_infos=networks if container.network == "USER" else (),
    )  # fmt: skip
