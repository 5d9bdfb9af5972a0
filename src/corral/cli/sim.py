"""`corral sim`: the production allocator, driven by a trace in virtual time."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral.cli.output import output_option, show, show_table
from corral.lib.errors import Invalid

if TYPE_CHECKING:
    from corral.model.resources import Resources
    from corral.runtime.journal import Replayable


@click.command()
@click.argument("trace", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--nodes", type=click.Path(dir_okay=False, path_type=Path),
    help="A list of machines; replaces the agents of a recorded trace.",
)  # fmt: skip
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME",
    help="Strategy of every want; repeat it to compare. By default each want keeps its own.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Decides ties and draws.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N instances.")
@click.option(
    "--role-by", type=click.Choice(["qos", "app"]), default="qos", show_default=True,
    help="The column of a list of pods that names the role.",
)  # fmt: skip
@click.option("--inflate", default=1.0, show_default=True, metavar="FACTOR", help="So many times the work.")
@click.option(
    "--headroom", metavar="TEXT",
    help="Kept free for guarantees, such as 'cpus:8'; instead of what the trace says, or of all that is guaranteed.",
)  # fmt: skip
@click.option(
    "--evictions-per-minute", type=click.IntRange(0, 1_000_000), metavar="N",
    help="How many tasks may make room for others; instead of what the trace says, or of 60.",
)  # fmt: skip
@click.option(
    "--compiled", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True,
    help="Machine code for the engine; auto is when Numba is there and it is worth the time.",
)  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML page with plots.")
@output_option
def sim(
    trace: Path, nodes: Path | None, policies: tuple[str, ...], seed: int, limit: int | None, role_by: str,
    inflate: float, headroom: str | None, evictions_per_minute: int | None, compiled: str, report: Path | None,
    output: str,
) -> None:  # fmt: skip
    """Drive the allocator through TRACE in virtual time and show what came of it.

    TRACE is a trace or a journal that a master has recorded, or a list of pods as openb publishes them.
    """
    from corral.sim import compare
    from corral.sim.report import ROLE_COLUMNS, figures, role_rows, write_report

    asked = compare.Asked(
        trace=trace, nodes=nodes, policies=policies, seed=seed, limit=limit, role_by=role_by, inflate=inflate,
        headroom=_headroom(headroom), evictions_per_minute=evictions_per_minute, compiled=compiled,
    )  # fmt: skip
    compare.check_policies(policies)
    if report is not None and not report.parent.is_dir():
        raise Invalid(f"--report {report} cannot be written: there is no directory {report.parent}; make it first")
    workload = compare.load(asked, _cores)
    mode = compare.form_of(asked, workload)
    with _progress(2 * workload.instances) as advance:
        found = compare.compare(asked, workload, partial(compare.make_allocator, mode), advance)
    if report is not None:
        try:
            report.write_text(write_report(found), encoding="utf-8")
        except OSError as error:
            raise Invalid(f"--report {report} cannot be written: {error.strerror}; name another file") from None
    columns = ["", *(run.policy for run in found.runs), *(["meaning"] if output == "wide" else [])]
    rows = [(row.name, *row.values, *((row.hint,) if output == "wide" else ())) for row in figures(found)]
    show(compare.as_json(found), output, columns, lambda: rows)
    if output in ("table", "wide"):
        click.echo()
        show_table(ROLE_COLUMNS, role_rows(found))


def _headroom(text: str | None) -> "Resources | None":
    """Errors: `Invalid` unless it is amounts of resources."""
    from corral.standalone.config import parse_headroom

    try:
        return parse_headroom(text or "")
    except Invalid as error:
        raise Invalid(f"--headroom {text!r}: {error.message.removeprefix('kernel.headroom ')}") from None


def _cores() -> "Mapping[str, Replayable]":
    from corral.standalone.parts import replayable_cores

    return replayable_cores()


@contextlib.contextmanager
def _progress(steps: int) -> Iterator[Callable[[str, int], None] | None]:
    """A bar for each policy on standard error, for people alone."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def advance(policy: str, done: int) -> None:
            if policy not in bars:
                bars[policy] = progress.add_task(policy, total=steps)
            progress.advance(bars[policy], done)

        yield advance
