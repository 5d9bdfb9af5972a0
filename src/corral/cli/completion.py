"""Prints a shell's completion script."""

import click
from click.shell_completion import get_completion_class

from corral.lib.errors import Invalid


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL; load it with: eval "$(corral completion bash)"."""
    from corral.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise Invalid(f"completion for {shell} is not known; bash, zsh and fish are")
    click.echo(found(cli, {}, "corral", "_CORRAL_COMPLETE").source())
