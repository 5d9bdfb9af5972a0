"""Signals as people name them: those that tell a task something, and none that only end or stop it."""

from corral.lib.errors import Invalid

_NUMBERS = {
    "SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGUSR1": 10, "SIGUSR2": 12, "SIGALRM": 14, "SIGTERM": 15, "SIGCONT": 18,
    "SIGWINCH": 28,
}  # fmt: skip
"""Linux' numbers, the same on the processors that there are agents for."""


def read_signal(text: str) -> int:
    """The number of `SIGHUP`, `hup` or the like. Errors: `Invalid` shows what is known."""
    name = text.strip().upper()
    number = _NUMBERS.get(name if name.startswith("SIG") else f"SIG{name}")
    if number is None:
        raise Invalid(f"got signal {text!r}, must be one of {', '.join(_NUMBERS)}")
    return number
