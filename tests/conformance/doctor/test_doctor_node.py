"""`corral doctor` and `corral systemd` on the machine that the tests run on."""

import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from corral_daemons import Site, run_corral


def states(answer: object) -> dict[str, str]:
    return {f["name"]: f["state"] for f in answer["findings"]}  # type: ignore[index]


def test_this_node_is_looked_at_and_each_finding_says_what_to_do(tmp_path: Path) -> None:
    words = ("doctor", "--work-dir", str(tmp_path / "not there yet"), "--listen", "127.0.0.1:0", "--runtime", "process")
    answer = run_corral("", *words, "-o", "json")
    found = answer.json
    assert {f["state"] for f in found["findings"]} <= {"ok", "warn", "fail"}
    assert all(f["remedy"] for f in found["findings"] if f["state"] != "ok")
    assert states(found)["kernel"] == "ok"
    assert states(found)["port 127.0.0.1:0"] == "ok"
    assert "docker" not in states(found)
    assert answer.code == (1 if found["state"] == "fail" else 0)
    assert not (tmp_path / "not there yet").exists(), "a doctor changes nothing"
    table = run_corral("", *words)
    assert table.code == answer.code
    assert table.out.split()[:2] == ["CHECK", "STATE"]
    strict = run_corral("", *words, "--strict")
    assert strict.code == (0 if found["state"] == "ok" else 1)


def test_a_running_daemon_is_told_from_a_foreign_one(daemons: Site) -> None:
    dev = daemons.dev()
    work = str(daemons.directory / "x")
    listen = dev.url.removeprefix("http://")
    answer = run_corral(
        "", "doctor", "--role", "master", "--work-dir", work, "--listen", listen, "--master", dev.url, "-o", "json"
    )
    found = states(answer.json)
    assert (found[f"port {listen}"], found[f"master {dev.url}"]) == ("ok", "ok")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = f"127.0.0.1:{server.server_address[1]}"
        answer = run_corral(
            "", "doctor", "--role", "master", "--work-dir", work, "--listen", port, "--master", nobody, "-o",
            "json",
        )  # fmt: skip
        found = states(answer.json)
        assert (found[f"port {port}"], found[f"master {nobody}"], answer.code) == ("fail", "fail", 1)
    finally:
        server.shutdown()
        server.server_close()


def test_what_is_asked_wrongly_is_refused() -> None:
    for words in (("--runtime", "vm"), ("--listen", "nowhere"), ("--role", "x")):
        assert run_corral("", "doctor", *words).code == 2


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    for role, words in (("agent", ()), ("master", ("--listen", "10.0.0.5:4680", "--store", "etcd://10.0.0.5:2379"))):
        answer = run_corral("", "systemd", role, *words)
        assert answer.code == 0
        path = tmp_path / f"corral-{role}.service"
        path.write_text(answer.out)
        command = next(line for line in answer.out.splitlines() if line.startswith("ExecStart="))
        assert command.endswith(" ".join(("corral", role, *words)))
        if shutil.which("systemd-analyze"):
            said = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
            assert (said.returncode, f"corral-{role}" in said.stderr) == (0, False), said.stderr
    parted = run_corral("", "systemd", "master", "--", "--config", "/etc/m.toml")
    assert "/corral master --config /etc/m.toml\n" in parted.out
    assert run_corral("", "systemd", "dev").code == 2
