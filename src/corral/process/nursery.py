"""Forks supervisors for one agent: a small process with everything loaded, where a fork takes a millisecond.

Starting an interpreter for every task would cost forty times as much. It ends when its agent does; supervisors stay.
Standard library only.
"""

import gc
import json
import os
import signal
import socket
from typing import NoReturn

from corral.process import cgroup, enter
from corral.process.supervisor import SIGNALS, supervise


def main(arguments: list[str]) -> NoReturn:
    """Serve a socket: each message is the directory of a run to start.

    Shapes: `arguments` are the socket's descriptor and the cgroups in which this process and all supervisors live.
    """
    os.set_inheritable(int(arguments[0]), False)
    requests = socket.socket(fileno=int(arguments[0]))
    requests.setblocking(True)
    os.chdir("/")
    enter.set_name("corral-nursery")
    # Here and not in each supervisor, as every move between cgroups makes the whole machine wait for a moment.
    cgroup.join_if_possible(arguments[1:])
    # Blocked before any fork, so that a supervisor misses no signal in its first moments.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Children share these pages only as long as the collector does not write to them.
    gc.disable()
    gc.collect()
    gc.freeze()
    while True:
        try:
            directory = os.fsdecode(requests.recv(65536))
        except OSError:
            directory = ""
        if not directory:
            os._exit(0)
        try:
            child = os.fork()
        except OSError as error:
            words = f"this node cannot start another process: {error.strerror}; raise its pid limit or free memory"
            requests.send(json.dumps({"id": os.path.basename(directory), "error": words}).encode())
            continue
        if child == 0:
            supervise(directory, requests)
