"""Reads and writes commands: what a task runs, and what a health check does.

Source: Mesos v1 CommandInfo.
"""

from corral.mesos import wire
from corral.model.command import CommandInfo, Uri


def read_command(found: wire.CommandInfo) -> CommandInfo:
    variables = found.environment.variables if found.environment is not None else ()
    return CommandInfo(
        value=found.value,
        shell=found.shell is not False,
        arguments=found.arguments,
        environment=tuple((v.name, v.value or "") for v in variables),
        uris=tuple(_read_uri(u) for u in found.uris),
        user=found.user,
    )


def write_command(command: CommandInfo) -> wire.CommandInfo:
    variables = tuple(wire.Variable(name=n, type="VALUE", value=v) for n, v in command.environment)
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
