"""Jobs of a Chronos taken over: read from a live one or an exported file, compared, and created here."""

import json
import sys
from typing import Any
from urllib.parse import urlsplit

import click

from corral.cli.client import Client
from corral.cli.foreign import fetch_json, hide_password, read_json
from corral.cli.jobs import API, list_parents, parents_first
from corral.cli.output import output_option, show
from corral.lib.errors import CorralError, Invalid, NotFound, Unavailable

Jobs = list[dict[str, Any]]
_MOST_ASKED_BYTES = 1 << 20
"""Of what is judged with one request; what hangs together is judged together, however large it is."""


@click.command("chronos")
@click.argument("source", metavar="URL|FILE")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be taken over and what differs.")
@click.option("--disabled", is_flag=True, help="Take every job over disabled, so that none runs in both places.")
@click.option(
    "--job",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only this job with all that comes before and after it; may be given repeatedly.",
)
@output_option
@click.pass_obj
def import_chronos(
    addr: str, source: str, only_plan: bool, disabled: bool, names: tuple[str, ...], output: str
) -> None:
    """Read the jobs of the Chronos at URL, or of an exported FILE, and create them here.

    What this cluster would refuse is listed and left out, with the jobs that come after it; the exit code is then 1.
    What is here already, as it is there, is left alone: the same import may be made again.
    """
    is_live = "://" in source
    jobs = _fetch(source) if is_live else read_json(source, "http://chronos:4400")
    jobs = jobs if isinstance(jobs, list) else [jobs]
    # A Chronos without jobs is none the less one; nothing else is a list of objects with names.
    if not all(isinstance(one, dict) and "name" in one for one in jobs) or not (jobs or is_live):
        shown = hide_password(source)
        raise Invalid(f"{shown} holds no jobs; give the URL of a Chronos, or what its /scheduler/jobs answers")
    if names:
        jobs = _choose(jobs, names, hide_password(source))
    if disabled:
        jobs = [{**one, "disabled": True} for one in jobs]
    client = Client(addr)
    rows = _judge(client, jobs)
    show(
        rows,
        output,
        ["job", "verdict", "why"],
        lambda: ((r["name"], r["verdict"], "; ".join(r["notes"])) for r in rows),
    )
    refused = sum(row["verdict"] == "refused" for row in rows)
    if not only_plan:
        fresh = [one for one, row in zip(jobs, rows, strict=True) if row["verdict"] in ("new", "changed")]
        refused += _take_over(client, fresh, len(rows) - refused - len(fresh))
    verb = "can be" if only_plan else "are"
    click.echo(f"{len(rows) - refused} of {len(rows)} {verb} taken over", err=True)
    if refused:
        sys.exit(1)


def _fetch(url: str) -> Any:
    """The jobs of a live Chronos, of 3.x or of 2.x."""
    path = urlsplit(url).path.rstrip("/").removesuffix("/jobs").removesuffix("/scheduler").removesuffix("/v1")
    try:
        return fetch_json(url, f"{path}/v1/scheduler/jobs", "Chronos")
    except NotFound:
        pass
    try:
        return fetch_json(url, f"{path}/scheduler/jobs", "Chronos")
    except NotFound as error:
        raise Unavailable(error.message) from None


def _judge(client: Client, jobs: Jobs) -> list[dict[str, Any]]:
    """What this cluster says of each, in their order."""
    rows: dict[int, dict[str, Any]] = {}
    for places in _batches(jobs):
        found = client.send("POST", f"{API}/jobs/plan", [jobs[at] for at in places])["jobs"]
        rows.update(zip(places, found, strict=True))
    return [rows[at] for at in range(len(jobs))]


def _choose(jobs: Jobs, names: tuple[str, ...], source: str) -> Jobs:
    """These jobs with their families. Errors: `Invalid` names what is not there."""
    known = {str(one["name"]) for one in jobs}
    if missing := [name for name in names if name not in known]:
        raise Invalid(f"{source} has no job {', '.join(map(repr, missing))}; without --job all are taken over")
    chosen = [places for places in _families(jobs) if any(str(jobs[at]["name"]) in names for at in places)]
    return [jobs[at] for at in sorted(at for places in chosen for at in places)]


def _families(jobs: Jobs) -> list[list[int]]:
    """The places of jobs that hang together. Shapes: a job is with its parents, and with others of its name."""
    leader = {str(one["name"]): str(one["name"]) for one in jobs}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    for one in jobs:
        for parent in list_parents(one):
            if parent in leader:
                leader[find(parent)] = find(str(one["name"]))
    together: dict[str, list[int]] = {}
    for at, one in enumerate(jobs):
        together.setdefault(find(str(one["name"])), []).append(at)
    return list(together.values())


def _batches(jobs: Jobs) -> list[list[int]]:
    """The places of jobs that are judged with one request."""
    batches: list[list[int]] = []
    room = 0
    for places in _families(jobs):
        size = sum(len(json.dumps(jobs[at])) for at in places)
        if size > room:
            batches.append([])
            room = _MOST_ASKED_BYTES
        batches[-1] += places
        room -= size
    return batches


def _take_over(client: Client, jobs: Jobs, before: int) -> int:
    """Create them, parents first; how many did not come through, for themselves or for want of a parent.

    Shapes: `before` were here already. Errors: of a master that went away; what was created until then stays.
    """
    failed: set[str] = set()
    done = before
    for one in parents_first(jobs):
        missing = [name for name in list_parents(one) if name in failed]
        if missing:
            click.echo(f"job {one['name']} was not taken over: its parent {missing[0]} was not", err=True)
            failed.add(one["name"])
            continue
        try:
            # Agents for all that ran elsewhere may be yet to come.
            path = f"{API}/{'dependency' if one.get('parents') is not None else 'iso8601'}"
            client.send("POST", path, one, query={"check": "false"})
        except Unavailable:
            click.echo(f"{done} were taken over until now; the same command goes on from there", err=True)
            raise
        except CorralError as error:
            click.echo(f"job {one['name']} was not taken over: {error.message}", err=True)
            failed.add(one["name"])
        else:
            done += 1
            click.echo(f"job {one['name']} accepted", err=True)
    return len(failed)
