"""A custom executor on the standard library alone, which speaks plain HTTP as Mesos' own libraries do.

It first asks without its token and in another's name, and tells the answers in the message of its task's first update.
"""

import base64
import http.client
import json
import os
import uuid

HOST, _, PORT = os.environ["MESOS_AGENT_ENDPOINT"].rpartition(":")
TOKEN = os.environ["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"]
IDS = {
    "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]},
    "framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]},
}


def call(body: dict, token: str = TOKEN) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(HOST, int(PORT))
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request("POST", "/api/v1/executor", json.dumps({**IDS, **body}), headers)
    return connection.getresponse()


def main() -> None:
    subscribe = {"type": "SUBSCRIBE", "subscribe": {}}
    answers = [call(subscribe, "").status, call({**subscribe, "executor_id": {"value": "other"}}).status]
    stream = call(subscribe)
    while size := stream.readline():
        event = json.loads(stream.read(int(size)))
        if event["type"] == "LAUNCH":
            status = {
                "task_id": event["launch"]["task"]["task_id"], "state": "TASK_RUNNING", "source": "SOURCE_EXECUTOR",
                "uuid": base64.b64encode(uuid.uuid4().bytes).decode(), "message": f"{answers} {stream.status}",
            }  # fmt: skip
            call({"type": "UPDATE", "update": {"status": status}})


main()
