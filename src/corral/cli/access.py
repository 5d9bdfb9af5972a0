"""What the command line shows of itself and whom it trusts: `--token` and `--cacert`, or their environment."""

import click

from corral.net.access import Access, complete_url, read_token_value


def find_access(addr: str = "") -> Access:
    """As given before the command, for the daemon at `addr`.

    Errors: `Invalid` when the token's file cannot be read, or the token would go there in the clear.
    """
    context = click.get_current_context(silent=True)
    given = context.find_root().params if context is not None else {}
    access = Access(token=read_token_value(given.get("token") or ""), cacert=given.get("cacert") or "")
    if addr:
        complete_url(addr, access)
    return access
