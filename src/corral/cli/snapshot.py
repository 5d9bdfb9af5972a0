"""`corral snapshot`: a store's records as a file, and back."""

from pathlib import Path
from typing import Any

import click

from corral.cli.daemons import sets_of

_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


def _store_options(function: Any) -> Any:
    for option in (
        click.option("--work-dir", help="The master's; its SQLite store is meant when --store is not given."),
        click.option("--store", metavar="URL", help="sqlite:PATH or etcd://HOST:PORT[,...][/PREFIX]"),
        click.option("--set", "sets", multiple=True, metavar="SECTION.KEY=VALUE", help="One value; repeatable."),
        click.option("--config", "config", type=click.Path(dir_okay=False), help="A TOML file."),
    ):
        function = option(function)
    return function


@click.group()
def snapshot() -> None:
    """Save a store's records to a file, restore them, look into the file."""


@snapshot.command()
@_FILE
@_store_options
def save(file: Path, config: str | None, sets: tuple[str, ...], store: str | None, work_dir: str | None) -> None:
    """Write all records to FILE. The master may run meanwhile."""
    from corral.standalone import snapshots

    found = {"master.store": store, "master.work_dir": work_dir}
    click.echo(snapshots.save(file, config, sets_of(found, sets)))


@snapshot.command()
@_FILE
@_store_options
@click.option("--overwrite", is_flag=True, help="Lose what the store holds.")
def restore(
    file: Path, config: str | None, sets: tuple[str, ...], store: str | None, work_dir: str | None, overwrite: bool
) -> None:
    """Put the records of FILE into an empty store. No master may run on it."""
    from corral.standalone import snapshots

    found = {"master.store": store, "master.work_dir": work_dir}
    click.echo(snapshots.restore(file, config, sets_of(found, sets), overwrite=overwrite))


@snapshot.command()
@_FILE
@click.option("--keys", is_flag=True, help="Every key with the size of its record.")
def inspect(file: Path, keys: bool) -> None:
    """Check FILE and say what it holds."""
    from corral.standalone import snapshots

    for line in snapshots.inspect(file, keys=keys):
        click.echo(line)
