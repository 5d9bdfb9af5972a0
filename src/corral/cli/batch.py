"""Commands about batch jobs, through the batch API: batch submit, ls, show, wait, logs, cancel, stats, owner."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from corral.cli.access import find_access
from corral.cli.client import Client
from corral.cli.files import read_text
from corral.cli.output import ago, output_option, pour, repeat, show, watch_option
from corral.client.batch import BatchClient
from corral.client.records import Job
from corral.lib.errors import Failed, Invalid
from corral.lib.units import parse_timestamp

API = "/v1/batch"
_SHOWN = 20


def _open(addr: str) -> BatchClient:
    """The client of all masters, with what was said before the command."""
    access = find_access()
    return BatchClient(*addr.split(","), token=access.token, cacert=access.cacert)


@click.group()
def batch() -> None:
    """Jobs that are run once, as soon as there is room, in great numbers."""


@batch.command("submit", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help='Jobs as a JSON list, as {"jobs": [...]}, or one a line; - reads standard input.',
)
@click.option("--name", default="", help="A label for people.")
@click.option("--owner", default="", help="Whose share the jobs use.")
@click.option("--cpus", type=float)
@click.option("--mem", type=float, help="MiB.")
@click.option("--disk", type=float, help="MiB.")
@click.option("--gpus", type=float)
@click.option("--image", default="", help="Run in a container of this image.")
@click.option("--user", default="", help="Who the command runs as.")
@click.option("--priority", type=int)
@click.option("--retries", type=int)
@click.option(
    "--retry-delay", type=float, help="Seconds before the first of these, twice as long before each further one."
)
@click.option("--timeout", type=float, help="Seconds an attempt may run.")
@click.option("--queue-timeout", type=float, help="Seconds the job may wait.")
@click.option("--at-most-once", is_flag=True, help="Never start it twice, though its fate be unknown.")
@click.option("--array", type=int, help="Run so many elements, each with its CORRAL_ARRAY_INDEX.")
@click.option("--max-running", type=int, help="So many elements of the array at once.")
@click.option(
    "--constraint", "constraints", multiple=True, metavar="FIELD:OPERATOR:VALUE", help="Such as rack:EQUALS:r1."
)
@click.option("-e", "--env", "env", multiple=True, metavar="NAME=VALUE")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--key", default=None, help="Makes the call one that can be repeated without a second run.")
@click.option("--no-check", is_flag=True, help="Take jobs that no agent could run; one may yet come.")
@click.option("--wait", is_flag=True, help="Follow the jobs to their ends; a failure is an error.")
@click.pass_obj
def submit_jobs(
    addr: str, /, words: tuple[str, ...], file: str | None, key: str | None, no_check: bool, wait: bool, **options: Any
) -> None:
    """Submit a command, as WORDS behind --, or the jobs of a file; prints their ids."""
    given = _fields(options)
    if file is not None and words:
        raise Invalid("give either a command or --file")
    if file is None and not words and "image" not in given:
        raise Invalid("give a command behind --, or the jobs of a file with --file")
    if file is not None:
        jobs: Sequence[dict[str, Any]] = read_jobs(read_text(file))
    else:
        jobs = [{"command": words[0]} if len(words) == 1 else {"argv": list(words)} if words else {}]
    with _open(addr) as client:
        ids: list[str] = []
        taken = client.submit(jobs, defaults=given, key=key, check=not no_check)
        for one in taken:
            ids.append(one.id)
            click.echo(one.id)
        for notice in taken.notices:
            click.echo(notice, err=True)
        if wait:
            follow(client, ids)


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    at_most_once, most = options.pop("at_most_once"), options.pop("max_running")
    parted = ("env", "labels", "constraints")
    found = {key: value for key, value in options.items() if value not in (None, "", ()) and key not in parted}
    if at_most_once:
        found["delivery"] = "at-most-once"
    if options["constraints"]:
        found["constraints"] = [_split_constraint(text) for text in options["constraints"]]
    for key in ("env", "labels"):
        if options[key]:
            found[key] = dict(_split(text) for text in options[key])
    if "array" in found:
        found["array"] = {"count": found["array"], **({} if most is None else {"max_running": most})}
    elif most is not None:
        raise Invalid("--max-running is for the elements of an --array; corral batch owner bounds jobs of their own")
    return found


def _split_constraint(text: str) -> list[str]:
    parts = text.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise Invalid(f"constraint {text!r} is not of the form FIELD:OPERATOR:VALUE, such as rack:EQUALS:r1")
    return parts


def _split(text: str) -> tuple[str, str]:
    left, mark, right = text.partition("=")
    if not mark or not left:
        raise Invalid(f"{text!r} is not of the form NAME=VALUE")
    return left, right


def read_jobs(text: str) -> list[dict[str, Any]]:
    """Errors: `Invalid` for what is no list of jobs in any of the three forms."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise Invalid(f"the file is neither JSON nor a job a line: {error}") from None
    jobs = found.get("jobs", [found]) if isinstance(found, dict) else found
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise Invalid("the file must hold a list of jobs, each an object")
    if not jobs:
        raise Invalid("the file holds no jobs")
    defaults = found.get("defaults") or {} if isinstance(found, dict) and "jobs" in found else {}
    return [{**defaults, **job} for job in jobs]


