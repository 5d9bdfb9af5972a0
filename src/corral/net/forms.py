"""Reads bodies of `application/x-www-form-urlencoded`, as Mesos' older endpoints take them."""

from urllib.parse import parse_qsl

from corral.lib.errors import Invalid
from corral.net.routes import Request


def read_form(request: Request) -> dict[str, str]:
    """The fields by name, the last of each name. Errors: `Invalid` when the body is no form."""
    try:
        text = request.body.decode()
        return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=1000))
    except ValueError as error:
        raise Invalid(f"Failed to parse the body as a form: {error}; send NAME=VALUE&NAME=VALUE") from None
