"""Leaders that are let go in TELEOP, through driver, servos and their plant in virtual time: carried or not."""

from pathlib import Path

import numpy as np

from aloha_runtime import config, messages
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import IS_GRIPPER
from aloha_runtime.sim.chain_control import Peek, ask

SHOULDER, ELBOW_SHADOW, WRIST_ROTATE = 2, 5, 8
CARRIED, FREE = (reg.MODE_CURRENT, 1), (reg.MODE_POSITION, 0)


def rig(share: float) -> RigConfig:
    sim = operate.with_task(config.load("sim"), 3, "transfer_cube", "virtual")
    teleop = sim.teleop.model_copy(update={"gravity_compensation": share})
    return sim.model_copy(update={"teleop": teleop, "cameras": {}})


def peek(stack: Stack, servo: int, register: reg.Register) -> int:
    return ask(stack.run_dir, "leader_left", Peek(servo=servo, register=register.name)).value


def test_a_leader_that_is_let_go_stays_where_it_is(tmp_path: Path) -> None:
    with Stack(rig(0.98), Job.TELEOP, tmp_path) as stack:  # masses are never known exactly
        leaders = stack.bus.subscribe(messages.LEADERS)

        def position(seconds: float) -> np.ndarray:
            stack.pause(seconds)
            return np.where(IS_GRIPPER, 0.0, leaders.latest().position)

        operate.raise_arms(stack)
        stack.ask("teleop")
        start, end = position(0.1), position(2.0)
        assert stack.mode.latest().mode is Mode.TELEOP
        assert np.abs(end - start).max() < 0.05
        for servo, expected in ((SHOULDER, CARRIED), (ELBOW_SHADOW, CARRIED), (WRIST_ROTATE, FREE)):
            assert (peek(stack, servo, reg.OPERATING_MODE), peek(stack, servo, reg.TORQUE_ENABLE)) == expected
        stack.ask("stop")
        held = position(0.2)
        assert np.abs(position(1.0) - held).max() < 0.01
        assert peek(stack, SHOULDER, reg.OPERATING_MODE) == reg.MODE_POSITION
