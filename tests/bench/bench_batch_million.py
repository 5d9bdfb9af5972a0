"""A million batch jobs on 5,000 agents that are only voices; everything else as in `bench_batch`."""

from tests.bench.bench_batch import run_once
from tests.bench.report import Measure

from corral.allocator.start import choose_mode, warm

JOBS, AGENTS, BUDGET_S = 1_000_000, 5000, 120.0


def measure(*, short: bool) -> list[Measure]:
    jobs, agents = (5000, 100) if short else (JOBS, AGENTS)
    compiled = "no" if short else "auto"
    warm(choose_mode(compiled))
    found = run_once(jobs, agents, compiled=compiled)
    frames = (found.agents["orders"] + found.agents["reports"]) / found.took_s
    note = f"{frames:,.0f} frames/s over the wire; at most {found.most_mb:,.0f} MB"
    name = f"{jobs:,} batch jobs on {agents:,} agents"
    return [Measure(name=name, unit="s", runs=(found.took_s,), budget=None if short else BUDGET_S, note=note)]
