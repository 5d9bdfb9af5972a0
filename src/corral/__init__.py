"""corral: a datacenter operating system. One pool of machines, every kind of work on it."""

__version__ = "0.1.0"

# Mesos clients read the version to choose a protocol and parse it as plain dotted integers.
MESOS_VERSION = "1.11.0"
