"""What the operating system lets a daemon hold open: as much as it may, while its tasks get what they would have had.

A daemon holds one descriptor for each task and each connection. Programs that still use select(2) break with numbers
above 1024, so what is raised here is not passed on to tasks.
"""

import resource

OPEN_FILES_OF_TASKS = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""The soft limit that this process was started with."""


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
