"""LeRobot 0.6.1's `DynamixelMotorsBus` as an outside judge of the emulated chain. LeRobot needs Python 3.12, so it runs
in an environment of its own (`make interop`); the chains run here."""

import ast
import json
import subprocess
from pathlib import Path

import pytest

from aloha_runtime.sim.standalone import EmulatedArm

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-interop/bin/python"
SCRIPT = Path(__file__).with_name("lerobot_bus.py")
CHECKS = [
    node.name
    for node in ast.parse(SCRIPT.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each check in LeRobot's environment ended with: empty, or a traceback."""
    if not PYTHON.exists():
        pytest.skip(f"no LeRobot environment: {PYTHON.relative_to(ROOT)} is missing (make interop)")
    probe = subprocess.run(
        [PYTHON, "-c", "import lerobot.motors.dynamixel, dynamixel_sdk"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"LeRobot's bus cannot be imported there: {probe.stderr.strip().splitlines()[-1]}")
    scratch = tmp_path_factory.mktemp("lerobot")
    with EmulatedArm(scratch, "follower_left") as follower, EmulatedArm(scratch, "leader_left") as leader:
        command = [PYTHON, SCRIPT, follower.port, leader.port, scratch / "outcome.json"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert finished.returncode == 0, finished.stderr
    result: dict[str, str] = json.loads((scratch / "outcome.json").read_text())
    return result


@pytest.mark.parametrize("check", CHECKS)
def test_lerobot_cannot_tell(outcome: dict[str, str], check: str) -> None:
    assert outcome[check] == "", outcome[check]
