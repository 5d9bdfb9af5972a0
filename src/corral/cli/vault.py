"""Configs and secrets: set, look at, list, remove."""

import base64
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import output_option, show
from corral.lib.errors import Invalid

_PATHS = {"config": "/corral/v1/configs", "secret": "/corral/v1/secrets"}


def _read(kind: str, value: str | None, file: str | None) -> bytes:
    """The value: what was given, a file's content, or with neither what is typed or piped in."""
    if value is not None and file is not None:
        raise click.UsageError("give a value or --file, not both")
    if value is not None:
        return value.encode()
    if file is not None:
        try:
            return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        except OSError as error:
            raise Invalid(f"{file} cannot be read: {error.strerror}") from None
    if sys.stdin.isatty():
        typed: str = click.prompt(kind, hide_input=kind == "secret", confirmation_prompt=kind == "secret")
        return typed.encode()
    return sys.stdin.buffer.read()


def _group(kind: str) -> click.Group:
    path = _PATHS[kind]

    @click.group(name=kind, help=f"Set, list and remove {kind}s that apps name.")
    def group() -> None:
        pass

    @group.command(
        name="set", help=f"Give {kind} NAME a value: a word, --file, or standard input. This makes a version."
    )
    @click.pass_obj
    @click.argument("name")
    @click.argument("value", required=False)
    @click.option("--file", help="Take the value from this file, - for standard input.")
    @click.option("--expect", type=int, help="Only if this is the newest version; 0 if there is to be none yet.")
    def set_(addr: str, name: str, value: str | None, file: str | None, expect: int | None) -> None:
        data = _read(kind, value, file)
        query = {} if expect is None else {"expected": str(expect)}
        body = {"base64": base64.b64encode(data).decode()}
        found = Client(addr).send("PUT", f"{path}/{name}", body, query=query)
        click.echo(f"{kind} {found['name']} is at version {found['version']}", err=True)

    @group.command(name="ls", help=f"List all {kind}s.")
    @click.pass_obj
    @output_option
    def ls(addr: str, output: str) -> None:
        _show(Client(addr).get(path)[f"{kind}s"], output)

    @group.command(name="versions", help=f"List the versions of {kind} NAME that are kept.")
    @click.pass_obj
    @click.argument("name")
    @output_option
    def versions(addr: str, name: str, output: str) -> None:
        _show(Client(addr).get(f"{path}/{name}/versions")["versions"], output)

    @group.command(name="get", help=_GET[kind])
    @click.pass_obj
    @click.argument("name")
    @click.option("--version", type=int, help="An older version.")
    def get(addr: str, name: str, version: int | None) -> None:
        found = Client(addr).get(f"{path}/{name}", version=version)
        if kind == "secret":
            click.echo(f"{found['name']} version {found['version']} of {found['setAt']}: {found['value']}")
            return
        data = base64.b64decode(found["base64"]) if "base64" in found else found["value"].encode()
        sys.stdout.buffer.write(data)

    @group.command(name="rm", help=f"Remove {kind} NAME with all its versions.")
    @click.pass_obj
    @click.argument("name")
    def rm(addr: str, name: str) -> None:
        Client(addr).send("DELETE", f"{path}/{name}")
        click.echo(f"{kind} {name} is removed", err=True)

    return group


_GET = {"config": "Print the value of config NAME.", "secret": "Show which version secret NAME is at, never its value."}


def _show(rows: list[dict[str, Any]], output: str) -> None:
    columns = ("name", "version", "set")
    show(rows, output, columns, lambda: [(r["name"], r["version"], r["setAt"]) for r in rows])


config = _group("config")
secret = _group("secret")


@secret.command(name="new-key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def new_key(file: Path) -> None:
    """Put a new key on top of FILE, for `vault.key_file`; the older ones stay to open what they sealed."""
    from corral.vault.sealing import add_key

    key_id = add_key(file, datetime.now(UTC).strftime("%Y%m%d"))
    click.echo(f"key {key_id} is on top of {file}", err=True)
