"""A daemon may hold as many descriptors as it is allowed; its tasks get what they would have had without it."""

import subprocess
import sys
from pathlib import Path

DAEMON = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 700))
from pathlib import Path
from corral.model.execution import Execution
from corral.process.runtime import ProcessRuntime
from corral.standalone.limits import OPEN_FILES_OF_TASKS, raise_open_files

async def main():
    print("daemon", raise_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    sandbox = Path(sys.argv[1], "sandbox")
    sandbox.mkdir()
    runtime = ProcessRuntime(sys.argv[1] + "/state", cgroup_parent="", open_files=OPEN_FILES_OF_TASKS)
    await runtime.start(Execution(container_id="c", task_id="t", framework_id="f", sandbox=str(sandbox),
                                  argv=("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn")))
    await runtime.wait("c")
    await runtime.close()
    print("task", *(sandbox / "stdout").read_text().split())

asyncio.run(main())
"""


def test_open_files_are_raised_for_the_daemon_and_not_for_its_tasks(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", DAEMON, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert said.stdout.splitlines() == ["daemon 700 700", "task 300 700"]
