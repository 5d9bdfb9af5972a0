"""Runs one workload under one policy after another and sets them side by side. Every run starts from nothing.

What a clock has measured is kept apart from what was decided: the same trace and seed give the same of the latter.
"""

import gzip
import os
import platform
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from corral.allocator.allocator import Allocator
from corral.allocator.engine import Mode
from corral.allocator.start import choose_mode
from corral.allocator.strategies import STRATEGIES
from corral.allocator.view import Settings
from corral.lib.errors import Invalid, NotFound
from corral.model.resources import Resources
from corral.runtime.journal import Replayable
from corral.sim.results import Result
from corral.sim.simulate import Deciding, Plan, simulate
from corral.sim.trace import AgentCame, SettingsSet, open_to_read, read_trace
from corral.sim.workload import Workload, cut, from_trace, inflate, load_openb, with_nodes


class Kind(StrEnum):
    """What a file with a workload may be."""

    TRACE = "trace"
    JOURNAL = "journal"
    PODS = "pods"


WORTH_COMPILING = 50_000
"""Instances from which on compiling takes less time than it saves."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate. Shapes: without `policies` each want keeps its own; `nodes` replace the agents of a trace,
    `headroom` and `evictions_per_minute` what its operators had set. `compiled` is `yes`, `no`, or `auto`: when that
    takes less time than it saves.
    """

    trace: Path
    nodes: Path | None = None
    policies: tuple[str, ...] = ()
    seed: int = 0
    limit: int | None = None
    role_by: str = "qos"
    inflate: float = 1.0
    headroom: Resources | None = None
    evictions_per_minute: int | None = None
    compiled: str = "auto"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine took. Units: `wall_s` seconds."""

    policy: str
    wall_s: float
    placements_per_s: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: one run and one measurement for each policy, in the order they were asked."""

    source: str
    agents: int
    instances: int
    seed: int
    runs: tuple[Result, ...]
    measured: tuple[Measured, ...]
    hardware: str


def kind_of(path: Path) -> Kind:
    """By the first byte: a journal begins with a length, a trace with a JSON object, a list of pods with a name.

    Errors: `NotFound` without the file; `Invalid` when it cannot be read.
    """
    if not path.is_file():
        raise NotFound(f"no trace file at {path}; give a trace of corral's own, a master's journal or a list of pods")
    try:
        with open_to_read(path) as file:
            first = file.read(1)
    except (EOFError, OSError, zlib.error, gzip.BadGzipFile) as error:
        raise Invalid(f"{path} cannot be read ({error}); get the file anew") from error
    if first == b"{":
        return Kind.TRACE
    return Kind.JOURNAL if first == b"\0" else Kind.PODS


def load(asked: Asked, cores: Callable[[], Mapping[str, Replayable]]) -> Workload:
    """The workload of a file. Shapes: `cores` gives what a journal is decided with.

    Errors: `NotFound` without the file; `Invalid` for one that cannot be simulated, with file and line.
    """
    match kind_of(asked.trace):
        case Kind.PODS:
            if asked.nodes is None:
                raise Invalid(f"{asked.trace} is a list of pods, which names no agents; add --nodes FILE")
            found = load_openb(asked.trace, asked.nodes, asked.role_by)
        case Kind.TRACE:
            found = _with_nodes(from_trace(read_trace(asked.trace)), asked)
        case Kind.JOURNAL:
            # A whole master, which the other kinds do without.
            from corral.sim.record import read_journal

            found = _with_nodes(from_trace(read_journal(asked.trace, cores())), asked)
    if not found.batches:
        raise Invalid(f"nothing arrives in {asked.trace}; there is nothing to simulate")
    if not any(isinstance(fact, AgentCame) for fact in found.facts):
        raise Invalid(f"no agent comes in {asked.nodes or asked.trace}; there is nothing to place work on")
    found = _with_settings(found, asked)
    if asked.inflate != 1.0:
        found = inflate(found, asked.inflate, Random(asked.seed))
    return found if asked.limit is None else cut(found, asked.limit)


def _with_nodes(workload: Workload, asked: Asked) -> Workload:
    return workload if asked.nodes is None else with_nodes(workload, asked.nodes)


def _with_settings(workload: Workload, asked: Asked) -> Workload:
    given = {"headroom": asked.headroom, "evictions_per_minute": asked.evictions_per_minute}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return workload
    begin = SettingsSet(at=min(0.0, workload.batches[0].at), settings=Settings())
    facts = [
        msgspec.structs.replace(fact, settings=msgspec.structs.replace(fact.settings, **changes))
        if isinstance(fact, SettingsSet)
        else fact
        for fact in (begin, *workload.facts)
    ]
    return msgspec.structs.replace(workload, facts=tuple(facts))


def check_policies(policies: Sequence[str]) -> None:
    """Errors: `Invalid` lists the policies."""
    for policy in policies:
        if policy not in STRATEGIES:
            raise Invalid(f"there is no policy {policy!r}; there are {', '.join(STRATEGIES)}")


Advance = Callable[[str, int], None]
"""Told the policy of the run and how many steps of it are done; an instance has two: placed, and over."""


def compare(
    asked: Asked, workload: Workload, make_allocator: Callable[[], Deciding], advance: Advance | None = None
) -> Comparison:
    """Errors: those of `check_policies` and `simulate`."""
    check_policies(asked.policies)
    runs, measured = [], []
    for policy in dict.fromkeys(asked.policies or ("",)):
        plan = Plan(policy=policy, seed=asked.seed)
        begun_at = time.perf_counter()
        run = simulate(workload, plan, make_allocator(), _told_as(policy, advance))
        wall_s = time.perf_counter() - begun_at
        runs.append(run)
        per_s = round(run.waits.placed / wall_s, 1)
        measured.append(Measured(policy=run.policy, wall_s=round(wall_s, 3), placements_per_s=per_s))
    return Comparison(
        source=workload.source,
        agents=len({fact.agent.id for fact in workload.facts if isinstance(fact, AgentCame)}),
        instances=workload.instances,
        seed=asked.seed,
        runs=tuple(runs),
        measured=tuple(measured),
        hardware=f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    )


def make_allocator(mode: Mode = Mode.PLAIN) -> Deciding:
    """The allocator as the master has it."""
    return Allocator(mode=mode)


def form_of(asked: Asked, workload: Workload) -> Mode:
    """The form of the engine for a workload. Errors: `Unavailable` when it cannot be compiled as asked."""
    small = asked.compiled == "auto" and workload.instances < WORTH_COMPILING
    return choose_mode("no" if small else asked.compiled, "--compiled")


def _told_as(policy: str, advance: Advance | None) -> Callable[[int], None] | None:
    return None if advance is None else lambda steps: advance(policy or "as asked", steps)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All there is to know, for programs. Shapes: whatever depends on the machine lies under `measured`."""
    found: dict[str, Any] = msgspec.to_builtins(comparison)
    found["measured"] = {"hardware": found.pop("hardware"), "runs": found["measured"]}
    return found
