"""The weight of an emulated leader: it falls without torque; position control holds it, current carries it."""

import numpy as np
import pytest
from chain_tools import Bench

from aloha_runtime.control import gravity
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.robot import JOINTS, MA_PER_UNIT, SERVOS, ticks_to_rad

FORWARD = (0.0, 0.6, 0.3, 0.0, 0.4, 0.0, 0.0)
MASTERS = {servo.joint: servo for servo in SERVOS["leader"] if servo.shadow_of is None}


@pytest.fixture
def bench() -> Bench:
    bench = Bench("leader")
    bench.plant.angles[:] = FORWARD
    bench.plant.falls = True
    return bench


def travel(bench: Bench, seconds: float) -> float:
    before = np.array(bench.plant.read(bench.now_ns).angles)
    bench.pass_ms(seconds * 1000)
    return float(np.abs(np.array(bench.plant.read(bench.now_ns).angles) - before).max())


def test_it_falls_to_its_stop_without_torque(bench: Bench) -> None:
    bench.read(2, reg.PRESENT_POSITION)
    assert travel(bench, 0.5) > 0.3
    bench.pass_ms(5000)
    assert travel(bench, 1.0) < 0.001
    assert bench.angle(JOINTS.index("shoulder")) == pytest.approx(ticks_to_rad(MASTERS["shoulder"].max_tick))


def test_position_control_holds_it(bench: Bench) -> None:
    bench.torque(2, 3, 4, 5, 6, 7)
    assert 0.05 < travel(bench, 1.0) < 0.12  # it sags, once
    assert travel(bench, 5.0) < 1e-4


def carry(bench: Bench, share: float) -> None:
    """Current control of master and shadow alike: the shadow's Drive_Mode turns the same number its way. The mode is
    in the EEPROM, so a shadow gets it by its own id."""
    currents = gravity.carrying_currents_ma(np.tile(FORWARD, 2), share)[:7]
    for joint in gravity.CARRIED_JOINTS:
        servo = MASTERS[joint].id
        for own in (servo, *(shadow.id for shadow in SERVOS["leader"] if shadow.shadow_of == servo)):
            assert bench.write(own, reg.OPERATING_MODE, reg.MODE_CURRENT) == 0
        assert bench.write(servo, reg.GOAL_CURRENT, round(currents[JOINTS.index(joint)] / MA_PER_UNIT)) == 0
        bench.torque(servo)


def test_the_right_current_carries_it(bench: Bench) -> None:
    carry(bench, 1.0)
    assert travel(bench, 2.0) < 0.01


@pytest.mark.parametrize(("share", "sign"), [(0.5, 1), (1.5, -1)])
def test_too_little_lets_it_sink_and_too_much_lifts_it(bench: Bench, share: float, sign: int) -> None:
    carry(bench, share)
    shoulder = bench.angle(1)
    bench.pass_ms(100)
    assert sign * (bench.angle(1) - shoulder) > 0.02


def test_a_tripped_watchdog_ends_the_push(bench: Bench) -> None:
    carry(bench, 1.0)
    for servo in (2, 3):
        assert bench.write(servo, reg.BUS_WATCHDOG, 5) == 0
    assert travel(bench, 0.09) < 0.01
    assert travel(bench, 0.5) > 0.1
