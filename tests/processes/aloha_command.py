"""The `aloha` command as an operator runs it, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from aloha_runtime.run_directory import SHARED_MEMORY, ring_prefix
from aloha_runtime.virtual_time import TIME

PATIENCE_S = 150.0
"""Only a hang takes so long."""
KILLED_S = 30.0
"""The longest set-up call that a process finishes before it notices that its stack was killed."""


def wait(until: Callable[[], bool], what: Callable[[], str], patience_s: float = PATIENCE_S) -> None:
    """Until a condition holds; AssertionError saying what is the matter when it never does."""
    give_up = time.monotonic() + patience_s
    while not until():
        assert time.monotonic() < give_up, what()
        time.sleep(0.02)


class Aloha:
    """One run of the command in `run_dir`, its output gathered as it comes."""

    def __init__(self, run_dir: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.run_dir = run_dir
        self.output = ""
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "aloha_runtime.cli", *arguments, "--run-dir", str(run_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        self._reader = threading.Thread(target=self._gather, daemon=True)
        self._reader.start()

    def _gather(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.output += line

    def said(self, text: str) -> None:
        """Wait until it has printed this."""

        def found() -> bool:
            return text in self.output or self.popen.poll() is not None

        wait(found, lambda: f"it never said {text!r}:\n{self.output}")
        assert text in self.output, f"it ended without saying {text!r}:\n{self.output}"

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> int:
        """Exit code, once it has ended."""
        wait(lambda: self.popen.poll() is not None, lambda: f"it does not end:\n{self.output}")
        if not left(self.run_dir):  # otherwise a process that is left may hold the pipe open
            self._reader.join()
        return self.popen.returncode


def processes(run_dir: Path) -> list[psutil.Process]:
    """Every live process that was started for this run directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if str(run_dir) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def left(run_dir: Path) -> list[str]:
    """What is left of a run: processes, shared memory, sockets and links. Empty when nothing is."""
    found = [f"process {process.pid} {' '.join(process.info['cmdline'][2:4])}" for process in processes(run_dir)]
    found += [str(path) for path in SHARED_MEMORY.glob(f"{ring_prefix(run_dir)}*")]
    if run_dir.exists():
        found += [str(path) for path in run_dir.iterdir() if path.is_socket() or path.is_symlink()]
    return found


def nothing_left(run_dir: Path, killed: bool) -> str:
    """Empty when a run has left nothing. `killed`: by SIGKILL, so its processes may need a moment, and what only it
    could remove (its lock, its configuration, its socket for virtual time) stays for the next run to remove."""
    give_up = time.monotonic() + (KILLED_S if killed else 0)
    own = [str(run_dir / f"{TIME}.ipc")] if killed else []
    while (found := [item for item in left(run_dir) if item not in own]) and time.monotonic() < give_up:
        time.sleep(0.05)
    if found or killed or not run_dir.exists():
        return "; ".join(found)
    return f"run directory with {[path.name for path in run_dir.iterdir()]}"
