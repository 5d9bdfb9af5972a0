"""Commands about app files and the definitions they become: apply, diff, plan, status, versions, rollback, restart."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from corral.cli import pods
from corral.cli.client import Client
from corral.cli.deploys import follow_deployment, follow_to_end
from corral.cli.output import output_option, show
from corral.cli.services import app_id, follow, get_app, read_file, timeout_option
from corral.cli.services import scale as scale_command
from corral.cli.services import status as status_command
from corral.lib.errors import Invalid, NotFound

F = TypeVar("F", bound=Callable[..., Any])

DIFFERENT = 1


@click.group()
def app() -> None:
    """Apply Marathon app files, compare them, go back to versions."""


def policy_options(function: F) -> F:
    """Adds the options that say how a deployment goes about it."""
    for option in (
        click.option("--canary", metavar="N|N%", help="Start so many new instances first and wait to be promoted."),
        click.option("--blue-green", is_flag=True, help="Start all new instances beside the old and wait."),
        click.option(
            "--deadline", type=click.FloatRange(min=0.0), help="Give up when nothing moves for so many seconds."
        ),
        click.option("--revert", is_flag=True, help="Undo it then."),
        click.option("--paused", is_flag=True, help="Begin paused."),
    ):
        function = option(function)
    return function


def _policy(canary: str | None, blue_green: bool, deadline: float | None, revert: bool, paused: bool) -> dict[str, Any]:
    return {"canary": canary, "blueGreen": blue_green, "deadline": deadline, "revert": revert, "paused": paused}


class _Target:
    """What a file holds and where it goes. Shapes: `kind` is group, pod or app."""

    def __init__(self, kind: str, path: str, body: Any) -> None:
        self.kind = kind
        self.path = path
        self.body = body

    @property
    def url(self) -> str:
        return f"/v2/{self.kind}s{self.path}"


def _targets(file: str) -> Iterator[_Target]:
    """Errors: `Invalid` for what has no id."""
    found = read_file(file)
    if isinstance(found, dict) and ("groups" in found or "apps" in found or "pods" in found):
        if not isinstance(found.get("id"), str):
            raise Invalid(f"{file} holds a group without an id; name the group it is, such as /shop")
        # The version of a group that was fetched is not what is asked for.
        body = {key: value for key, value in found.items() if key not in ("id", "version")}
        yield _Target("group", app_id(found["id"]), body)
        return
    if found == []:
        raise Invalid(f"{file} holds no app; write at least one into the list")
    for one in found if isinstance(found, list) else [found]:
        if not isinstance(one, dict) or not isinstance(one.get("id"), str):
            raise Invalid(f"{file} holds an app without an id; every app needs one, such as /web")
        body = {key: value for key, value in one.items() if key != "version"} if len(one) > 2 else one
        yield _Target("pod" if "containers" in one else "app", app_id(one["id"]), body)


FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))


@app.command("apply")
@FILE
@click.option("--force", is_flag=True, help="Replace a deployment that is under way.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it runs.")
@policy_options
@timeout_option(120.0)
@click.pass_obj
def apply_app(
    addr: str, file: str, force: bool, detach: bool, timeout_s: float, canary: str | None, blue_green: bool,
    deadline: float | None, revert: bool, paused: bool,
) -> None:  # fmt: skip
    """Create or change the app, the list of apps, the pod or the group of FILE; - reads standard input."""
    client = Client(addr)
    query = {"force": force, **_policy(canary, blue_green, deadline, revert, paused)}
    for target in list(_targets(file)):
        more = {"partialUpdate": "false"} if target.kind == "app" else {}
        found = client.send("PUT", target.url, target.body, {**query, **more})
        click.echo(f"{target.kind} {target.path} accepted", err=True)
        if detach:
            continue
        deployment = found.get("deploymentId") or _deployment_of(client, target.path)
        if deployment:
            follow_deployment(client, deployment, timeout_s)
        if not (canary or blue_green or paused):
            for path in _apps_at(client, target):
                follow(client, path, timeout_s)


def _apps_at(client: Client, target: _Target) -> list[str]:
    """The apps that the target is or holds; none for a pod."""
    if target.kind == "group":
        return _apps_of(client.get(target.url))
    return [target.path] if target.kind == "app" else []


def _apps_of(group: dict[str, Any]) -> list[str]:
    below = [one for inner in group["groups"] for one in _apps_of(inner)]
    return [*(one["id"] for one in group["apps"]), *below]


def _deployment_of(client: Client, path: str) -> str | None:
    """The deployment that works on a pod; None when nothing had to change."""
    return next((d["id"] for d in client.get("/v2/deployments") if path in d["affectedPods"]), None)


def _ask_diff(client: Client, target: _Target) -> dict[str, Any]:
    if target.kind == "pod":
        raise Invalid(f"pod {target.path} cannot be compared by itself; put it into a group's file")
    query = {"dryRun": True, "diff": target.kind == "group", "force": True}
    more = {"partialUpdate": "false"} if target.kind == "app" else {}
    found: dict[str, Any] = client.send("PUT", target.url, target.body, {**query, **more})
    return found


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a definition with its path; lists of objects by their place."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from flatten(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from flatten(item, f"{path}[{index}]")
    else:
        yield path, value


def compare(before: dict[str, Any] | None, after: dict[str, Any] | None) -> Iterator[tuple[str, Any, Any]]:
    """Paths with what they were and what they will be. Shapes: None where there is nothing."""
    old = dict(flatten(before)) if before else {}
    new = dict(flatten(after)) if after else {}
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path):
            yield path, old.get(path), new.get(path)


_MARKS = {"new": "+", "removed": "-", "scaled": "~", "upgraded": "~", "same": "="}


def show_diff(found: dict[str, Any]) -> bool:
    """Print it app by app; whether anything would change."""
    for one in found["apps"]:
        if one["what"] == "same":
            continue
        note = "  all instances are replaced" if one["what"] == "upgraded" else ""
        click.echo(f"{_MARKS[one['what']]} {one['id']}  {one['what']}{note}")
        if one["before"] is not None and one["after"] is not None:
            for path, old, new in compare(one["before"], one["after"]):
                click.echo(f"    {path}: {old!r} -> {new!r}")
    for path in found["ignored"]:
        click.echo(f"? {path} is known to nobody and would be ignored")
    return any(one["what"] != "same" for one in found["apps"])


@app.command("diff")
@FILE
@output_option
@click.pass_obj
def diff(addr: str, file: str, output: str) -> None:
    """Show what applying FILE would change; the exit code is 1 when it would change something."""
    client = Client(addr)
    found = [_ask_diff(client, target) for target in _targets(file)]
    if output in ("json", "yaml"):
        show(found, output, [], list)
        changed = any(one["what"] != "same" for each in found for one in each["apps"])
    else:
        changed = any(show_diff(each) for each in found)
        if not changed:
            click.echo("nothing would change", err=True)
    if changed:
        sys.exit(DIFFERENT)


@app.command("plan")
@FILE
@output_option
@click.pass_context
def plan(ctx: click.Context, file: str, output: str) -> None:
    """Show the steps that applying FILE would take, and where its instances would run."""
    from corral.cli.planning import plan as plan_command

    client = Client(ctx.obj)
    found = [_ask_diff(client, target) for target in _targets(file)]
    if output not in ("json", "yaml"):
        for each in found:
            for number, step in enumerate(each["steps"], start=1):
                names = ", ".join(f"{a['action']} {a.get('app') or a.get('pod')}" for a in step["actions"])
                click.echo(f"step {number}: {names}")
            if not each["steps"]:
                click.echo("nothing would change")
    if file == "-":
        return
    ctx.invoke(plan_command, file=file, output=output)


@app.command("status")
@click.argument("name", required=False)
@output_option
@click.option("-w", "--watch", is_flag=True, help="Show again every second until Ctrl-C.")
@click.pass_context
def status(ctx: click.Context, name: str | None, output: str, watch: bool) -> None:
    """Show all apps and pods, or the app, pod or group NAME with its instances."""
    ctx.invoke(status_command, name=name, output=output, watch=watch)


@app.command("scale")
@click.argument("name")
@click.argument("instances", type=click.IntRange(min=0))
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is done.")
@timeout_option(120.0)
@click.option("--force", is_flag=True, help="Replace a deployment that is under way.")
@click.pass_context
def scale(ctx: click.Context, name: str, instances: int, detach: bool, timeout_s: float, force: bool) -> None:
    """Change how many instances of app or pod NAME are kept running."""
    ctx.invoke(scale_command, name=name, instances=instances, detach=detach, timeout_s=timeout_s, force=force)


def _kept_versions(client: Client, path: str) -> tuple[str, list[str], str]:
    """The present version of an app or pod, all that are kept, newest first, and where each is found."""
    pod = pods.find(lambda: client.get(f"/v2/pods{path}"))
    if pod is not None:
        base = f"/v2/pods{path}::versions"
        return pod["version"], client.get(base), base
    base = f"/v2/apps{path}/versions"
    return get_app(client, path)["version"], client.get(base)["versions"], base


@app.command("versions")
@click.argument("name")
@output_option
@click.pass_obj
def versions(addr: str, name: str, output: str) -> None:
    """List the versions of app or pod NAME that are kept, with what each changed."""
    client = Client(addr)
    path = app_id(name)
    current, names, base = _kept_versions(client, path)
    found = [client.get(f"{base}/{version}") for version in names]

    def rows() -> Iterator[tuple[Any, ...]]:
        hidden = ("version", "versionInfo")
        for index, one in enumerate(found):
            older = found[index + 1] if index + 1 < len(found) else None
            changed = [p for p, _, _ in compare(older, one) if p.split(".")[0] not in hidden] if older else ["created"]
            yield one["version"], "current" if one["version"] == current else "", ", ".join(changed[:6])

    show(found, output, ["version", "which", "changed"], rows)


@app.command("rollback")
@click.argument("name")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Replace a deployment that is under way.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is done.")
@timeout_option(120.0)
@click.pass_obj
def rollback(addr: str, name: str, version: str | None, force: bool, detach: bool, timeout_s: float) -> None:
    """Take app or pod NAME back to VERSION, or else to the version before the present one."""
    client = Client(addr)
    path = app_id(name)
    _, kept, base = _kept_versions(client, path)
    if version is None:
        if len(kept) < 2:
            raise NotFound(f"app {path} has no version before the present one")
        version = kept[1]
    if base.startswith("/v2/pods/"):
        deployment = pods.change(client, client.get(f"{base}/{version}"), force)
        click.echo(f"pod {path} goes back to {version}", err=True)
        if deployment and not detach:
            follow_to_end(client, deployment, timeout_s)
        return
    found = client.send("PUT", f"/v2/apps{path}", {"version": version}, {"force": force})
    click.echo(f"app {path} goes back to {version}", err=True)
    if not detach:
        follow_deployment(client, found["deploymentId"], timeout_s)
        follow(client, path, timeout_s)


@app.command("restart")
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace a deployment that is under way.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is done.")
@timeout_option(120.0)
@click.pass_obj
def restart(addr: str, name: str, force: bool, detach: bool, timeout_s: float) -> None:
    """Replace all instances of app NAME, one after another."""
    client = Client(addr)
    path = app_id(name)
    if pods.find_pod(client, path) is not None:
        raise Invalid(
            f"{path} is a pod, which has no restart; apply it with another label, and its instances are replaced"
        )
    get_app(client, path)
    found = client.send("POST", f"/v2/apps{path}/restart", query={"force": force})
    click.echo(f"app {path} restarts", err=True)
    if not detach:
        follow_deployment(client, found["deploymentId"], timeout_s)
        follow(client, path, timeout_s)


@app.command("destroy")
@click.argument("name")
@click.option("--group", is_flag=True, help="NAME is a group; destroy all that is below it.")
@click.option("--force", is_flag=True, help="Replace deployments of the group that are under way.")
@click.pass_obj
def destroy_app(addr: str, name: str, group: bool, force: bool) -> None:
    """Stop app or pod NAME, or with --group all below it, and forget it, without waiting."""
    client, path = Client(addr), app_id(name)
    if not group:
        click.echo(f"{pods.delete(client, path)} {path} deleted", err=True)
        return
    deployment, members = pods.delete_group(client, path, force)
    click.echo(f"group {path} deleted: {', '.join(members) or 'it was empty'}", err=True)
    click.echo(f"corral deploy follow {deployment} shows how it ends", err=True)
