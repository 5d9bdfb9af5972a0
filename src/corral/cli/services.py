"""Commands about apps, through the Marathon API: run, status, scale, stop."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from corral.cli import pods
from corral.cli.client import Client
from corral.cli.files import read_json
from corral.cli.output import ago, output_option, repeat, short_state, show, watch_option
from corral.lib.errors import Conflict, Failed, Invalid, NotFound, Unavailable
from corral.lib.units import parse_timestamp

F = TypeVar("F", bound=Callable[..., Any])

_POLL_S = 0.2


def timeout_option(default_s: float) -> Callable[[F], F]:
    """Adds `--timeout SECONDS`."""
    return click.option(
        "--timeout", "timeout_s", default=default_s, show_default=True, type=click.FloatRange(0.0, 1e6),
        help="Seconds to wait.",
    )  # fmt: skip


def app_id(name: str) -> str:
    """The absolute id for what a person types: `web` is `/web`."""
    return "/" + name.strip("/")


def _definition(
    words: tuple[str, ...], *, process: bool, name: str | None, instances: int, cpus: float, mem: float,
    ports: tuple[str, ...], env: tuple[str, ...], volumes: tuple[str, ...], constraints: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """The app that `corral run` means by its words. Errors: `Invalid` shows the form of an option that does not fit."""
    if not words:
        raise Invalid("nothing to run; write corral run IMAGE [-- COMMAND] or corral run --process -- COMMAND")
    command = list(words if process else words[1:])
    base = Path(command[0]).name if process else words[0].rsplit("/", 1)[-1].partition(":")[0]
    found: dict[str, Any] = {
        "id": app_id(name or re.sub(r"[^a-z0-9]+", "-", base.lower()).strip("-") or "app"),
        "instances": instances,
        "cpus": cpus,
        "mem": mem,
        "env": dict(_split(text, "=", "-e NAME=VALUE") for text in env),
        "constraints": [text.split(":") for text in constraints],
    }
    numbers = [_split_port(text) for text in ports]
    if command:
        found["args"] = command
    if process:
        if volumes:
            raise Invalid("-v needs an image; a plain process sees the host's files as they are")
        found["portDefinitions"] = [{"port": host, "protocol": "tcp"} for host, _ in numbers]
        found["requirePorts"] = any(host for host, _ in numbers)
        return found
    found["container"] = {"type": "DOCKER", "docker": {"image": words[0]}, "volumes": [_volume(v) for v in volumes]}
    if numbers:
        found["networks"] = [{"mode": "container/bridge"}]
        found["container"]["portMappings"] = [
            {"containerPort": inside, "hostPort": host, "protocol": "tcp"} for host, inside in numbers
        ]
    else:
        found["portDefinitions"] = []
    return found


def _split(text: str, mark: str, form: str) -> tuple[str, str]:
    left, found, right = text.partition(mark)
    if not found or not left:
        raise Invalid(f"{text!r} is not of the form {form}")
    return left, right


def _split_port(text: str) -> tuple[int, int]:
    """`80` is any host port to 80 inside; `8080:80` names both."""
    host, colon, inside = text.rpartition(":")
    try:
        return (int(host) if colon else 0), int(inside)
    except ValueError:
        raise Invalid(f"port {text!r} is not of the form 80 or 8080:80") from None


def _volume(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2].upper() not in ("RO", "RW")):
        raise Invalid(f"volume {text!r} is not of the form /host/path:/container/path[:ro|rw]")
    return {"hostPath": parts[0], "containerPath": parts[1], "mode": parts[2].upper() if len(parts) == 3 else "RW"}


@click.command()
@click.argument("words", nargs=-1, metavar="[IMAGE] [-- COMMAND...]")
@click.option("-n", "--instances", default=1, show_default=True, help="How many to keep running.")
@click.option("-p", "--port", "ports", multiple=True, metavar="[HOST:]PORT", help="A port the command listens on.")
@click.option("--name", help="The app's id; by default the image's or the command's name.")
@click.option("--process", is_flag=True, help="Run a plain process of the host instead of an image.")
@click.option("--cpus", default=0.1, show_default=True)
@click.option("--mem", default=64.0, show_default=True, help="MiB.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="HOST:CONTAINER[:ro]")
@click.option(
    "--constraint", "constraints", multiple=True, metavar="FIELD:OP[:VALUE]", help="For example @hostname:UNIQUE."
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it runs.")
@timeout_option(120.0)
@click.pass_obj
def run(
    addr: str, words: tuple[str, ...], instances: int, ports: tuple[str, ...], name: str | None, process: bool,
    cpus: float, mem: float, env: tuple[str, ...], volumes: tuple[str, ...], constraints: tuple[str, ...],
    detach: bool, timeout_s: float,
) -> None:  # fmt: skip
    """Start instances of IMAGE, or with --process of a command, and follow until they run."""
    client = Client(addr)
    definition = _definition(
        words, process=process, name=name, instances=instances, cpus=cpus, mem=mem, ports=ports, env=env,
        volumes=volumes, constraints=constraints,
    )  # fmt: skip
    try:
        created = client.send("POST", "/v2/apps", definition)
    except Conflict:
        raise Conflict(
            f"app {definition['id']} exists already; corral scale changes its number, corral app apply its definition, "
            "corral stop ends it; or choose another with --name"
        ) from None
    click.echo(f"app {created['id']} accepted", err=True)
    if not detach:
        follow(client, created["id"], timeout_s)


@click.command()
@click.argument("name", required=False)
@output_option
@watch_option
@click.pass_obj
def status(addr: str, name: str | None, output: str, watch: bool) -> None:
    """Show all apps and pods, or the app, pod or group NAME with its instances."""
    client = Client(addr)
    repeat(watch, lambda: _show_named(client, app_id(name), output) if name else _show_apps(client, output))


def get_app(client: Client, path: str) -> dict[str, Any]:
    """Errors: `NotFound` names the command that lists the apps."""
    try:
        found: dict[str, Any] = client.get(f"/v2/apps{path}")["app"]
    except NotFound:
        raise pods.missing(path) from None
    return found


def _app_state(app: dict[str, Any]) -> str:
    if app.get("deployments"):
        return "deploying"
    if app["instances"] == 0:
        return "suspended"
    return "running" if app.get("tasksRunning", 0) >= app["instances"] else "waiting"


def _what(app: dict[str, Any]) -> str:
    docker = (app.get("container") or {}).get("docker") or {}
    return docker.get("image") or app.get("cmd") or " ".join(app.get("args", []))


def _show_named(client: Client, path: str, output: str) -> None:
    app = pods.find(lambda: get_app(client, path))
    if app is not None:
        _show_app(client, app, output)
    elif (pod := pods.find_pod(client, path)) is not None:
        pods.show_pod(pod, output)
    elif pods.find_group(client, path) is not None:
        _show_apps(client, output, path)
    else:
        raise pods.missing(path)


def _show_apps(client: Client, output: str, group: str = "/") -> None:
    """Shapes: as JSON and YAML there are the apps alone, as Marathon lists them."""
    wide = output == "wide"
    embed = ["apps.counts", "apps.deployments", "apps.lastTaskFailure"] if wide else None
    listed = client.get("/v2/apps", embed=embed)["apps"]
    beside = pods.list_pods(client) if output in ("table", "wide") else []
    below = group.rstrip("/") + "/"
    apps, own_pods = ([one for one in each if one["id"].startswith(below)] for each in (listed, beside))
    columns = ["app", "state", "running", "wanted", "cpus", "mem", "what"] + (["version", "why"] if wide else [])

    def rows() -> Iterator[tuple[Any, ...]]:
        for a in apps:
            what = _what(a) if wide else _what(a)[:60]
            row = (a["id"], _app_state(a), a.get("tasksRunning", 0), a["instances"], a["cpus"], a["mem"], what)
            yield (*row, a["version"], (a.get("lastTaskFailure") or {}).get("message")) if wide else row
        yield from (pods.pod_row(pod, wide) for pod in own_pods)

    show(apps, output, columns, rows)


def _show_app(client: Client, app: dict[str, Any], output: str) -> None:
    if output in ("json", "yaml"):
        show(app, output, [], list)
        return
    now = time.time()
    click.echo(f"{app['id']}  {_app_state(app)}  {app.get('tasksRunning', 0)}/{app['instances']} running  {_what(app)}")
    if failure := app.get("lastTaskFailure"):
        click.echo(f"last failure  {short_state(failure['state'])} on {failure['host']}: {failure['message']}")
    wide = output == "wide"
    columns = ["instance", "state", "host", "ports", "since"] + (["agent", "version"] if wide else [])

    def rows() -> Iterator[tuple[Any, ...]]:
        for t in app.get("tasks", []):
            since = t.get("startedAt") or t.get("stagedAt") or "1970-01-01T00:00:00Z"
            ports = " ".join(map(str, t.get("ports", [])))
            row = (t["id"], short_state(t["state"]), t["host"], ports, ago(parse_timestamp(since), now))
            yield (*row, t["slaveId"], t["version"]) if wide else row

    show(app.get("tasks", []), output, columns, rows)
    _show_why(client, app["id"])


def _show_why(client: Client, path: str) -> None:
    """Under the table: why instances of the app still wait, if any do."""
    for found in client.get("/corral/v1/explain", group=path)["explanations"]:
        for refusal in found["refusals"][:5]:
            click.echo(f"waiting  {found['waiting']} instance(s): {refusal['detail']} ({refusal['agents']} agents)")


@click.command()
@click.argument("name")
@click.argument("instances", type=click.IntRange(min=0))
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is done.")
@timeout_option(120.0)
@click.option("--force", is_flag=True, help="Replace a deployment that is under way.")
@click.pass_obj
def scale(addr: str, name: str, instances: int, detach: bool, timeout_s: float, force: bool) -> None:
    """Change how many instances of app or pod NAME are kept running."""
    client = Client(addr)
    path = app_id(name)
    pod = pods.find(lambda: client.get(f"/v2/pods{path}"))
    if pod is not None:
        _scale_pod(client, pod, instances, force, None if detach else timeout_s)
        return
    get_app(client, path)  # a PUT would create what does not exist
    client.send("PUT", f"/v2/apps{path}", {"instances": instances}, {"force": force})
    click.echo(f"app {path} shall have {instances} instance(s)", err=True)
    if not detach:
        follow(client, path, timeout_s)


def _scale_pod(client: Client, pod: dict[str, Any], instances: int, force: bool, timeout_s: float | None) -> None:
    from corral.cli.deploys import follow_to_end

    deployment = pods.change(client, {**pod, "scaling": {"kind": "fixed", "instances": instances}}, force)
    click.echo(f"pod {pod['id']} shall have {instances} instance(s)", err=True)
    if deployment and timeout_s is not None:
        follow_to_end(client, deployment, timeout_s)


@click.command()
@click.argument("name")
@timeout_option(60.0)
@click.pass_obj
def stop(addr: str, name: str, timeout_s: float) -> None:
    """Stop all instances of app or pod NAME and forget it."""
    client = Client(addr)
    path = app_id(name)
    kind = pods.delete(client, path)
    deadline = time.monotonic() + timeout_s
    while any(t["group"] == path for t in client.get("/corral/v1/tasks", group=path)["tasks"] if _alive(t)):
        if time.monotonic() > deadline:
            raise Failed(f"{kind} {path} is deleted but instances still end after {timeout_s:g} s; see corral ps")
        time.sleep(_POLL_S)
    click.echo(f"{kind} {path} stopped", err=True)


def _alive(task: dict[str, Any]) -> bool:
    return short_state(task["state"]) in ("staging", "starting", "running", "killing")


def read_file(file: str) -> Any:
    """The JSON of a file, - for standard input. Errors: `Invalid`."""
    return read_json(file)


def follow(client: Client, path: str, timeout_s: float) -> None:
    """Show progress until the app's deployments are done, then print where it listens.

    Errors: `Failed` after `timeout_s` with the last failure or the reason it waits.
    """
    from rich.console import Console
    from rich.status import Status

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    deadline = time.monotonic() + timeout_s
    state, shown = f"app {path}: asked", ""
    with Status(state, console=console) as line:
        while True:
            try:
                found = get_app(client, path)
                running, wanted = found.get("tasksRunning", 0), found["instances"]
                state = f"app {path} has {running}/{wanted} running"
                if not found.get("deployments") and running >= wanted:
                    break
                reason = _reason(client, found)
            except Unavailable as error:
                # A master that is away for a moment has not forgotten the app.
                reason = error.message
            line.update(state)
            if time.monotonic() > deadline:
                why = reason or "still starting; ask again with corral status"
                raise Failed(f"{state} after {timeout_s:g} s: {why}")
            if reason and reason != shown:
                shown = reason
                console.print(f"app {path} waits: {reason}", markup=False)
            time.sleep(_POLL_S)
    click.echo(f"app {path}: {running}/{wanted} running", err=True)
    for task in found.get("tasks", []):
        where = " ".join(f"{task['host']}:{port}" for port in task.get("ports", []))
        click.echo(f"{task['id']}  {where}".rstrip())


def _reason(client: Client, found: dict[str, Any]) -> str:
    """Why the app does not run yet, as far as anybody knows; empty while it is just starting."""
    failure = found.get("lastTaskFailure")
    if failure and failure["version"] == found["version"]:
        return f"{failure['message']} (corral status {found['id'].lstrip('/')} shows more)"
    waiting = client.get("/corral/v1/explain", group=found["id"])["explanations"]
    details = [r["detail"] for e in waiting for r in e["refusals"]]
    if any(e["never"] for e in waiting):
        details.append("no agent of this cluster could ever hold one; corral explain says more")
    return "; ".join(details[:4])
