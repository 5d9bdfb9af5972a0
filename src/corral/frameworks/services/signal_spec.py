"""Apps whose instances are being told, by a signal, that a value they use is another one."""

import msgspec

from corral.model.ids import TaskId


class SignalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An app whose instances are being told. Units: those launched up to `at` are."""

    app: str
    signal: str
    source: str
    at: float


class Telling:
    """Shapes: `waiting` maps the tasks that have not heard it yet to how often it was tried."""

    __slots__ = ("record", "waiting")

    def __init__(self, record: SignalRecord) -> None:
        self.record = record
        self.waiting: dict[TaskId, int] = {}
