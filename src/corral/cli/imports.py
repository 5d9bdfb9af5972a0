"""Apps of another system taken over: read from a live Marathon or an exported file, compared, and applied here."""

import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import click

from corral.cli.apps import compare
from corral.cli.client import Client
from corral.cli.foreign import fetch_json, read_json
from corral.cli.import_jobs import import_chronos
from corral.cli.output import output_option, show, show_table
from corral.cli.services import app_id
from corral.lib.errors import CorralError, Invalid, Unavailable

_SHOWN = frozenset(
    {
        "version", "versionInfo", "tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy",
        "deployments", "lastTaskFailure", "readinessCheckResults", "taskStats", "tasksStats",
    }
)  # fmt: skip
_NOTES = {
    "readinessChecks": "readiness is probed by the agent, and on after the deployment",
    "healthChecks": "all health checks are probed by the agents",
    "acceptedResourceRoles": "an instance runs on reserved resources or on others, never on some of both",
}


@click.group("import")
def import_() -> None:
    """Take over what another system runs."""


@import_.command("marathon")
@click.argument("source", metavar="URL|FILE")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be taken over and what differs.")
@click.option("--suspended", is_flag=True, help="Take every app over with 0 instances.")
@click.option("--below", default="/", show_default=True, help="Only what is below this group.")
@output_option
@click.pass_obj
def import_marathon(addr: str, source: str, only_plan: bool, suspended: bool, below: str, output: str) -> None:
    """Read the apps of the Marathon at URL, or of an exported FILE, and run them here.

    What this cluster would refuse is listed and left out; the exit code is then 1.
    """
    content = _fetch(source) if "://" in source else read_json(source, "http://marathon:8080")
    client = Client(addr)
    prefix = "/" + below.strip("/")
    found = [
        _judge(client, kind, body, suspended)
        for kind, body in _definitions(content)
        if _is_below(prefix, app_id(body["id"]))
    ]
    if not found:
        raise Invalid(f"{source} holds no apps below {prefix}; give the URL of a Marathon or what its /v2/apps answers")
    if output in ("json", "yaml"):
        show([{k: v for k, v in one.items() if k != "body"} for one in found], output, [], list)
    else:
        show_table(["app", "verdict", "why"], ((one["id"], one["verdict"], "; ".join(one["notes"])) for one in found))
    refused = [one for one in found if one["verdict"] == "refused"]
    if not only_plan:
        refused += _take_over(client, [one for one in found if one["verdict"] in ("new", "changed")])
        for group_id, rules in _rules(content):
            if _is_below(prefix, group_id):
                client.send("PUT", f"/v2/groups{group_id}", rules, {"force": True})
    taken = len(found) - len(refused)
    click.echo(f"{taken} of {len(found)} {'can be' if only_plan else 'are'} taken over", err=True)
    if refused:
        sys.exit(1)


def _is_below(prefix: str, path: str) -> bool:
    return prefix == "/" or path == prefix or path.startswith(prefix + "/")


def _fetch(url: str) -> Any:
    """The whole tree of a live Marathon."""
    path = urlsplit(url).path.rstrip("/").removesuffix("/v2/apps").removesuffix("/v2/groups")
    query = "embed=group.groups&embed=group.apps&embed=group.pods"
    return fetch_json(url, f"{path}/v2/groups?{query}", "Marathon")


def _definitions(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every app and pod of a tree, of a list, or alone. Shapes: ids are absolute."""
    if isinstance(content, list):
        for one in content:
            yield from _definitions(one)
    elif isinstance(content, dict) and isinstance(content.get("app"), dict):
        yield from _definitions(content["app"])
    elif isinstance(content, dict) and ("apps" in content or "groups" in content):
        for one in (*(content.get("apps") or ()), *(content.get("pods") or ()), *(content.get("groups") or ())):
            yield from _definitions(one)
    elif isinstance(content, dict) and isinstance(content.get("id"), str):
        kind = "pod" if "containers" in content else "app"
        yield kind, {key: value for key, value in content.items() if key not in _SHOWN}


def _rules(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What groups wait for, and which of them enforce their roles."""
    if isinstance(content, dict):
        rules = {field: content[field] for field in ("dependencies", "enforceRole") if content.get(field)}
        if rules and ("apps" in content or "groups" in content) and content.get("id") != "/":
            yield app_id(content["id"]), rules
        for one in content.get("groups") or ():
            yield from _rules(one)


def _judge(client: Client, kind: str, body: dict[str, Any], suspended: bool) -> dict[str, Any]:
    """What this cluster says of a definition, without taking it on."""
    path = app_id(body["id"])
    if suspended:
        body = {**body, **({"instances": 0} if kind == "app" else {"scaling": {"kind": "fixed", "instances": 0}})}
    found: dict[str, Any] = {"id": path, "kind": kind, "verdict": "new", "notes": [], "body": body}
    found["notes"] += [note for field, note in _NOTES.items() if body.get(field)]
    try:
        if kind == "app":
            answer = client.send("PUT", f"/v2/apps{path}", body, {"dryRun": True, "partialUpdate": "false"})
        else:
            group = path.rpartition("/")[0]
            tree = {"id": group or "/", "pods": [body]}
            answer = client.send("PUT", f"/v2/groups{group}", tree, {"dryRun": True, "diff": True})
    except Unavailable:
        raise
    except CorralError as error:
        return {**found, "verdict": "refused", "notes": [error.message]}
    (change,) = [one for one in answer["apps"] if one["id"] == path]
    found["verdict"] = {"new": "new", "same": "same"}.get(change["what"], "changed")
    if found["verdict"] == "changed":
        found["notes"] = [f"{p} {a!r} -> {b!r}" for p, a, b in compare(change["before"], change["after"])][:5]
    found["notes"] += [f"{unknown} is ignored" for unknown in answer["ignored"]]
    return found


def _take_over(client: Client, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Apply them one by one; returns those that did not come through."""
    failed = []
    for one in found:
        query = {"partialUpdate": "false"} if one["kind"] == "app" else {}
        try:
            client.send("PUT", f"/v2/{one['kind']}s{one['id']}", one["body"], query)
        except Unavailable:
            raise
        except CorralError as error:
            click.echo(f"{one['kind']} {one['id']} was not taken over: {error.message}", err=True)
            failed.append(one)
        else:
            click.echo(f"{one['kind']} {one['id']} accepted", err=True)
    return failed


import_.add_command(import_chronos)
