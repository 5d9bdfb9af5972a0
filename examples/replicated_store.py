"""A stateful framework: a key-value store of three members, each on resources of its own and a persistent volume.

    python examples/replicated_store.py run --master http://127.0.0.1:4680 --state store.json
    python examples/replicated_store.py put --state store.json colour blue
    python examples/replicated_store.py get --state store.json colour

Plain HTTP and the standard library, nothing of corral's. Each member reserves its cpus, memory, disk and port once and
creates its volume; a member that ended is started again where its volume is. A write counts when a majority has it, a
read asks a majority and takes the newest, so one member may be away. What the scheduler has to know again after its own
restart is in the state file: its framework id, and where each member's volume is.

What the cluster shows goes before what is remembered: a task that is told of as living is the member, also when it was
thought lost; where a member's volume is offered, no task has it, and the member is started there. A member whose agent
is gone for good stays away: the other two go on.
"""

import argparse
import http.client
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

MEMBERS, ROLE = 3, "store"
SIZES = {"cpus": 0.1, "mem": 32, "disk": 64}
API, JSON = "/api/v1/scheduler", {"Content-Type": "application/json"}
LIVE = {"TASK_STARTING", "TASK_RUNNING"}
UNDECIDED = {"TASK_STAGING", "TASK_KILLING", "TASK_UNREACHABLE"}

Json = dict[str, Any]


# The member: serves one directory. A key is a file that holds a version and a value.


class Member(BaseHTTPRequestHandler):
    directory = Path("data")

    def do_GET(self) -> None:
        path = self.directory / quote(self.path[1:], safe="")
        self._answer(path.read_bytes() if path.exists() else b'{"version": 0, "value": null}')

    def do_PUT(self) -> None:
        path = self.directory / quote(self.path[1:], safe="")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        there = json.loads(path.read_bytes())["version"] if path.exists() else 0
        if json.loads(body)["version"] > there:
            fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex}~")
            with fresh.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# The scheduler.


