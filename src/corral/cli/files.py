"""Reads what people hand in as files. Shapes: `-` is standard input."""

import json
import sys
from pathlib import Path
from typing import Any

from corral.lib.errors import Invalid


def read_text(file: str) -> str:
    """Errors: `Invalid` for what is no text in UTF-8, or cannot be read."""
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode()
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is no text in UTF-8: byte {error.start} is {raw[error.start]:#04x}") from None


def read_json(file: str) -> Any:
    """Errors: `Invalid` for what is no JSON."""
    try:
        return json.loads(read_text(file))
    except ValueError as error:
        raise Invalid(f"{file} is not JSON: {error}") from None
