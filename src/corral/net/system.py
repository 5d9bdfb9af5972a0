"""Measures the machine that a daemon runs on, under the names that Mesos gives these numbers."""

import os


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
