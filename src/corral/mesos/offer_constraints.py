"""Reads and writes the offer constraints of SUBSCRIBE and UPDATE_FRAMEWORK. Source: Mesos v1, OfferConstraints."""

from corral.mesos import wire
from corral.mesos.common import read_optional_enum
from corral.model.offer_constraints import (
    WITH_REGEX,
    AttributeConstraint,
    OfferConstraints,
    Predicate,
    Pseudo,
    RoleConstraints,
)


class WireSelector(wire.Wire):
    attribute_name: str | None = None
    pseudoattribute_type: str | None = None


class WireRegex(wire.Wire):
    regex: str


class WirePredicate(wire.Wire):
    exists: wire.Empty | None = None
    not_exists: wire.Empty | None = None
    text_equals: wire.Text | None = None
    text_not_equals: wire.Text | None = None
    text_matches: WireRegex | None = None
    text_not_matches: WireRegex | None = None


class WireAttributeConstraint(wire.Wire):
    selector: WireSelector
    predicate: WirePredicate


class WireGroup(wire.Wire):
    attribute_constraints: tuple[WireAttributeConstraint, ...] = ()


class WireRoleConstraints(wire.Wire):
    groups: tuple[WireGroup, ...] = ()


class WireOfferConstraints(wire.Wire):
    role_constraints: dict[str, WireRoleConstraints] = {}


def read_offer_constraints(found: WireOfferConstraints | None) -> OfferConstraints:
    """Shapes: a predicate that is none or several has no test; whether all of it makes sense is looked at later."""
    if found is None:
        return ()
    return tuple(
        RoleConstraints(
            role=role, groups=tuple(tuple(map(_read_constraint, group.attribute_constraints)) for group in one.groups)
        )
        for role, one in sorted(found.role_constraints.items())
    )


def _read_constraint(found: WireAttributeConstraint) -> AttributeConstraint:
    said = [(test, body) for test in Predicate if (body := getattr(found.predicate, test.value)) is not None]
    test, body = said[0] if len(said) == 1 else (None, None)
    value = body.value if isinstance(body, wire.Text) else body.regex if isinstance(body, WireRegex) else ""
    return AttributeConstraint(
        name=found.selector.attribute_name,
        pseudo=read_optional_enum(Pseudo, found.selector.pseudoattribute_type),
        test=test,
        value=value,
    )


def write_offer_constraints(constraints: OfferConstraints) -> WireOfferConstraints | None:
    """None for no constraints at all."""
    if not constraints:
        return None
    return WireOfferConstraints(
        role_constraints={
            one.role: WireRoleConstraints(
                groups=tuple(WireGroup(attribute_constraints=tuple(map(_write_constraint, g))) for g in one.groups)
            )
            for one in constraints
        }
    )


def _write_constraint(one: AttributeConstraint) -> WireAttributeConstraint:
    predicate = WirePredicate()
    if one.test in WITH_REGEX:
        setattr(predicate, one.test.value, WireRegex(regex=one.value))
    elif one.test in (Predicate.EXISTS, Predicate.NOT_EXISTS):
        setattr(predicate, one.test.value, wire.Empty())
    elif one.test is not None:
        setattr(predicate, one.test.value, wire.Text(value=one.value))
    selector = WireSelector(
        attribute_name=one.name, pseudoattribute_type=one.pseudo.value if one.pseudo is not None else None
    )
    return WireAttributeConstraint(selector=selector, predicate=predicate)
