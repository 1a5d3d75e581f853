"""A physical stop: pressed, held, repeated, missing, unplugged, back; as a key and as a contact on a serial line."""

import contextlib
import errno
import fcntl
import os
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stop_tools import DROPPED, Lines, Pedal, event

from aloha_runtime.config_stop import StopInputConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import input_device, serial_line, stop_input
from aloha_runtime.hardware.base import StopSeen
from aloha_runtime.hardware.input_device import InputDevice, InputLostError, KeyEvent
from aloha_runtime.hardware.serial_line import LINES, SerialLine
from aloha_runtime.hardware.stop_input import MOST_LOOKS_WITHOUT_NEWS, REOPEN_NS, THREAD, StopInput, StopWatch

READY = StopSeen(0, held=False, missing="")


class Scene:
    """A stop, looked at every 20 ms of a clock of its own."""

    def __init__(self, settings: StopInputConfig) -> None:
        self.stop = StopInput(settings)
        self.now_ns = 0

    def look(self, seconds: float = 0.02) -> StopSeen:
        self.now_ns += int(seconds * 1e9)
        return self.stop.look(self.now_ns)


@pytest.fixture
def pedal(tmp_path: Path) -> Pedal:
    return Pedal(tmp_path / "pedal")


def key(pedal: Pedal, **settings: object) -> Scene:
    return Scene(StopInputConfig.model_validate({"device": str(pedal.path), **settings}))


def test_a_press_is_counted_and_held_until_it_is_released(pedal: Pedal) -> None:
    scene = key(pedal)
    assert scene.look() == READY
    pedal.press()
    assert scene.look() == (1, True, "")
    assert scene.look(60) == (1, True, "")
    pedal.release()
    assert scene.look() == (1, False, "")


