"""Hands the columns to machine code at the price of one pointer: all of them at once, taken over when they change.

Numba takes an argument apart whenever a function is called, and there are more than a hundred columns. So they are put
into a structure of Numba's own, and a call hands over that. Only the compiled form imports this module.
"""

from typing import Any

import numba
from numba.core import types
from numba.experimental import structref


@structref.register
class _Columns(types.StructRef):
    """Shapes: one member, the `State` of columns."""


class _Proxy(structref.StructRefProxy):
    """What Python sees of a holder."""


structref.define_proxy(_Proxy, _Columns, ["state"])  # type: ignore[no-untyped-call]


@numba.njit(cache=True)
def make_holder(state: Any) -> Any:
    """A holder of these columns; make a new one when a column has moved."""
    return _Proxy(state)  # type: ignore[no-untyped-call]
