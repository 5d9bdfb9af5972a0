"""Jobs of a Chronos taken over: read from a live one or an exported file, compared, and created here."""

import sys
from typing import Any
from urllib.parse import urlsplit

import click

from corral.cli.client import Client
from corral.cli.foreign import fetch_json, read_json
from corral.cli.jobs import API, parents_first
from corral.cli.output import output_option, show
from corral.lib.errors import CorralError, Invalid, NotFound, Unavailable


@click.command("chronos")
@click.argument("source", metavar="URL|FILE")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be taken over and what differs.")
@click.option("--disabled", is_flag=True, help="Take every job over disabled, so that none runs in both places.")
@output_option
@click.pass_obj
def import_chronos(addr: str, source: str, only_plan: bool, disabled: bool, output: str) -> None:
    """Read the jobs of the Chronos at URL, or of an exported FILE, and create them here.

    What this cluster would refuse is listed and left out, with the jobs that come after it; the exit code is then 1.
    """
    jobs = _fetch(source) if "://" in source else read_json(source, "http://chronos:4400")
    jobs = jobs if isinstance(jobs, list) else [jobs]
    if not jobs or not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in jobs):
        raise Invalid(f"{source} holds no jobs; give the URL of a Chronos, or what its /scheduler/jobs answers")
    if disabled:
        jobs = [{**one, "disabled": True} for one in jobs]
    client = Client(addr)
    rows = client.send("POST", f"{API}/jobs/plan", jobs)["jobs"]
    show(
        rows,
        output,
        ["job", "verdict", "why"],
        lambda: ((r["name"], r["verdict"], "; ".join(r["notes"])) for r in rows),
    )
    refused = {row["name"] for row in rows if row["verdict"] == "refused"}
    if not only_plan:
        same = {row["name"] for row in rows if row["verdict"] == "same"}
        refused |= _take_over(client, [one for one in jobs if one["name"] not in same], refused)
    verb = "can be" if only_plan else "are"
    click.echo(f"{len(rows) - len(refused)} of {len(rows)} {verb} taken over", err=True)
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


def _take_over(client: Client, jobs: list[dict[str, Any]], refused: set[str]) -> set[str]:
    """Create them, parents first; returns those that did not come through, for themselves or for want of a parent."""
    failed: set[str] = set()
    for one in parents_first(jobs):
        missing = [name for name in one.get("parents") or () if name in refused or name in failed]
        if one["name"] in refused or missing:
            if one["name"] not in refused:
                click.echo(f"job {one['name']} was not taken over: its parent {missing[0]} was not", err=True)
            failed.add(one["name"])
            continue
        try:
            # Agents for all that ran elsewhere may be yet to come.
            path = f"{API}/{'dependency' if one.get('parents') else 'iso8601'}"
            client.send("POST", path, one, query={"check": "false"})
        except Unavailable:
            raise
        except CorralError as error:
            click.echo(f"job {one['name']} was not taken over: {error.message}", err=True)
            failed.add(one["name"])
        else:
            click.echo(f"job {one['name']} accepted", err=True)
    return failed
