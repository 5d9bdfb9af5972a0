"""Regular expressions that strangers write: refused when matching one could take very long.

The check counts in how many ways an expression might be tried on a text of 16 characters. Each repetition without end
counts 16, an optional part 2, alternatives that may begin alike their number; what follows one another is multiplied. A
repeated part that can itself be tried in several ways, such as `(a+)+`, has no bound at all.
"""

import re
from functools import lru_cache
from math import inf, log2

from corral.lib.errors import Invalid

MOST_PATTERN = 512
"""Characters of an expression."""

_BOUND = 20
MOST_WAYS = 2.0**_BOUND
"""As many as five repetitions without end have."""

_LENGTH = 16
_MOST_DEPTH = 16
_SIMPLE_GROUP = re.compile(r"\((?!\?)|\(\?(?:[:>=!]|<[=!]|P<\w+>|[aimsLu]*(?:-[ims]+)?:)")
_ALONE = re.compile(r"\(\?(?:[aimsLu]+|P=\w+)\)")
_COUNTS = re.compile(r"\{(?:([0-9]+)|([0-9]*),([0-9]*))\}")
_MANY = 10**6


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The expression, checked. Errors: `Invalid` says what is wrong with it, without naming it."""
    if len(pattern) > MOST_PATTERN:
        raise Invalid(f"has {len(pattern)} characters; {MOST_PATTERN} are the most")
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise Invalid(f"is no valid regular expression: {error}") from None
    scan = _Scan(pattern)
    ways = scan.alternatives(0)
    if scan.at < len(pattern):
        raise Invalid(f"is no valid regular expression: nothing is open at position {scan.at}")
    if ways > MOST_WAYS:
        raise Invalid(
            "could take very long to match; repeat no group that itself repeats or varies, as (a+)+ does, and use at "
            "most five * or +"
        )
    return compiled


class _Scan:
    """Reads an expression that `re` has found valid, from `at` on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def alternatives(self, depth: int) -> float:
        """The ways of all up to the end of the group."""
        if depth > _MOST_DEPTH:
            raise Invalid(f"has groups in groups more than {_MOST_DEPTH} deep; make it simpler")
        ways, first = self._sequence(depth)
        if self._next() != "|":
            return ways
        each, firsts = [ways], [first]
        while self._next() == "|":
            self.at += 1
            ways, first = self._sequence(depth)
            each.append(ways)
            firsts.append(first)
        # Where every alternative begins with a character of its own, at most one is ever tried.
        apart = None not in firsts and len({str(f).casefold() for f in firsts}) == len(firsts)
        return max(each) if apart else sum(each)

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _sequence(self, depth: int) -> tuple[float, str | None]:
        """The ways of a sequence, and the plain character that it always begins with, if there is one."""
        ways, first, start = 1.0, None, True
        while self._next() not in ("", "|", ")"):
            inner, literal = self._atom(depth)
            low, high = self._quantifier()
            if start and (low, high) == (1, 1):
                first = literal
            start = False
            ways *= _repeated(inner, low, high)
        return ways, first

    def _atom(self, depth: int) -> tuple[float, str | None]:
        """The ways of one item, and its character when it is a plain one."""
        char = self._next()
        if char == "\\":
            escaped = self.text[self.at + 1]
            self.at += 2
            return 1.0, None if escaped.isalnum() else escaped
        if char == "[":
            self._skip_class()
            return 1.0, None
        if char == "(":
            return self._group(depth), None
        self.at += 1
        return 1.0, None if char in ".^$" else char

    def _skip_class(self) -> None:
        self.at += 2 if self.text.startswith("[^", self.at) else 1
        start = self.at
        while self._next() != "]" or self.at == start:
            self.at += 2 if self._next() == "\\" else 1
        self.at += 1

    def _group(self, depth: int) -> float:
        alone = _ALONE.match(self.text, self.at)
        if alone is not None:
            self.at = alone.end()
            return 1.0
        opened = _SIMPLE_GROUP.match(self.text, self.at)
        if opened is None:
            raise Invalid(
                f"has a group that begins with {self.text[self.at : self.at + 4]!r}; use plain groups, and neither "
                "comments, conditions nor the flag x"
            )
        self.at = opened.end()
        ways = self.alternatives(depth + 1)
        self.at += 1
        return ways

    def _quantifier(self) -> tuple[int, int]:
        """How often at least and at most; (1, 1) when nothing is said."""
        found = {"*": (0, _MANY), "+": (1, _MANY), "?": (0, 1)}.get(self._next())
        if found is not None:
            self.at += 1
        elif (counts := _COUNTS.match(self.text, self.at)) is not None:
            self.at = counts.end()
            low = int(counts[1] or counts[2] or 0)
            found = low, int(counts[1] or counts[3] or _MANY)
        else:
            return 1, 1
        if self._next() in ("?", "+"):
            self.at += 1
        return found


def _repeated(inner: float, low: int, high: int) -> float:
    """The ways of something that is repeated."""
    lengths = min(high - low + 1, _LENGTH)
    if inner <= 1:
        return float(lengths)
    if high <= 1:
        return inner * lengths
    return inf if high * log2(inner) > _BOUND else inner**high * lengths
