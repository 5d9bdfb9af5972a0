"""The `corral` command: finds the subcommand, and turns errors into one line and an exit code.

Subcommands are imported only when they are called, so that `corral --help` answers at once.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import click

from corral import __version__
from corral.lib.errors import CorralError

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Daemons": {
        "dev": ("corral.cli.daemons:dev", "Run a whole cluster in one process"),
        "master": ("corral.cli.daemons:master", "Run the kernel with the first-party frameworks"),
        "agent": ("corral.cli.daemons:agent", "Run the agent of this node"),
        "framework": ("corral.cli.daemons:framework", "Run one framework as a process of its own"),
        "join": ("corral.cli.daemons:join", "Take this node into a cluster and run its agent"),
    },
    "Services": {
        "run": ("corral.cli.services:run", "Start instances of an image or a command and follow until they run"),
        "status": ("corral.cli.services:status", "Show apps, or one app with its instances"),
        "ps": ("corral.cli.tasks:ps", "List tasks"),
        "scale": ("corral.cli.services:scale", "Change the number of instances"),
        "stop": ("corral.cli.services:stop", "Stop an app and forget it"),
        "app": ("corral.cli.apps:app", "Apply Marathon app files, compare them, go back to versions"),
        "deploy": ("corral.cli.deploys:deploy", "Follow deployments, pause, promote and undo them"),
        "import": ("corral.cli.imports:import_", "Take over the apps of a Marathon or the jobs of a Chronos"),
        "logs": ("corral.cli.tasks:logs", "Show what instances wrote"),
        "exec": ("corral.cli.tasks:exec_", "Run a command inside a running instance"),
        "explain": ("corral.cli.cluster:explain", "Say why something waits, node by node, and what would help"),
        "plan": ("corral.cli.planning:plan", "Say where an app file would run and what it would displace"),
    },
    "Discovery": {
        "lb": ("corral.cli.discovery:lb", "Balance load with HAProxy, as apps ask for by their labels"),
        "publish": ("corral.cli.discovery:publish", "Keep what is ready where as keys in an etcd"),
        "template": ("corral.cli.discovery:template", "Keep a file as a template makes it from what is ready where"),
    },
    "Cron": {
        "job": ("corral.cli.jobs:job", "Jobs that run when they are due, or when others have succeeded"),
        "dag": ("corral.cli.dags:dag", "Steps that run after one another, with conditions, arrays and results"),
    },
    "Batch": {
        "batch": ("corral.cli.batch:batch", "Jobs that are run once, as soon as there is room, in great numbers"),
    },
    "Cluster": {
        "nodes": ("corral.cli.cluster:nodes", "List agents with what they have and what is used"),
        "drain": ("corral.cli.maintenance:drain", "End all tasks of a node and give it nothing new"),
        "undrain": ("corral.cli.maintenance:undrain", "Let a drained node take new work again"),
        "maintenance": ("corral.cli.maintenance:maintenance", "Plan windows, take machines down and bring them up"),
        "token": ("corral.cli.trust:token", "Make, list and revoke tokens of nodes and callers"),
        "ca": ("corral.cli.trust:ca", "The cluster's authority, and the nodes that have its certificates"),
        "doctor": ("corral.cli.doctor:doctor", "Check this node for what it needs so that no outage stops its work"),
        "systemd": ("corral.cli.systemd:systemd", "Print the systemd unit of a daemon"),
        "role": ("corral.cli.roles:role", "Show and set weights, guarantees and limits of roles"),
        "rebalance": ("corral.cli.planning:rebalance", "Move tasks to where they are better placed"),
        "upgrade": (
            "corral.cli.upgrade:upgrade",
            "Have masters and agents become the installed version, one at a time",
        ),
        "events": ("corral.cli.cluster:events", "Show what happened and why"),
        "sim": ("corral.cli.sim:sim", "Drive the allocator through a trace in virtual time, policy beside policy"),
        "lab": ("corral.cli.lab:lab", "Several Docker hosts on this machine, to try a cluster and to hurt it"),
        "snapshot": ("corral.cli.snapshot:snapshot", "Save a store's records to a file, and restore them"),
        "replay": ("corral.cli.replay:replay", "Run a recorded journal again and compare every decision"),
        "completion": ("corral.cli.completion:completion", "Print the completion script of a shell"),
    },
}


class LazyGroup(click.Group):
    """A group whose commands are known by name and imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in SECTIONS.values():
            if cmd_name in commands:
                module, _, attribute = commands[cmd_name][0].partition(":")
                found: click.Command = getattr(importlib.import_module(module), attribute)
                return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean {near[0]}" if near else "; corral --help lists them"
            ctx.fail(f"there is no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader (head, less) has enough. Here, as click itself would call this a failure.
            _silence_stdout()
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CORRAL"})
@click.version_option(__version__, "--version", message="corral %(version)s")
@click.option("--addr", default="127.0.0.1:4680", show_default=True, help="The masters' URLs [CORRAL_ADDR].")
@click.option("--token", default="", help="Who you are, or @FILE that says it [CORRAL_TOKEN].")
@click.option("--cacert", default="", metavar="FILE", help="The cluster's authority; means https [CORRAL_CACERT].")
@click.pass_context
def cli(ctx: click.Context, addr: str, token: str, cacert: str) -> None:
    """One pool of machines, every kind of work on it."""
    ctx.obj = addr


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; errors of the corral tree become one line on stderr and their exit code."""
    if argv is None:
        sys.excepthook = _tell_bug
    try:
        code = cli.main(args=list(argv) if argv is not None else None, prog_name="corral", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CorralError as error:
        _fail(error.message, error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        _silence_stdout()
        _fail(f"{error.filename or 'standard output'} cannot be used: {error.strerror or error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: Any, code: int) -> None:
    click.echo(f"corral: {message}", err=True)
    sys.exit(code)


def _silence_stdout() -> None:
    """What is still buffered must not raise again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _tell_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody foresaw, as one line; where it happened only for those who ask."""
    if os.environ.get("CORRAL_TRACEBACK"):
        sys.__excepthook__(kind, error, trace)
    click.echo(f"corral: a bug: {error!r}; CORRAL_TRACEBACK=1 shows where, please report it", err=True)


if __name__ == "__main__":
    main()
