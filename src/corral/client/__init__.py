"""Clients of the batch API for Python programs: plain and asynchronous, and an executor that runs commands.

from corral.client import BatchClient

with BatchClient("http://127.0.0.1:4680") as client:
    (job,) = client.submit([{"command": "echo hello"}])
    print(client.wait_for(job.id).state)
"""

from corral.client.aio import AsyncBatchClient
from corral.client.batch import BatchClient
from corral.client.calls import Event
from corral.client.executor import BatchExecutor, BatchFuture, JobEnded
from corral.client.records import Job, Owner, Stats, Submission, Submitted, Waited

__all__ = [
    "AsyncBatchClient", "BatchClient", "BatchExecutor", "BatchFuture", "Event", "Job", "JobEnded", "Owner", "Stats",
    "Submission", "Submitted", "Waited",
]  # fmt: skip