class Store:
    """Keeps all members running.

    Shapes: `places` by member's number as text, each with agent, address, task (None when it is to be started) and, as
    long as nobody has told of its volume, `new`; `alive` holds the states of those that run.
    """

    def __init__(self, master: str, file: Path) -> None:
        self.master, self.file = urlsplit(master).netloc or master, file
        known: Json = json.loads(file.read_text()) if file.exists() else {}
        self.framework_id: str | None = known.get("framework_id")
        self.places: dict[str, Json] = known.get("places", {})
        self.alive: dict[str, str] = {}
        self.stream_id = ""

    def save(self) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"framework_id": self.framework_id, "places": self.places}))
        fresh.replace(self.file)

    def run(self) -> None:
        """Subscribe, and subscribe anew whenever the master is away; the members run on meanwhile."""
        while True:
            try:
                for event in self.subscribe():
                    self.handle(event)
            except (OSError, http.client.HTTPException) as error:
                print(f"master not reached: {error}; trying again", file=sys.stderr)
            time.sleep(0.5)

    def subscribe(self) -> Iterator[Json]:
        info: Json = {
            "user": "root", "name": "replicated-store", "roles": [ROLE], "failover_timeout": 3600.0, "checkpoint": True,
            "capabilities": [{"type": t} for t in ("MULTI_ROLE", "RESERVATION_REFINEMENT", "PARTITION_AWARE")],
        }  # fmt: skip
        call: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if self.framework_id:
            info["id"] = call["framework_id"] = {"value": self.framework_id}
        connection = http.client.HTTPConnection(self.master, timeout=60)
        connection.request("POST", API, json.dumps(call), JSON)
        answer = connection.getresponse()
        if answer.status == 307:
            self.master = urlsplit(answer.headers["Location"]).netloc
            return
        if answer.status != 200:
            raise http.client.HTTPException(answer.read().decode())
        self.stream_id = answer.headers["Mesos-Stream-Id"]
        while line := answer.readline():
            yield json.loads(answer.read(int(line)))

    def call(self, kind: str, body: Json) -> None:
        envelope = {"type": kind, "framework_id": {"value": self.framework_id}, kind.lower(): body}
        connection = http.client.HTTPConnection(self.master, timeout=10)
        connection.request("POST", API, json.dumps(envelope), {**JSON, "Mesos-Stream-Id": self.stream_id})
        answer = connection.getresponse()
        if answer.status != 202:
            raise http.client.HTTPException(answer.read().decode())
        connection.close()

    def handle(self, event: Json) -> None:
        match event["type"]:
            case "SUBSCRIBED":
                self.framework_id = event["subscribed"]["framework_id"]["value"]
                self.save()
                self.alive.clear()
                self.reconcile()
            case "HEARTBEAT":
                self.reconcile()
            case "OFFERS":
                for offer in event["offers"]["offers"]:
                    self.take(offer)
            case "UPDATE":
                self.note(event["update"]["status"])
            case "ERROR":
                sys.exit(event["error"]["message"])

    def reconcile(self) -> None:
        """Ask for the members of which nothing is known, until somebody tells of them."""
        asked = [p["task"] for number, p in self.places.items() if p["task"] and number not in self.alive]
        if asked:
            self.call("RECONCILE", {"tasks": [{"task_id": {"value": task_id}} for task_id in asked]})

    def note(self, status: Json) -> None:
        task_id, state = status["task_id"]["value"], status["state"]
        if "uuid" in status:
            self.call("ACKNOWLEDGE", {k: status[k] for k in ("agent_id", "task_id", "uuid")})
        number = task_id.split(".")[1]
        place = self.places.get(number)
        if place is None or (state not in LIVE and place["task"] != task_id):
            return
        if status.get("agent_id", {}).get("value", place["agent"]) != place["agent"]:
            return
        print(f"member {number}: {state}", flush=True)
        if state in LIVE:
            # It may have been thought lost: as it has the volume, it is the member.
            self.alive[number] = state
            place["task"] = task_id
            place.pop("new", None)
            self.save()
            return
        self.alive.pop(number, None)
        if state in UNDECIDED:
            return
        place["task"] = None
        if "new" in place:  # nothing was kept there; the next offer will do
            del self.places[number]
        self.save()
        self.call("REVIVE", {})

    def take(self, offer: Json) -> None:
        """Start on this offer whatever member may be started there; decline the rest for a while."""
        operations: list[Json] = []
        left = {r["name"]: r["scalar"]["value"] for r in offer["resources"] if "scalar" in r and not reserved_for(r)}
        free = [(p["begin"], p["end"]) for r in offer["resources"] if r["name"] == "ports" and not reserved_for(r)
                for p in r["ranges"]["range"]]  # fmt: skip
        for number in map(str, range(MEMBERS)):
            held = [r for r in offer["resources"] if reserved_for(r) == number]
            if any("persistence" in r.get("disk", {}) for r in held):
                operations += self.start_again(number, offer, held)
                continue
            if number in self.places or any(left.get(name, 0) < size for name, size in SIZES.items()) or not free:
                continue
            for name, size in SIZES.items():
                left[name] -= size
            port, (low, high) = free[0][0], free[0]
            free = [(low + 1, high), *free[1:]] if low < high else free[1:]
            operations += self.start_first(number, offer, port)
        self.save()
        filters = {"refuse_seconds": 3600.0 if len(self.alive) == MEMBERS else 1.0}
        self.call("ACCEPT", {"offer_ids": [offer["id"]], "operations": operations, "filters": filters})

    def start_again(self, number: str, offer: Json, held: list[Json]) -> list[Json]:
        """On what is reserved for the member and its volume, unless that is one it has left for another."""
        agent, ports = offer["agent_id"]["value"], [r["ranges"]["range"] for r in held if r["name"] == "ports"]
        place = self.places.get(number)
        if not ports or (place is not None and place["agent"] != agent):
            return []
        self.alive.pop(number, None)
        self.places[number] = {"agent": agent, "address": f"{offer['hostname']}:{ports[0][0]['begin']}"}
        return [self.launch(number, offer, held)]

    def start_first(self, number: str, offer: Json, port: int) -> list[Json]:
        agent = offer["agent_id"]["value"]
        self.places[number] = {"agent": agent, "address": f"{offer['hostname']}:{port}", "new": True}
        plain, kept = resources_of(number, port)
        return [
            {"type": "RESERVE", "reserve": {"resources": plain}},
            {"type": "CREATE", "create": {"volumes": [kept]}},
            self.launch(number, offer, [*(r for r in plain if r["name"] != "disk"), kept]),
        ]

    def launch(self, number: str, offer: Json, resources: list[Json]) -> Json:
        task_id = f"store.{number}.{uuid.uuid4().hex[:8]}"
        place = self.places[number]
        place["task"] = task_id
        command = f"exec {sys.executable} {Path(__file__).name} member --port {place['address'].rpartition(':')[2]}"
        info = {
            "name": f"store-{number}", "task_id": {"value": task_id}, "agent_id": offer["agent_id"],
            "resources": resources,
            "command": {"value": command, "uris": [{"value": str(Path(__file__).resolve()), "extract": False}]},
        }  # fmt: skip
        return {"type": "LAUNCH", "launch": {"task_infos": [info]}}


