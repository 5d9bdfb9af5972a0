"""Configuration: one frozen dataclass per daemon, read once from file, environment and flags, in this order.

Each later source wins over the earlier. Everything is checked before anything starts: an unknown key or a value of the
wrong kind is an error that names the key, the source and the nearest key that exists.

A daemon's dataclass has one field per section, each section a dataclass of plain values: `kernel.agent_timeout_s` is
the field `agent_timeout_s` of the section `kernel`, `CORRAL_KERNEL_AGENT_TIMEOUT_S` in the environment, and
`--set kernel.agent_timeout_s=5` on the command line.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from corral.lib.errors import Invalid

T = TypeVar("T")

ENVIRONMENT_PREFIX = "CORRAL_"


def load_config(
    kind: type[T], *, file: str | None, environment: Mapping[str, str], sets: Sequence[str]
) -> tuple[T, dict[str, str]]:
    """The whole configuration, and for each key where its value comes from.

    Shapes: `sets` are `section.key=value` texts. The origins map `section.key` to `default`, a file's path, an
    environment variable or `--set`.
    Errors: `Invalid` names the key, what was found and what was wanted.
    """
    known = _keys(kind)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")
    for key, value, origin in (*_from_file(file), *_from_environment(environment, known), *_from_sets(sets)):
        if key not in known:
            raise Invalid(f"{origin} sets {key}, which is no key{_hint(key, known)}")
        values[key] = _convert(value, known[key], key, origin)
        origins[key] = origin
    return _build(kind, values), origins


def _keys(kind: type) -> dict[str, Any]:
    """Each `section.key` with the type of its value."""
    found: dict[str, Any] = {}
    for section, section_kind in typing.get_type_hints(kind).items():
        for name, value_kind in typing.get_type_hints(section_kind).items():
            found[f"{section}.{name}"] = value_kind
    return found


def _from_file(file: str | None) -> list[tuple[str, Any, str]]:
    if file is None:
        return []
    try:
        tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"config file {file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"config file {file} is not TOML: {error}") from None
    found = []
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise Invalid(f"config file {file} sets {section} outside of a section; write it below [section]")
        found += [(f"{section}.{name}", value, file) for name, value in table.items()]
    return found


def _from_environment(environment: Mapping[str, str], known: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    names = {ENVIRONMENT_PREFIX + key.replace(".", "_").upper(): key for key in known}
    return [(key, environment[name], name) for name, key in names.items() if name in environment]


def _from_sets(sets: Sequence[str]) -> list[tuple[str, Any, str]]:
    found = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise Invalid(f"--set {text!r} is not of the form section.key=value")
        found.append((key.strip(), value.strip(), "--set"))
    return found


def _hint(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}" if near else f"; the sections are {', '.join(sorted(_sections(known)))}"


def _sections(known: Mapping[str, Any]) -> set[str]:
    return {key.partition(".")[0] for key in known}


def _convert(value: Any, kind: Any, key: str, origin: str) -> Any:
    """A text or TOML value as `kind`: str, int, float, bool, a tuple of str, or one of these or None."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(None) in options and value in ("", None):
        return None
    plain = next(option for option in options if option is not type(None))
    try:
        return _convert_plain(value, plain)
    except ValueError:
        pass
    wanted = "a list of texts" if typing.get_origin(plain) is tuple else f"{plain.__name__}"
    raise Invalid(f"{origin} sets {key} to {value!r}, which is not {wanted}")


def _convert_plain(value: Any, plain: Any) -> Any:
    if plain is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "yes", "1", "false", "no", "0"):
            return str(value).lower() in ("true", "yes", "1")
        raise ValueError
    if plain in (int, float):
        if isinstance(value, bool):
            raise ValueError
        return plain(value)
    if typing.get_origin(plain) is tuple:
        parts = value if isinstance(value, list) else [p.strip() for p in str(value).split(",") if p.strip()]
        return tuple(str(p) for p in parts)
    if not isinstance(value, str):
        raise ValueError
    return value


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    sections = {}
    for section, section_kind in typing.get_type_hints(kind).items():
        mine = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(section + ".")}
        sections[section] = section_kind(**mine)
    return kind(**sections)


def describe_config(config: Any, origins: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Rows of key, value and origin, for `--show-config` and the start of a daemon's log."""
    rows = []
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        for item in dataclasses.fields(part):
            key = f"{section.name}.{item.name}"
            value = getattr(part, item.name)
            rows.append((key, "***" if item.metadata.get("secret") else str(value), origins.get(key, "default")))
    return rows
