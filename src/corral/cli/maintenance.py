"""Commands that take nodes out of service: drain, undrain, maintenance."""

import contextlib
import ipaddress
import time
from collections.abc import Collection, Sequence
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import output_option, show
from corral.lib.errors import Conflict, Invalid, NotFound
from corral.lib.units import parse_duration_s, parse_timestamp, write_instant

_POLL_S = 0.5
_NANOS = 1_000_000_000


@click.command()
@click.argument("node")
@click.option("--grace", metavar="DURATION", help="At most so long until a task is ended, such as 30s; else its own.")
@click.option("--mark-gone", is_flag=True, help="Declare the node gone once it is empty: it never comes back.")
@click.option("--wait", is_flag=True, help="Wait until the node is empty.")
@click.pass_obj
def drain(addr: str, node: str, grace: str | None, mark_gone: bool, wait: bool) -> None:
    """End all tasks of NODE, a host name or an id, and give it nothing new; they start again elsewhere."""
    client = Client(addr)
    found = _find_node(client, node)
    body: dict[str, Any] = {"agent_id": {"value": found["id"]}, "mark_gone": mark_gone}
    if grace is not None:
        grace_s = parse_duration_s(grace)
        body["max_grace_period"] = {"seconds": int(grace_s), "nanos": round(grace_s % 1 * _NANOS)}
    _operate(client, "DRAIN_AGENT", body)
    click.echo(f"node {found['hostname']} ({found['id']}) is drained of {found['tasks']} tasks", err=True)
    if wait:
        _wait_until_empty(client, found["id"], mark_gone)


def _wait_until_empty(client: Client, agent_id: str, mark_gone: bool) -> None:
    """Errors: `Conflict` when the node is opened or lost meanwhile."""
    while True:
        found = next((n for n in client.get("/corral/v1/nodes")["nodes"] if n["id"] == agent_id), None)
        if found is None and mark_gone:
            click.echo(f"node {agent_id} is empty and gone", err=True)
            return
        if found is None:
            raise Conflict(f"node {agent_id} was removed while it drained")
        if found["state"] == "drained" and not mark_gone:
            click.echo(f"node {found['hostname']} is empty", err=True)
            return
        if found["state"] == "reachable":
            raise Conflict(f"node {found['hostname']} was opened again while it drained")
        time.sleep(_POLL_S)


@click.command()
@click.argument("node")
@click.pass_obj
def undrain(addr: str, node: str) -> None:
    """Let NODE, a host name or an id, take new work again after a drain or a deactivation."""
    client = Client(addr)
    found = _find_node(client, node)
    _operate(client, "REACTIVATE_AGENT", {"agent_id": {"value": found["id"]}})
    click.echo(f"node {found['hostname']} takes new work again", err=True)


def _find_node(client: Client, name: str) -> dict[str, Any]:
    """Errors: `NotFound`; `Invalid` when several nodes have this name."""
    every: list[dict[str, Any]] = client.get("/corral/v1/nodes")["nodes"]
    found = [n for n in every if n["id"] == name] or [n for n in every if n["hostname"] == name]
    if not found:
        raise NotFound(f"there is no node {name!r}; corral nodes lists them")
    if len(found) > 1:
        raise Invalid(
            f"{len(found)} nodes are called {name!r}; name one by its id: {', '.join(n['id'] for n in found)}"
        )
    return found[0]


def _operate(client: Client, kind: str, body: dict[str, Any]) -> Any:
    return client.send("POST", "/api/v1", {"type": kind, kind.lower(): body})


@click.group()
def maintenance() -> None:
    """Plan windows for machines, take them down and bring them up.

    A MACHINE is a host name, an address, or both as NAME=ADDRESS.
    """


