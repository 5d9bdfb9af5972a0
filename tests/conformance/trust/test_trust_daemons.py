"""Daemons that speak TLS, as real processes: nodes join, callers have tokens, everybody else is turned away."""

import dataclasses
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corral_daemons import UNCOMPILED, Answer, Daemon, Site, run_corral, wait_until

from corral.net.certificates import describe

TLS = ("--set", "trust.tls=on")


@dataclasses.dataclass
class Cluster:
    """A master with TLS on loopback and one node that has joined it."""

    site: Site
    master: Daemon
    agent: Daemon
    join_token: str

    @property
    def trust(self) -> Path:
        return self.site.directory / "master" / "trust"

    @property
    def host(self) -> str:
        return self.master.url.removeprefix("https://")

    def corral(self, *words: str, **environment: str) -> Answer:
        given = {"CORRAL_CACERT": str(self.trust / "ca.pem"), "CORRAL_TOKEN": f"@{self.trust / 'operator.token'}"}
        return run_corral(self.master.url, *words, **{**given, **environment})

    def curl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["curl", "-sS", "-m", "10", *words], capture_output=True, text=True)

    def secret(self) -> str:
        return (self.trust / "operator.token").read_text().strip()

    def serial(self) -> str:
        return describe((self.site.directory / "node" / "trust" / "identity.pem").read_bytes()).serial


def start(site: Site, *more: str) -> Cluster:
    master = site.master(*TLS, *more)
    trust = site.directory / "master" / "trust"
    made = run_corral(
        master.url, "token", "create", CORRAL_CACERT=str(trust / "ca.pem"), CORRAL_TOKEN=f"@{trust / 'operator.token'}"
    )
    assert made.code == 0, made
    token = made.out.strip()
    agent = join(site, token, master.url.removeprefix("https://"))
    cluster = Cluster(site, master, agent, token)
    wait_until(lambda: [n for n in nodes(cluster) if n["state"] == "reachable"], "the node in the list")
    return cluster


def join(site: Site, token: str, host: str, *more: str, name: str = "node", ready: bool = True) -> Daemon:
    return site.start(
        "join", f"{token}@{host}", "--work-dir", str(site.directory / name), "--listen", "127.0.0.1:0", "--name", name,
        "--runtime", "process", "--resources", "cpus:4;mem:2048;ports:[31000-31099]", *more, ready=ready,
    )  # fmt: skip


