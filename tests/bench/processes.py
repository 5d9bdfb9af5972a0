"""Modules of the benchmarks as processes of their own."""

import subprocess
import sys


def spawn(module: str, *options: str) -> "subprocess.Popen[str]":
    """Shapes: standard input and output are pipes, as text."""
    command = [sys.executable, "-m", module, *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
