"""Pods and groups for the commands that take the name of either, or of an app."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from corral.cli.client import Client
from corral.cli.output import ago, short_state, show
from corral.lib.errors import Invalid, NotFound
from corral.lib.units import parse_timestamp

_STATES = {"STABLE": "running", "DEGRADED": "waiting", "TERMINAL": "ending"}
Found = TypeVar("Found")


def missing(path: str) -> NotFound:
    return NotFound(f"there is no app {path}; corral status lists the apps")


def find(ask: Callable[[], Found]) -> Found | None:
    """None for what is not there."""
    try:
        return ask()
    except NotFound:
        return None


def find_pod(client: Client, path: str) -> dict[str, Any] | None:
    """A pod's status."""
    return find(lambda: client.get(f"/v2/pods{path}::status"))


def find_group(client: Client, path: str) -> dict[str, Any] | None:
    return find(lambda: client.get(f"/v2/groups{path}"))


def members_of(group: dict[str, Any]) -> list[str]:
    """The apps and pods of a group and of those below it."""
    own = [one["id"] for kind in ("apps", "pods") for one in group.get(kind, ())]
    return own + [one for inner in group.get("groups", ()) for one in members_of(inner)]


# Shown.


def _wanted(pod: dict[str, Any]) -> int:
    return int(pod["spec"]["scaling"]["instances"])


def _running(pod: dict[str, Any]) -> int:
    return sum(instance["status"] == "STABLE" for instance in pod["instances"])


def _state(pod: dict[str, Any]) -> str:
    return "suspended" if not _wanted(pod) and not pod["instances"] else _STATES[pod["status"]]


def _what(pod: dict[str, Any]) -> str:
    return f"pod of {', '.join(c['name'] for c in pod['spec']['containers'])}"


def list_pods(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v2/pods::status")
    return found


def pod_row(pod: dict[str, Any], wide: bool) -> tuple[Any, ...]:
    """As the rows of apps."""
    cpus, mem = (round(sum(c["resources"][name] for c in pod["spec"]["containers"]), 3) for name in ("cpus", "mem"))
    what = _what(pod) if wide else _what(pod)[:60]
    row = (pod["id"], _state(pod), _running(pod), _wanted(pod), f"{cpus:g}", f"{mem:g}", what)
    return (*row, pod["spec"]["version"], (pod["terminationHistory"] or [{}])[0].get("message")) if wide else row


def show_pod(pod: dict[str, Any], output: str) -> None:
    """A pod with its instances and their containers."""
    if output in ("json", "yaml"):
        show(pod, output, [], list)
        return
    now, wide = time.time(), output == "wide"
    click.echo(f"{pod['id']}  {_state(pod)}  {_running(pod)}/{_wanted(pod)} running  {_what(pod)}")
    for ended in pod["terminationHistory"][:1]:
        click.echo(f"last end  {ended.get('message') or 'an instance ended'}")
    columns = ["instance", "container", "state", "host", "ports", "since"]
    columns += ["addresses", "image", "agent"] if wide else []
    images = {c["name"]: c["image"]["id"] for c in pod["spec"]["containers"] if "image" in c}

    def rows() -> Iterator[tuple[Any, ...]]:
        for instance in pod["instances"]:
            addresses = " ".join(a for network in instance["networks"] for a in network["addresses"])
            for container in instance["containers"]:
                ports = " ".join(
                    str(e["allocatedHostPort"]) for e in container["endpoints"] if "allocatedHostPort" in e
                )
                since = ago(parse_timestamp(container["statusSince"]), now)
                state = short_state(container["status"])
                row = (instance["id"], container["name"], state, instance.get("agentHostname"), ports, since)
                more = (addresses, images.get(container["name"]), instance.get("agentId"))
                yield (*row, *more) if wide else row

    show(pod["instances"], output, columns, rows)


# Changed.


def delete(client: Client, path: str) -> str:
    """Stop and forget an app or a pod; what it was. Errors: `Invalid` for a group, which takes a word more."""
    for kind in ("app", "pod"):
        try:
            client.send("DELETE", f"/v2/{kind}s{path}")
        except NotFound:
            continue
        return kind
    group = find_group(client, path)
    if group is None:
        raise missing(path)
    members = members_of(group)
    raise Invalid(
        f"{path} is a group of {len(members)} apps and pods; corral app destroy --group {path} ends all of it"
    )


def delete_group(client: Client, path: str, force: bool) -> tuple[str, list[str]]:
    """Stop and forget a group and all below it; the deployment, and what was there."""
    group = find_group(client, path)
    if group is None:
        raise NotFound(f"there is no group {path}; corral status lists the apps")
    found = client.send("DELETE", f"/v2/groups{path}", query={"force": force})
    return found["deploymentId"], members_of(group)


def change(client: Client, pod: dict[str, Any], force: bool) -> str | None:
    """Put another definition of a pod; the deployment that works on it, None when nothing had to change."""
    path = pod["id"]
    body = {key: value for key, value in pod.items() if key != "version"}
    client.send("PUT", f"/v2/pods{path}", body, {"force": force})
    return next((d["id"] for d in client.get("/v2/deployments") if path in d["affectedPods"]), None)