def test_a_press_between_two_looks_is_not_missed(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pedal.press()
    pedal.release()
    assert scene.look() == (1, False, "")


def test_repeats_are_one_press_also_of_a_key_that_was_down_before(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pedal.send(*[event(30, 2)] * 50)
    assert scene.look() == (1, True, "")
    pedal.send(*[event(30, 2)] * 50)
    assert scene.look() == (1, True, "")


def test_only_the_named_key_counts(pedal: Pedal) -> None:
    scene = key(pedal, key="KEY_B")
    scene.look()
    pedal.press(30)
    pedal.send(event(48, 1, kind=2))  # no key
    assert scene.look() == READY
    pedal.press(48)
    assert scene.look() == (1, True, "")
    pedal.release(30)
    assert scene.look() == (1, True, "")


def test_two_keys_are_held_until_both_are_released(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pedal.press(30)
    pedal.press(48)
    assert scene.look() == (2, True, "")
    pedal.release(30)
    assert scene.look().held
    pedal.release(48)
    assert not scene.look().held


def test_events_that_the_kernel_threw_away_count_as_a_press(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pedal.send(event(30, 0, kind=4), DROPPED)
    assert scene.look() == (1, False, "")
    assert scene.look() == (1, False, "")


def test_half_an_event_waits_for_its_other_half(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pedal.send(event(30)[:10])
    assert scene.look() == READY
    pedal.send(event(30)[10:])
    assert scene.look() == (1, True, "")


def test_a_flood_does_not_keep_the_looker(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pipe = os.open(pedal.path, os.O_RDWR)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    pedal.send(event(5, 0, kind=4) * (16 * 64 + 10), event(30))
    assert scene.look() == READY  # the rest waits for the next look
    assert scene.look() == (1, True, "")
    os.close(pipe)


def test_a_stop_that_is_missing_says_so_and_is_found_when_it_is_plugged_in(tmp_path: Path) -> None:
    pedal = Pedal(tmp_path / "pedal", plugged=False)
    scene = key(pedal)
    seen = scene.look()
    assert (
        seen.missing == f"{pedal.path} does not exist; plug it in, and look for its name with `ls -l /dev/input/by-id`"
    )
    pedal.plug()
    assert scene.look().missing  # it is not looked for all the time
    assert scene.look(REOPEN_NS / 1e9) == READY
    pedal.press()
    assert scene.look().held


def test_an_unplugged_stop_is_missing_and_comes_back_without_a_press(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pedal.press()
    scene.look()
    pedal.unplug()
    seen = scene.look()
    assert not seen.held
    assert seen.missing == f"{pedal.path} is gone (it was closed); plug it in again"
    assert "does not exist" in scene.look(1).missing
    pedal.plug()
    assert scene.look(1) == (1, False, "")
    pedal.press()
    assert scene.look() == (2, True, "")


def test_a_press_just_before_it_vanished_is_not_lost(pedal: Pedal) -> None:
    scene = key(pedal)
    scene.look()
    pedal.press()
    pedal.unplug()
    assert scene.look() == (1, True, "")
    assert "is gone" in scene.look().missing


def test_a_device_that_reports_an_error_is_gone(pedal: Pedal, monkeypatch: pytest.MonkeyPatch) -> None:
    device = InputDevice(str(pedal.path))

    def gone(fd: int, size: int) -> bytes:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(os, "read", gone)
    with pytest.raises(InputLostError, match="No such device"):
        device.read()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, r"may not be read by this user; run `sudo usermod -aG input \$USER` and log in again"),
        (errno.ENODEV, "cannot be read .No such device.; unplug it and plug it in again"),
    ],
)
def test_a_device_that_cannot_be_opened_says_what_to_do(
    pedal: Pedal, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HardwareError, match=f"{pedal.path} {said}"):
        InputDevice(str(pedal.path))
    assert str(pedal.path) in key(pedal).look().missing


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/etc/hostname", "/dev"])
def test_what_is_no_input_device_is_refused(path: str) -> None:
    with pytest.raises(HardwareError, match=f"{path} is no input device; name a key or pedal"):
        InputDevice(path)


class Kernel:
    """A pipe that also answers the questions of an input device: which keys it has, which are down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, has: set[int], down: set[int]) -> None:
        self.has, self.down = has, down
        monkeypatch.setattr(input_device, "_is_device", lambda fd, path: True)
        monkeypatch.setattr(input_device.fcntl, "ioctl", self._ioctl)

    def _ioctl(self, fd: int, request: int, buffer: bytes) -> bytes:
        wanted = {0x18: self.down, 0x21: self.has}[request & 0xFF]
        assert request >> 16 & 0x3FFF == len(buffer) == 96
        return sum(1 << code for code in wanted).to_bytes(96, "little")


def test_a_key_that_the_device_does_not_have_would_never_stop_anything(
    pedal: Pedal, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kernel(monkeypatch, has={30, 767}, down=set())
    with pytest.raises(HardwareError, match=r"has no KEY_B; press it while `sudo evtest"):
        InputDevice(str(pedal.path), 48)
    assert InputDevice(str(pedal.path), 767).read() == []


def test_a_key_that_is_down_when_the_device_is_opened_is_a_press(pedal: Pedal, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, has={30}, down={30, 48})
    scene = key(pedal, key=30)
    assert scene.look() == (1, True, "")
    kernel.down = {48}
    pedal.send(DROPPED)  # what was thrown away was the release
    assert scene.look() == (2, False, "")


@pytest.fixture
def terminal() -> Iterator[str]:
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    kernel = Lines()
    monkeypatch.setattr(stop_input, "SerialLine", lambda path, line: SerialLine(path, line, kernel))
    return kernel


def contact(terminal: str, **settings: str) -> Scene:
    return Scene(StopInputConfig.model_validate({"port": terminal, **settings}))


@pytest.mark.parametrize("line", LINES)
def test_an_open_contact_is_stop_and_dtr_feeds_the_loop(terminal: str, lines: Lines, line: str) -> None:
    lines.state = LINES[line]
    scene = contact(terminal, line=line)
    assert scene.look() == READY
    assert lines.raised == termios.TIOCM_DTR
    lines.state = ~LINES[line] & 0x1FF & ~termios.TIOCM_DTR  # every other line
    assert scene.look() == (1, True, "")
    assert scene.look() == (1, True, "")
    lines.state = LINES[line]
    assert scene.look() == (1, False, "")


def test_the_other_polarity_is_asked_for(terminal: str, lines: Lines) -> None:
    lines.state = 0
    scene = contact(terminal, closed_means="stop")
    assert scene.look() == READY
    lines.state = termios.TIOCM_CTS
    assert scene.look() == (1, True, "")


def test_an_adapter_that_vanishes_is_missing_until_it_is_back(terminal: str, lines: Lines) -> None:
    scene = contact(terminal)
    scene.look()
    lines.error = OSError(errno.EIO, os.strerror(errno.EIO))
    assert scene.look() == (0, False, f"{terminal} is gone (Input/output error); plug it in again")
    assert "cannot be read (Input/output error); unplug it" in scene.look(1).missing
    lines.error = None
    assert scene.look(1) == READY


def test_a_terminal_without_such_a_line_is_refused(terminal: str) -> None:
    with pytest.raises(HardwareError, match=f"{terminal} has no CTS that can be read; use another adapter"):
        SerialLine(terminal, "cts")  # the kernel itself says so of a pseudo-terminal


def test_an_adapter_is_taken_by_one(terminal: str, lines: Lines) -> None:
    first = SerialLine(terminal, "cts", lines)
    with pytest.raises(HardwareError, match="in use by another process, perhaps as an arm"):
        SerialLine(terminal, "cts", lines)
    first.close()
    first.close()
    SerialLine(terminal, "cts", lines).close()


def test_a_line_that_cannot_be_opened_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HardwareError, match=r"absent does not exist; plug it in.*/dev/serial/by-id"):
        SerialLine(str(tmp_path / "absent"), "cts")
    with pytest.raises(HardwareError, match="/dev/null is no serial port"):
        SerialLine("/dev/null", "cts")

    def refuse(*_: object) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(serial_line.os, "open", refuse)
    with pytest.raises(HardwareError, match=r"may not be opened by this user; run `sudo usermod -aG dialout \$USER`"):
        SerialLine("/dev/null", "cts")


def settled(watch: StopWatch, wanted: Callable[[StopSeen], bool]) -> StopSeen:
    """What the watch's own thread comes to see."""
    waiting = threading.Event()
    for _ in range(2000):
        seen = watch.look()
        if wanted(seen):
            return seen
        waiting.wait(0.005)
    raise AssertionError(f"the stop stays {seen}")


@pytest.fixture
def watch(pedal: Pedal) -> Iterator[StopWatch]:
    with contextlib.closing(StopWatch(StopInputConfig(device=str(pedal.path)), threaded=True)) as watch:
        yield watch
    waiting = threading.Event()
    while any(thread.name == THREAD for thread in threading.enumerate()):  # it ends by itself once it is closed
        waiting.wait(0.005)


def test_a_watch_sees_presses_from_a_thread_of_its_own(watch: StopWatch, pedal: Pedal) -> None:
    first = watch.look()
    assert first.missing or first == READY  # nothing is known yet, or its thread was quicker
    settled(watch, lambda seen: seen == READY)
    pedal.press()
    assert settled(watch, lambda seen: seen.presses == 1).held
    pedal.unplug()
    assert "is gone" in settled(watch, lambda seen: bool(seen.missing)).missing


def test_a_device_that_does_not_answer_keeps_nobody_and_is_missing(
    watch: StopWatch, pedal: Pedal, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, entered = threading.Event(), threading.Event()
    settled(watch, lambda seen: seen == READY)
    look = StopInput.look

    def wedged(self: StopInput, now_ns: int) -> StopSeen:
        entered.set()
        stuck.wait()
        return look(self, now_ns)

    monkeypatch.setattr(StopInput, "look", wedged)
    assert entered.wait(20)
    looks = [watch.look() for _ in range(MOST_LOOKS_WITHOUT_NEWS + 2)]
    assert looks[0] == READY
    assert looks[-1] == (0, False, f"{pedal.path} does not answer; unplug it and plug it in again")
    stuck.set()
    settled(watch, lambda seen: seen == READY)


def test_in_virtual_time_it_looks_when_it_is_asked(pedal: Pedal) -> None:
    watch = StopWatch(StopInputConfig(device=str(pedal.path)), threaded=False)
    assert watch.look() == READY
    pedal.press()
    assert watch.look() == (1, True, "")


def test_an_event_is_as_the_kernel_lays_it_out(pedal: Pedal) -> None:
    assert input_device.EVENT.size == struct.calcsize("@llHHi")
    device = InputDevice(str(pedal.path))
    pedal.press(30)
    assert device.read() == [KeyEvent(30, 1)]
