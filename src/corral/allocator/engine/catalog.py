"""From words to numbers: the kinds and attribute signatures of nodes, and which of them a demand class may use.

A signature is what a node has at all and its values of those attributes that some class's constraint names. Classes
that name hosts are kept as lists of nodes, for every host would be a signature of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from corral.allocator.engine.columns import (
    ALIGNED,
    BINPACK,
    FORBIDDEN,
    HANDED,
    LEAST_TASKS,
    RANDOM,
    SPREAD,
    WASTEFUL,
)
from corral.allocator.engine.tallying import SIBLINGS_PLACE, Rule, Tally
from corral.lib.errors import Invalid
from corral.model.constraints import HOSTNAME, Constraint, allows, check_constraint, describe, field_value, is_counting

MOST_RULES = SIBLINGS_PLACE
"""Hard rules, soft rules and tallies fed by one class, each."""


class Node(NamedTuple):
    """A node in words."""

    total: tuple[int, ...]
    hostname: str
    attributes: Mapping[str, str]


class Demand(NamedTuple):
    """A class in words.

    Shapes: `shape` in thousandths, one place per resource; `refused` are node rows. `rules` holds hard and soft ones,
    `feeds` the tallies that its instances count in, `siblings` the one that spreading looks at.
    """

    shape: tuple[int, ...]
    constraints: tuple[Constraint, ...]
    strategy: str
    rules: tuple[Rule, ...] = ()
    feeds: tuple[Tally, ...] = ()
    siblings: Tally | None = None
    gang: int = 1
    revocable: bool = False
    refused: frozenset[int] = frozenset()
    named: bool = False

    @property
    def fine(self) -> bool:
        """Whether its nodes are named one by one, as it chooses among hosts rather than attributes."""
        return self.named or bool(self.refused) or any(each.field == HOSTNAME for each in self.constraints)

    @property
    def searches(self) -> object:
        """What classes have in common that search the same nodes."""
        if self.fine:
            return self.constraints, self.refused
        return self.constraints, tuple(amount > 0 for amount in self.shape)


class Signature(NamedTuple):
    """What nodes have in common. Shapes: `has` tells per resource whether they have any."""

    has: tuple[bool, ...]
    values: tuple[str | None, ...]


STRATEGIES = {
    "binpack": BINPACK,
    "spread": SPREAD,
    "random": RANDOM,
    "least-tasks": LEAST_TASKS,
    "aligned": ALIGNED,
    "gpu": HANDED,
}

BY_CELLS = frozenset({"binpack", "spread"})
"""The strategies that the order of cells serves, as long as no soft rule has a say."""


def check_demand(demand: Demand) -> None:
    """Errors: `Invalid` for an unknown strategy, a constraint that counts siblings, or more rules than have room."""
    if demand.strategy not in STRATEGIES:
        raise Invalid(f"no strategy is called {demand.strategy}; choose one of {', '.join(STRATEGIES)}")
    hard = sum(1 for rule in demand.rules if not rule.weight)
    if max(hard, len(demand.rules) - hard, len(demand.feeds)) > MOST_RULES:
        raise Invalid(
            f"a class has {len(demand.rules)} rules and {len(demand.feeds)} tallies; {MOST_RULES} are the most"
        )
    if demand.gang > 1 and demand.strategy == "gpu":
        raise Invalid("a gang cannot be placed by the strategy gpu; choose binpack or spread")
    for each in demand.constraints:
        check_constraint(each)
        if is_counting(each):
            raise Invalid(f"constraint {describe(each)!r} looks at siblings, which a class does not know; leave it out")


class Catalog:
    """Shapes: `fields` are the attributes that constraints use, in the order they were first used."""

    def __init__(self, names: Sequence[str], scarce: Iterable[str]) -> None:
        self._scarce = tuple(name in set(scarce) for name in names)
        self.fields: list[str] = []
        self.signatures: dict[Signature, int] = {}

    def learn_fields(self, demand: Demand) -> bool:
        """Take note of the attributes a class looks at; returns whether nodes have to be told apart anew."""
        new = {each.field for each in demand.constraints} - {HOSTNAME, *self.fields}
        if demand.fine or not new:
            return False
        self.fields += sorted(new)
        self.signatures.clear()
        return True

    def sign(self, node: Node) -> tuple[int, bool]:
        """The number of a node's signature, and whether it is a new one."""
        signature = Signature(
            tuple(amount > 0 for amount in node.total), tuple(node.attributes.get(field) for field in self.fields)
        )
        known = self.signatures.get(signature)
        if known is not None:
            return known, False
        self.signatures[signature] = len(self.signatures)
        return len(self.signatures) - 1, True

    def tier(self, demand: Demand, signature: Signature) -> int:
        """Whether nodes of this signature are welcome (0), WASTEFUL or FORBIDDEN to a class."""
        wasteful = False
        for asked, there, scarce in zip(demand.shape, signature.has, self._scarce, strict=True):
            if asked and not there:
                return FORBIDDEN
            wasteful = wasteful or (scarce and there and not asked)
        values = dict(zip(self.fields, signature.values, strict=True))
        if not demand.fine and not all(allows(c, values[c.field], (), 0, 0) for c in demand.constraints):
            return FORBIDDEN
        return WASTEFUL if wasteful else 0


def admits(demand: Demand, node: Node) -> bool:
    """Whether a node satisfies all constraints of a class."""
    return all(
        allows(each, field_value(each.field, node.hostname, node.attributes), (), 0, 0) for each in demand.constraints
    )
