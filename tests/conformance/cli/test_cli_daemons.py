"""Daemons as a person starts and ends them: configuration, refusals, records, journals."""

import http.server
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from corral_daemons import UNCOMPILED, Site, ask, end_tasks, processes_below, run_corral, wait_running, wait_until


@pytest.fixture
def foreign() -> Iterator[str]:
    """A server that is no master. Shapes: `host:port`."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html>hello</html>"
            self.send_response(200)
            self.send_header("Content-Type", "application/json" if "nodes" in self.path else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_every_recorded_journal_is_decided_again_as_recorded(daemons: Site) -> None:
    dev = daemons.dev("--journal")
    run_corral(dev.url, "run", "--process", "--name", "web", "-n", "2", "-p", "0", "--", "sleep", "1000")
    run_corral(dev.url, "run", "--process", "--name", "huge", "--mem", "1000000", "-d", "--", "true")
    run_corral(dev.url, "run", "--process", "--name", "broken", "-d", "--", "no-such-command")
    wait_until(lambda: ask(dev.url, "GET", "/v2/apps/broken")[1]["app"].get("lastTaskFailure"), "a failure")
    wait_until(lambda: ask(dev.url, "GET", "/corral/v1/explain?group=/huge")[1]["explanations"], "an explanation")
    run_corral(dev.url, "scale", "web", "1")
    run_corral(dev.url, "stop", "web")
    job = {
        "name": "a",
        "command": "exit 3",
        "schedule": "R5//PT1S",
        "disk": 1,
        "retries": 0,
        "webhook": "http://127.0.0.1:1/",
    }
    run_corral(dev.url, "job", "add", "-", stdin=json.dumps(job))
    run_corral(dev.url, "job", "run", "a", "--wait")
    assert dev.stop() == 0
    journals = sorted(daemons.directory.rglob("*.journal"))
    assert [path.stem for path in journals] == ["agent", "batch", "cron", "master", "services"]
    for path in journals:
        answer = run_corral("", "replay", str(path))
        assert answer.code == 0, answer.err[:2000]
        assert "decided as recorded" in answer.out


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.journal"
    other.write_bytes(b"\x00\x01 not a journal")
    answer = run_corral("", "replay", str(other))
    assert answer.code in (1, 2)
    assert str(other) in answer.err


def test_the_end_of_a_daemon_leaves_its_tasks_and_the_next_finds_them(daemons: Site) -> None:
    dev = daemons.dev()
    run_corral(dev.url, "run", "--process", "--name", "web", "--", "sleep", "1000")
    (before,) = wait_running(dev.url, "web", 1)["tasks"]
    assert dev.stop(signal.SIGINT) == 0
    assert len(list(processes_below(daemons.directory))) >= 1
    again = daemons.dev()
    (after,) = wait_running(again.url, "web", 1)["tasks"]
    assert after["id"] == before["id"]
    again.stop()
    end_tasks(daemons.directory)
    wait_until(lambda: not list(processes_below(daemons.directory)), "the end of all processes")


def test_a_work_directory_is_held_by_one_process_only(daemons: Site) -> None:
    dev = daemons.dev()
    work_dir = str(daemons.directory / "dev")
    for words in (("dev", "--agent-listen", "127.0.0.1:0"), ("master",)):
        name = "dev" if words[0] == "dev" else "master"
        answer = run_corral("", *words, "--listen", "127.0.0.1:0", "--work-dir", work_dir)
        if name == "dev":
            assert answer.code == 70
            assert f"is in use by process {dev.process.pid}" in answer.err
            assert "stop it first" in answer.err
        else:
            # `corral dev` keeps its kernel's records under the name that a master alone uses.
            assert answer.code == 70
    answer = run_corral(
        "", "agent", "--listen", "127.0.0.1:0", "--work-dir", f"{work_dir}/agent", "--runtime", "process"
    )
    assert answer.code == 70
    assert "in use by process" in answer.err


def test_a_port_that_something_else_holds_is_named(daemons: Site, foreign: str) -> None:
    for words in (
        ("dev", "--agent-listen", "127.0.0.1:0"), ("master",), ("agent", "--runtime", "process"),
        ("framework", "services", "--master", "http://127.0.0.1:1"),
    ):  # fmt: skip
        answer = run_corral("", *words, "--listen", foreign, "--work-dir", str(daemons.directory / words[0]))
        assert answer.code == 2
        assert f"cannot listen on {foreign}: Address already in use" in answer.err
        assert "port 0 takes any" in answer.err


@pytest.mark.parametrize(
    "words",
    [("agent",), ("framework", "services", "--master", "http://127.0.0.1:1"), ("master", "--set", "trust.tls=off")],
)
def test_an_address_that_others_reach_and_nothing_guards_needs_a_word(daemons: Site, words: tuple[str, ...]) -> None:
    answer = run_corral("", *words, "--listen", "0.0.0.0:0", "--work-dir", str(daemons.directory / "open"))
    assert answer.code == 2
    assert "0.0.0.0, which others can reach" in answer.err
    assert "--insecure" in answer.err


def test_a_whole_cluster_in_one_process_is_guarded_on_an_address_that_others_reach(daemons: Site) -> None:
    dev = daemons.dev("--listen", "0.0.0.0:0", "--agents", "2", "--agent-listen", "0.0.0.0:0")
    assert dev.url.startswith("https://0.0.0.0:")
    trust = daemons.directory / "dev" / "trust"
    given = {"CORRAL_CACERT": str(trust / "ca.pem"), "CORRAL_TOKEN": f"@{trust / 'operator.token'}"}
    addr = dev.url.replace("0.0.0.0", "127.0.0.1")
    nodes = run_corral(addr, "nodes", "-o", "json", **given).json
    assert [node["state"] for node in nodes] == ["reachable", "reachable"]
    assert run_corral(addr, "nodes", CORRAL_CACERT=given["CORRAL_CACERT"]).code == 6
    assert "without authentication" not in dev.text


def test_an_address_that_others_reach_is_served_with_a_warning_when_asked(daemons: Site) -> None:
    work_dir = str(daemons.directory / "m")
    master = daemons.start("master", "--listen", "0.0.0.0:0", "--insecure", "--work-dir", work_dir, *UNCOMPILED)
    assert ask(master.url.replace("0.0.0.0", "127.0.0.1"), "GET", "/health/ready")[0] == 200
    assert "without authentication" in master.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "kernel.agent_timeoutt_s=3"), "did you mean kernel.agent_timeout_s"),
        (("--set", "kernel.ping_s=soon"), "'soon'"),
        (("--resources", "cpus:x"), "not a number"),
        (("--agent-listen", "nowhere:99999"), "not HOST:PORT"),
        (("--store", "redis://localhost"), "neither sqlite:PATH, memory: nor etcd://"),
        (("--config", "/does/not/exist.toml"), "cannot be read"),
        (("--work-dir", "/proc/corral"), "name another with --work-dir"),
        (("--docker-host", "ftp://x", "--runtime", "docker"), "unix:///"),
        (("--set", "master.frameworks=nope"), "there is no framework 'nope'"),
    ],
)
def test_a_wrong_configuration_is_refused_before_anything_starts(
    daemons: Site, words: tuple[str, ...], message: str
) -> None:
    given = ["--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--work-dir", str(daemons.directory / "w")]
    answer = run_corral("", "dev", *given, *words)
    assert answer.code in (2, 3), answer
    assert message in answer.err
    assert answer.err.splitlines()[-1].startswith(("corral: ", "Error: ")), answer.err
    assert "ready" not in answer.out


def test_a_file_with_an_unknown_key_or_no_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    for text, message in (("[kernel]\nping = 3\n", "did you mean kernel.ping_s"), ("[kernel", "is not TOML")):
        file.write_text(text)
        answer = run_corral("", "dev", "--config", str(file))
        assert answer.code == 2
        assert message in answer.err


def test_show_config_names_the_origin_of_each_value(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_text("[kernel]\nping_s = 3\nheartbeat_s = 4\n")
    answer = run_corral(
        "", "dev", "--config", str(file), "--set", "kernel.heartbeat_s=5", "--listen", "127.0.0.1:7000",
        "--show-config", CORRAL_LOG_LEVEL="debug",
    )  # fmt: skip
    assert answer.code == 0
    assert f"kernel.ping_s = 3.0  # {file}" in answer.out
    assert "kernel.heartbeat_s = 5.0  # --set" in answer.out
    assert "log.level = debug  # CORRAL_LOG_LEVEL" in answer.out
    assert "kernel.offer_timeout_s = None  # default" in answer.out
    assert "master.listen = 127.0.0.1:7000  # " in answer.out


def test_an_unknown_framework_lists_those_there_are(daemons: Site) -> None:
    answer = run_corral("", "framework", "nope", "--master", "http://127.0.0.1:1")
    assert answer.code == 3
    assert "there is no framework 'nope'; installed are batch, cron, services" in answer.err


@pytest.mark.parametrize(
    ("addr", "code", "message"),
    [
        ("http://127.0.0.1:1", 5, "no master answers at http://127.0.0.1:1"),
        ("127.0.0.1:1", 5, "start one with `corral dev` or set CORRAL_ADDR"),
        ("http://does-not-exist.invalid:4680", 5, "no master answers"),
        ("https://127.0.0.1:1", 5, "no master answers at https://127.0.0.1:1"),
        ("ftp://127.0.0.1:1", 2, "http://HOST:PORT"),
        ("http://127.0.0.1:port", 2, "http://HOST:PORT"),
        ("http://127.0.0.1:99999", 2, "http://HOST:PORT"),
        ("http://[::1", 2, "http://HOST:PORT"),
    ],
)
def test_an_address_without_a_master_says_what_to_do(addr: str, code: int, message: str) -> None:
    answer = run_corral(addr, "status")
    assert answer.code == code
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_a_server_that_is_no_master_is_recognised(foreign: str) -> None:
    for words in (("nodes",), ("status",), ("run", "--process", "--", "true")):
        answer = run_corral(f"http://{foreign}", *words)
        assert answer.code in (1, 5), answer
        assert answer.err.count("\n") == 1
        assert f"http://{foreign} answer" in answer.err


def test_output_that_nobody_can_take_is_one_line_of_error(daemons: Site) -> None:
    import subprocess

    from corral_daemons import CORRAL, clean_environment

    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*CORRAL, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, env=clean_environment()
        )
    assert ended.returncode == 1
    assert ended.stderr == "corral: standard output cannot be used: No space left on device\n"


def test_an_agent_and_a_framework_wait_for_a_master_that_is_not_there_yet(daemons: Site, foreign: str) -> None:
    agent = daemons.agent(f"http://{foreign}")
    services = daemons.services("http://127.0.0.1:1")
    wait_until(lambda: "does not answer" in services.text, "a word about the missing master")
    wait_until(lambda: "master" in agent.text, "a word about the master that is none")
    assert ask(services.url, "GET", "/v2/apps")[0] in (200, 503)
    assert services.stop() == 0
    assert agent.stop() == 0


@pytest.mark.usefixtures("as_root")
def test_an_agent_says_in_one_line_which_limits_it_cannot_keep(daemons: Site) -> None:
    hide = ("unshare", "--mount", "--propagation", "private", "sh", "-c",
            'mount -t tmpfs tmpfs /sys/fs/cgroup && exec "$0" "$@"')  # fmt: skip
    agent = daemons.agent("http://127.0.0.1:1", inside=hide)
    said = [line for line in agent.log if "limits of process tasks are not kept" in line]
    assert len(said) == 1, agent.text
    assert "why=" in said[0]


def test_two_agents_share_one_machine_in_dev(daemons: Site) -> None:
    dev = daemons.dev("--agents", "2")
    rows = run_corral(dev.url, "nodes", "-o", "json").json
    assert sorted(row["hostname"] for row in rows) == ["127.0.0.1", "127.0.0.2"]
    assert len({row["resources"]["ports"] for row in rows}) == 2
