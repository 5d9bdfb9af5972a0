"""`corral replay`: a recorded journal once more through the same core."""

import click

from corral.lib.errors import Failed


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def replay(file: str) -> None:
    """Decide every input recorded in FILE again and compare the effects with those recorded."""
    from corral.runtime.journal import replay as run_again
    from corral.standalone.parts import replayable_cores

    result = run_again(file, replayable_cores())
    if result.divergence is not None:
        raise Failed(f"{file}: {result.divergence}")
    click.echo(f"{file}: {result.inputs} inputs of {result.component} decided as recorded")
