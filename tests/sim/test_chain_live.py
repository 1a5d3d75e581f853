"""Registers of an emulated servo that tell what it does now: output, trajectory, moving, moving status."""

import pytest
from chain_tools import Bench

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.robot import SERVOS, Role
from aloha_runtime.sim.live_registers import FOLLOWING_ERROR, IN_POSITION, PROFILE_ONGOING, RECTANGULAR, TRAPEZOIDAL
from aloha_runtime.sim.motors import MOTORS
from aloha_runtime.sim.weight import weight_torques

ROLES: tuple[Role, ...] = ("leader", "follower")


def standing(role: Role) -> Bench:
    bench = Bench(role)
    bench.torque(*[servo.id for servo in SERVOS[role]])
    bench.pass_ms(2000)
    return bench


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("gain", [800, 500])
def test_output_is_the_error_times_the_gain_and_carries_the_weight(role: Role, gain: int) -> None:
    bench = standing(role)
    for servo in (4, 5, 7):
        bench.write(servo, reg.POSITION_P_GAIN, gain)
    bench.pass_ms(2000)
    weights = weight_torques(role, [bench.angle(joint) for joint in range(6)])
    for servo, joint, count in ((4, 2, 2), (5, 2, 2), (7, 4, 1)):
        firmware = bench.chain.servo(servo)
        pwm = bench.read(servo, reg.PRESENT_PWM)
        error = bench.read(servo, reg.GOAL_POSITION) - bench.read(servo, reg.PRESENT_POSITION)
        assert pwm == pytest.approx(gain / 128 * error, abs=0.6)
        sign = 1 if firmware.ticks_per_rad > 0 else -1
        torque = -weights[joint] / count * sign
        slack = 1.5 * gain / 128 if servo != 5 else 12 * gain / 128  # a shadow is mounted some ticks off
        assert pwm == pytest.approx(885 * torque / MOTORS[firmware.servo.model].stall_torque, abs=slack)


def test_output_saturates_at_goal_pwm() -> None:
    bench = standing("follower")
    bench.write(1, reg.GOAL_POSITION, 3500)
    assert bench.read(1, reg.PRESENT_PWM) == 885
    bench.write(1, reg.GOAL_PWM, 300)
    assert bench.read(1, reg.PRESENT_PWM) == 300
    speed = bench.read(1, reg.PRESENT_VELOCITY)
    bench.pass_ms(100)
    assert 0 < bench.read(1, reg.PRESENT_VELOCITY) < 0.5 * 131
    assert speed >= 0
    bench.write(1, reg.TORQUE_ENABLE, 0)
    assert bench.read(1, reg.PRESENT_PWM) == 0


def test_load_of_a_servo_without_current_sensing_is_its_output() -> None:
    bench = standing("leader")
    bench.plant.angles[3] = 1.2  # the roll turns the wrist over, so that its last joint carries something
    bench.pass_ms(10)
    pwm, load = bench.read(8, reg.PRESENT_PWM), bench.read(8, reg.PRESENT_CURRENT)
    assert load / 1000 == pytest.approx(pwm / 885, abs=0.01)


def test_a_profile_is_told_while_it_lasts() -> None:
    bench = standing("follower")
    bench.write(1, reg.PROFILE_VELOCITY, 20)
    bench.write(1, reg.GOAL_POSITION, 2448)
    bench.pass_ms(200)
    assert bench.read(1, reg.VELOCITY_TRAJECTORY) == 20
    assert 2048 < bench.read(1, reg.PRESENT_POSITION) < bench.read(1, reg.POSITION_TRAJECTORY) < 2200
    assert bench.read(1, reg.MOVING_STATUS) == RECTANGULAR | PROFILE_ONGOING
    assert bench.read(1, reg.MOVING) == 1
    bench.pass_ms(3000)
    assert bench.read(1, reg.VELOCITY_TRAJECTORY) == 0
    assert bench.read(1, reg.POSITION_TRAJECTORY) == 2448
    assert bench.read(1, reg.MOVING_STATUS) == RECTANGULAR | IN_POSITION
    assert bench.read(1, reg.MOVING) == 0
    bench.write(1, reg.PROFILE_ACCELERATION, 10)
    bench.write(1, reg.GOAL_POSITION, 2048)
    bench.pass_ms(200)
    assert bench.read(1, reg.MOVING_STATUS) == TRAPEZOIDAL | PROFILE_ONGOING
    assert bench.read(1, reg.VELOCITY_TRAJECTORY) < 0


def test_a_slow_profile_moves_even_where_the_servo_seems_to_stand() -> None:
    bench = standing("follower")
    bench.write(1, reg.PROFILE_VELOCITY, 1)
    bench.write(1, reg.GOAL_POSITION, 2448)
    bench.pass_ms(100)
    assert bench.read(1, reg.PRESENT_VELOCITY) <= bench.read(1, reg.MOVING_THRESHOLD)
    assert bench.read(1, reg.MOVING) == 1


def test_without_a_profile_the_status_tells_of_arrival_and_of_lag() -> None:
    bench = standing("follower")
    assert bench.read(1, reg.MOVING_STATUS) == IN_POSITION
    bench.write(1, reg.GOAL_POSITION, 3000)
    assert bench.read(1, reg.MOVING_STATUS) == FOLLOWING_ERROR
    bench.pass_ms(2000)
    assert bench.read(1, reg.MOVING_STATUS) == IN_POSITION
    bench.write(1, reg.TORQUE_ENABLE, 0)
    assert bench.read(1, reg.MOVING_STATUS) == 0


def test_velocity_mode_tells_its_goal_as_its_trajectory() -> None:
    bench = standing("follower")
    bench.write(6, reg.TORQUE_ENABLE, 0)
    bench.write(6, reg.OPERATING_MODE, 1)
    bench.torque(6)
    bench.write(6, reg.GOAL_VELOCITY, 42)
    bench.pass_ms(500)
    assert bench.read(6, reg.VELOCITY_TRAJECTORY) == 42
    assert bench.read(6, reg.PRESENT_PWM) == pytest.approx(885 * 42 * 0.229 / 30, abs=30)
