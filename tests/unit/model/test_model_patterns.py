"""Expressions that could take very long are refused, and those that are accepted are quick."""

import re
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.lib.errors import Invalid
from corral.model.patterns import MOST_PATTERN, MOST_TEXT, compile_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+", "(a*)*", "(.*,)+", "(?:a+)*b", "((a+))+", "(?P<x>a+){2,}", "(a?a?)*", "(a|a)*", "(a|ab)+", "(|a)*",
        "([a-z]+)*", r"(\w+\s?)*", "(a{1,9})*", "a?" * 40 + "a" * 40, ".*" * 6 + "x", "(a|a)" * 40, "(a?){40}",
        "(?i:(a|A)+)", "(x+x+)+y", r"(\d+|[0-9]+)*", "((a{2,9}){2,9}){9}", "(a*){1,30}", "(a+)++?"[:-1], "(a+)+?",
        ".*.*.*x", "a*" * 30 + "b", r"(?:\x61*a)*b", r"(?:\u0061*a)*b", r"(?:\U00000061*a)*b",
        r"(?:\N{LATIN SMALL LETTER A}*a)*b", "(?i)(?:[a-z]+K)*1", "(?i)(?:[^a]+A)*1", "(?s)(?:.*\n)*a",
        "(?i)(?:\u0131x|ix)*b", "(?i)(?:\u017fx|sx)*b", "(?:(?=a*)a)*b", "(?:a*b?)*c", "(?:[a-z]*(?:a))*1",
        "(?:(?:){60000}){60000}", r"(?:\b){60000}", "(?:(?:(?=a)){3000}){3000}a", "(a?){9}", "(?:^|b*){9}",
    ],
)  # fmt: skip
def test_a_pattern_that_could_take_very_long_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="very long"):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(?x)(a+) *", "(a+)(?#b)*", "(a)(?(1)b|c)", "(?ix:a)"])
def test_forms_that_hide_a_repetition_are_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="use plain groups"):
        compile_pattern(pattern)


def test_a_pattern_that_is_too_long_or_too_deep_or_none_is_refused() -> None:
    compile_pattern("a" * MOST_PATTERN)
    with pytest.raises(Invalid, match="513 characters; 512 are the most"):
        compile_pattern("a" * (MOST_PATTERN + 1))
    with pytest.raises(Invalid, match="more than 16 deep"):
        compile_pattern("(" * 20 + "a" + ")" * 20)
    for broken in ("(", "a**", "[", "a{9999999999999}"):
        with pytest.raises(Invalid, match="no valid regular expression"):
            compile_pattern(broken)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("rack-[1-3]", "rack-2"),
        (".*", ""),
        (".*-eu-.*", "node-eu-7"),
        (r"([0-9]{1,3}\.){3}[0-9]{1,3}", "10.0.0.255"),
        ("(web|db|cache)+", "webdbweb"),
        ("[]^a]+x?", "]^ax"),
        (r"[\]a]*\(b\)", "]a(b)"),
        ("(?i)WEB(?:-[0-9]{2})?", "web-07"),
        ("a{,}b{x}", "aab{x}"),
        (r"(?P<a>x)(?P=a)\1", "xxx"),
        ("[a-z]+-[a-z]+-[0-9]+\\.[a-z]+\\.[a-z]+", "web-eu-12.corral.example"),
        ("(?=w)w(?!x).*", "web"),
        ("(?:[a-z0-9]+-)*[a-z0-9]+", "web-eu-12"),
        ("[^.]+(?:[.][^.]+)?[.]corral", "a.b.corral"),
        (".*-eu-.*-web.*", "node-eu-7-web-1"),
        (r"(?:\x61+b)*\101\b", "aabA"),
        ("(?:-[a-z]+)?(?:-[0-9]+)?", "-eu-12"),
        ("[0-9a-f]{64}", "0" * 64),
    ],
)
def test_what_people_write_is_accepted(pattern: str, text: str) -> None:
    assert compile_pattern(pattern).fullmatch(text)


parts = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "\\w", "[^b]", r"\x61", r"\b", "(?=a)", "(?i:A)"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,3}", "{2}", "*?", "{60000}", "{,60000}"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}|{p[1]})"),
    ),
    max_leaves=9,
)


@settings(max_examples=200, deadline=None)
@given(parts)
def test_whatever_is_accepted_answers_soon(pattern: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except Invalid:
        return
    for text in ("a" * (MOST_TEXT - 1) + "!", "ab" * (MOST_TEXT // 2)):
        began = perf_counter()
        compiled.fullmatch(text)
        assert perf_counter() - began < 5.0


@given(st.text(alphabet="a(|)*+?[]{}1,^\\-.:", max_size=12))
def test_only_what_python_takes_is_taken(pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except Invalid:
        return
    re.compile(pattern)


def test_what_the_documentation_says_of_repetitions_is_so() -> None:
    assert compile_pattern("[^-]*-[^-]*-[^-]*-.*").fullmatch("a-b-c-d-e")
    with pytest.raises(Invalid, match="in several places"):
        compile_pattern(".*-.*-.*-.*")
