"""A gripper in overload comes back by an operator's order, on the real loops of arms and supervisor in virtual time."""

from collections.abc import Iterator

import pytest

from aloha_runtime import messages
from aloha_runtime.commands.faults.power import Case, Table
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import HardwareErrorBit
from aloha_runtime.messages import Mode
from aloha_runtime.processes.arms import ArmsLoop
from aloha_runtime.robot import SERVOS

ARMS = ("follower_left", "follower_right", "leader_left", "leader_right")
GRIPPER = 9


class Jam:
    """A rig in teleoperation, one gripper of which goes into overload."""

    def __init__(self, arm: str) -> None:
        self.table = Table(Case("teleop", (arm,), 0.0, 0.0))
        self.rig, self.arm = self.table.rig, arm

    def begin(self) -> None:
        assert self.table.enter() == ""
        self.servos = {servo.servo.id: servo for servo in self.rig.wires[self.arm].chain.servos}
        self.rig.wires[self.arm].chain.raise_error(GRIPPER, HardwareErrorBit.OVERLOAD)
        self.table.run(0.3)
        assert self.rig.word.mode is Mode.FAULT

    def torque(self) -> dict[int, bool]:
        return {servo_id: servo.torque for servo_id, servo in self.servos.items()}


@pytest.fixture
def jam(request: pytest.FixtureRequest) -> Iterator[Jam]:
    jam = Jam(request.param)
    with jam.rig:
        jam.begin()
        yield jam


@pytest.mark.parametrize("jam", ARMS, indirect=True)
def test_the_operator_brings_it_back_with_the_command_that_the_fault_names(jam: Jam) -> None:
    rig, arm = jam.rig, jam.arm
    assert f"overload; free its fingers, then `aloha reset-gripper {arm}`" in rig.word.cause
    assert not rig.ask("arm").ok
    jam.table.run(1.0)  # leaders have got their torque back by now, all but the gripper
    others = {servo_id: on for servo_id, on in jam.torque().items() if servo_id != GRIPPER}
    assert all(others.values())
    lost: list[int] = []
    before = list(rig.wires[arm].plant.angles)

    def look() -> None:
        lost.extend(servo_id for servo_id in others if not jam.torque()[servo_id])

    assert rig.ask("reset_gripper", arm).ok
    rig.run(1.5, look)
    assert lost == []
    assert rig.word.cause == f"{arm}: its gripper was restarted; look at its fingers, then `aloha arm`"
    assert jam.torque()[GRIPPER]
    assert not jam.servos[GRIPPER].get(reg.HARDWARE_ERROR_STATUS)
    assert jam.servos[GRIPPER].watchdog > 0
    moved = [abs(a - b) for a, b in zip(before, rig.wires[arm].plant.angles, strict=True)]
    assert max(moved[:-1]) < 0.01
    assert rig.ask("arm").ok
    assert jam.table.until(lambda: rig.word.mode is Mode.ARMED, "ARMED") == ""
    jam.table.run(0.5)
    assert rig.word.mode is Mode.ARMED
    assert rig.ask("teleop").ok


@pytest.mark.parametrize("jam", ["follower_left"], indirect=True)
def test_it_restarts_once_and_only_by_an_order(jam: Jam) -> None:
    reboots = 0
    servo, reboot = jam.servos[GRIPPER], jam.servos[GRIPPER].reboot

    def counted(now_ns: int) -> None:
        nonlocal reboots
        reboots += 1
        reboot(now_ns)

    servo.reboot = counted  # type: ignore[method-assign]
    jam.table.run(3.0)
    assert reboots == 0
    assert jam.rig.ask("reset_gripper", "follower_left").ok
    jam.table.run(2.0)
    assert reboots == 1
    servo.raise_error(HardwareErrorBit.OVERLOAD)
    jam.table.run(1.0)
    assert reboots == 1


@pytest.mark.parametrize("jam", ["follower_left"], indirect=True)
def test_arms_that_were_started_after_the_order_do_not_carry_it_out(jam: Jam) -> None:
    jam.rig.stop_process("arms@followers", 1.0)
    assert jam.rig.ask("reset_gripper", "follower_left").ok
    pair = jam.rig.arms["follower"]
    pair.pair.disconnect()
    fresh = ArmsLoop(jam.rig.service("arms@followers"))
    fresh.connect()
    for _ in range(40):
        jam.rig.time.now += fresh.period_ns
        fresh.cycle(jam.rig.time.now)
    assert fresh.pilot.order_ns  # it has heard the order
    assert jam.servos[GRIPPER].get(reg.HARDWARE_ERROR_STATUS)


@pytest.mark.parametrize("jam", ["follower_left"], indirect=True)
def test_who_asks_for_an_unknown_arm_or_is_no_operator_is_refused(jam: Jam) -> None:
    reply = jam.rig.ask("reset_gripper", "left")
    assert (reply.ok, reply.text) == (False, f"reset_gripper takes one of {', '.join(jam.rig.rig.arms)}")
    jam.rig.bus.requests.append(messages.Request(verb="reset_gripper", argument="follower_left", sender="somebody"))
    jam.table.run(0.1)
    assert jam.rig.bus.replies[-1].text == "fault: only the operator may reset_gripper"


def test_it_is_refused_where_no_fault_is() -> None:
    table = Table(Case("armed", ("follower_left",), 0.0, 0.0))
    with table.rig as rig:
        assert table.enter() == ""
        assert (
            rig.ask("reset_gripper", "follower_left").text
            == "armed: reset_gripper is not possible in armed; stop first"
        )


def test_the_gripper_is_the_last_servo() -> None:
    assert all(servos[-1].id == GRIPPER and servos[-1].joint == "gripper" for servos in SERVOS.values())
