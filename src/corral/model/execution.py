"""One run of a task on its node: what a runtime is given and what it tells.

Everything is settled here: paths are absolute, the environment is whole, the runtime only has to do it.
"""

from typing import Any

import msgspec

from corral.model.container import DockerInfo, PortMapping
from corral.model.ids import ContainerId, FrameworkId, TaskId


class Mount(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `source` is an absolute path on the host; `target` is absolute inside an image's file system."""

    source: str
    target: str
    read_only: bool = False


class Bound(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """When the run has to end without anybody's order.

    Shapes: `contact` is the file in which the agent says when a master last heard of it; with `strict` the run never
    counts from its own start.

    Units: `stop_after_s` from that contact, `grace_s` between SIGTERM and SIGKILL.
    """

    contact: str
    stop_after_s: float
    grace_s: float
    strict: bool = True


class SharedNetwork(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One network namespace for several runs. Shapes: `id` is that of the executor's container, the same for all runs
    that share it; `networks` are names, at least one, the first of which gives the address.
    """

    id: ContainerId
    networks: tuple[str, ...]
    port_mappings: tuple[PortMapping, ...] = ()
    hostname: str | None = None


class Execution(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `argv` is complete (a shell command is already `/bin/sh -c ...`); empty runs the image's own command.

    With an image, `entrypoint_args` tells that `argv` are arguments for the image's entrypoint instead of replacing it.
    `sandbox` is the run's directory on the host; stdout and stderr are written to files of these names in it.
    `network` names the network when the image's container asks for a user network, `more_networks` those beside it.
    Units: `cpu_milli` thousandths of a core as weight, `cpu_limit_milli` as hard cap, `mem_mb` the memory limit; None
    sets none.

    `secrets` are variables and `secret_files` targets, each with the source of its value; the agent fetches the values
    when it starts the run: `hidden` are variables, with a `Secret` each, that go to no disk, `hidden_file` a file in
    memory that holds them as JSON instead, `registries` a `Secret` with the credentials to pull the image with.

    With `shared` it joins that network and has none of its own. With `at_home` it runs in its sandbox unless its image
    names a directory.
    """

    container_id: ContainerId
    task_id: TaskId
    framework_id: FrameworkId
    sandbox: str
    argv: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    docker: DockerInfo | None = None
    entrypoint_args: bool = False
    hostname: str | None = None
    network: str | None = None
    more_networks: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    port_mappings: tuple[PortMapping, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    cpu_milli: int = 0
    cpu_limit_milli: int | None = None
    mem_mb: int | None = None
    secrets: tuple[tuple[str, str], ...] = ()
    secret_files: tuple[tuple[str, str], ...] = ()
    hidden: tuple[tuple[str, Any], ...] = ()
    hidden_file: str = ""
    registries: Any = None
    bound: Bound | None = None
    shared: SharedNetwork | None = None
    at_home: bool = False


class Launched(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `pid` of the task's first process on the host; `ip` is its own address, None on the host's network.

    `more_ips` are further networks by their names, in order of these, with its address there.
    """

    container_id: ContainerId
    pid: int | None = None
    ip: str | None = None
    more_ips: tuple[tuple[str, str], ...] = ()


class Exit(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How a run ended. Shapes: exactly one of `code` and `signal`, or neither when nobody saw it.

    `oom` tells that the kernel ended it for memory, `fenced` that it was ended for its agent was cut off and did not do
    it itself; `at` is float seconds UTC.
    """

    container_id: ContainerId
    code: int | None = None
    signal: int | None = None
    oom: bool = False
    message: str = ""
    at: float = 0.0
    fenced: bool = False


class Found(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a restarted agent finds. Shapes: `exit` is set when it has ended."""

    container_id: ContainerId
    task_id: TaskId
    framework_id: FrameworkId
    launched: Launched | None = None
    exit: Exit | None = None
