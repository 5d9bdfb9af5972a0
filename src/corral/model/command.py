"""What is run: a command with its environment, and what is fetched for it. Source: Mesos v1 CommandInfo."""

import msgspec


class Uri(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Something to fetch into the sandbox. Shapes: `checksum` is `sha256:HEX`, checked when given."""

    value: str
    executable: bool = False
    extract: bool = True
    cache: bool = False
    output_file: str | None = None
    checksum: str | None = None


class CommandInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """With `shell`, `value` is given to `/bin/sh -c`; without, `value` is run with `arguments` as its whole argv.

    Shapes: `secrets` are variables, each with the source that its value is taken from when the command is started.
    """

    value: str | None = None
    shell: bool = True
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    uris: tuple[Uri, ...] = ()
    user: str | None = None
    secrets: tuple[tuple[str, str], ...] = ()
