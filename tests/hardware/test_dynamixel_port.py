"""The serial port alone: who may have it, what unplugging looks like, what it says when it cannot be had."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import serial_port
from aloha_runtime.hardware.serial_port import PortLostError, SerialPort, opened_by

HOLDER = """
import sys
from aloha_runtime.hardware.serial_port import SerialPort
port = SerialPort(sys.argv[1], 1_000_000)
print("held", flush=True)
sys.stdin.read()
"""
OPENER = "import sys; file = open(sys.argv[1], 'rb', 0); print('open', flush=True); sys.stdin.read()"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """(the servos' end, stable name of our end)."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    name = tmp_path / "ttyDXL_test"
    name.symlink_to(os.ttyname(slave))
    yield master, str(name)
    for descriptor in (master, slave):
        with contextlib.suppress(OSError):  # the test closed it
            os.close(descriptor)


def arrived(port: SerialPort, size: int) -> bytes:
    """Bytes cross the kernel's terminal layer in their own time."""
    data, give_up = b"", time.monotonic() + 10
    while len(data) < size:
        data += port.read()
        assert time.monotonic() < give_up
    return data


def test_bytes_go_both_ways_untouched(terminal: tuple[int, str]) -> None:
    master, name = terminal
    port = SerialPort(name, 1_000_000)
    assert port.read() == b""
    assert port.pending() == 0
    everything = bytes(range(256)) * 2
    os.write(master, everything)
    assert arrived(port, 512) == everything
    port.write(everything)
    assert os.read(master, 1024) == everything
    port.close()
    port.close()


def test_another_process_is_named_with_its_command(terminal: tuple[int, str]) -> None:
    name = terminal[1]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HardwareError, match=rf"in use by process {holder.pid} \(.*python.*\); stop that process"):
            SerialPort(name, 1_000_000)
        holder.kill()
    SerialPort(name, 1_000_000).close()  # the kernel has freed it


def test_a_program_without_locks_is_found_by_its_open_file(
    terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = terminal[1]
    monkeypatch.setattr(serial_port, "is_pty", lambda _: False)  # as on an adapter, where nobody else may have it open
    with subprocess.Popen(
        [sys.executable, "-c", OPENER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as opener:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "open\n"
        assert re.match(rf"process {opener.pid} \(.*python", opened_by(name))
        with pytest.raises(HardwareError, match=rf"in use by process {opener.pid} \(.*python.*\); stop that process"):
            SerialPort(name, 1_000_000)
        opener.kill()
    assert opened_by(name) == ""


def test_closing_frees_the_port(terminal: tuple[int, str]) -> None:
    port = SerialPort(terminal[1], 1_000_000)
    with pytest.raises(HardwareError, match="in use"):
        SerialPort(terminal[1], 1_000_000)
    port.close()
    again = SerialPort(terminal[1], 1_000_000)
    assert again.pending() == 0
    again.close()


def test_unplugging_is_one_exception_everywhere(terminal: tuple[int, str]) -> None:
    master, name = terminal
    port = SerialPort(name, 1_000_000)
    os.close(master)
    with pytest.raises(PortLostError):
        port.read()
    with pytest.raises(PortLostError):
        port.write(b"x")
    with pytest.raises(PortLostError):
        port.pending()
    port.wait_for_reply(time.monotonic_ns() + 3600 * 10**9)  # wakes at once, or the test runs into its time limit
    port.close()


def test_an_unknown_rate_names_the_known_ones(terminal: tuple[int, str]) -> None:
    with pytest.raises(HardwareError, match=r"1234 baud is not supported; choose one of 57600, .*1000000"):
        SerialPort(terminal[1], 1234)
    SerialPort(terminal[1], 1_000_000).close()


def test_a_directory_is_no_port(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="cannot be opened"):
        SerialPort(str(tmp_path), 1_000_000)


@pytest.mark.parametrize("path", ["/dev/null", "file"])
def test_what_is_no_serial_port_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(HardwareError, match=f"^{path} is no serial port; "):
        SerialPort(path, 1_000_000)
