"""The containers of a pod in and out, and what they have in common with the pod itself.

Source: Marathon's contract, section 6.
"""

import re
from typing import Any

from corral.frameworks.services.app_spec import Docker, PodCheck, PodContainer
from corral.frameworks.services.marathon import read_artifact
from corral.frameworks.services.pod_networks import NAME, read_endpoint, write_endpoint
from corral.frameworks.services.reader import Json, Reader
from corral.frameworks.services.secrets import read_env
from corral.frameworks.services.shown import number, write_fetch

NOT_HERE = "is not supported in pods by this release; leave it out"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,253}")


def read_environment(reader: Reader) -> dict[str, Any]:
    """Texts as `env`, references to secrets as `env_secrets`."""
    value = reader.any("environment")
    for name in value if isinstance(value, dict) else ():
        if _VARIABLE.fullmatch(name) is None:
            reader.refuse("environment", f"variable {name!r} must be letters, digits and _, and start with no digit")
    found: dict[str, Any] = {}
    read_env(reader, found, "environment")
    return found


def read_container(item: Reader, on_node: bool) -> PodContainer:
    """Shapes: `on_node` when its network is that of the node."""
    name = item.text("name", "")
    if len(name) > 63 or NAME.fullmatch(name) is None or name.isdecimal():
        item.refuse("name", f"got {name!r}, must be up to 63 lower-case letters, digits and dashes, not digits alone")
    for field in ("linuxInfo", "tty", "resourceLimits", "check"):
        if item.any(field):
            item.refuse(field, f"{field} {NOT_HERE}")
    image = _read_image(item)
    command, argv, replaces = _read_exec(item, must=image is None)
    lifecycle = item.object("lifecycle")
    grace_s = None
    if lifecycle is not None:
        grace_s = lifecycle.number("killGracePeriodSeconds", 3.0)
        lifecycle.done()
    found = PodContainer(
        name=name,
        command=command,
        argv=argv,
        image=image,
        replaces=replaces and image is not None,
        user=item.text_or_none("user"),
        **read_environment(item),
        labels=item.text_map("labels"),
        endpoints=tuple(read_endpoint(e, on_node) for e in item.objects("endpoints")),
        check=_read_check(item),
        mounts=tuple(_read_mount(m) for m in item.objects("volumeMounts")),
        fetch=tuple(read_artifact(a) for a in item.objects("artifacts")),
        kill_grace_s=grace_s,
        **_read_resources(item),
    )
    item.done()
    return found


def _read_image(item: Reader) -> Docker | None:
    inner = item.object("image")
    if inner is None:
        return None
    inner.choice("kind", "DOCKER", ("DOCKER",))
    config = inner.object("pullConfig")
    pull_config = None
    if config is not None:
        pull_config = config.text("secret", "")
        config.done()
    found = Docker(image=inner.text("id", ""), force_pull_image=inner.flag("forcePull", False), pull_config=pull_config)
    if not found.image:
        inner.refuse("id", "id must be given, the name of an image")
    inner.has("labels")
    inner.done()
    return found


def _read_resources(item: Reader) -> dict[str, Any]:
    resources = item.object("resources")
    if resources is None:
        return {}
    found = {
        "cpus": resources.number("cpus", 1.0),
        "mem_mb": resources.number("mem", 128.0),
        "disk_mb": resources.number("disk", 0.0),
    }
    if resources.number("gpus", 0.0):
        resources.refuse("gpus", f"gpus {NOT_HERE}")
    resources.done()
    return found


def _read_exec(item: Reader, *, must: bool = True) -> tuple[str | None, tuple[str, ...], bool]:
    """A command by shell, or its words, and whether these take the place of an image's own program."""
    outer = item.object("exec")
    command = outer.object("command") if outer is not None else None
    replaces = False
    if outer is not None:
        replaces = outer.flag("overrideEntrypoint", False)
        outer.done()
    if command is None:
        if must:
            item.refuse("exec", "exec.command must be given, as shell or as argv, unless there is an image")
        return None, (), False
    shell, argv = command.text_or_none("shell"), command.texts("argv")
    if bool(shell) is bool(argv):
        command.refuse("", "a command is given by shell or by argv, not by both or none")
    command.done()
    return shell, argv, replaces and bool(argv)


