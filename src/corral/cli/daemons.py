"""The daemons: dev, master, agent, framework. Options become configuration; `standalone` does the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from corral.lib.errors import Invalid

if TYPE_CHECKING:
    from corral.allocator.view import Settings
    from corral.runtime.turn import Recorder

F = TypeVar("F", bound=Callable[..., Any])


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_common = _options(
    click.option("--config", "file", type=click.Path(dir_okay=False), help="A TOML file."),
    click.option("--set", "sets", multiple=True, metavar="SECTION.KEY=VALUE", help="One value; repeatable."),
    click.option("--work-dir", help="Where records, journals and sandboxes are kept."),
    click.option("--log-format", type=click.Choice(["text", "json"])),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"])),
    click.option("--journal/--no-journal", default=None, help="Record every input for `corral replay`."),
    click.option(
        "--insecure", is_flag=True, default=None, help="Allow listening beyond loopback without authentication."
    ),
    click.option("--show-config", is_flag=True, help="Print every value with its origin and end."),
)
_serving = _options(
    click.option("--listen", metavar="HOST:PORT", help="Where to serve; port 0 takes any."),
    click.option("--store", metavar="URL", help="sqlite:PATH, memory: or etcd://HOST:PORT[,...][/PREFIX]"),
)
_recording = click.option(
    "--record", "trace", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write a trace of what happens to the cluster, for `corral sim`.",
)  # fmt: skip
_running = _options(
    click.option("--runtime", metavar="NAMES", help="docker,process: what tasks may run with, in this order."),
    click.option("--docker-host", metavar="URL", help="unix:///path or tcp://host:port of the Docker Engine."),
    click.option("--resources", metavar="TEXT", help="Such as 'cpus:8;mem:16384;ports:[31000-32000]'."),
    click.option("--attributes", metavar="TEXT", help="Such as 'rack:r1;zone:z1'."),
    click.option("--name", help="The node's name; by default the host's."),
)


def _trace_recorder(trace: Path | None) -> "Callable[[Settings], Recorder] | None":
    """Begins the file when the daemon is about to run, and not when its configuration is wrong."""
    if trace is None:
        return None

    def begin(settings: "Settings") -> "Recorder":
        from corral.sim.record import TraceRecorder

        try:
            return TraceRecorder(trace, settings)
        except OSError as error:
            raise Invalid(f"--record {trace} cannot be begun: {error.strerror}; name another file") from None

    return begin


def sets_of(section_keys: dict[str, Any], sets: tuple[str, ...]) -> list[str]:
    """Flags as `section.key=value`, after the `--set`s so that a flag wins."""
    return [*sets, *(f"{key}={value}" for key, value in section_keys.items() if value is not None)]


@click.command()
@_common
@_serving
@_recording
@_running
@click.option("--agent-listen", metavar="HOST:PORT", help="Where the first agent serves.")
@click.option("--agents", default=1, show_default=True, type=click.IntRange(1, 1000), help="How many agents.")
def dev(
    file: str | None, sets: tuple[str, ...], work_dir: str | None, log_format: str | None, log_level: str | None,
    journal: bool | None, insecure: bool | None, show_config: bool, listen: str | None, store: str | None,
    trace: Path | None, runtime: str | None, docker_host: str | None, resources: str | None, attributes: str | None,
    name: str | None, agent_listen: str | None, agents: int,
) -> int:  # fmt: skip
    """Run a whole cluster in one process: master, frameworks and agents on loopback."""
    from corral.standalone.daemons import run_dev

    found = {
        "master.listen": listen, "master.store": store, "master.work_dir": work_dir, "agent.listen": agent_listen,
        "agent.runtime": runtime, "agent.docker_host": docker_host, "agent.resources": resources,
        "agent.attributes": attributes, "agent.name": name, "master.insecure": insecure, "agent.insecure": insecure,
        "master.journal": journal, "agent.journal": journal, "log.format": log_format, "log.level": log_level,
    }  # fmt: skip
    begin = _trace_recorder(trace)
    return run_dev(file, sets_of(found, sets), agents=agents, show_config=show_config, begin_trace=begin)


@click.command()
@_common
@_serving
@_recording
def master(
    file: str | None, sets: tuple[str, ...], work_dir: str | None, log_format: str | None, log_level: str | None,
    journal: bool | None, insecure: bool | None, show_config: bool, listen: str | None, store: str | None,
    trace: Path | None,
) -> int:  # fmt: skip
    """Run the kernel with the first-party frameworks."""
    from corral.standalone.daemons import run_master

    found = {
        "master.listen": listen, "master.store": store, "master.work_dir": work_dir, "master.insecure": insecure,
        "master.journal": journal, "log.format": log_format, "log.level": log_level,
    }  # fmt: skip
    return run_master(file, sets_of(found, sets), show_config=show_config, begin_trace=_trace_recorder(trace))


@click.command()
@_common
@_running
@click.option("--master", "master_url", metavar="HOST:PORT,...", help="The masters to join.")
@click.option("--listen", "--agent-listen", "listen", metavar="HOST:PORT", help="Where to serve; port 0 takes any.")
def agent(
    file: str | None, sets: tuple[str, ...], work_dir: str | None, log_format: str | None, log_level: str | None,
    journal: bool | None, insecure: bool | None, show_config: bool, runtime: str | None, docker_host: str | None,
    resources: str | None, attributes: str | None, name: str | None, master_url: str | None, listen: str | None,
) -> int:  # fmt: skip
    """Run the agent of this node. Stopping it stops no task."""
    from corral.standalone.daemons import run_agent

    found = {
        "agent.listen": listen, "agent.master": master_url, "agent.work_dir": work_dir, "agent.runtime": runtime,
        "agent.docker_host": docker_host, "agent.resources": resources, "agent.attributes": attributes,
        "agent.name": name, "agent.insecure": insecure, "agent.journal": journal, "log.format": log_format,
        "log.level": log_level,
    }  # fmt: skip
    return run_agent(file, sets_of(found, sets), show_config=show_config)


@click.command()
@click.argument("target", metavar="TOKEN@HOST[:PORT]")
@_common
@_running
@click.option(
    "--listen", "--agent-listen", "listen", metavar="HOST:PORT", help="Where to serve; by default everywhere."
)
@click.option("--no-start", is_flag=True, help="Only join; `corral agent` runs the agent later, as by systemd.")
def join(
    target: str, file: str | None, sets: tuple[str, ...], work_dir: str | None, log_format: str | None,
    log_level: str | None, journal: bool | None, insecure: bool | None, show_config: bool, runtime: str | None,
    docker_host: str | None, resources: str | None, attributes: str | None, name: str | None, listen: str | None,
    no_start: bool,
) -> int:  # fmt: skip
    """Take this node into a cluster with a token of `corral token create`, and run its agent."""
    from corral.standalone.daemons import run_join

    found = {
        "agent.listen": listen, "agent.work_dir": work_dir, "agent.runtime": runtime, "agent.docker_host": docker_host,
        "agent.resources": resources, "agent.attributes": attributes, "agent.name": name, "agent.insecure": insecure,
        "agent.journal": journal, "log.format": log_format, "log.level": log_level,
    }  # fmt: skip
    return run_join(target, file, sets_of(found, sets), start=not no_start, show_config=show_config)


@click.command()
@click.argument("name")
@_common
@_serving
@click.option("--master", "master_url", required=True, metavar="URL,...", help="The masters whose resources it uses.")
def framework(
    name: str, file: str | None, sets: tuple[str, ...], work_dir: str | None, log_format: str | None,
    log_level: str | None, journal: bool | None, insecure: bool | None, show_config: bool, listen: str | None,
    store: str | None, master_url: str,
) -> int:  # fmt: skip
    """Run framework NAME as a process of its own against the master at URL."""
    from corral.cli.access import find_access
    from corral.standalone.daemons import run_framework

    access = find_access()

    found = {
        "master.listen": listen, "master.store": store, "master.work_dir": work_dir, "master.insecure": insecure,
        "master.journal": journal, "log.format": log_format, "log.level": log_level,
        "trust.token": access.token or None, "trust.cacert": access.cacert or None,
    }  # fmt: skip
    return run_framework(name, master_url, file, sets_of(found, sets), show_config=show_config)
