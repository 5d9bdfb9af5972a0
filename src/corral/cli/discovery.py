"""What runs beside the cluster: the balancer, templates, keys in etcd. Options are checked here, work is elsewhere."""

import click

_logging = [
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text"),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"),
]


def _masters(ctx: click.Context, masters: tuple[str, ...]) -> tuple[str, ...]:
    """All masters that were named, else the one that every command asks."""
    return masters or (str(ctx.find_root().obj),)


@click.command()
@click.pass_context
@click.option("--master", "masters", multiple=True, metavar="URL", help="A master; repeatable. By default --addr.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    default=("external",),
    show_default=True,
    metavar="NAME",
    help="Serve the apps of this HAPROXY_GROUP; repeatable, '*' for all.",
)
@click.option("--name", default="lb", show_default=True, help="How the master's log calls this balancer.")
@click.option(
    "--http", default="*:80", show_default=True, metavar="ADDRESS:PORT", help="Where virtual hosts are served."
)
@click.option("--https", default="", metavar="ADDRESS:PORT", help="Where they are served over TLS; needs --cert.")
@click.option(
    "--cert", "certificates", multiple=True, metavar="PATH", help="Certificate and key, or a directory of them."
)
@click.option(
    "--stats",
    default="127.0.0.1:9090",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="HAProxy's own statistics, at /haproxy?stats; empty for none.",
)
@click.option("--bind", default="*", show_default=True, metavar="ADDRESS", help="Where service ports are listened on.")
@click.option(
    "--listen",
    default="127.0.0.1:4682",
    show_default=True,
    metavar="HOST:PORT",
    help="Where this program tells what it does; port 0 takes any.",
)
@click.option("--haproxy", default="haproxy", show_default=True, metavar="PATH", help="The HAProxy that is run.")
@click.option(
    "--templates", default="", metavar="DIR", help="Pieces of the configuration that replace the built-in ones."
)
@click.option(
    "--app-templates/--no-app-templates",
    default=True,
    show_default=True,
    help="Whether apps may bring pieces of the configuration in their labels.",
)
@click.option(
    "--leave-running", is_flag=True, help="Let HAProxy serve on when this program ends; the next one takes over."
)
@click.option("--once", is_flag=True, help="Print the configuration and end.")
@click.option("--work-dir", default="", help="Where HAProxy's configuration and sockets are kept.")
@click.option("--insecure", is_flag=True, help="Allow --listen beyond loopback.")
@_logging[0]
@_logging[1]
def lb(
    ctx: click.Context, masters: tuple[str, ...], groups: tuple[str, ...], name: str, http: str, https: str,
    certificates: tuple[str, ...], stats: str, bind: str, listen: str, haproxy: str, templates: str,
    app_templates: bool, leave_running: bool, once: bool, work_dir: str, insecure: bool, log_format: str,
    log_level: str,
) -> int:  # fmt: skip
    """Balance load with HAProxy: follow the apps, reload only when needed, drain what is to end."""
    from corral.standalone.discovery import LbOptions, run_lb

    return run_lb(
        LbOptions(
            masters=_masters(ctx, masters), groups=groups, name=name, http=http, https=https,
            certificates=certificates, stats=stats, bind=bind, listen=listen, haproxy=haproxy, templates=templates,
            app_templates=app_templates, leave_running=leave_running, once=once, work_dir=work_dir,
            log_format=log_format, log_level=log_level, insecure=insecure,
        )
    )  # fmt: skip
