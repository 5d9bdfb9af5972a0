"""How answers are shown: a table for people, JSON or YAML for programs.

Colour and width follow the terminal; `NO_COLOR` is obeyed, and a pipe gets whole lines.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from corral.lib.errors import Unavailable

F = TypeVar("F", bound=Callable[..., Any])

STATE_STYLES = {
    "running": "green", "starting": "cyan", "staging": "cyan", "killing": "yellow", "waiting": "yellow",
    "finished": "dim", "killed": "dim", "failed": "red", "error": "red", "lost": "red", "unreachable": "magenta",
    "active": "green", "draining": "yellow", "drained": "magenta", "deactivated": "magenta", "maintenance": "magenta",
    "ok": "green", "warn": "yellow", "fail": "red", "disconnected": "yellow", "deploying": "cyan", "suspended": "dim",
    "succeeded": "dim", "success": "dim", "skipped": "dim", "disabled": "dim", "queued": "yellow", "failure": "red",
    "timeout": "red", "expired": "red",
}  # fmt: skip


def output_option(function: F) -> F:
    """Adds `-o json|yaml|wide`."""
    return click.option(
        "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table", show_default=True,
        help="How to show the answer.",
    )(function)  # fmt: skip


def watch_option(function: F) -> F:
    """Adds `-w`."""
    return click.option("-w", "--watch", is_flag=True, help="Show again every second until Ctrl-C.")(function)


def repeat(watch: bool, show_once: Callable[[], None]) -> None:
    """Show once, or with `watch` again and again; a master that is away for a while is waited for."""
    if not watch:
        show_once()
        return
    while True:
        click.clear()
        try:
            show_once()
        except Unavailable as error:
            click.echo(f"corral: {error.message}", err=True)
        time.sleep(1.0)


def show(value: Any, output: str, columns: Sequence[str], rows: Callable[[], Iterable[Sequence[Any]]]) -> None:
    """Print `value` whole for programs, or `rows` as a table below `columns`."""
    if output == "json":
        click.echo(json.dumps(value, indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False), nl=False)
    else:
        show_table(columns, rows())


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    if not sys.stdout.isatty():
        _show_plain(columns, rows)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(
            column.upper(), no_wrap=column not in ("why", "detail", "found", "what to do"), overflow="fold"
        )
    for row in rows:
        cells = [Text(_cell(cell)) for cell in row]
        for cell in cells:
            if style := STATE_STYLES.get(cell.plain.lower()):
                cell.stylize(style)
        table.add_row(*cells)
    console.print(table)


def _cell(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _show_plain(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """For a pipe, which has no width: nothing is cut, as a script may look for it, and each row is one line."""
    from rich.cells import cell_len

    lines = [[column.upper() for column in columns], *([" ".join(_cell(c).splitlines()) for c in row] for row in rows)]
    widths = [max(cell_len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)))


def ago(at: float | None, now: float) -> str:
    """How long since an instant: `42s`, `7m`, `3h`, `5d`."""
    if not at:
        return "-"
    seconds = max(0.0, now - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size * 2:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def clock_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")


def short_state(state: str) -> str:
    return state.removeprefix("TASK_").lower()


def pour(pieces: Iterable[bytes]) -> None:
    """Write what somebody else wrote, each piece as soon as it is there."""
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
