"""Ctrl-C and SIGTERM at any moment leave no process, no shared memory and no socket."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aloha_runtime.run_directory import SHARED_MEMORY, ring_prefix


def belonging_to(run_dir: Path) -> list[int]:
    """Processes whose command line names the run directory."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if str(run_dir) in (p.info["cmdline"] or [])]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("delay_s", "number"), [(0.3, signal.SIGINT), (2.0, signal.SIGTERM), (9.0, signal.SIGINT)], ids=str
)
def test_an_interrupted_system_leaves_nothing(delay_s: float, number: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "aloha_runtime.cli",
        "teleop",
        "--scripted",
        "--seed",
        "3",
        "--run-dir",
        str(run_dir),
    ]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay_s)
    child.send_signal(number)
    child.wait(timeout=120)
    assert not belonging_to(run_dir)
    assert not run_dir.exists()
    assert not list(SHARED_MEMORY.glob(f"{ring_prefix(run_dir)}*"))
