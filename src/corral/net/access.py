"""What this process shows to daemons of the cluster, and how it verifies them; where their URLs may lead.

Light to import: the command line needs it for each command.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from corral.lib.errors import Invalid

if TYPE_CHECKING:
    import ssl

    from corral.net.keyring import Keyring


@dataclass(frozen=True, kw_only=True)
class Access:
    """Shapes: `keys` of a daemon with a certificate; else `token` of a caller and `cacert`, the authority's file."""

    keys: "Keyring | None" = None
    cacert: str = ""
    token: str = ""

    @property
    def secure(self) -> bool:
        return self.keys is not None or bool(self.cacert)

    def context(self, *, to_master: bool = True, show: bool = True) -> "ssl.SSLContext":
        """How the other end is verified. Shapes: without `show` our own certificate stays unseen.

        Errors: `Invalid` when a file cannot be used.
        """
        if self.keys is not None and show:
            return self.keys.client(to_master=to_master)
        # Those who speak plain HTTP do without it.
        from corral.net.tls import client_context

        cacert = self.keys.ca_path if self.keys is not None else self.cacert
        return client_context(cacert, to_master=to_master)

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


NO_ACCESS = Access()


def access_from(environment: Mapping[str, str]) -> Access:
    """What CORRAL_TOKEN and CORRAL_CACERT say."""
    return Access(
        token=read_token_value(environment.get("CORRAL_TOKEN", "")), cacert=environment.get("CORRAL_CACERT", "")
    )


def read_token_value(given: str) -> str:
    """A token, or with `@` the first line of the file of that name.

    Errors: `Invalid` when the file cannot be read.
    """
    if not given.startswith("@"):
        return given.strip()
    try:
        with open(given[1:], encoding="ascii") as file:
            return file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it holds no ASCII"
        raise Invalid(f"the token's file {given[1:]} cannot be read: {why}; name another or give the token") from None


def complete_url(url: str, access: Access = NO_ACCESS) -> str:
    """A base URL without a slash at its end; without a scheme it is https where the cluster's authority is known.

    Errors: `Invalid` when it names no host, or when a token would cross a network that can be listened to.
    """
    if "://" not in url:
        url = f"{'https' if access.secure else 'http'}://{url.removeprefix('//')}"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - a wrong port raises
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise Invalid(f"{url!r} is no URL of a daemon; write for example http://127.0.0.1:4680 or https://HOST:4680")
    if access.token and parts.scheme == "http" and not is_loopback(host):
        raise Invalid(f"{url} would carry the token in the clear; write https:// and set CORRAL_CACERT")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
