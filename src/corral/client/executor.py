"""An executor of `concurrent.futures` whose work are commands on the cluster.

One thread gathers what is submitted into few requests, another waits for all that is under way by one long request.
Python functions are not taken: nothing says that the node has the same Python and modules. A command such as
`python -m package.step` with its input in the environment says so.
"""

import atexit
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import msgspec

from corral.client.batch import BatchClient
from corral.client.records import Job
from corral.lib.errors import CorralError, Failed

MOST_AT_ONCE = 1000
MOST_WATCHED = 20_000
"""How many are waited for by one request; where more run, they have turns."""
LOOK_S = 1.0
GATHER_S = 0.02
"""Between two looks, so that many ends are one answer."""
EXIT_S = 30.0


class _Broken(RuntimeError):
    def __init__(self) -> None:
        super().__init__("the executor has failed; its thread's traceback says how")


class JobEnded(Failed):
    """The job did not succeed. Shapes: `job` is its last record."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} ended as {job.state}: {job.reason or f'exit code {job.exit_code}'}")
        self.job = job


class BatchFuture(Future[Job]):
    """Shapes: `job_id` is known once the job has been taken.

    `cancel` works until the job is on its way to the master; from then on `kill` ends it, which makes its result a
    `JobEnded`.
    """

    def __init__(self, kill: Callable[[str], None]) -> None:
        super().__init__()
        self._kill = kill
        self._guard = threading.Lock()
        self._unwanted = False
        self.job_id: str | None = None

    def kill(self) -> bool:
        """Have the job end, or never begin; False when it is over already. Errors: as the client's."""
        if self.cancel():
            return True
        with self._guard:
            # One that is on its way is ended as soon as it has arrived.
            self._unwanted = self.job_id is None
            job_id = self.job_id
        if self.done():
            return False
        if job_id is not None:
            self._kill(job_id)
        return True

    def arrive(self, job_id: str) -> bool:
        """The master has taken the job; returns whether it is to be ended at once."""
        with self._guard:
            self.job_id = job_id
            return self._unwanted


