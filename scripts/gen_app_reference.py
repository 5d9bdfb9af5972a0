"""Writes docs/frameworks/app-reference.md from the types of an app and from how Marathon's JSON is read into them.

.venv/bin/python scripts/gen_app_reference.py           # write the page
.venv/bin/python scripts/gen_app_reference.py --check   # end with 1 if it is not up to date
"""

import argparse
import sys
import types
from enum import StrEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from corral.frameworks.services import app_spec as spec
from corral.frameworks.services.marathon import FIELDS

PLACE = Path(__file__).parent.parent / "docs/frameworks/app-reference.md"
NOTICE = "Written by `scripts/gen_app_reference.py` from the types; change the code, then run it.\n"

Names = dict[str, str]

NOT_SHOWN = {"AppSpec": {"pod"}, "PortMapping": set[str](), "Container": set[str]()}
"""Fields of types that no field of an app's JSON stands for."""

PARTS: tuple[tuple[type[msgspec.Struct], str, Names], ...] = (
    (
        spec.Container, "container",
        {"kind": "type", "secret_volumes": "volumes[].secret", "persistent_volumes": "volumes[].persistent",
         "external_volumes": "volumes[].external", "linux": "linuxInfo"},
    ),
    (
        spec.LinuxInfo, "container.linuxInfo",
        {"unconfined": "seccomp.unconfined", "profile": "seccomp.profileName", "ipc": "ipcInfo.mode",
         "shm_mb": "ipcInfo.shmSize"},
    ),
    (spec.Docker, "container.docker", {"force_pull_image": "forcePullImage"}),
    (spec.HostVolume, "container.volumes[]", {}),
    (
        spec.PersistentVolume, "container.volumes[].persistent",
        {"size_mb": "size", "kind": "type", "most_mb": "maxSize"},
    ),
    (spec.ExternalVolume, "container.volumes[].external", {"size_gb": "size"}),
    (spec.PortMapping, "container.portMappings[]", {}),
    (spec.NetworkSpec, "networks[]", {}),
    (spec.PortDefinition, "portDefinitions[]", {}),
    (spec.Fetch, "fetch[]", {}),
    (
        spec.HealthCheck, "healthChecks[]",
        {"grace_s": "gracePeriodSeconds", "interval_s": "intervalSeconds", "timeout_s": "timeoutSeconds",
         "most_failures": "maxConsecutiveFailures", "ignore_1xx": "ignoreHttp1xx", "delay_s": "delaySeconds"},
    ),
    (
        spec.ReadinessCheck, "readinessChecks[]",
        {"interval_s": "intervalSeconds", "timeout_s": "timeoutSeconds", "statuses": "httpStatusCodesForReady",
         "keeps_last": "preserveLastResponse"},
    ),
    (
        spec.PlainCheck, "check",
        {"command": "exec.command.shell", "path": "http.path", "scheme": "http.scheme", "port": "http.port, tcp.port",
         "port_index": "http.portIndex, tcp.portIndex", "interval_s": "intervalSeconds",
         "timeout_s": "timeoutSeconds", "delay_s": "delaySeconds"},
    ),
    (spec.Upgrade, "upgradeStrategy", {}),
    (
        spec.Residency, "residency",
        {"relaunch_after_s": "relaunchEscalationTimeoutSeconds", "task_lost": "taskLostBehavior"},
    ),
    (
        spec.Unreachable, "unreachableStrategy",
        {"inactive_after_s": "inactiveAfterSeconds", "expunge_after_s": "expungeAfterSeconds"},
    ),
)  # fmt: skip


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def json_names(kind: type[msgspec.Struct], given: Names) -> Names:
    """Field of the type to field of the JSON. Errors: `LookupError` for a field of an app that no JSON sets."""
    if kind is not spec.AppSpec:
        return {field: given.get(field, camel(field)) for field in kind.__struct_fields__}
    unread = [f for f in kind.__struct_fields__ if f not in FIELDS and f not in NOT_SHOWN["AppSpec"]]
    if unread:
        raise LookupError(f"no field of the JSON is known for {', '.join(unread)}; add them to marathon.FIELDS")
    return {field: FIELDS[field] for field in kind.__struct_fields__ if field in FIELDS}


def describe(kind: Any) -> str:
    """A type as somebody who writes JSON sees it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(a) for a in arguments if a is not type(None)))
    if origin is tuple:
        if arguments and arguments[-1] is Ellipsis:
            return f"list of {describe(arguments[0])}"
        return f"[{', '.join(describe(a) for a in arguments)}]"
    if origin is dict:
        return f"object of {describe(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{member}`" for member in kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return next((f"[{title}](#{anchor(title)})" for part, title, _ in PARTS if part is kind), "object")
    return {str: "string", int: "whole number", float: "number", bool: "true or false"}.get(kind, "value")


def anchor(title: str) -> str:
    return "".join(c for c in title.lower() if c.isalnum() or c in "-_")


def default_of(kind: type[msgspec.Struct], field: str) -> str:
    info = next(f for f in msgspec.structs.fields(kind) if f.name == field)
    if info.required:
        return "required"
    value = info.default if info.default is not msgspec.NODEFAULT else info.default_factory()
    if value is None or (isinstance(value, tuple | dict | str) and not value):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, msgspec.Struct):
        return "see there"
    return ", ".join("see there" if isinstance(v, msgspec.Struct) else f"`{v}`" for v in value)


def table(kind: type[msgspec.Struct], given: Names) -> list[str]:
    hints = get_type_hints(kind)
    lines = ["| field | type | default |", "|---|---|---|"]
    for field, name in json_names(kind, given).items():
        lines.append(f"| `{name}` | {describe(hints[field])} | {default_of(kind, field)} |")
    return lines


def page() -> str:
    lines = ["# App reference", "", NOTICE]
    lines += [
        "Every field of an app, as `POST /v2/apps` takes it. What of it differs from Marathon, and what is refused, is",
        "in [the page on services](services.md#app); older forms of a field are read too and shown in the form here.",
        "",
    ]
    lines += ["## An app", "", *table(spec.AppSpec, {}), ""]
    for kind, title, given in PARTS:
        lines += [f"## {title}", "", *table(kind, given), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        current = PLACE.exists() and PLACE.read_text(encoding="utf-8") == page()
        if not current:
            print(f"{PLACE.name} is not up to date; run scripts/gen_app_reference.py", file=sys.stderr)
        return 0 if current else 1
    PLACE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
