"""What another system has: the order in which its jobs are created, and its password."""

import time
from typing import Any

import pytest

from corral.cli.foreign import hide_password
from corral.cli.jobs import parents_first
from corral.lib.errors import Invalid


def order(*jobs: dict[str, Any]) -> list[str]:
    return [one["name"] for one in parents_first(list(jobs))]


def test_no_parent_comes_after_its_child_and_all_else_stays_in_order() -> None:
    jobs = ({"name": "c", "parents": ["b", "x"]}, {"name": "b", "parents": ["a"]}, {"name": "z"}, {"name": "a"})
    assert order(*jobs) == ["z", "a", "b", "c"]


def test_what_goes_in_circles_comes_last_for_the_server_to_refuse() -> None:
    assert order({"name": "a", "parents": ["b"]}, {"name": "b", "parents": ["a"]}, {"name": "c"}) == ["c", "a", "b"]


@pytest.mark.parametrize("parents", ["a", 5, [None, 7], {"a": 1}])
def test_parents_that_are_no_list_of_names_are_left_to_the_server(parents: Any) -> None:
    assert order({"name": "b", "parents": parents}, {"name": "a"}) == ["b", "a"]


def test_two_jobs_of_one_name_are_refused_as_one_would_be_lost() -> None:
    with pytest.raises(Invalid, match="job 'a' is there twice"):
        order({"name": "a"}, {"name": "a"})


def test_ten_thousand_jobs_are_ordered_at_once() -> None:
    jobs = [{"name": f"j{n}", "parents": [f"j{n - 1}"] if n else []} for n in range(10_000)]
    began = time.process_time()
    assert order(*reversed(jobs)) == [one["name"] for one in jobs]
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:4400/x", "http://host:4400/x"),
        ("http://ada:secret@host:4400", "http://ada:***@host:4400"),
        ("http://ada:s@cret@host", "http://ada:***@host"),
        ("jobs.json", "jobs.json"),
    ],
)
def test_a_password_in_an_url_is_not_shown(url: str, shown: str) -> None:
    assert hide_password(url) == shown
