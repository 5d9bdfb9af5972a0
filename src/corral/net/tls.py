"""TLS of a cluster's links, with the standard library alone: how clients verify, who a peer is, what went wrong.

Rule: masters are known by `MASTER_NAME`, which their certificates alone hold, whatever address leads to them.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corral.lib.errors import Invalid

MASTER_NAME = "master.corral.internal"
ORGANISATION = "corral"
AUTHORITY = "authority"


class _ToMaster(ssl.SSLContext):
    """Looks for a master's name in the certificate, not for the address that was dialled."""

    def wrap_bio(self, incoming: Any, outgoing: Any, server_side: bool = False, server_hostname: Any = None,
                 session: Any = None) -> ssl.SSLObject:  # fmt: skip
        return super().wrap_bio(incoming, outgoing, server_side, MASTER_NAME, session)

    def wrap_socket(self, sock: Any, server_side: bool = False, do_handshake_on_connect: bool = True,
                    suppress_ragged_eofs: bool = True, server_hostname: Any = None,
                    session: Any = None) -> ssl.SSLSocket:  # fmt: skip
        return super().wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, MASTER_NAME, session
        )


def client_context(cacert: str = "", *, to_master: bool = True) -> ssl.SSLContext:
    """How a client verifies whom it dials: by the authority in the file `cacert`, else by those of the system.

    Shapes: with `to_master` and the authority of a cluster, only a master's certificate will do, under any address;
    otherwise the name or address that is dialled must stand in the certificate.
    Errors: `Invalid` when the file holds no certificate.
    """
    if not cacert:
        return ssl.create_default_context()
    try:
        pem = Path(cacert).read_text(encoding="ascii")
    except OSError as error:
        raise Invalid(
            f"the authority {cacert} cannot be read: {error.strerror}; set CORRAL_CACERT to its file"
        ) from None
    except UnicodeDecodeError:
        raise Invalid(_NO_AUTHORITY.format(cacert)) from None
    return context_of(pem, cacert, to_master=to_master)


def context_of(pem: str, where: str = "that was sent", *, to_master: bool = True) -> ssl.SSLContext:
    """The same for an authority in hand; `where` is what an error calls it."""
    context = _verifying(ssl.SSLContext, pem, where)
    if to_master and any(_subject(found) == (AUTHORITY, ORGANISATION) for found in context.get_ca_certs()):
        context = _verifying(_ToMaster, pem, where)
    return context


def _verifying(kind: type[ssl.SSLContext], pem: str, where: str) -> ssl.SSLContext:
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise Invalid(_NO_AUTHORITY.format(where)) from None
    return context


_NO_AUTHORITY = "the file {} holds no certificate of an authority; set CORRAL_CACERT to the cluster's ca.pem"


def _subject(certificate: Mapping[str, Any]) -> tuple[str, str]:
    """Unit and organisation of a certificate as `ssl` shows it."""
    subject = {key: value for part in certificate.get("subject", ()) for key, value in part}
    return str(subject.get("organizationalUnitName", "")), str(subject.get("organizationName", ""))


def peer_of(tls: Any) -> tuple[str, str] | None:
    """Kind and name of who has shown a certificate of this cluster on a connection; None when nobody has.

    Shapes: `tls` is what the transport calls `ssl_object`, or None.
    """
    if tls is None:
        return None
    found = tls.getpeercert()
    if not found:
        return None
    kind, organisation = _subject(found)
    if organisation != ORGANISATION:
        return None
    return kind, next((str(value) for part in found["subject"] for key, value in part if key == "commonName"), "")


def explain_tls(error: BaseException, address: str) -> str | None:
    """What a failed handshake means and what to do; None when it is no matter of TLS."""
    text = f"{error} {error.__cause__ or ''} {getattr(error, 'os_error', '') or ''}"
    for sign, meaning in _MEANINGS.items():
        if sign.lower() in text.lower():
            return f"{address} {meaning}"
    return None


_MEANINGS = {
    "WRONG_VERSION_NUMBER": "does not speak TLS; write http:// or look whether its port is right",
    "record layer failure": "does not speak TLS; write http:// or look whether its port is right",
    "certificate has expired": "shows or was shown a certificate that has expired; let its node join again, or set "
    "the clock right",
    "CERTIFICATE_EXPIRED": "was shown a certificate that has expired; join again with a new token",
    "not yet valid": "shows a certificate that begins only later; set the clocks of both nodes right",
    "Hostname mismatch": "shows a certificate for another name; use a name of the certificate, or add this one with "
    "trust.names",
    "IP address mismatch": "shows a certificate for another address; use one of the certificate, or add this one with "
    "trust.names",
    "self-signed certificate": "shows a certificate of an authority that is not trusted here; set CORRAL_CACERT to the "
    "cluster's ca.pem",
    "unable to get local issuer": "shows a certificate of an authority that is not trusted here; set CORRAL_CACERT to "
    "the cluster's ca.pem",
    "certificate signature failure": "shows a certificate of another cluster's authority; set CORRAL_CACERT to the "
    "ca.pem of this one",
    "UNKNOWN_CA": "does not know the authority of our certificate; this node has joined another cluster",
    "DECRYPT_ERROR": "does not take our certificate; this node has joined another cluster",
    "CERTIFICATE_VERIFY_FAILED": "shows a certificate that cannot be verified; set CORRAL_CACERT to the cluster's "
    "ca.pem",
}
