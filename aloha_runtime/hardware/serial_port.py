"""One serial adapter, taken for this process alone: raw bytes, never waiting unless asked, unplugging as one exception.

Linux only (termios, /proc, /sys), as the robot is.
"""

import contextlib
import errno
import fcntl
import os
import select
import stat
import termios
import time
from pathlib import Path

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.late_answers import LateAnswers

WAKE_BYTES = 64
"""`poll` reports input from this many bytes on (VMIN), so that one wake-up brings a whole reply of an arm (107 bytes
come as USB chunks of 62 and 45). More would not help: the kernel then hands out 64 bytes a `read`."""
WAIT_NS = 1_000_000
"""`poll` counts whole milliseconds."""
LATENCY_LIMIT_MS = 1
"""An FTDI adapter holds short replies back this long; its default of 16 ms limits a cycle to 62 Hz."""
SYS_TTY = Path("/sys/class/tty")
_PTY_MAJORS = range(136, 144)
_READ_SIZE = 4096
BAUDS = (57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
"""Rates that both X servos and Linux know by name."""


class PortLostError(Exception):
    """The adapter is gone (unplugged, or the emulated chain behind a pseudo-terminal ended)."""


class SerialPort:
    """An open, locked serial port. `path` may be a link with a stable name (udev's, or the simulated rig's).

    Locked twice: `flock`, which tells other copies of this runtime who holds it, and TIOCEXCL, which keeps programs out
    that know nothing of locks. Not TIOCEXCL on a pseudo-terminal: the emulator keeps it open, so the flag would
    outlive a killed holder.
    """

    def __init__(self, path: str, baud: int) -> None:
        """Open, lock and configure; raises HardwareError naming the port, the reason and what to do."""
        self.path = path
        self.baud = baud
        self.byte_ns = 10_000_000_000 // baud
        """Time of one byte on the wire: start bit, eight bits, stop bit."""
        self.late = LateAnswers()
        self.fd = _open(path)
        try:
            if not os.isatty(self.fd):
                raise HardwareError(f"{path} is no serial port; name the adapter, such as /dev/ttyDXL_follower_left")
            self._lock()
            self._configure()
        except (OSError, termios.error) as error:  # unplugged, or broken, between two of these calls
            self.close()
            raise HardwareError(f"{path} cannot be taken ({error}); unplug and plug the adapter") from error
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._count = bytearray(4)

    def _lock(self) -> None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HardwareError(_busy(self.path, lock_holder(self.fd) or opened_by(self.path))) from None
        if not is_pty(self.fd):
            others = opened_by(self.path)
            if others:
                raise HardwareError(_busy(self.path, others))
            fcntl.ioctl(self.fd, termios.TIOCEXCL)

    def _configure(self) -> None:
        if self.baud not in BAUDS:
            known = ", ".join(str(rate) for rate in BAUDS)
            raise HardwareError(f"{self.path}: {self.baud} baud is not supported; choose one of {known}")
        speed = getattr(termios, f"B{self.baud}")
        control = list(termios.tcgetattr(self.fd)[6])
        control[termios.VMIN], control[termios.VTIME] = WAKE_BYTES, 0
        flags = termios.CS8 | termios.CREAD | termios.CLOCAL
        try:
            termios.tcsetattr(self.fd, termios.TCSANOW, [0, 0, flags, 0, speed, speed, control])
            termios.tcflush(self.fd, termios.TCIOFLUSH)
        except termios.error as error:
            raise HardwareError(
                f"{self.path}: cannot set {self.baud} baud ({error}); unplug and plug the adapter"
            ) from error

    def pending(self) -> int:
        """Bytes waiting to be read. Raises PortLostError."""
        try:
            fcntl.ioctl(self.fd, termios.FIONREAD, self._count)
        except OSError as error:
            raise PortLostError(str(error)) from error
        return int.from_bytes(self._count, "little")

    def read(self) -> bytes:
        """What has arrived, possibly nothing. Raises PortLostError."""
        try:
            data = os.read(self.fd, _READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise PortLostError(str(error)) from error
        if not data:  # end of file: a hang-up (with VMIN > 0 an empty buffer is EAGAIN)
            raise PortLostError("hung up")
        return data

    def write(self, data: bytes) -> None:
        """Hand over all of `data`, which is far smaller than the kernel's buffer. Raises PortLostError."""
        try:
            written = os.write(self.fd, data)
        except BlockingIOError:
            written = 0
        except OSError as error:
            raise PortLostError(str(error)) from error
        if written != len(data):  # the adapter no longer takes bytes: as good as gone
            raise PortLostError(f"took {written} of {len(data)} bytes")

    def wait_for_reply(self, deadline_ns: int) -> None:
        """Sleep until WAKE_BYTES have arrived, the port is lost, or less than WAIT_NS is left to `deadline_ns`. Raises
        PortLostError."""
        try:
            self._poll.poll(max(0, deadline_ns - time.monotonic_ns()) // WAIT_NS)
        except OSError as error:
            raise PortLostError(str(error)) from error

    def flush(self) -> None:
        """Throw away what has arrived. Raises PortLostError."""
        try:
            termios.tcflush(self.fd, termios.TCIFLUSH)
        except termios.error as error:
            raise PortLostError(str(error)) from error

    def close(self) -> None:
        """Unlock and close. Harmless on a lost port."""
        if self.fd < 0:
            return
        with contextlib.suppress(OSError):  # unplugged: the flag went with the device
            if not is_pty(self.fd):
                fcntl.ioctl(self.fd, termios.TIOCNXCL)
        with contextlib.suppress(OSError):  # the kernel frees the descriptor all the same
            os.close(self.fd)
        self.fd = -1


def is_pty(fd: int) -> bool:
    """True for the terminal end of a pseudo-terminal."""
    return os.major(os.fstat(fd).st_rdev) in _PTY_MAJORS


def check_latency_timer(path: str) -> None:
    """Refuse an FTDI adapter that holds replies back, naming the cure. Ports without the setting pass. Raises
    HardwareError."""
    device = os.path.basename(os.path.realpath(path))
    setting = SYS_TTY / device / "device" / "latency_timer"
    try:
        latency_ms = int(setting.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise HardwareError(f"{path}: cannot read {setting} ({error}); unplug and plug the adapter") from error
    if latency_ms > LATENCY_LIMIT_MS:
        raise HardwareError(
            f"{path}: latency timer is {latency_ms} ms, which limits the arm to {1000 // latency_ms} Hz; run "
            f"`echo {LATENCY_LIMIT_MS} | sudo tee {setting}`, or install the rules in udev/ and plug the adapter again"
        )


def lock_holder(fd: int) -> str:
    """`pid (command)` of the process that holds the flock on this file; empty when /proc does not tell."""
    status = os.fstat(fd)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:
        return ""
    for line in locks.splitlines():
        fields = line.split()
        if "FLOCK" in fields and wanted in fields and "->" not in fields:
            return _process(int(fields[fields.index(wanted) - 1]))
    return ""


def opened_by(path: str) -> str:
    """`pid (command)` of another process that has this device open; empty when there is none or we may not look."""
    device = os.stat(path).st_rdev
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                status = descriptor.stat()
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == device:
                    return _process(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return ""


def _process(pid: int) -> str:
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        words = ["ended meanwhile"]
    return f"process {pid} ({' '.join(words)[:120]})"


def _busy(path: str, holder: str) -> str:
    return f"{path} is in use by {holder or 'another process'}; stop that process first, then start again"


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        why = "does not exist; plug in the adapter and its power, and check its udev name with `ls -l /dev/ttyDXL*`"
    except PermissionError:
        why = "may not be opened by this user; run `sudo usermod -aG dialout $USER` and log in again"
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise HardwareError(_busy(path, opened_by(path))) from None
        why = f"cannot be opened ({error.strerror}); unplug and plug the adapter"
    raise HardwareError(f"{path} {why}")
