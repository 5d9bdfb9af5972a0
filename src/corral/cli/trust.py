"""Commands about trust: token create, ls, revoke; ca init, show, nodes, revoke."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import output_option, show
from corral.lib.errors import Invalid

TOKENS, NODES = "/corral/v1/trust/tokens", "/corral/v1/trust/nodes"


@click.group()
def token() -> None:
    """Tokens: one for each node that joins, one for each caller of the APIs."""


@token.command("create")
@click.option("--name", default="", help="Who calls with it: makes a caller's token, else one for a node to join with.")
@click.option("--role", "roles", multiple=True, help="What the caller is bound to; repeatable. None is everything.")
@click.option("--ttl", metavar="TIME", help="How long it lives, such as 12h; `never` for a caller's that does not end.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_obj
def create_token(addr: str, name: str, roles: tuple[str, ...], ttl: str | None, output: str) -> None:
    """Make a token and print it, this once: for a node to join with, or with --name for a caller."""
    if roles and not name:
        raise Invalid("a role binds a caller; give the caller's --name too")
    body: dict[str, Any] = {"name": name, "roles": list(roles), "ttl": ttl}
    found = Client(addr).send("POST", TOKENS, body)
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(found["token"])
    until = f"until {found['expires']}" if found["expires"] else "until it is revoked"
    if found["kind"] == "join":
        host = ",".join(part.strip().rpartition("//")[2].rstrip("/") for part in addr.split(","))
        click.echo(f"good for one node {until}: corral join {found['token']}@{host}", err=True)
    else:
        bound = f", bound to {', '.join(found['roles'])}" if found["roles"] else ""
        click.echo(f"token {found['id']} of {found['name']}{bound}, good {until}", err=True)


@token.command("ls")
@output_option
@click.pass_obj
def list_tokens(addr: str, output: str) -> None:
    """List tokens; their secrets are nowhere kept."""
    found = Client(addr).get(TOKENS)["tokens"]
    columns = ["id", "kind", "name", "roles", "state", "expires", "used by"]
    wide = ["created", "created by", "used"] if output == "wide" else []

    def rows() -> Iterator[tuple[Any, ...]]:
        for t in found:
            row = (
                t["id"], t["kind"], t["name"], " ".join(t["roles"]), t["state"], t["expires"] or "never", t["used_by"],
            )  # fmt: skip
            yield (*row, t["created"], t["created_by"], t["used"] or "") if wide else row

    show(found, output, columns + wide, rows)


@token.command("revoke")
@click.argument("which", metavar="ID|NAME")
@click.pass_obj
def revoke_token(addr: str, which: str) -> None:
    """Make a token worthless at once, by its id, or all of a caller by its name."""
    found = Client(addr).send("DELETE", f"{TOKENS}/{which}")["revoked"]
    click.echo(f"revoked {', '.join(found)}", err=True)


@click.group()
def ca() -> None:
    """The authority that vouches for masters and nodes, and whom it vouches for."""


@ca.command("init")
@click.option("--config", "file", type=click.Path(dir_okay=False), help="A TOML file.")
@click.option("--set", "sets", multiple=True, metavar="SECTION.KEY=VALUE", help="One value; repeatable.")
@click.option("--work-dir", help="The master's, where its store is unless told.")
@click.option("--store", metavar="URL", help="The cluster's store, as for `corral master`.")
def init_ca(file: str | None, sets: tuple[str, ...], work_dir: str | None, store: str | None) -> int:
    """Make the authority of a new cluster; the first master does it by itself if nobody has."""
    from corral.standalone.daemons import run_ca_init

    found = {"master.work_dir": work_dir, "master.store": store}
    return run_ca_init(file, [*sets, *(f"{key}={value}" for key, value in found.items() if value is not None)])


@ca.command("show")
@click.pass_obj
def show_ca(addr: str) -> None:
    """Print the authority's certificate, as CORRAL_CACERT and curl's --cacert want it in a file."""
    for line in Client(addr).lines("/corral/v1/trust/ca"):
        sys.stdout.write(line.decode())


@ca.command("nodes")
@output_option
@click.pass_obj
def list_nodes(addr: str, output: str) -> None:
    """List the nodes that have joined, with their certificates."""
    found = Client(addr).get(NODES)["nodes"]
    columns = ["name", "state", "address", "joined", "expires"]
    wide = ["token", "serial"] if output == "wide" else []

    def rows() -> Iterator[tuple[Any, ...]]:
        for n in found:
            row = tuple(n[column] for column in columns)
            yield (*row, n["token"], n["serial"]) if wide else row

    show(found, output, columns + wide, rows)


@ca.command("revoke")
@click.argument("name")
@click.pass_obj
def revoke_node(addr: str, name: str) -> None:
    """Refuse the certificates of node NAME from now on, until it joins again."""
    Client(addr).send("DELETE", f"{NODES}/{name}")
    click.echo(f"node {name} is refused; what it runs goes on until it is drained or declared gone", err=True)
