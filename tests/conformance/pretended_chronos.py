"""A Chronos that lists and takes jobs, as 2.4 and 3.0 do: each below its own prefix, with Jetty's pages for errors.

Source: Chronos' contract, sections 1.1, 6 and 7. A follower hands on to its leader whatever it is asked.
"""

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Job = dict[str, Any]
_PAGE = (
    "<html><head><title>Error {0}</title></head><body><h2>HTTP ERROR: {0}</h2><p>Powered by Jetty://</p></body></html>"
)


def list_old(name: str, **fields: Any) -> Job:
    """A job as 2.4 lists it."""
    shown: Job = {
        "name": name, "command": "true", "shell": True, "epsilon": "PT60S", "executor": "", "executorFlags": "",
        "retries": 2, "owner": "ada@example.com", "ownerName": "", "description": "", "async": False,
        "successCount": 0, "errorCount": 0, "lastSuccess": "", "lastError": "", "cpus": 0.1, "disk": 1.0, "mem": 16.0,
        "disabled": False, "softError": False, "dataProcessingJobType": False, "errorsSinceLastSuccess": 0,
        "uris": [], "environmentVariables": [], "arguments": [], "highPriority": False, "runAsUser": "",
        "constraints": [], **fields,
    }  # fmt: skip
    return (
        shown if "parents" in shown else {"schedule": "R/2040-01-01T00:00:00.000Z/P1D", "scheduleTimeZone": "", **shown}
    )


def list_new(name: str, **fields: Any) -> Job:
    """A job as 3.0 lists it: without epsilon and async, with what it fetches in both of its forms."""
    fetch = fields.pop("fetch", [])
    more = {
        "taskInfoData": "", "fetch": fetch, "uris": [f["uri"] for f in fetch], "concurrent": False,
        "maxCompletionTime": 0, **fields,
    }  # fmt: skip
    return {k: v for k, v in list_old(name, **more).items() if k not in ("epsilon", "async")}


class PretendedChronos:
    """Shapes: `secret` is `user:password`; `leader` the URL that a follower hands on to; `asked` the paths."""

    def __init__(self, version: str, jobs: Sequence[Job], *, secret: str = "", leader: str = "") -> None:
        self.prefix = "/v1/scheduler" if version.startswith("3") else "/scheduler"
        self.jobs = list(jobs)
        self.secret = secret
        self.leader = leader
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, authorization: str) -> tuple[int, str, bytes]:
        """Status, kind of content, content."""
        self.asked.append(path)
        if self.leader:
            request = urllib.request.Request(self.leader + path, headers={"Authorization": authorization})
            try:
                with urllib.request.urlopen(request, timeout=10) as found:
                    return found.status, found.headers["Content-Type"], found.read()
            except urllib.error.HTTPError as error:
                return error.code, error.headers["Content-Type"], error.read()
            except OSError:
                return 500, "text/html", _PAGE.format(500).encode()
        if self.secret and authorization != "Basic " + base64.b64encode(self.secret.encode()).decode():
            return 401, "text/html", _PAGE.format(401).encode()
        if path != f"{self.prefix}/jobs":
            return 404, "text/html", _PAGE.format(404).encode()
        return 200, "application/json", json.dumps(self.jobs).encode()

    def take(self, path: str, body: bytes) -> int:
        """The status. A job replaces the one of its name."""
        job = json.loads(body)
        if path != f"{self.prefix}/{'dependency' if 'parents' in job else 'iso8601'}":
            return 404
        if job.get("uris") and job.get("fetch"):
            return 400
        self.jobs = [*(one for one in self.jobs if one["name"] != job["name"]), job]
        return 204

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        chronos = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, content = chronos.answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="Mesosphere"')
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(chronos.take(self.path, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def serve(self) -> None:
        self._server.serve_forever(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serve_chronos(version: str, jobs: Sequence[Job], **more: str) -> Iterator[PretendedChronos]:
    chronos = PretendedChronos(version, jobs, **more)
    thread = threading.Thread(target=chronos.serve, daemon=True)
    thread.start()
    try:
        yield chronos
    finally:
        chronos.close()
        thread.join(5)
