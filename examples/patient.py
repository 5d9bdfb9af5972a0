"""A framework over plain HTTP with nothing but the standard library: runs a command COUNT times, whoever hoards offers.

    python examples/patient.py http://127.0.0.1:4680 3 'echo hello; sleep 2'

It says once what it wants, and is offered exactly that. Plain offers that others sit on are taken back for it.
"""

import http.client
import json
import sys
from typing import Any
from urllib.parse import urlsplit

PATH, MEDIA = "/api/v1/scheduler", {"Content-Type": "application/json"}
OVER = ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST")


class Patient:
    def __init__(self, url: str, count: int, command: str) -> None:
        self.address, self.missing, self.launched, self.command = urlsplit(url), count, 0, command
        self.framework: dict[str, str] = {}
        self.live: set[str] = set()
        info = {"user": "root", "name": "patient", "failover_timeout": 60}
        self.connection = self.connect()
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        self.connection.request("POST", PATH, json.dumps(call), MEDIA)
        self.stream = self.connection.getresponse()
        if self.stream.status != 200:
            raise SystemExit(f"not subscribed: {self.stream.read().decode()}")
        self.headers = {**MEDIA, "Mesos-Stream-Id": self.stream.headers["Mesos-Stream-Id"]}

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address.hostname or "", self.address.port)

    def call(self, kind: str, **members: Any) -> None:
        connection = self.connect()
        body = {"type": kind, "framework_id": self.framework, **members}
        connection.request("POST", PATH, json.dumps(body), self.headers)
        answer = connection.getresponse()
        if answer.status != 202:
            print(f"{kind} was refused: {answer.read().decode()}", flush=True)
        connection.close()

    def run(self) -> int:
        """Follow the events until all runs have finished: each is its length, a line break, and so many bytes."""
        while length := self.stream.readline():
            event = json.loads(self.stream.read(int(length)))
            match event["type"]:
                case "SUBSCRIBED":
                    self.framework = event["subscribed"]["framework_id"]
                    self.ask()
                case "OFFERS":
                    for offer in event["offers"]["offers"]:
                        self.answer(offer)
                case "EXPLANATIONS":
                    for one in event["explanations"].get("explanations", []):
                        print(f"waiting for {one['waiting']}: {one.get('refusals')}", flush=True)
                case "UPDATE":
                    self.update(event["update"]["status"])
                case "ERROR":
                    raise SystemExit(event["error"]["message"])
            if self.framework and not self.missing and not self.live:
                self.call("TEARDOWN")
                return 0
        return 1

    def ask(self) -> None:
        """State all wants anew; `count` is how many instances are still to be launched."""
        shape = {"cpus": 0.1, "mem": 32}
        resources = [{"name": name, "type": "SCALAR", "scalar": {"value": n}} for name, n in shape.items()]
        want = {"id": "run", "role": "*", "count": self.missing, "resources": resources, "runtime": "process"}
        self.call("REQUEST", request={"wants": [want]})

    def answer(self, offer: dict[str, Any]) -> None:
        if not self.missing or offer.get("corral_want_id") != "run":
            return self.call("DECLINE", decline={"offer_ids": [offer["id"]]})
        self.missing, self.launched = self.missing - 1, self.launched + 1
        id = f"run-{self.launched}"
        self.live.add(id)
        task = {"name": "run", "task_id": {"value": id}, "agent_id": offer["agent_id"],
                "resources": offer["resources"], "command": {"value": self.command}}  # fmt: skip
        launch = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        self.call("ACCEPT", accept={"offer_ids": [offer["id"]], "operations": [launch]})

    def update(self, status: dict[str, Any]) -> None:
        id, state = status["task_id"]["value"], status["state"]
        if "uuid" in status:
            said = {"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}
            self.call("ACKNOWLEDGE", acknowledge=said)
        if state in OVER and id in self.live:
            self.live.remove(id)
            print(f"{id} {state} {status.get('message', '')}", flush=True)
            if state != "TASK_FINISHED":
                self.missing += 1
                self.ask()


if __name__ == "__main__":
    sys.exit(Patient(sys.argv[1], int(sys.argv[2]), sys.argv[3]).run())
