"""Credentials of image registries, as `docker login` keeps them: those of one image, in the form that the Engine takes.

Shapes: a file is `config.json` with `auths` by registry, or the older `.dockercfg`, which holds these alone.
Sources: Docker, `docker login`; Docker Engine API 1.41, `X-Registry-Auth`.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from corral.lib.errors import Failed

HUB = "docker.io"
_HUBS = frozenset({HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


def registry_of(image: str) -> str:
    """The host, with its port if it has one, that an image is pulled from."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return _plain(first) if is_host else HUB


def _plain(key: str) -> str:
    """A registry as files name it, with or without scheme and path."""
    host = urlsplit(key if "//" in key else f"//{key}").netloc.lower()
    return HUB if host in _HUBS else host


def make_header(image: str, data: bytes, where: str) -> str:
    """The header that a pull of this image shows; empty when the file has nothing for its registry.

    Errors: `Failed` says where the file is and what is wrong with it, and repeats nothing of it.
    """
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Failed(f"{where} is not JSON; put there what docker login has written to config.json") from None
    entries = found.get("auths", found) if isinstance(found, dict) else None
    if not isinstance(entries, dict):
        raise Failed(f"{where} has no object auths; put there what docker login has written to config.json")
    registry = registry_of(image)
    entry = next((v for k, v in entries.items() if _plain(k) == registry and isinstance(v, dict)), None)
    if entry is None:
        return ""
    shown = {**_read_entry(entry, registry, where), "serveraddress": registry}
    return base64.urlsafe_b64encode(msgspec.json.encode(shown)).decode()


def _read_entry(entry: Mapping[str, Any], registry: str, where: str) -> dict[str, str]:
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return {"identitytoken": token}
    user, password = entry.get("username"), entry.get("password")
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().strip("\0\n").partition(":")
        except (binascii.Error, ValueError):
            raise Failed(f"{where} has an auth of {registry} that is not base64 of NAME:PASSWORD") from None
    if not isinstance(user, str) or not isinstance(password, str) or not user:
        raise Failed(
            f"{where} has neither auth nor username and password for {registry}; log in there without a helper"
        )
    return {"username": user, "password": password}
