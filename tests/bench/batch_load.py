"""Submits jobs to a batch API over HTTP from a process of its own, many in one request, each a record of its own.

`python -m tests.bench.batch_load --url URL --jobs N [--at-once N] [--rate JOBS_PER_S] --out FILE`. Writes into the
file, as JSON: when each request was sent and which ids it got, in seconds of the wall clock, and what it cost.
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

MOST_AHEAD = 4
"""Requests that are under way at once."""


async def submit_all(options: argparse.Namespace) -> dict[str, Any]:
    sent: list[tuple[float, list[str]]] = []
    left = options.jobs
    queued = 0
    started = time.time()
    async with aiohttp.ClientSession() as session:

        async def post(count: int, number: int) -> None:
            jobs = [{"command": f"work {number} {k}"} for k in range(count)]
            at = time.time()
            body = msgspec.json.encode({"jobs": jobs})
            while True:
                async with session.post(f"{options.url}/v1/batch/jobs", data=body) as answer:
                    raw = await answer.read()
                    if answer.status == 429:
                        await asyncio.sleep(float(answer.headers["Retry-After"]))
                        continue
                    assert answer.status == 201, raw
                    break
            sent.append((at, [job["id"] for job in msgspec.json.decode(raw)["jobs"]]))

        under_way: set[asyncio.Task[None]] = set()
        number = 0
        while left > 0:
            count = min(options.at_once, left)
            left -= count
            number += 1
            if options.rate:
                due = started + queued / options.rate
                await asyncio.sleep(max(0.0, due - time.time()))
            queued += count
            under_way.add(asyncio.create_task(post(count, number)))
            if len(under_way) >= (MOST_AHEAD if not options.rate else 1000):
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        if under_way:
            done, _ = await asyncio.wait(under_way)
            for task in done:
                task.result()
    return {"sent": sent, "took_s": time.time() - started, "cpu_s": time.process_time()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.batch_load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(submit_all(options))
    options.out.write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
