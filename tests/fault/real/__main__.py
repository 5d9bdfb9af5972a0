"""Does every fault to a real cluster of three hosts and prints the table: `python -m tests.fault.real [NAME ...]`.

Needs root, Docker and etcd. Exits with 1 when anything was lost. `--write` puts the results into the page of the docs.
"""

import argparse
import os
import sys
from pathlib import Path

import msgspec
from tests.fault.real import page
from tests.fault.real.faults import FAULTS
from tests.fault.real.harness import run

from corral.lab.lab import Lab
from corral.lib.errors import CorralError

ROOT = Path("/tmp/corral-labs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fault.real", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(fault.key for fault in FAULTS))
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--masters", type=int, default=3)
    parser.add_argument("--members", type=int, default=3, help="of etcd; 0 lets the one master keep its own records")
    parser.add_argument("--no-docker", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the page of the docs anew")
    options = parser.parse_args()
    lab = Lab(f"f{os.getpid()}", ROOT)
    try:
        found = run(
            lab, options.names, hosts=options.hosts, masters=options.masters, members=options.members,
            docker=not options.no_docker,
        )  # fmt: skip
    except (CorralError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print()
    print(page.table(found))
    if options.write:
        known = {result.key: result for result in page.read_results()}
        known |= {result.key: result for result in found}
        page.RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode([*known.values()]), indent=1) + b"\n")
        page.PAGE.write_text(page.render(page.read_results()), encoding="utf-8")
    return 1 if any(result.lost for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
