"""What the agent remembers of its last contact with a master, and which tasks count from it."""

from corral.model.ids import ContainerId


class CutOffState:
    """Units: instants by the steady clock of `boot`.

    Shapes: `contact_at` is when the last sign of life was given that a master is known to have got, None when none is
    known; `saved_at` the one on disk. `tasks` are the live ones with a bound, each with the instant since when it may
    count even without contact: None until the clock has been read, minus infinity when it was taken from the records.
    `held` are those that do not start before a master has heard of a later instant. With `answers` the master says
    which signs of life it got.
    """

    __slots__ = ("answers", "boot", "contact_at", "held", "saved_at", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[ContainerId, float | None] = {}
        self.held: dict[ContainerId, None] = {}
        self.contact_at: float | None = None
        self.saved_at: float | None = None
        self.boot = ""
        self.answers = False
