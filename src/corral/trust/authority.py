"""The cluster's authority in its store: made once by whoever comes first, read by every master.

It is a record beside those of any component, guarded so that of two masters that start at once one makes it. Whoever
may read the store may vouch for anybody: its private key can be enciphered by a passphrase that only masters have.
"""

import secrets

import msgspec

from corral.lib.errors import Conflict, Invalid, NotFound
from corral.net.certificates import Authority, make_authority, read_authority
from corral.store.base import Guard, GuardFailed, Store

KEY = "authority"


class AuthorityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: both are PEM; the key is enciphered where there is a passphrase."""

    certificate: bytes
    key: bytes
    made_at: float


async def load_authority(store: Store, passphrase: bytes = b"") -> Authority | None:
    """Errors: `Invalid` when the record cannot be read, or the passphrase is not the right one."""
    found = await store.get(KEY)
    if found is None:
        return None
    try:
        record = msgspec.msgpack.decode(found.value, type=AuthorityRecord)
    except msgspec.DecodeError as error:
        raise Invalid(f"the cluster's authority in the store is damaged: {error}; restore a snapshot") from None
    try:
        return read_authority(record.key, record.certificate, passphrase)
    except Invalid as error:
        raise Invalid(f"the cluster's authority cannot be used: {error.message} (trust.ca_passphrase_file)") from None


async def create_authority(store: Store, name: str, now: float, passphrase: bytes = b"") -> Authority:
    """Make the authority of a new cluster.

    Errors: `Conflict` when there is one already.
    """
    made = make_authority(f"{name} {secrets.token_hex(4)}", now)
    record = AuthorityRecord(certificate=made.pem, key=made.write_key(passphrase), made_at=now)
    try:
        await store.commit({KEY: msgspec.msgpack.encode(record)}, [Guard(KEY, 0)])
    except GuardFailed:
        raise Conflict("this cluster has an authority already; it is kept, as all its nodes rely on it") from None
    return made


async def ensure_authority(store: Store, name: str, now: float, passphrase: bytes = b"") -> Authority:
    """The authority, made now if there was none. Errors: `Invalid` as `load_authority`."""
    found = await load_authority(store, passphrase)
    if found is not None:
        return found
    try:
        return await create_authority(store, name, now, passphrase)
    except Conflict:
        found = await load_authority(store, passphrase)
    if found is None:
        raise NotFound("the cluster's authority was made and has gone meanwhile; start again")
    return found
