"""Replaces the processes of a cluster by what is installed, one at a time: `corral upgrade`.

Standbys come first, then the leader, so that the leadership changes hands once; then the agents. Each must be well
again before the next is touched; the first that is not ends it all.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import output_option, show
from corral.lib.errors import CorralError, Failed, NotFound, Unavailable

PROCESS_PATH = "/corral/v1/process"
LOOK_S = 0.2
ASK_S = 5.0
HURRY_S = 60.0
"""How long a process may be busy with the checks before it answers that it renews itself."""


@dataclass(frozen=True)
class Process:
    """One daemon. Shapes: `what` is how people call it; `why_away` is set when it did not answer."""

    what: str
    kind: str
    url: str
    instance: str = ""
    version: str = ""
    installed: str = ""
    leads: bool = False
    why_away: str = ""

    @property
    def is_current(self) -> bool:
        return bool(self.version) and self.version == self.installed


@dataclass(frozen=True)
class Step:
    process: Process
    why: str


def plan_upgrade(processes: Sequence[Process], *, force: bool) -> list[Step]:
    """What is renewed, in this order. Shapes: what runs what is installed is left alone unless `force`.

    Errors: `Unavailable` names a process that does not answer: with it away, none other may leave.
    """
    away = [each for each in processes if each.why_away]
    if away:
        names = "; ".join(f"{each.what} at {each.url}: {each.why_away}" for each in away)
        raise Unavailable(f"nothing is upgraded while a process is away, or more would be: {names}")
    order = {"master": 0, "agent": 2}
    sorted_ones = sorted(processes, key=lambda each: (order.get(each.kind, 1), each.leads, each.url))
    steps = []
    for each in sorted_ones:
        if each.is_current and not force:
            continue
        change = f"{each.version} to {each.installed or 'what is installed'}" if not each.is_current else "started anew"
        last = "; it leads, and hands over first" if each.leads else ""
        steps.append(Step(each, change + last))
    return steps


@click.command()
@click.argument("more", nargs=-1, metavar="[URL]...")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, in order, and do nothing.")
@click.option("--force", is_flag=True, help="Start anew even what runs the installed version.")
@click.option("--masters", "only", flag_value="master", help="Masters alone.")
@click.option("--agents", "only", flag_value="agent", help="Agents alone.")
@click.option("--timeout", "timeout_s", default=120.0, show_default=True, help="Seconds for each to be well again.")
@output_option
@click.pass_obj
def upgrade(
    addr: str, more: tuple[str, ...], only_plan: bool, force: bool, only: str | None, timeout_s: float, output: str
) -> int:
    """Have masters and agents become the installed version, one at a time, and frameworks at URLs too.

    Install the new version on every machine first. Tasks run on meanwhile.
    """
    found = [each for each in _find(addr, more) if only in (None, each.kind)]
    steps = plan_upgrade(found, force=force)
    if only_plan or output != "table":
        rows = [(n, s.process.what, s.process.url, s.why) for n, s in enumerate(steps, 1)]
        whole = [{"step": n, "what": what, "url": url, "why": why} for n, what, url, why in rows]
        show({"steps": whole}, output, ["step", "what", "url", "why"], lambda: rows)
    if only_plan:
        return 0
    if not steps:
        click.echo("everything runs the installed version", err=True)
    for number, step in enumerate(steps, 1):
        click.echo(f"{number}/{len(steps)} {step.process.what} {step.process.url}: {step.why}", err=True)
        try:
            _renew(step.process, addr, timeout_s)
        except CorralError as error:
            raise Failed(
                f"{step.process.what} {step.process.url} was not renewed: {error.message}; "
                f"{number - 1} of {len(steps)} are done, the others were not touched"
            ) from None
    return 0


def _find(addr: str, more: Sequence[str]) -> Iterator[Process]:
    client = Client(addr)
    for master in client.get("/corral/v1/masters")["masters"]:
        yield _look("master", "master", master["url"])
    for node in client.get("/corral/v1/nodes")["nodes"]:
        if node["state"] in ("recovered", "unreachable"):
            continue
        found = _look(f"agent {node['hostname']}", "agent", node["url"])
        if found.kind == "agent":  # one that lives in a master's process is renewed with that
            yield found
    for url in more:
        yield _look("framework", "framework", url)


def _look(what: str, kind: str, url: str) -> Process:
    try:
        found = Client(url, timeout_s=ASK_S, what="agent" if kind == "agent" else "master").get(PROCESS_PATH)
    except NotFound:
        return Process(what, "part", url)
    except CorralError as error:
        return Process(what, kind, url, why_away=error.message)
    return Process(
        what, found["kind"] if kind == "framework" else kind, url, found["instance"], found["version"],
        found["installed"], bool(found["leads"]),
    )  # fmt: skip


def _renew(process: Process, addr: str, timeout_s: float) -> None:
    """Errors: `CorralError` when it refuses, or is not well again in time."""
    Client(process.url, timeout_s=HURRY_S).send("POST", f"{PROCESS_PATH}/renew")
    ends_at = time.monotonic() + timeout_s
    last = "it did not leave"
    while time.monotonic() < ends_at:
        time.sleep(LOOK_S)
        found = _look(process.what, process.kind, process.url)
        if found.why_away or found.instance == process.instance:
            last = found.why_away or last
            continue
        try:
            Client(process.url, timeout_s=ASK_S).get("/health/ready")
            # The cluster as a whole: somebody leads, and an agent is known to whoever does.
            nodes: list[dict[str, Any]] = Client(addr, timeout_s=ASK_S).get("/corral/v1/nodes")["nodes"]
        except CorralError as error:
            last = error.message
            continue
        if process.kind != "agent" or any(n["url"] == process.url and n["state"] != "disconnected" for n in nodes):
            return
        last = "the leader does not know it yet"
    raise Unavailable(f"it was not well again within {timeout_s:g} s: {last}")
