"""Numbers with their budgets: every run, the median, and the machine they were taken on."""

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One number. Shapes: `runs` as they came; `budget` is a bound of the median, from above unless `at_least`.

    Without a budget it is told for information. `note` says what was simulated.
    """

    name: str
    unit: str
    runs: tuple[float, ...]
    budget: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def kept(self) -> bool:
        if self.budget is None:
            return True
        return self.median >= self.budget if self.at_least else self.median <= self.budget


def describe_hardware() -> str:
    """Processor, cores, memory, kernel, Python and how busy the machine is by now, in one line."""
    model = platform.processor() or platform.machine()
    mem_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = len(os.sched_getaffinity(0))
    python = ".".join(map(str, sys.version_info[:3]))
    load = os.getloadavg()[0]
    return f"{model}, {cores} cores, {mem_gb:.0f} GB, Linux {platform.release()}, Python {python}, load {load:.1f}"


def show(measures: Sequence[Measure]) -> str:
    """The table for people: one line per number, then its runs."""
    lines = [describe_hardware()]
    for m in measures:
        bound = "" if m.budget is None else f"  budget {'≥' if m.at_least else '≤'} {number(m.budget)} {m.unit}"
        verdict = "" if m.budget is None else "  kept" if m.kept else "  MISSED"
        lines.append(f"{m.name}: {number(m.median)} {m.unit}{bound}{verdict}")
        lines.append(f"    runs {', '.join(number(r) for r in m.runs)}" + (f"; {m.note}" if m.note else ""))
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits that mean something, whole above a hundred."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
