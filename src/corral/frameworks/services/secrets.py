"""Configs and secrets that an app names: read, checked, told to the kernel. Their values never come here.

An app's `secrets` give each a name in the app and its `source`, a secret of the vault or with `config:` before it a
config. Variables and volumes refer to that name. Source: Marathon's contract, sections 2 and 3.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from corral.frameworks.services.reader import Reader
from corral.frameworks.services.spec import AppSpec, SecretVolume
from corral.model import container as wire

REACTION_LABEL = "CORRAL_SECRETS_CHANGE"
_SOURCE = re.compile(r"(config:|secret:)?/?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class Reaction(StrEnum):
    """What becomes of an app when a value that it names is another one: replaced instance by instance, or nothing."""

    RESTART = "restart"
    NOTHING = "nothing"


def read_env(reader: Reader, given: dict[str, Any]) -> None:
    """`env` with its strings and its references to secrets."""
    if not reader.has("env"):
        return
    value = reader.any("env")
    refs: dict[str, str] = {}
    if isinstance(value, dict):
        if "" in value:
            reader.refuse("env", "names of variables must not be empty")
        for name, text in value.items():
            if isinstance(text, dict):
                if set(text) == {"secret"} and isinstance(text["secret"], str):
                    refs[name] = text["secret"]
                else:
                    reader.refuse(
                        f"env/{name}", 'a variable is a string, or {"secret": NAME} of one of the app\'s secrets'
                    )
        reader.fields["env"] = {name: text for name, text in value.items() if not isinstance(text, dict)}
    given["env"] = reader.text_map("env")
    given["env_secrets"] = refs


def read_secrets(reader: Reader, given: dict[str, Any]) -> None:
    if not reader.has("secrets"):
        return
    value = reader.any("secrets")
    found: dict[str, str] = {}
    if value is not None and not isinstance(value, dict):
        reader.wrong("secrets", "an object of objects", value)
    for name, inner in (value if isinstance(value, dict) else {}).items():
        source = inner.get("source") if isinstance(inner, dict) else None
        if not isinstance(source, str) or set(inner) != {"source"}:
            reader.refuse(f"secrets/{name}", 'a secret is of the form {"source": NAME}')
        else:
            found[name] = source
    given["secrets"] = found


def find_secret_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    for name, source in spec.secrets.items():
        if not name:
            yield "/secrets", "names of secrets must not be empty"
        if not _SOURCE.fullmatch(source) or len(source) > 200:
            yield (
                f"/secrets/{name}/source",
                f"source {source!r} is not a name such as db/password, or config:NAME for a config",
            )
    for variable, name in spec.env_secrets.items():
        if name not in spec.secrets:
            yield (
                f"/env/{variable}/secret",
                f"secret {name!r} is not among the app's secrets; declare it with its source",
            )
    for index, volume in enumerate(_volumes(spec)):
        path = f"/container/volumes({index})"
        if volume.secret not in spec.secrets:
            yield (
                f"{path}/secret",
                f"secret {volume.secret!r} is not among the app's secrets; declare it with its source",
            )
        if ".." in volume.container_path.split("/") or "\0" in volume.container_path:
            yield f"{path}/containerPath", "containerPath must not lead upwards"
    text = spec.labels.get(REACTION_LABEL, "")
    if text and text not in list(Reaction):
        yield f"/labels/{REACTION_LABEL}", f"{text!r} is neither {' nor '.join(Reaction)}"


def _volumes(spec: AppSpec) -> tuple[SecretVolume, ...]:
    return spec.container.secret_volumes if spec.container is not None else ()


def make_variables(spec: AppSpec) -> tuple[tuple[str, str], ...]:
    """Variables with the sources of their values."""
    return tuple((variable, _source(spec, name)) for variable, name in sorted(spec.env_secrets.items()))


def make_volumes(spec: AppSpec) -> tuple[wire.Volume, ...]:
    return tuple(
        wire.Volume(container_path=v.container_path, mode=wire.VolumeMode.RO, secret=_source(spec, v.secret))
        for v in _volumes(spec)
    )


def _source(spec: AppSpec, name: str) -> str:
    """The source in its full form, so that one value has one name."""
    source = spec.secrets[name]
    kind, colon, rest = source.partition(":")
    return f"{kind}:{rest.strip('/')}" if colon else f"secret:{source.strip('/')}"


def wants_restart(spec: AppSpec, source: str) -> bool:
    """Whether the app shall be replaced when this value is another one."""
    if spec.labels.get(REACTION_LABEL, "") != Reaction.RESTART:
        return False
    used = {*spec.env_secrets.values(), *(v.secret for v in _volumes(spec))}
    return any(_source(spec, name) == source for name in used if name in spec.secrets)
