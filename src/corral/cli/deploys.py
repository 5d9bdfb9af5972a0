"""Commands about deployments: what is under way, what became of it, and how people steer it."""

import time
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import output_option, show
from corral.cli.services import timeout_option
from corral.lib.errors import Failed, NotFound, Unavailable

_POLL_S = 0.2
WAITING = ("paused", "waits for promotion")


@click.group()
def deploy() -> None:
    """Follow deployments, pause, promote and undo them."""


@deploy.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="Also the ones that ended last.")
@output_option
@click.pass_obj
def list_deployments(addr: str, everything: bool, output: str) -> None:
    """List the deployments that are under way."""
    client = Client(addr)
    found = [get_deployment(client, d["id"]) for d in client.get("/v2/deployments")]
    if everything:
        found += client.get("/v2/deployments/ended")
    columns = ["deployment", "state", "step", "apps", "why"]

    def rows() -> list[tuple[Any, ...]]:
        return [(d["id"], d["state"], _step(d), _names(d), d.get("why") or reason_of(d)) for d in found]

    show(found, output, columns, rows)


def _step(found: dict[str, Any]) -> str:
    return f"{found['currentStep']}/{found['totalSteps']}" if "totalSteps" in found else "-"


def _names(found: dict[str, Any]) -> str:
    names = [*found["affectedApps"], *found.get("affectedPods", ())]
    return " ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@deploy.command("status")
@click.argument("deployment")
@output_option
@click.pass_obj
def show_deployment(addr: str, deployment: str, output: str) -> None:
    """Show deployment DEPLOYMENT, under way or ended, app by app."""
    found = get_deployment(Client(addr), deployment)
    if output in ("json", "yaml"):
        show(found, output, [], list)
        return
    click.echo(f"{found['id']}  {found['state']}  {_names(found)}")
    if "why" in found:
        successor = f"; deployment {found['successor']} followed" if found.get("successor") else ""
        click.echo(f"{found['why']}{successor}")
        return
    columns = ["app", "action", "wanted", "new", "healthy", "old", "leaving", "why"]

    def rows() -> list[tuple[Any, ...]]:
        fields = ("app", "action", "wanted", "new", "newHealthy", "old", "leaving", "reason")
        return [tuple(each[field] for field in fields) for each in found["progress"]]

    show(found["progress"], output, columns, rows)


@deploy.command("follow")
@click.argument("deployment")
@timeout_option(120.0)
@click.pass_obj
def follow_command(addr: str, deployment: str, timeout_s: float) -> None:
    """Show progress until deployment DEPLOYMENT is done, or waits for people."""
    client = Client(addr)
    get_deployment(client, deployment)
    follow_to_end(client, deployment, timeout_s)


def _steer(addr: str, deployment: str, verb: str, **query: Any) -> dict[str, Any]:
    client = Client(addr)
    try:
        found: dict[str, Any] = client.send("POST", f"/v2/deployments/{deployment}/{verb}", query=query)
    except NotFound:
        raise _no_deployment(deployment) from None
    return found


@deploy.command("pause")
@click.argument("deployment")
@click.pass_obj
def pause(addr: str, deployment: str) -> None:
    """Let deployment DEPLOYMENT stop where it is."""
    _steer(addr, deployment, "pause")
    click.echo(f"deployment {deployment} is paused; corral deploy resume {deployment} lets it go on", err=True)


@deploy.command("resume")
@click.argument("deployment")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is done.")
@timeout_option(120.0)
@click.pass_obj
def resume(addr: str, deployment: str, detach: bool, timeout_s: float) -> None:
    """Let deployment DEPLOYMENT go on."""
    _steer(addr, deployment, "resume")
    click.echo(f"deployment {deployment} goes on", err=True)
    if not detach:
        follow_to_end(Client(addr), deployment, timeout_s)


@deploy.command("promote")
@click.argument("deployment")
@click.option(
    "--weight", default=100, show_default=True, type=click.IntRange(0, 100),
    help="Percentage of traffic for the new instances; below 100 nothing else is done.",
)  # fmt: skip
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is done.")
@timeout_option(120.0)
@click.pass_obj
def promote(addr: str, deployment: str, weight: int, detach: bool, timeout_s: float) -> None:
    """Let deployment DEPLOYMENT go on beyond its first new instances."""
    _steer(addr, deployment, "promote", weight=str(weight))
    if weight < 100:
        click.echo(f"deployment {deployment} gives its new instances {weight} percent of the traffic", err=True)
        return
    click.echo(f"deployment {deployment} is promoted", err=True)
    if not detach:
        follow_to_end(Client(addr), deployment, timeout_s)


