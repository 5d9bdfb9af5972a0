"""etcd that asks who comes: TLS with certificates on both sides, users with passwords, rights."""

import datetime
import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from corral.lib.errors import Invalid
from corral.standalone.config import StoreSection
from corral.standalone.parts import etcd_settings
from corral.store.base import StoreFailed
from corral.store.etcd import Settings, open_etcd
from etcd_servers import Etcd, require_etcdctl

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def issue(directory: Path, name: str, by: Pair | None) -> Pair:
    """A certificate of this name with its key as files, for both ends of a connection."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Only the operator's certificate has a common name: with users, etcd's gateway takes none that has one.
    kind = NameOID.COMMON_NAME if name == "named" else NameOID.ORGANIZATION_NAME
    subject = x509.Name([x509.NameAttribute(kind, name)])
    now = datetime.datetime.now(datetime.UTC)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(by[1] if by else key, hashes.SHA256())
    )
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return certificate, key


class Guarded:
    """A member that takes only clients with a certificate and a password. Shapes: files lie in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = issue(directory, "ca", None)
        issue(directory, "server", self.authority)
        issue(directory, "client", self.authority)
        issue(directory, "named", self.authority)
        issue(directory, "stranger", issue(directory, "other-ca", None))
        (directory / "password").write_text("secret\n")
        (directory / "wrong").write_text("guess\n")
        self.cluster = Etcd(
            directory, scheme="https",
            arguments=(
                "--cert-file", f"{directory}/server.pem", "--key-file", f"{directory}/server.key",
                "--client-cert-auth", "--trusted-ca-file", f"{directory}/ca.pem",
            ),
        )  # fmt: skip

    def start(self) -> None:
        self.cluster.start(wait=False)
        self._run("endpoint", "health")
        for words in (
            "user add root:root", "user add corral:secret", "user add poor:secret", "role add root", "role add corral",
            "role grant-permission corral --prefix=true readwrite /corral", "user grant-role root root",
            "user grant-role corral corral", "auth enable",
        ):  # fmt: skip
            self._run(*words.split())

    def _run(self, *words: str) -> None:
        files = ("--cacert", f"{self.directory}/ca.pem", "--cert", f"{self.directory}/client.pem")
        subprocess.run(
            [require_etcdctl(), "--endpoints", self.cluster.members[0].url, *files,
             "--key", f"{self.directory}/client.key", "--command-timeout=20s", *words],
            check=True, capture_output=True, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        )  # fmt: skip

    def section(self, user: str = "corral", password: str = "password", client: str = "client") -> StoreSection:
        at = self.directory
        return StoreSection(
            user=user, password_file=f"{at}/{password}" if user else "", ca=f"{at}/ca.pem",
            cert=f"{at}/{client}.pem" if client else "", key=f"{at}/{client}.key" if client else "", timeout_s=1.5,
        )  # fmt: skip

    def settings(self, section: StoreSection | None = None, prefix: str = "/corral") -> Settings:
        return etcd_settings(self.cluster.store + prefix, section or self.section())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        made.start()
        yield made
    finally:
        made.cluster.stop()


async def test_records_are_kept_over_tls_with_a_certificate_and_a_password(guarded: Guarded) -> None:
    store = await open_etcd(guarded.settings())
    await store.commit({"a": b"1"}, lease=await store.grant(60))
    start = await store.commit({"b": b"1"})
    changes = store.watch("", start)
    last = await store.commit({"c": b"1"})
    assert (await anext(changes)).revision == last
    await store.close()


async def test_a_token_that_a_restarted_member_forgot_is_renewed(guarded: Guarded) -> None:
    store = await open_etcd(msgspec.structs.replace(guarded.settings(), timeout_s=20.0))
    start = await store.commit({"a": b"1"})
    changes = store.watch("", start)
    guarded.cluster.members[0].kill()
    guarded.cluster.members[0].start()
    revision = await store.commit({"a": b"2"})
    assert (await anext(changes)).revision == revision
    await store.close()


@pytest.mark.parametrize(
    ("section", "prefix", "says"),
    [
        ({"password": "wrong"}, "/corral", "does not know user corral with this password"),
        ({"user": "nobody"}, "/corral", "does not know user nobody"),
        ({"user": "poor"}, "/corral", "denies user poor what is below /corral/"),
        ({"user": ""}, "/corral", "name a user with store.user"),
        ({}, "/elsewhere", "grant-permission ROLE --prefix=true readwrite /elsewhere"),
        ({"client": "named"}, "/corral", "give store.cert one whose subject has none"),
        ({"client": "stranger"}, "/corral", "has not answered"),
        ({"client": ""}, "/corral", "has not answered"),
    ],
)
async def test_who_may_not_in_is_told_why(guarded: Guarded, section: dict[str, str], prefix: str, says: str) -> None:
    settings = guarded.settings(guarded.section(**section), prefix)
    with pytest.raises(StoreFailed, match=says):
        await open_etcd(settings)


async def test_a_member_of_another_authority_is_not_believed(guarded: Guarded) -> None:
    settings = etcd_settings(guarded.cluster.store, StoreSection(ca=f"{guarded.directory}/other-ca.pem", timeout_s=1.0))
    with pytest.raises(StoreFailed, match=r"(?i)certificate verify failed"):
        await open_etcd(settings)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("no certificate")
    for section in (
        StoreSection(ca=f"{tmp_path}/missing.pem"),
        StoreSection(ca=f"{tmp_path}/broken.pem"),
        StoreSection(cert=f"{tmp_path}/broken.pem"),
    ):
        with pytest.raises(Invalid, match=r"store\.(ca|cert) .* cannot be used"):
            etcd_settings("etcd://h:1", section)
    with pytest.raises(Invalid, match=r"store.password_file .* cannot be read"):
        etcd_settings("etcd://h:1", StoreSection(user="u", password_file=f"{tmp_path}/missing"))
