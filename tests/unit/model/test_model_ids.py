import pytest

from corral.lib.errors import Invalid
from corral.model.ids import check_id, check_role


@pytest.mark.parametrize("value", ["a", "web.3", "a b", "..a", "é" * 127, "x" * 255])
def test_ids_that_can_name_a_directory_are_accepted(value: str) -> None:
    check_id(value, "task id")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "must not be empty"),
        (".", "must not be"),
        ("..", "must not be"),
        ("a/b", "no slash"),
        ("a\\b", "no slash"),
        ("a\nb", "control character"),
        ("a\x7f", "control character"),
        ("x" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
    ],
)
def test_ids_that_could_not_name_a_directory_are_refused(value: str, words: str) -> None:
    with pytest.raises(Invalid, match=f"task id.*{words}"):
        check_id(value, "task id")


@pytest.mark.parametrize("role", ["*", "web", "ads/etl/nightly", "a-b", "a.b", "é"])
def test_role_names_are_paths_of_words(role: str) -> None:
    check_role(role)


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("", "must not be empty"),
        ("/a", "empty level"),
        ("a/", "empty level"),
        ("a//b", "empty level"),
        ("a/*", "as a level"),
        ("a/.", "as a level"),
        ("..", "as a level"),
        ("-a", "starts with a dash"),
        ("a/-b", "starts with a dash"),
        ("a b", "white space"),
        ("a\tb", "white space"),
        ("a\x08b", "white space"),
    ],
)
def test_role_names_that_mesos_would_refuse_are_refused(role: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check_role(role)
