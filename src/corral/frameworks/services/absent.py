"""What an app may ask for that no agent of this release has: it is taken as in Marathon, and waits with its reason.

Each such thing is a resource of which agents offer none, so that the kernel explains the wait as any other, and says at
once that no agent could ever hold the app. Source: Marathon's contract, section 22, "accepting the impossible".
"""

from collections.abc import Iterator

from corral.frameworks.services.app_spec import AppSpec

ROOT = "root"


def find_absent(spec: AppSpec) -> Iterator[tuple[str, float]]:
    """Names of resources with how much of each is wanted."""
    kinds: dict[str, float] = {}
    for volume in spec.volumes:
        if volume.kind != ROOT:
            kinds[f"disk-{volume.kind}"] = kinds.get(f"disk-{volume.kind}", 0.0) + volume.size_mb
    yield from sorted(kinds.items())
    if spec.external_volumes and spec.image is None:
        yield "volume-driver-without-image", 1.0
    linux = spec.container.linux if spec.container is not None else None
    if linux is not None and linux.profile is not None:
        yield f"seccomp-profile:{linux.profile}", 1.0