@deploy.command("cancel")
@click.argument("deployment")
@click.option("--force", is_flag=True, help="Only stop working on it; what it changed stays.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is undone.")
@timeout_option(120.0)
@click.pass_obj
def cancel(addr: str, deployment: str, force: bool, detach: bool, timeout_s: float) -> None:
    """Undo deployment DEPLOYMENT."""
    client = Client(addr)
    try:
        found = client.send("DELETE", f"/v2/deployments/{deployment}", query={"force": force})
    except NotFound:
        raise _no_deployment(deployment) from None
    if found is None:
        click.echo(f"deployment {deployment} is ended; its apps stay as they are now", err=True)
        return
    click.echo(f"deployment {deployment} is undone by {found['deploymentId']}", err=True)
    if not detach:
        follow_to_end(client, found["deploymentId"], timeout_s)


def _no_deployment(deployment: str) -> NotFound:
    return NotFound(f"no deployment {deployment} is under way; corral deploy list --all shows those that ended last")


def get_deployment(client: Client, deployment: str) -> dict[str, Any]:
    """Errors: `NotFound` names the command that lists them."""
    try:
        found: dict[str, Any] = client.get(f"/v2/deployments/{deployment}")
    except NotFound:
        raise NotFound(f"there is no deployment {deployment}; corral deploy list --all shows them") from None
    return found


def reason_of(found: dict[str, Any]) -> str:
    """Why a deployment under way is not done yet, as far as anybody knows."""
    told = [f"{each['app']}: {each['reason']}" for each in found.get("progress", ()) if each["reason"]]
    return "; ".join(told[:3])


def follow_to_end(client: Client, deployment: str, timeout_s: float) -> None:
    """As `follow_deployment`, with a last word when it is done."""
    if follow_deployment(client, deployment, timeout_s) == "done":
        click.echo(f"deployment {deployment} is done", err=True)


def follow_deployment(client: Client, deployment: str, timeout_s: float) -> str:
    """Show progress until the deployment is done or waits for people. Reply: how it is then.

    Errors: `Failed` when it ends otherwise, or after `timeout_s`, with the reason.
    """
    from rich.console import Console
    from rich.status import Status

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    deadline = time.monotonic() + timeout_s
    state, shown, reason = f"deployment {deployment}: asked", "", ""
    with Status(state, console=console) as line:
        while True:
            try:
                found = client.get(f"/v2/deployments/{deployment}")
            except NotFound:
                # A change that changed nothing leaves no deployment behind.
                return "done"
            except Unavailable as error:
                found, reason = None, error.message
            if found is not None:
                if "progress" not in found or found["state"] in WAITING:
                    break
                state, reason = _describe(found), reason_of(found)
            line.update(state)
            if time.monotonic() > deadline:
                raise Failed(
                    f"{state} after {timeout_s:g} s: {reason or 'still under way'}; corral deploy follow {deployment}"
                )
            if reason and reason != shown:
                shown = reason
                console.print(f"deployment waits: {reason}", markup=False)
            time.sleep(_POLL_S)
    _tell_end(found)
    return str(found["state"])


def _describe(found: dict[str, Any]) -> str:
    wanted = sum(each["wanted"] for each in found["progress"])
    healthy = sum(each["newHealthy"] for each in found["progress"])
    old = sum(each["old"] + each["leaving"] for each in found["progress"])
    step = f"step {found['currentStep']} of {found['totalSteps']}"
    return f"deployment {found['id']}, {step}: {healthy} of {wanted} run" + (f", {old} old ones left" if old else "")


def _tell_end(found: dict[str, Any]) -> None:
    deployment, state = found["id"], found["state"]
    if state == "done":
        return
    if state == "waits for promotion":
        text = f"corral deploy promote {deployment} goes on, corral deploy cancel {deployment} undoes it"
        click.echo(f"deployment {deployment} waits for promotion: {text}", err=True)
        return
    if state == "paused":
        click.echo(f"deployment {deployment} is paused: corral deploy resume {deployment} goes on", err=True)
        return
    undone = f"; it is undone by deployment {found['successor']}" if state == "reverted" else ""
    raise Failed(f"deployment {deployment} {state}: {found['why']}{undone}")
