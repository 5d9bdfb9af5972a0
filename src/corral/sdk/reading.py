"""Bodies of requests as JSON, and what to call a value that is not what was wanted."""

from typing import Any

import msgspec

from corral.lib.errors import Invalid

Json = Any


def read_json(body: bytes) -> Json:
    """Errors: `Invalid` when the body is no JSON, with the place of the fault."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"the body is not JSON: {error}") from None


def kind_of(value: Json) -> str:
    if isinstance(value, str):
        return f"the string {value[:60]!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return f"the number {str(value)[:60]}"
    return "a list" if isinstance(value, list) else "an object"
