"""Ends what a task leaves running when its supervisor, who would have done that, is dead."""

import time

from corral.process import cgroup, tree
from corral.process.record import Pids, Run


def end_leftovers(run: Run, pids: Pids | None) -> bool:
    """SIGKILL to all that a dead supervisor left: by its cgroups, its session, and the sandbox in its environment.

    Shapes: True when nothing was left in the end. Without cgroups a process that changed both session and environment
    is not found.
    """
    groups = [group["path"] for group in run["cgroups"]]
    mark = next((f"{name}={value}".encode() for name, value in run["environment"] if value == run["sandbox"]), None)

    def find() -> list[tree.Stat]:
        processes = tree.read_processes()
        found = {pid: processes[pid] for pid in cgroup.pids_in(groups) if pid in processes}
        if pids is not None:
            members = tree.session_members(pids["pid"], pids["pid_start"], processes)
            found |= {stat.pid: stat for stat in members}
        if mark is not None:
            found |= {stat.pid: stat for stat in tree.marked(mark, processes)}
        return list(found.values())

    cgroup.kill(groups)
    gone = tree.kill_until_gone(find)
    for _ in range(50):
        if not cgroup.pids_in(groups):
            break
        time.sleep(0.01)
    cgroup.remove(groups)
    return gone
