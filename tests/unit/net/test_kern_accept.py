"""What an `Accept` header admits."""

import pytest

from corral.net.answers import accepts_json, admits


@pytest.mark.parametrize(
    ("header", "admitted"),
    [
        (None, True),
        ("", True),
        (" ", True),
        ("application/json", True),
        ("APPLICATION/JSON;charset=utf-8", True),
        ("application/*", True),
        ("*/*", True),
        ("text/html, application/json;q=0.1", True),
        ("application/json;q=0", False),
        ("application/json; q=0.000", False),
        ("application/json;q=0, */*", False),
        ("*/*, application/json;q=0", False),
        ("application/*;q=0, */*", False),
        ("application/*;q=0, application/json", True),
        ("*/*;q=0", False),
        ("application/json;q=0, application/json", True),
        ("application/json;q=much", True),
        ("application/json;version=1;q=0", False),
        ("application/x-protobuf", False),
        ("text/html", False),
        ("json", False),
    ],
)
def test_what_names_json_most_closely_decides(header: str | None, admitted: bool) -> None:
    assert accepts_json(header) is admitted


def test_another_type_is_looked_for_as_well() -> None:
    assert admits("application/recordio;q=0, */*", "application/json")
    assert not admits("application/recordio;q=0, */*", "application/recordio")
