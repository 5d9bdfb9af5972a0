"""A custom executor in the standard library alone: runs the shell command that is each task's `data`.

Give it to tasks as their `executor`, for example by `"command": {"value": "exec python3 /path/of/executor.py"}`. It
tells every state with a uuid and keeps it until it is acknowledged, so that neither side loses anything when the other
restarts. See docs/build-a-framework.md.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress

HOST, PORT = os.environ["MESOS_AGENT_ENDPOINT"].rsplit(":", 1)
IDS = {
    "framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]},
    "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]},
}
RETURNS = os.environ.get("MESOS_CHECKPOINT") == "1"
RETRY_S, GIVE_UP_S = 0.5, 900.0

lock = threading.RLock()
tasks: dict[str, dict] = {}  # handed over, and no update of theirs acknowledged yet
updates: dict[str, dict] = {}  # told and not acknowledged, by uuid
running: dict[str, subprocess.Popen] = {}
killed: set[str] = set()


def call(kind: str, **body: object) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(HOST, int(PORT), timeout=3600)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    connection.request("POST", "/api/v1/executor", json.dumps({"type": kind, **IDS, **body}), headers)
    response = connection.getresponse()
    if response.status not in (200, 202):
        raise ConnectionError(f"{kind}: {response.status} {response.read().decode()}")
    return response


def tell(task_id: str, state: str, message: str = "") -> None:
    status = {
        "task_id": {"value": task_id}, "state": state, "source": "SOURCE_EXECUTOR", "timestamp": time.time(),
        "uuid": base64.b64encode(uuid.uuid4().bytes).decode(), "message": message,
    }  # fmt: skip
    with lock:
        updates[status["uuid"]] = {"status": status}
        with suppress(OSError):  # then it goes with the next SUBSCRIBE
            call("UPDATE", update={"status": status}).read()


def run(task_id: str, command: str) -> None:
    process = running[task_id] = subprocess.Popen(["/bin/sh", "-c", command], start_new_session=True)
    tell(task_id, "TASK_RUNNING")
    code = process.wait()
    del running[task_id]
    ended = "TASK_KILLED" if task_id in killed else "TASK_FINISHED" if code == 0 else "TASK_FAILED"
    tell(task_id, ended, f"exited with {code}")


def obey(event: dict) -> None:
    match event["type"]:
        case "LAUNCH":
            task = event["launch"]["task"]
            task_id = task["task_id"]["value"]
            tasks[task_id] = task
            command = base64.b64decode(task.get("data", "")).decode()
            threading.Thread(target=run, args=(task_id, command), daemon=True).start()
        case "KILL":
            task_id = event["kill"]["task_id"]["value"]
            killed.add(task_id)
            if task_id in running:
                os.killpg(running[task_id].pid, 15)
        case "ACKNOWLEDGED":
            with lock:
                updates.pop(event["acknowledged"]["uuid"], None)
                tasks.pop(event["acknowledged"]["task_id"]["value"], None)
        case "MESSAGE":
            call("MESSAGE", message={"data": event["message"]["data"]}).read()
        case "SHUTDOWN":
            for process in list(running.values()):
                os.killpg(process.pid, 15)
            sys.exit(0)


def subscribe() -> http.client.HTTPResponse:
    with lock:
        known = {"unacknowledged_tasks": list(tasks.values()), "unacknowledged_updates": list(updates.values())}
        return call("SUBSCRIBE", subscribe=known)


def main() -> None:
    until = time.monotonic() + GIVE_UP_S
    while time.monotonic() < until:
        with suppress(OSError, http.client.HTTPException, ValueError):
            stream = subscribe()
            try:
                while length := stream.readline():
                    obey(json.loads(stream.read(int(length))))
            finally:
                until = time.monotonic() + GIVE_UP_S
        if not RETURNS:
            sys.exit(1)
        time.sleep(RETRY_S)


if __name__ == "__main__":
    main()