def _read_check(item: Reader) -> PodCheck | None:
    inner = item.object("healthCheck")
    if inner is None:
        return None
    kinds = [kind for kind in ("http", "tcp", "exec") if inner.has(kind)]
    if len(kinds) != 1:
        inner.refuse("", f"a health check is one of http, tcp and exec, got {', '.join(kinds) or 'none'}")
    values: dict[str, Any] = {}
    for kind in kinds[:1]:
        if kind == "exec":
            values["command"], values["argv"], _ = _read_exec(inner)
        elif (part := inner.object(kind)) is not None:
            values["endpoint"] = part.text("endpoint", "")
            if kind == "http":
                values["path"] = part.text("path", "/")
                values["scheme"] = part.choice("scheme", "HTTP", ("HTTP", "HTTPS", "http", "https")).lower()
            part.done()
    found = PodCheck(
        grace_s=inner.whole("gracePeriodSeconds", 300),
        interval_s=inner.whole("intervalSeconds", 60),
        timeout_s=inner.whole("timeoutSeconds", 20),
        delay_s=inner.whole("delaySeconds", 15),
        most_failures=inner.whole("maxConsecutiveFailures", 3),
        **values,
    )
    inner.done()
    return found


def _read_mount(item: Reader) -> tuple[str, str, bool]:
    found = (item.text("name", ""), item.text("mountPath", ""), item.flag("readOnly", False))
    if not found[1]:
        item.refuse("mountPath", "mountPath must be given")
    item.done()
    return found


# Out.


def write_environment(texts: dict[str, str], secrets: dict[str, str]) -> dict[str, Json]:
    return {**texts, **{variable: {"secret": name} for variable, name in secrets.items()}}


def write_container(container: PodContainer) -> dict[str, Json]:
    out: dict[str, Json] = {
        "name": container.name,
        "resources": {
            "cpus": number(container.cpus), "mem": number(container.mem_mb), "disk": number(container.disk_mb),
            "gpus": 0,
        },
        "endpoints": [write_endpoint(e) for e in container.endpoints],
        "environment": write_environment(container.env, container.env_secrets),
        "volumeMounts": [{"name": n, "mountPath": p, "readOnly": r} for n, p, r in container.mounts],
        "artifacts": [write_fetch(f) for f in container.fetch],
        "labels": container.labels,
    }  # fmt: skip
    if container.argv or container.command is not None:
        out["exec"] = _write_exec(container.command, container.argv)
        if container.replaces:
            out["exec"]["overrideEntrypoint"] = True
    if container.image is not None:
        out["image"] = _write_image(container.image)
    if container.user is not None:
        out["user"] = container.user
    if container.check is not None:
        out["healthCheck"] = _write_check(container.check)
    if container.kill_grace_s is not None:
        out["lifecycle"] = {"killGracePeriodSeconds": number(container.kill_grace_s)}
    return out


def _write_exec(command: str | None, argv: tuple[str, ...]) -> dict[str, Json]:
    return {"command": {"argv": list(argv)} if argv else {"shell": command}}


def _write_image(image: Docker) -> dict[str, Json]:
    out: dict[str, Json] = {"kind": "DOCKER", "id": image.image, "forcePull": image.force_pull_image}
    if image.pull_config is not None:
        out["pullConfig"] = {"secret": image.pull_config}
    return out


def _write_check(check: PodCheck) -> dict[str, Json]:
    out: dict[str, Json] = {
        "gracePeriodSeconds": check.grace_s, "intervalSeconds": check.interval_s,
        "maxConsecutiveFailures": check.most_failures, "timeoutSeconds": check.timeout_s,
        "delaySeconds": check.delay_s,
    }  # fmt: skip
    if check.endpoint is None:
        return {"exec": _write_exec(check.command, check.argv), **out}
    if check.path is None:
        return {"tcp": {"endpoint": check.endpoint}, **out}
    return {"http": {"endpoint": check.endpoint, "path": check.path, "scheme": check.scheme.upper()}, **out}
