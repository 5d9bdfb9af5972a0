"""Writes large JSON in pieces, each made in about a millisecond: whoever sends it can do other work in between.

A tree is what the JSON encoder takes, with `Rows` where a list may be long: its items are written when they are due. An
empty piece carries nothing: it is a place where the reader may pause.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

AT_ONCE = 32
"""How many rows make one piece, unless told."""

_encode = msgspec.json.Encoder().encode


class Rows:
    """A list whose items are made from `items` by `write` while it is read, `at_once` for one piece.

    Shapes: it is read once.
    """

    __slots__ = ("at_once", "items", "write")

    def __init__(self, items: Iterable[Any], write: Callable[[Any], object], at_once: int = AT_ONCE) -> None:
        self.items = items
        self.write = write
        self.at_once = at_once


Tree = Any
Plan = Generator[None, None, Tree]
"""Makes a tree and pauses at each `yield`, where that takes long."""


def pieces(tree: Tree) -> Iterator[bytes]:
    """The JSON of a tree. Shapes: joined, it is what the encoder would have made of the whole."""
    if isinstance(tree, Rows):
        yield from _list(tree)
    elif isinstance(tree, dict) and _is_long(tree):
        yield from _object(tree)
    else:
        yield _encode(tree)


def pieces_of(plan: Plan) -> Iterator[bytes]:
    """The JSON of a tree that is yet to be made."""
    while True:
        try:
            next(plan)
        except StopIteration as done:
            yield from pieces(done.value)
            return
        yield b""


def whole(tree: Tree) -> Tree:
    """The same tree with plain lists."""
    if isinstance(tree, Rows):
        return [whole(tree.write(item)) for item in tree.items]
    if isinstance(tree, dict):
        return {name: whole(value) for name, value in tree.items()}
    return tree


def whole_of(plan: Plan) -> Tree:
    """The tree that a plan makes, without a pause."""
    while True:
        try:
            next(plan)
        except StopIteration as done:
            return whole(done.value)


def batches(items: Iterable[Any], most: int) -> Iterator[list[Any]]:
    """The items, so many at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, most)):
        yield batch


def _is_long(tree: object) -> bool:
    if isinstance(tree, dict):
        return any(_is_long(value) for value in tree.values())
    return isinstance(tree, Rows)


def _object(tree: dict[str, Any]) -> Iterator[bytes]:
    opening = b"{"
    for name, value in tree.items():
        yield opening + _encode(name) + b":"
        yield from pieces(value)
        opening = b","
    yield b"}"


def _list(rows: Rows) -> Iterator[bytes]:
    opening = b"["
    write = rows.write
    for batch in batches(rows.items, rows.at_once):
        made = [write(item) for item in batch]
        if any(_is_long(one) for one in made):
            for one in made:
                yield opening
                yield from pieces(one)
                opening = b","
        else:
            yield opening + _encode(made)[1:-1]
            opening = b","
    yield b"[]" if opening == b"[" else b"]"
