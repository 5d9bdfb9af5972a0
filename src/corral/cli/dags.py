"""Commands about DAGs: dag apply, plan, ls, run, status, resume, kill, rm."""

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.files import read_json
from corral.cli.jobs import split_parameter
from corral.cli.output import output_option, repeat, show, watch_option
from corral.lib.errors import Failed, Invalid, NotFound, Unavailable, Unprocessable

API = "/corral/v1"
_POLL_S = 0.3
_MOST_SHOWN = 60
_PATIENCE_S = 600.0
"""How long a master that does not answer is asked again."""
_OVER = ("succeeded", "failed", "killed")

follow_options = [
    click.option("--wait", is_flag=True, help="Follow the run to its end; a failure is an error."),
    click.option(
        "--timeout",
        "timeout_s",
        default=86_400.0,
        show_default=True,
        type=click.FloatRange(0.0, 1e7),
        help="Seconds to wait; the run goes on afterwards.",
    ),
]


def _followed(command: Any) -> Any:
    for option in reversed(follow_options):
        command = option(command)
    return command


@click.group()
def dag() -> None:
    """Steps that run after one another, with conditions, arrays and results."""


def _read(file: str) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise Invalid(f"{file} holds no DAG: it must be a JSON object with a name and steps")
    return found


def _path(name: str, rest: str = "", kind: str = "dags") -> str:
    """Errors: `Invalid` for what can be the name of nothing, which would be another path."""
    if not name or "/" in name:
        what = "DAG" if kind == "dags" else "run of a DAG"
        raise Invalid(f"{name!r} is no name of a {what}: it is of letters, digits, dots, dashes and underscores")
    return f"{API}/{kind}/{name}{rest}"


@dag.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--no-check", is_flag=True, help="Take steps that no agent could run; one may yet come.")
@click.pass_obj
def apply_dag(addr: str, file: str, no_check: bool) -> None:
    """Create or change the DAG of FILE; - reads standard input. Runs under way go on as they began."""
    body = _read(file)
    found = Client(addr).send("PUT", _path(body["name"]), body, query={"check": "false" if no_check else ""})
    if found.get("notice"):
        click.echo(found["notice"], err=True)
    click.echo(f"DAG {found['name']} of {found['steps']} steps is applied", err=True)


@dag.command("plan")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--no-check", is_flag=True, help="Do not ask which steps no agent could run.")
@output_option
@click.pass_obj
def plan_dag(addr: str, file: str, no_check: bool, output: str) -> None:
    """Check the DAG of FILE and show in which order its steps would run, and what that changes.

    A step that no agent could ever run is an error, as it is to corral dag apply.
    """
    query = {"check": "false" if no_check else ""}
    found = Client(addr).send("POST", f"{API}/dags/plan", _read(file), query=query)
    never = found.get("never", {})
    signs = {name: sign for sign in ("added", "changed") for name in found[sign]}

    def rows() -> Iterator[tuple[Any, ...]]:
        for number, wave in enumerate(found["waves"], start=1):
            for name in wave:
                yield number, name, signs.get(name, ""), never.get(name, "")
        for name in found["removed"]:
            yield "", name, "removed", ""
        for field in found["fields"]:
            yield "", "", f"{field} changed", ""

    show(found, output, ["wave", "step", "change", "why not"], rows)
    if found.get("notice"):
        click.echo(found["notice"], err=True)
    if never:
        name = next(iter(never))
        raise Unprocessable(
            f"step {name!r} would not be taken, as {never[name]}; ask for less, or apply it with --no-check"
        )


@dag.command("ls")
@output_option
@watch_option
@click.pass_obj
def list_dags(addr: str, output: str, watch: bool) -> None:
    """List all DAGs."""
    client = Client(addr)

    def once() -> None:
        found = client.get(f"{API}/dags")["dags"]

        def rows() -> Iterator[tuple[Any, ...]]:
            for one in found:
                last = one["lastRun"] or {}
                when = "disabled" if one["disabled"] else one["next"] or "on request"
                yield one["name"], one["steps"], one["underWay"], last.get("state", ""), last.get("endedAt", ""), when

        show(found, output, ["dag", "steps", "under way", "last", "ended", "next"], rows)

    repeat(watch, once)


@dag.command("show")
@click.argument("name")
@click.pass_obj
def show_dag(addr: str, name: str) -> None:
    """Print the definition of DAG NAME, as corral dag apply takes it."""
    found = Client(addr).get(_path(name))
    shown = {key: value for key, value in found.items() if key not in ("underWay", "lastRun", "next")}
    click.echo(json.dumps(shown, indent=2))


@dag.command("run")
@click.argument("name")
@click.option(
    "-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter; may be given repeatedly."
)
@click.option("--key", default="", help="Calls with the same key start one run.")
@_followed
@click.pass_obj
def run_dag(addr: str, name: str, parameters: tuple[str, ...], key: str, wait: bool, timeout_s: float) -> None:
    """Start a run of DAG NAME and print its id."""
    client = Client(addr)
    body = {"parameters": dict(split_parameter(text) for text in parameters), "key": key}
    run = client.send("POST", _path(name, "/runs"), body)["id"]
    click.echo(run)
    if wait:
        _follow(client, run, timeout_s)


