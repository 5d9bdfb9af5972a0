"""Ids of jobs: 26 characters in the order of submission, which tell the bundle of a job and its place there.

Shapes: ten characters of milliseconds, seven of the bundle's number, three of the place, six drawn at random, in the
letters of Crockford's base 32; an element of an array has its number in brackets behind.
"""

import re

_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_LETTERS)}
MOST_PLACES = 32**3
SALT_BITS = 30
_PLACES: list[str] = []
_FORM = re.compile(
    rf"(?P<head>[{_LETTERS}]{{17}})(?P<place>[{_LETTERS}]{{3}})[{_LETTERS}]{{6}}(\[(?P<element>\d{{1,9}})\])?"
)


def write_number(value: int, length: int) -> str:
    """Shapes: too large values lose their upper digits."""
    digits = []
    for _ in range(length):
        digits.append(_LETTERS[value & 31])
        value >>= 5
    return "".join(reversed(digits))


def read_number(text: str) -> int:
    value = 0
    for letter in text:
        value = value << 5 | _VALUES[letter]
    return value


def write_head(at: float, bundle: int) -> str:
    return write_number(int(at * 1000), 10) + write_number(bundle, 7)


def write_id(head: str, place: int, tail: str) -> str:
    """One job's id, of what its bundle's ids have in common."""
    if not _PLACES:
        _PLACES.extend(write_number(each, 3) for each in range(MOST_PLACES))
    return head + _PLACES[place] + tail


def read_id(text: str) -> tuple[int, int, int | None] | None:
    """The bundle, the place, and the element; None for what is no id."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    element = found["element"]
    return read_number(found["head"][10:]), read_number(found["place"]), None if element is None else int(element)
