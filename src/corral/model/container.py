"""What a task's container asks for, in Mesos' vocabulary: Docker image, networks, volumes."""

from enum import StrEnum

import msgspec


class ContainerKind(StrEnum):
    DOCKER = "DOCKER"
    MESOS = "MESOS"


class VolumeMode(StrEnum):
    RW = "RW"
    RO = "RO"


class NetworkMode(StrEnum):
    HOST = "HOST"
    BRIDGE = "BRIDGE"
    NONE = "NONE"
    USER = "USER"


class Volume(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: a relative `host_path` lies in the sandbox; without one the volume is a fresh sandbox directory.

    `of_executor` when that sandbox is the executor's, which the tasks of a group share. With `secret` it is a file that
    holds what is kept under that name.
    """

    container_path: str
    mode: VolumeMode = VolumeMode.RW
    host_path: str | None = None
    of_executor: bool = False
    secret: str | None = None


class PortMapping(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `host_port` 0 lets nobody listen on the host."""

    container_port: int
    host_port: int = 0
    protocol: str = "tcp"


class Parameter(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One flag of `docker run`: `--key=value`."""

    key: str
    value: str


class DockerInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `pull_config` is the source of a secret that holds what `docker login` has written."""

    image: str
    network: NetworkMode = NetworkMode.HOST
    port_mappings: tuple[PortMapping, ...] = ()
    privileged: bool = False
    parameters: tuple[Parameter, ...] = ()
    force_pull_image: bool = False
    pull_config: str | None = None


class NetworkInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: in a request the wanted addresses, in a status the ones given; `name` None is the host's network."""

    name: str | None = None
    ip_addresses: tuple[str, ...] = ()
    port_mappings: tuple[PortMapping, ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()


class ContainerInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `share_cgroups` is False when a task of a group says that it has limits of its own. The `docker`
    of one of type MESOS is as `make_image` makes it.
    """

    kind: ContainerKind
    docker: DockerInfo | None = None
    volumes: tuple[Volume, ...] = ()
    hostname: str | None = None
    network_infos: tuple[NetworkInfo, ...] = ()
    share_cgroups: bool = True


def make_image(
    image: str, networks: tuple[NetworkInfo, ...], *, force_pull: bool = False, pull_config: str | None = None
) -> DockerInfo:
    """The image of a container of type MESOS, whose networks and ports its network infos say."""
    named = any(network.name for network in networks)
    return DockerInfo(
        image=image,
        network=NetworkMode.USER if named else NetworkMode.HOST,
        port_mappings=tuple(m for network in networks if network.name for m in network.port_mappings),
        force_pull_image=force_pull,
        pull_config=pull_config,
    )


def has_network(container: ContainerInfo | None) -> bool:
    """Whether it names a network of its own, and so does not share the node's or its executor's."""
    return container is not None and any(network.name for network in container.network_infos)
