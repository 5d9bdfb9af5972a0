"""The files of one process's keys, and the TLS contexts that servers and clients make of them.

Rules: a key file is 0600 from the moment it exists; a renewed certificate is taken by the contexts that are in use, so
that new connections have it and old ones go on.
"""

import os
import ssl
from pathlib import Path

from corral.lib.errors import Invalid
from corral.net.certificates import Certificate, Key, belongs, describe, read_key, write_key
from corral.net.tls import client_context

CA_FILE, IDENTITY_FILE = "ca.pem", "identity.pem"


class Keyring:
    """The authority's certificate, and the certificate and key of this process, in a directory of their own.

    Shapes: certificate and key share one file, so that they are replaced together or not at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._loaded = b""

    @property
    def ca_path(self) -> str:
        return str(self.directory / CA_FILE)

    def exists(self) -> bool:
        return all((self.directory / name).exists() for name in (CA_FILE, IDENTITY_FILE))

    def authority(self) -> bytes:
        return self._read(CA_FILE)

    def certificate(self) -> Certificate:
        """What this process shows. Errors: `Invalid` when it cannot be read."""
        return describe(self._read(IDENTITY_FILE))

    def save(self, ca: bytes, certificate: bytes, key: Key) -> None:
        """Keep a new certificate, and have it shown on all connections to come.

        Errors: `Invalid` when the three do not belong together, or cannot be written; then nothing has changed.
        """
        if not belongs(certificate, key, ca):
            raise Invalid("the certificate is not of this key and this authority; nothing was changed")
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self.directory / CA_FILE, ca)
            write_secret(self.directory / IDENTITY_FILE, certificate + write_key(key))
        except OSError as error:
            raise Invalid(f"the keys in {self.directory} cannot be written: {error.strerror}") from None
        self.refresh()

    def refresh(self) -> bool:
        """Take what lies in the files now, as when this node has joined anew; whether it is another certificate."""
        found = self._read(IDENTITY_FILE)
        if found == self._loaded:
            return False
        for context in self._contexts.values():
            self._load_into(context)
        self._loaded = found
        return True

    def matches(self, ca: bytes) -> bool:
        """Whether what is here is whole, and issued by this authority."""
        try:
            identity = self._read(IDENTITY_FILE)
            return self.authority() == ca and belongs(identity, read_key(identity), ca)
        except Invalid:
            return False

    def server(self) -> ssl.SSLContext:
        """For a listener: callers may show a certificate of this cluster, and only of this one."""
        if "server" not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=self.authority().decode("ascii"))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # A session that is resumed would show the certificate with which it began.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
            self._load_into(context)
            self._contexts["server"] = context
        return self._contexts["server"]

    def client(self, *, to_master: bool = True) -> ssl.SSLContext:
        """For links on which this process shows its own certificate."""
        name = "to master" if to_master else "client"
        if name not in self._contexts:
            context = client_context(self.ca_path, to_master=to_master)
            self._load_into(context)
            self._contexts[name] = context
        return self._contexts[name]

    def _load_into(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.directory / IDENTITY_FILE)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(
                f"the certificate in {self.directory} cannot be used: {error}; "
                f"masters make theirs anew when the directory is removed, agents join again"
            ) from None

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError as error:
            raise Invalid(f"{self.directory / name} cannot be read: {error.strerror}") from None


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner ever could read, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    _write(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), data)
    fresh.replace(path)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    _write(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), data)
    fresh.replace(path)


def _write(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
