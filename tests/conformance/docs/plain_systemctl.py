"""What this tree's pages ask of systemd, where there is none: a host of a lab has no service manager.

    systemctl daemon-reload | enable --now UNIT | kill --signal=NAME UNIT

A unit's command is started with its state directory made, and again after `RestartSec` whenever it has ended.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path("/etc/systemd/system")
RUN = Path("/run/plain-systemctl")


def read_unit(name: str) -> dict[str, str]:
    text = (UNITS / f"{name}.service").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] not in "#[")


def enable(name: str) -> None:
    """Returns when the unit is read and its supervisor runs, as `Type=exec` would once the command is started."""
    unit = read_unit(name)
    argv = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(unit["ExecStart"])]
    assert os.access(argv[0], os.X_OK), f"{argv[0]} cannot be run"
    if "StateDirectory" in unit:
        Path("/var/lib", unit["StateDirectory"]).mkdir(parents=True, exist_ok=True)
    RUN.mkdir(exist_ok=True)
    if os.fork():
        return
    os.setsid()
    with open(f"/var/lib/{name}.log", "ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    while True:
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
            (RUN / name).write_text(str(process.pid))
            process.wait()
        time.sleep(float(unit["RestartSec"]))


def main(verb: str, *words: str) -> None:
    match verb, words:
        case "daemon-reload", ():
            pass
        case "enable", ("--now", name):
            enable(name)
        case "kill", (option, name) if option.startswith("--signal="):
            os.kill(int((RUN / name).read_text()), signal.Signals["SIG" + option.partition("=")[2]])
        case _:
            sys.exit(f"systemctl {verb} {' '.join(words)} is not known here")


if __name__ == "__main__":
    main(*sys.argv[1:])
