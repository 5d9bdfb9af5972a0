"""The batch API over HTTP, its clients and its commands, against a real `corral dev` with real processes."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from corral_daemons import Site, ask, run_corral, wait_until

from corral.client import AsyncBatchClient, BatchClient, BatchExecutor, JobEnded
from corral.lib.errors import Invalid, NotFound, Unavailable

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Site(tmp_path_factory.mktemp("corral")) as daemons:
        yield daemons.dev("--set", "batch.most_jobs=50").url


@pytest.fixture
def client(url: str) -> Iterator[BatchClient]:
    with BatchClient(NOWHERE, url) as found:
        yield found


def submit(url: str, *jobs: dict[str, Any]) -> list[str]:
    code, found = ask(url, "POST", "/v1/batch/jobs", {"jobs": [{"cpus": 0.01, "mem": 8, **job} for job in jobs]})
    assert code == 201, found
    assert found["count"] == len(jobs)
    return [job["id"] for job in found["jobs"]]


def test_every_call_answers_with_its_status(url: str) -> None:
    def status(method: str, path: str, body: Any = None) -> int:
        return ask(url, method, f"/v1/batch{path}", body)[0]

    done, slow = submit(url, {"command": "echo out; echo err >&2"}, {"command": "sleep 60"})
    code, found = ask(url, "POST", "/v1/batch/wait", {"ids": [done, slow], "timeout": 20, "any": True})
    assert (code, found["done"]) == (200, [done])
    assert status("GET", f"/jobs/{done}") == 200
    assert status("GET", "/jobs/nobody") == 404
    assert ask(url, "GET", f"/v1/batch/jobs/{done}/log") == (200, "out\n")
    assert ask(url, "GET", f"/v1/batch/jobs/{done}/log?stream=stderr&offset=1&length=1") == (200, "r")
    assert status("GET", f"/jobs/{done}/log?stream=noise") == 400
    assert status("GET", f"/jobs/{done}/log?attempt=2") == 404
    assert status("DELETE", f"/jobs/{done}") == 204
    assert status("PATCH", f"/jobs/{done}", {"priority": 3}) == 409
    assert status("PATCH", f"/jobs/{slow}", {"priority": 300}) == 400
    assert status("DELETE", f"/jobs/{slow}") == 202
    code, found = ask(url, "POST", "/v1/batch/query", {"ids": [done, "x"], "fields": ["state"]})
    assert (code, found) == (200, {"jobs": [{"id": done, "state": "SUCCEEDED"}], "missing": ["x"]})
    assert status("POST", "/kill", {}) == 400
    assert status("POST", "/kill", {"owner": "nobody"}) == 202
    assert status("POST", "/jobs", {"jobs": [{"command": "true"}] * 51}) == 413
    assert status("POST", "/jobs", b"{") == 400
    assert status("POST", "/jobs", {"command": "true", "cpus": 4096}) == 422
    assert status("PUT", "/owners/ada", {"weight": 2}) == 200
    assert status("PUT", "/owners/ada", {"weight": "two"}) == 400
    assert ask(url, "GET", "/v1/batch/owners/ada")[1]["weight"] == 2
    assert ask(url, "GET", "/v1/batch/stats")[1]["states"]["SUCCEEDED"] >= 1
    assert "corral_batch_jobs" in ask(url, "GET", "/v1/batch/metrics")[1]
    assert status("PUT", "/jobs") == 405


def test_a_change_of_an_owner_leaves_the_servers_bound_the_servers(url: str) -> None:
    assert run_corral(url, "batch", "owner", "eve", "--weight", "2").code == 0
    found = ask(url, "GET", "/v1/batch/owners/eve")[1]
    assert (found["weight"], found["max_queued"], found["max_queued_set"]) == (2, 200_000, False)
    assert run_corral(url, "batch", "owner", "eve", "--max-queued", "7").code == 0
    assert run_corral(url, "batch", "owner", "eve", "--max-running", "3").code == 0
    found = ask(url, "GET", "/v1/batch/owners/eve")[1]
    assert (found["weight"], found["max_running"], found["max_queued"], found["max_queued_set"]) == (2, 3, 7, True)


def test_errors_name_the_job_and_the_field(url: str) -> None:
    code, found = ask(url, "POST", "/v1/batch/jobs", {"jobs": [{"command": "true"}, {"command": "a", "colour": 1}]})
    assert code == 400
    assert found["errors"][0]["index"] == 1
    assert "colour" in found["message"]


def test_a_number_that_no_record_holds_is_refused_and_ends_nothing(url: str) -> None:
    for field in ("max_running", "max_queued"):
        assert ask(url, "PUT", "/v1/batch/owners/ada", {field: 10**30})[0] == 400
    array = {"command": "true", "array": {"count": 2, "max_running": 10**30}}
    assert ask(url, "POST", "/v1/batch/jobs", array)[0] == 400
    assert ask(url, "GET", "/v1/batch/owners/ada")[0] == 200


def test_a_page_begins_nowhere_but_where_another_ended(url: str) -> None:
    submit(url, *[{"command": "true", "name": "paged"}] * 3)
    code, first = ask(url, "GET", "/v1/batch/jobs?name=paged&limit=2")
    assert (code, len(first["jobs"])) == (200, 2)
    code, rest = ask(url, "GET", f"/v1/batch/jobs?name=paged&limit=2&cursor={first['next_cursor']}")
    assert (code, len(rest["jobs"]), rest["next_cursor"]) == (200, 1, None)
    for query in ("cursor=garbage", "limit=0", "limit=-1", "limit=many", "state=BUSY"):
        code, found = ask(url, "GET", f"/v1/batch/jobs?{query}")
        assert (code, query.partition("=")[0] in found["message"]) == (400, True)


def test_a_job_without_a_log_says_why(url: str) -> None:
    (array,) = submit(url, {"command": "echo $CORRAL_ARRAY_INDEX", "array": {"count": 2}})
    code, found = ask(url, "POST", "/v1/batch/jobs?check=false", {"command": "true", "cpus": 4096})
    (never,) = found["jobs"]
    ask(url, "POST", "/v1/batch/wait", {"ids": [array], "timeout": 20})
    code, found = ask(url, "GET", f"/v1/batch/jobs/{array}/log")
    assert (code, f"{array}[0]" in found["message"]) == (404, True)
    assert ask(url, "GET", f"/v1/batch/jobs/{array}[1]/log") == (200, "1\n")
    assert "has not been launched yet" in ask(url, "GET", f"/v1/batch/jobs/{never['id']}/log")[1]["message"]
    ask(url, "DELETE", f"/v1/batch/jobs/{never['id']}")
    assert "was never launched" in ask(url, "GET", f"/v1/batch/jobs/{never['id']}/log")[1]["message"]


def test_who_follows_the_events_hears_at_once_that_they_are_followed(url: str) -> None:
    for accept, line in (("application/json", b"\n"), ("text/event-stream", b":\n")):
        begun = time.monotonic()
        with urlopen(Request(f"{url}/v1/batch/events", headers={"Accept": accept}), timeout=30) as stream:
            assert stream.readline() == line
        assert time.monotonic() - begun < 5.0


def test_a_log_can_be_followed_to_its_end(url: str) -> None:
    (job,) = submit(url, {"command": "echo one; sleep 1; echo two"})
    wait_until(lambda: ask(url, "GET", f"/v1/batch/jobs/{job}")[1]["state"] == "RUNNING" or None, "it runs")
    assert ask(url, "GET", f"/v1/batch/jobs/{job}/log?follow=true") == (200, "one\ntwo\n")


def test_a_retried_job_knows_its_attempt_and_has_a_log_of_each(url: str) -> None:
    (job,) = submit(url, {"command": "echo attempt $CORRAL_ATTEMPT; [ $CORRAL_ATTEMPT = 2 ]", "retries": 3})
    ask(url, "POST", "/v1/batch/wait", {"ids": [job], "timeout": 20})
    found = ask(url, "GET", f"/v1/batch/jobs/{job}")[1]
    assert (found["state"], found["attempt"], found["failures"]) == ("SUCCEEDED", 2, 1)
    assert ask(url, "GET", f"/v1/batch/jobs/{job}/log?attempt=1") == (200, "attempt 1\n")
    assert ask(url, "GET", f"/v1/batch/jobs/{job}/log") == (200, "attempt 2\n")


def test_a_job_that_runs_too_long_is_timed_out(url: str) -> None:
    (job,) = submit(url, {"command": "sleep 60", "timeout": 1, "grace": 0.5})
    ask(url, "POST", "/v1/batch/wait", {"ids": [job], "timeout": 20})
    assert ask(url, "GET", f"/v1/batch/jobs/{job}")[1]["state"] == "TIMEOUT"


def test_events_tell_every_state_and_go_on_from_a_cursor(url: str) -> None:
    seen: list[dict[str, Any]] = []
    begun, enough = threading.Event(), threading.Event()

    def follow() -> None:
        with urlopen(Request(f"{url}/v1/batch/events"), timeout=30) as stream:
            begun.set()
            for line in stream:
                if line.strip():
                    seen.append(json.loads(line))
                    if seen[-1]["event"] == "SUCCEEDED":
                        break
        enough.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    # The answer's head comes with its first bytes, so jobs are submitted until one is seen.
    for _ in range(20):
        submit(url, {"command": "true", "name": "seen"})
        if enough.wait(1.0):
            break
    assert [event["event"] for event in seen if event["id"] == seen[0]["id"]][:1] in (["STARTING"], ["RUNNING"])
    with urlopen(f"{url}/v1/batch/events?since={seen[0]['cursor']}", timeout=30) as stream:
        again = json.loads(next(line for line in stream if line.strip()))
    assert again == seen[1]


def test_the_plain_client_does_all_of_it_and_finds_the_master_that_answers(client: BatchClient) -> None:
    jobs = client.submit([{"command": f"echo {n}", "labels": {"set": "plain"}} for n in range(5)], defaults={"mem": 8})
    pending = [job.id for job in jobs]
    while pending:
        pending = client.wait(pending).pending
    assert client.log(jobs[3].id) == b"3\n"
    assert {job.id for job in client.jobs(label="set:plain")} == {job.id for job in jobs}
    assert all(job.succeeded for job in client.query([job.id for job in jobs]).values())
    (slow,) = client.submit([{"command": "sleep 60", "mem": 8}])
    client.kill(slow.id)
    assert client.wait_for(slow.id, timeout_s=20).state == "KILLED"
    with pytest.raises(NotFound):
        client.get("nobody")
    with pytest.raises(Invalid, match=r"jobs\[0\].cpus"):
        client.submit([{"command": "true", "cpus": -1}])


def test_a_call_with_a_key_can_be_repeated(client: BatchClient) -> None:
    jobs = [{"command": "true", "mem": 8}] * 3
    first = client.submit(jobs, key="nightly")
    again = client.submit(jobs, key="nightly")
    assert [job.id for job in first] == [job.id for job in again]
    assert all(job.duplicate for job in again)


def test_nobody_there_is_an_error_when_the_time_is_up() -> None:
    with BatchClient(NOWHERE, retry_s=0.3) as client, pytest.raises(Unavailable):
        client.stats()


async def test_the_asynchronous_client_does_the_same(url: str) -> None:
    async with AsyncBatchClient(NOWHERE, url) as client:
        (job,) = await client.submit([{"argv": ["printf", "%s", "no shell"], "mem": 8}])
        assert (await client.wait_for(job.id, timeout_s=20)).succeeded
        assert await client.log(job.id) == b"no shell"
        assert [found.id async for found in client.jobs(state="SUCCEEDED") if found.id == job.id] == [job.id]
        with pytest.raises(NotFound):
            await client.get("nobody")


async def test_a_log_is_followed_from_before_its_first_word_to_its_last(url: str) -> None:
    async with AsyncBatchClient(url) as client:
        (job,) = await client.submit([{"command": "echo one; sleep 1; echo two", "mem": 8}])
        pieces = [piece async for piece in client.follow_log(job.id)]
        assert b"".join(pieces) == b"one\ntwo\n"
        assert len(pieces) > 1, "as it comes"
        assert [piece async for piece in client.follow_log(job.id, offset=4)] == [b"two\n"]


def test_the_executor_runs_commands_and_tells_what_failed(url: str) -> None:
    with BatchExecutor(BatchClient(url), cpus=0.01, mem=8) as executor:
        good = [executor.submit(f"exit $(({n} - {n}))") for n in range(20)]
        bad = executor.submit("sh", "-c", "exit 7")
        wrong = executor.submit("true", retries=-1)
        slow = executor.submit("sleep", 60)
        with pytest.raises(TypeError):
            executor.submit(print, "hello")
        assert all(future.result(timeout=30).exit_code == 0 for future in good)
        with pytest.raises(JobEnded) as caught:
            bad.result(timeout=30)
        assert caught.value.job.exit_code == 7
        assert isinstance(wrong.exception(timeout=30), Invalid)
        wait_until(lambda: slow.job_id, "it is taken")
        assert slow.kill()
        with pytest.raises(JobEnded, match="KILLED"):
            slow.result(timeout=30)
        assert [job.exit_code for job in executor.map([["true"], "exit 0"], timeout=30)] == [0, 0]
    with pytest.raises(RuntimeError):
        executor.submit("true")


def test_the_commands_submit_follow_and_cancel(url: str, tmp_path: Path) -> None:
    told = run_corral(url, "batch", "submit", "--mem", "8", "--wait", "--", "echo hello; exit 3")
    job = told.out.strip()
    assert told.code == 1
    assert "exited with status 3" in told.err
    assert run_corral(url, "batch", "logs", job).out == "hello\n"
    run_corral(url, "batch", "owner", "late", "--pause")
    job = run_corral(url, "batch", "submit", "--owner", "late", "--", "echo one; sleep 1; echo two").out.strip()
    resumes = threading.Timer(1.0, run_corral, (url, "batch", "owner", "late", "--resume"))
    resumes.start()
    assert run_corral(url, "batch", "logs", "-f", job).out == "one\ntwo\n"
    resumes.join()
    (tmp_path / "jobs.ndjson").write_text('{"command": "true"}\n{"command": "sleep 60"}\n', encoding="utf-8")
    told = run_corral(
        url, "batch", "submit", "--file", str(tmp_path / "jobs.ndjson"), "--mem", "8", "--label", "set=cli"
    )
    assert len(told.out.split()) == 2
    assert run_corral(url, "batch", "ls", "--label", "set:cli", "-o", "json").json[0]["labels"] == {"set": "cli"}
    assert "ended" in run_corral(url, "batch", "cancel", "--label", "set:cli").err
    told = run_corral(url, "batch", "submit", "--no-check", "--cpus", "99", "--", "true")
    assert told.code == 0
    assert "no agent" in told.err
    assert run_corral(url, "batch", "cancel", told.out.strip()).code == 0
    assert run_corral(url, "batch", "cancel", "nobody").code == 3
    assert run_corral(url, "batch", "submit").code == 2


def test_jobs_outlive_the_framework_that_runs_them(daemons: Site) -> None:
    master = daemons.dev("--set", "master.frameworks=")
    words = ("framework", "batch", "--master", master.url, "--work-dir", str(daemons.directory / "batch"))
    first = daemons.start(*words, "--listen", "127.0.0.1:0")
    url = first.url
    (running,) = submit(url, {"command": "echo begun; sleep 3; echo done"})
    wait_until(lambda: ask(url, "GET", f"/v1/batch/jobs/{running}")[1]["state"] == "RUNNING" or None, "it runs")
    heard: list[bytes] = []
    follower = BatchClient(url)
    follows = threading.Thread(target=lambda: heard.extend(follower.follow_log(running)), daemon=True)
    follows.start()
    wait_until(lambda: heard, "the first words")
    ask(url, "PUT", "/v1/batch/owners/default", {"paused": True})
    (waiting,) = submit(url, {"command": "echo later"})
    first.kill()
    second = daemons.start(*words, "--listen", url.removeprefix("http://"))
    ask(second.url, "PUT", "/v1/batch/owners/default", {})
    with BatchClient(second.url) as client:
        assert client.wait_for(running, timeout_s=30).state == "SUCCEEDED"
        assert client.get(running).attempt == 1
        follows.join(30)
        assert b"".join(heard) == b"begun\ndone\n", "a log that is followed goes on over the change"
        assert client.wait_for(waiting, timeout_s=30).state == "SUCCEEDED"
