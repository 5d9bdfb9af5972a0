"""Commands about the cluster: nodes, explain, events."""

import json
from collections.abc import Iterator
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import clock_time, output_option, repeat, show, show_table, watch_option
from corral.cli.services import app_id
from corral.cli.waiting import explain_reserved
from corral.lib.errors import Invalid, NotFound


@click.command()
@output_option
@watch_option
@click.pass_obj
def nodes(addr: str, output: str, watch: bool) -> None:
    """List agents with what they have and what is used."""
    repeat(watch, lambda: _show_nodes(addr, output))


def _show_nodes(addr: str, output: str) -> None:
    found = Client(addr).get("/corral/v1/nodes")["nodes"]
    columns = ["node", "state", "cpus", "mem", "tasks", "runtimes"]
    wide = ["id", "url", "disk", "attributes", "why"] if output == "wide" else []

    def rows() -> Iterator[tuple[Any, ...]]:
        for n in found:
            row = (
                n["hostname"], n["state"], _share(n, "cpus"), _share(n, "mem"), n["tasks"], " ".join(n["runtimes"]),
            )  # fmt: skip
            fields = {"@domain": n["domain"], **n["attributes"]} if n.get("domain") else n["attributes"]
            attributes = " ".join(f"{k}={v}" for k, v in fields.items())
            yield (*row, n["id"], n["url"], _share(n, "disk"), attributes, n["why"]) if wide else row

    show(found, output, columns + wide, rows)


def _share(node: dict[str, Any], name: str) -> str:
    """Used and offered of all, such as `1.5/8`."""
    taken = node["used"].get(name, 0) + node["offered"].get(name, 0)
    return f"{taken:g}/{node['resources'].get(name, 0):g}"


@click.command()
@click.argument("name", required=False)
@click.option(
    "--if",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Try the want with a change, without making it: cpus=2, count=1, role-limit=cpus:8, agents=1...; repeatable.",
)
@output_option
@watch_option
@click.pass_obj
def explain(addr: str, name: str | None, changes: tuple[str, ...], output: str, watch: bool) -> None:
    """Say why instances of app NAME (or of all apps) wait, node by node; with --if, whether a change would help."""
    if changes and not name:
        raise Invalid("a change is tried for one app; name it before --if")
    if changes:
        _explain_if(Client(addr), str(name), changes, output)
    else:
        repeat(watch, lambda: _explain(addr, name, output))


def _waiting(client: Client, name: str | None) -> list[dict[str, Any]]:
    """The explanations of an app, or of the want of that name; or of all that waits."""
    found: list[dict[str, Any]] = client.get("/corral/v1/explain", group=app_id(name) if name else None)["explanations"]
    found += explain_reserved(client, name)
    if name and not found:
        found = client.get("/corral/v1/explain", want=name)["explanations"]
    return found


def _explain(addr: str, name: str | None, output: str) -> None:
    client = Client(addr)
    found = _waiting(client, name)
    if output in ("json", "yaml"):
        show(found, output, [], list)
        return
    if not found:
        click.echo(_nothing_waits(client, name))
    for one in found:
        show_explanation(one)
    for each in _avoided(client, name):
        who = f"app {each['app']}" if "app" in each else "every app"
        click.echo(f"{who} uses {each['hostname']} last until {each['until']}: {each['why']}")


def _avoided(client: Client, name: str | None) -> list[dict[str, Any]]:
    """The nodes that the app, or any, avoids; none where no services framework runs."""
    try:
        found: list[dict[str, Any]] = client.get("/v2/avoided")["avoided"]
    except NotFound:
        return []
    return [each for each in found if name is None or each.get("app") in (None, app_id(name))]


def show_explanation(one: dict[str, Any]) -> None:
    """Print why one want waits."""
    never = "; no agent of this cluster could ever hold one" if one["never"] else ""
    click.echo(
        f"{one['want_id']} (role {one['role']}): {one['waiting']} waiting, agents looked at: {one['agents']}{never}"
    )
    show_table(["agents", "reason", "detail"], ((r["agents"], r["reason"], r["detail"]) for r in one["refusals"]))
    for change in one["fits_if"]:
        click.echo(f"fits if {change}")


def _explain_if(client: Client, name: str, changes: tuple[str, ...], output: str) -> None:
    waiting = _waiting(client, name)
    if not waiting:
        click.echo(_nothing_waits(client, name))
        return
    from corral.cli.planning import show_plan

    if all(one["framework_id"] is None for one in waiting):
        raise Invalid(f"{name} takes reserved resources alone, which plans do not know; see corral explain {name}")
    for one in waiting:
        query = {"want": one["want_id"], "framework": one["framework_id"], "if": list(changes)}
        found = client.send("GET", "/corral/v1/whatif", query=query)
        if output in ("json", "yaml"):
            show(found, output, [], list)
            continue
        verdict = "would fit" if found["fits"] else "would still wait"
        click.echo(f"{one['want_id']} {verdict} if {' and '.join(changes)}")
        show_plan(found)


def _nothing_waits(client: Client, name: str | None) -> str:
    if name is None:
        return "nothing waits for resources"
    try:
        app = client.get(f"/v2/apps{app_id(name)}")["app"]
    except NotFound:
        raise NotFound(f"there is no app and no want {name!r}; corral status lists the apps") from None
    text = f"{app['id']} does not wait for resources: {app.get('tasksRunning', 0)}/{app['instances']} running"
    failure = app.get("lastTaskFailure")
    return f"{text}; last failure: {failure['message']}" if failure else text


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as more happens.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_obj
def events(addr: str, follow: bool, output: str) -> None:
    """Show what happened in the cluster, and why."""
    for line in Client(addr).lines("/corral/v1/events", follow=follow):
        if output == "json":
            click.echo(line.decode().rstrip())
            continue
        note = json.loads(line)
        facts = " ".join(f"{k}={v}" for k, v in note["facts"].items())
        why = f'why="{note["why"]}"' if note["why"] else ""
        words = (clock_time(note["at"]), note["component"], note["what"], facts, why)
        click.echo("  ".join(word for word in words if word))
