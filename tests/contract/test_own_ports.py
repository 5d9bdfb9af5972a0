"""Runs of the tests beside each other never use the same port."""

import os
import subprocess
import sys
from pathlib import Path

from tests.own_ports import DAEMONS, free_ports, task_ports

SAY = "import sys, own_ports as o; print(o.free_ports(1)[0], o.task_ports().start, flush=True); sys.stdin.read()"


def test_each_process_has_ports_of_its_own_for_as_long_as_it_lives() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

    def start() -> tuple[subprocess.Popen[str], int, int]:
        one = subprocess.Popen(
            [sys.executable, "-c", SAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert one.stdout is not None
        port, first = map(int, one.stdout.readline().split())
        return one, port, first

    ours = task_ports().start
    others = [start() for _ in range(3)]
    try:
        assert len({ours, *(first for _, _, first in others)}) == 4
        assert all(first - DAEMONS < port < first for _, port, first in others)
    finally:
        for one, _, _ in others:
            one.communicate("")


def test_ports_for_daemons_are_given_in_turn_and_lie_below_those_of_the_kernel_and_of_tasks() -> None:
    many = [port for _ in range(DAEMONS // 10) for port in free_ports(9)]
    assert len(set(many)) == len(many)
    assert max(many) < task_ports().start
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert task_ports().stop <= least
