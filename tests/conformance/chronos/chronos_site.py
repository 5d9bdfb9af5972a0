"""A served Chronos API and its PyPI client."""

from typing import Any
from urllib.parse import urlsplit

import chronos
from corral_daemons import ask, wait_until


class CronSite:
    """Shapes: `url` serves Chronos' API; `client` speaks the prefix of 3.x, `old_client` that of 2.x."""

    def __init__(self, url: str) -> None:
        self.url = url
        server = urlsplit(url).netloc
        self.client = chronos.connect(server)
        self.old_client = chronos.connect(server, scheduler_api_version=None)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return ask(self.url, method, path, body)

    def job(self, name: str) -> dict[str, Any]:
        status, found = self.ask("GET", f"/v1/scheduler/job/{name}")
        assert status == 200, found
        job: dict[str, Any] = found
        return job

    def history(self, name: str) -> dict[str, Any]:
        status, found = self.ask("GET", f"/v1/scheduler/job/{name}/history")
        assert status == 200, found
        history: dict[str, Any] = found
        return history

    def wait_count(self, name: str, field: str, count: int) -> dict[str, Any]:
        """The job once a counter of it has come so far."""

        def look() -> dict[str, Any] | None:
            job = self.job(name)
            return job if job[field] >= count else None

        found = wait_until(look, f"{field} {count} of {name}")
        assert found is not None
        return found

    def state(self, name: str) -> str:
        _, found = self.ask("GET", "/v1/scheduler/jobs/summary")
        return next(job["state"] for job in found["jobs"] if job["name"] == name)