class BatchExecutor(Executor):
    """Runs commands as jobs. Shapes: `defaults` are fields of all its jobs, such as `cpus` or `owner`.

    The result of a future is the job's record; of a job that did not succeed it is a `JobEnded`. What the master does
    not take is the error that it says. When no master has answered for the client's `retry_s`, the futures end with
    that; the jobs go on, and `job_id` finds them again. What was submitted before a program ends is handed over.
    """

    def __init__(self, client: BatchClient, **defaults: Any) -> None:
        self._client = client
        # What cannot be sent is told to who asked for it, not found out by a thread.
        msgspec.json.encode(defaults)
        self._defaults = defaults
        self._name = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting: list[tuple[dict[str, Any], BatchFuture]] = []
        self._running: dict[str, list[BatchFuture]] = {}
        self._number = 0
        self._closed = False
        self._submitted = False
        self._threads = [
            threading.Thread(target=work, name=f"corral-batch-{name}", daemon=True)
            for name, work in (("submit", self._submit_all), ("settle", self._settle_all))
        ]
        for thread in self._threads:
            thread.start()
        self._at_exit = _flush_at_exit(self)

    def submit(self, command: Any, /, *words: Any, **fields: Any) -> BatchFuture:  # type: ignore[override]
        """Run a command: one text for a shell, or a program and its words. Shapes: `fields` are those of a job.

        Errors: `TypeError` for a Python function and for what is no JSON; `RuntimeError` after `shutdown`.
        """
        if callable(command):
            raise TypeError("a batch executor runs commands, not Python functions; submit('python', '-m', 'module')")
        if isinstance(command, (bytes, bytearray)):
            raise TypeError("a command is a text or a list of words, and not bytes; decode them")
        if isinstance(command, str) and not words:
            job = {"command": command, **fields}
        else:
            first = [command] if isinstance(command, str) else list(command)
            job = {"argv": [str(word) for word in (*first, *words)], **fields}
        # What cannot be sent is told to who asked for it, not found out by a thread.
        msgspec.json.encode(job)
        future = BatchFuture(self._client.kill)
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor has been shut down; nothing can be submitted any more")
            self._waiting.append((job, future))
            self._news.notify_all()
        return future

    def map(  # type: ignore[override]
        self, commands: Iterable[str | Sequence[str]], /, *, timeout: float | None = None, **fields: Any
    ) -> Iterator[Job]:
        """The records of all commands in their order, each once it is over.

        Units: `timeout` seconds from the call on, for all of them. Errors: `TimeoutError`; the first that failed. What
        was not submitted by then is cancelled.
        """
        until = None if timeout is None else time.monotonic() + timeout
        futures = [self.submit(command, **fields) for command in commands]
        return _results(futures, until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing new. Shapes: with `wait` returns when all jobs are over, else at once, and they go on.

        With `cancel_futures` jobs that were not submitted yet never are.
        """
        left: list[tuple[dict[str, Any], BatchFuture]] = []
        with self._lock:
            self._closed = True
            if cancel_futures:
                left, self._waiting = self._waiting, []
            self._news.notify_all()
        for _, future in left:
            # Its callbacks may call the executor, and whoever waits for it is told by the second.
            future.cancel()
            future.set_running_or_notify_cancel()
        if wait:
            self._join(self._threads, None)
            atexit.unregister(self._at_exit)

    def flush(self, timeout_s: float = EXIT_S) -> None:
        """Take nothing new and hand over what was submitted, without waiting for its end."""
        self.shutdown(wait=False)
        self._join(self._threads[:1], timeout_s)

    def _join(self, threads: Sequence[threading.Thread], timeout_s: float | None) -> None:
        for thread in threads:
            # A callback of a future runs in one of these.
            if thread is not threading.current_thread():
                thread.join(timeout_s)

    # The thread that submits.

    def _submit_all(self) -> None:
        try:
            while portion := self._next_portion():
                sent = [pair for pair in portion if pair[1].set_running_or_notify_cancel()]
                try:
                    self._submit(sent)
                finally:
                    # None of them is without an answer now, but after a bug.
                    self._break(future for _, future in sent if future.job_id is None and not future.done())
        finally:
            with self._lock:
                self._submitted = True
                self._news.notify_all()
            self._abandon()
            self._client.close()

    def _next_portion(self) -> list[tuple[dict[str, Any], BatchFuture]]:
        """Shapes: empty when nothing comes any more."""
        with self._lock:
            while not self._waiting and not self._closed:
                self._news.wait()
            portion, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            return portion

    def _submit(self, portion: list[tuple[dict[str, Any], BatchFuture]]) -> None:
        if not portion:
            return
        self._number += 1
        try:
            found = self._client.submit(
                [job for job, _ in portion], defaults=self._defaults, key=f"{self._name}-{self._number}"
            )
        except CorralError as error:
            if len(portion) > 1 and error.status in _OF_ONE:
                # One of them is at fault; the others shall not suffer for it.
                middle = len(portion) // 2
                self._submit(portion[:middle])
                self._submit(portion[middle:])
                return
            for _, future in portion:
                future.set_exception(error)
            return
        unwanted = []
        with self._lock:
            for submitted, (_, future) in zip(found, portion, strict=True):
                # Jobs of one key are one job.
                self._running.setdefault(submitted.id, []).append(future)
                if future.arrive(submitted.id):
                    unwanted.append(submitted.id)
            self._news.notify_all()
        self._end(unwanted)

    def _end(self, unwanted: list[str]) -> None:
        if not unwanted:
            return
        try:
            self._client.kill_many(unwanted)
        except CorralError as error:
            for job_id in unwanted:
                for future in self._take(job_id):
                    future.set_exception(error)

    def _abandon(self) -> None:
        """A bug has ended the thread: nobody shall wait for ever for what it had before it."""
        with self._lock:
            left, self._waiting = self._waiting, []
        self._break(future for _, future in left if future.set_running_or_notify_cancel())

    def _break(self, futures: Iterable[BatchFuture]) -> None:
        for future in futures:
            future.set_exception(_Broken())

    # The thread that waits.

    def _settle_all(self) -> None:
        try:
            while ids := self._next_watched():
                self._look(ids)
                time.sleep(GATHER_S)
        finally:
            with self._lock:
                left, self._running = self._running, {}
            self._break(future for futures in left.values() for future in futures)
            self._client.close()

    def _next_watched(self) -> list[str]:
        """Shapes: empty when nothing runs and nothing comes any more."""
        with self._lock:
            while not self._running and not self._submitted:
                self._news.wait()
            ids = list(self._running)[:MOST_WATCHED]
            if len(ids) < len(self._running):
                for job_id in ids:
                    self._running[job_id] = self._running.pop(job_id)
            return ids

    def _look(self, ids: list[str]) -> None:
        """Wait a moment for any of those, and settle the ones that are over."""
        try:
            done = self._client.wait(ids, timeout_s=LOOK_S, any=True).done
            jobs = self._client.query(done) if done else {}
        except CorralError as error:
            for job_id in ids:
                for future in self._take(job_id):
                    future.set_exception(error)
            return
        for job_id in done:
            job = jobs.get(job_id)
            for future in self._take(job_id):
                if job is None:
                    future.set_exception(Failed(f"job {job_id} is forgotten; give it a longer ttl"))
                elif job.succeeded:
                    future.set_result(job)
                else:
                    future.set_exception(JobEnded(job))

    def _take(self, job_id: str) -> list[BatchFuture]:
        with self._lock:
            return self._running.pop(job_id, [])


_OF_ONE = (400, 409, 413, 422)
"""What a master answers when some job of a request is at fault, rather than who asks or the time."""


def _results(futures: list[BatchFuture], until: float | None) -> Iterator[Job]:
    try:
        for future in futures:
            yield future.result(None if until is None else max(0.0, until - time.monotonic()))
    finally:
        for future in futures:
            future.cancel()


def _flush_at_exit(executor: BatchExecutor) -> Callable[[], None]:
    """Have what was submitted handed over when the program ends without a shutdown."""
    known = weakref.ref(executor)

    def flush() -> None:
        found = known()
        if found is not None:
            found.flush()

    atexit.register(flush)
    return flush
