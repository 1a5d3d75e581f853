"""Worker processes of a finite command: jobs go out, results come back, and a worker that dies is named.

A pool of the standard library waits for ever for a worker that the kernel has killed, or cannot say at which job. Here
each worker has a pipe; the parent watches the pipes and the processes. Workers die with their parent.
"""

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from aloha_runtime.commands.interrupts import Interrupts
from aloha_runtime.errors import AlohaError, ProcessError

Job = TypeVar("Job")
Result = TypeVar("Result")

LOOK_EVERY_S = 0.2
"""How long Ctrl-C waits at most to be noticed."""
PR_SET_PDEATHSIG = 1


def default_workers() -> int:
    """One worker a core."""
    return len(os.sched_getaffinity(0))


def run_jobs(
    setup: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job], workers: int, describe: Callable[[Job], str]
) -> Generator[tuple[Job, Result], None, None]:
    """Each job with its result, as they are done; close the iterator (`contextlib.closing`) to end the workers early.

    Every worker calls `setup` once, in a fresh interpreter (an OpenGL context does not survive a fork), and its result
    for each job; all of these are pickled. An AlohaError in a worker is raised here.

    Raises:
        ProcessError: a worker died; names what it was doing, as `describe` says it.
    """
    interrupts = Interrupts()
    interrupts.begin()
    waiting = deque(jobs)
    team = [_Worker(number, setup) for number in range(1, min(workers, len(jobs)) + 1)]
    try:
        for worker in team:
            worker.hand(waiting.popleft(), describe)
        while busy := [worker for worker in team if worker.doing]:
            interrupts.check()
            ready = connection.wait([pipe for worker in busy for pipe in worker.signs()], timeout=LOOK_EVERY_S)
            for worker in busy:
                if set(worker.signs()).isdisjoint(ready):
                    continue
                job, result = worker.take()
                if waiting:
                    worker.hand(waiting.popleft(), describe)
                yield job, result
    finally:
        for worker in team:
            worker.end()
        interrupts.end()


class _Worker:
    """One process, as its parent sees it. `doing` describes its job, "" when it has none."""

    def __init__(self, number: int, setup: Callable[[], Any]) -> None:
        self._number, self.doing = number, ""
        self._pipe, theirs = multiprocessing.Pipe()
        resource_tracker.ensure_running()  # starting it unblocks signals
        # The child inherits the mask: Ctrl-C in its terminal is its parent's business alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            context = multiprocessing.get_context("spawn")
            self._process: BaseProcess = context.Process(target=_work, args=(setup, theirs), daemon=True)
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def signs(self) -> tuple[Any, int]:
        """What becomes readable when it has an answer, or has died."""
        return self._pipe, self._process.sentinel

    def hand(self, job: Any, describe: Callable[[Any], str]) -> None:
        self._job, self.doing = job, describe(job)
        try:
            self._pipe.send(job)
        except BrokenPipeError:
            raise self._died() from None

    def take(self) -> tuple[Any, Any]:
        """The job and its result; raises what went wrong with it."""
        try:
            error, result = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        if error is not None:
            raise ProcessError(*error)
        self.doing = ""
        return self._job, result

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _died(self) -> ProcessError:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why = "memory may have run out: try fewer --workers" if code == -signal.SIGKILL else "see what it printed above"
        return ProcessError(f"worker {self._number} ({self.doing}) {how}; {why}", max(code, 1))


def _work(setup: Callable[[], Callable[[Any], Any]], pipe: connection.Connection) -> None:
    """The child: set up, then one result for each job until the parent closes the pipe."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        do = setup()
        while True:
            pipe.send((None, do(pipe.recv())))
    except AlohaError as error:
        pipe.send(((str(error), error.exit_code), None))
    except (EOFError, BrokenPipeError):
        return
