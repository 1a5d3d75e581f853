"""One evdev device (keyboard, pedal, button): its key events, read without ever waiting. Linux only, as the robot is.

A named pipe that carries the same events stands in for a device in tests and rehearsals.
"""

import fcntl
import os
import stat
import struct
from typing import NamedTuple

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.device_file import DeviceFile
from aloha_runtime.key_names import HIGHEST_CODE, key_name

EVENT = struct.Struct("llHHi")
"""Linux `struct input_event`: time (two longs), type, code, value."""
EV_SYN, EV_KEY = 0, 1
SYN_DROPPED = 3
RELEASED, PRESSED, REPEATED = 0, 1, 2
_AT_ONCE = 64
"""Events a read; the kernel keeps about as many for a device that nobody reads."""
_MOST_READS = 16
"""A device that floods us is left for the next turn after so many reads."""
_KEY_BYTES = HIGHEST_CODE // 8 + 1
_EVIOCGVERSION = 0x80044501
_EVIOCGKEY = 0x80004518 | _KEY_BYTES << 16
"""Which keys are down now, one bit each."""
_EVIOCGBIT_KEY = 0x80004521 | _KEY_BYTES << 16
"""Which keys the device has."""


class InputLostError(Exception):
    """The device is gone (unplugged), or what stood in for it was closed."""


class KeyEvent(NamedTuple):
    """`value`: 0 released, 1 pressed, 2 repeated while it is held."""

    code: int
    value: int


class InputDevice(DeviceFile):
    """An open device. `path` should be a stable name, /dev/input/by-id/...; `key`: one that it must have."""

    def __init__(self, path: str, key: int | None = None) -> None:
        """Raises HardwareError naming the path, the reason and what to do."""
        super().__init__(path, os.O_RDONLY, "input", "/dev/input/by-id")
        self.overrun = False
        """Since the last `read` began the kernel has thrown events away, because nobody had read them."""
        self._rest = b""
        try:
            self._device = _is_device(self._fd, path)
            if key is not None and self._device and key not in self._keys(_EVIOCGBIT_KEY):
                raise HardwareError(
                    f"{path} has no {key_name(key)}; press it while `sudo evtest {path}` runs, or name another device"
                )
        except OSError as error:
            self.close()
            raise HardwareError(f"{path} cannot be read ({error.strerror}); unplug it and plug it in again") from None
        except BaseException:
            self.close()
            raise

    def read(self) -> list[KeyEvent]:
        """Key events since the last call, oldest first. Raises InputLostError."""
        events: list[KeyEvent] = []
        self.overrun = False
        for _ in range(_MOST_READS):
            try:
                data = os.read(self._fd, _AT_ONCE * EVENT.size)
                why = "" if data else "it was closed"
            except BlockingIOError:
                break
            except OSError as error:
                data, why = b"", error.strerror or str(error)
            if why:
                if events:  # what was pressed before it vanished comes first; the next call says the rest
                    break
                raise InputLostError(why)
            self._rest += data
            whole = len(self._rest) // EVENT.size * EVENT.size
            for _, _, kind, code, value in EVENT.iter_unpack(self._rest[:whole]):
                self.overrun |= (kind, code) == (EV_SYN, SYN_DROPPED)
                if kind == EV_KEY:
                    events.append(KeyEvent(code, value))
            self._rest = self._rest[whole:]
        return events

    def down(self) -> set[int]:
        """Keys that are down now; a pipe does not know. Raises InputLostError."""
        try:
            return self._keys(_EVIOCGKEY) if self._device else set()
        except OSError as error:
            raise InputLostError(error.strerror or str(error)) from None

    def _keys(self, request: int) -> set[int]:
        bits = int.from_bytes(fcntl.ioctl(self._fd, request, bytes(_KEY_BYTES)), "little")
        return {code for code in range(HIGHEST_CODE + 1) if bits >> code & 1}


def _is_device(fd: int, path: str) -> bool:
    """True for an evdev device, False for a pipe; HardwareError for anything else."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return False
    try:
        if stat.S_ISCHR(mode):
            fcntl.ioctl(fd, _EVIOCGVERSION, bytes(4))
            return True
    except OSError:
        pass
    raise HardwareError(f"{path} is no input device; name a key or pedal, such as /dev/input/by-id/...-event-kbd")
