"""Regular expressions that strangers write: refused when matching one could take very long.

The check counts in how many ways an expression might be tried on a text of 256 characters, the longest that is matched
at all. Each repetition without end counts 256, an optional part 2, alternatives that may begin alike their number; what
follows one another is multiplied. A repetition of single characters counts 1 where it can end in one place only, before
a character that it does not take itself or at the end of all. A repeated part that can itself be tried in several ways,
such as `(a+)+`, has no bound at all.
"""

import re
from functools import lru_cache
from math import inf, log2
from typing import NamedTuple

from corral.lib.errors import Invalid

MOST_PATTERN = 512
"""Characters of an expression."""

MOST_TEXT = 256
"""Characters of a text that is matched; a longer one matches nothing. The name of a host has 253 at most."""

_BOUND = 20
MOST_WAYS = 2.0**_BOUND
"""As many as two repetitions without end have, and 16 ways beside them."""

_MOST_DEPTH = 16
_SIMPLE_GROUP = re.compile(r"\((?!\?)|\(\?(?:[:>=!]|<[=!]|P<\w+>|[aimsLu]*(?:-[ims]+)?:)")
_AHEAD = ("(?=", "(?!", "(?<=", "(?<!")
_ALONE = re.compile(r"\(\?(?:[aimsLu]+|P=\w+)\)")
_COUNTS = re.compile(r"\{(?:([0-9]+)|([0-9]*),([0-9]*))\}")
_ESCAPE = re.compile(r"\\(?:[0-9]+|x..|u.{4}|U.{8}|N\{[^}]*\}|.)", re.DOTALL)
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
    found = scan.alternatives(0)
    if scan.at < len(pattern):
        raise Invalid(f"is no valid regular expression: nothing is open at position {scan.at}")
    if found.ways > MOST_WAYS:
        raise Invalid(
            "could take very long to match; repeat no group that itself repeats or varies, as (a+)+ does, and use at "
            "most two * or + that could end in several places, as .* does; [^-]*- ends in one"
        )
    return compiled


class _Part(NamedTuple):
    """A part of an expression.

    Shapes: `least` is 0 when it may match nothing at all; `first` is the plain character that it always begins with;
    `single` is the expression of one character that it is.
    """

    ways: float = 1.0
    least: int = 1
    first: str | None = None
    single: str | None = None


class _Scan:
    """Reads an expression that `re` has found valid, from `at` on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def alternatives(self, depth: int) -> _Part:
        """All up to the end of the group."""
        if depth > _MOST_DEPTH:
            raise Invalid(f"has groups in groups more than {_MOST_DEPTH} deep; make it simpler")
        found = [self._sequence(depth)]
        while self._next() == "|":
            self.at += 1
            found.append(self._sequence(depth))
        if len(found) == 1:
            return found[0]
        # Where every alternative begins with a character of its own, at most one is ever tried. Beyond ASCII there are
        # characters that are alike when case does not matter.
        firsts = [each.first for each in found if each.first is not None and each.first.isascii()]
        apart = len(firsts) == len(found) == len({first.lower() for first in firsts})
        ways = [each.ways for each in found]
        return _Part(max(ways) if apart else sum(ways), min(each.least for each in found))

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _sequence(self, depth: int) -> _Part:
        ways, least, first, start = 1.0, 0, None, True
        open_ways, open_single = 1.0, None  # of a repetition whose end depends on what follows
        while self._next() not in ("", "|", ")"):
            part = self._atom(depth)
            low, high = self._quantifier()
            if low > 1 and part.least == 0:
                raise Invalid("could take very long to match; it repeats what may be nothing, as (a?){9} does")
            if start and (low, high) == (1, 1):
                first = part.first
            if low == 0 or open_single is None or part.first is None or _takes(open_single, part.first):
                ways *= open_ways
            open_ways, open_single = _repeated(part.ways, low, high), part.single
            least += low * part.least
            start = False
        ends = depth == 0 and open_single is not None
        return _Part(ways if ends else ways * open_ways, min(least, 1), first)

    def _atom(self, depth: int) -> _Part:
        char = self._next()
        if char == "(":
            return self._group(depth)
        start = self.at
        if char == "[":
            self._skip_class()
            return _Part(single=self.text[start : self.at])
        if char == "\\":
            return self._escape()
        self.at += 1
        if char in "^$":
            return _Part(least=0)
        if char == ".":
            return _Part(single=char)
        return _Part(first=char, single=re.escape(char))

    def _escape(self) -> _Part:
        found = _ESCAPE.match(self.text, self.at)
        assert found is not None, "re has taken it"
        self.at = found.end()
        kind = found[0][1]
        if kind in "bBAZ" or kind.isdigit():
            return _Part(least=0)
        return _Part(first=None if kind.isalnum() else kind, single=found[0])

    def _skip_class(self) -> None:
        self.at += 2 if self.text.startswith("[^", self.at) else 1
        start = self.at
        while self._next() != "]" or self.at == start:
            self.at += 2 if self._next() == "\\" else 1
        self.at += 1

    def _group(self, depth: int) -> _Part:
        alone = _ALONE.match(self.text, self.at)
        if alone is not None:
            self.at = alone.end()
            return _Part(least=0)
        opened = _SIMPLE_GROUP.match(self.text, self.at)
        if opened is None:
            raise Invalid(
                f"has a group that begins with {self.text[self.at : self.at + 4]!r}; use plain groups, and neither "
                "comments, conditions nor the flag x"
            )
        self.at = opened.end()
        inner = self.alternatives(depth + 1)
        self.at += 1
        return _Part(inner.ways, 0 if opened[0] in _AHEAD else inner.least)

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


def _takes(single: str, char: str) -> bool:
    """Whether an expression of one character might match this one, whatever the flags."""
    if not char.isascii():
        return True
    return any(re.fullmatch(single, char, flags) for flags in (re.DOTALL, re.DOTALL | re.IGNORECASE))


def _repeated(inner: float, low: int, high: int) -> float:
    """The ways of something that is repeated."""
    lengths = min(high - low + 1, MOST_TEXT)
    if inner <= 1:
        return float(lengths)
    if high <= 1:
        return inner * lengths
    return inf if high * log2(inner) > _BOUND else inner**high * lengths
