"""Watches one task from its start to its end: starts the command, ends it when told, and puts its exit on disk.

There is one for every task. It outlives the agent, is the parent of everything the task leaves behind, and its own end
tells the agent that the exit is on disk and that nothing of the task runs any more. Standard library only: it is forked
by the nursery, so it costs little memory. Source: prctl(2) PR_SET_CHILD_SUBREAPER; Mesos v1, kill of command tasks.
"""

import json
import os
import pwd
import signal
import socket
import stat
import time
from contextlib import suppress
from typing import NoReturn

from corral.lib.contact import LOOK_S, Lease
from corral.process import cgroup, enter, record, tree
from corral.process.record import Ended, Kill, Pids, Run

STOP = signal.SIGUSR1
"""From the runtime: read kill.json."""
SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, STOP}
_LOG_CHECK_S = 1.0
_STUBBORN_S = 10.0


def supervise(directory: str, reports: socket.socket) -> NoReturn:
    """Run the task of `directory`; never returns. What became of the start goes to `reports`."""
    code = 1
    try:
        _detach()
        lock = record.take_lock(directory)
        # Without lock or record another one has it, or the start was given up meanwhile: either way nothing to do here.
        if lock is not None:
            me = tree.read_stat(os.getpid())
            record.sign_lock(lock, os.getpid(), me.start if me else 0)
            run: Run | None = record.read_record(directory, record.RUN)
            if run is not None and record.read_record(directory, record.PIDS) is None:
                Supervisor(directory, run, reports).run()
        code = 0
    finally:
        os._exit(code)


def _detach() -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    enter.set_name("corral-task")
    enter.become_subreaper()


