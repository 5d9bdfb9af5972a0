"""Seals secrets for the store: AES-256-GCM under a key from a file, bound to the secret's name and version.

The file has a key a line, `ID:BASE64` of 32 bytes. The first one seals; all of them open, so that a new key is put on
top and the old one removed when nothing is sealed with it any more.
Source: NIST SP 800-38D; `cryptography`, AESGCM.
"""

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from corral.lib.errors import Failed, Invalid, Unavailable
from corral.lib.secret import Secret

KEY_BYTES = 32
NONCE_BYTES = 12


class Keys(msgspec.Struct, frozen=True):
    """Shapes: `current` is empty when there is no key at all: then nothing can be sealed."""

    current: str = ""
    ciphers: Mapping[str, AESGCM] = {}

    def seal(self, name: str, value: Secret) -> tuple[bytes, str]:
        """The sealed value and the id of its key. Errors: `Unavailable` without a key."""
        if not self.current:
            raise Unavailable(
                "secrets are off: no key is configured; make one with `corral secret new-key FILE` and start the "
                "masters with --set vault.key_file=FILE"
            )
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self.ciphers[self.current].encrypt(nonce, value.reveal(), name.encode()), self.current

    def open(self, name: str, data: bytes, key_id: str) -> Secret:
        """Errors: `Unavailable` when the key is not in the file; `Failed` when the value is not what was sealed."""
        cipher = self.ciphers.get(key_id)
        if cipher is None:
            raise Unavailable(f"secret {name} is sealed with key {key_id}, which is not in vault.key_file; put it back")
        try:
            return Secret(cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], name.encode()))
        except (InvalidTag, ValueError):
            raise Failed(
                f"secret {name} cannot be opened: its record was changed, or key {key_id} is another one"
            ) from None


def read_keys(path: Path) -> Keys:
    """Errors: `Invalid` when the file cannot be read, is for others to read too, or has no keys."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"vault.key_file {path} cannot be read: {error}; make one with corral secret new-key") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Invalid(f"vault.key_file {path} can be read by others (mode {stat.S_IMODE(mode):o}); chmod 600 it")
    ciphers: dict[str, AESGCM] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key_id, _, encoded = line.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES or not re.fullmatch(r"[\w.-]{1,64}", key_id) or key_id in ciphers:
            raise Invalid(
                f"vault.key_file {path}, line {number} is not ID:BASE64 of {KEY_BYTES} bytes with an id of its own"
            )
        ciphers[key_id] = AESGCM(key)
    if not ciphers:
        raise Invalid(f"vault.key_file {path} has no key; make one with corral secret new-key")
    return Keys(next(iter(ciphers)), ciphers)


def make_key(now_text: str) -> str:
    """A line for the file, with a new key."""
    return f"{now_text}-{secrets.token_hex(3)}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"


def add_key(path: Path, now_text: str) -> str:
    """Put a new key on top of the file, which is made if it is missing; returns the key's id.

    Errors: `Invalid` when it cannot be written.
    """
    line = make_key(now_text)
    try:
        old = path.read_text(encoding="ascii") if path.exists() else ""
        fresh = path.with_name(path.name + ".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(line + old)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"key file {path} cannot be written: {error}") from None
    return line.partition(":")[0]
