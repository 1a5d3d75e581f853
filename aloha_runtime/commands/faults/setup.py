"""Arms as they come from the shop or from another program: refused at start with the command that mends it."""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import serial_port
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.sim.chain_control import Poke
from aloha_runtime.sim.standalone import EmulatedArm

WRONG = {
    "return delay 500 us": (4, "Return_Delay_Time", 250),
    "joint turns the other way": (5, "Drive_Mode", 4),
    "shadow listens to nobody": (3, "Secondary_ID", 255),
    "lower limit too low": (4, "Min_Position_Limit", 0),
    "upper limit too high": (2, "Max_Position_Limit", 4095),
}
"""Servo, register, value that it must not have."""
XL430 = 1060
LATENCY_MS = 16


@contextmanager
def shop() -> Iterator[EmulatedArm]:
    with tempfile.TemporaryDirectory(prefix="aloha-faults-") as folder, EmulatedArm(Path(folder)) as arm:
        yield arm


def refusal(arm: EmulatedArm) -> str:
    """Why the driver does not take this arm; empty when it does."""
    driver = DynamixelArm("follower_left", "follower", str(arm.port))
    try:
        driver.connect()
    except HardwareError as error:
        return str(error)
    finally:
        driver.disconnect()
    return ""


def _wrong(servo: int, register: str, value: int) -> Callable[[EmulatedArm, Random], Trial]:
    def try_once(arm: EmulatedArm, _chance: Random) -> Trial:
        """The command in the message is run as it stands; afterwards the arm must be taken."""
        arm.ask(Poke(servo, register, value))
        said = refusal(arm)
        command = re.search(r"`aloha (servo write [^`]+)`", said)
        if command is None:
            return Trial(f"no command that mends {register} {value} of servo {servo}: {said!r}")
        words = [sys.executable, "-m", "aloha_runtime.cli", *shlex.split(command[1])]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        if ran.returncode:
            return Trial(f"`aloha {command[1]}` ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
        return Trial(refusal(arm))

    return try_once


def wrong_model(arm: EmulatedArm, _chance: Random) -> Trial:
    arm.ask(Poke(1, "Model_Number", XL430))
    said = refusal(arm)
    arm.ask(Poke(1, "Model_Number", 1120))
    named = "waist" in said and str(XL430) in said
    return Trial("" if named else f"the refusal does not name servo and model: {said!r}")


def slow_adapter(arm: EmulatedArm, _chance: Random) -> Trial:
    """As an FTDI adapter shows its latency timer, in a tree of files that stands in for /sys/class/tty."""
    real = serial_port.SYS_TTY
    with tempfile.TemporaryDirectory() as tree:
        setting = Path(tree) / arm.port.resolve().name / "device" / "latency_timer"
        setting.parent.mkdir(parents=True)
        setting.write_text(f"{LATENCY_MS}\n")
        serial_port.SYS_TTY = Path(tree)
        try:
            said = refusal(arm)
            command = re.search(r"`echo 1 \| sudo tee ([^`]+)`", said)
            if command is None or command[1] != str(setting):
                return Trial(f"no command that mends the latency timer: {said!r}")
            setting.write_text("1\n")
            return Trial(refusal(arm))
        finally:
            serial_port.SYS_TTY = real


SETUP = Family(
    "setup",
    shop,
    (
        *(
            Scenario(
                f"arm set up wrongly: {name}",
                "refused at start; the command in the message mends it",
                "",
                None,
                _wrong(*found),
            )
            for name, found in WRONG.items()
        ),
        Scenario("wrong servo model", "refused at start, naming servo and model", "", None, wrong_model),
        Scenario(
            "latency timer 16 ms", "refused at start; the command in the message mends it", "", None, slow_adapter
        ),
    ),
)
