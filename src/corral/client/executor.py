"""An executor of `concurrent.futures` whose work are commands on the cluster.

One thread gathers what is submitted into few requests, another waits for all that is under way by one long request.
Python functions are not taken: nothing says that the node has the same Python and modules. A command such as
`python -m package.step` with its input in the environment says so.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from corral.client.batch import BatchClient
from corral.client.records import Job
from corral.lib.errors import CorralError, Failed

MOST_AT_ONCE = 1000
LOOK_S = 1.0


class JobEnded(Failed):
    """The job did not succeed. Shapes: `job` is its last record."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} ended as {job.state}: {job.reason or f'exit code {job.exit_code}'}")
        self.job = job


class BatchFuture(Future[Job]):
    """Shapes: `job_id` is known once the job has been taken. A job that was submitted cannot be cancelled any more, but
    it can be killed, which makes its result a `JobEnded`."""

    def __init__(self, kill: Callable[[str], None]) -> None:
        super().__init__()
        self._kill = kill
        self.job_id: str | None = None

    def kill(self) -> bool:
        """End the job; False when it was not submitted yet, or is over. Errors: as the client's."""
        if self.cancel() or self.job_id is None or self.done():
            return False
        self._kill(self.job_id)
        return True


class BatchExecutor(Executor):
    """Runs commands as jobs. Shapes: `defaults` are fields of all its jobs, such as `cpus` or `owner`.

    The result of a future is the job's record; of a job that did not succeed it is a `JobEnded`.
    """

    def __init__(self, client: BatchClient, **defaults: Any) -> None:
        self._client = client
        self._defaults = defaults
        self._name = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting: list[tuple[dict[str, Any], BatchFuture]] = []
        self._running: dict[str, BatchFuture] = {}
        self._number = 0
        self._closed = False
        self._submitted = False
        self._threads = [
            threading.Thread(target=work, name=f"corral-batch-{name}", daemon=True)
            for name, work in (("submit", self._submit_all), ("settle", self._settle_all))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, command: Any, /, *words: Any, **fields: Any) -> BatchFuture:  # type: ignore[override]
        """Run a command: one text for a shell, or a program and its words. Shapes: `fields` are those of a job.

        Errors: `TypeError` for a Python function; `RuntimeError` after `shutdown`.
        """
        if callable(command):
            raise TypeError("a batch executor runs commands, not Python functions; submit('python', '-m', 'module')")
        if isinstance(command, str) and not words:
            job = {"command": command}
        else:
            first = [command] if isinstance(command, str) else list(command)
            job = {"argv": [str(word) for word in (*first, *words)]}  # type: ignore[dict-item]
        future = BatchFuture(self._client.kill)
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor has been shut down; nothing can be submitted any more")
            self._waiting.append(({**job, **fields}, future))
            self._news.notify_all()
        return future

    def map(  # type: ignore[override]
        self, commands: Iterable[str | Sequence[str]], /, *, timeout: float | None = None, **fields: Any
    ) -> Iterator[Job]:
        """The records of all commands in their order, each once it is over."""
        futures = [self.submit(command, **fields) for command in commands]
        return (future.result(timeout) for future in futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing new. Shapes: with `cancel_futures` jobs that were not submitted yet never are."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                for _, future in self._waiting:
                    future.cancel()
            self._news.notify_all()
        if wait:
            for thread in self._threads:
                thread.join()

    def _submit_all(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._closed:
                    self._news.wait()
                portion, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                if not portion:
                    self._submitted = True
                    self._news.notify_all()
                    break
            self._submit([pair for pair in portion if pair[1].set_running_or_notify_cancel()])
        self._client.close()

    def _settle_all(self) -> None:
        while True:
            with self._lock:
                while not self._running and not self._submitted:
                    self._news.wait()
                if not self._running:
                    break
                ids = list(self._running)
            self._look(ids)
        self._client.close()

    def _submit(self, portion: list[tuple[dict[str, Any], BatchFuture]]) -> None:
        if not portion:
            return
        self._number += 1
        try:
            found = self._client.submit(
                [job for job, _ in portion], defaults=self._defaults, key=f"{self._name}-{self._number}"
            )
        except CorralError as error:
            if len(portion) > 1:
                # One of them is at fault; the others shall not suffer for it.
                for pair in portion:
                    self._submit([pair])
                return
            portion[0][1].set_exception(error)
            return
        with self._lock:
            for submitted, (_, future) in zip(found, portion, strict=True):
                future.job_id = submitted.id
                self._running[submitted.id] = future
            self._news.notify_all()

    def _look(self, ids: list[str]) -> None:
        """Wait a moment for any of those under way, and settle those that are over."""
        try:
            done = self._client.wait(ids, timeout_s=LOOK_S, any=True).done
            jobs = self._client.query(done) if done else {}
        except CorralError as error:
            for job_id in ids:
                self._take(job_id).set_exception(error)
            return
        for job_id in done:
            future, job = self._take(job_id), jobs.get(job_id)
            if job is None:
                future.set_exception(Failed(f"job {job_id} is forgotten; give it a longer ttl"))
            elif job.succeeded:
                future.set_result(job)
            else:
                future.set_exception(JobEnded(job))

    def _take(self, job_id: str) -> BatchFuture:
        with self._lock:
            return self._running.pop(job_id)
