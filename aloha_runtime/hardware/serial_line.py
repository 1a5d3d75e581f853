"""One control line of a serial adapter as a contact: DTR feeds it; CTS, DSR, DCD or RI says whether it is closed."""

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.device_file import DeviceFile
from aloha_runtime.hardware.input_device import InputLostError

LINES = {"cts": termios.TIOCM_CTS, "dsr": termios.TIOCM_DSR, "dcd": termios.TIOCM_CAR, "ri": termios.TIOCM_RNG}
_INT = struct.Struct("i")
_HAS_NONE = (errno.ENOTTY, errno.EINVAL)
"""What TIOCMGET says on a terminal without control lines, such as a pseudo-terminal."""
Ioctl = Callable[[int, int, bytes], bytes]


class SerialLine(DeviceFile):
    """An open adapter, taken for this process alone. `ioctl` stands in for the kernel's in tests.

    The adapter's driver asks the device itself on some adapters (FTDI: a USB transfer of about 1 ms, which a wedged
    device can make long), so `closed` belongs in a thread that may wait.
    """

    def __init__(self, path: str, line: str, ioctl: Ioctl = fcntl.ioctl) -> None:
        """Raises HardwareError naming the path, the reason and what to do."""
        super().__init__(path, os.O_RDWR, "dialout", "/dev/serial/by-id")
        self._line, self._ioctl = line, ioctl
        try:
            self._take()
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        """Lock, ignore what the line says about a modem, feed the loop, read once."""
        if not os.isatty(self._fd):
            raise HardwareError(f"{self.path} is no serial port; name an adapter, such as /dev/serial/by-id/usb-...")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HardwareError(
                f"{self.path} is in use by another process, perhaps as an arm; the stop needs an adapter of its own"
            ) from None
        except OSError as error:
            raise HardwareError(
                f"{self.path} cannot be locked ({error.strerror}); unplug it and plug it in again"
            ) from None
        try:
            settings = termios.tcgetattr(self._fd)
            flags = termios.CS8 | termios.CREAD | termios.CLOCAL
            termios.tcsetattr(self._fd, termios.TCSANOW, [0, 0, flags, 0, *settings[4:]])
            self._ioctl(self._fd, termios.TIOCMBIS, _INT.pack(termios.TIOCM_DTR))
            self._state()
        except (OSError, termios.error) as error:
            number = error.args[0]
            if number in _HAS_NONE:
                why = f"has no {self._line.upper()} that can be read; use another adapter"
            else:
                why = f"cannot be read ({os.strerror(number)}); unplug it and plug it in again"
            raise HardwareError(f"{self.path} {why}") from None

    def closed(self) -> bool:
        """Whether the contact is closed now. Raises InputLostError."""
        try:
            return bool(self._state() & LINES[self._line])
        except OSError as error:
            raise InputLostError(error.strerror or str(error)) from None

    def _state(self) -> int:
        found: int = _INT.unpack(self._ioctl(self._fd, termios.TIOCMGET, bytes(_INT.size)))[0]
        return found
