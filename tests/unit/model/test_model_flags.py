"""The grammar of --resources and --attributes."""

import pytest

from corral.lib.errors import Invalid
from corral.model.attributes import Attribute, AttributeKind, format_value
from corral.model.flags import parse_attributes, parse_resources
from corral.model.resources import describe, items, normal, ports, scalar


def test_scalars_ranges_and_sets_are_read() -> None:
    found = parse_resources("cpus:8;mem:16384;ports:[31000-32000, 33000-33100];bugs:{b, a}")
    expected = [scalar("cpus", 8), scalar("mem", 16384), ports((31000, 32000), (33000, 33100)), items("bugs", "ab")]
    assert found == normal(expected)


def test_blanks_and_empty_pieces_do_not_matter() -> None:
    assert parse_resources(" cpus : 0.5 ;; mem:1 ; ") == normal([scalar("cpus", 0.5), scalar("mem", 1)])
    assert parse_resources("") == ()


def test_what_is_named_twice_adds_up() -> None:
    assert describe(parse_resources("cpus:1;cpus:0.5;ports:[1-2];ports:[3-4]")) == "cpus 1.5, ports 1-4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpus", "NAME:VALUE"),
        ("cpus:", "NAME:VALUE"),
        (":8", "NAME:VALUE"),
        ("cpus:many", "not a number"),
        ("cpus:-1", "0 or more"),
        ("cpus:nan", "0 or more"),
        ("cpus:inf", "0 or more"),
        ("mem:1e15", "0 or more"),
        ("ports:[5-1]", "LOW-HIGH"),
        ("ports:[5]", "LOW-HIGH"),
        ("ports:[a-b]", "LOW-HIGH"),
        ("cpus(web:8", "is not NAME"),
    ],
)
def test_what_does_not_fit_the_resource_grammar_is_refused_and_quoted(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse_resources(text)


def test_attributes_are_texts_scalars_and_ranges() -> None:
    assert parse_attributes("rack:r1;level:10.5;keys:[1000-1500,7-8];zone:a:b") == (
        Attribute(name="rack", text="r1"),
        Attribute(name="level", kind=AttributeKind.SCALAR, milli=10500),
        Attribute(name="keys", kind=AttributeKind.RANGES, ranges=((7, 8), (1000, 1500))),
        Attribute(name="zone", text="a:b"),
    )


def test_what_is_no_attribute_is_refused() -> None:
    with pytest.raises(Invalid, match="NAME:VALUE"):
        parse_attributes("rack")
    with pytest.raises(Invalid, match="LOW-HIGH"):
        parse_attributes("keys:[9-1]")


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        (Attribute(name="a", text="r1"), "r1"),
        (Attribute(name="a", kind=AttributeKind.SCALAR, milli=10_000), "10"),
        (Attribute(name="a", kind=AttributeKind.SCALAR, milli=100_500), "100.5"),
        (Attribute(name="a", kind=AttributeKind.SCALAR, milli=123), "0.123"),
        (Attribute(name="a", kind=AttributeKind.SCALAR, milli=0), "0"),
        (Attribute(name="a", kind=AttributeKind.SCALAR, milli=-1500), "-1.5"),
        (Attribute(name="a", kind=AttributeKind.RANGES, ranges=((5, 7), (1, 3))), "[1-3,5-7]"),
        (Attribute(name="a", kind=AttributeKind.SET, items=("b", "a")), "{a,b}"),
    ],
)
def test_attribute_values_compare_as_the_texts_that_marathon_writes(attribute: Attribute, text: str) -> None:
    assert format_value(attribute) == text
