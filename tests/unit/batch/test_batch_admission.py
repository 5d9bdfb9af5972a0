"""Which jobs are taken: keys, limits, faults of every field, and jobs that no agent could ever run."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from batch_driver import Cluster

from corral.frameworks.batch.admission import UNKNOWN
from corral.frameworks.batch.dialect import (
    Faults,
    check_cursor,
    read_kill,
    read_owner,
    read_submission,
    read_wait,
    write_error,
)
from corral.frameworks.batch.spec import Submit
from corral.lib.errors import Conflict, CorralError, Invalid, TooLarge, TooMany, Unprocessable
from corral.net.routes import Request
from corral.runtime.core import Asked


def read(body: Any, media: str = "application/json", most: int = 10_000) -> Submit:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    request = Request(method="POST", path="/v1/batch/jobs", body=raw, headers={"content-type": media})
    return read_submission(request, most, 100_000)


def test_one_job_many_with_defaults_and_a_job_a_line_are_read_alike() -> None:
    one = read({"command": "true", "cpus": 1})
    many = read({"jobs": [{"command": "true"}], "defaults": {"cpus": 1}})
    lines = read(b'{"command": "true", "cpus": 1}\n\n', media="application/x-ndjson; charset=utf-8")
    assert one.jobs == many.jobs == lines.jobs
    assert one.jobs[0].mem == 64
    assert one.jobs[0].ttl == 86400


def test_a_job_has_its_own_value_before_the_default_and_null_means_absent() -> None:
    found = read({"jobs": [{"command": "a", "cpus": 2}, {"command": "b", "cpus": None}], "defaults": {"cpus": 1}})
    assert [job.cpus for job in found.jobs] == [2, 0.1]


@pytest.mark.parametrize(
    ("job", "field"),
    [
        ({}, "command"),
        ({"command": "a", "argv": ["b"]}, "command"),
        ({"command": "a", "cpus": "1"}, "cpus"),
        ({"command": "a", "cpus": -1}, "cpus"),
        ({"command": "a", "cpus": 0, "mem": 0}, "cpus"),
        ({"command": "a", "gpus": 1.5}, "gpus"),
        ({"command": "a", "priority": 101}, "priority"),
        ({"command": "a", "retries": -1}, "retries"),
        ({"command": "a", "ttl": 604_801}, "ttl"),
        ({"command": "a", "timeout": -1}, "timeout"),
        ({"command": "a", "owner": "a/b"}, "owner"),
        ({"command": "a", "owner": ""}, "owner"),
        ({"command": "a", "env": {"A=B": "c"}}, "env.A=B"),
        ({"command": "a", "env": {"A": "x", "B": 1}}, "env.B"),
        ({"command": "a", "labels": {"A": None}}, "labels.A"),
        ({"command": "a", "colour": 1}, "colour"),
        ({"command": "a", "array": {}}, "array.count"),
        ({"command": "a", "array": {"count": 2, "max_running": 10**20}}, "array.max_running"),
        ({"command": "a", "container": {"image": "a", "colour": 1}}, "container.colour"),
        ({"command": "a", "array": {"count": 0}}, "array.count"),
        ({"command": "a", "array": {"count": 2, "max_running": -1}}, "array.max_running"),
        ({"command": "a", "constraints": [["zone", "NEARBY", "x"]]}, "constraints"),
        ({"command": "a", "constraints": [["zone", "LIKE", "("]]}, "constraints"),
        ({"command": "a", "constraints": [["zone", "unique", "x"]]}, "constraints"),
        ({"command": "a", "callback": "ftp://x"}, "callback"),
        ({"command": "a", "container": {"image": ""}}, "container.image"),
        ({"command": "a", "container": {"image": "a", "volumes": [{"container_path": "x"}]}}, "container.volumes"),
        ({"command": "a", "fetch": [{"uri": "nothing"}]}, "fetch"),
        ({"command": "a", "delivery": "exactly-once"}, "delivery"),
        ({"argv": [""]}, "argv"),
        ({"command": "a\x00b"}, "command"),
    ],
)
def test_a_fault_is_told_with_the_job_and_the_field(job: dict[str, Any], field: str) -> None:
    with pytest.raises(Faults) as caught:
        read({"jobs": [{"command": "true"}, job]})
    assert (caught.value.errors[0]["index"], caught.value.errors[0]["field"]) == (1, field)


def test_all_faults_of_a_request_are_told_at_once() -> None:
    with pytest.raises(Faults) as caught:
        read({"jobs": [{"command": "a", "cpus": "x"}, {"command": "a"}, {"command": "a", "colour": 1}]})
    assert [error["index"] for error in caught.value.errors] == [0, 2]
    assert "colour" in caught.value.errors[1]["message"]
    body = msgspec.json.decode(write_error(caught.value, Request(method="POST", path="/")).body)
    assert set(body) == {"message", "errors"}


BROKEN = (
    b"", b"  ", b"[]", b"nope", b'{"jobs": 1}', b'{"jobs": [1]}', b'{"jobs": [], "x": 1}', b'"\xff"', b"[" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("body", BROKEN)
def test_a_body_that_is_no_submission_is_refused_with_a_sentence(body: bytes) -> None:
    with pytest.raises(Invalid):
        read(body)


def test_more_jobs_than_a_request_may_have_are_refused() -> None:
    with pytest.raises(TooLarge):
        read({"jobs": [{"command": "true"}] * 4}, most=3)


def test_a_key_makes_a_repeated_job_the_one_that_is_there(cluster: Cluster) -> None:
    first = cluster.submit({"key": "a"}, {"key": "b"})
    again = cluster.submit({"key": "b"}, {"key": "c"}, {"key": "c"})
    assert again.ids[0] == first.ids[1]
    assert again.ids[1] == again.ids[2] != first.ids[0]
    assert again.duplicates == {0, 2}
    assert cluster.wanted() == 3


def test_a_key_of_another_owner_is_another_key(cluster: Cluster) -> None:
    first = cluster.submit({"key": "a", "owner": "ada"}, {"key": "a", "owner": "bob"})
    assert not first.duplicates


def test_a_key_that_stands_for_another_command_is_refused_and_nothing_is_taken(cluster: Cluster) -> None:
    cluster.submit({"key": "a", "command": "one"})
    with pytest.raises(Conflict):
        cluster.submit({"command": "new"}, {"key": "a", "command": "two"})
    assert cluster.wanted() == 1


def test_a_key_is_free_again_when_its_job_is_forgotten(cluster: Cluster) -> None:
    first = cluster.submit({"key": "a", "ttl": 10})
    cluster.finish(*cluster.start())
    cluster.advance(15.0)
    assert cluster.submit({"key": "a", "ttl": 10}).ids != first.ids


@pytest.mark.parametrize("key", ["k" * 256, b"\xff\xfe".decode(errors="surrogateescape")])
def test_a_key_that_no_record_could_hold_is_refused(key: str) -> None:
    headers = {"idempotency-key": key}
    with pytest.raises(Invalid, match="the header Idempotency-Key"):
        read_submission(Request(method="POST", path="", body=b'{"command": "true"}', headers=headers), 10, 10)


def test_a_repeated_request_gets_the_same_answer_even_after_a_crash(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(bundle=2)
    cluster.submit({"key": "k"})
    jobs: list[dict[str, Any]] = [{}, {"key": "k"}, {}, {}, {"command": "x"}]
    first = cluster.submit(*jobs, key="request-1")
    assert first.duplicates == {1}
    for _ in range(2):
        again = cluster.submit(*jobs, key="request-1")
        assert again.ids == first.ids
        assert again.duplicates == {0, 1, 2, 3, 4}
        cluster.recover()
    with pytest.raises(Conflict):
        cluster.submit({"command": "other"}, key="request-1")


def test_when_the_queue_is_full_a_request_is_refused_whole_and_with_a_time(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(most_queued=3)
    cluster.submit({}, {})
    with pytest.raises(TooMany) as caught:
        cluster.submit({}, {})
    assert 1 <= caught.value.retry_after_s <= 60
    assert write_error(caught.value, Request(method="POST", path="/")).headers["Retry-After"]
    assert cluster.stats()["states"]["QUEUED"] == 2
    cluster.finish(*cluster.start())
    cluster.submit({}, {}, {})
    with pytest.raises(TooLarge):
        cluster.submit(*[{}] * 4)


def test_an_owner_may_have_a_limit_of_its_own(cluster: Cluster) -> None:
    cluster.set_owner("ada", max_queued=1)
    cluster.submit({"owner": "ada"}, {"owner": "bob"}, {"owner": "bob"})
    with pytest.raises(TooMany):
        cluster.submit({"owner": "ada"})


def test_an_array_counts_with_all_its_elements(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(most_queued=10)
    cluster.submit({"array": {"count": 8}})
    with pytest.raises(TooMany):
        cluster.submit({"array": {"count": 3}})


def ask(cluster: Cluster, *jobs: dict[str, Any]) -> int:
    """Submit and do not wait for the answer."""
    cluster._asks += 1
    cluster.send(Asked(cluster._asks, read({"jobs": [{"command": "true", **job} for job in jobs]})))
    cluster.settle()
    return cluster._asks


def test_a_job_that_no_agent_could_run_is_refused_and_told_what_the_largest_has(cluster: Cluster) -> None:
    number = ask(cluster, {"cpus": 64})
    assert number not in cluster.replies
    assert cluster.wanted() == 1
    cluster.explain(never=True, detail="wants cpus 64, the largest agent has 8")
    error = cluster.replies.pop(number)
    assert isinstance(error, Unprocessable)
    assert "the largest agent has 8" in error.message
    assert cluster.stats()["states"]["QUEUED"] == 0
    assert cluster.wanted() == 0


def test_a_job_that_has_to_wait_is_not_taken_for_one_that_never_runs(cluster: Cluster) -> None:
    number = ask(cluster, {"cpus": 2})
    cluster.explain(detail="wants cpus 2, 1 is free")
    found = cluster.replies.pop(number)
    assert "1 is free" in cluster.reason(found.ids[0])
    assert ask(cluster, {"cpus": 2}) in cluster.replies, "what is known is not asked again"


def test_an_offer_proves_that_a_job_can_run(cluster: Cluster) -> None:
    number = ask(cluster, {"cpus": 2})
    cluster.offer()
    found = cluster.replies.pop(number)
    assert cluster.offer() == [f"{found.ids[0]}.1"]


def test_without_a_word_of_the_master_the_job_is_taken_with_a_notice(cluster: Cluster) -> None:
    number = ask(cluster, {"cpus": 2})
    cluster.advance(4.0)
    found = cluster.replies.pop(number)
    assert found.notices
    assert cluster.told("jobs wait for an agent")


def test_jobs_that_agents_may_yet_come_for_are_taken_when_somebody_says_so(cluster: Cluster) -> None:
    job = cluster.submit({"cpus": 64}, check=False).ids[0]
    cluster.explain(never=True, detail="wants cpus 64, the largest agent has 8")
    assert "no agent could ever run it" in cluster.reason(job)
    assert len(cluster.told("jobs can never run")) == 1
    cluster.finish(*cluster.start())
    assert cluster.state_of(job) == "SUCCEEDED"


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (read_kill, b"{}"),
        (read_kill, b'{"ids": ["a"], "owner": "b"}'),
        (read_kill, b'{"state": "BUSY"}'),
        (read_wait, b'{"ids": ["a"], "timeout": 61}'),
        (read_wait, b'{"ids": "a"}'),
        (read_wait, b""),
        (lambda body: read_owner(body, "a"), b'{"weight": 0}'),
        (lambda body: read_owner(body, "a"), b'{"max_running": -1}'),
        (lambda body: read_owner(body, "a"), b'{"max_running": 1000000000000000000000000000000}'),
        (lambda body: read_owner(body, "a"), b'{"max_queued": 18446744073709551616}'),
        (lambda body: read_owner(body, "a b"), b"{}"),
        (lambda body: check_cursor(body.decode()), b"garbage"),
    ],
)
def test_other_bodies_are_refused_when_they_cannot_be_meant(read: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(CorralError) as caught:
        read(body)
    assert caught.value.status == 400


def test_what_could_never_run_and_is_taken_all_the_same_says_so_in_the_answer(cluster: Cluster) -> None:
    assert cluster.submit({"cpus": 64}, check=False).notices == (UNKNOWN,)
    cluster.explain(never=True, detail="wants cpus 64, the largest agent has 8")
    (notice,) = cluster.submit({"cpus": 64}, {"cpus": 64}, check=False).notices
    assert "could ever run 2 of these jobs: wants cpus 64, the largest agent has 8" in notice


def test_one_that_can_never_run_is_refused_though_nobody_knows_of_another_yet(cluster: Cluster) -> None:
    number = ask(cluster, {"cpus": 64}, {"cpus": 2})
    assert cluster.wanted() == 2
    cluster.explain(never=True, detail="wants cpus 64, the largest agent has 8", least_cpus=64)
    error = cluster.replies.pop(number)
    assert isinstance(error, Unprocessable)
    assert "could ever run 1 of these jobs: wants cpus 64" in error.message


def test_a_request_that_the_store_could_not_take_at_once_is_refused(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(most_commit_bytes=100_000)
    cluster.submit(*[{"command": "x" * 500}] * 100)
    with pytest.raises(TooLarge, match="send fewer"):
        cluster.submit(*[{"command": "x" * 500}] * 200)
    assert cluster.stats()["states"]["QUEUED"] == 100


def test_what_is_written_for_a_request_stays_below_what_was_reckoned(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(most_commit_bytes=1_000_000)
    cluster.submit(*[{"command": f"echo {n}", "key": f"key-{n}"} for n in range(300)])
    cluster.submit(*[{"command": f"echo {n}", "key": f"key-{n}"} for n in range(600)], key="all")
    written = sum(len(key) + len(value) for key, value in cluster.records.items() if key.startswith("bundle/"))
    reckoned = sum(len(msgspec.msgpack.encode(j.spec)) + 40 for j in cluster.state.all_jobs()) + 2 * 16_384
    assert written <= reckoned
