"""Which agents a framework wants plain offers of, by their attributes.

A role's groups are alternatives; within a group all constraints must hold. What looks at text holds of an attribute
that is no text, and what denies something holds where the attribute is missing. Of several attributes of one name the
first counts. Source: Mesos v1, OfferConstraints.
"""

from enum import StrEnum

import msgspec

from corral.lib.errors import Invalid
from corral.model.agent import AgentInfo
from corral.model.attributes import AttributeKind
from corral.model.patterns import MOST_TEXT, compile_pattern


class Pseudo(StrEnum):
    """What an agent has besides its attributes."""

    HOSTNAME = "HOSTNAME"
    REGION = "REGION"
    ZONE = "ZONE"


class Predicate(StrEnum):
    """The predicates, by their names on the wire."""

    EXISTS = "exists"
    NOT_EXISTS = "not_exists"
    TEXT_EQUALS = "text_equals"
    TEXT_NOT_EQUALS = "text_not_equals"
    TEXT_MATCHES = "text_matches"
    TEXT_NOT_MATCHES = "text_not_matches"


WITH_REGEX = (Predicate.TEXT_MATCHES, Predicate.TEXT_NOT_MATCHES)
_DENYING = (Predicate.NOT_EXISTS, Predicate.TEXT_NOT_EQUALS, Predicate.TEXT_NOT_MATCHES)


class AttributeConstraint(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: exactly one of `name` and `pseudo` is set, and `test`; `value` is a text or a regular expression."""

    name: str | None = None
    pseudo: Pseudo | None = None
    test: Predicate | None = None
    value: str = ""


class RoleConstraints(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    role: str
    groups: tuple[tuple[AttributeConstraint, ...], ...]


OfferConstraints = tuple[RoleConstraints, ...]


def find_fault(constraints: OfferConstraints, roles: tuple[str, ...]) -> str | None:
    """What is wrong with the constraints of a framework of these roles; None when they can be decided."""
    for one in constraints:
        at = f"'offer_constraints' of role {one.role!r}"
        if one.role not in roles:
            return f"{at}: the framework is not subscribed to that role; name one of {', '.join(roles) or 'none'}"
        if not one.groups:
            return f"{at}: there are no groups; give at least one, or leave the role out"
        for index, group in enumerate(one.groups):
            if not group:
                return f"{at}: groups[{index}] is empty; give at least one constraint"
            fault = next(filter(None, map(_find_constraint_fault, group)), None)
            if fault is not None:
                return f"{at}: groups[{index}]: {fault}"
    return None


def _find_constraint_fault(one: AttributeConstraint) -> str | None:
    if (one.name is None) == (one.pseudo is None):
        return f"a selector names one of 'attribute_name' and 'pseudoattribute_type' ({', '.join(Pseudo)})"
    if one.test is None:
        return f"a predicate is exactly one of {', '.join(Predicate)}"
    if one.test in WITH_REGEX:
        try:
            compile_pattern(one.value)
        except Invalid as error:
            return f"regex {one.value[:100]!r} {error.message}"
    return None


def admits(groups: tuple[tuple[AttributeConstraint, ...], ...], agent: AgentInfo) -> bool:
    """Whether plain offers of the agent are wanted."""
    return any(all(_holds(one, agent) for one in group) for group in groups)


def _holds(one: AttributeConstraint, agent: AgentInfo) -> bool:
    text, is_there = _select(one, agent)
    match one.test:
        case Predicate.EXISTS:
            return is_there
        case Predicate.NOT_EXISTS:
            return not is_there
        case _ if not is_there:
            return one.test in _DENYING
        case _ if text is None:
            return True
        case Predicate.TEXT_EQUALS:
            return text == one.value
        case Predicate.TEXT_NOT_EQUALS:
            return text != one.value
        case _:
            matches = len(text) <= MOST_TEXT and compile_pattern(one.value).fullmatch(text) is not None
            return matches is (one.test is Predicate.TEXT_MATCHES)


def _select(one: AttributeConstraint, agent: AgentInfo) -> tuple[str | None, bool]:
    """The text, None for what is none, and whether the attribute is there at all."""
    domain = agent.domain
    match one.pseudo:
        case Pseudo.HOSTNAME:
            return agent.hostname, True
        case Pseudo.REGION:
            return (domain.region, True) if domain is not None else (None, False)
        case Pseudo.ZONE:
            return (domain.zone, True) if domain is not None else (None, False)
        case None:
            found = next((a for a in agent.attributes if a.name == one.name), None)
            if found is None:
                return None, False
            return found.text if found.kind is AttributeKind.TEXT else None, True
