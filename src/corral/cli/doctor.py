"""`corral doctor`: looks at this node, and says what is well, what is not and what to do."""

import json
from typing import TYPE_CHECKING

import click

from corral.cli.access import find_access
from corral.cli.output import show_table
from corral.lib.errors import Invalid

if TYPE_CHECKING:
    from corral.doctor.probe import Options

FAILED = 1


@click.command()
@click.option(
    "--role", type=click.Choice(["agent", "master"]), default="agent", show_default=True, help="What runs here."
)
@click.option("--work-dir", help="The daemon's work directory.")
@click.option("--listen", metavar="HOST:PORT", help="Where the daemon listens, or is to.")
@click.option("--master", "masters", multiple=True, metavar="URL", help="A master to reach; repeatable.")
@click.option("--runtime", default="docker,process", show_default=True, help="What tasks run with here.")
@click.option("--docker-host", default="", metavar="URL", help="unix:///path or tcp://host:port of the Docker Engine.")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def doctor(
    role: str, work_dir: str | None, listen: str | None, masters: tuple[str, ...], runtime: str, docker_host: str,
    strict: bool, output: str,
) -> int:  # fmt: skip
    """Check this node for what it needs so that no outage stops its work. Exit code 1 when something fails."""
    from corral.doctor.checks import Verdict, examine, worst
    from corral.doctor.probe import find_facts

    findings = examine(find_facts(_options(role, work_dir, listen, masters, runtime, docker_host)))
    gravest = worst(findings)
    rows = [{"name": f.name, "state": str(f.verdict), "found": f.found, "remedy": f.remedy} for f in findings]
    if output == "json":
        click.echo(json.dumps({"state": str(gravest), "findings": rows}, indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump({"state": str(gravest), "findings": rows}, sort_keys=False).rstrip())
    else:
        show_table(["check", "state", "found", "what to do"], (tuple(row.values()) for row in rows))
    return FAILED if gravest is Verdict.FAIL or (strict and gravest is Verdict.WARN) else 0


def _options(
    role: str, work_dir: str | None, listen: str | None, masters: tuple[str, ...], runtime: str, docker_host: str
) -> "Options":
    from corral.doctor.probe import Options, choose_masters, is_exposed
    from corral.net.access import Access
    from corral.net.keyring import Keyring
    from corral.standalone.config import parse_listen
    from corral.standalone.parts import name_work_dir
    from corral.standalone.trust import DIRECTORY, LISTEN_JOINED
    from corral.trust.join import read_joined

    runtimes = tuple(part.strip() for part in runtime.split(",") if part.strip())
    if set(runtimes) - {"docker", "process"}:
        raise Invalid(f"--runtime names {runtime!r}; docker and process are known")
    directory = name_work_dir(work_dir or "", role).absolute()
    joined = read_joined(directory / DIRECTORY)
    keys = Keyring(directory / DIRECTORY)
    access = find_access()
    if not access.secure and keys.exists():
        access = Access(keys=keys, token=access.token)
    default = "127.0.0.1:4680" if role == "master" else (LISTEN_JOINED if joined is not None else "127.0.0.1:4681")
    listen = listen or default
    parse_listen(listen, "--listen")
    return Options(
        role=role, work_dir=directory, listen=listen, masters=choose_masters(masters, joined.master if joined else ""),
        runtimes=runtimes, docker_host=docker_host, access=access, exposed=is_exposed(listen),
    )  # fmt: skip
