"""Ctrl-C, SIGTERM and a closed terminal, noticed where a command waits and never in the middle of something."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_early: list[int] = []
"""Ctrl-C that came before anybody noted signals. Python loses the KeyboardInterrupt of one that arrives inside a
destructor or a callback: it prints "Exception ignored" and goes on."""


def remember() -> None:
    """From here on a Ctrl-C that Python loses is noticed at the latest where `Interrupts` begins. For the main thread,
    once, as early as possible."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _early.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


class Interrupts:
    """Between `begin` and `end` these signals are only noted; `check` turns each into one KeyboardInterrupt.

    Python's own KeyboardInterrupt may come between starting a process and noting that it was started.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._raised = 0
        self._before: dict[int, signal._HANDLER] = {}

    def begin(self) -> None:
        """From now on; a thread other than the main one gets no signals, so there it does nothing."""
        if threading.current_thread() is threading.main_thread():
            self._noted += len(_early)
            _early.clear()
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def check(self) -> None:
        """Raise KeyboardInterrupt for a signal that came since the last time."""
        if self._noted > self._raised:
            self._raised = self._noted
            raise KeyboardInterrupt

    def end(self) -> None:
        """As before `begin`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self._noted += 1
