"""Reads what another system has: JSON over HTTP, or exported to a file."""

import base64
import http.client
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from corral.cli.client import split_url
from corral.lib.errors import Invalid, NotFound, Unauthenticated, Unavailable

_TIMEOUT_S = 30.0


def fetch_json(url: str, target: str, what: str) -> Any:
    """What the server at `url` answers to GET `target`; a user and password in the URL go along.

    Shapes: `what` is the system's name. Errors: `Invalid` for an URL that is none; `NotFound` for a 404 or what
    is no JSON; `Unauthenticated` when it asks who calls; `Unavailable` when it does not answer.
    """
    split = split_url(url)
    if split is None:
        raise Invalid(f"{hide_password(url)!r} is not of the form http://HOST:PORT")
    place = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname or ""
    place += f":{split.port}" if split.port else ""
    request = urllib.request.Request(f"{split.scheme}://{place}{target}")  # noqa: S310, the scheme was checked
    request.add_header("Accept", "application/json")
    if split.username:
        words = f"{unquote(split.username)}:{unquote(split.password or '')}"
        secret = base64.b64encode(words.encode()).decode()
        request.add_header("Authorization", f"Basic {secret}")
    path = target.partition("?")[0]
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            wants = "refuses this user and password" if split.username else "asks for a user and a password"
            raise Unauthenticated(
                f"{what} at {place} {wants}; give them as {split.scheme}://USER:PASSWORD@{place}, with %40 for an @"
            ) from None
        kind = NotFound if error.code == 404 else Unavailable
        raise kind(f"{place} answered {error.code} to GET {path}; is it a {what}?") from None
    except ValueError:
        raise NotFound(f"{place} answers GET {path} with something else than JSON; is it a {what}?") from None
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error
        raise Unavailable(f"no {what} answers at {place} ({why})") from None


def hide_password(url: str) -> str:
    """A URL as it may be shown."""
    try:
        split = urlsplit(url)
    except ValueError:
        return url
    if split.password is None:
        return url
    return urlunsplit(split._replace(netloc=f"{split.username}:***@{split.netloc.rpartition('@')[2]}"))


def read_json(file: str, example: str) -> Any:
    """What a file holds, `-` being standard input. Errors: `Invalid`."""
    try:
        return json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Invalid(f"there is no file {file!r}; give a file, or an URL such as {example}") from None
    except (ValueError, OSError) as error:
        raise Invalid(f"{file} is not JSON: {error}") from None
