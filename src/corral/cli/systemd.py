"""`corral systemd`: the unit of a daemon, for the command as it is installed here."""

import shlex
import sys
from pathlib import Path

import click

from corral.lib.errors import Invalid

_HEAD = {
    "master": "corral master: the kernel and its frameworks, leading or standing by",
    "agent": "corral agent of this node",
}
_AGENT = """\
# Only the agent itself is ended with its unit: the supervisors of plain processes run on, and are found again.
KillMode=process
# Tasks get cgroups of their own below the agent's.
Delegate=yes
"""
_MASTER = """\
# A master that lost the leadership, or whose store failed, ends at once and comes back as a standby.
KillMode=mixed
"""
_UNIT = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target{after}
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Restart=always
RestartSec=1
{special}LimitNOFILE=1048576
TasksMax=infinity
{state}
[Install]
WantedBy=multi-user.target
"""
_MARKS = set("\n\r\0")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("role", type=click.Choice(["master", "agent"]))
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE DAEMON]")
def systemd(role: str, words: tuple[str, ...]) -> None:
    """Print a unit that runs `corral master` or `corral agent` with these options; redirect it to its file.

    For example: corral systemd master --listen 10.0.0.5:4680 > /etc/systemd/system/corral-master.service
    """
    # Behind the role Click takes everything as it is, also the `--` that people part the daemon's options by.
    options = words[1:] if words[:1] == ("--",) else words
    click.echo(write_unit(role, options, find_command()), nl=False)


def find_command() -> str:
    """The installed `corral`, as an absolute path."""
    beside = Path(sys.executable).with_name("corral")
    started = Path(sys.argv[0])
    for path in (started, beside):
        if path.is_absolute() and path.name == "corral" and path.exists():
            return str(path)
    return str(beside)


def write_unit(role: str, words: tuple[str, ...], command: str) -> str:
    """Errors: `Invalid` when an option cannot stand in a unit."""
    if any(_MARKS & set(word) for word in words):
        raise Invalid("an option holds a line break, which no unit can hold; put it into a file for --config")
    line = " ".join(_quote(word) for word in (command, role, *words))
    # Docker first: its containers are there when the agent looks for them. Not Requires: the agent does without.
    after = " docker.service containerd.service" if role == "agent" else ""
    given = any(word.split("=")[0] == "--work-dir" for word in words)
    # Without the directory's own mode: sandboxes below it belong to the users of tasks.
    state = "" if given else f"StateDirectory=corral/{role}\n"
    return _UNIT.format(
        description=_HEAD[role], command=line, after=after, special=_AGENT if role == "agent" else _MASTER, state=state
    )


def _quote(word: str) -> str:
    """As systemd reads it: `%` and `$` mean something to it, blanks and quotes part words."""
    word = word.replace("%", "%%").replace("$", "$$")
    if word and word == shlex.quote(word):
        return word
    plain = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'
