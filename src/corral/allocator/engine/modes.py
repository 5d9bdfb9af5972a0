"""The kernels in three forms of one source: plain Python, the same over arrays, and compiled by Numba.

Each form is a copy of the kernel modules of its own. Nothing imports Numba unless the compiled form is asked for; its
first tick takes the time of compiling, so warm an engine before it is needed.
"""

import importlib.util
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from importlib import import_module
from types import FunctionType
from typing import Any, NamedTuple

from corral.allocator.engine import scan
from corral.allocator.engine.columns import BITS, Ints, State
from corral.lib.errors import Unavailable


class Mode(StrEnum):
    """PLAIN runs without compilation; ARRAYS is what COMPILED compiles, run as Python, for tests."""

    PLAIN = "plain"
    ARRAYS = "arrays"
    COMPILED = "compiled"


class Kernels(NamedTuple):
    """What an engine calls."""

    submit: Callable[[State, Ints, Ints, Ints, Ints], None]
    withdraw: Callable[[State, int, int, int, int], int]
    release: Callable[[State, Ints], None]
    serve: Callable[[State, int, Ints], int]
    open_node: Callable[[State, int, int], None]
    settle_role: Callable[[State, int], None]
    refresh: Callable[[State], None]
    hand_down: Callable[[State, int, int], None]
    cell_of: Callable[[State, int, int], int]
    bits: int


PLAIN_BITS = 1 << 20
"""Bits of a word where whole numbers have no end: one word for all classes."""

_PACKAGE = "corral.allocator.engine"
_SOURCES = ("heaps", "fair", "cells", "turn")


@lru_cache(maxsize=8)
def load_kernels(mode: Mode, *, cache: bool = False) -> Kernels:
    """The kernels in one form. `cache` lets Numba keep the machine code beside the source for the next start.

    Errors: `Unavailable` when the compiled form is asked for and Numba is not installed.
    """
    if mode is Mode.COMPILED:
        make = _compiler(cache)
        return _build(make, {})
    plain = {"find_exact": scan.find_exact, "BITS": PLAIN_BITS} if mode is Mode.PLAIN else {}
    return _build(lambda function: function, plain)


def _compiler(cache: bool) -> Callable[[FunctionType], Any]:
    try:
        numba = import_module("numba")
    except ImportError as error:
        raise Unavailable(
            f"compiled allocation wants the package numba, which is not here ({error}); install corral[speed]"
        ) from None
    # Kernels allocate nothing, so that arrays need no reference counts, which cost more than all else they do.
    return lambda function: numba.njit(cache=cache, error_model="numpy", _nrt=False)(function)


def _build(make: Callable[[FunctionType], Any], instead: dict[str, Any]) -> Kernels:
    """Load a copy of each source; every function in it is made anew and sees only its own kind."""
    made: dict[str, Any] = {}
    for name in _SOURCES:
        spec = importlib.util.find_spec(f"{_PACKAGE}.{name}")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for key, value in list(vars(module).items()):
            if isinstance(value, FunctionType):
                if value.__module__ == spec.name:
                    made[key] = instead.get(key) or make(value)
                setattr(module, key, made[key])
            elif key in instead:
                setattr(module, key, instead[key])
    entries = {name: made[name] for name in Kernels._fields if name != "bits"}
    return Kernels(**entries, bits=instead.get("BITS", BITS))
