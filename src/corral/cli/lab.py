"""`corral lab`: several Docker hosts on one machine, to try a cluster and to hurt it."""

import os
import signal as signals
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.output import output_option, show
from corral.lib.errors import Invalid

if TYPE_CHECKING:
    from corral.lab.lab import Lab

COLUMNS = ("host", "address", "state", "daemons", "cut off from", "docker")


class Chosen:
    """Which lab is meant."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root

    def lab(self) -> "Lab":
        from corral.lab.lab import Lab

        return Lab(self.name, self.root)


@click.group()
@click.option("--lab", "name", default="lab", show_default=True, envvar="CORRAL_LAB", help="Which lab [CORRAL_LAB].")
@click.option(
    "--dir", "root", type=click.Path(file_okay=False, path_type=Path), default=Path("/var/lib/corral/labs"),
    show_default=True, envvar="CORRAL_LABS_DIR", help="Where all labs are kept [CORRAL_LABS_DIR]; not on overlayfs.",
)  # fmt: skip
@click.pass_context
def lab(ctx: click.Context, name: str, root: Path) -> None:
    """Several Docker hosts on one machine: cut them off, kill them, start them again. Needs root."""
    ctx.obj = Chosen(name, root)


@lab.command()
@click.argument("count", metavar="N", type=int)
@click.option("--no-docker", is_flag=True, help="Namespaces and network only.")
@click.option("--net", metavar="NETWORK", help="The lab's own, such as 10.77.5.0/24; by default a free one.")
@click.option("--mem", "mem_mb", type=click.IntRange(64), metavar="MB", help="The memory of each host.")
@click.option(
    "--dockerd-arg", "arguments", multiple=True, metavar="ARG", help="One more for every dockerd; repeatable."
)
@output_option
@click.pass_obj
def up(
    chosen: Chosen, count: int, no_docker: bool, net: str | None, mem_mb: int | None, arguments: tuple[str, ...],
    output: str,
) -> None:  # fmt: skip
    """Have hosts h1 to hN run; what runs stays as it is."""
    found = chosen.lab().up(count, docker=not no_docker, net=net, mem_mb=mem_mb, dockerd_arguments=arguments)
    _show(found, output)


@lab.command()
@output_option
@click.pass_obj
def status(chosen: Chosen, output: str) -> None:
    """Show the hosts of the lab."""
    _show(chosen.lab().status(), output)


@lab.command("ls")
@output_option
@click.pass_obj
def list_all(chosen: Chosen, output: str) -> None:
    """List all labs of this machine."""
    from corral.lab.lab import list_labs

    found = list_labs(chosen.root)
    rows = ((one["name"], one["net"], one["hosts"], one["running"]) for one in found)
    show(found, output, ("lab", "network", "hosts", "running"), lambda: rows)


@lab.command()
@click.argument("hosts")
@click.argument("peers", required=False)
@click.option("--silent", is_flag=True, help="Frames vanish and the link stays up, where otherwise the plug is pulled.")
@click.option("--one-way", is_flag=True, help="Drop only what HOSTS send to PEERS.")
@click.pass_obj
def cut(chosen: Chosen, hosts: str, peers: str | None, silent: bool, one_way: bool) -> None:
    """Cut HOSTS (h1 or h1,h2) off from everything, or from PEERS alone; `here` is this machine."""
    chosen.lab().cut(hosts, peers, silent=silent, one_way=one_way)


@lab.command()
@click.argument("hosts", required=False)
@click.argument("peers", required=False)
@click.pass_obj
def heal(chosen: Chosen, hosts: str | None, peers: str | None) -> None:
    """Undo cuts: all, those of HOSTS, or those between HOSTS and PEERS."""
    chosen.lab().heal(hosts, peers)


@lab.command()
@click.argument("hosts")
@click.argument("daemon", required=False)
@click.option("--signal", "name", default="KILL", show_default=True, help="What to send to DAEMON, such as STOP.")
@click.option("--forget", is_flag=True, help="Do not start DAEMON again when the host boots.")
@click.pass_obj
def kill(chosen: Chosen, hosts: str, daemon: str | None, name: str, forget: bool) -> None:
    """Cut the power of HOSTS, or end DAEMON (dockerd, containerd, one of `exec -d`) on one of them."""
    if daemon is None:
        if name != "KILL" or forget:
            raise Invalid("a host gets no signal but the end of its power; name a daemon for that")
        chosen.lab().kill([hosts])
    elif forget:
        chosen.lab().forget(hosts, daemon)
    else:
        chosen.lab().signal(hosts, daemon, _signal(name))


@lab.command()
@click.argument("hosts", required=False)
@click.argument("daemon", required=False)
@output_option
@click.pass_obj
def start(chosen: Chosen, hosts: str | None, daemon: str | None, output: str) -> None:
    """Boot HOSTS, by default all, and start what of theirs does not run; or only DAEMON of one that runs."""
    if hosts is not None and daemon is not None:
        chosen.lab().start_again(hosts, daemon)
        return
    _show(chosen.lab().start([hosts] if hosts is not None else []), output)


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@click.option("-d", "--daemon", metavar="NAME", help="Start it as a daemon, now and at each boot of the host.")
@click.pass_obj
def exec_(chosen: Chosen, host: str, command: tuple[str, ...], daemon: str | None) -> None:
    """Run COMMAND in HOST: `corral lab exec h1 -- corral agent --master h2`. It ends with this command."""
    made = chosen.lab()
    # The corral that runs this is the one that is meant inside.
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    if daemon is not None:
        log = made.run(host, daemon, command, {**os.environ, "PATH": path}, os.getcwd())
        click.echo(f"{daemon} runs on {host}, its log is {log}")
        return
    argv = made.command(host, command)
    sys.stdout.flush()
    os.execve(argv[0], argv, {**os.environ, "PATH": path})  # noqa: S606


@lab.command()
@click.pass_obj
def down(chosen: Chosen) -> None:
    """Remove the lab with everything in it; also after a crash, and twice."""
    chosen.lab().down()


def _signal(name: str) -> signals.Signals:
    try:
        return signals.Signals[f"SIG{name.upper().removeprefix('SIG')}"]
    except KeyError:
        raise Invalid(f"--signal {name} is none; give one such as KILL, TERM, STOP or CONT") from None


def _show(found: list[dict[str, Any]], output: str) -> None:
    show(found, output, COLUMNS, lambda: _rows(found))


def _rows(found: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for one in found:
        daemons = ", ".join(name if pid else f"{name} (down)" for name, pid in one["daemons"].items())
        state = "running" if one["runs"] else "killed"
        yield one["name"], one["ip"], state, daemons, ", ".join(one["cut"]), one["docker"]
