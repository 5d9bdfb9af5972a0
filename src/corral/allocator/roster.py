"""What the agents are, whatever runs there, as columns: what explanations ask of all agents over and over.

Made when first asked for and kept until an agent comes, goes or changes. Columns are never written to.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from corral.allocator.book import Book
from corral.allocator.entries import AgentEntry
from corral.model.constraints import field_value

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[np.int64]


class Roster:
    """Shapes: `at` counts agents in the order of their rows."""

    def __init__(self, book: Book) -> None:
        self.changes = book.changes
        self.rows: Column = np.array(sorted(book.rows), dtype=np.int64)
        self.agents: list[AgentEntry] = [book.rows[row] for row in self.rows.tolist()]
        self.eligible: Mask = np.array([not each.view.ineligible for each in self.agents], dtype=bool)
        self._totals: dict[str, Column] = {}
        self._runtimes: dict[tuple[str, bool], Mask] = {}
        self._fields: dict[str, tuple[list[str | None], Column]] = {}
        self._words: list[tuple[str, Mask]] | None = None

    def total(self, name: str) -> Column:
        """What each agent has of a resource, in thousandths, used or not."""
        found = self._totals.get(name)
        if found is None:
            found = self._totals[name] = np.array([each.amounts.get(name, 0) for each in self.agents], dtype=np.int64)
        return found

    def has_runtime(self, name: str, *, ready: bool = True) -> Mask:
        """Those that can start tasks with it now; without `ready` those that have it at all."""
        found = self._runtimes.get((name, ready))
        if found is None:
            views = [each.view for each in self.agents]
            has = [name in v.runtimes or (not ready and name in v.unready_runtimes) for v in views]
            found = self._runtimes[name, ready] = np.array(has, dtype=bool)
        return found

    def words(self) -> list[tuple[str, Mask]]:
        """Each word for why agents take nothing new, with those of which it is true."""
        if self._words is None:
            said = [each.view.ineligible for each in self.agents]
            self._words = [
                (word, np.array([each == word for each in said], dtype=bool)) for word in sorted(set(said) - {""})
            ]
        return self._words

    def matching(self, field: str, accepts: Callable[[str | None], bool]) -> Mask:
        """The agents whose value of a field is accepted; each value is tried once."""
        if field not in self._fields:
            numbers: dict[str | None, int] = {}
            codes = [
                numbers.setdefault(field_value(field, each.view.hostname, each.view.attributes), len(numbers))
                for each in self.agents
            ]
            self._fields[field] = list(numbers), np.array(codes, dtype=np.int64)
        values, codes_ = self._fields[field]
        answers: Mask = np.array([accepts(each) for each in values], dtype=bool)
        return answers[codes_] if len(codes_) else np.zeros(0, dtype=bool)
