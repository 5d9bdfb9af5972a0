"""Commands that ask the allocator before anything happens: plan and rebalance."""

import math
import sys
import time
from collections.abc import Collection
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import output_option, show, show_table
from corral.cli.services import get_app, read_file
from corral.lib.errors import Conflict, CorralError, Invalid, NotFound, Unavailable

WOULD_NOT_FIT = 2
_POLL_S = 0.5
_MINUTE_S = 60.0


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@output_option
@click.pass_obj
def plan(addr: str, file: str, output: str) -> None:
    """Say where the apps of FILE would run, what they would displace and what their roles would hold.

    Nothing is changed. The exit code is 2 when something would not fit.
    """
    client = Client(addr)
    content = read_file(file)
    if isinstance(content, dict) and ("groups" in content or "apps" in content):
        # As with app apply: the one of a group that was fetched is not what is asked for.
        content.pop("version", None)
    asked = client.send("POST", "/v2/plan", content)
    for one in asked.pop("unplanned", ()):
        click.echo(f"{one['id']} is not in the plan: {one['why']}", err=True)
    found = client.send("POST", "/corral/v1/plan", asked)
    if output in ("json", "yaml"):
        show(found, output, [], list)
    else:
        show_plan(found)
        click.echo("everything fits" if found["fits"] else "something would not fit")
    if not found["fits"]:
        sys.exit(WOULD_NOT_FIT)


def show_plan(found: dict[str, Any]) -> None:
    """Print placements, evictions, effects on roles, and what would wait."""
    from corral.cli.cluster import show_explanation

    if found["placements"]:
        show_table(
            ["want", "node", "instances"], ((p["want_id"], p["hostname"], p["count"]) for p in found["placements"])
        )
    if found["evictions"]:
        rows = ((e["task_id"], e["role"], e["hostname"], e["why"]) for e in found["evictions"])
        show_table(["evicted", "role", "node", "why"], rows)
    if found["roles"]:
        show_table(["role", "resource", "now", "then", "guarantee", "limit"], (_effect(e) for e in found["roles"]))
    for one in found["waiting"]:
        show_explanation(one)


def _effect(effect: dict[str, Any]) -> tuple[Any, ...]:
    limit = effect["limit"]
    return (
        effect["role"], effect["resource"], f"{effect['before']:g}", f"{effect['after']:g}",
        f"{effect['guarantee']:g}", "-" if limit is None else f"{limit:g}",
    )  # fmt: skip


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Only show the moves (the default).")
@click.option("--apply", "carry_out", is_flag=True, help="Move them, one after another.")
@click.option("--most", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many moves.")
@click.option(
    "--per-minute", default=6, show_default=True, type=click.IntRange(1, 600), help="How many of them in a minute."
)
@output_option
@click.pass_obj
def rebalance(
    addr: str, only_plan: bool, carry_out: bool, most: int, per_minute: int, output: str
) -> None:  # fmt: skip
    """Move tasks so that what waits finds room and agents are evenly used.

    Only tasks of apps with the label corral.rebalance=true move, and no app falls below its minimumHealthCapacity.
    """
    if only_plan and carry_out:
        raise Invalid("--plan shows the moves and --apply carries them out; name one of them")
    client = Client(addr)
    moves = client.get("/corral/v1/rebalance", most=most)["moves"]
    if output in ("json", "yaml"):
        show(moves, output, [], list)
    elif moves:
        rows = ((m["task_id"], m["from_host"], m["to_host"], m["why"]) for m in moves)
        show_table(["task", "from", "to", "why"], rows)
    else:
        click.echo("nothing is better placed elsewhere")
    if carry_out:
        done = _apply(client, moves, per_minute)
        click.echo(f"{done} of {len(moves)} moved", err=True)


def _apply(client: Client, moves: list[dict[str, Any]], per_minute: int) -> int:
    """Restart one task after another, as fast as asked, each only when its app can spare it."""
    done = 0
    killed: set[str] = set()
    apps = {task["id"]: task["appId"] for task in client.get("/v2/tasks")["tasks"]}
    for move in moves:
        begun = time.monotonic()
        task_id = move["task_id"]
        app = apps.get(task_id)
        try:
            if app is None:
                raise NotFound("no app has it; its framework moves its own tasks")
            _check_spare(client, app, killed)
            client.send("DELETE", f"/v2/apps{app}/tasks/{task_id}")
        except CorralError as error:
            if isinstance(error, Unavailable):
                raise
            click.echo(f"{task_id} stays: {error.message}", err=True)
            continue
        done += 1
        killed.add(task_id)
        click.echo(f"{task_id} is moved from {move['from_host']}", err=True)
        if move is moves[-1]:
            break
        # The next one waits its turn, and until this app is whole again.
        until = begun + 2 * _MINUTE_S
        while time.monotonic() < begun + _MINUTE_S / per_minute or (
            time.monotonic() < until and not _whole(client, app, killed)
        ):
            time.sleep(_POLL_S)
    return done


def _whole(client: Client, app: str, killed: Collection[str]) -> bool:
    try:
        found = get_app(client, app)
    except NotFound:
        return True
    return _healthy(found, killed) >= int(found["instances"])


def _healthy(app: dict[str, Any], killed: Collection[str]) -> int:
    """How many instances count. Shapes: those in `killed` do not, though their end is not heard of yet."""
    counted = int(app["tasksHealthy"] if app.get("healthChecks") else app["tasksRunning"])
    leaving = [task for task in app["tasks"] if task["id"] in killed and task["state"] == "TASK_RUNNING"]
    return counted - len(leaving)


def _check_spare(client: Client, app: str, killed: Collection[str]) -> None:
    """Errors: `Conflict` says why an app cannot spare an instance now."""
    found = get_app(client, app)
    capacity = found["upgradeStrategy"]["minimumHealthCapacity"]
    least = math.ceil(found["instances"] * capacity)
    have = _healthy(found, killed)
    if found.get("deployments"):
        raise Conflict(f"app {app} is being deployed; try again when that is done")
    if have - 1 < least:
        raise Conflict(
            f"app {app} has {have} instances and needs {least}; lower its minimumHealthCapacity of {capacity:g}, or "
            "give it more instances"
        )
