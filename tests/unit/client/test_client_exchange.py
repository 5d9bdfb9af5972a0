"""When a client asks again, whom, and how long it waits: without any network."""

import pytest

from corral.client.exchange import Answer, Servers, Tries, ask_submit, portions
from corral.lib.errors import Conflict, Failed, Invalid, TooMany, Unavailable, Unprocessable

ONE, TWO = "http://one:4680", "http://two:4680"


def answer(status: int, body: bytes = b'{"message": "no"}', **headers: str) -> Answer:
    return Answer(status=status, body=body, headers={key.replace("_", "-"): value for key, value in headers.items()})


def test_a_server_that_does_not_answer_is_left_for_the_next() -> None:
    servers = Servers([ONE, TWO])
    tries = Tries(servers, 60.0, 0.0)
    seen = []
    for _ in range(3):
        seen.append(servers.url)
        tries.failed("silence", 0.0)
    assert seen == [ONE, TWO, ONE]


def test_delays_grow_up_to_a_bound_and_end_with_the_time() -> None:
    tries = Tries(Servers([ONE]), 60.0, 0.0)
    now, delays = 0.0, []
    while now < 45.0:
        delays.append(tries.failed("silence", now))
        now += delays[-1]
    with pytest.raises(Unavailable, match="silence"):
        tries.failed("silence", 51.0)
    assert delays == sorted(delays)
    assert max(delays) == 10.0
    assert now <= 60.0


def test_a_full_queue_is_waited_for_as_long_as_it_says_and_at_the_same_server() -> None:
    servers = Servers([ONE, TWO])
    tries = Tries(servers, 60.0, 0.0)
    assert tries.answered(answer(429, Retry_After="7"), 0.0) == 7.0
    assert servers.url == ONE
    with pytest.raises(TooMany):
        tries.answered(answer(429, Retry_After="7"), 55.0)


def test_a_server_that_leads_is_followed_to_at_once_and_circles_end() -> None:
    servers = Servers([ONE])
    tries = Tries(servers, 5.0, 0.0)
    assert tries.answered(answer(307, Location="http://two:4680/v1/batch/jobs"), 0.0) == 0.0
    assert servers.url == TWO
    assert (tries.answered(answer(307, Location="//one:4680"), 0.0) or 0) > 0
    assert servers.url == ONE


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Invalid), (409, Conflict), (422, Unprocessable), (500, Failed), (418, Failed)]
)
def test_what_trying_again_does_not_help_is_told_at_once(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="no"):
        Tries(Servers([ONE]), 60.0, 0.0).answered(answer(status), 0.0)


def test_an_answer_that_is_no_json_is_told_as_it_is() -> None:
    with pytest.raises(Failed, match="Bad things"):
        Tries(Servers([ONE]), 60.0, 0.0).answered(answer(500, b"Bad things"), 0.0)


@pytest.mark.parametrize("url", ["", "ftp://one", "http://"])
def test_what_is_no_url_of_a_master_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        Servers([url])


def test_every_submission_has_a_key_of_its_own() -> None:
    keys = {ask_submit([{"command": "true"}], None, None, True).headers["Idempotency-Key"] for _ in range(10)}
    assert len(keys) == 10


def test_many_jobs_are_several_requests() -> None:
    assert [len(p) for p in portions([{}] * 2500)] == [1000, 1000, 500]


def test_large_jobs_are_more_requests_of_fewer() -> None:
    assert [len(p) for p in portions([{"command": "x" * 20_000}] * 1000)] == [419, 419, 162]
    assert [len(p) for p in portions([{}] * 1000, {"command": "x" * 20_000})] == [419, 419, 162]
    assert [len(p) for p in portions([{"command": "x" * (9 << 20)}] * 2)] == [1, 1], "each as it is"
