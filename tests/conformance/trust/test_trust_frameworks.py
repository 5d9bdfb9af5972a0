"""A framework elsewhere and its executor in a cluster with TLS, and several masters over one store."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from corral_daemons import UNCOMPILED, Site, run_corral, wait_until

from corral.mesos.recordio import RecordReader
from corral.net.access import Access
from corral.net.client import open_session
from etcd_servers import Etcd

TLS = ("--set", "trust.tls=on")
RESOURCES = "cpus:4;mem:2048;ports:[31000-31099]"
EXECUTOR = Path(__file__).with_name("lone_executor.py")


def join(site: Site, url: str, trust: Path, name: str = "node") -> None:
    given = {"CORRAL_CACERT": str(trust / "ca.pem"), "CORRAL_TOKEN": f"@{trust / 'operator.token'}"}
    token = run_corral(url, "token", "create", **given).out.strip()
    assert token.startswith("join_")
    site.start(
        "join", f"{token}@{url.replace('https://', '')}", "--work-dir", str(site.directory / name), "--name", name,
        "--listen", "127.0.0.1:0", "--runtime", "process", "--resources", RESOURCES,
    )  # fmt: skip


async def post(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], **headers: str
) -> aiohttp.ClientResponse:
    accept = {"Accept": "application/json", **headers}
    return await session.post(f"{url}/api/v1/scheduler", json=body, headers=accept)


async def read_events(stream: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    reader = RecordReader()
    async for chunk in stream.content.iter_any():
        for record in reader.feed(chunk):
            yield json.loads(record)


def test_a_framework_shows_its_token_and_its_executor_the_one_it_was_given(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        master = site.master(*TLS)
        trust = tmp_path / "master" / "trust"
        join(site, master.url, trust)
        given = {"CORRAL_CACERT": str(trust / "ca.pem"), "CORRAL_TOKEN": f"@{trust / 'operator.token'}"}
        token = run_corral(master.url, "token", "create", "--name", "lone", **given).out.strip()
        assert asyncio.run(work_as_framework(master.url, trust, token)) == "[401, 403] 200"
        shown = run_corral(master.url, "nodes", "-o", "json", **given).json
        assert token not in json.dumps(shown)


async def work_as_framework(url: str, trust: Path, token: str) -> str:
    info = {"user": "root", "name": "lone", "roles": ["*"], "capabilities": [{"type": "MULTI_ROLE"}]}
    subscribe = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
    async with open_session(Access(cacert=str(trust / "ca.pem"))) as session:
        refused = await post(session, url, subscribe)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="mesos-master-scheduler"'
    async with open_session(Access(cacert=str(trust / "ca.pem"), token=token)) as session:
        other = {**subscribe, "subscribe": {"framework_info": {**info, "principal": "somebody"}}}
        refused = await post(session, url, other)
        assert (refused.status, "names the principal 'somebody'" in await refused.text()) == (400, True)
        async with asyncio.timeout(40):
            return await run_task(session, url, subscribe)


async def run_task(session: aiohttp.ClientSession, url: str, subscribe: dict[str, Any]) -> str:
    """Launch one task with its executor from the first offer; the message of its first update."""
    stream = await post(session, url, subscribe)
    assert stream.status == 200, await stream.text()
    name = {"Mesos-Stream-Id": stream.headers["Mesos-Stream-Id"]}
    framework_id: Any = None
    launched = False
    async for event in read_events(stream):
        if event["type"] == "SUBSCRIBED":
            framework_id = event["subscribed"]["framework_id"]
        elif event["type"] == "OFFERS" and not launched:
            offer = event["offers"]["offers"][0]
            amounts = [{"name": n, "type": "SCALAR", "scalar": {"value": v}} for n, v in (("cpus", 0.1), ("mem", 64))]
            executor = {
                "type": "CUSTOM", "executor_id": {"value": "own"}, "framework_id": framework_id, "resources": amounts,
                "command": {"value": f"exec {sys.executable} {EXECUTOR}"},
            }  # fmt: skip
            task = {
                "name": "t", "task_id": {"value": "t1"}, "agent_id": offer["agent_id"], "resources": amounts,
                "executor": executor,
            }  # fmt: skip
            launch = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
            accept = {"offer_ids": [offer["id"]], "operations": [launch], "filters": {}}
            answer = await post(
                session, url, {"type": "ACCEPT", "framework_id": framework_id, "accept": accept}, **name
            )
            assert answer.status == 202, await answer.text()
            launched = True
        elif event["type"] == "UPDATE":
            status = event["update"]["status"]
            assert status["state"] == "TASK_RUNNING", status
            await post(session, url, {"type": "TEARDOWN", "framework_id": framework_id}, **name)
            return str(status["message"])
    raise AssertionError("the stream ended")


def test_masters_of_one_store_share_an_authority_and_a_node_finds_the_next_leader(tmp_path: Path, etcd: Etcd) -> None:
    with Site(tmp_path) as site:
        passphrase = tmp_path / "passphrase"
        passphrase.write_text("a word of the masters\n")
        words = (
            "--listen", "127.0.0.1:0", "--store", f"{etcd.store}/trust-test", *TLS, *UNCOMPILED,
            "--set", f"trust.ca_passphrase_file={passphrase}",
        )  # fmt: skip
        first = site.start("master", "--work-dir", str(tmp_path / "m1"), *words)
        second = site.start("master", "--work-dir", str(tmp_path / "m2"), *words)
        ones, others = tmp_path / "m1" / "trust", tmp_path / "m2" / "trust"
        assert (ones / "ca.pem").read_bytes() == (others / "ca.pem").read_bytes()
        given = {"CORRAL_CACERT": str(ones / "ca.pem"), "CORRAL_TOKEN": f"@{ones / 'operator.token'}"}
        # Through the one that does not lead: it passes on what it is asked, with the caller's own credentials.
        join(site, second.url, ones)
        assert run_corral(second.url, "nodes", CORRAL_CACERT=given["CORRAL_CACERT"]).code == 6
        wait_until(lambda: reachable(second.url, given), "the node, seen through the follower")
        joined = json.loads((tmp_path / "node" / "trust" / "joined.json").read_text())["master"].split(",")
        assert set(joined) == {first.url, second.url}
        # What a follower answers for itself is guarded too: the token is looked up in the store.
        metrics = ["-m", "10", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", given["CORRAL_CACERT"]]
        assert status_of(*metrics, f"{second.url}/metrics") == "401"
        secret = (ones / "operator.token").read_text().strip()
        assert status_of(*metrics, "-H", f"Authorization: Bearer {secret}", f"{second.url}/metrics") == "200"
        assert status_of(*metrics, "-X", "POST", f"{second.url}/corral/v1/process/renew") == "401"
        first.stop()
        wait_until((others / "operator.token").exists, "the next leader's token for its operator")
        wait_until(lambda: reachable(second.url, given), "the node with the next leader")
        wrong = site.start("master", "--work-dir", str(tmp_path / "m3"), *words[:-2], ready=False)
        assert wrong.process.wait(20) == 2
        assert "is enciphered, give its passphrase (trust.ca_passphrase_file)" in wrong.text


def reachable(url: str, given: dict[str, str]) -> bool:
    answer = run_corral(url, "nodes", "-o", "json", **given)
    return answer.code == 0 and [node["state"] for node in answer.json] == ["reachable"]


def status_of(*words: str) -> str:
    return subprocess.run(["curl", *words], capture_output=True, text=True).stdout
