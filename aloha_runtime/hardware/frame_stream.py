"""What every camera backend does with its frames: map device time to monotonic time, and notice a frozen picture."""

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.realtime import NS_PER_S


class DeviceClock:
    """Maps a camera's own time stamps to the monotonic clock.

    A frame's arrival is its device time plus a fixed offset plus a transfer delay that is never below some minimum. The
    smallest offset seen is therefore the right one up to that minimum, whatever the load of this machine. It may rise
    by `DRIFT` to follow a device clock that runs slow.
    """

    DRIFT = 100e-6
    """Crystal oscillators agree within 100 parts in a million."""
    JUMP_NS = NS_PER_S // 2
    """A device clock that steps by more has been restarted (or a recording started over): the mapping starts over."""

    def __init__(self) -> None:
        self._offset_ns: float | None = None
        self._last_device_ns = 0
        self._last_stamp_ns = 0

    def stamp_ns(self, device_ns: int, arrival_ns: int) -> int:
        """Monotonic time of a frame with device time `device_ns` that arrived at `arrival_ns`; strictly increasing, and
        never after the arrival unless two arrivals are equal."""
        offset = arrival_ns - device_ns
        elapsed = device_ns - self._last_device_ns
        if self._offset_ns is None or elapsed < 0 or abs(offset - self._offset_ns) > self.JUMP_NS:
            self._offset_ns = offset
        else:
            self._offset_ns = min(float(offset), self._offset_ns + elapsed * self.DRIFT)
        self._last_device_ns = device_ns
        self._last_stamp_ns = max(device_ns + int(self._offset_ns), self._last_stamp_ns + 1)
        return self._last_stamp_ns


class FrozenWatch:
    """Counts frames in a row with the same pixels. A live sensor's noise makes equal frames all but impossible, so some
    tens of them mean that the camera repeats an old picture."""

    STEP = 16
    """Every 16th pixel of every 16th row is compared first, which settles it for a live picture in microseconds."""

    def __init__(self) -> None:
        self._last: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
        self.identical = 0

    def look(self, image: NDArray[np.uint8]) -> None:
        """Compare an image with the one before; neither may be written again."""
        step = self.STEP
        maybe = np.array_equal(image[::step, ::step], self._last[::step, ::step])
        self.identical = self.identical + 1 if maybe and np.array_equal(image, self._last) else 0
        self._last = image
