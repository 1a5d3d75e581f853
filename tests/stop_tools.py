"""Stand-ins for a stop: a pipe that speaks like an input device, and a kernel that has control lines."""

import os
import struct
import termios
from pathlib import Path

INT = struct.Struct("i")


def event(code: int, value: int = 1, kind: int = 1) -> bytes:
    """One event as the kernel hands it out."""
    return struct.pack("llHHi", 0, 0, kind, code, value)


DROPPED = event(3, 0, kind=0)


class Pedal:
    """A pedal at `path`: plugged, pressed, pulled."""

    def __init__(self, path: Path, plugged: bool = True) -> None:
        self.path = path
        self._fd = -1
        if plugged:
            self.plug()

    def plug(self) -> None:
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def unplug(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self.path.unlink()

    def send(self, *events: bytes) -> None:
        os.write(self._fd, b"".join(events))

    def press(self, code: int = 30) -> None:
        self.send(event(code))

    def release(self, code: int = 30) -> None:
        self.send(event(code, 0))


class Lines:
    """What the kernel says of the control lines of a terminal that has none. `error`: what it answers instead."""

    def __init__(self, state: int = termios.TIOCM_CTS) -> None:
        self.state = state
        self.raised = 0
        self.error: OSError | None = None

    def __call__(self, fd: int, request: int, argument: bytes) -> bytes:
        if self.error is not None:
            raise self.error
        if request == termios.TIOCMBIS:
            self.raised |= INT.unpack(argument)[0]
            return argument
        assert request == termios.TIOCMGET
        return INT.pack(self.state)
