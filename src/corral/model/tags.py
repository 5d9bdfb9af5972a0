"""What tasks are called by affinity: short texts such as `image:nginx`, `label:tier=db`, `task:web`."""

from collections.abc import Iterator, Mapping

from corral.model.offer import MOST_TAG

MOST_LABELS = 32


def tags_of(*, name: str = "", image: str = "", labels: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The tags of a task, sorted. Shapes: an image counts with its version and without; at most MOST_LABELS labels."""
    return tuple(sorted({tag for tag in _tags(name, image, labels or {}) if len(tag) <= MOST_TAG and "\n" not in tag}))


def _tags(name: str, image: str, labels: Mapping[str, str]) -> Iterator[str]:
    if name:
        yield f"task:{name}"
    if image:
        yield f"image:{image}"
        repository, colon, version = image.rpartition(":")
        # What stands behind a colon is a version only where no path follows; else it is a registry's port.
        if colon and "/" not in version:
            yield f"image:{repository}"
    for key in sorted(labels)[:MOST_LABELS]:
        yield f"label:{key}={labels[key]}"
