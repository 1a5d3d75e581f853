"""The operating-system processes of a stack: started, looked after, ended. Each can say why it gives up."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from aloha_runtime.errors import ProcessError
from aloha_runtime.processes.table import Process

TERM_TIMEOUT_S = 5.0
COMPLAINT_BYTES = 65536
"""What a pipe holds; a message is far shorter."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
"""Loaded before anything forks: between fork and exec only plain system calls are safe."""


@dataclass
class _Child:
    popen: subprocess.Popen[bytes]
    stage: int
    complaints: int
    """Reading end of the pipe for its last words."""

    def complaint(self) -> str:
        """Why it gave up, in its own words; empty when it said nothing. Ask once it has ended."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.complaints, COMPLAINT_BYTES).decode(errors="replace").strip()
        return ""

    def close(self) -> None:
        os.close(self.complaints)


class Children:
    """Processes of the table by name. They get SIGTERM when this process dies, whatever it dies of."""

    def __init__(self, rig_file: Path, run_dir: Path) -> None:
        self._options = ["--rig", str(rig_file), "--run-dir", str(run_dir)]
        self._children: dict[str, _Child] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def spawn(self, process: Process) -> None:
        """Start a process, again if it has ended. Raises ProcessError when the machine has no room for it."""
        try:
            child = self._spawned(process)
        except OSError as error:
            raise ProcessError(
                f"{process.name} cannot be started ({error.strerror}): close other programs", 1
            ) from None
        if process.name in self._children:
            self._children.pop(process.name).close()
        self._children[process.name] = child

    def _spawned(self, process: Process) -> _Child:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        command = [sys.executable, "-m", process.module, process.name, *self._options]
        command += ["--stage", str(process.stage), "--complain-to", str(writing), *process.arguments]
        # A session of its own keeps the terminal's Ctrl-C away: the stack decides who stops, and when.
        parent = os.getpid()
        try:
            popen = subprocess.Popen(
                command,
                start_new_session=True,
                pass_fds=[writing],
                preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 (it makes system calls only)
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return _Child(popen, process.stage, reading)

    def stop(self, name: str) -> None:
        """End one process; `spawn` starts it, or another under its name, again."""
        _terminate([self._children[name].popen])

    def pid(self, name: str) -> int:
        """Process id; that of the last run when it has ended."""
        return self._children[name].popen.pid

    def ended(self, name: str) -> int | None:
        """None while it runs; else its exit code, negative for the signal that killed it."""
        return self._children[name].popen.poll()

    def failure(self, name: str, what: str) -> ProcessError:
        """The error of a process that ended: `what` names what it failed to do."""
        child = self._children[name]
        code = child.popen.poll() or 0
        said = child.complaint() or (
            f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}; see what it printed above"
        )
        return ProcessError(f"{name} {what}: {said}", max(code, 1))

    def end(self) -> None:
        """Terminate all, those started last first, so that arms end before the ports they talk through."""
        for stage in sorted({child.stage for child in self._children.values()}, reverse=True):
            _terminate([child.popen for child in self._children.values() if child.stage == stage])
        for child in self._children.values():
            child.close()
        self._children.clear()


def _terminate(group: list[subprocess.Popen[bytes]]) -> None:
    """SIGTERM, and SIGKILL for what does not listen."""
    running = [popen for popen in group if popen.poll() is None]
    for popen in running:
        popen.terminate()
    deadline = time.monotonic() + TERM_TIMEOUT_S
    for popen in running:
        try:
            popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def _die_with(parent: int) -> None:
    """In the child, before it becomes the process: SIGTERM when the stack itself dies."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before that call
        os._exit(0)
