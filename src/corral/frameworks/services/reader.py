"""Reads JSON objects field by field, so that every fault is told with its place and no field is overlooked.

Source: Marathon's contract, sections 1 and 17.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from corral.lib.errors import Invalid, Unprocessable

Json = Any
NOT_VALID = "Object is not valid"
INVALID_JSON = "Invalid JSON"


class Reader:
    """Reads one object, remembering every error with its path and every field nobody asked for."""

    __slots__ = ("_asked", "errors", "fields", "path", "refused", "unknown")

    def __init__(
        self,
        value: Json,
        path: str = "",
        errors: dict[str, list[str]] | None = None,
        unknown: list[str] | None = None,
        refused: dict[str, list[str]] | None = None,
    ) -> None:
        self.errors = {} if errors is None else errors
        self.refused = {} if refused is None else refused
        self.unknown = [] if unknown is None else unknown
        self.path = path
        self._asked: set[str] = set()
        self.fields: dict[str, Json] = {}
        if isinstance(value, dict):
            self.fields = {k: v for k, v in value.items() if v is not None}
        else:
            self.wrong("", "an object", value)

    def wrong(self, field: str, wanted: str, found: Json) -> None:
        """The type is wrong."""
        self.errors.setdefault(self._at(field), []).append(f"must be {wanted}, got {kind_of(found)}")

    def refuse(self, field: str, text: str) -> None:
        """The type is right and the value is not."""
        self.refused.setdefault(self._at(field), []).append(text)

    def _at(self, field: str) -> str:
        return f"{self.path}/{field}" if field else self.path or "/"

    def has(self, field: str) -> bool:
        self._asked.add(field)
        return field in self.fields

    def any(self, field: str) -> Json:
        self._asked.add(field)
        return self.fields.get(field)

    def text(self, field: str, default: str) -> str:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, str):
            return value
        self.wrong(field, "a string", value)
        return default

    def text_or_none(self, field: str) -> str | None:
        return self.text(field, "") if self.has(field) else None

    def choice(self, field: str, default: str, choices: Sequence[str]) -> str:
        value = self.text(field, default)
        if value not in choices:
            self.wrong(field, f"one of {', '.join(choices)}", value)
            return default
        return value

    def whole(self, field: str, default: int) -> int:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(field, "a whole number", value)
            return default
        if not -(2**31) <= value < 2**31:
            self.wrong(field, "a number of 32 bits", value)
            return default
        return value

    def number(self, field: str, default: float) -> float:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong(field, "a number", value)
            return default
        return float(value)

    def flag(self, field: str, default: bool) -> bool:
        value = self.any(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(field, "true or false", value)
            return default
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        found = []
        for index, value in enumerate(self.list(field)):
            if isinstance(value, str):
                found.append(value)
            else:
                self.wrong(f"{field}({index})", "a string", value)
        return tuple(found)

    def text_map(self, field: str) -> dict[str, str]:
        value = self.any(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(field, "an object of strings", value)
            return {}
        found = {}
        for key, text in value.items():
            if text is None:
                continue
            if isinstance(text, str):
                found[key] = text
            else:
                self.wrong(f"{field}/{key}", "a string", text)
        return found

    def list(self, field: str) -> Sequence[Json]:
        value = self.any(field)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong(field, "a list", value)
            return ()
        return value

    def object(self, field: str) -> "Reader | None":
        value = self.any(field)
        return None if value is None else self._below(field, value)

    def objects(self, field: str) -> "Iterable[Reader]":
        return [self._below(f"{field}({index})", value) for index, value in enumerate(self.list(field))]

    def _below(self, field: str, value: Json) -> "Reader":
        return Reader(value, self._at(field), self.errors, self.unknown, self.refused)

    def done(self) -> None:
        """Report what nobody asked for."""
        self.unknown.extend(self._at(f) for f in self.fields if f not in self._asked)

    def finish(self) -> None:
        """Errors: `Unprocessable`, for wrong types first, as nothing else can be said then."""
        if self.errors:
            raise Unprocessable(INVALID_JSON, self.errors)
        if self.refused:
            raise Unprocessable(NOT_VALID, self.refused)


def kind_of(value: Json) -> str:
    if isinstance(value, str):
        return f"the string {value[:60]!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return f"the number {value:g}" if isinstance(value, (int, float)) else f"a {_JSON_NAMES.get(type(value), 'value')}"


_JSON_NAMES: dict[type, str] = {dict: "object", list: "list"}


def read_json(body: bytes) -> Json:
    """Errors: `Invalid` when the body is no JSON, with the place of the fault."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"Invalid JSON: {error}") from None
