"""A wire of this computer to itself: a byte through the kernel's terminal worker and back, without waiting for it.

What a serial adapter receives is handed on by a kernel worker of ordinary priority, whatever the priority of who reads
it. A process that finds this echo late knows that its servos may have answered in time (docs/decisions.md).
"""

import contextlib
import os
import tty


class Echo:
    """A pseudo-terminal of which both ends are here. Raises OSError when there is none left."""

    def __init__(self) -> None:
        self._far, self._near = os.openpty()
        for end in (self._far, self._near):
            os.set_blocking(end, False)
        tty.setraw(self._near)
        self._under_way = False

    def came_back(self) -> bool:
        """Whether the byte sent last is back; then the next one is sent. The first call sends the first one."""
        back = False
        if self._under_way:
            with contextlib.suppress(OSError):  # BlockingIOError: still under way
                back = bool(os.read(self._near, 1))
        if back or not self._under_way:
            with contextlib.suppress(OSError):
                self._under_way = os.write(self._far, b".") == 1
        return back

    def close(self) -> None:
        """Give both ends back; twice is harmless."""
        for end in (self._far, self._near):
            with contextlib.suppress(OSError):
                os.close(end)
        self._far = self._near = -1
