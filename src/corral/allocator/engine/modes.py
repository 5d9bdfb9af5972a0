"""The kernels in three forms of one source: plain Python, the same over arrays, and compiled by Numba.

Each form is a copy of the kernel modules of its own. Nothing imports Numba unless the compiled form is asked for; its
first tick takes the time of compiling, so warm an engine before it is needed.
"""

import importlib.util
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from corral.allocator.engine.columns import BITS, Ints, State
from corral.allocator.engine.entries import Holder
from corral.lib.errors import Unavailable


class Mode(StrEnum):
    """PLAIN runs without compilation; ARRAYS is what COMPILED compiles, run as Python, for tests."""

    PLAIN = "plain"
    ARRAYS = "arrays"
    COMPILED = "compiled"


class Kernels(NamedTuple):
    """What an engine calls, as in `entries`."""

    submit: Callable[[Holder, Ints, Ints, Ints, Ints], None]
    withdraw: Callable[[Holder, int, int, int, int], int]
    release: Callable[[Holder, Ints], None]
    forget: Callable[[Holder, Ints], None]
    hold: Callable[[Holder, Ints, Ints, Ints, Ints, Ints, Ints], None]
    recount: Callable[[Holder, Ints, Ints, Ints], None]
    serve: Callable[[Holder, int, int, Ints], int]
    fits: Callable[[Holder, int, int, int], bool]
    open_node: Callable[[Holder, int, int], None]
    settle_role: Callable[[Holder, int], None]
    settle_unmet: Callable[[Holder, int, int], None]
    revive: Callable[[Holder, int], None]
    split_gpus: Callable[[Holder, int], None]
    keeps_headroom: Callable[[Holder, int, int, int], bool]
    find_limit: Callable[[Holder, int, int, int], int]
    refresh: Callable[[Holder], None]
    hand_down: Callable[[Holder, int, int], None]
    cell_of: Callable[[Holder, int, int], int]
    set_aside: Callable[[Holder, int], None]
    wake: Callable[[Holder, int], None]
    bits: int


PLAIN_BITS = 1 << 20
"""Bits of a word where whole numbers have no end: one word for all classes."""

HOT = frozenset(
    {
        "admit",
        "asks",
        "charge",
        "count_all",
        "count_one",
        "drop_line",
        "drop_task",
        "find_cell",
        "find_child",
        "find_leaf",
        "find_limit",
        "find_next",
        "find_node",
        "find_starved",
        "fits",
        "give",
        "give_back",
        "level_of",
        "link",
        "note_freed",
        "pick_line",
        "place",
        "rekey",
        "retest_freed",
        "retire",
        "serve_line",
        "suits",
        "take",
        "take_back",
        "touch",
        "unlink",
        "wake",
        "walk",
    }
)
"""Kernels that each placement or end of a task goes through. Compiled, they become part of their callers: a call hands
over every column by itself, which costs more than what most of them do."""

_PACKAGE = "corral.allocator.engine"
_OTHERWISE = {
    "queues": ("admit", "asks", "find_child", "find_leaf", "insert", "rekey", "remove", "reorder", "starve"),
    "scan": ("collect_bits", "find_exact", "find_scored"),
    "steps": ("charge", "fits", "move", "place", "release", "retest_freed", "serve", "split_gpus", "take", "walk"),
}
"""Kernels that plain Python has another form of, by the module that has it."""

_SOURCES = ("heaps", "rules", "fair", "cells", "search", "turn", "entries")


@lru_cache(maxsize=8)
def load_kernels(mode: Mode, *, cache: bool = False) -> Kernels:
    """The kernels in one form. `cache` lets Numba keep the machine code beside the source for the next start.

    Errors: `Unavailable` when the compiled form is asked for and Numba is not installed.
    """
    modules = _load_sources()
    made: dict[str, Any] = {}
    if mode is Mode.PLAIN:
        made["BITS"] = PLAIN_BITS
        for source, names in _OTHERWISE.items():
            modules.append(_copy(source))
            made |= {name: getattr(modules[-1], name) for name in names}
    make = _compiler(modules, cache) if mode is Mode.COMPILED else lambda function: function
    for module in modules:
        for key, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value.__module__ == module.__name__ and key not in made:
                made[key] = make(value)
            if key in made:
                setattr(module, key, made[key])
    entries = {name: made[f"call_{name}"] for name in Kernels._fields if name != "bits"}
    return Kernels(**entries, bits=PLAIN_BITS if mode is Mode.PLAIN else BITS)


def load_holder() -> Callable[[State], Any]:
    """What makes a holder for machine code of all columns."""
    found: Callable[[State], Any] = import_module(f"{_PACKAGE}.holder").make_holder
    return found


def _load_sources() -> list[ModuleType]:
    """Copies of the kernel modules, in which functions can be replaced without a trace elsewhere."""
    return [_copy(name) for name in _SOURCES]


def _copy(name: str) -> ModuleType:
    spec = importlib.util.find_spec(f"{_PACKAGE}.{name}")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compiler(modules: list[ModuleType], cache: bool) -> Callable[[FunctionType], Any]:
    try:
        numba = import_module("numba")
    except ImportError as error:
        raise Unavailable(
            f"compiled allocation wants the package numba, which is not here ({error}); install corral[speed]"
        ) from None
    digest = _digest(modules)

    def make(function: FunctionType) -> Any:
        # Numba would keep a caller's code when only a file of functions that it calls has changed.
        function.__qualname__ = f"{function.__qualname__}_{digest}"
        if function.__name__.startswith("call_"):
            return numba.njit(cache=cache, error_model="numpy")(function)
        # Kernels allocate nothing, so that arrays need no reference counts, which cost more than all else they do.
        hot = function.__name__ in HOT
        return numba.njit(cache=cache, error_model="numpy", _nrt=False, forceinline=hot)(function)

    return make


def _digest(modules: list[ModuleType]) -> str:
    """A name for exactly this code and the constants it sees."""
    found = blake2b(repr(sorted(HOT)).encode(), digest_size=8)
    for module in modules:
        for key, value in sorted(vars(module).items()):
            if isinstance(value, FunctionType):
                code = value.__code__
                found.update(repr((key, code.co_code, code.co_consts, code.co_names)).encode())
            elif isinstance(value, int | float):
                found.update(repr((key, value)).encode())
    return found.hexdigest()
