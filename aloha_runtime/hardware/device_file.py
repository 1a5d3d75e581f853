"""Opening a device file for one process, and what the operator must do when that fails."""

import contextlib
import os

from aloha_runtime.errors import HardwareError


class DeviceFile:
    """An open device file that never blocks; subclasses use `_fd`."""

    def __init__(self, path: str, access: int, group: str, names: str) -> None:
        """`access`: os.O_RDONLY or os.O_RDWR; `group`: who may open it; `names`: where its stable names are. Raises
        HardwareError naming the path, the reason and what to do."""
        self.path = path
        self._fd = -1
        does = "read" if access == os.O_RDONLY else "opened"
        try:
            self._fd = os.open(path, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except FileNotFoundError:
            why = f"does not exist; plug it in, and look for its name with `ls -l {names}`"
        except PermissionError:
            why = f"may not be {does} by this user; run `sudo usermod -aG {group} $USER` and log in again"
        except OSError as error:
            why = f"cannot be {does} ({error.strerror}); unplug it and plug it in again"
        if self._fd < 0:
            raise HardwareError(f"{path} {why}")

    def close(self) -> None:
        """Harmless when it is gone or closed."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # the kernel frees the descriptor all the same
                os.close(self._fd)
            self._fd = -1
