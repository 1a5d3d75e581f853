"""Arms as they come from the shop or from another program: refused at start with the command that mends it."""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import serial_port
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.hardware.dynamixel_setup import ZERO_LIMIT_TICKS
from aloha_runtime.sim.chain_control import Peek, Poke
from aloha_runtime.sim.standalone import EmulatedArm

FOLLOWER, LEADER = "follower_left", "leader_left"
WRONG = {
    "return delay 500 us": (FOLLOWER, 4, "Return_Delay_Time", 250),
    "joint turns the other way": (FOLLOWER, 5, "Drive_Mode", 4),
    "shadow listens to nobody": (FOLLOWER, 3, "Secondary_ID", 255),
    "lower limit too low": (FOLLOWER, 4, "Min_Position_Limit", 0),
    "upper limit too high": (FOLLOWER, 2, "Max_Position_Limit", 4095),
    "zero of a follower's waist 90 degrees off": (FOLLOWER, 1, "Homing_Offset", 1024),
    "zero of a follower's elbow 45 degrees off": (FOLLOWER, 4, "Homing_Offset", -512),
    "zero of a leader's shoulder 45 degrees off": (LEADER, 2, "Homing_Offset", 512),
    "zero of a leader's wrist 22 degrees off": (LEADER, 7, "Homing_Offset", 256),
    "overload does not switch off": (LEADER, 3, "Shutdown", 0),
    "a dip of the supply switches off": (FOLLOWER, 2, "Shutdown", 53),
    "torque when the power comes": (FOLLOWER, 6, "Startup_Configuration", 1),
    "a third of the voltage": (LEADER, 5, "PWM_Limit", 300),
    "no speed": (FOLLOWER, 7, "Velocity_Limit", 5),
    "weak in current control": (LEADER, 4, "Current_Limit", 100),
    "may overheat": (LEADER, 8, "Temperature_Limit", 100),
    "12 V are an error": (FOLLOWER, 9, "Min_Voltage_Limit", 125),
    "goals give torque": (LEADER, 1, "Drive_Mode", 8),
}
"""Arm, servo, register, value that it must not have."""
XL430 = 1060
LATENCY_MS = 16


Arms = Mapping[str, EmulatedArm]


@contextmanager
def shop() -> Iterator[Arms]:
    with tempfile.TemporaryDirectory(prefix="aloha-faults-") as folder, ExitStack() as stack:
        yield {name: stack.enter_context(EmulatedArm(Path(folder), name)) for name in (FOLLOWER, LEADER)}


def refusal(arm: EmulatedArm) -> str:
    """Why the driver does not take this arm; empty when it does."""
    driver = DynamixelArm(arm.arm, "leader" if arm.arm == LEADER else "follower", str(arm.port))
    try:
        driver.connect()
    except HardwareError as error:
        return str(error)
    finally:
        driver.disconnect()
    return ""


def _wrong(name: str, servo: int, register: str, value: int) -> Callable[[Arms, Random], Trial]:
    def try_once(arms: Arms, _chance: Random) -> Trial:
        """The command in the message is run as it stands; afterwards the arm must be taken."""
        arm = arms[name]
        arm.ask(Poke(servo, register, value))
        said = refusal(arm)
        if torque := [one for one in range(1, 10) if arm.ask(Peek(one, "Torque_Enable")).value]:
            return Trial(f"servos {torque} have torque")
        if f"servo {servo} (" not in said or f"{register} {value}, must be" not in said:
            return Trial(f"the refusal does not name servo {servo} and {register} {value}: {said!r}")
        command = re.search(r"`aloha (servo write [^`]+)`", said)
        if command is None:
            return Trial(f"no command that mends {register} {value} of servo {servo}: {said!r}")
        words = [sys.executable, "-m", "aloha_runtime.cli", *shlex.split(command[1])]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        if ran.returncode:
            return Trial(f"`aloha {command[1]}` ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
        return Trial(refusal(arm))

    return try_once


def shadow_far_off(arms: Arms, _chance: Random) -> Trial:
    """An earlier program has aligned a shadow to a master whose zero was wrong, and the master was set right since."""
    arm = arms[LEADER]
    arm.ask(Poke(3, "Homing_Offset", 700))
    arm.ask(Poke(2, "Homing_Offset", 0))
    said = refusal(arm)
    offset = arm.ask(Peek(3, "Homing_Offset")).value
    return Trial(said or ("" if abs(offset) < ZERO_LIMIT_TICKS else f"the shadow keeps an offset of {offset}"))


def wrong_model(arms: Arms, _chance: Random) -> Trial:
    arm = arms[FOLLOWER]
    arm.ask(Poke(1, "Model_Number", XL430))
    said = refusal(arm)
    arm.ask(Poke(1, "Model_Number", 1120))
    named = "waist" in said and str(XL430) in said
    return Trial("" if named else f"the refusal does not name servo and model: {said!r}")


def slow_adapter(arms: Arms, _chance: Random) -> Trial:
    """As an FTDI adapter shows its latency timer, in a tree of files that stands in for /sys/class/tty."""
    arm = arms[FOLLOWER]
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
        Scenario("a shadow aligned to a zero that was wrong", "aligned again at start", "", None, shadow_far_off),
        Scenario("wrong servo model", "refused at start, naming servo and model", "", None, wrong_model),
        Scenario(
            "latency timer 16 ms", "refused at start; the command in the message mends it", "", None, slow_adapter
        ),
    ),
)
