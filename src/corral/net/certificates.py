"""Keys and certificates of a cluster: its authority, requests, what is issued. All cryptography is `cryptography`'s.

Rules: keys are P-256 and never leave the process or the file that was made for them; a certificate says in its subject
what its holder is (OU) and how it is called (CN), and only masters' certificates hold the name `MASTER_NAME`.
"""

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from corral.lib.errors import Invalid
from corral.net.tls import AUTHORITY, MASTER_NAME, ORGANISATION

BACKDATED_S = 300.0
"""So much may a clock of another node be behind, though never by more than the life of the certificate."""

AUTHORITY_LIFE_S = 10 * 365 * 86_400.0
MOST_NAMES = 64

Key = ec.EllipticCurvePrivateKey


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate says. Shapes: `kind` is `authority`, `master` or `agent`; `serial` is hexadecimal."""

    name: str
    kind: str
    serial: str
    not_before: float
    not_after: float
    names: tuple[str, ...] = ()
    issuer: str = ""


def make_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def write_key(key: Key, passphrase: bytes = b"") -> bytes:
    """The key as PEM, enciphered when there is a passphrase."""
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def read_key(pem: bytes, passphrase: bytes = b"") -> Key:
    """Errors: `Invalid` when it is no key of this kind, or the passphrase is missing, wrong or too much."""
    try:
        key = serialization.load_pem_private_key(pem, passphrase or None)
    except TypeError:
        wanted = "is not enciphered, leave the passphrase out" if passphrase else "is enciphered, give its passphrase"
        raise Invalid(f"the private key {wanted}") from None
    except ValueError:
        raise Invalid("the private key cannot be read; it is no PEM, or its passphrase is another") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid("the private key is none of an elliptic curve; let corral make its own")
    return key


def make_request(key: Key, name: str) -> bytes:
    """A signing request as PEM: proof that who asks holds the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def read_request(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request whose signature is right.

    Errors: `Invalid` when it is no request, or is signed by another key.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        good = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature):
        raise Invalid("the signing request cannot be read; send a PEM of PKCS #10") from None
    if not good or not isinstance(key, ec.EllipticCurvePublicKey):
        raise Invalid("the signing request is not signed by the P-256 key that it names; make it again")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """The first 128 bits of the SHA-256 of a public key, in hexadecimal."""
    raw = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(raw).hexdigest()[:32]


def fingerprint_of(pem: bytes) -> str:
    """That of a certificate's key, which stays when the certificate is made anew."""
    key = _load(pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Invalid("the certificate is not of an elliptic curve, so no cluster's authority has made it")
    return fingerprint(key)


def describe(pem: bytes) -> Certificate:
    """Errors: `Invalid` when it is no certificate."""
    found = _load(pem)
    names: list[str] = []
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(general.value) for general in extension]
    except x509.ExtensionNotFound:
        pass
    return Certificate(
        name=_text(found.subject, NameOID.COMMON_NAME),
        kind=_text(found.subject, NameOID.ORGANIZATIONAL_UNIT_NAME),
        serial=f"{found.serial_number:x}",
        not_before=found.not_valid_before_utc.timestamp(),
        not_after=found.not_valid_after_utc.timestamp(),
        names=tuple(names),
        issuer=_text(found.issuer, NameOID.COMMON_NAME),
    )


def belongs(pem: bytes, key: Key, authority: bytes) -> bool:
    """Whether the certificate is of this key and issued by this authority."""
    found = _load(pem)
    try:
        found.verify_directly_issued_by(_load(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return found.public_key() == key.public_key()


class Authority:
    """The one who vouches for the parts of a cluster. Shapes: `pem` is its certificate."""

    __slots__ = ("_key", "pem")

    def __init__(self, key: Key, pem: bytes) -> None:
        self._key = key
        self.pem = pem

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.pem)

    def write_key(self, passphrase: bytes = b"") -> bytes:
        return write_key(self._key, passphrase)

    def issue(
        self,
        key: ec.EllipticCurvePublicKey,
        *,
        name: str,
        kind: str,
        names: Iterable[str],
        now: float,
        life_s: float,
    ) -> bytes:
        """A certificate for both ends of TLS, as PEM.

        Shapes: `names` are host names and addresses; what is neither is left out. Units: `now` seconds UTC.
        """
        builder = _begin(_subject(name, kind), key, now, life_s).issuer_name(_load(self.pem).subject)
        found = dict.fromkeys([*names, *((MASTER_NAME,) if kind == "master" else ())])
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        general = [one for one in map(_general_name, list(found)[:MOST_NAMES]) if one is not None]
        if general:
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_authority(name: str, now: float, life_s: float = AUTHORITY_LIFE_S) -> Authority:
    key = make_key()
    subject = _subject(name, AUTHORITY)
    builder = (
        _begin(subject, key.public_key(), now, life_s)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return Authority(key, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def read_authority(key: bytes, pem: bytes, passphrase: bytes = b"") -> Authority:
    """Errors: `Invalid` when the two cannot be read or do not belong together."""
    private = read_key(key, passphrase)
    if _load(pem).public_key() != private.public_key():
        raise Invalid("the authority's certificate is not of its key; restore both from the same back-up")
    return Authority(private, pem)


def _begin(subject: x509.Name, key: ec.EllipticCurvePublicKey, now: float, life_s: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_instant(now - min(BACKDATED_S, life_s)))
        .not_valid_after(_instant(now + life_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _instant(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


def _subject(name: str, kind: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, kind),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(text: str) -> x509.GeneralName | None:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        pass
    plain = text.isascii() and 0 < len(text) <= 253 and all(c.isalnum() or c in "-._" for c in text)
    return x509.DNSName(text) if plain else None


def _load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise Invalid("the certificate cannot be read; it is no PEM") from None


def _text(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""