class Supervisor:
    """The life of one task."""

    __slots__ = (
        "_deadline",
        "_directory",
        "_ended",
        "_fenced",
        "_groups",
        "_lease",
        "_logs",
        "_pid",
        "_reports",
        "_run",
    )

    def __init__(self, directory: str, run: Run, reports: socket.socket) -> None:
        self._directory = directory
        self._run = run
        self._reports = reports
        self._groups = [group["path"] for group in run["cgroups"]]
        self._logs: list[tuple[str, int]] = []
        self._pid = 0
        self._ended = False
        self._deadline: float | None = None
        fence = run.get("fence")
        self._lease = Lease(fence, run["boot_id"]) if fence else None
        self._fenced = False

    def run(self) -> None:
        try:
            self._start()
        except enter.CannotEnter as error:
            self._fail(str(error))
            return
        except OSError as error:
            self._fail(f"the node cannot start the task: {error.filename or 'fork'}: {error.strerror}")
            return
        self._watch()
        self._clean()

    # Starting.

    def _start(self) -> None:
        if self._lease is not None and self._lease.left_s() <= 0.0:
            raise enter.CannotEnter(self._lease.why())
        # The exit and the order to end must find room also on a disk that has become full.
        record.reserve(self._directory, record.EXIT)
        record.reserve(self._directory, record.KILL)
        cgroup.create(self._run["cgroups"])
        outputs = [open_log(self._run["sandbox"], name, self._run["user"]) for name in ("stdout", "stderr")]
        told, status = os.pipe()
        child = os.fork()
        if child == 0:
            self._become_task(outputs, status)
        self._keep_logs(outputs)
        os.close(status)
        with open(told, "rb") as file:
            words = [json.loads(line) for line in file]
        failed = next((word["error"] for word in words if "error" in word), None)
        pid = next((word["pid"] for word in words if "pid" in word), None if self._run["wrap"] else child)
        if failed is not None or pid is None:
            os.waitpid(child, 0)
            raise enter.CannotEnter(failed or self._wrapper_words())
        if pid != child:
            # The wrapper only waits for the command; without it the command is our child, with its code and signal.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self._pid = pid
        me, task = tree.read_stat(os.getpid()), tree.read_stat(pid)
        pids: Pids = {
            "supervisor": os.getpid(),
            "supervisor_start": me.start if me else 0,
            "pid": pid,
            "pid_start": task.start if task else 0,
            "boot_id": self._run["boot_id"],
        }
        record.write_record(self._directory, record.PIDS, pids)
        self._report({"pid": pid})

    def _become_task(self, outputs: list[int], status: int) -> NoReturn:
        try:
            nothing = os.open("/dev/null", os.O_RDONLY)
            for source, target in ((nothing, 0), (outputs[0], 1), (outputs[1], 2)):
                os.dup2(source, target)
            if self._run["wrap"]:
                enter.enter_cgroups(self._run)
                os.set_inheritable(status, True)
                inner = enter.boot("enter:run_wrapped", str(status), self._directory)
                enter.execute(self._run["wrap"] + inner, dict(os.environ))
            os.setsid()
            environment = enter.read_environment(self._run)
            enter.enter_cgroups(self._run)
            enter.become_user(self._run["user"])
            enter.enter_directory(self._run["sandbox"])
            enter.die_with_parent()
            enter.execute(self._run["argv"], environment)
        except (enter.CannotEnter, OSError) as error:
            enter.tell(status, {"error": str(error)})
        finally:
            os._exit(127)

    def _keep_logs(self, outputs: list[int]) -> None:
        """Hold the output files only if they are bounded; by descriptor, as the task may replace the names by links."""
        for name, handle in zip(("stdout", "stderr"), outputs, strict=True):
            if self._run["most_log_bytes"] is None:
                os.close(handle)
            else:
                self._logs.append((os.path.join(self._run["sandbox"], name), handle))

    def _wrapper_words(self) -> str:
        try:
            with open(os.path.join(self._run["sandbox"], "stderr"), "rb") as file:
                words = file.read()[-500:].decode(errors="replace").strip()
        except OSError:
            words = ""
        return f"the mounts of the task could not be made: {words or 'bubblewrap ended without a word'}"

    def _fail(self, message: str) -> None:
        self._pid, self._ended = 0, True
        self._clean()
        # Without room for it a restarted agent finds a start that never happened, which is true as well.
        with suppress(OSError):
            record.write_record(self._directory, record.EXIT, _ended(failed=True, message=message), durable=True)
        self._report({"error": message})

    def _report(self, value: dict[str, object]) -> None:
        with suppress(OSError):  # when the agent has gone, its successor finds the files
            self._reports.send(json.dumps({"id": self._run["container_id"], **value}).encode())
        self._reports.close()

    # Watching.

    def _watch(self) -> None:
        """Until the command and everything it left behind have ended."""
        while True:
            self._apply_kill()
            self._apply_fence()
            alone = self._reap()
            if alone and self._ended:
                return
            if self._ended and self._deadline is None:
                return  # ended by itself: what it left behind is ended at once
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._kill_everything(_STUBBORN_S)
                return
            self._sleep()

    def _sleep(self) -> None:
        timeout = None
        if self._deadline is not None:
            timeout = max(0.0, self._deadline - time.monotonic())
        elif self._lease is not None:
            timeout = min(LOOK_S, max(0.0, self._lease.left_s()))
        if self._run["most_log_bytes"] is not None:
            timeout = _LOG_CHECK_S if timeout is None else min(_LOG_CHECK_S, timeout)
            for path, handle in self._logs:
                rotate_log(path, handle, self._run["most_log_bytes"])
        got = signal.sigwaitinfo(SIGNALS) if timeout is None else signal.sigtimedwait(SIGNALS, timeout)
        if got is not None and got.si_signo in (signal.SIGTERM, signal.SIGINT):
            # Somebody ends processes one by one, as at shutdown: pass it on and stay to see how the task ends.
            self._send(signal.SIGTERM)

    def _apply_kill(self) -> None:
        """Take the runtime's order, if there is one; a later order may only shorten the grace."""
        order: Kill | None = record.read_record(self._directory, record.KILL)
        if order is None:
            return
        if self._deadline is None:
            self._deadline = order["deadline"]
            self._send(signal.SIGTERM)
        self._deadline = min(self._deadline, order["deadline"])

    def _apply_fence(self) -> None:
        """End a task whose agent has lost the masters for too long and has not ended it: it may be stopped or dead."""
        if self._lease is not None and self._deadline is None and self._lease.left_s() <= 0.0:
            self._fenced = not self._ended
            self._deadline = time.monotonic() + self._lease.fence["grace_s"]
            self._send(signal.SIGTERM)

    def _reap(self) -> bool:
        """Collect the dead; True when no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._pid:
                self._note_exit(status)

    def _note_exit(self, status: int) -> None:
        self._ended = True
        code = os.waitstatus_to_exitcode(status)
        oom = code != 0 and cgroup.oom_kills(self._groups) > 0
        self._write_exit(_ended(code=code, oom=oom) if code >= 0 else _ended(number=-code, oom=oom))

    def _write_exit(self, ended: Ended) -> None:
        if self._fenced and self._lease is not None:
            ended["fenced"], ended["message"] = True, ended["message"] or self._lease.why()
        while True:
            try:
                record.write_record(self._directory, record.EXIT, ended, durable=True)
                return
            except FileNotFoundError:
                return  # the run was removed by force: nobody asks any more
            except OSError:
                time.sleep(1.0)  # told late rather than never

    # Ending.

    def _send(self, number: int) -> None:
        tree.send_all(self._below(), number)

    def _below(self) -> list[tree.Stat]:
        """What is in the task's cgroups; once that is nothing, or without any, all that descends from here."""
        grouped = [tree.read_stat(pid) for pid in cgroup.pids_in(self._groups)]
        found = [stat for stat in grouped if stat is not None]
        return found or tree.descendants(os.getpid(), tree.read_processes())

    def _kill_everything(self, most_s: float) -> None:
        """SIGKILL to all that is left, until it is gone or does not die."""
        until = time.monotonic() + most_s
        while not (self._reap() and not cgroup.pids_in(self._groups)) and time.monotonic() < until:
            cgroup.kill(self._groups)
            self._send(signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)

    def _clean(self) -> None:
        self._kill_everything(_STUBBORN_S)
        if self._pid and not self._ended:
            self._write_exit(_ended(message="the task does not end on SIGKILL; a device or file server may hang"))
        cgroup.remove(self._groups)


