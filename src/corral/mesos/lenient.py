"""Decides what a JSON value means for a typed field, by the mapping that Mesos clients rely on.

Well-formed bodies take the direct way: one typed decode. What that refuses is brought into shape and tried again:
`null` counts as absent, a lone value for a repeated field as a list of one, a fraction for an integer is cut off.
Numeric strings, `"true"` and unknown keys pass in both. Source: Mesos v1, JSON to protobuf mapping ("stout").
"""

from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from corral.lib.errors import Invalid

W = TypeVar("W", bound=msgspec.Struct)


class LenientDecoder(Generic[W]):
    """Reads bodies of one wire struct; `name` is what its error messages call it, such as `scheduler::Call`."""

    __slots__ = ("_decoder", "_kind", "_name")

    def __init__(self, kind: type[W], name: str) -> None:
        self._kind = kind
        self._name = name
        self._decoder = msgspec.json.Decoder(kind, strict=False)

    def decode(self, body: bytes) -> W:
        """Errors: `Invalid` names the field by its path, with what was wanted and what was found."""
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return self._decode_slowly(body)

    def _decode_slowly(self, body: bytes) -> W:
        try:
            tree = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Invalid(f"Failed to parse body into JSON: {error}; send one JSON object in UTF-8") from None
        if not isinstance(tree, dict):
            found = "null" if tree is None else type(tree).__name__
            raise Invalid(f"Failed to parse body into JSON: expected an object and found {found}")
        try:
            return self._decoder.decode(msgspec.json.encode(_shape(tree, inspect.type_info(self._kind))))
        except (msgspec.DecodeError, RecursionError) as error:
            raise Invalid(f"Failed to convert JSON into {self._name}: {_explain(str(error))}") from None


def _explain(message: str) -> str:
    """Turn `Expected `str`, got `int` - at `$.task_id.value`` round, so that the field comes first."""
    what, at, path = message.rpartition(" - at ")
    field = path.strip("`").removeprefix("$").removeprefix(".")
    return f"field '{field}': {what}" if at and field else message.removesuffix(" - at `$`")


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {f.encode_name: _bare(f.type) for f in info.fields}


def _bare(kind: inspect.Type) -> inspect.Type:
    """The one type besides None of an optional field; a real union stays as it is."""
    if isinstance(kind, inspect.UnionType):
        others = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        return others[0] if len(others) == 1 else kind
    return kind


def _shape(value: Any, kind: inspect.Type) -> Any:
    """The value as the typed decoder wants it, where the mapping allows; otherwise as found, for its error message."""
    match kind:
        case inspect.StructType() if isinstance(value, dict):
            known = _fields(kind.cls)
            return {key: _shape(v, known[key]) for key, v in value.items() if v is not None and key in known}
        case inspect.DictType() if isinstance(value, dict):
            return {key: _shape(v, _bare(kind.value_type)) for key, v in value.items() if v is not None}
        case inspect.VarTupleType():
            many = value if isinstance(value, list) else [value]
            return [_shape(v, _bare(kind.item_type)) for v in many if v is not None]
        case inspect.IntType() if isinstance(value, float):
            return int(value)
        case inspect.IntType() if isinstance(value, str):
            return _whole(value)
        case _:
            return value


def _whole(text: str) -> int | str:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return text
