"""One machine with a real Engine, and short ways to run things on it."""

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from corral.docker.containers import container_name
from corral.docker.engine import DockerEngine
from corral.docker.runtime import DockerRuntime
from corral.lib.errors import CorralError
from corral.model.container import DockerInfo, NetworkMode, Parameter
from corral.model.execution import Execution, Exit
from corral.model.ids import ContainerId, FrameworkId, TaskId


class Node:
    """One machine with an Engine; `runtime` is the present agent's."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.url = url
        self.said: list[str] = []
        self.runtime = self._make()
        self._started: list[str] = []

    def _make(self) -> DockerRuntime:
        return DockerRuntime(DockerEngine(self.url), owner=str(self.root), say=self.said.append, patience_s=3.0)

    async def restart_agent(self) -> DockerRuntime:
        await self.runtime.close()
        self.runtime = self._make()
        return self.runtime

    def execution(
        self,
        script: str = "sleep 600",
        *,
        image: str = "busybox:latest",
        network: NetworkMode = NetworkMode.HOST,
        parameters: tuple[tuple[str, str], ...] = (),
        force_pull: bool = False,
        **changes: object,
    ) -> Execution:
        container_id = ContainerId(str(uuid.uuid4()))
        self._started.append(container_id)
        sandbox = self.root / container_id
        sandbox.mkdir()
        wanted: dict[str, object] = {
            "container_id": container_id,
            "task_id": TaskId(f"task-{container_id[:8]}"),
            "framework_id": FrameworkId("framework"),
            "sandbox": str(sandbox),
            "argv": ("/bin/sh", "-c", script) if script else (),
            "docker": DockerInfo(
                image=image,
                network=network,
                parameters=tuple(Parameter(key=key, value=value) for key, value in parameters),
                force_pull_image=force_pull,
            ),
        }
        return Execution(**{**wanted, **changes})  # type: ignore[arg-type]

    async def run(self, script: str, **changes: object) -> tuple[str, Exit]:
        """Run to the end; what it said and how it ended."""
        execution = self.execution(script, **changes)  # type: ignore[arg-type]
        await self.runtime.start(execution)
        exit = await self.runtime.wait(execution.container_id)
        return read(execution), exit

    async def inspect(self, execution: Execution) -> dict[str, object]:
        return await self.runtime.engine.inspect(container_name(execution.container_id))

    async def close(self) -> None:
        for container_id in self._started:
            try:
                await self.runtime.kill(container_id, 0.0)
                await asyncio.wait_for(self.runtime.wait(container_id), 60)
                await self.runtime.remove(container_id)
            except CorralError:
                pass  # never started
        assert list(await self.runtime.recover()) == []
        await self.runtime.close()


def read(execution: Execution, name: str = "stdout") -> str:
    path = Path(execution.sandbox) / name
    return path.read_text() if path.exists() else ""


async def eventually(check: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        await asyncio.sleep(0.02)
