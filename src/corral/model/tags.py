"""What an instance is, in words that affinity looks for: `image:nginx:1.2`, `label:tier=db`, `task:web`.

A want says which tags its instances carry; `near` and `apart` look for tags of tasks of any framework.
"""

from collections.abc import Iterable, Mapping

MOST_TAGS = 64
MOST_TAG_LENGTH = 255
MOST_LABELS = 32

RESERVED = ("group:", "port:")
"""Beginnings of the tags by which the allocator counts siblings and ports."""


def find_tag_fault(tag: str) -> str | None:
    """What keeps a text from being a tag, None when nothing does."""
    if not tag:
        return "has an empty tag; leave it out"
    if len(tag) > MOST_TAG_LENGTH:
        return f"has the tag {tag[:40]!r}… of {len(tag)} characters; {MOST_TAG_LENGTH} are the most"
    if not tag.isprintable():
        return f"has the tag {tag!r}; a tag must hold neither line breaks nor other control characters"
    if tag.startswith(RESERVED):
        return f"has the tag {tag!r}; tags that begin with {' or '.join(RESERVED)} are kept for the allocator"
    return None


def make_tags(*, image: str = "", labels: Mapping[str, str] | None = None, name: str = "") -> tuple[str, ...]:
    """The tags of a task of this image, these labels and this name, each once.

    Shapes: an image has one tag as it is written and one without its version and digest; of labels, the first 32 by
    name. What could be no tag, such as a label of 300 characters, is left out.
    """
    found = [f"image:{image}", f"image:{_plain_image(image)}"] if image else []
    found += [f"label:{key}={value}" for key, value in sorted((labels or {}).items())[:MOST_LABELS]]
    found += [f"task:{name}"] if name else []
    return tuple(dict.fromkeys(_fitting(found)))


def _fitting(tags: Iterable[str]) -> Iterable[str]:
    return (tag for tag in tags if find_tag_fault(tag) is None)


def _plain_image(image: str) -> str:
    """`host:5000/web:1.2@sha256:abc` as `host:5000/web`."""
    path, slash, last = image.partition("@")[0].rpartition("/")
    return path + slash + last.partition(":")[0]
