"""From a want to what the engine can decide: a shape, constraints on a node alone, and rules over tallies.

Counting constraints and affinity become rules, soft forms rules with a weight; a fixed port is a rule that its tally on
an agent is empty. Only tags that somebody looks at are counted, so that wants which are alike stay one class.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from corral.allocator.book import RUNTIME, port_tally
from corral.allocator.bundles import GPUS, PORT_UNIT, PORTS, amounts_of
from corral.allocator.engine import AGENT, Rule, Tally
from corral.allocator.engine.catalog import MOST_RULES
from corral.allocator.engine.columns import BELOW, CLEAR, EVEN, NEAR, TABLE, TARGET
from corral.allocator.engine.rules import WHOLE
from corral.allocator.entries import group_tag
from corral.allocator.strategies import STRATEGIES
from corral.lib.errors import Invalid
from corral.model.constraints import Constraint, Operator, allows, check_constraint, is_counting, looks_at_tasks
from corral.model.ids import FrameworkId
from corral.model.offer import Want
from corral.model.resources import PLAIN, ResourceKind, describe, format_milli

DEFAULT_STRATEGY, GPU_STRATEGY, GANG_STRATEGY = "spread", "gpu", "binpack"

TARGET_WEIGHT = 100
"""What a share over the values of a field weighs that names no weight."""

THOUSAND = 1000

MOST_OWN_RULES = 60
"""What a want may ask of tallies: a class has room for a little more."""


class Context(NamedTuple):
    """What a want's class depends on beside the want: how many siblings, the role's strategy, refusals, watched tags.

    Shapes: `watched` gives the tallies in use in which an instance with these tags counts.
    """

    group_size: int
    strategy: str
    refused: frozenset[int]
    watched: Callable[[Iterable[str]], Iterable[Tally]]


class Asked(NamedTuple):
    """What `Engine.intern_class` takes.

    Shapes: where more tallies look at the want than a class has room for, those of its own rules come first in `feeds`.
    """

    shape: dict[str, int]
    constraints: tuple[Constraint, ...]
    strategy: str
    rules: tuple[Rule, ...]
    feeds: tuple[Tally, ...]
    siblings: Tally | None
    gang: int
    revocable: bool
    refused: frozenset[int]


def check_want(want: Want) -> None:
    """Errors: `Invalid` for a want that could never be decided."""
    for each in want.resources:
        if each.kind is not ResourceKind.SCALAR or each.milli < 0 or each.identity != PLAIN:
            raise Invalid(
                f"want {want.id} asks {describe((each,))}, which is no plain scalar of 0 or more; "
                "state ports as ports or fixed_ports"
            )
    gpus = amounts_of(want.resources).get(GPUS, 0)
    if gpus > WHOLE and gpus % WHOLE:
        raise Invalid(f"want {want.id} asks {format_milli(gpus)} gpus; ask whole ones, or a part of one")
    for constraint in want.constraints:
        check_constraint(constraint)
    rules = sum(1 for each in want.constraints if each.weight or _is_rule(each)) + len(set(want.fixed_ports))
    if rules > MOST_OWN_RULES:
        raise Invalid(
            f"want {want.id} has {rules} fixed ports and constraints that count or are soft; "
            f"{MOST_OWN_RULES} are the most"
        )


def ask(want: Want, framework_id: FrameworkId, context: Context) -> Asked:
    """What a want asks of the engine; the tags that its rules look at must be watched already."""
    own = own_tags(want, framework_id)
    strategy = strategy_of(want, context.strategy)
    constraints = [each for each in want.constraints if not each.weight and not _is_rule(each)]
    if want.runtime:
        constraints.append(Constraint(field=RUNTIME + want.runtime, operator=Operator.EQUAL, values=("yes",)))
    rules = [_rule(each, own, context.group_size) for each in want.constraints if each.weight or _is_rule(each)]
    rules += [Rule(CLEAR, port_tally(port)) for port in want.fixed_ports]
    # Who has no siblings shares its class with all that are alike.
    alone = context.group_size <= 1 and not want.group
    siblings = Tally(AGENT, own[0]) if strategy == "spread" and not alone else None
    feeds = dict.fromkeys(rule.tally for rule in rules if rule.tally.tag and _carries(rule.tally.tag, own))
    if siblings is not None:
        feeds[siblings] = None
    feeds.update(dict.fromkeys(port_tally(port) for port in want.fixed_ports))
    feeds.update(dict.fromkeys(context.watched(own)))
    return Asked(
        shape_of(want), tuple(constraints), strategy, tuple(rules), tuple(feeds)[:MOST_RULES], siblings,
        max(1, want.gang),
        want.revocable, context.refused,
    )  # fmt: skip


def own_tags(want: Want, framework_id: FrameworkId) -> tuple[str, ...]:
    """The tags that the instances of a want carry, first the one they share with their siblings alone."""
    return (group_tag(framework_id, group_of(want)), *want.tags)


def group_of(want: Want) -> str:
    """Wants without a group are siblings of nobody but themselves."""
    return want.group or f"={want.id}"


def shape_of(want: Want) -> dict[str, int]:
    """Thousandths of what one instance takes."""
    shape = amounts_of(want.resources)
    ports = want.ports + len(set(want.fixed_ports))
    if ports:
        shape[PORTS] = ports * PORT_UNIT
    return {name: amount for name, amount in shape.items() if amount}


def strategy_of(want: Want, of_role: str) -> str:
    """The want's own strategy, else its role's, else one that suits what it asks."""
    found = want.strategy or of_role
    if found not in STRATEGIES:
        found = GPU_STRATEGY if shape_of(want).get(GPUS) else DEFAULT_STRATEGY
    return GANG_STRATEGY if found == GPU_STRATEGY and want.gang > 1 else found


def mark(marks: object, value: str | None) -> int:
    """What the table of a soft constraint says of a value: 1 where it is broken; for shares, thousandths aimed at."""
    assert isinstance(marks, Constraint), "tables are made of constraints"
    if marks.operator is Operator.SPREAD:
        return _target(marks.values, value)
    return 0 if allows(marks, value, (), 0, 0) else 1


def _target(values: Iterable[str], value: str | None) -> int:
    parts: dict[str, int] = {}
    for each in values:
        name, _, percent = each.rpartition("=") if "=" in each else (each, "", "")
        parts[name] = round(float(percent) * 10) if percent else THOUSAND // max(1, len(tuple(values)))
    return parts.get(value, parts.get("*", 0)) if value is not None else 0


def _is_rule(constraint: Constraint) -> bool:
    return is_counting(constraint) or looks_at_tasks(constraint)


def _carries(tag: str, own: Iterable[str]) -> bool:
    return not set(tag.split("\n")).isdisjoint(own)


def _rule(constraint: Constraint, own: tuple[str, ...], group_size: int) -> Rule:
    field, weight = constraint.field, constraint.weight
    siblings = Tally(field, own[0])
    match constraint.operator:
        case Operator.UNIQUE:
            return Rule(BELOW, siblings, 1, weight)
        case Operator.MAX_PER:
            return Rule(BELOW, siblings, constraint.count or 0, weight)
        case Operator.GROUP_BY:
            return Rule(EVEN, Tally(field, own[0], constraint.count or 0, group_size), 0, weight)
        case Operator.CLUSTER if not constraint.values:
            return Rule(NEAR, siblings, 1, weight)
        case Operator.CLUSTER:
            plain = Constraint(field=field, operator=Operator.EQUAL, values=constraint.values[:1])
            return Rule(TABLE, Tally(field, marks=plain), 0, weight)
        case Operator.NEAR:
            # The first of those that shall be together finds nobody to be near to.
            tag = "\n".join(constraint.values)
            return Rule(NEAR, Tally(field, tag), int(_carries(tag, own)), weight)
        case Operator.APART:
            return Rule(CLEAR, Tally(field, "\n".join(constraint.values)), 0, weight)
        case Operator.SPREAD:
            return Rule(TARGET, siblings, 0, weight or TARGET_WEIGHT, Tally(field, marks=constraint))
        case _:
            hard = Constraint(field=field, operator=constraint.operator, values=constraint.values)
            return Rule(TABLE, Tally(field, marks=hard), 0, weight)