@dag.command("status")
@click.argument("name")
@output_option
@watch_option
@click.pass_obj
def show_status(addr: str, name: str, output: str, watch: bool) -> None:
    """Show run NAME step by step, or the runs of DAG NAME."""
    client = Client(addr)

    def once() -> None:
        try:
            _show_run(client.get(_path(name, kind="dag-runs")), output)
        except NotFound:
            try:
                found = client.get(_path(name, "/runs"))
            except NotFound:
                raise NotFound(
                    f"there is no DAG and no run {name!r}, or the run is no longer kept; corral dag ls lists DAGs"
                ) from None
            _show_runs(found, output)

    repeat(watch, once)


def _show_run(run: dict[str, Any], output: str) -> None:
    if output not in ("json", "yaml"):
        click.echo(f"{run['id']}  DAG {run['dag']}  {run['state']}  {run['why']}".rstrip())

    def rows() -> Iterator[tuple[Any, ...]]:
        for step in run["steps"]:
            counts = step.get("counts")
            many = f"{counts['succeeded']}/{step['count']}" if counts and step["count"] else ""
            task = step.get("taskId") or next((e["taskId"] for e in step.get("elements", ()) if e["taskId"]), "")
            result = _shorten(step.get("result") or "", None if output == "wide" else _MOST_SHOWN)
            yield step["name"], step["state"], many, result, step["why"], task

    show(run, output, ["step", "state", "elements", "result", "why", "task"], rows)


def _shorten(text: str, most: int | None) -> str:
    """What a task left, as it may be shown to a terminal; -o json has all of it."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:most])
    return shown if most is None or len(text) <= most else f"{shown}…"


def _show_runs(found: dict[str, Any], output: str) -> None:
    def rows() -> Iterator[tuple[Any, ...]]:
        for run in found["runs"]:
            yield run["id"], run["state"], run["cause"], run["due"], run["endedAt"], run["why"]

    show(found["runs"], output, ["run", "state", "by", "due", "ended", "why"], rows)


@dag.command("resume")
@click.argument("run")
@click.option("--from", "step", default="", metavar="STEP", help="Do this step and all that come after it anew.")
@_followed
@click.pass_obj
def resume_run(addr: str, run: str, step: str, wait: bool, timeout_s: float) -> None:
    """Go on with RUN: do anew what of it did not succeed."""
    client = Client(addr)
    client.send("POST", _path(run, "/resume", "dag-runs"), {"from": step})
    click.echo(f"run {run} goes on", err=True)
    if wait:
        _follow(client, run, timeout_s)


@dag.command("kill")
@click.argument("run")
@click.pass_obj
def kill_run(addr: str, run: str) -> None:
    """End RUN with all that runs of it."""
    Client(addr).send("DELETE", _path(run, kind="dag-runs"))
    click.echo(f"run {run} is ended", err=True)


@dag.command("rm")
@click.argument("name")
@click.option("--force", is_flag=True, help="End the runs that are under way.")
@click.pass_obj
def remove_dag(addr: str, name: str, force: bool) -> None:
    """Forget DAG NAME and its runs."""
    Client(addr).send("DELETE", _path(name), query={"force": force})
    click.echo(f"DAG {name} deleted", err=True)


def _look_at(client: Client, run_id: str, deadline: float) -> tuple[dict[str, Any], float]:
    """The run, and how long it took to be told, in seconds. A master that is away for a while is waited for."""
    silent_at: float | None = None
    while True:
        asked_at = time.monotonic()
        try:
            return client.get(_path(run_id, kind="dag-runs")), time.monotonic() - asked_at
        except Unavailable as error:
            if silent_at is None:
                click.echo(f"corral: {error.message}; the run goes on, and is waited for", err=True)
                silent_at = asked_at
            if asked_at > min(deadline, silent_at + _PATIENCE_S):
                raise
        time.sleep(1.0)


def _follow(client: Client, run_id: str, timeout_s: float) -> None:
    """Tell of each step that begins, is tried again or ends. Errors: `Failed` when the run fails, or is not over in
    time."""
    deadline = time.monotonic() + timeout_s
    seen: dict[str, tuple[str, int]] = {}
    while True:
        run, took_s = _look_at(client, run_id, deadline)
        for step in run["steps"]:
            now = step["state"], step.get("attempt", 0)
            # What has not begun waits too, and has no attempt.
            if (step["state"] != "waiting" or "attempt" in step) and seen.get(step["name"]) != now:
                seen[step["name"]] = now
                click.echo(f"{step['name']}  {step['state']}  {step['why']}".rstrip(), err=True)
        if run["state"] in _OVER:
            break
        if time.monotonic() > deadline:
            waits = "; ".join(f"{s['name']}: {s['why'] or s['state']}" for s in run["steps"] if s["state"] not in _OVER)
            raise Failed(f"run {run_id} is not over after {timeout_s:g} s: {waits[:500]}")
        time.sleep(max(_POLL_S, 5 * took_s))  # a run of ten thousand steps is much to tell
    if run["state"] != "succeeded":
        raise Failed(f"run {run_id} {run['state']}: {run['why']}; resume it with corral dag resume {run_id}")
    click.echo(f"run {run_id} succeeded", err=True)
