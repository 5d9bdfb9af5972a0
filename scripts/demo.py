"""`make demo`: a cluster on this machine, two apps on it, and what it looks like.

Uses Docker when an Engine answers; as root on Debian it installs what is missing and starts an Engine of its own, which
it also ends. Without Docker it says so and shows the same with plain processes.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from corral.cli.client import Client
from corral.docker.daemon import PrivateEngine, install_packages, missing_packages
from corral.docker.image import engine_answers, import_busybox
from corral.lib.errors import CorralError

TALK_APP = (
    '{"container":{"type":"DOCKER","docker":{"image":"libmesos/ubuntu"},"volumes":[{"containerPath":"/etc/a",'
    '"hostPath":"/var/data/a","mode":"RO"},{"containerPath":"/etc/b","hostPath":"/var/data/b","mode":"RW"}]},'
    '"id":"ubuntu","instances":1,"cpus":0.5,"mem":512,"cmd":"while sleep 10; do date -u +%T; done"}'
)
"""The app file of the Mesos talk, as it was shown."""

IMAGES = ("busybox:latest", "libmesos/ubuntu:latest")
CORRAL = str(Path(sys.executable).with_name("corral"))
PAGE = "hello from corral"

console = Console(highlight=False)


def say(text: str) -> None:
    console.print(f"[bold cyan]==>[/] {text}")


@contextlib.contextmanager
def engine(root: Path) -> Iterator[str | None]:
    """An Engine's URL with the demo's images, or None when there can be none."""
    url = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if engine_answers(url):
        say(f"using the Docker Engine at {url}")
        import_busybox(url, IMAGES)
        yield url
        return
    if os.geteuid() != 0:
        say("no Docker Engine answers and this is not root, so plain processes are used; "
            "to see containers start Docker, or run the demo as root")  # fmt: skip
        yield None
        return
    try:
        if packages := missing_packages():
            say(f"installing {', '.join(packages)}")
            install_packages(packages, say)
        private = PrivateEngine(root / "engine")
        say("starting a Docker Engine for the demo")
        private.start()
    except CorralError as error:
        say(f"no Docker Engine here ({error.message}), so plain processes are used")
        yield None
        return
    try:
        import_busybox(private.url, IMAGES)
        yield private.url
    finally:
        private.stop()


@contextlib.contextmanager
def cluster(root: Path, engine_url: str | None) -> Iterator[str]:
    """A running `corral dev`; its URL."""
    argv = [
        CORRAL,
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--agent-listen",
        "127.0.0.1:0",
        "--work-dir",
        str(root / "corral"),
    ]
    argv += ["--runtime", "docker,process" if engine_url else "process"]
    argv += ["--docker-host", engine_url] if engine_url else []
    with (root / "corral.log").open("wb") as log:
        daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    try:
        assert daemon.stdout is not None
        line = daemon.stdout.readline().decode()
        if not line.startswith("ready url="):
            raise SystemExit(f"corral dev did not start:\n{(root / 'corral.log').read_text()[-3000:]}")
        addr = line.split("url=", 1)[1].split()[0]
        try:
            yield addr
        finally:
            # Tasks outlive their agent by design; those of a demo must not.
            stop_apps(addr)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(15)


def stop_apps(addr: str) -> None:
    """End all apps with their tasks, if the cluster still answers."""
    with contextlib.suppress(CorralError):
        client = Client(addr)
        for app in client.get("/v2/apps")["apps"]:
            client.send("DELETE", f"/v2/apps{app['id']}", query={"force": True})
        give_up_at = time.monotonic() + 15
        while client.get("/v2/tasks")["tasks"] and time.monotonic() < give_up_at:
            time.sleep(0.1)


def corral(addr: str, *words: str) -> None:
    console.print(f"[dim]$ corral {' '.join(words)}[/]")
    subprocess.run([CORRAL, "--addr", addr, *words], check=True)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def web_app(docker: bool) -> dict[str, Any]:
    """Two instances of a small web server with a port."""
    if docker:
        command = f"mkdir -p /www && echo {PAGE} from $(hostname) > /www/index.html && exec httpd -f -p 80 -h /www"
        container = {
            "type": "DOCKER", "docker": {"image": "busybox"}, "portMappings": [{"containerPort": 80}],
        }  # fmt: skip
        more: dict[str, Any] = {"container": container, "networks": [{"mode": "container/bridge"}]}
    else:
        command = f"echo {PAGE} > index.html && exec {sys.executable} -m http.server --bind 127.0.0.1 $PORT0"
        more = {"portDefinitions": [{"port": 0}]}
    return {"id": "/web", "instances": 2, "cpus": 0.1, "mem": 64, "cmd": command, **more}


def talk_app(docker: bool) -> dict[str, Any]:
    app: dict[str, Any] = json.loads(TALK_APP)
    if not docker:
        del app["container"]
    return app


def deploy(addr: str, root: Path, app: dict[str, Any], text: str | None = None) -> list[dict[str, Any]]:
    """Apply an app file and wait; returns the running tasks."""
    file = root / f"{app['id'].strip('/')}.json"
    file.write_text(text or json.dumps(app, indent=2))
    corral(addr, "app", "apply", str(file))
    tasks: list[dict[str, Any]] = Client(addr).get(f"/v2/apps/{app['id'].strip('/')}")["app"]["tasks"]
    return tasks


def show_pages(tasks: list[dict[str, Any]]) -> None:
    for task in tasks:
        url = f"http://{task['host']}:{task['ports'][0]}/"
        deadline = time.monotonic() + 15
        while True:
            try:
                page = fetch(url)
                break
            except OSError:
                # Running means that its process runs; the server inside may need a moment to listen.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        console.print(f"[dim]$ curl {url}[/]\n{page.strip()}")
        if PAGE not in page:
            raise SystemExit(f"{url} shows another page: {page!r}")


def wait_for_interrupt() -> None:
    say("the cluster runs until Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ci", action="store_true", help="end by itself when all came up")
    ci = parser.parse_args().ci
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = Path(tempfile.mkdtemp(prefix="corral-demo-", dir=os.environ.get("CORRAL_DEMO_DIR")))
    try:
        with engine(root) as engine_url, cluster(root, engine_url) as addr:
            docker = engine_url is not None
            say(f"a cluster runs at {addr}; point the command line at it with: export CORRAL_ADDR={addr}")
            say("a web app of two instances")
            show_pages(deploy(addr, root, web_app(docker)))
            say("the Mesos talk's app file, unchanged" if docker else "the Mesos talk's app, without its container")
            deploy(addr, root, talk_app(docker), TALK_APP if docker else None)
            corral(addr, "status")
            corral(addr, "ps")
            corral(addr, "nodes")
            say(f"all came up after {time.monotonic() - began:.1f} s")
            if not ci:
                wait_for_interrupt()
            say("stopping")
            corral(addr, "stop", "web")
            corral(addr, "stop", "ubuntu")
    except CorralError as error:
        raise SystemExit(f"demo: {error.message}") from None
    except subprocess.CalledProcessError as error:
        log = (root / "corral.log").read_text(errors="replace")[-4000:]
        raise SystemExit(f"demo: {' '.join(error.cmd[1:])} failed; the end of the daemon's log:\n{log}") from None
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
