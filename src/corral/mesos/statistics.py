"""Writes what the containers of an agent may use and use: `/monitor/statistics`, `/containers` and GET_CONTAINERS.

Source: Mesos v1 contract, agent endpoints; `ResourceStatistics` of its agent API.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from corral.mesos.flat import Json
from corral.mesos.tasks import write_container_status
from corral.model.ids import ContainerId
from corral.model.task import ContainerStatus


class Usage(Protocol):
    """What a container uses. Units: seconds of processor time, bytes."""

    @property
    def user_s(self) -> float: ...
    @property
    def system_s(self) -> float: ...
    @property
    def rss_bytes(self) -> int: ...
    @property
    def processes(self) -> int: ...


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One container and what it uses, None where nobody can tell.

    Shapes: `path` is its id and those around it, the nearest first; `executor` is empty when it is of none. Units:
    thousandths of cpus and of MB, None for no limit.
    """

    path: tuple[ContainerId, ...]
    framework: str = ""
    executor: str = ""
    name: str = ""
    source: str = ""
    status: ContainerStatus | None = None
    cpus_milli: int | None = None
    mem_milli: int | None = None
    usage: Usage | None = None


def write_usage(found: Measured, at: float) -> Json:
    """Units: `at` float seconds UTC."""
    made: Json = {"timestamp": at}
    if found.cpus_milli is not None:
        made["cpus_limit"] = found.cpus_milli / 1000
    if found.mem_milli is not None:
        made["mem_limit_bytes"] = found.mem_milli * 1024 * 1024 // 1000
    if found.usage is not None:
        made["cpus_user_time_secs"] = found.usage.user_s
        made["cpus_system_time_secs"] = found.usage.system_s
        made["mem_rss_bytes"] = found.usage.rss_bytes
        made["processes"] = found.usage.processes
    return made


def write_statistics(rows: Iterable[Measured], at: float) -> list[Json]:
    """`/monitor/statistics`: the containers of executors, command tasks among them. Units: `at` float seconds UTC."""
    return [_write_row(row, at) for row in rows if row.executor and len(row.path) == 1]


def write_containers(rows: Sequence[Measured], at: float) -> list[Json]:
    """`/containers`. Units: `at` float seconds UTC."""
    return [
        {
            **_write_row(row, at),
            "container_id": row.path[0],
            "status": write_container_status(row.status) if row.status is not None else {},
        }
        for row in rows
    ]


def _write_row(row: Measured, at: float) -> Json:
    named: Json = {}
    if row.executor:
        named = {
            "executor_id": row.executor,
            "executor_name": row.name,
            "framework_id": row.framework,
            "source": row.source,
        }
    return {**named, "statistics": write_usage(row, at)}
