"""A template's text and what is known to the text that it becomes; no I/O.

In a template there are `apps`, all apps by id, each with `id`, `labels`, `ports`, `instances` and `ready`; `app(ID)`
for one of them and `ready(ID)` for its ready instances. With keys of etcd there are confd's functions too: `getv`,
`gets`, `getvs`, `get`, `exists`, `ls`, `lsdir`. An unknown name is an error and not an empty text.
Source: Jinja2; confd, "Template functions".
"""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jinja2
import msgspec

from corral.discovery.registry import App, Instance, Registry
from corral.lib.errors import Invalid


class Pair(msgspec.Struct, frozen=True, rename="pascal"):
    """A key of etcd as confd's templates have it."""

    key: str
    value: str

    @property
    def Key(self) -> str:
        return self.key

    @property
    def Value(self) -> str:
        return self.value


def read_template(source: str, name: str) -> jinja2.Template:
    """Errors: `Invalid` with the line where the template makes no sense."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - what is made is a configuration, not a page
    )  # fmt: skip
    environment.filters["basename"] = _basename
    environment.filters["from_json"] = json.loads
    environment.filters["tojson"] = _write_json
    try:
        template = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise Invalid(f"template {name}, line {error.lineno}: {error.message}") from None
    template.name = name
    return template


def render(
    template: jinja2.Template, apps: Registry, keys: Mapping[str, str] | None, environ: Mapping[str, str]
) -> str:
    """The text. Shapes: `keys` None when no etcd is asked.

    Errors: `Invalid` with the line at which something is not there or does not go.
    """
    values: dict[str, Any] = {"apps": [apps[key] for key in sorted(apps)], "env": environ}
    values |= _registry_functions(apps)
    if keys is not None:
        values |= key_functions(keys)
    try:
        return template.render(values)
    except jinja2.TemplateError as error:
        raise Invalid(f"template {template.name}{_line(error)}: {error.message}") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, LookupError) as error:
        raise Invalid(f"template {template.name}{_line(error)}: {type(error).__name__}: {error}") from None


def _write_json(value: Any, indent: int | None = None) -> str:
    """The filter `tojson` for what templates get; Jinja's own knows plain values alone, and escapes them for pages."""
    text = msgspec.json.encode(value).decode()
    return text if indent is None else msgspec.json.format(text, indent=indent)


def _line(error: BaseException) -> str:
    """Where in the template it went wrong."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _registry_functions(apps: Registry) -> dict[str, Any]:
    def app(app_id: str) -> App:
        found = apps.get("/" + app_id.strip("/"))
        if found is None:
            raise Invalid(f"there is no app {app_id}")
        return found

    def ready(app_id: str) -> tuple[Instance, ...]:
        found = apps.get("/" + app_id.strip("/"))
        return found.ready if found is not None else ()

    return {"app": app, "ready": ready}


def key_functions(keys: Mapping[str, str]) -> dict[str, Any]:
    """Confd's functions over these keys. Shapes: keys begin with a slash; `*` in a pattern is within one segment."""

    def matching(pattern: str) -> list[str]:
        wanted = pattern.strip("/").split("/")
        return sorted(k for k in keys if _matches(k.strip("/").split("/"), wanted))

    def getv(key: str, default: str | None = None) -> str:
        found = keys.get("/" + key.strip("/"), default)
        if found is None:
            raise Invalid(f"there is no key {key}; give a default as the second argument where that may be")
        return found

    def below(path: str) -> list[list[str]]:
        prefix = "/" + path.strip("/") + "/" if path.strip("/") else "/"
        return [k[len(prefix) :].split("/") for k in keys if k.startswith(prefix)]

    return {
        "getv": getv,
        "get": lambda key: Pair("/" + key.strip("/"), getv(key)),
        "gets": lambda pattern: [Pair(k, keys[k]) for k in matching(pattern)],
        "getvs": lambda pattern: [keys[k] for k in matching(pattern)],
        "exists": lambda key: "/" + key.strip("/") in keys,
        "ls": lambda path: sorted({parts[0] for parts in below(path)}),
        "lsdir": lambda path: sorted({parts[0] for parts in below(path) if len(parts) > 1}),
    }


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _basename(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
