"""What is documented as never raising does not raise: every call it makes into the kernel fails once, with every error.

A docstring that says so and is not tried here fails the first test.
"""

import ast
import errno
import fcntl
import functools
import os
import re
import select
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import aloha_runtime
from aloha_runtime.config import StopInputConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import serial_port, stop_input
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.hardware.serial_line import SerialLine
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.hardware.stop_input import StopInput

SAYS_SO = re.compile(r"\bnever\s+raises?\b", re.IGNORECASE)
ERRORS = [
    OSError(number, os.strerror(number))
    for number in (
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOENT,
        errno.EACCES,
        errno.EBUSY,
        errno.EAGAIN,
        errno.ENOTTY,
    )
]
"""`OSError` picks the subclass: FileNotFoundError, PermissionError, BlockingIOError."""
KERNEL: list[tuple[Any, str]] = [
    *((os, name) for name in ("open", "close", "read", "write", "fstat", "stat", "isatty")),
    *((fcntl, name) for name in ("flock", "ioctl")),
    *((termios, name) for name in ("tcgetattr", "tcsetattr", "tcflush")),
    *((Path, name) for name in ("read_text", "read_bytes", "iterdir")),
]
MOST_CALLS = 200
WRITE = os.write


class Kernel:
    """Counts the calls of `KERNEL`; number `fails` raises `error` in place of answering."""

    def __init__(self, fails: int, error: Exception, patch: pytest.MonkeyPatch) -> None:
        self.calls, self.fails, self.error = 0, fails, error
        for owner, name in KERNEL:
            patch.setattr(owner, name, self.wrapped(getattr(owner, name), owner is termios, name == "isatty"))
        poll = select.poll

        def polled() -> Any:
            real = poll()
            return SimpleNamespace(register=real.register, poll=self.wrapped(real.poll))

        patch.setattr(select, "poll", polled)

    def wrapped(self, real: Callable[..., Any], terminal: bool = False, says_no: bool = False) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls - 1 != self.fails:
                return real(*arguments, **named)
            if says_no:
                return False
            raise termios.error(*self.error.args) if terminal else self.error

        return call

    @property
    def failed(self) -> bool:
        return self.calls > self.fails


Trial = Callable[[Path, pytest.MonkeyPatch], tuple[Callable[[], None], Callable[[], None]]]
"""Sets a scene and gives (what is called while the kernel fails, what gives everything back)."""


def _terminal(folder: Path) -> tuple[str, int, int]:
    master, slave = os.openpty()
    tty.setraw(slave)
    name = folder / f"ttyDXL_{slave}_{len(list(folder.iterdir()))}"
    name.symlink_to(os.ttyname(slave))
    return str(name), master, slave


def _arm(port: str, attached: bool) -> DynamixelArm:
    arm = DynamixelArm("follower_left", "follower", port)
    arm._port = SerialPort(port, 1_000_000)
    arm._fast = True
    arm._switch = SimpleNamespace(use=lambda port: None, complaint=lambda *_: "")  # type: ignore[assignment]
    arm._attach(arm._port, "")
    if not attached:
        arm._lose_port()
    return arm


def _reopen(folder: Path, patch: pytest.MonkeyPatch, as_adapter: bool = False) -> tuple[Any, Any]:
    name, master, slave = _terminal(folder)
    arm = _arm(name, attached=False)
    if as_adapter:
        setting = folder / os.path.basename(os.ttyname(slave)) / "device" / "latency_timer"
        setting.parent.mkdir(parents=True, exist_ok=True)
        setting.write_text("1\n")
        patch.setattr(serial_port, "SYS_TTY", folder)
        patch.setattr(serial_port, "is_pty", lambda fd: not os.fstat(fd))

    def call() -> None:
        assert arm._reopen() or (arm.rearm_cause and not arm.connected)

    def end() -> None:
        arm.disconnect()
        for descriptor in (master, slave):
            os.close(descriptor)

    return call, end


def _collect(folder: Path, patch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    name, master, slave = _terminal(folder)
    arms: list[DynamixelArm] = []

    def call() -> None:
        try:
            arms.append(_arm(name, attached=True))
        except HardwareError:
            return
        for _ in range(8):
            arms[0].request(None)
            WRITE(master, b"\xff\xff\xfd\x00")
            assert arms[0].collect(0) is None

    def end() -> None:
        for arm in arms:
            arm.disconnect()
        for descriptor in (master, slave):
            os.close(descriptor)

    return call, end


def _look(settings: StopInputConfig, patch: pytest.MonkeyPatch, end: Callable[[], None]) -> tuple[Any, Any]:
    stop = StopInput(settings)
    times = iter(range(10**12, 10**13, 10**9))

    def call() -> None:
        for _ in range(3):
            seen = stop.look(next(times))
            assert not seen.missing or not seen.held

    def ended() -> None:
        stop.close()
        end()

    return call, ended


def _look_at_pipe(folder: Path, patch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    pipe = folder / f"pedal{len(list(folder.iterdir()))}"
    os.mkfifo(pipe)
    return _look(StopInputConfig(device=str(pipe)), patch, lambda: None)


def _look_at_key(folder: Path, patch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A character device that answers every ioctl stands in for an evdev one."""
    patch.setattr(fcntl, "ioctl", lambda fd, request, data: bytes(b"\xff" * len(data)))
    return _look(StopInputConfig(device="/dev/null", key="KEY_A"), patch, lambda: None)


def _look_at_line(folder: Path, patch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    name, master, slave = _terminal(folder)
    patch.setattr(fcntl, "ioctl", lambda fd, request, data: bytes(4))
    patch.setattr(stop_input, "SerialLine", Line)

    def end() -> None:
        os.close(master)
        os.close(slave)

    return _look(StopInputConfig(port=name, line="cts"), patch, end)


class Line(SerialLine):
    """Asks whatever `fcntl.ioctl` is when it asks, not what it was when the class was made."""

    def __init__(self, path: str, line: str) -> None:
        super().__init__(path, line, lambda *arguments: fcntl.ioctl(*arguments))  # noqa: PLW0108 (looked up late)


TRIED: dict[str, list[Trial]] = {
    "hardware.base.Arm.collect": [_collect],
    "hardware.dynamixel.DynamixelArm._reopen": [_reopen, functools.partial(_reopen, as_adapter=True)],
    "hardware.stop_input.StopInput": [_look_at_pipe, _look_at_key, _look_at_line],
}
"""By the name of what has the docstring."""


def documented() -> Iterator[str]:
    package = Path(aloha_runtime.__file__).parent
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        yield from _documented(ast.parse(path.read_text()), module)


def _documented(node: ast.AST, name: str) -> Iterator[str]:
    holds = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if holds and SAYS_SO.search(ast.get_docstring(node) or ""):
        yield name
    for child in ast.iter_child_nodes(node):
        yield from _documented(child, f"{name}.{child.name}" if hasattr(child, "name") else name)


def test_all_that_is_documented_as_never_raising_is_tried() -> None:
    assert set(documented()) == set(TRIED)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error.errno])
@pytest.mark.parametrize(("name", "number"), [(name, n) for name, trials in TRIED.items() for n in range(len(trials))])
def test_no_error_of_any_call_is_raised(name: str, number: int, error: OSError, tmp_path: Path) -> None:
    for fails in range(MOST_CALLS):
        with pytest.MonkeyPatch.context() as patch:
            call, end = TRIED[name][number](tmp_path, patch)
            with pytest.MonkeyPatch.context() as failing:
                kernel = Kernel(fails, error, failing)
                call()
            end()
        if not kernel.failed:
            break
    assert 3 <= fails < MOST_CALLS