@maintenance.command()
@click.argument("machines", nargs=-1, metavar="[MACHINE]...")
@click.option("--start", default="now", show_default=True, help="2026-05-04T10:00:00Z, or in so long: +2h.")
@click.option("--for", "length", metavar="DURATION", help="How long it takes, such as 90m; else without end.")
@click.option("--cancel", is_flag=True, help="Take the machines out of the schedule.")
@output_option
@click.pass_obj
def schedule(addr: str, machines: tuple[str, ...], start: str, length: str | None, cancel: bool, output: str) -> None:
    """Show the schedule; with machines, plan one window for all of them, in the place of those they had."""
    client = Client(addr)
    windows: list[dict[str, Any]] = client.get("/maintenance/schedule").get("windows", [])
    if not machines:
        if cancel:
            raise Invalid("name the machines to take out of the schedule")
        show(windows, output, ["machine", "start", "duration"], lambda: _window_rows(windows))
        return
    chosen = _read_machines(client, machines, windows)
    for window in windows:
        window["machine_ids"] = [m for m in window["machine_ids"] if m not in chosen]
    windows = [window for window in windows if window["machine_ids"]]
    if not cancel:
        unavailability: dict[str, Any] = {"start": {"nanoseconds": int(_read_start(start) * _NANOS)}}
        if length is not None:
            unavailability["duration"] = {"nanoseconds": int(parse_duration_s(length) * _NANOS)}
        windows.append({"machine_ids": chosen, "unavailability": unavailability})
    client.send("POST", "/maintenance/schedule", {"windows": windows})
    what = "out of the schedule" if cancel else "scheduled"
    click.echo(f"{', '.join(map(_name, chosen))} {'are' if len(chosen) > 1 else 'is'} {what}", err=True)


def _read_start(text: str) -> float:
    if text == "now":
        return time.time()
    if text.startswith("+"):
        return time.time() + parse_duration_s(text[1:])
    return parse_timestamp(text)


def _read_machines(
    client: Client, texts: Sequence[str], windows: Sequence[dict[str, Any]] | None = None
) -> list[dict[str, str]]:
    """Shapes: what the schedule calls so, else what a node is called, else an address, else a name."""
    if windows is None:
        windows = client.get("/maintenance/schedule").get("windows", [])
    planned: dict[str, dict[str, str]] = {_name(m): m for window in windows for m in window["machine_ids"]}
    hosts = {node["hostname"].lower() for node in client.get("/corral/v1/nodes")["nodes"]}
    return [planned.get(text.lower()) or _read_machine(text, hosts) for text in texts]


def _read_machine(text: str, hosts: Collection[str]) -> dict[str, str]:
    name, equals, address = text.partition("=")
    if not equals and name.lower() not in hosts:
        with contextlib.suppress(ValueError):
            return {"ip": str(ipaddress.ip_address(name))}
    return {"hostname": name.lower(), **({"ip": address} if address else {})}


def _name(machine: dict[str, str]) -> str:
    return "=".join(machine[key] for key in ("hostname", "ip") if key in machine)


def _window_rows(windows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    rows = []
    for window in windows:
        when = window["unavailability"]
        length = f"{when['duration']['nanoseconds'] / _NANOS:g}s" if "duration" in when else "without end"
        start = write_instant(when["start"]["nanoseconds"] / _NANOS)
        rows += [(_name(machine), start, length) for machine in window["machine_ids"]]
    return rows


@maintenance.command()
@output_option
@click.pass_obj
def status(addr: str, output: str) -> None:
    """Show which machines are scheduled or down, and what frameworks answered when asked to leave."""
    found = Client(addr).get("/maintenance/status")

    def rows() -> list[tuple[str, str, str]]:
        draining = [
            (_name(m["id"]), "scheduled", _answers(m.get("statuses", []))) for m in found.get("draining_machines", [])
        ]
        return draining + [(_name(m), "down", "") for m in found.get("down_machines", [])]

    show(found, output, ["machine", "mode", "answers"], rows)


def _answers(statuses: list[dict[str, Any]]) -> str:
    return " ".join(f"{s['framework_id']['value']}={s['status'].lower()}" for s in statuses)


@maintenance.command()
@click.argument("machines", nargs=-1, required=True, metavar="MACHINE...")
@click.pass_obj
def down(addr: str, machines: tuple[str, ...]) -> None:
    """Take scheduled machines down: all that runs there is ended, and their agents may not come back."""
    client = Client(addr)
    client.send("POST", "/machine/down", _read_machines(client, machines))
    click.echo(f"{', '.join(machines)} {'are' if len(machines) > 1 else 'is'} down", err=True)


@maintenance.command()
@click.argument("machines", nargs=-1, required=True, metavar="MACHINE...")
@click.pass_obj
def up(addr: str, machines: tuple[str, ...]) -> None:
    """Bring machines up that are down; they leave the schedule."""
    client = Client(addr)
    client.send("POST", "/machine/up", _read_machines(client, machines))
    click.echo(f"{', '.join(machines)} {'are' if len(machines) > 1 else 'is'} up", err=True)
