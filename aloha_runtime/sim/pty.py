"""An emulated chain behind a pseudo-terminal: what a driver opens as its serial port.

The server sleeps in the kernel until bytes, a reply's time or a deadline of the chain comes; it never polls.
"""

import contextlib
import ctypes
import fcntl
import gc
import os
import select
import struct
import termios
import time
import tty
from collections.abc import Callable
from pathlib import Path

from aloha_runtime.errors import SimulationError
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.faults import Reply
from aloha_runtime.sim.monitor import Monitor

READ_SIZE = 4096
IDLE_S = 0.02
"""The server looks after its owner (`idle`) at least this often; a longer gap tells that it was kept waiting."""
_TCGETS2 = 0x802C542A
_TERMIOS2 = struct.Struct("4IB19B2I")
"""struct termios2 (asm-generic/termbits.h): flags, line discipline, control characters, input and output speed."""
_PR_SET_TIMERSLACK = 29


class Terminal:
    """A raw pseudo-terminal with a stable name: `link` points at whatever device the kernel gave."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.master = -1
        self._slave = -1
        self._request = bytearray(_TERMIOS2.size)

    @property
    def plugged(self) -> bool:
        return self.master >= 0

    def plug(self) -> None:
        """Appear: a new device under the stable name, as an adapter that is plugged in."""
        self.unplug()
        # The end for the driver stays open here too, or the terminal would hang up whenever a driver closes it.
        self.master, self._slave = os.openpty()
        os.set_blocking(self.master, False)
        tty.setraw(self._slave, termios.TCSANOW)
        name = os.ttyname(self._slave)
        if os.path.lexists(self.link) and not _is_ours(self.link):
            self._close()
            raise SimulationError(
                f"{self.link} is there and is no terminal of an emulated arm: remove it, or give the arm another port"
            )
        aside = self.link.with_name(f".{self.link.name}.{os.getpid()}")
        aside.unlink(missing_ok=True)  # of a process that had this number before
        aside.symlink_to(name)
        aside.replace(self.link)

    def unplug(self) -> None:
        """Vanish: the driver's end hangs up, the name is gone. Harmless when not plugged."""
        if not self.plugged:
            return
        if _is_ours(self.link):
            self.link.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        os.close(self._slave)
        os.close(self.master)
        self.master = self._slave = -1

    def baud(self) -> int:
        """Speed to which the driver has set the terminal, bits per second, custom rates included."""
        fcntl.ioctl(self.master, _TCGETS2, self._request)
        return int.from_bytes(self._request[-4:], "little")

    def read(self) -> bytes:
        """What the driver wrote, possibly nothing."""
        try:
            return os.read(self.master, READ_SIZE)
        except OSError:  # nothing there, or hung up in the meantime
            return b""

    def write(self, data: bytes) -> bool:
        """Hand a reply to the driver; False when it was lost because nobody reads."""
        try:
            return os.write(self.master, data) == len(data)
        except OSError:
            return False


def precise_sleep() -> None:
    """Let this thread's sleeps end on time: the kernel otherwise adds up to 50 us to save wake-ups."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def _is_ours(link: Path) -> bool:
    """A name that an emulated arm made: a link to a pseudo-terminal. Nothing else is replaced or removed."""
    return link.is_symlink() and os.readlink(link).startswith("/dev/pts/")


class ChainServer:
    """Serves a chain on a terminal. `lost`: replies nobody fetched. `requests`: chunks of bytes that came."""

    def __init__(
        self, chain: Chain, terminal: Terminal, monitor: Monitor, virtual_now: Callable[[], int] | None
    ) -> None:
        """`virtual_now`: the rig's virtual time, in which replies are ready at once; None: wall time."""
        self.chain = chain
        self.terminal = terminal
        self.monitor = monitor
        self.lost = 0
        self.requests = 0
        self._virtual = virtual_now is not None
        self.now_ns = virtual_now or time.monotonic_ns
        self._pending: list[Reply] = []
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, readable: Callable[[], None]) -> None:
        """Call `readable` whenever the descriptor has something to read."""
        self._watched[descriptor] = readable

    def unwatch(self, descriptor: int) -> None:
        """Look at it no longer."""
        del self._watched[descriptor]

    def serve(self, stopping: Callable[[], bool], idle: Callable[[], None]) -> None:
        """Serve until `stopping()`; both are called after every wake-up, five times a second at least."""
        precise_sleep()
        gc.collect()
        gc.freeze()  # what is there now lives as long as the process: no collection has to look at it again
        while not stopping():
            self._sleep()
            idle()

    def _sleep(self) -> None:
        """Wait for the next event and handle it."""
        due_ns = self._deliver()
        watched = [*self._watched, self.terminal.master] if self.terminal.plugged else list(self._watched)
        wait_s = IDLE_S
        if due_ns is not None and not self._virtual:
            wait_s = min(IDLE_S, max(0, due_ns - time.monotonic_ns()) * 1e-9)
        ready, _, _ = select.select(watched, (), (), wait_s)
        for descriptor in ready:
            if descriptor == self.terminal.master:
                self._receive()
            else:
                self._watched[descriptor]()

    def _receive(self) -> None:
        data = self.terminal.read()
        if not data:
            return
        now_ns = self.now_ns()
        self.requests += 1
        self.monitor.host(data, now_ns)
        self._pending += self.chain.receive(data, now_ns, self.terminal.baud())

    def _deliver(self) -> int | None:
        """Hand over the replies that are complete by now; returns when to look again."""
        now_ns = self.now_ns()
        due_ns = self.chain.advance(now_ns)
        if not self._pending:
            return due_ns
        waiting = []
        for reply in self._pending:
            if self._virtual or reply.ready_at_ns <= now_ns:
                self.lost += not self.terminal.write(reply.data)
                self.monitor.servo(reply.data, now_ns)
            else:
                waiting.append(reply)
        self._pending = waiting
        dues = [reply.ready_at_ns for reply in waiting]
        return min([*dues, due_ns] if due_ns is not None else dues, default=None)

    def unplug(self) -> None:
        """The adapter is pulled: the terminal goes, replies on their way are lost; the servos keep their power."""
        self._pending.clear()
        self.terminal.unplug()

    def cut_power(self) -> None:
        """The servos lose their supply; replies on their way end there."""
        self._pending.clear()
        self.chain.cut_power(self.now_ns())

    def close(self) -> None:
        """Remove the terminal and its name."""
        with contextlib.suppress(OSError):
            self.terminal.unplug()
