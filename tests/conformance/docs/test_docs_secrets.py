"""Secrets in a real cluster that journals everything: the task has them, and they stand nowhere else."""

import json
from pathlib import Path

from corral_daemons import Site, ask, run_corral, wait_running, wait_until

VALUE = "hunter2-plaintext-of-the-test"


def files_with(directory: Path, text: str) -> list[str]:
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes():
            found.append(path.name)
    return found


def test_a_task_gets_its_secrets_and_no_disk_log_or_view_has_them(daemons: Site, tmp_path: Path) -> None:
    dev = daemons.dev("--journal")
    url = dev.url
    assert run_corral(url, "secret", "set", "db/password", stdin=VALUE).code == 0
    assert run_corral(url, "config", "set", "app.conf", "color=blue").code == 0
    app = {
        "id": "/web", "cmd": 'test "$DB" = "$(cat pw)" && wc -c < pw && cat conf && sleep 1000',
        "cpus": 0.1, "mem": 32, "env": {"DB": {"secret": "pw"}}, "labels": {"CORRAL_SECRETS_CHANGE": "restart"},
        "secrets": {"pw": {"source": "db/password"}, "c": {"source": "config:app.conf"}},
        "container": {"type": "MESOS", "volumes": [
            {"containerPath": "pw", "secret": "pw"}, {"containerPath": "conf", "secret": "c"}]},
    }  # fmt: skip
    file = tmp_path / "web.json"
    file.write_text(json.dumps(app), encoding="utf-8")
    assert run_corral(url, "app", "apply", str(file)).code == 0
    wait_running(url, "web", 1)
    wait_until(lambda: run_corral(url, "logs", "web").out == f"{len(VALUE)}\ncolor=blue", "the task's own words")
    inside = run_corral(url, "exec", "web", "--", "sh", "-c", "echo $DB")
    assert inside.out.strip() == VALUE
    assert files_with(daemons.directory, VALUE) == []
    for path in ("/v2/apps//web", "/state", "/tasks", "/corral/v1/tasks", "/corral/v1/secrets/db/password"):
        assert VALUE not in str(ask(url, "GET", path)), path
    assert VALUE not in "\n".join(dev.log)
    assert VALUE not in run_corral(url, "events").out

    first = wait_running(url, "web", 1)["tasks"][0]["id"]
    assert run_corral(url, "secret", "set", "db/password", "another").code == 0
    wait_until(lambda: [t["id"] for t in wait_running(url, "web", 1)["tasks"]] not in ([first], []), "a new instance")
    new = wait_until(lambda: [t["id"] for t in wait_running(url, "web", 1)["tasks"] if t["id"] != first], "its task")[0]
    assert run_corral(url, "exec", new, "--", "sh", "-c", "echo $DB").out.strip() == "another"
    assert run_corral(url, "secret", "set", "db/password", "x", "--expect", "1").code == 4
    assert run_corral(url, "secret", "get", "none").code == 3


def test_a_pod_hears_by_a_signal_that_a_value_in_its_file_is_another_one(daemons: Site, tmp_path: Path) -> None:
    url = daemons.dev().url
    assert run_corral(url, "secret", "set", "db/password", stdin="first").code == 0
    assert run_corral(url, "config", "set", "app.conf", "color=blue").code == 0
    script = "trap 'echo now $PW $(cat conf)' USR1; echo now $PW $(cat conf); while true; do sleep 0.05; done"
    pod = {
        "id": "/pod", "environment": {"PW": {"secret": "pw"}}, "labels": {"CORRAL_SECRETS_CHANGE": "signal:SIGUSR1"},
        "secrets": {"pw": {"source": "db/password"}, "c": {"source": "config:app.conf"}},
        "volumes": [{"name": "conf", "secret": "c"}],
        "containers": [
            {"name": "main", "exec": {"command": {"shell": script}}, "resources": {"cpus": 0.1, "mem": 32},
             "volumeMounts": [{"name": "conf", "mountPath": "conf"}]},
        ],
    }  # fmt: skip
    assert ask(url, "POST", "/v2/pods", pod)[0] == 201

    def tasks() -> list[str]:
        return [t["id"] for t in ask(url, "GET", "/corral/v1/tasks")[1]["tasks"] if t["state"] == "TASK_RUNNING"]

    (task,) = wait_until(tasks, "the pod")
    wait_until(lambda: run_corral(url, "logs", task).out == "now first color=blue\n", "its first words")
    assert run_corral(url, "config", "set", "app.conf", "color=red and longer").code == 0
    wait_until(lambda: run_corral(url, "logs", task).out.endswith("now first color=red and longer\n"), "its next words")
    assert tasks() == [task]
