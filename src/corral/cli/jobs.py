"""Commands about jobs, through the Chronos API: job add, ls, show, run, mark, kill, disable, backfill, history, logs,
graph, rm."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.files import read_json
from corral.cli.output import ago, output_option, pour, repeat, show, watch_option
from corral.lib.errors import Failed, Invalid
from corral.lib.order import peel
from corral.lib.units import parse_timestamp

API = "/v1/scheduler"
_POLL_S = 0.2


@click.group()
def job() -> None:
    """Jobs that run when they are due, or when others have succeeded."""


@job.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--no-check", is_flag=True, help="Take jobs that no agent could run; one may yet come.")
@click.pass_obj
def add_jobs(addr: str, file: str, no_check: bool) -> None:
    """Create or change the Chronos job, or the list of jobs, of FILE; - reads standard input."""
    client = Client(addr)
    found = read_json(file)
    jobs = found if isinstance(found, list) else [found]
    if not jobs:
        raise Invalid(f"{file} holds no jobs")
    for one in jobs:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            raise Invalid(f"{file} holds a job without a name; every job needs one")
    for one in parents_first(jobs):
        path = f"{API}/{'dependency' if one.get('parents') is not None else 'iso8601'}"
        client.send("POST", path, one, query={"check": "false" if no_check else ""})
        click.echo(f"job {one['name']} accepted", err=True)


def parents_first(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The jobs in an order in which no parent comes after its child; what goes in circles is left to the server.

    Errors: `Invalid` for two of one name, of which one would be lost.
    """
    of = {one["name"]: one for one in jobs}
    if len(of) < len(jobs):
        twice = next(name for name, count in Counter(one["name"] for one in jobs).items() if count > 1)
        raise Invalid(f"job {twice!r} is there twice; leave one of them out")
    parents = {name: set(list_parents(one)) & of.keys() for name, one in of.items()}
    ordered = dict.fromkeys(peel(parents))
    return [of[name] for name in [*ordered, *(name for name in parents if name not in ordered)]]


def list_parents(one: dict[str, Any]) -> list[str]:
    """Shapes: what is no list of names is left to the server."""
    found = one.get("parents")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


@job.command("ls")
@output_option
@watch_option
@click.pass_obj
def list_jobs(addr: str, output: str, watch: bool) -> None:
    """List all jobs."""
    client = Client(addr)
    repeat(watch, lambda: _show_jobs(client, output))


def _show_jobs(client: Client, output: str) -> None:
    jobs = client.get(f"{API}/jobs/summary")["jobs"]
    wide = output == "wide"
    details = {one["name"]: one for one in client.get(f"{API}/jobs")} if wide else {}
    columns = ["job", "state", "last", "when", "why"] + (["ok", "failed", "command"] if wide else [])

    def rows() -> Iterator[tuple[Any, ...]]:
        for one in jobs:
            state = "disabled" if one["disabled"] else one["state"]
            row = (one["name"], state, one["status"], _when(one), one.get("why", ""))
            more = details.get(one["name"], {})
            yield (*row, more.get("successCount"), more.get("errorCount"), more.get("command")) if wide else row

    show(jobs, output, columns, rows)


def _when(one: dict[str, Any]) -> str:
    return "after " + ", ".join(one["parents"]) if one.get("parents") else str(one.get("schedule", ""))


@job.command("show")
@click.argument("name")
@output_option
@click.pass_obj
def show_job(addr: str, name: str, output: str) -> None:
    """Show job NAME: its definition, its next firings, and why it waits if it does."""
    client = Client(addr)
    found = client.get(f"{API}/job/{name}")
    if output in ("json", "yaml"):
        show(found, output, [], list)
        return
    click.echo(f"{found['name']}  {'disabled' if found['disabled'] else 'enabled'}  {_when(found)}")
    click.echo(f"command  {found['command']}")
    click.echo(f"succeeded {found['successCount']}  failed {found['errorCount']}  retries {found['retries']}")
    if not found.get("parents"):
        for one in client.get(f"{API}/job/{name}/next", count=5)["next"]:
            click.echo(f"next  {one['local']}")
    history = client.get(f"{API}/job/{name}/history", limit=1)
    for word, at in (("last success", found["lastSuccess"]), ("last error", found["lastError"])):
        if at:
            click.echo(f"{word}  {at}")
    for one in history["attempts"]:
        click.echo(f"last attempt  {one['result']}  {one['taskId']}  {one['message']}".rstrip())
    for run in history["unfinished"]:
        click.echo(f"{run['state']}  attempt {run['attempt'] + 1}  due {run['due']}  {run['taskId'] or ''}".rstrip())
    if history["why"]:
        click.echo(f"waiting  {history['why']}")


