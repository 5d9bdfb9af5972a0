"""The wall clock is set while an agent is away: what it had promised to a task is kept all the same."""

import os
import struct
import sys
from pathlib import Path

import pytest
from corral_daemons import Site, ask, wait_running, wait_until
from tests.fault.real import clocked

PROGRAM = "trap 'touch asked; sleep 6; touch done; exit 0' TERM; while :; do sleep 0.1; done"
"""It needs most of its grace."""


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_task_that_is_ending_keeps_its_grace_and_no_more(daemons: Site, tmp_path: Path, jump_s: float) -> None:
    clock, start = tmp_path / "fault-clock", tmp_path / "start.py"
    clock.write_bytes(struct.pack("<d", 0.0))
    start.write_text(f"import sys; del sys.argv[1]; sys.path.append({str(Path(clocked.__file__).parent)!r})\n")
    with start.open("a") as file:
        file.write("import clocked; clocked.main()\n")
    inside = ("env", f"FAULT_CLOCK={clock}", sys.executable, str(start))
    master = daemons.master("--set", "kernel.agent_timeout_s=60")
    agent = daemons.agent(master.url, inside=inside)
    app = {"id": "slow", "cmd": PROGRAM, "cpus": 0.1, "mem": 32, "taskKillGracePeriodSeconds": 10}
    assert ask(master.url, "POST", "/v2/apps", app)[0] == 201
    wait_running(master.url, "slow", 1)
    ask(master.url, "DELETE", "/v2/apps/slow")
    (sandbox,) = {Path(os.readlink(path)) for path in _directories(tmp_path)}
    wait_until((sandbox / "asked").exists, "the task to be asked")
    agent.kill()
    clock.write_bytes(struct.pack("<d", jump_s))
    again = daemons.agent(master.url, inside=inside)
    wait_until((sandbox / "done").exists, "the task's own end, which it has time for")
    wait_until(lambda: not list(_directories(tmp_path)), "the end of the task", 20.0)
    assert "task taken up" in again.text or "tasks taken up" in again.text


def _directories(below: Path) -> list[Path]:
    """Where the processes of the task work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            here = os.readlink(path)
            if here.startswith(str(below)) and PROGRAM.encode() in (path.parent / "cmdline").read_bytes():
                found.append(path)
        except OSError:
            continue
    return found