def reserved_for(resource: Json) -> str | None:
    """The member that a resource is reserved for; empty for another's, None when it is not reserved."""
    stack = resource.get("reservations")
    if not stack:
        return None
    return next((e["value"] for e in stack[-1].get("labels", {}).get("labels", ()) if e["key"] == "member"), "")


def resources_of(number: str, port: int) -> tuple[list[Json], Json]:
    """What a member reserves, and its volume, which takes the place of the plain disk."""
    labels = {"labels": [{"key": "member", "value": number}]}
    stack = {"reservations": [{"type": "DYNAMIC", "role": ROLE, "labels": labels}]}
    plain: list[Json] = [
        {"name": n, "type": "SCALAR", "scalar": {"value": size}, **stack} for n, size in SIZES.items()
    ]  # fmt: skip
    plain.append({"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": port, "end": port}]}, **stack})
    disk = {"persistence": {"id": f"store-{number}"}, "volume": {"mode": "RW", "container_path": "data"}}
    kept = next(r for r in plain if r["name"] == "disk") | {"disk": disk}
    return plain, kept


# The client.


def ask(address: str, method: str, key: str, body: str | None = None) -> Json | None:
    """A member's answer; None when it does not answer."""
    connection = http.client.HTTPConnection(address, timeout=3)
    try:
        connection.request(method, "/" + quote(key, safe=""), body)
        found: Json = json.loads(connection.getresponse().read())
        return found
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def ask_majority(file: Path, method: str, key: str, body: str | None = None) -> list[Json]:
    places = json.loads(file.read_text())["places"].values()
    found = [answer for place in places if (answer := ask(place["address"], method, key, body)) is not None]
    if len(found) <= MEMBERS // 2:
        sys.exit(f"only {len(found)} of {MEMBERS} members answer; try again when more are back")
    return found


def read(file: Path, key: str) -> Json:
    return max(ask_majority(file, "GET", key), key=lambda answer: int(answer["version"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("do", choices=("run", "put", "get", "member"))
    parser.add_argument("words", nargs="*")
    parser.add_argument("--master", default="http://127.0.0.1:4680")
    parser.add_argument("--state", type=Path, default=Path("store.json"))
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    match given.do, given.words:
        case "run", []:
            Store(given.master, given.state).run()
        case "member", []:
            ThreadingHTTPServer(("", given.port), Member).serve_forever()
        case "get", [key]:
            print(read(given.state, key)["value"])
        case "put", [key, value]:
            version = read(given.state, key)["version"] + 1
            ask_majority(given.state, "PUT", key, json.dumps({"version": version, "value": value}))
        case _:
            parser.error("run and member take no words, get takes KEY, put takes KEY VALUE")


if __name__ == "__main__":
    main()