def nodes(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.corral("nodes", "-o", "json").json
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Site(tmp_path_factory.mktemp("trust")) as site:
        yield start(site)


def test_a_node_joins_and_work_runs_on_it_over_tls_alone(cluster: Cluster) -> None:
    ran = cluster.corral("run", "--process", "--name", "echo", "--", "sh", "-c", "echo said; exec sleep 1000")
    assert ran.code == 0, ran
    wait_until(lambda: cluster.corral("logs", "echo") == Answer(0, "said\n", ""), "what it said")
    answer = cluster.corral("exec", "echo", "--", "sh", "-c", "echo inside; exit 7")
    assert (answer.code, answer.out.strip()) == (7, "inside")
    (node,) = nodes(cluster)
    assert node["url"].startswith("https://")


def test_keys_are_their_owners_alone(cluster: Cluster) -> None:
    for directory in (cluster.trust, cluster.site.directory / "node" / "trust"):
        assert directory.stat().st_mode & 0o777 == 0o700
        secrets = [path for path in directory.iterdir() if path.name not in ("ca.pem", "joined.json")]
        assert {path.name: path.stat().st_mode & 0o777 for path in secrets} == {path.name: 0o600 for path in secrets}
    assert {p.stat().st_mode & 0o777 for p in (cluster.site.directory / "master").glob("master.db*")} == {0o600}


def test_curl_verifies_the_master_and_shows_a_token_in_either_form(cluster: Cluster) -> None:
    url, ca = f"{cluster.master.url}/v2/apps", ("--cacert", str(cluster.trust / "ca.pem"))
    refused = cluster.curl(*ca, "-i", url)
    assert " 401 " in refused.stdout
    assert 'WWW-Authenticate: Basic realm="mesos-master-readwrite"' in refused.stdout
    assert "say who asks" in refused.stdout
    for credentials in (("-H", f"Authorization: Bearer {cluster.secret()}"), ("-u", f"ops:{cluster.secret()}")):
        assert "apps" in json.loads(cluster.curl(*ca, *credentials, url).stdout)
    assert " 401 " in cluster.curl(*ca, "-i", "-u", "ops:corral_00_00", url).stdout
    assert cluster.curl(url).returncode == 60
    assert json.loads(cluster.curl(*ca, f"{cluster.master.url}/health/live").stdout) == {"live": True}
    assert " 401 " in cluster.curl(*ca, "-i", f"{cluster.master.url}/metrics").stdout


def test_an_agent_asks_the_master_whose_a_token_is(cluster: Cluster) -> None:
    (node,) = nodes(cluster)
    url, ca = f"{node['url']}/corral/v1/tasks", ("--cacert", str(cluster.trust / "ca.pem"))
    assert " 401 " in cluster.curl(*ca, "-i", url).stdout
    assert "not known here" in cluster.curl(*ca, "-H", "Authorization: Bearer corral_00_00", url).stdout
    assert "tasks" in json.loads(cluster.curl(*ca, "-H", f"Authorization: Bearer {cluster.secret()}", url).stdout)


def test_plain_http_on_a_tls_port_is_told_what_to_do(cluster: Cluster) -> None:
    said = cluster.curl(
        "-i", f"http://{cluster.host}/v2/apps", "-H", f"Authorization: Bearer {cluster.secret()}"
    ).stdout
    assert said.startswith("HTTP/1.1 400 ")
    assert f"this port speaks TLS; ask https://{cluster.host}/v2/apps" in said
    answer = run_corral(f"http://{cluster.host}", "nodes")
    assert (answer.code, "this port speaks TLS" in answer.err) == (2, True)


def test_a_client_that_trusts_another_authority_is_told_so(cluster: Cluster, tmp_path: Path) -> None:
    first = run_corral("", "ca", "init", "--work-dir", str(tmp_path / "other"))
    again = run_corral("", "ca", "init", "--work-dir", str(tmp_path / "other"))
    assert (first.code, len(first.out.strip()), again.code) == (0, 32, 4), (first, again)
    with Site(tmp_path) as site:
        other = start_master(site, "other")
        ca = str(tmp_path / "other" / "trust" / "ca.pem")
        answer = cluster.corral("nodes", CORRAL_CACERT=ca)
        assert (answer.code, "authority that is not trusted here" in answer.err) == (5, True), answer
        foreign = cluster.corral("token", "create").out.strip()
        refused = run_corral(
            "", "join", f"{foreign}@{other.url.removeprefix('https://')}", "--work-dir", str(tmp_path / "n")
        )
        assert (refused.code, "not of the cluster that made the token" in refused.err) == (6, True), refused
        assert not (tmp_path / "n" / "trust").exists()
        token = (tmp_path / "other" / "trust" / "operator.token").read_text().strip()
        answer = cluster.corral("nodes", CORRAL_TOKEN=token)
        assert (answer.code, "is not known here" in answer.err) == (6, True), answer


def start_master(site: Site, name: str) -> Daemon:
    return site.start(
        "master", "--listen", "127.0.0.1:0", "--work-dir", str(site.directory / name), *TLS, *UNCOMPILED,
        "--set", "master.frameworks=",
    )  # fmt: skip


def test_a_token_joins_one_node_and_no_other(cluster: Cluster, tmp_path: Path) -> None:
    refused = run_corral("", "join", f"{cluster.join_token}@{cluster.host}", "--work-dir", str(tmp_path / "n"))
    assert (refused.code, "was used by node at" in refused.err) == (6, True), refused
    assert not (tmp_path / "n" / "trust").exists()
    again = run_corral(
        "",
        "join",
        f"{cluster.join_token}@{cluster.host}",
        "--work-dir",
        str(cluster.site.directory / "node"),
        "--no-start",
    )
    assert (again.code, "already joined" in again.err + again.out) == (0, True), again


def test_a_tls_client_on_a_plain_port_is_told_so(cluster: Cluster, tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        plain = site.start(
            "master", "--listen", "127.0.0.1:0", "--work-dir", str(tmp_path / "plain"), *UNCOMPILED,
            "--set", "master.frameworks=",
        )  # fmt: skip
        host = plain.url.removeprefix("http://")
        answer = cluster.corral("--addr", f"https://{host}", "nodes")
        assert (answer.code, "does not speak TLS; write http://" in answer.err) == (5, True), answer
        refused = run_corral("", "join", f"{cluster.join_token}@{host}", "--work-dir", str(tmp_path / "n"))
        assert (refused.code, "does not speak TLS" in refused.err) == (5, True), refused
        answer = run_corral(plain.url, "token", "create")
        assert (answer.code, "trust.tls=on" in answer.err) == (4, True), answer


def test_tokens_are_made_listed_and_revoked(cluster: Cluster) -> None:
    made = cluster.corral("token", "create", "--name", "ci", "--role", "ads", "--ttl", "1h", "-o", "json").json
    assert (made["kind"], made["roles"]) == ("caller", ["ads"])
    assert cluster.corral("nodes", CORRAL_TOKEN=made["token"]).code == 0
    refused = cluster.corral("token", "create", CORRAL_TOKEN=made["token"])
    assert (refused.code, "may not change who is trusted" in refused.err) == (6, True)
    shown = {t["id"]: t for t in cluster.corral("token", "ls", "-o", "json").json}
    assert shown[made["id"]]["state"] == "valid"
    assert made["token"].split("_")[2] not in json.dumps(shown)
    assert cluster.corral("token", "revoke", "ci").code == 0
    answer = cluster.corral("nodes", CORRAL_TOKEN=made["token"])
    assert (answer.code, "corral token create" in answer.err) == (6, True)
    for words in (("--role", "ads"), ("--ttl", "later"), ("--ttl", "0"), ("--name", "a b")):
        assert cluster.corral("token", "create", *words).code == 2
    assert cluster.corral("token", "revoke", "zz").code == 3


def test_certificates_are_renewed_under_load_without_a_link_or_a_reader_lost(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        cluster = start(site, "--set", "trust.certificate_ttl_s=2", "--set", "kernel.agent_timeout_s=5")
        first = cluster.serial()
        script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"
        assert cluster.corral("run", "--process", "--name", "load", "--", "sh", "-c", script).code == 0
        credentials = ("--cacert", str(cluster.trust / "ca.pem"), "-H", f"Authorization: Bearer {cluster.secret()}")
        follower = subprocess.Popen(
            ["curl", "-sS", "-N", *credentials, f"{cluster.master.url}/corral/v1/events?follow=true"],
            stdout=subprocess.PIPE,
        )
        try:
            serials = {first}
            end = time.monotonic() + 4
            while time.monotonic() < end:
                serials.add(cluster.serial())
                assert cluster.corral("nodes").code == 0
            assert len(serials) >= 3
            assert "agent disconnected" not in cluster.master.text
            assert follower.poll() is None
            assert cluster.corral("logs", "-n", "1", "load").code == 0
        finally:
            follower.terminate()
            follower.wait()
            assert follower.stdout is not None
            follower.stdout.close()
        shown = ssl.get_server_certificate(("127.0.0.1", int(cluster.host.rpartition(":")[2])))
        assert describe(shown.encode()).not_after > time.time(), "the master's own is renewed as well"
        # A node that was off for longer than its certificate holds joins again; what it is stays the same.
        before = nodes(cluster)[0]["id"]
        cluster.agent.stop()
        time.sleep(2.2)
        cluster.master.stop()
        cluster.master = site.master(*TLS, listen=cluster.host)
        agent = site.start(
            "agent", "--work-dir", str(tmp_path / "node"), "--listen", "127.0.0.1:0", "--runtime", "process",
            "--resources", "cpus:4;mem:2048;ports:[31000-31099]",
        )  # fmt: skip
        wait_until(lambda: "certificate expired" in agent.text and "join again" in agent.text, "the complaint")
        token = cluster.corral("token", "create").out.strip()
        again = run_corral("", "join", f"{token}@{cluster.host}", "--work-dir", str(tmp_path / "node"), "--no-start")
        assert again.code == 0, again
        wait_until(lambda: nodes(cluster)[0]["state"] == "reachable", "the node back, with its agent never restarted")
        assert nodes(cluster)[0]["id"] == before
        # The link is cut while it works, and the next dial refused.
        assert cluster.corral("ca", "revoke", nodes(cluster)[0]["hostname"]).code == 0
        wait_until(lambda: "was revoked at" in agent.text, "the refusal")
        assert "connection cut" in cluster.master.text


def test_apps_and_jobs_are_changed_by_those_who_hold_their_role(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        cluster = start(
            site, *(word for name in ("services", "cron", "batch") for word in ("--set", f"{name}.role=web"))
        )
        ca = ("--cacert", str(cluster.trust / "ca.pem"))
        web, ads = (
            cluster.corral("token", "create", "--name", role, "--role", role).out.strip() for role in ("web", "ads")
        )

        def ask(token: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
            data = ("-d", json.dumps(body), "-H", "Content-Type: application/json") if body is not None else ()
            words = (*ca, "-H", f"Authorization: Bearer {token}", "-X", method, "-w", "\n%{http_code}", *data)
            text, _, code = cluster.curl(*words, cluster.master.url + path).stdout.rpartition("\n")
            return int(code), text

        app = {"id": "/shop/web", "cmd": "exec sleep 1000", "cpus": 0.1, "mem": 16, "instances": 1}
        job = {"name": "night", "command": "true", "schedule": "R/2050-01-01T00:00:00Z/PT24H"}
        changes: tuple[tuple[str, str, Any, int], ...] = (
            ("POST", "/v2/apps", app, 201), ("PUT", "/v2/apps/shop/web", {"instances": 2}, 200),
            ("PUT", "/corral/v1/scaling/shop/web", {"min": 1, "max": 3}, 200),
            ("POST", "/v2/groups", {"id": "/empty"}, 201), ("DELETE", "/v2/groups/empty", None, 200),
            ("POST", "/scheduler/iso8601", job, 204), ("DELETE", "/scheduler/job/night", None, 204),
            ("POST", "/v1/batch/jobs", {"command": "true"}, 201),
            ("PUT", "/corral/v1/secrets/shop/key", {"value": "x"}, 503),  # no key to seal them with
            ("PUT", "/corral/v1/configs/shop/conf", {"value": "y"}, 200),
            ("DELETE", "/corral/v1/configs/shop/conf", None, 204),
        )  # fmt: skip
        for method, path, body, status in changes:
            code, text = ask(ads, method, path, body)
            assert code == 403, (path, text)
            assert "ads is bound to ads" in text
            assert "'web'" in text
            code, text = ask(web, method, path, body)
            assert code == status, (path, text)
            wait_until(lambda: ask(web, "GET", "/v2/deployments") == (200, "[]"), "the deployment's end")
        for path in ("/v2/apps/shop/web", "/v2/queue", "/scheduler/jobs", "/v1/batch/jobs"):
            assert ask(ads, "GET", path)[0] == 200
        assert ask(web, "POST", "/logging", {"level": "DEBUG"})[0] == 403
        assert ask(cluster.secret(), "POST", "/logging", {"level": "INHERIT"})[0] == 200
        restarted = ask(web, "POST", "/v2/apps/shop/web/restart")
        assert restarted[0] == 200
        wait_until(lambda: ask(web, "GET", "/v2/deployments") == (200, "[]"), "the restart's end")
        told = cluster.corral("exec", "shop/web", "--", "sh", "-c", "echo $CORRAL_SCALING_URL $CORRAL_SCALING_TOKEN")
        url, token = told.out.split()
        assert url == f"{cluster.master.url}/corral/v1/scaling/shop/web"
        path = url.removeprefix(cluster.master.url)
        assert ask(token, "POST", f"{path}/expand", {"by": 1, "why": "by itself"})[0] == 200
        assert json.loads(ask(token, "GET", path)[1])["history"][0]["why"].endswith("by itself")
        assert ask(token, "DELETE", path)[0] == 401
        assert ask(token, "GET", "/v2/apps")[0] == 401
        assert ask(token, "POST", "/corral/v1/scaling/other/expand")[0] in (403, 404)


def test_a_group_s_role_is_for_those_who_hold_it_and_a_framework_may_be_kept_from_it(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        cluster = start(site)
        ca = ("--cacert", str(cluster.trust / "ca.pem"))
        tokens = {
            role: cluster.corral("token", "create", "--name", role, "--role", role).out.strip()
            for role in ("dev", "ads")
        }

        def ask(who: str, method: str, path: str, body: Any = None, url: str = cluster.master.url) -> tuple[int, Any]:
            data = ("-d", json.dumps(body), "-H", "Content-Type: application/json") if body is not None else ()
            token = ("-H", f"Authorization: Bearer {tokens.get(who) or cluster.secret()}")
            words = (*ca, *token, "-X", method, "-w", "\n%{http_code}", *data)
            text, _, code = cluster.curl(*words, url + path).stdout.rpartition("\n")
            return int(code), json.loads(text) if text else None

        def runs(app_id: str, count: int, url: str = cluster.master.url) -> bool:
            code, found = ask("", "GET", f"/v2/apps{app_id}", url=url)
            return bool(code == 200 and found["app"]["tasksRunning"] == count and not found["app"]["deployments"])

        app = {"cmd": "exec sleep 1000", "cpus": 0.1, "mem": 16, "instances": 1}
        assert ask("dev", "POST", "/v2/apps", {"id": "/dev/web", **app})[0] == 403, "it would be of the role of all"
        assert ask("dev", "POST", "/v2/groups", {"id": "/dev", "enforceRole": True})[0] == 201
        assert ask("dev", "POST", "/v2/apps", {"id": "/dev/web", **app})[1]["role"] == "dev"
        wait_until(lambda: runs("/dev/web", 1), "its first task")
        code, found = ask("ads", "PUT", "/v2/apps/dev/web", {"instances": 2})
        assert (code, "app /dev/web is of role 'dev'" in found["message"]) == (403, True)
        assert ask("ads", "DELETE", "/v2/groups/dev")[0] == 403
        assert ask("dev", "PUT", "/v2/apps/dev/web", {"instances": 2})[0] == 200
        wait_until(lambda: runs("/dev/web", 2), "the second one")
        assert ask("dev", "DELETE", "/v2/apps/dev/web/tasks")[0] == 200

        alone = site.start(
            "framework", "services", "--master", cluster.master.url, "--listen", "127.0.0.1:0", "--work-dir",
            str(tmp_path / "alone"), "--set", "services.role=ads", CORRAL_CACERT=str(cluster.trust / "ca.pem"),
            CORRAL_TOKEN=tokens["ads"],
        )  # fmt: skip
        for app_id, role in (("/ads/web", "ads"), ("/dev/own", "dev")):
            assert ask("", "POST", "/v2/apps", {"id": app_id, **app, "role": role}, alone.url)[0] == 201

        def refused() -> bool:
            queue = ask("", "GET", "/v2/queue", url=alone.url)[1]["queue"]
            told = [one["detail"] for item in queue for one in item["processedOffersSummary"].get("reasons", ())]
            return [item["app"]["id"] for item in queue] == ["/dev/own"] and "may not be in role dev" in " ".join(told)

        wait_until(refused, "the reason why one waits")
        wait_until(lambda: runs("/ads/web", 1, alone.url), "the other one, which may")
        assert ask("", "PUT", "/v2/apps/ads/web", {"instances": 2}, alone.url)[0] == 200
        wait_until(lambda: runs("/ads/web", 2, alone.url), "the framework at work as before")
        assert "roles refused" in alone.text