@job.command("run")
@click.argument("name")
@click.option("--arguments", default="", help="Appended to the command of this run.")
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE")
@click.option("--wait", is_flag=True, help="Follow the run to its end; a failure is an error.")
@click.option(
    "--timeout",
    "timeout_s",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(0.0, 1e6),
    help="Seconds to wait.",
)
@click.pass_obj
def run_job(
    addr: str, name: str, arguments: str, parameters: tuple[str, ...], wait: bool, timeout_s: float
) -> None:  # fmt: skip
    """Run job NAME now, whatever its schedule says."""
    client = Client(addr)
    given = dict(split_parameter(text) for text in parameters)
    before = client.get(f"{API}/job/{name}/history", limit=1)
    client.send("PUT", f"{API}/job/{name}", {"arguments": arguments, "parameters": given})
    click.echo(f"job {name} is asked to run", err=True)
    if wait:
        _follow(client, name, _last_token(before), timeout_s)


def split_parameter(text: str) -> tuple[str, str]:
    left, mark, right = text.partition("=")
    if not mark or not left:
        raise Invalid(f"parameter {text!r} is not of the form NAME=VALUE")
    return left, right


def _last_token(history: dict[str, Any]) -> int:
    return max((row["token"] for row in [*history["unfinished"], *history["attempts"]]), default=0)


def _follow(client: Client, name: str, after: int, timeout_s: float) -> None:
    """Errors: `Failed` when the run fails for good, or is not over in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        history = client.get(f"{API}/job/{name}/history", limit=50)
        over = [row for row in history["attempts"] if row["token"] > after and row["final"]]
        if over:
            row = over[-1]
            if row["result"] != "success":
                raise Failed(f"job {name} ended as {row['result']}: {row['message']}; corral logs '{row['taskId']}'")
            click.echo(f"job {name} succeeded as {row['taskId']}", err=True)
            return
        if not history["unfinished"] and client.get(f"{API}/job/{name}")["disabled"]:
            raise Failed(f"job {name} is disabled and does not run; enable it first")
        if time.monotonic() > deadline:
            why = history["why"] or "it still runs"
            raise Failed(f"job {name} is not over after {timeout_s:g} s: {why}")
        time.sleep(_POLL_S)


@job.command("mark")
@click.argument("name")
@click.pass_obj
def mark_job(addr: str, name: str) -> None:
    """Take job NAME for succeeded without running it, so that the jobs after it run."""
    client = Client(addr)
    client.get(f"{API}/job/{name}")
    client.order("PUT", f"{API}/job/success/{name}")
    click.echo(f"job {name} is marked as succeeded", err=True)


@job.command("disable")
@click.argument("name")
@click.pass_obj
def disable_job(addr: str, name: str) -> None:
    """Have job NAME fire no more until it is enabled; what waits of it is dropped, what runs goes on."""
    _set_disabled(Client(addr), name, disabled=True)


@job.command("enable")
@click.argument("name")
@click.pass_obj
def enable_job(addr: str, name: str) -> None:
    """Have job NAME fire again."""
    _set_disabled(Client(addr), name, disabled=False)


def _set_disabled(client: Client, name: str, *, disabled: bool) -> None:
    found = client.get(f"{API}/job/{name}")
    path = f"{API}/{'dependency' if found.get('parents') else 'iso8601'}"
    client.send("POST", path, {**found, "disabled": disabled})
    click.echo(f"job {name} is {'disabled' if disabled else 'enabled'}", err=True)


@job.command("graph")
@click.option("--csv", is_flag=True, help="As lines of nodes and links instead of dot.")
@click.pass_obj
def show_graph(addr: str, csv: bool) -> None:
    """Print which jobs come after which, in Graphviz' language: corral job graph | dot -Tsvg > jobs.svg."""
    for line in Client(addr).lines(f"{API}/graph/{'csv' if csv else 'dot'}"):
        click.echo(line, nl=False)


