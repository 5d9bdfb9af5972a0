"""Shows what simulations came to: rows for a terminal, and one HTML page with plots that needs nothing else.

The page is drawn by the template beside this file; here is decided what stands in it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import msgspec

from corral.sim.compare import Comparison
from corral.sim.results import Result

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 26
"""Of a plot, in pixels; the latter are the margins that axes take."""

STEPS = (1, 2, 5, 10)

SPANS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))

Number = float | int | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of every run, as text."""

    name: str
    values: tuple[str, ...]
    hint: str = ""


class Tick(msgspec.Struct, frozen=True):
    at: float
    text: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `pieces` are the points of polylines; where nothing is known a line is broken."""

    name: str
    colour: int
    pieces: tuple[str, ...]
    dashed: bool = False


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    hint: str = ""


# Figures.


def percent(value: Number) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def seconds(value: Number) -> str:
    """`0.4 s`, `90 s`, `12.3 min`, `4.5 h`, `3.2 d`."""
    if value is None:
        return "-"
    for size, unit in SPANS:
        if value >= 2 * size and size > 1:
            return f"{value / size:.1f} {unit}"
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def figures(comparison: Comparison) -> list[Row]:
    """The main figures, a value for each run."""
    runs = comparison.runs
    names = sorted({name for run in runs for name in run.mean_allocated})
    rows = [
        _row("placed", runs, lambda run: str(run.waits.placed), "an evicted instance counts again"),
        _row("never placed", runs, lambda run: str(run.never_placed), "waited to the end of the trace"),
        _row("withdrawn", runs, lambda run: str(run.counts.withdrawn), "waited until nobody wanted them"),
        _row("evicted", runs, lambda run: str(run.counts.evicted)),
        _row("lost with agent", runs, lambda run: str(run.counts.lost)),
    ]
    for part in ("mean", "p50", "p90", "p99", "most"):
        name = "longest wait" if part == "most" else f"wait {part}"
        rows.append(_row(name, runs, partial(_wait, part)))
    for name in names:
        rows.append(_row(f"{name} allocated", runs, partial(_allocated, name), "mean while work arrives; highest"))
    for name in ("cpus", "gpus"):
        if any(run.mean_fragmentation.get(name) is not None for run in runs):
            rows.append(_row(f"{name} fragmented", runs, partial(_fragmented, name), "of what is free"))
    rows.append(_row("short of fair shares", runs, lambda run: percent(run.unfairness), "all roles, mean"))
    rows.append(_row("decisions", runs, lambda run: run.decision_hash[:12], "of a hash; equal when all were"))
    speed = tuple(f"{one.placements_per_s:,.0f}/s" for one in comparison.measured)
    rows.append(Row(name="placements measured", values=speed, hint=comparison.hardware))
    return rows


def _row(name: str, runs: Sequence[Result], show: Callable[[Result], str], hint: str = "") -> Row:
    return Row(name=name, values=tuple(show(run) for run in runs), hint=hint)


def _wait(part: str, run: Result) -> str:
    return seconds(getattr(run.waits, part)) if run.waits.placed else "-"


def _allocated(name: str, run: Result) -> str:
    return f"{percent(run.mean_allocated.get(name))}; {percent(run.peak_allocated.get(name))}"


def _fragmented(name: str, run: Result) -> str:
    return percent(run.mean_fragmentation.get(name))


ROLE_COLUMNS = (
    "policy", "role", "instances", "placed", "never placed", "evicted", "wait p50", "p99", "longest", "share", "fair",
)  # fmt: skip


def role_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Shapes: as `ROLE_COLUMNS`."""
    return [
        (
            run.policy, one.role, str(one.instances), str(one.waits.placed), str(one.never_placed), str(one.evicted),
            *((seconds(one.waits.p50), seconds(one.waits.p99), seconds(one.waits.most)) if one.waits.placed
              else ("-", "-", "-")),
            percent(one.share), percent(one.fair),
        )
        for run in comparison.runs
        for one in run.roles
    ]  # fmt: skip


# The page.


