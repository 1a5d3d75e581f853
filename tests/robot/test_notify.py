"""What systemd hears from a process: ready at its first completed turn, fed by completed turns only."""

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aloha_runtime.run_directory import RunDirectory
from aloha_runtime.service import JournalFormatter

STUCK = """
from aloha_runtime.service import HEALTH_PERIOD_NS, run
import threading
def main(service):
    threading.Thread(target=lambda: [None for _ in iter(int, 1) if service.stopping], daemon=True).start()
    for _ in range(3):
        service.report(message="fine\\nso far")
        service.clock.sleep_until(service.clock.now_ns() + HEALTH_PERIOD_NS)
    print("stuck", flush=True)
    input()
run(main)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    with RunDirectory(tmp_path / "run") as directory:
        yield directory.path


def heard(listener: socket.socket) -> list[bytes]:
    """Everything that has arrived."""
    found = []
    listener.setblocking(False)
    try:
        while True:
            found.append(listener.recv(4096))
    except BlockingIOError:
        return found


def test_a_stuck_loop_feeds_nobody_though_its_process_lives(run_dir: Path, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    child = subprocess.Popen(
        [sys.executable, "-c", STUCK, "teleop", "--rig", "sim", "--run-dir", str(run_dir)],
        env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "stuck\n"
    turns = heard(listener)
    assert turns == [b"READY=1\nWATCHDOG=1\nSTATUS=fine so far"] * 3
    child.kill()
    child.communicate()
    assert heard(listener) == []
    listener.close()


def test_lines_for_the_journal_carry_their_priority() -> None:
    record = logging.LogRecord("arms", logging.WARNING, "", 0, "leader_left is silent\n(servo 3)", (), None)
    assert JournalFormatter().format(record) == "<4>leader_left is silent\n<4>(servo 3)"
