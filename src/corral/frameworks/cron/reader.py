"""Reads the fields of a Chronos object as leniently as Chronos does, and refuses what cannot be meant.

Numbers and booleans may be texts, null is as good as absent. Source: Chronos' contract, section 1.
"""

import math
from collections.abc import Sequence

from corral.lib.errors import Invalid
from corral.lib.units import parse_timestamp
from corral.sdk.reading import Json, kind_of

MOST_WHOLE = 2**31 - 1


class Reader:
    """One object; every field that nobody asked for is remembered as unknown. Errors: `Invalid` names the field."""

    __slots__ = ("_asked", "fields", "path", "unknown")

    def __init__(self, value: Json, path: str = "", unknown: list[str] | None = None) -> None:
        if not isinstance(value, dict):
            raise Invalid(f"{path or 'the body'} must be a JSON object, got {kind_of(value)}")
        self.fields: dict[str, Json] = {k: v for k, v in value.items() if v is not None}
        self.path = path
        self.unknown = [] if unknown is None else unknown
        self._asked: set[str] = set()

    def at(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field

    def has(self, field: str) -> bool:
        self._asked.add(field)
        return field in self.fields

    def any(self, field: str) -> Json:
        self._asked.add(field)
        return self.fields.get(field)

    def wrong(self, field: str, wanted: str) -> Invalid:
        return Invalid(f"{self.at(field)} must be {wanted}, got {kind_of(self.fields.get(field))}")

    def text(self, field: str, default: str = "") -> str:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.wrong(field, "a string")
        return value if isinstance(value, str) else str(value)

    def number(self, field: str, default: float = 0.0) -> float:
        value = self.any(field)
        if value is None or value == "":
            return default
        try:
            found = float(value) if not isinstance(value, bool) and isinstance(value, (str, int, float)) else math.nan
        except (ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise self.wrong(field, "a number")
        if found < 0 or found > MOST_WHOLE:
            raise Invalid(f"{self.at(field)} is {found:g}; it must be from 0 to {MOST_WHOLE}")
        return found

    def whole(self, field: str, default: int = 0) -> int:
        found = self.number(field, float(default))
        if not found.is_integer():
            raise self.wrong(field, "a whole number")
        return int(found)

    def code(self, field: str) -> int:
        """The exit code of a process, which may be negative and must be given."""
        value = self.any(field)
        try:
            number = value if isinstance(value, (int, float)) else int(value)
            if not isinstance(value, bool) and abs(number) <= MOST_WHOLE and number == int(number):
                return int(number)
        except (TypeError, ValueError):
            pass
        raise self.wrong(field, f"a whole number from {-MOST_WHOLE} to {MOST_WHOLE}")

    def instant(self, field: str) -> float | None:
        """Units: seconds UTC. Shapes: None when it is absent or empty."""
        text = self.text(field)
        try:
            return parse_timestamp(text) if text else None
        except Invalid as error:
            raise Invalid(f"{self.at(field)}: {error.message}") from None

    def flag(self, field: str, default: bool = False) -> bool:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        raise self.wrong(field, "true or false")

    def choice(self, field: str, default: str, choices: Sequence[str]) -> str:
        """One of some words, in any letter case."""
        value = self.text(field, default)
        found = {c.lower(): c for c in choices}.get(value.lower())
        if found is None:
            raise Invalid(f"{self.at(field)} is {value!r}; it must be one of {', '.join(choices)}")
        return found

    def items(self, field: str) -> Sequence[Json]:
        value = self.any(field)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.wrong(field, "a list")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        found = []
        for value in self.items(field):
            text = _written(value)
            if text is None:
                raise Invalid(f"{self.at(field)} must be a list of strings, one is {kind_of(value)}")
            found.append(text)
        return tuple(found)

    def object(self, field: str) -> "Reader | None":
        value = self.any(field)
        return None if value is None else Reader(value, self.at(field), self.unknown)

    def objects(self, field: str) -> "list[Reader]":
        return [Reader(v, f"{self.at(field)}[{i}]", self.unknown) for i, v in enumerate(self.items(field))]

    def pairs(self, field: str, key: str = "key") -> tuple[tuple[str, str], ...]:
        """A list of objects that are a name and a value each."""
        found = []
        for item in self.objects(field):
            name = item.text(key)
            if not name:
                raise Invalid(f"{item.at(key)} must be given")
            value = _written(item.any("value"))
            found.append((name, item.text("value") if value is None else value))
            item.done()
        return tuple(found)

    def done(self) -> None:
        """Report what nobody asked for."""
        self.unknown.extend(self.at(f) for f in self.fields if f not in self._asked)


def _written(value: Json) -> str | None:
    """A number or a boolean as Chronos takes it where a text belongs; None for what is no single value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else None
