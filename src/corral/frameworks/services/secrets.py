"""Configs and secrets that an app names: read, checked, told to the kernel. Their values never come here.

An app's `secrets` give each a name in the app and its `source`, a secret of the vault or with `config:` before it a
config. Variables and volumes refer to that name. Source: Marathon's contract, sections 2 and 3.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from corral.frameworks.services.app_spec import AppSpec, Docker, PodContainer, SecretVolume
from corral.frameworks.services.reader import Reader
from corral.lib.errors import Invalid
from corral.model import container as wire
from corral.model.signals import read_signal

REACTION_LABEL = "CORRAL_SECRETS_CHANGE"
DEFAULT_SIGNAL = "SIGHUP"
_SOURCE = re.compile(r"(config:|secret:)?/?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class Reaction(StrEnum):
    """What becomes of an app when a value that it names is another one: its instances are replaced one by one, or get
    the value in their files and then a signal, or nothing happens."""

    RESTART = "restart"
    SIGNAL = "signal"
    NOTHING = "nothing"


def read_env(reader: Reader, given: dict[str, Any], field: str = "env") -> None:
    """Variables with their strings and their references to secrets."""
    if not reader.has(field):
        return
    value = reader.any(field)
    refs: dict[str, str] = {}
    if isinstance(value, dict):
        if "" in value:
            reader.refuse(field, "names of variables must not be empty")
        for name, text in value.items():
            if isinstance(text, dict):
                if set(text) == {"secret"} and isinstance(text["secret"], str):
                    refs[name] = text["secret"]
                else:
                    reader.refuse(
                        f"{field}/{name}", 'a variable is a string, or {"secret": NAME} of one of the secrets declared'
                    )
        reader.fields[field] = {name: text for name, text in value.items() if not isinstance(text, dict)}
    given["env"] = reader.text_map(field)
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
    for path, name in _references(spec):
        if name not in spec.secrets:
            yield path, f"secret {name!r} is not among the declared secrets; declare it with its source"
    for index, volume in enumerate(_volumes(spec)):
        if ".." in volume.container_path.split("/") or "\0" in volume.container_path:
            yield f"/container/volumes({index})/containerPath", "containerPath must not lead upwards"
    try:
        read_reaction(spec.labels)
    except Invalid as error:
        yield f"/labels/{REACTION_LABEL}", error.message


def _references(spec: AppSpec) -> Iterator[tuple[str, str]]:
    """Where a secret is used, and by which of its names in the app."""
    within = "/environment" if spec.pod is not None else "/env"
    for variable, name in spec.env_secrets.items():
        yield f"{within}/{variable}/secret", name
    for index, volume in enumerate(_volumes(spec)):
        yield f"/container/volumes({index})/secret", volume.secret
    if spec.image is not None and spec.image.pull_config is not None:
        yield "/container/docker/pullConfig/secret", spec.image.pull_config
    if spec.pod is None:
        return
    for volume_name, name in spec.pod.secret_volumes.items():
        yield f"/volumes/{volume_name}/secret", name
    for index, container in enumerate(spec.pod.containers):
        for variable, name in container.env_secrets.items():
            yield f"/containers({index})/environment/{variable}/secret", name
        if container.image is not None and container.image.pull_config is not None:
            yield f"/containers({index})/image/pullConfig/secret", container.image.pull_config


def pull_source(spec: AppSpec, docker: Docker | None) -> str | None:
    """The source of the credentials that an image of the app is pulled with."""
    name = docker.pull_config if docker is not None else None
    return None if name is None else _source(spec, name)


def _volumes(spec: AppSpec) -> tuple[SecretVolume, ...]:
    return spec.container.secret_volumes if spec.container is not None else ()


def make_variables(spec: AppSpec, container: PodContainer | None = None) -> tuple[tuple[str, str], ...]:
    """Variables with the sources of their values, of an app or of one container of a pod."""
    named = spec.env_secrets
    if container is not None:
        # What a container says itself wins, whether it is a text or a secret.
        named = {v: n for v, n in named.items() if v not in container.env} | container.env_secrets
    return tuple((variable, _source(spec, name)) for variable, name in sorted(named.items()))


def make_volumes(spec: AppSpec) -> tuple[wire.Volume, ...]:
    return tuple(_make_volume(spec, v.container_path, v.secret) for v in _volumes(spec))


def make_pod_volume(spec: AppSpec, name: str, path: str) -> wire.Volume:
    """A secret volume of a pod where a container mounts it."""
    assert spec.pod is not None, "this is asked of pods"
    return _make_volume(spec, path, spec.pod.secret_volumes[name])


def _make_volume(spec: AppSpec, path: str, name: str) -> wire.Volume:
    return wire.Volume(container_path=path, mode=wire.VolumeMode.RO, secret=_source(spec, name))


def _source(spec: AppSpec, name: str) -> str:
    """The source in its full form, so that one value has one name."""
    source = spec.secrets[name]
    kind, colon, rest = source.partition(":")
    return f"{kind}:{rest.strip('/')}" if colon else f"secret:{source.strip('/')}"


def read_reaction(labels: Mapping[str, str]) -> tuple[Reaction, str]:
    """What the label says, and the name of the signal. Errors: `Invalid` with what it may say."""
    kind, _, rest = labels.get(REACTION_LABEL, "").partition(":")
    if kind not in ("", *Reaction) or (rest and kind != Reaction.SIGNAL):
        raise Invalid(f"{labels[REACTION_LABEL]!r} is none of {', '.join(Reaction)} and signal:NAME")
    if kind == Reaction.SIGNAL:
        read_signal(rest or DEFAULT_SIGNAL)
    return Reaction(kind or Reaction.NOTHING), rest or DEFAULT_SIGNAL


def users_of(spec: AppSpec, source: str) -> frozenset[str]:
    """The containers of a pod that name this value."""
    assert spec.pod is not None, "this is asked of pods"
    return frozenset(
        container.name
        for container in spec.pod.containers
        if source in (named for _, named in make_variables(spec, container))
        or any(
            _source(spec, spec.pod.secret_volumes[name]) == source
            for name, _, _ in container.mounts
            if name in spec.pod.secret_volumes
        )
    )


def reaction_to(spec: AppSpec, source: str) -> tuple[Reaction, str]:
    """What becomes of the app when this value is another one, and the name of the signal."""
    reaction = read_reaction(spec.labels)
    used = {name for _, name in _references(spec)}
    uses = any(_source(spec, name) == source for name in used if name in spec.secrets)
    return reaction if uses else (Reaction.NOTHING, "")
