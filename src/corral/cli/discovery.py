"""What runs beside the cluster: the balancer, templates, keys in etcd. Options are checked here, work is elsewhere."""

from collections.abc import Callable

import click

from corral.cli.access import find_access

_logging = [
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text"),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"),
]


def _masters(ctx: click.Context, masters: tuple[str, ...]) -> tuple[str, ...]:
    """All masters that were named, else the one that every command asks."""
    given = masters or (str(ctx.find_root().obj),)
    return tuple(part.strip() for text in given for part in text.split(",") if part.strip())


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
@click.option(
    "--tell",
    "tells",
    multiple=True,
    type=click.Choice(["requests", "queue", "nothing"]),
    default=("requests", "queue"),
    show_default=True,
    help="Which measurements of apps the master is told, for scaling by them; repeatable.",
)
@click.option("--once", is_flag=True, help="Print the configuration and end.")
@click.option("--work-dir", default="", help="Where HAProxy's configuration and sockets are kept.")
@click.option("--insecure", is_flag=True, help="Allow --listen beyond loopback.")
@_logging[0]
@_logging[1]
def lb(
    ctx: click.Context, masters: tuple[str, ...], groups: tuple[str, ...], name: str, http: str, https: str,
    certificates: tuple[str, ...], stats: str, bind: str, listen: str, haproxy: str, templates: str,
    app_templates: bool, leave_running: bool, tells: tuple[str, ...], once: bool, work_dir: str, insecure: bool,
    log_format: str, log_level: str,
) -> int:  # fmt: skip
    """Balance load with HAProxy: follow the apps, reload only when needed, drain what is to end."""
    from corral.standalone.discovery import LbOptions, run_lb

    return run_lb(
        LbOptions(
            masters=_masters(ctx, masters), access=find_access(), groups=groups, name=name, http=http, https=https,
            certificates=certificates, stats=stats, bind=bind, listen=listen, haproxy=haproxy, templates=templates,
            app_templates=app_templates, leave_running=leave_running, tells=tells, once=once, work_dir=work_dir,
            log_format=log_format, log_level=log_level, insecure=insecure,
        )
    )  # fmt: skip


_etcd = [
    click.option(
        "--etcd", "url", metavar="URL", default="", help="etcd://HOST:PORT[,HOST:PORT...], or etcds:// for TLS."
    ),
    click.option("--etcd-user", "user", default="", help="Who this is to etcd."),
    click.option(
        "--etcd-password-file", "password_file", default="", metavar="FILE", help="Where the password stands."
    ),
    click.option("--etcd-ca", "ca", default="", metavar="FILE", help="Who signs the members' certificates."),
    click.option("--etcd-cert", "cert", default="", metavar="FILE", help="The certificate shown to etcd."),
    click.option("--etcd-key", "key", default="", metavar="FILE", help="Its key."),
]


def _with_etcd(function: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(_etcd):
        function = option(function)
    return function


@click.command()
@click.pass_context
@click.argument("source", type=click.Path())
@click.argument("dest", type=click.Path())
@click.option("--master", "masters", multiple=True, metavar="URL", help="A master; repeatable. By default --addr.")
@click.option("--no-master", is_flag=True, help="Make the file from keys of etcd alone.")
@_with_etcd
@click.option(
    "--prefix",
    "prefixes",
    multiple=True,
    default=("/",),
    show_default=True,
    metavar="KEY",
    help="Which keys of etcd the template gets; repeatable.",
)
@click.option("--check", default="", metavar="CMD", help="Must succeed before the file is taken; {src} is the new one.")
@click.option("--reload", default="", metavar="CMD", help="Run after the file has changed.")
@click.option("--mode", default="", metavar="OCTAL", help="The file's mode, such as 0644; by default it keeps its own.")
@click.option(
    "--debounce",
    "debounce_s",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0.0, 3600.0),
    help="Changes within so many seconds are one.",
)
@click.option("--once", is_flag=True, help="Make the file once and end.")
@_logging[0]
@_logging[1]
def template(
    ctx: click.Context, source: str, dest: str, masters: tuple[str, ...], no_master: bool, prefixes: tuple[str, ...],
    check: str, reload: str, mode: str, debounce_s: float, once: bool, log_format: str, log_level: str, **etcd: str,
) -> int:  # fmt: skip
    """Keep file DEST as the Jinja2 template SOURCE makes it from the registry, from etcd, or from both."""
    from corral.standalone.discovery import EtcdOptions, TemplateOptions, run_template

    if no_master and not etcd["url"]:
        raise click.UsageError("--no-master leaves nothing to make the file from; name an etcd with --etcd")
    return run_template(
        TemplateOptions(
            source=source, dest=dest, masters=() if no_master else _masters(ctx, masters), access=find_access(),
            etcd=EtcdOptions(**etcd),
            prefixes=prefixes, check=check, reload=reload, mode=mode, debounce_s=debounce_s, once=once,
            log_format=log_format, log_level=log_level,
        )
    )  # fmt: skip


@click.command()
@click.pass_context
@click.option("--master", "masters", multiple=True, metavar="URL", help="A master; repeatable. By default --addr.")
@_with_etcd
@click.option("--prefix", default="/services", show_default=True, metavar="KEY", help="Below which instances are told.")
@click.option(
    "--apps-prefix",
    default="/apps",
    show_default=True,
    metavar="KEY",
    help="Below which apps are told; empty for nowhere.",
)
@click.option("--ttl", "ttl_s", default=30.0, show_default=True, help="Seconds that keys outlive this program.")
@_logging[0]
@_logging[1]
def publish(
    ctx: click.Context, masters: tuple[str, ...], prefix: str, apps_prefix: str, ttl_s: float, log_format: str,
    log_level: str, **etcd: str,
) -> int:  # fmt: skip
    """Keep the ready instances of all apps as keys in an etcd, for confd and its like."""
    from corral.standalone.discovery import EtcdOptions, PublishOptions, run_publish

    if not etcd["url"]:
        raise click.UsageError("--etcd is missing; write for example --etcd etcd://127.0.0.1:2379")
    return run_publish(
        PublishOptions(
            masters=_masters(ctx, masters), access=find_access(),
            etcd=EtcdOptions(**etcd), prefix=prefix, apps_prefix=apps_prefix,
            ttl_s=ttl_s, log_format=log_format, log_level=log_level,
        )
    )  # fmt: skip
