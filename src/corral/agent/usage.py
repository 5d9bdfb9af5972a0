"""Measures what running tasks use: the process that a task was started as, and all below it.

The whole process table is read once, however many tasks are asked for.
"""

import asyncio
import os
from collections.abc import Collection, Iterator, Sequence

import msgspec

from corral.agent.spec import ContainerView
from corral.mesos.statistics import Measured
from corral.model.ids import ContainerId
from corral.model.resources import total_milli

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Units: seconds of processor time since the start, those of ended children included; bytes that are resident."""

    user_s: float
    system_s: float
    rss_bytes: int
    processes: int


async def measure_containers(views: Sequence[ContainerView]) -> list[Measured]:
    """All of these and what they use; an executor without a process uses what its tasks do."""
    used = await measure_usage([v.status.executor_pid for v in views if v.status.executor_pid is not None])
    own = {v.id: used.get(v.status.executor_pid) for v in views if v.status.executor_pid is not None}
    below: dict[ContainerId, list[Usage]] = {}
    for view in views:
        if view.parent is not None and (found := own.get(view.id)) is not None:
            below.setdefault(view.parent, []).append(found)
    return [
        Measured(
            path=(v.id,) if v.parent is None else (v.id, v.parent),
            framework=v.framework,
            executor=v.executor,
            name=v.name,
            source=v.source,
            status=v.status,
            cpus_milli=_limit(v, "cpus"),
            mem_milli=_limit(v, "mem"),
            usage=own.get(v.id) or (_add(below[v.id]) if v.id in below else None),
        )
        for v in views
    ]


def _limit(view: ContainerView, name: str) -> int | None:
    limits = dict(view.limits)
    return limits[name] if name in limits else total_milli(view.resources, name)


def _add(found: Sequence[Usage]) -> Usage:
    return Usage(
        user_s=round(sum(u.user_s for u in found), 3),
        system_s=round(sum(u.system_s for u in found), 3),
        rss_bytes=sum(u.rss_bytes for u in found),
        processes=sum(u.processes for u in found),
    )


class _Process:
    __slots__ = ("children", "rss_bytes", "system_s", "user_s")

    def __init__(self) -> None:
        self.children: list[int] = []
        self.user_s = self.system_s = 0.0
        self.rss_bytes = 0


async def measure_usage(pids: Collection[int]) -> dict[int, Usage]:
    """What each of these processes and its descendants use; one that is no more is missing."""
    return await asyncio.to_thread(_measure, frozenset(pids)) if pids else {}


def _measure(pids: frozenset[int]) -> dict[int, Usage]:
    table = _read_table()
    return {pid: _sum(table, pid) for pid in sorted(pids) if pid in table}


def _sum(table: dict[int, _Process], root: int) -> Usage:
    user_s = system_s = 0.0
    rss_bytes = processes = 0
    waiting = [root]
    while waiting:
        found = table[waiting.pop()]
        user_s += found.user_s
        system_s += found.system_s
        rss_bytes += found.rss_bytes
        processes += 1
        waiting += found.children
    return Usage(user_s=round(user_s, 3), system_s=round(system_s, 3), rss_bytes=rss_bytes, processes=processes)


def _read_table() -> dict[int, _Process]:
    table: dict[int, _Process] = {}
    parents: list[tuple[int, int]] = []
    for pid, fields in _stats():
        process = table[pid] = _Process()
        process.user_s = (int(fields[11]) + int(fields[13])) * _TICK_S
        process.system_s = (int(fields[12]) + int(fields[14])) * _TICK_S
        process.rss_bytes = int(fields[21]) * _PAGE
        parents.append((int(fields[1]), pid))
    for parent, pid in parents:
        if parent in table:
            table[parent].children.append(pid)
    return table


def _stats() -> Iterator[tuple[int, list[str]]]:
    """The fields of each process from its state on; its name before may hold anything."""
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue  # it has ended meanwhile
        yield int(name), text[text.rindex(")") + 2 :].split()
