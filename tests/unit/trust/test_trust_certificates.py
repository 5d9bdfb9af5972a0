"""Keys and certificates: what is issued is what was asked for, and nothing that does not belong together is kept."""

import ssl
from pathlib import Path

import pytest

from corral.lib.errors import Conflict, Invalid
from corral.net.certificates import (
    belongs,
    describe,
    fingerprint_of,
    make_authority,
    make_key,
    make_request,
    read_authority,
    read_key,
    read_request,
    write_key,
)
from corral.net.keyring import Keyring
from corral.net.tls import MASTER_NAME, client_context, explain_tls
from corral.store.memory import MemoryStore
from corral.trust.authority import create_authority, ensure_authority, load_authority
from corral.trust.join import due_s, read_joined

NOW = 1_800_000_000.0
CA = make_authority("test", NOW)


def issue(kind: str = "agent", names: tuple[str, ...] = ("node1", "10.0.0.9"), life_s: float = 900.0) -> bytes:
    return CA.issue(make_key().public_key(), name="node1", kind=kind, names=names, now=NOW, life_s=life_s)


def test_a_certificate_says_who_it_is_of_and_for_how_long() -> None:
    found = describe(issue(names=("node1", "10.0.0.9", "fd00::1", "node1", "not a name", "")))
    assert (found.name, found.kind, found.not_before, found.not_after) == ("node1", "agent", NOW - 300, NOW + 900)
    assert found.names == ("node1", "10.0.0.9", "fd00::1")
    assert found.issuer == describe(CA.pem).name
    assert describe(CA.pem).kind == "authority"


def test_only_masters_get_the_name_of_masters() -> None:
    assert MASTER_NAME in describe(issue("master")).names
    assert MASTER_NAME not in describe(issue("agent")).names


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left() -> None:
    assert due_s(describe(issue(life_s=900.0)), NOW) == 500.0
    assert due_s(describe(issue(life_s=30.0)), NOW) == 10.0
    assert due_s(describe(issue(life_s=30.0)), NOW + 60) == 0.0


def test_a_request_proves_its_key() -> None:
    key = make_key()
    assert read_request(make_request(key, "n")).public_numbers() == key.public_key().public_numbers()
    for wrong in (b"", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", CA.pem):
        with pytest.raises(Invalid, match="signing request"):
            read_request(wrong)


def test_a_key_with_a_passphrase_opens_with_no_other() -> None:
    pem = write_key(make_key(), b"right")
    assert b"ENCRYPTED" in pem
    read_key(pem, b"right")
    for passphrase, words in ((b"wrong", "passphrase is another"), (b"", "give its passphrase")):
        with pytest.raises(Invalid, match=words):
            read_key(pem, passphrase)
    with pytest.raises(Invalid, match="leave the passphrase out"):
        read_key(write_key(make_key()), b"more")


def test_an_authority_is_read_as_it_was_written_and_not_with_anothers_key() -> None:
    again = read_authority(CA.write_key(b"p"), CA.pem, b"p")
    assert again.fingerprint == CA.fingerprint == fingerprint_of(CA.pem)
    with pytest.raises(Invalid, match="not of its key"):
        read_authority(write_key(make_key()), CA.pem)


async def test_of_two_masters_that_start_at_once_one_makes_the_authority() -> None:
    store = MemoryStore()
    assert await load_authority(store) is None
    first = await ensure_authority(store, "c", NOW, b"p")
    assert (await ensure_authority(store, "c", NOW + 1, b"p")).pem == first.pem
    with pytest.raises(Conflict):
        await create_authority(store, "c", NOW)
    for passphrase in (b"", b"q"):
        with pytest.raises(Invalid, match=r"trust\.ca_passphrase_file"):
            await ensure_authority(store, "c", NOW, passphrase)
    await store.commit({"authority": b"\x81\xa1x\x01"})
    with pytest.raises(Invalid, match="restore a snapshot"):
        await load_authority(store)


def test_what_does_not_belong_together_is_not_kept(tmp_path: Path) -> None:
    keys, key = Keyring(tmp_path / "trust"), make_key()
    pem = CA.issue(key.public_key(), name="n", kind="agent", names=("n",), now=NOW, life_s=900)
    other = make_authority("other", NOW)
    for ca, certificate, private in ((other.pem, pem, key), (CA.pem, pem, make_key()), (CA.pem, issue(), key)):
        with pytest.raises(Invalid, match="nothing was changed"):
            keys.save(ca, certificate, private)
        assert not keys.exists()
    keys.save(CA.pem, pem, key)
    assert keys.matches(CA.pem)
    assert not keys.matches(other.pem)
    assert (tmp_path / "trust" / "identity.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "trust").stat().st_mode & 0o777 == 0o700
    (tmp_path / "trust" / "identity.pem").write_bytes(pem)
    assert not keys.matches(CA.pem)
    with pytest.raises(Invalid, match="agents join again"):
        keys.server()


def test_contexts_in_use_take_a_renewed_certificate(tmp_path: Path) -> None:
    keys = Keyring(tmp_path)
    for serial in range(2):
        key = make_key()
        pem = CA.issue(key.public_key(), name=f"n{serial}", kind="agent", names=("n",), now=NOW, life_s=900)
        keys.save(CA.pem, pem, key)
        assert keys.certificate().name == f"n{serial}"
        assert keys.server() is keys.server()
        assert keys.client() is not keys.client(to_master=False)
    assert keys.refresh() is False


@pytest.mark.parametrize("text", [b"", b"\xff", b"no PEM", write_key(make_key())])
def test_a_file_that_holds_no_authority_is_told_so(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(text)
    with pytest.raises(Invalid, match="CORRAL_CACERT"):
        client_context(str(path))
    with pytest.raises(Invalid, match="cannot be read"):
        client_context(str(tmp_path / "missing"))


def test_an_authority_of_somebody_else_is_looked_up_by_address(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(CA.pem)
    assert type(client_context(str(path))) is not ssl.SSLContext
    assert type(client_context(str(path), to_master=False)) is ssl.SSLContext
    assert client_context(str(path)).verify_mode is ssl.CERT_REQUIRED


def test_what_was_kept_of_joining_is_read_or_refused(tmp_path: Path) -> None:
    assert read_joined(tmp_path) is None
    (tmp_path / "joined.json").write_text("{")
    with pytest.raises(Invalid, match="join again"):
        read_joined(tmp_path)


def test_errors_of_tls_are_told_in_words_and_others_are_left_alone() -> None:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    assert explain_tls(error, "m:1") == "m:1 does not speak TLS; write http:// or look whether its port is right"
    assert explain_tls(ConnectionRefusedError(111, "refused"), "m:1") is None
    assert belongs(issue(), make_key(), CA.pem) is False
