"""Measures the machine that a daemon runs on, under the names that Mesos gives these numbers."""

import ipaddress
import os
import re
from pathlib import Path


def measure_system() -> dict[str, float]:
    """Load, processors and memory. Units: bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    load = os.getloadavg()
    return {
        "system/cpus_total": float(os.cpu_count() or 1),
        "system/load_1min": load[0],
        "system/load_5min": load[1],
        "system/load_15min": load[2],
        "system/mem_total_bytes": float(page * os.sysconf("SC_PHYS_PAGES")),
        "system/mem_free_bytes": float(page * os.sysconf("SC_AVPHYS_PAGES")),
    }


def local_addresses() -> list[str]:
    """The addresses of this machine by which others may reach it, loopback and link-local ones left out."""
    found: dict[str, None] = {}
    try:
        routes = Path("/proc/net/fib_trie").read_text(encoding="ascii")
        found.update(dict.fromkeys(re.findall(r"\|-- (\S+)\s+/32 host LOCAL", routes)))
    except OSError:
        pass
    try:
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            found[str(ipaddress.IPv6Address(int(line.split()[0], 16)))] = None
    except OSError:
        pass
    known = [ipaddress.ip_address(text) for text in found]
    return [str(each) for each in known if not (each.is_loopback or each.is_link_local)]
