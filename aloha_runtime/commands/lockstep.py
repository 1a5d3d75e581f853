"""Virtual time for a stack: its server in a thread, and the stack itself as one of the participants."""

import threading
from collections.abc import Collection
from pathlib import Path

from aloha_runtime.time_server import TimeServer
from aloha_runtime.virtual_time import VirtualClock

OPERATOR = "operator"
OPERATOR_STAGE = 3
"""The operator's turn comes last, so that it sees what all processes did at an instant."""


class LockStep:
    """Time starts when every process and the operator have joined, and runs as fast as the machine can."""

    def __init__(self, run_dir: Path, names: Collection[str]) -> None:
        self._run_dir = run_dir
        self._server = TimeServer(run_dir, [*names, OPERATOR])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._server.run, args=(self._stopping.is_set,), daemon=True)
        self._thread.start()
        self._clock: VirtualClock | None = None

    def missing(self) -> set[str]:
        """Processes that have not joined yet."""
        return self._server.missing - {OPERATOR}

    def expect(self, name: str) -> None:
        """Time stands still until this process, which is being started again, has joined."""
        self._server.expect(name)

    def forget(self, name: str) -> None:
        """Time goes on without a process that was expected."""
        self._server.forget(name)

    def join(self) -> VirtualClock:
        """Take part as the operator: time passes while its clock sleeps."""
        self._clock = VirtualClock(self._run_dir, OPERATOR, OPERATOR_STAGE)
        return self._clock

    def leave(self) -> None:
        """Take part no longer: time passes without the operator."""
        if self._clock is not None:
            self._clock.close()

    def close(self) -> None:
        """End virtual time."""
        self._stopping.set()
        self._thread.join()
        self._server.close()
