"""Who may change what is logged, by any of the ways there are."""

from collections.abc import Iterator

import pytest

from corral.lib.errors import Forbidden
from corral.lib.log import configure_log, verbosity
from corral.net.auth import Caller, CallerKind
from corral.net.routes import Request
from corral.net.verbosity import toggle_logging

BOUND = Caller(kind=CallerKind.TOKEN, name="ci", roles=("etl",))


@pytest.fixture(autouse=True)
def logged() -> Iterator[None]:
    configure_log()
    yield
    configure_log()


def toggle(**query: str) -> bytes:
    given = {key: [value] for key, value in query.items()}
    return toggle_logging(Request(method="GET", path="/logging/toggle", query=given, caller=BOUND)).body


def test_a_caller_with_roles_may_look_and_change_nothing() -> None:
    assert toggle() == b"0\n"
    with pytest.raises(Forbidden, match="ci is bound to etl"):
        toggle(level="1", duration="10secs")
    assert verbosity() == 0