def write_report(comparison: Comparison) -> str:
    """The whole page. Shapes: it fetches nothing; whatever stands in a trace is text in it."""
    from jinja2 import Environment, StrictUndefined, select_autoescape

    environment = Environment(
        autoescape=select_autoescape(default=True, default_for_string=True), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    template = environment.from_string(files("corral.sim").joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(_page(comparison))


def _page(comparison: Comparison) -> dict[str, Any]:
    return {
        "comparison": comparison,
        "figures": figures(comparison),
        "role_columns": ROLE_COLUMNS,
        "role_rows": role_rows(comparison),
        "plots": _plots(comparison.runs),
        "shares": [_shares(run, index == 0) for index, run in enumerate(comparison.runs)],
        "size": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM},
        "span": seconds(max(run.last_at for run in comparison.runs) - min(run.first_at for run in comparison.runs)),
    }


def _plots(runs: Sequence[Result]) -> list[Plot]:
    names = sorted({name for run in runs for name in run.series.allocated}, key=_main_first)
    found = [
        _plot(f"{name}: allocated", runs, {run.policy: run.series.allocated.get(name, ()) for run in runs}, part=True)
        for name in names
    ]
    found.append(_plot("instances that wait", runs, {run.policy: run.series.waiting for run in runs}))
    found.append(_plot("instances that run", runs, {run.policy: run.series.running for run in runs}))
    hints = {
        "gpus": "part of the free GPUs that the usual demands cannot use",
        "cpus": "part of the free CPUs on agents where the median demand does not fit",
    }
    for name, hint in hints.items():
        lines = {run.policy: run.series.fragmentation.get(name, ()) for run in runs}
        if any(value is not None for values in lines.values() for value in values):
            found.append(_plot(f"{name}: fragmentation", runs, lines, part=True, hint=hint))
    return found


def _main_first(name: str) -> tuple[int, str]:
    order = ("cpus", "mem", "gpus")
    return (order.index(name) if name in order else len(order), name)


def _shares(run: Result, with_fair: bool) -> Plot:
    lines: dict[str, Sequence[Number]] = {}
    for role, found in run.series.roles.items():
        lines[role] = found.share
        lines[f"{role} (fair)"] = found.fair
    title = f"dominant shares of roles under {run.policy}"
    return _plot(title, [run], lines, part=True, pairs=True, hint="dashed: the fair share at that time")


def _plot(
    title: str,
    runs: Sequence[Result],
    values: Mapping[str, Sequence[Number]],
    *,
    part: bool = False,
    pairs: bool = False,
    hint: str = "",
) -> Plot:
    """Shapes: with `part` values are parts of 1; with `pairs` every second line belongs to the one before it."""
    first_at, last_at = min(run.series.at[0] for run in runs), max(run.series.at[-1] for run in runs)
    highest = max((v for line in values.values() for v in line if v is not None), default=0.0)
    top, up = _scale(highest, part)
    span = (last_at - first_at) or 1.0

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - first_at) / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    lines = []
    for number, (name, line) in enumerate(values.items()):
        at = runs[number].series.at if len(runs) > 1 else runs[0].series.at
        lines.append(
            Line(
                name=name,
                colour=(number // 2 if pairs else number) % 8,
                pieces=_pieces([(x(a), None if v is None else y(v)) for a, v in zip(at, line, strict=True)]),
                dashed=pairs and number % 2 == 1,
            )
        )
    return Plot(
        title=title,
        lines=tuple(lines),
        across=tuple(Tick(round(x(at), 1), text) for at, text in _instants(first_at, last_at)),
        up=tuple(Tick(round(y(value), 1), text) for value, text in up),
        hint=hint,
    )


def _pieces(points: Sequence[tuple[float, float | None]]) -> tuple[str, ...]:
    pieces: list[list[str]] = [[]]
    for x, y in points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{x:.1f},{y:.1f}")
    return tuple(" ".join(piece) for piece in pieces if piece)


def _scale(highest: float, part: bool) -> tuple[float, list[tuple[float, str]]]:
    """The top of an axis and its ticks, round numbers all."""
    if highest <= 0:
        return (1.0, [(0.0, "0 %" if part else "0")])
    step = _round_step(highest / 4, whole=not part)
    count = int(highest / step - 1e-9) + 1
    ticks = [step * number for number in range(count + 1)]
    show = _percent_tick if part else _number_tick
    return ticks[-1], [(tick, show(tick, step)) for tick in ticks]


def _round_step(least: float, *, whole: bool) -> float:
    power = 10.0 ** _floor_log10(least)
    step = next(factor * power for factor in STEPS if factor * power >= least * (1 - 1e-9))
    return max(1.0, step) if whole else step


def _floor_log10(value: float) -> int:
    exponent = 0
    while 10.0 ** (exponent + 1) <= value:
        exponent += 1
    while 10.0**exponent > value:
        exponent -= 1
    return exponent


def _percent_tick(value: float, step: float) -> str:
    digits = max(0, -_floor_log10(step * 100 * 1.000001))
    return f"{value * 100:.{digits}f} %"


def _number_tick(value: float, step: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _instants(first_at: float, last_at: float) -> list[tuple[float, str]]:
    """Ticks from the first instant on, in the largest unit of which there are two."""
    span = last_at - first_at
    size, unit = next(((size, unit) for size, unit in SPANS if span >= 2 * size), (1.0, "s"))
    step = _round_step(max(span / size, 1e-3) / 8, whole=False)
    found: list[tuple[float, str]] = []
    while len(found) * step * size <= span * (1 + 1e-9):
        value = len(found) * step
        found.append((first_at + value * size, f"{value:g} {unit}" if value else "0"))
    return found
