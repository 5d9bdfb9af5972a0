"""Commands about tasks: ps through the master, logs and exec through the public API of the agent that runs them."""

import sys
import threading
import time
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import ago, output_option, pour, repeat, short_state, show, watch_option
from corral.cli.services import app_id
from corral.lib.errors import CorralError, Invalid, NotFound


def find_tasks(client: Client, name: str) -> list[dict[str, Any]]:
    """The tasks that a person means: one by its id, or the instances of an app; the newest first.

    Errors: `NotFound` when the name is neither.
    """
    found: list[dict[str, Any]] = client.get("/corral/v1/tasks", task=name)["tasks"]
    found = found or client.get("/corral/v1/tasks", group=app_id(name))["tasks"]
    if not found:
        raise NotFound(f"there is no task and no app {name!r}; corral ps lists the tasks, corral status the apps")
    return sorted(found, key=lambda t: -(t.get("at") or 0.0))


def _alive(task: dict[str, Any]) -> bool:
    return short_state(task["state"]) in ("running", "starting", "killing")


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that have ended.")
@output_option
@watch_option
@click.pass_obj
def ps(addr: str, everything: bool, output: str, watch: bool) -> None:
    """List the tasks of all frameworks."""
    repeat(watch, lambda: _show_tasks(addr, everything, output))


def _show_tasks(addr: str, everything: bool, output: str) -> None:
    tasks = [t for t in Client(addr).get("/corral/v1/tasks")["tasks"] if everything or _live(t)]
    now = time.time()
    columns = ["task", "state", "host", "role", "since"] + (["agent", "framework", "why"] if output == "wide" else [])

    def rows() -> list[tuple[Any, ...]]:
        found = []
        for t in tasks:
            row = (t["id"], short_state(t["state"]), t["hostname"], t["role"], ago(t.get("at"), now))
            found.append((*row, t["agent"], t["framework"], t.get("message")) if output == "wide" else row)
        return found

    show(tasks, output, columns, rows)


def _live(task: dict[str, Any]) -> bool:
    return short_state(task["state"]) in ("staging", "starting", "running", "killing", "unreachable")


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@click.option("--stderr", is_flag=True, help="Standard error instead of standard output.")
@click.option(
    "-n", "--lines", default=0, type=click.IntRange(min=0), help="Only the last LINES lines of each instance."
)
@click.pass_obj
def logs(addr: str, name: str, follow: bool, stderr: bool, lines: int) -> None:
    """Show what the instances of app NAME, or task NAME, wrote."""
    client = Client(addr)
    tasks = find_tasks(client, name)
    if follow:
        tasks = [t for t in tasks if _alive(t)] or tasks[:1]
    prefixed = len(tasks) > 1
    stream = "stderr" if stderr else "stdout"
    failures: list[Exception] = []
    threads = [
        threading.Thread(
            target=_print_log,
            # Made here: what was said before the command is known to this thread alone.
            args=(Client(t["agent_url"], what="agent"), t, stream, follow, lines, prefixed, failures),
            daemon=True,
        )
        for t in tasks
    ]
    for thread in threads:
        thread.start()
        if not follow:
            thread.join()  # whole logs one after the other read better than mixed ones
    for thread in threads:
        while thread.is_alive() and not any(isinstance(f, OSError) for f in failures):
            thread.join(0.2)  # a join without end would not let Ctrl-C through
    if failures:
        raise failures[0]


def _print_log(
    client: Client,
    task: dict[str, Any],
    stream: str,
    follow: bool,
    lines: int,
    prefixed: bool,
    failures: list[Exception],
) -> None:
    """Shapes: what goes wrong is added to `failures`, and said here when other logs go on."""
    prefix = f"{task['id'][-24:]}  ".encode() if prefixed else b""
    try:
        found = client.lines(f"/corral/v1/tasks/{task['id']}/logs", stream=stream, follow=follow, lines=lines or None)
        pour(prefix + line for line in found)
    except NotFound:
        gone = f"task {task['id']} has no {stream} any more: its sandbox on {task['hostname']} is gone"
        failures.append(NotFound(gone))
    except (CorralError, OSError) as error:
        failures.append(error)
    else:
        return
    if prefixed and isinstance(failures[-1], CorralError) and failures[-1] is not failures[0]:
        click.echo(f"corral: {failures[-1].message}", err=True)


@click.command("exec")
@click.argument("name")
@click.argument("argv", nargs=-1, required=True)
@click.option("-i", "--stdin", "interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="With a terminal.")
@click.pass_obj
def exec_(addr: str, name: str, argv: tuple[str, ...], interactive: bool, tty: bool) -> int:
    """Run a command inside a running instance of app NAME, or inside task NAME."""
    running = [t for t in find_tasks(Client(addr), name) if short_state(t["state"]) == "running"]
    if not running:
        raise NotFound(f"no instance of {name!r} is running now; corral status shows what it waits for")
    if tty and not sys.stdin.isatty():
        raise Invalid("-t needs a terminal and standard input is none; leave -t out")
    import asyncio

    from corral.cli.terminal import run_session

    return asyncio.run(run_session(running[0]["agent_url"], running[0]["id"], argv, interactive=interactive, tty=tty))
