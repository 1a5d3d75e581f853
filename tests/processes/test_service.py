"""What every process shares: it ends when told, at once while it still sets up, and says why when it cannot go on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aloha_runtime.run_directory import RunDirectory

SET_UP = """
from aloha_runtime.service import run
import time
def main(service):
    print("set up", flush=True)
    time.sleep(600)
run(main)
"""
LOOP = """
from aloha_runtime.service import run
def main(service):
    service.report()
    print("loop", flush=True)
    while not service.stopping:
        service.clock.sleep_until(service.clock.now_ns() + 1_000_000)
    print("left", flush=True)
run(main)
"""
FAIL = """
from aloha_runtime.errors import HardwareError
from aloha_runtime.service import run
def main(service):
    raise HardwareError("leader_left: no servo answers")
run(main)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    with RunDirectory(tmp_path / "run") as directory:
        yield directory.path


def start(code: str, run_dir: Path, *options: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, "teleop", "--rig", "sim", "--run-dir", str(run_dir), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=pass_fds, bufsize=1
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_loop_is_left_after_its_turn_and_the_sockets_go(run_dir: Path, number: signal.Signals) -> None:
    child = start(LOOP, run_dir)
    assert child.stdout is not None
    assert child.stdout.readline() == "loop\n"
    assert (run_dir / "health.teleop.ipc").exists()
    child.send_signal(number)
    assert child.communicate(timeout=60)[0] == "left\n"
    assert child.returncode == 0
    assert [path.name for path in run_dir.iterdir()] == ["run.lock"]


def test_a_set_up_that_takes_long_is_left_at_once(run_dir: Path) -> None:
    child = start(SET_UP, run_dir)
    assert child.stdout is not None
    assert child.stdout.readline() == "set up\n"
    child.terminate()
    assert child.wait(timeout=60) == 0
    assert [path.name for path in run_dir.iterdir()] == ["run.lock"]


def test_an_error_is_one_line_and_its_exit_code(run_dir: Path) -> None:
    child = start(FAIL, run_dir)
    assert child.communicate(timeout=60) == ("", "teleop: leader_left: no servo answers\n")
    assert child.returncode == 3


def test_an_error_goes_to_the_stack_where_there_is_one(run_dir: Path) -> None:
    reading, writing = os.pipe()
    child = start(FAIL, run_dir, "--complain-to", str(writing), pass_fds=(writing,))
    os.close(writing)
    assert child.communicate(timeout=60) == ("", "")
    assert os.read(reading, 4096) == b"leader_left: no servo answers"
    os.close(reading)


def test_a_stack_that_is_gone_does_not_matter(run_dir: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    child = start(FAIL, run_dir, "--complain-to", str(writing), pass_fds=(writing,))
    os.close(writing)
    assert child.communicate(timeout=60) == ("", "")
    assert child.returncode == 3


def test_a_signal_before_anything_is_set_up_leaves_nothing(run_dir: Path) -> None:
    for delay_s in (0.02, 0.2, 0.5, 0.8):
        child = start(SET_UP, run_dir)
        time.sleep(delay_s)
        child.terminate()
        child.wait(timeout=60)
        assert [path.name for path in run_dir.iterdir()] == ["run.lock"]
