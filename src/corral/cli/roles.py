"""Commands about roles: ls, show, set, rm."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

import click

from corral.cli.client import Client
from corral.cli.output import output_option, repeat, show, watch_option
from corral.lib.errors import Invalid
from corral.lib.units import format_duration, parse_duration_s
from corral.model.ids import check_role

PATH = "/corral/v1/roles"
NONE = "none"


@click.group()
def role() -> None:
    """Show and set how the cluster is shared: weights, guarantees, limits, priorities."""


@role.command("ls")
@output_option
@watch_option
@click.pass_obj
def list_roles(addr: str, output: str, watch: bool) -> None:
    """List roles as a tree, with what each may claim and what it holds."""
    repeat(watch, lambda: _show_roles(Client(addr).get(PATH)["roles"], output))


@role.command("show")
@click.argument("name")
@output_option
@click.pass_obj
def show_role(addr: str, name: str, output: str) -> None:
    """Show one role, line by line."""
    found = Client(addr).get(_path(name))
    show(found, output, ["field", "value"], lambda: ((key, _text(key, value)) for key, value in found.items()))


@role.command("set")
@click.argument("name")
@click.option("--weight", type=float, help="How much more than a role of weight 1 it may claim.")
@click.option("--guarantee", metavar="NAME=AMOUNT,...", help="What is kept for it, such as cpus=10,mem=10240.")
@click.option("--limit", metavar="NAME=AMOUNT,...", help="What it never exceeds; a resource left out is unlimited.")
@click.option("--max-tasks", metavar="N", help="How many tasks it runs at most.")
@click.option("--priority", type=int, help="0 to 1023; the higher is served earlier.")
@click.option("--half-life", metavar="TIME", help="How fast past use is forgotten, such as 1h.")
@click.option("--strategy", metavar="NAME", help="How its tasks are placed when they do not say, such as binpack.")
@click.option("--force", is_flag=True, help="Even if the cluster is too small, or more than the limit is in use.")
@click.pass_obj
def set_role(
    addr: str, name: str, weight: float | None, guarantee: str | None, limit: str | None, max_tasks: str | None,
    priority: int | None, half_life: str | None, strategy: str | None, force: bool,
) -> None:  # fmt: skip
    """Set what is named of role NAME and keep the rest; `none` takes a guarantee, a limit or a time away."""
    if weight is not None and not isfinite(weight):
        raise Invalid(f"--weight {weight:g} is no weight; give a number above 0, such as 2")
    body: dict[str, Any] = {"weight": weight, "priority": priority}
    body = {key: value for key, value in body.items() if value is not None}
    if guarantee is not None:
        body["guarantee"] = _amounts(guarantee, "--guarantee")
    if limit is not None:
        body["limit"] = _amounts(limit, "--limit")
    if max_tasks is not None:
        body["max_tasks"] = None if max_tasks == NONE else _whole(max_tasks)
    if half_life is not None:
        body["half_life_s"] = None if half_life == NONE else parse_duration_s(half_life)
    if strategy is not None:
        body["strategy"] = "" if strategy == NONE else strategy
    if not body:
        raise Invalid("nothing to set; name for example --weight 2 (corral role set --help lists what there is)")
    found = Client(addr).send("PUT", _path(name), body, {"force": force})
    click.echo(f"role {found['name']}: {_summary(found)}", err=True)


@role.command("rm")
@click.argument("name")
@click.pass_obj
def remove_role(addr: str, name: str) -> None:
    """Forget what was set of role NAME; what it runs goes on, with weight 1 and no limits."""
    Client(addr).send("DELETE", _path(name))
    click.echo(f"role {name} forgotten", err=True)


def _path(name: str) -> str:
    role = name.strip("/")
    # Of a path the server would make another role's: `a//b` is `a/b` there.
    check_role(role)
    return f"{PATH}/{role}"


def _amounts(text: str, option: str) -> dict[str, float]:
    """`cpus=10,mem=10240`, or as agents are told `cpus:10;mem:10240`; empty and `none` are no amounts.

    Errors: `Invalid` shows the form.
    """
    found: dict[str, float] = {}
    for piece in () if text.strip() in ("", NONE) else text.replace(";", ",").split(","):
        name, equals, value = piece.strip().replace(":", "=").partition("=")
        try:
            amount = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip() or name.strip() in found:
            raise Invalid(f"{option} {piece.strip()!r} is not NAME=AMOUNT, each name once; write cpus=10,mem=10240")
        found[name.strip()] = amount
    return found


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Invalid(f"--max-tasks {text!r} is neither a whole number nor {NONE}") from None


def _show_roles(found: list[dict[str, Any]], output: str) -> None:
    columns = ["role", "weight", "share", "fair", "guarantee", "limit", "used", "tasks", "waiting"]
    wide = ["priority", "half-life", "strategy", "frameworks"] if output == "wide" else []

    def rows() -> Iterator[tuple[Any, ...]]:
        for r in found:
            row = (
                r["name"], f"{r['weight']:g}", f"{r['share']:.1%}", f"{r['fair_share']:.1%}", _join(r["guarantee"]),
                _join(r["limit"]), _join(r["consumed"]), _of(r["tasks"], r["max_tasks"]), r["waiting"],
            )  # fmt: skip
            more = (r["priority"], _text("half_life_s", r["half_life_s"]), r["strategy"], " ".join(r["frameworks"]))
            yield (*row, *more) if wide else row

    show(found, output, columns + wide, rows)


def _of(count: int, most: int | None) -> str:
    return str(count) if most is None else f"{count}/{most}"


def _join(amounts: dict[str, float]) -> str:
    return ",".join(f"{name}={value:.12g}" for name, value in amounts.items())


def _text(key: str, value: Any) -> Any:
    match value:
        case dict():
            return _join(value)
        case list():
            return " ".join(value)
        case float() if key.endswith("share"):
            return f"{value:.1%}"
        case float() if key == "half_life_s":
            return format_duration(value)
        case float():
            return f"{value:g}"
        case bool():
            return "yes" if value else "no"
        case _:
            return value


def _summary(found: dict[str, Any]) -> str:
    """What has been set, as options would say it."""
    words = [f"weight {found['weight']:g}"]
    words += [f"{name} {_join(found[name])}" for name in ("guarantee", "limit") if found[name]]
    words += [f"at most {found['max_tasks']} tasks"] if found["max_tasks"] is not None else []
    words += [f"priority {found['priority']}"] if found["priority"] else []
    words += [f"half-life {format_duration(found['half_life_s'])}"] if found["half_life_s"] is not None else []
    words += [f"strategy {found['strategy']}"] if found["strategy"] else []
    return ", ".join(words)