def _ended(
    *, code: int | None = None, number: int | None = None, oom: bool = False, failed: bool = False, message: str = ""
) -> Ended:
    return {"code": code, "signal": number, "oom": oom, "failed": failed, "message": message, "at": time.time()}


def open_log(sandbox: str, name: str, user: str | None) -> int:
    """Open one output file for appending, owned by the task's user.

    Errors: `CannotEnter` when it is a link or no plain file: fetched archives may try that to write elsewhere.
    """
    path = os.path.join(sandbox, name)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        handle = os.open(path, flags, 0o644)
    except OSError as error:
        raise enter.CannotEnter(f"output file {path} cannot be written: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise enter.CannotEnter(f"output file {path} is no plain file; remove it from what is fetched")
    os.set_blocking(handle, True)
    if user is not None and os.geteuid() == 0:
        _give(handle, user)
    return handle


def _give(handle: int, user: str) -> None:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        return  # said in better words when the user is changed
    os.fchown(handle, entry.pw_uid, entry.pw_gid)


def rotate_log(path: str, handle: int, most_bytes: int) -> bool:
    """Keep one older part as `NAME.1` when the open file is over its bound; True when it was.

    What is written between copy and cut is lost: the price for a task that writes straight to its file.
    """
    found = os.fstat(handle)
    if found.st_size <= most_bytes:
        return False
    try:
        if os.path.lexists(path + ".1"):
            os.unlink(path + ".1")
        older = os.open(path + ".1", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.fchown(older, found.st_uid, found.st_gid)
            start = 0
            while sent := os.sendfile(older, handle, start, 1 << 24):
                start += sent
        finally:
            os.close(older)
    except OSError:
        pass  # a full disk is no reason to let the file grow on
    os.ftruncate(handle, 0)
    return True
