"""A job to what the kernel understands: the want its shape states and the task of one attempt.

Source: the batch contract, rules of the environment; Mesos v1 TaskInfo.
"""

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


def build_task(job: Job, job_id: str, run: Progress, offer: Offer) -> TaskInfo:
    """The task of one launch, with all that the offer holds. Shapes: `run` already has its attempt and token."""
    spec = job.spec
    task_id = name_task(job_id, run.attempt)
    container = spec.container or (Container(image=spec.image) if spec.image else None)
    environment = _environment(job, job_id, run, task_id, offer.hostname)
    uris = tuple(_make_uri(each) for each in spec.fetch) if spec.fetch else ()
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
        resources=offer.resources,
        command=command,
        container=None if container is None else _make_container(container),
        max_completion_s=spec.timeout if spec.timeout > 0 else None,
        kill_grace_s=spec.grace,
        labels=_labels(spec, job_id),
        omits_starting=True,
    )


def _labels(spec: JobSpec, job_id: str) -> tuple[Label, ...]:
    own = (Label(key="corral.job", value=job_id), Label(key=INSTANCE_LABEL, value=job_id))
    if not spec.labels:
        return own
    return (*own, *(Label(key=key, value=value) for key, value in spec.labels.items()))


def _environment(
    job: Job, job_id: str, run: Progress, task_id: TaskId, hostname: str
) -> tuple[tuple[str, str], ...]:  # fmt: skip
    """A job's own variables never replace those that are always there."""
    own: tuple[tuple[str, str], ...] = (
        ("CORRAL_JOB_ID", job_id),
        ("CORRAL_ATTEMPT", str(run.attempt)),
        ("CORRAL_OWNER", job.spec.owner),
        ("CORRAL_FENCING_TOKEN", str(run.token)),
        ("MESOS_TASK_ID", task_id),
        ("HOST", hostname),
    )
    if job.element is not None and job.array is not None:
        own += (("CORRAL_ARRAY_INDEX", str(job.element)), ("CORRAL_ARRAY_COUNT", str(job.array.count)))
    if not job.spec.env:
        return own
    names = dict(own)
    return (*((key, value) for key, value in job.spec.env.items() if key not in names), *own)


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
