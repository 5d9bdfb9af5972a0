"""External volumes of apps: those of a volume driver of the Docker Engine, under Marathon's provider `dvdi`.

The Engine makes, finds and mounts them; all that is decided here is what of Marathon's form means what to it.
Source: Marathon's contract, section 3.
"""

from collections.abc import Iterator
from posixpath import isabs, join

from corral.frameworks.services.app_spec import AppSpec, ExternalVolume
from corral.frameworks.services.reader import Reader

DRIVER = "dvdi/driver"
SANDBOX = "/mnt/mesos/sandbox"
"""Where a relative path of a container leads. Source: Mesos, docker containerizer."""


def read_external(item: Reader, path: str) -> ExternalVolume | None:
    inner = item.object("external")
    mode = item.choice("mode", "RW", ("RO", "RW"))
    item.done()
    if inner is None:
        return None
    for field in ("name", "provider"):
        if not inner.has(field):
            inner.refuse(field, f"{field} must be given")
    if inner.text("provider", "dvdi") != "dvdi":
        inner.refuse("provider", "dvdi is the provider that this release has")
    found = ExternalVolume(
        container_path=path,
        name=inner.text("name", ""),
        mode=mode,
        options=inner.text_map("options"),
        size_gb=inner.whole("size", 0) if inner.has("size") else None,
        shared=inner.flag("shared", False),
    )
    if not found.driver:
        inner.refuse("options", f"options must name the driver as {DRIVER}")
    inner.done()
    return found


def find_external_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    volumes = spec.external_volumes
    if not volumes:
        return
    for index, volume in enumerate(volumes):
        at = f"/container/volumes({index})/external"
        for field, text in (("name", volume.name), ("options", volume.driver)):
            if any(c in text for c in ":,\0/ "):
                yield f"{at}/{field}", f"got {text!r}, must hold no blank, colon, comma or slash"
        if any(c in volume.container_path for c in ":,\0") or ".." in volume.container_path.split("/"):
            yield f"/container/volumes({index})/containerPath", "must hold no colon, and not lead upwards"
        if volume.size_gb is not None and volume.size_gb <= 0:
            yield f"{at}/size", f"got {volume.size_gb}, must be 1 or more"
    if len({volume.driver for volume in volumes}) > 1:
        yield "/container/volumes", "the Docker Engine takes one volume driver in a container"
    if spec.instances > 1 and not all(volume.shared for volume in volumes):
        yield "/instances", "a volume that is not shared is for one instance"


def make_parameters(spec: AppSpec) -> tuple[tuple[str, str], ...]:
    """As flags of `docker run`."""
    volumes = spec.external_volumes
    if not volumes:
        return ()
    named = []
    for volume in volumes:
        path = volume.container_path if isabs(volume.container_path) else join(SANDBOX, volume.container_path)
        named.append(("volume", f"{volume.name}:{path}:{volume.mode.lower()}"))
    return (("volume-driver", volumes[0].driver), *named)
