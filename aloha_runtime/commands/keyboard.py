"""Keys of the terminal, over SSH as well, read without ever waiting."""

import contextlib
import os
import select
import sys
import termios
import tty
from types import TracebackType

STOP_KEY = " "
"""The largest key is STOP, wherever a command moves the arms."""


class Keyboard:
    """As a context it takes keys one by one, unseen, and gives the terminal back as it was. Mute without a terminal."""

    def __init__(self) -> None:
        self._terminal: list[object] | None = None

    @property
    def present(self) -> bool:
        return sys.stdin.isatty()

    def __enter__(self) -> "Keyboard":
        if self.present:
            self._terminal = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal is not None:
            with contextlib.suppress(termios.error, ValueError):  # a terminal that is gone needs nothing back
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._terminal)  # type: ignore[arg-type]
            self._terminal = None

    def pressed(self) -> str:
        """Keys pressed since the last call, oldest first."""
        keys = ""
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone; a signal says so as well
            while self._terminal is not None and select.select([sys.stdin], [], [], 0)[0]:
                key = os.read(sys.stdin.fileno(), 64).decode(errors="ignore")
                if not key:
                    break
                keys += key
        return keys
