"""Reads and writes commands: what a task runs, and what a health check does.

Source: Mesos v1 CommandInfo.
"""

from typing import Any

from corral.mesos import wire
from corral.model.command import CommandInfo, Uri

SECRET = "SECRET"  # noqa: S105 - a type of Mesos'


def read_reference(found: dict[str, Any] | None) -> str | None:
    """The source that a secret refers to; None when it brings its value itself or says nothing.

    Shapes: a `key` is a further part of the name.
    """
    reference = (found or {}).get("reference")
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str) or not reference["name"]:
        return None
    key = reference.get("key")
    return f"{reference['name']}/{key}" if isinstance(key, str) and key else str(reference["name"])


def write_reference(source: str) -> dict[str, Any]:
    return {"type": "REFERENCE", "reference": {"name": source}}


def read_command(found: wire.CommandInfo) -> CommandInfo:
    variables = found.environment.variables if found.environment is not None else ()
    return CommandInfo(
        value=found.value,
        shell=found.shell is not False,
        arguments=found.arguments,
        environment=tuple((v.name, v.value or "") for v in variables if v.type != SECRET),
        secrets=tuple((v.name, read_reference(v.secret) or "") for v in variables if v.type == SECRET),
        uris=tuple(_read_uri(u) for u in found.uris),
        user=found.user,
    )


def write_command(command: CommandInfo) -> wire.CommandInfo:
    variables = tuple(wire.Variable(name=n, type="VALUE", value=v) for n, v in command.environment)
    variables += tuple(wire.Variable(name=n, type=SECRET, secret=write_reference(s)) for n, s in command.secrets)
    return wire.CommandInfo(
        uris=tuple(_write_uri(u) for u in command.uris),
        environment=wire.Environment(variables=variables) if variables else None,
        shell=command.shell,
        value=command.value,
        arguments=command.arguments,
        user=command.user,
    )


def _read_uri(found: wire.Uri) -> Uri:
    return Uri(
        value=found.value,
        executable=bool(found.executable),
        extract=found.extract is not False,
        cache=bool(found.cache),
        output_file=found.output_file,
        checksum=found.checksum,
    )


def _write_uri(uri: Uri) -> wire.Uri:
    return wire.Uri(
        value=uri.value,
        executable=uri.executable or None,
        extract=uri.extract,
        cache=uri.cache or None,
        output_file=uri.output_file,
        checksum=uri.checksum,
    )
