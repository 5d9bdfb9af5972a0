"""A job to what the kernel understands: the want its shape states and the task of one attempt.

Source: the batch contract, rules of the environment; Mesos v1 TaskInfo.
"""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha1

from corral.frameworks.batch.spec import Config, Container, Fetch, JobSpec, Progress
from corral.frameworks.batch.state import Job, name_task
from corral.lib.errors import Invalid
from corral.model import container as wire
from corral.model.constraints import HOSTNAME, Constraint, Operator, check_constraint, is_counting, looks_at_tasks
from corral.model.ids import AgentId, TaskId, WantId
from corral.model.offer import Offer, Want
from corral.model.resources import Resources, normal, scalar
from corral.model.task import INSTANCE_LABEL, CommandInfo, Label, TaskInfo, Uri

_WORDS = {
    "EQUALS": Operator.EQUAL, "LIKE": Operator.MATCH, "UNLIKE": Operator.MISMATCH, "EQUAL": Operator.EQUAL,
    "UNEQUAL": Operator.UNEQUAL, "IN": Operator.IN, "REGEX": Operator.MATCH, "GLOB": Operator.GLOB,
    "RANGE": Operator.RANGE,
}  # fmt: skip


def make_want(spec: JobSpec, priority: int, config: Config) -> Want:
    """The demand of all jobs of this shape. Shapes: its count is 0."""
    resources = needed(spec.cpus, spec.mem, spec.disk, spec.gpus)
    constraints = tuple(read_constraint(each) for each in spec.constraints)
    runtime = "docker" if spec.image or spec.container else "process"
    text = repr((resources, constraints, runtime, priority))
    digest = sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]
    return Want(
        id=WantId(f"batch-{digest}"), role=config.role, count=0, resources=resources, constraints=constraints,
        priority=priority, runtime=runtime, preempts=False,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def needed(cpus: float, mem: float, disk: float, gpus: float) -> Resources:
    named = (("cpus", cpus), ("mem", mem), ("disk", disk), ("gpus", gpus))
    return normal(tuple(scalar(name, value) for name, value in named if value > 0))


def read_constraint(given: tuple[str, str, str]) -> Constraint:
    """Field, operator and value in the kernel's vocabulary.

    Errors: `Invalid` for an operator that is not known or that looks at other tasks, and for a broken expression.
    """
    field, word, value = given
    operator = _WORDS.get(word.upper())
    if operator is None:
        operator = next((each for each in Operator if each == word), None)
    if operator is None:
        raise Invalid(f"operator {word!r} is not known; use one of {', '.join(sorted(_WORDS))}")
    values = tuple(value.split(",")) if operator is Operator.IN else (value,)
    found = Constraint(field=HOSTNAME if field == "hostname" else field, operator=operator, values=values)
    check_constraint(found)
    if is_counting(found) or looks_at_tasks(found) or operator is Operator.SPREAD:
        raise Invalid(f"operator {word!r} looks at other tasks, and jobs do not know each other")
    return found


def build_task(job: Job, run: Progress, offer: Offer, resources: Resources) -> TaskInfo:
    """The task of one launch. Shapes: `run` already has its attempt and token."""
    spec = job.spec
    task_id = name_task(job.id, run.attempt)
    container = spec.container or (Container(image=spec.image) if spec.image else None)
    environment = tuple(_environment(job, run, task_id, offer.hostname))
    uris = tuple(_make_uri(each) for each in spec.fetch)
    user = spec.user or None
    if spec.argv or not spec.command:
        # In a container all words are handed to its entry point; as a process the first is what is run.
        first, words = (None, spec.argv) if container is not None else (spec.argv[0], spec.argv)
        command = CommandInfo(value=first, shell=False, arguments=words, environment=environment, uris=uris, user=user)
    else:
        command = CommandInfo(value=spec.command, environment=environment, uris=uris, user=user)
    return TaskInfo(
        task_id=task_id,
        name=spec.name or "batch",
        agent_id=AgentId(offer.agent_id),
        resources=resources,
        command=command,
        container=None if container is None else _make_container(container),
        max_completion_s=spec.timeout if spec.timeout > 0 else None,
        kill_grace_s=spec.grace,
        labels=_labels(job),
    )


def _labels(job: Job) -> tuple[Label, ...]:
    found = [Label(key="corral.job", value=job.id), Label(key=INSTANCE_LABEL, value=job.id)]
    found += [Label(key=key, value=value) for key, value in (job.spec.labels or {}).items()]
    return tuple(found)


def _environment(job: Job, run: Progress, task_id: TaskId, hostname: str) -> Iterator[tuple[str, str]]:
    """A job's own variables never replace those that are always there."""
    if job.spec.env:
        own = dict(_own_variables(job, run, task_id, hostname))
        yield from ((key, value) for key, value in job.spec.env.items() if key not in own)
    yield from _own_variables(job, run, task_id, hostname)


def _own_variables(job: Job, run: Progress, task_id: TaskId, hostname: str) -> Iterator[tuple[str, str]]:
    yield "CORRAL_JOB_ID", job.id
    yield "CORRAL_ATTEMPT", str(run.attempt)
    yield "CORRAL_OWNER", job.spec.owner
    yield "CORRAL_FENCING_TOKEN", str(run.token)
    yield "MESOS_TASK_ID", task_id
    yield "HOST", hostname
    if job.element is not None and job.array is not None:
        yield "CORRAL_ARRAY_INDEX", str(job.element)
        yield "CORRAL_ARRAY_COUNT", str(job.array.count)


def _make_uri(fetch: Fetch) -> Uri:
    return Uri(
        value=fetch.uri, executable=fetch.executable, cache=fetch.cache, extract=fetch.extract,
        output_file=fetch.output_file or None,
    )  # fmt: skip


_NETWORKS = {
    "host": wire.NetworkMode.HOST, "bridge": wire.NetworkMode.BRIDGE, "none": wire.NetworkMode.NONE,
}  # fmt: skip


def _make_container(container: Container) -> wire.ContainerInfo:
    network = _NETWORKS.get(container.network)
    docker = wire.DockerInfo(
        image=container.image,
        network=network or wire.NetworkMode.USER,
        parameters=tuple(wire.Parameter(key=k, value=v) for k, v in container.parameters),
        force_pull_image=container.force_pull_image,
    )
    volumes = tuple(
        wire.Volume(container_path=v.container_path, host_path=v.host_path, mode=wire.VolumeMode(v.mode))
        for v in container.volumes
    )
    networks = () if network is not None else (wire.NetworkInfo(name=container.network),)
    return wire.ContainerInfo(
        kind=wire.ContainerKind.DOCKER, docker=docker, volumes=volumes, network_infos=networks
    )  # fmt: skip
