"""The page of the docs that says what happens when something dies: its words are here, its numbers are the harness'."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from tests.fault.real.faults import FAULTS
from tests.fault.real.harness import Result

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[3] / "docs" / "operate" / "faults.md"

HEAD = """# What happens when X dies

This page is written by `make fault ARGS=--write`: a real cluster of three hosts, each with a master, a member of
etcd, an agent and a Docker daemon, is hurt in every way below while tasks run on it and somebody writes to its API
five times a second. Tasks write down themselves that they start and that they live, so that a loss cannot hide. The
hosts are those of `corral lab` ([try it](lab.md)); agents are called unreachable after 12 s here, daemons that end
are started again after half a second, as systemd does.
"""

CHAPTERS = {
    "master": (
        "The master",
        """Tasks do not notice. Agents go on watching, probing and ending them, write down what happens, and tell it
when there is a master again. What the API has acknowledged is in the store. Frameworks in the master's
process go on from their records in the middle of what they did.""",
    ),
    "agent": (
        "The agent",
        """Tasks have supervisors of their own, or Docker's; they run on. The agent that comes back reads its
records, asks the runtimes what runs, and tells every exit that it missed with its code. For a while the
master only misses it; after `kernel.agent_timeout_s` it calls the agent unreachable, and [the app
says](partitions.md) what then becomes of its instances. [Only instances](partitions.md#only-instances) end
by their supervisors then, so that others may take their place.""",
    ),
    "framework": (
        "A framework",
        """Frameworks in the master's process go with it, as above. One in a process of its own leaves its tasks running
when it dies; within its failover timeout it subscribes again under its id, is told what became of each task, and goes
on. What ends meanwhile is told by the agents until the framework has acknowledged it.""",
    ),
    "docker": (
        "The Docker daemon",
        """With `live-restore` containers run on without their daemon. Where it is on the agent's own machine the
kernel tells exits by itself, with their code since Linux 6.15; else the daemon tells them when it is back. An
Engine that is away, hangs or is upgraded is waited for, and nothing is replaced because of it. Logs, `wait` and
attached clients of corral's own API go on when it is back. What a container writes meanwhile waits in its pipes,
64 KB of it, and then the container waits. The agent holds these pipes open, so that the last words of a container
that ends in the outage are kept as well; only when the agent dies in the same outage they are gone. A command run
by `exec` outlives the daemon, its streams do not.""",
    ),
    "link": (
        "A link",
        """A host that is cut off keeps its work. Both sides find out by silence, also when no plug was pulled and
frames only vanish. [Partitions](partitions.md) has what an app can say about it.""",
    ),
    "host": (
        "A host",
        """Everything on it is gone. After its boot the agent starts services [again by itself](reboot.md), whether
or not a master is there; runs of jobs are told as failed. While it is away its app's unreachable strategy
decides.""",
    ),
    "store": (
        "etcd",
        """One member of three may be away at any time. Without a quorum nothing can be written: running work goes
on, writes are refused, and all goes on by itself when the quorum is back.""",
    ),
    "disk": (
        "A full disk",
        """A record that cannot be written ends the process that needed it, before anything is said or done that the
record does not hold; it starts again until there is room. Exits of process tasks have their room
reserved.""",
    ),
    "clock": (
        "The clock",
        """Silence, leases and waiting are measured by clocks that nobody sets, those of an agent also over its restart.
The wall clock is for people: times in the API are as wrong as it was.""",
    ),
}

FOOT = """
Seconds are until every agent was known, a write was accepted and all tasks ran again, the fault's own length included.

`make fault` prints this table; it needs root, Docker and etcd. `python -m tests.fault.real NAME` does one fault.
"""


def read_results() -> list[Result]:
    """In the order of the faults."""
    if not RESULTS.exists():
        return []
    found = {one.key: one for one in msgspec.json.decode(RESULTS.read_bytes(), type=list[Result])}
    return [found[fault.key] for fault in FAULTS if fault.key in found]


def table(results: Sequence[Result]) -> str:
    """Rows in the order of the faults."""
    by_key = {result.key: result for result in results}
    lines = ["| fault | what happened | seconds | lost |", "|---|---|---|---|"]
    for fault in FAULTS:
        if result := by_key.get(fault.key):
            lost = "; ".join(result.lost) or "nothing"
            lines.append(f"| {fault.what} | {result.happened} | {result.seconds:.1f} | {lost} |")
    return "\n".join(lines)


def render(results: Sequence[Result]) -> str:
    """The whole page."""
    parts = [HEAD]
    for who, (title, words) in CHAPTERS.items():
        keys = {fault.key for fault in FAULTS if fault.who == who}
        found = [result for result in results if result.key in keys]
        parts.append(f"## {title}\n\n{words}\n" + (f"\n{table(found)}\n" if found else ""))
    return "\n".join(parts) + FOOT
