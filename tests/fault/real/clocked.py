"""Runs the command line of corral with a wall clock that a file sets off, as nobody may set the machine's.

FAULT_CLOCK=FILE python clocked.py agent ...      FILE holds one little-endian double: seconds to add
"""

import mmap
import os
import struct
import sys
import time


def main() -> None:
    with open(os.environ["FAULT_CLOCK"], "r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    real = time.time
    time.time = lambda: real() + struct.unpack("<d", shared[:8])[0]
    from corral.cli.main import main as run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
