"""Sessions with daemons of the cluster: whoever dials a master or an agent makes its session here."""

from typing import Any

import aiohttp

from corral.net.access import NO_ACCESS, Access


def open_session(
    access: Access = NO_ACCESS, *, to_master: bool = True, show: bool = True, limit: int = 100, **options: Any
) -> aiohttp.ClientSession:
    """A client session for daemons of the cluster, over `https://` and, where nothing is secured, `http://`.

    Shapes: `to_master` says that all that is dialled are masters. Without `show` neither our certificate nor our token
    goes along: for handing on what others ask, with the credentials that they bring. `options` are aiohttp's.
    Errors: `Invalid` when a key, certificate or authority cannot be used.
    """
    keepalive_s = options.pop("keepalive_s", 30.0)
    # Verification is set up before it is known whether https will be dialled: with nothing given, the system's.
    connector = aiohttp.TCPConnector(
        limit=limit,
        keepalive_timeout=keepalive_s,
        ssl=access.context(to_master=to_master, show=show) if access.secure else True,
    )
    headers = {**(access.headers() if show else {}), **options.pop("headers", {})}
    return aiohttp.ClientSession(connector=connector, headers=headers, **options)
