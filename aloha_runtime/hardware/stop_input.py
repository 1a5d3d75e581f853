"""The physical STOP of a rig: a key or pedal, or a contact on a serial line. Missing, pressed, or ready; found again.

`StopInput` looks once; `StopWatch` does it in a thread of its own, so that the caller never waits for a device,
whatever its driver does (opening a device, or asking an adapter for its lines, may take long).
"""

import contextlib
import os
import threading
import time

from aloha_runtime.config_stop import StopInputConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import StopSeen
from aloha_runtime.hardware.input_device import RELEASED, InputDevice, InputLostError
from aloha_runtime.hardware.serial_line import SerialLine

PERIOD_S = 0.01
"""A button bounces for about as long; no press of a hand or foot is shorter than 20 ms."""
REOPEN_NS = 500_000_000
"""Pause between attempts to open a device that is missing."""
MOST_LOOKS_WITHOUT_NEWS = 15
"""0.3 s of the supervisor's turns. Counted in looks, since a computer that stands still makes nobody look either."""
THREAD = "stop-input"


class StopInput:
    """State of one stop. `look` never raises for anything that the device does."""

    def __init__(self, settings: StopInputConfig) -> None:
        self._settings = settings
        self._source: InputDevice | SerialLine | None = None
        self._held: set[int] = set()
        self._presses = 0
        self._open = False
        """The contact is in its position for STOP."""
        self._missing = f"{settings.path} has not been opened yet"
        self._open_at_ns = 0

    def look(self, now_ns: int) -> StopSeen:
        """What it is like now."""
        if self._source is None and now_ns >= self._open_at_ns:
            self._open_at_ns = now_ns + REOPEN_NS
            self._reopen()
        try:
            if isinstance(self._source, InputDevice):
                self._look_at_keys(self._source)
            elif self._source is not None:
                self._look_at_line(self._source)
        except InputLostError as error:
            self._lose(f"{self._settings.path} is gone ({error}); plug it in again")
        held = bool(self._held) or self._open
        return StopSeen(self._presses, held=held and not self._missing, missing=self._missing)

    def _reopen(self) -> None:
        settings = self._settings
        try:
            if settings.device is not None:
                self._source = InputDevice(settings.device, settings.code)
                self._press(self._source.down())
            else:
                self._source = SerialLine(settings.path, settings.contact)
        except (HardwareError, InputLostError) as error:
            self._lose(str(error))
        else:
            self._missing = ""

    def _press(self, keys: set[int]) -> None:
        """These keys and no others are down now."""
        mine = {code for code in keys if self._settings.code in (None, code)}
        self._presses += bool(mine - self._held)
        self._held = mine

    def _look_at_keys(self, device: InputDevice) -> None:
        for code, value in device.read():
            if value == RELEASED:
                self._held.discard(code)
            else:  # a repeat of a key that was pressed before the device was opened counts as well
                self._press(self._held | {code})
        if device.overrun:  # what was thrown away may have been a press
            self._presses += 1
            self._press(device.down())

    def _look_at_line(self, line: SerialLine) -> None:
        stopped = line.closed() != self._settings.closed_runs
        self._presses += stopped and not self._open
        self._open = stopped

    def _lose(self, why: str) -> None:
        self._missing = why
        self._held, self._open = set(), False
        self.close()

    def close(self) -> None:
        """Give the device back."""
        if self._source is not None:
            self._source.close()
            self._source = None


class StopWatch:
    """A stop that is looked at all the time. `threaded`: False in virtual time, where nobody is ever late."""

    def __init__(self, settings: StopInputConfig, threaded: bool, priority: int | None = None) -> None:
        """`priority`: SCHED_FIFO of the thread, as far as it is granted."""
        self._stop_input = StopInput(settings)
        self._path = settings.path
        self._threaded, self._priority = threaded, priority
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._seen = StopSeen(0, held=False, missing=f"{settings.path} has not been opened yet")
        self._looks_without_news = 0

    def look(self) -> StopSeen:
        """What was seen last; missing when nothing has been seen for 0.3 s. The first call starts the thread."""
        if not self._threaded:
            return self._stop_input.look(time.monotonic_ns())
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name=THREAD, daemon=True)
            self._thread.start()
        self._looks_without_news += 1
        if self._looks_without_news > MOST_LOOKS_WITHOUT_NEWS:
            why = self._seen.missing or f"{self._path} does not answer; unplug it and plug it in again"
            return StopSeen(self._seen.presses, held=False, missing=why)
        return self._seen

    def _watch(self) -> None:
        if self._priority is not None:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._priority))
        while not self._closed.wait(PERIOD_S):
            self._seen = self._stop_input.look(time.monotonic_ns())
            self._looks_without_news = 0
        self._stop_input.close()

    def close(self) -> None:
        """Give the device back. A thread that the device keeps waiting is not waited for."""
        self._closed.set()
        if self._thread is None:
            self._stop_input.close()
