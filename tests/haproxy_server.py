"""Debian's HAProxy, for tests that balance load."""

from corral.docker.daemon import find_program, install_packages


def require_haproxy() -> str:
    """The program's path; Debian's package is installed when it is missing."""
    if find_program("haproxy") is None:
        install_packages(["haproxy"])
    found = find_program("haproxy")
    assert found is not None
    return found