@job.command("stats")
@output_option
@click.pass_obj
def show_stats(addr: str, output: str) -> None:
    """Show how long the jobs took from when they were due to their success, slowest first."""
    client = Client(addr)
    kinds = {"median": "median", "p95": "95thPercentile", "p99": "99thPercentile"}
    found = {kind: client.get(f"{API}/stats/{which}") for kind, which in kinds.items()}
    times: dict[str, dict[str, float]] = {}
    for kind, listed in found.items():
        for row in listed:
            times.setdefault(row["jobNameLabel"], {})[kind] = row["time"]
    shown = [{"job": name, **each} for name, each in times.items()]

    def rows() -> Iterator[tuple[Any, ...]]:
        for name, each in times.items():
            yield name, *(f"{each.get(kind, 0.0):.3f}s" for kind in kinds)

    show(shown, output, ["job", *kinds], rows)


@job.command("kill")
@click.argument("name")
@click.pass_obj
def kill_job(addr: str, name: str) -> None:
    """End all running tasks of job NAME; they are not retried."""
    Client(addr).send("DELETE", f"{API}/task/kill/{name}")
    click.echo(f"tasks of job {name} are ended", err=True)


@job.command("backfill")
@click.argument("name")
@click.argument("start", required=False)
@click.argument("end", required=False)
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE")
@click.option("--stop", is_flag=True, help="Run nothing more of the range that is under way.")
@click.pass_obj
def backfill_job(
    addr: str, name: str, start: str | None, end: str | None, parameters: tuple[str, ...], stop: bool
) -> None:
    """Run every occurrence of job NAME from START up to END once more."""
    if stop:
        Client(addr).send("DELETE", f"{API}/job/{name}/backfill")
        click.echo(f"the backfill of job {name} is stopped", err=True)
        return
    if start is None or end is None:
        raise click.UsageError("give START and END, or --stop")
    body = {"from": start, "to": end, "parameters": dict(split_parameter(text) for text in parameters)}
    runs = Client(addr).send("POST", f"{API}/job/{name}/backfill", body)["runs"]
    click.echo(f"job {name} runs {runs} times more", err=True)


@job.command("history")
@click.argument("name")
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@output_option
@click.pass_obj
def show_history(addr: str, name: str, limit: int, output: str) -> None:
    """Show the attempts of job NAME, newest first; corral job logs NAME TASK shows what one wrote."""
    found = Client(addr).get(f"{API}/job/{name}/history", limit=limit)
    now = time.time()
    wide = output == "wide"
    columns = ["task", "result", "attempt", "due", "ended", "host"] + (
        ["cause", "given", "round", "why"] if wide else []
    )

    def rows() -> Iterator[tuple[Any, ...]]:
        for run in found["unfinished"]:
            row = (run["taskId"], run["state"], run["attempt"] + 1, run["due"], "", run["host"])
            yield (*row, run["cause"], _given(run), run["round"], run["ending"]) if wide else row
        for one in found["attempts"]:
            ended = ago(parse_timestamp(one["endedAt"]), now)
            row = (one["taskId"], one["result"], one["attempt"] + 1, one["due"], ended, one["host"])
            yield (*row, one["cause"], _given(one), one["round"], one["message"]) if wide else row

    show(found, output, columns, rows)


def _given(run: dict[str, Any]) -> str:
    """What a run was given. Shapes: empty for one of a server that does not tell."""
    words = [f"{name}={value}" for name, value in run.get("parameters", {}).items()]
    return " ".join([*words, run.get("arguments", "")]).strip()


@job.command("logs")
@click.argument("name")
@click.argument("task", required=False)
@click.option("--stderr", is_flag=True, help="Standard error instead of standard output.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt is over.")
@click.pass_obj
def show_log(addr: str, name: str, task: str | None, stderr: bool, follow: bool) -> None:
    """Show what an attempt of job NAME wrote: the newest, or the one with the task that its history names."""
    stream = "stderr" if stderr else "stdout"
    pour(Client(addr).lines(f"{API}/job/{name}/log", task=task, stream=stream, follow=follow))


@job.command("rm")
@click.argument("name")
@click.pass_obj
def remove_job(addr: str, name: str) -> None:
    """Forget job NAME and end its tasks; its children get its parents."""
    Client(addr).send("DELETE", f"{API}/job/{name}")
    click.echo(f"job {name} deleted", err=True)