def follow(client: BatchClient, ids: Sequence[str], timeout_s: float = float("inf")) -> None:
    """Show how many are over until all are.

    Errors: `Failed` names those that did not succeed, or are not over in time.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("jobs", total=len(set(ids)))
        pending, until = list(dict.fromkeys(ids)), time.monotonic() + timeout_s
        while pending:
            # Any end is news for the bar; without one the look is made again in a second.
            left_s = until - time.monotonic()
            if left_s <= 0.0:
                raise Failed(_tell_pending(client, pending, timeout_s))
            pending = client.wait(pending, timeout_s=min(1.0, left_s)).pending
            progress.update(bar, completed=len(set(ids)) - len(pending))
    failed = [job for job in _all(client, ids) if not job.succeeded]
    if failed:
        first = failed[0]
        why = first.reason or f"exit code {first.exit_code}"
        more = f"; {len(failed) - 1} more did not succeed" if len(failed) > 1 else ""
        raise Failed(f"job {first.id} ended as {first.state}: {why}{more}; corral batch logs {first.id}")
    click.echo(f"{_many(len(set(ids)))} succeeded", err=True)


def _many(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _tell_pending(client: BatchClient, pending: Sequence[str], timeout_s: float) -> str:
    first = client.get(pending[0])
    why = f"{first.id} is {first.state}{f': {first.reason}' if first.reason else ''}"
    return f"{_many(len(pending))} not over after {timeout_s:g} s; {why}"


def _all(client: BatchClient, ids: Sequence[str]) -> Iterable[Job]:
    for start in range(0, len(ids), 1000):
        yield from client.query(ids[start : start + 1000]).values()


@batch.command("ls")
@click.option("--state", default="", help="Only jobs in this state.")
@click.option("--owner", default="")
@click.option("--label", default="", metavar="KEY:VALUE")
@click.option("--name", default="")
@click.option("-n", "--limit", default=_SHOWN, show_default=True, type=click.IntRange(1, 10_000))
@output_option
@watch_option
@click.pass_obj
def list_jobs(addr: str, /, output: str, watch: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    client = Client(addr)
    repeat(watch, lambda: _show_jobs(client, output, filters))


def _show_jobs(client: Client, output: str, filters: dict[str, Any]) -> None:
    jobs = client.get(f"{API}/jobs", **filters)["jobs"]
    wide = output == "wide"
    columns = ["job", "state", "name", "owner", "attempt", "exit", "age", "why"] + (["host", "command"] if wide else [])
    now = time.time()

    def rows() -> Iterator[tuple[Any, ...]]:
        for one in jobs:
            age = ago(parse_timestamp(one["submitted_at"]), now)
            code = None if one["exit_code"] is None else str(one["exit_code"])
            row = (one["id"], one["state"], one["name"], one["owner"], one["attempt"] or None, code, age, one["reason"])
            command = one["command"] or " ".join(one["argv"])
            yield (*row, one["host"], command) if wide else row

    show(jobs, output, columns, rows)


@batch.command("show")
@click.argument("job")
@output_option
@click.pass_obj
def show_job(addr: str, job: str, output: str) -> None:
    """Show JOB: what it runs, how far it came, and why it waits if it does."""
    found = Client(addr).get(f"{API}/jobs/{job}")
    if output in ("json", "yaml"):
        show(found, output, [], list)
        return
    click.echo(f"{found['id']}  {found['state']}  owner {found['owner']}  priority {found['priority']}")
    click.echo(f"command  {found['command'] or ' '.join(found['argv'])}")
    for field in ("reason", "host", "exit_code", "submitted_at", "started_at", "finished_at", "counts"):
        if found.get(field) not in (None, "", {}):
            click.echo(f"{field}  {found[field]}")
    click.echo(f"attempt {found['attempt']}  failures {found['failures']}  losses {found['losses']}")


@batch.command("wait")
@click.argument("jobs", nargs=-1, required=True)
@click.option(
    "--timeout",
    "timeout_s",
    default=float("inf"),
    type=click.FloatRange(0.0),
    help="Seconds to wait; for ever unless told.",
)
@click.pass_obj
def wait_jobs(addr: str, jobs: tuple[str, ...], timeout_s: float) -> None:
    """Wait until all JOBS are over; one that did not succeed is an error."""
    with _open(addr) as client:
        known = {job.id for job in _all(client, jobs)}
        for job in jobs:
            if job not in known:
                client.get(job)
        follow(client, jobs, timeout_s)


@batch.command("logs")
@click.argument("job")
@click.option("--stderr", is_flag=True, help="Standard error instead of standard output.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Wait for it to begin, and go on until it is over.")
@click.option("--attempt", default=0, type=click.IntRange(min=0), help="Of this attempt, the last one unless told.")
@click.pass_obj
def show_log(addr: str, job: str, stderr: bool, follows: bool, attempt: int) -> None:
    """Show what JOB wrote."""
    stream = "stderr" if stderr else "stdout"
    pieces = (
        _open(addr).follow_log(job, stream=stream, attempt=attempt or None)
        if follows
        else Client(addr).lines(f"{API}/jobs/{job}/log", stream=stream, attempt=attempt or None)
    )
    pour(pieces)


@batch.command("cancel")
@click.argument("jobs", nargs=-1)
@click.option("--owner", default="", help="All jobs of this owner.")
@click.option("--label", default="", metavar="KEY:VALUE", help="All jobs with this label.")
@click.option("--state", default="", help="All jobs in this state.")
@click.pass_obj
def cancel_jobs(addr: str, jobs: tuple[str, ...], owner: str, label: str, state: str) -> None:
    """End JOBS, or all that match, in whatever state they are."""
    client = _open(addr)
    if not (jobs or owner or label or state):
        raise Invalid("name jobs, or give --owner, --label or --state")
    if len(jobs) == 1 and not (owner or label or state):
        # An unknown one is an error; among many it is passed over.
        client.kill(jobs[0])
        click.echo(f"job {jobs[0]} is ended", err=True)
        return
    count = client.kill_many(tuple(dict.fromkeys(jobs)), owner=owner, label=label, state=state)
    click.echo(f"{_many(count)} {'is' if count == 1 else 'are'} ended", err=True)


@batch.command("prioritize")
@click.argument("job")
@click.argument("priority", type=int)
@click.pass_obj
def prioritize_job(addr: str, job: str, priority: int) -> None:
    """Give JOB, which waits, another PRIORITY, -100 to 100."""
    with _open(addr) as client:
        found = client.set_priority(job, priority)
    click.echo(f"job {found.id} has priority {found.priority}", err=True)


@batch.command("stats")
@output_option
@watch_option
@click.pass_obj
def show_stats(addr: str, output: str, watch: bool) -> None:
    """Show how many jobs are in which state, by owner, and how fast they go."""
    client = Client(addr)
    repeat(watch, lambda: _show_stats(client, output))


def _show_stats(client: Client, output: str) -> None:
    found = client.get(f"{API}/stats")

    def rows() -> Iterator[tuple[Any, ...]]:
        for name, owner in found["owners"].items():
            share = f"{100 * owner['share']:.0f}%"
            yield name, owner["queued"], owner["running"], share, owner["weight"], "paused" if owner["paused"] else ""

    show(found, output, ["owner", "queued", "running", "share", "weight", "note"], rows)
    if output in ("table", "wide"):
        states = "  ".join(f"{state} {count}" for state, count in found["states"].items() if count)
        rates = "  ".join(f"{name} {value:g}/s" for name, value in found["rates"].items())
        click.echo(f"{states or 'no jobs'}\n{rates}")


@batch.command("owner")
@click.argument("owner")
@click.option("--weight", type=float, help="Its claim, relative to others.")
@click.option("--max-running", type=int, help="The most jobs under way at once; 0 for no bound.")
@click.option("--max-queued", type=int, help="The most jobs that may wait.")
@click.option("--pause/--resume", default=None, help="Start nothing of it, or start again.")
@output_option
@click.pass_obj
def show_owner(
    addr: str, owner: str, weight: float | None, max_running: int | None, max_queued: int | None, pause: bool | None,
    output: str,
) -> None:  # fmt: skip
    """Show OWNER, or change what holds of its jobs."""
    client = Client(addr)
    found = client.get(f"{API}/owners/{owner}")
    given = {"weight": weight, "max_running": max_running, "max_queued": max_queued, "paused": pause}
    changed = {key: value for key, value in given.items() if value is not None}
    if changed:
        kept = {key: found[key] for key in given if key != "max_queued" or found.get("max_queued_set", True)}
        found = client.send("PUT", f"{API}/owners/{owner}", {**kept, **changed})
    columns = ["owner", "weight", "max_running", "max_queued", "queued", "running", "paused"]
    show(found, output, columns, lambda: [[found[column] for column in columns]])
