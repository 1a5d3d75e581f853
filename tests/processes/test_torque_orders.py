"""Torque on the real loops of arms and supervisor: servos that die, lose their power or lie on a stop meanwhile."""

import re

import pytest

from aloha_runtime import config
from aloha_runtime.commands.faults.power import Case, Table
from aloha_runtime.commands.faults.virtual_rig import VirtualRig
from aloha_runtime.control.limits import rig_limits
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import HardwareErrorBit
from aloha_runtime.messages import MS, NOT_NAMED_YET, Mode
from aloha_runtime.robot import RAD_PER_TICK, SERVOS, START_POSE, ticks_to_rad
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.servo import ServoPlant

LABELS = {servo.id: servo.joint if servo.shadow_of is None else f"{servo.joint}_shadow" for servo in SERVOS["follower"]}


@pytest.mark.parametrize("servo", [1, 3, 7, 9])
@pytest.mark.parametrize("after_ms", [0, 6, 9, 12, 16])
def test_a_servo_that_dies_while_torque_is_switched_is_named(servo: int, after_ms: int) -> None:
    """No order is carried out, and the arms process lives: the servos that answer are held."""
    with VirtualRig(config.load("sim"), lambda arm: ServoPlant(arm.partition("_")[0])) as rig:  # type: ignore[arg-type]
        rig.run(0.3)
        wire, switch = rig.wires["follower_left"], rig.arms["follower"].pair.torque

        def dying(on: bool, grippers: bool | None = None, again: bool = False):
            if not wire.events and not again:
                wire.at(rig.time.now + after_ms * MS, lambda _: wire.chain.set_faults(Faults(silent=[servo])))
            return switch(on, grippers, again)

        rig.arms["follower"].pair.torque = dying  # type: ignore[method-assign]
        rig.ask("arm", "start")
        rig.run(1.2)
        assert rig.word.mode is Mode.HOLD
        assert f"follower_left: silent: {LABELS[servo]}, so torque cannot be switched" in rig.word.cause


@pytest.mark.parametrize("late_ms", [20, 38])
@pytest.mark.parametrize("servo", [1, 5, 7])
def test_servos_that_answer_late_are_not_named_with_the_dead_one(servo: int, late_ms: int) -> None:
    """While torque is switched there is no time to wait for all of them; the readings after it tell who is dead."""
    with VirtualRig(config.load("sim"), lambda arm: ServoPlant(arm.partition("_")[0])) as rig:  # type: ignore[arg-type]
        rig.run(0.3)
        faults = Faults(silent=[servo], behind_missing="silent", late=1.0, late_ns=late_ms * MS)
        rig.wires["leader_right"].at(
            rig.time.now + 4 * MS, lambda _: rig.wires["leader_right"].chain.set_faults(faults)
        )
        rig.ask("arm", "start")
        rig.run(0.5)
        causes = dict.fromkeys(beat.cause for beat in rig.beats if beat.mode is Mode.HOLD)
        assert list(causes), rig.word
        assert NOT_NAMED_YET in next(iter(causes)) or len(causes) == 1
        assert f"leader_right: {LABELS[servo]} silent for" in rig.word.cause


@pytest.mark.parametrize("gap_s", [0.05, 0.2, 0.4])
def test_a_short_power_cut_between_two_tries_gives_nothing_its_torque_back(gap_s: float) -> None:
    """A leader in overload: what its message asks for is to switch its power off and on. Then it is the operator's."""
    table = Table(Case("teleop", (), 0.0, 0.0))
    with table.rig as rig:
        assert table.enter() == ""
        wire = rig.wires["leader_left"]
        wire.chain.raise_error(6, HardwareErrorBit.OVERLOAD)
        table.run(1.03)
        assert [servo.servo.id for servo in wire.chain.servos if not servo.torque] == [6]
        wire.at(rig.now_ns, wire.cut)
        wire.at(rig.now_ns + int(gap_s * 1e9), wire.chain.return_power)
        table.run(3.0)
        assert not any(servo.torque for servo in wire.chain.servos)
        assert rig.ask("arm").ok
        table.run(1.0)
        assert all(servo.torque for servo in wire.chain.servos)


def _asleep(outside_rad: float) -> VirtualRig:
    """A rig whose left follower lies with its shoulder so far outside the gate's range."""
    settings = config.load("sim")
    low = float(rig_limits(settings.limits, settings.deploy, "follower").low[1])

    def plant(arm: str) -> ServoPlant:
        angles = [*START_POSE, 0.1]
        if arm == "follower_left":
            angles[1] = low - outside_rad
        return ServoPlant("leader" if arm.startswith("leader") else "follower", angles)

    return VirtualRig(settings, plant)


@pytest.mark.parametrize("outside_rad", [0.005, 0.01, 0.02])
def test_an_arm_asleep_on_its_servos_limit_is_armed_where_it_is(outside_rad: float) -> None:
    """The gate's limits are 0.02 rad inside the servo's: torque moves no goal there, motion brings it in."""
    with _asleep(outside_rad) as rig:
        rig.run(0.5)
        arm = rig.wires["follower_left"].plant
        lay = arm.angles[1]
        assert rig.ask("arm", "here").ok
        rig.run(1.0)
        assert rig.word.mode is Mode.ARMED
        goal = rig.wires["follower_left"].monitor.report().last_goal[2]
        assert ticks_to_rad(goal) == pytest.approx(lay, abs=RAD_PER_TICK)
        assert arm.angles[1] == pytest.approx(lay, abs=0.035)  # a sag
        assert rig.ask("arm", "start").ok
        rig.run(4.0)
        assert rig.word.mode is Mode.ARMED
        assert arm.angles[1] == pytest.approx(START_POSE[1], abs=0.05)
        assert rig.wires["follower_left"].monitor.report().counts == {}


@pytest.mark.parametrize("outside_rad", [0.03, 0.06, 0.08])
def test_an_arm_that_has_fallen_on_its_stop_is_armed_at_the_first_order(outside_rad: float) -> None:
    """Torque moves it in to the servo's own limit: nobody has to lift it after a power cut."""
    with _asleep(outside_rad) as rig:
        rig.run(0.5)
        assert rig.ask("arm", "start").ok
        rig.run(4.0)
        assert rig.word.mode is Mode.ARMED
        assert rig.wires["follower_left"].plant.angles[1] == pytest.approx(START_POSE[1], abs=0.05)


@pytest.mark.parametrize("outside_rad", [0.12, 0.2])
def test_an_arm_that_lies_further_outside_is_refused_until_a_hand_has_moved_it(outside_rad: float) -> None:
    with _asleep(outside_rad) as rig:
        rig.run(0.5)
        wire = rig.wires["follower_left"]
        lay = wire.plant.angles[1]
        rig.ask("arm", "start")
        rig.run(1.0)
        assert rig.word.mode is Mode.HOLD
        said = re.search(r"left_shoulder stands at (-\d\.\d+) rad, outside its range -1\.832\.\.1\.236", rig.word.cause)
        assert said, rig.word.cause
        assert float(said[1]) == pytest.approx(lay, abs=RAD_PER_TICK)
        assert "move the arm inside by hand, then arm again" in rig.word.cause
        assert not any(servo.torque for servo in wire.chain.servos)
        assert wire.plant.angles[1] == lay
        for _ in range(10):  # a person does what it says
            wire.plant.angles[1] += outside_rad / 10
            rig.run(0.02)
        assert rig.ask("arm", "start").ok
        rig.run(4.0)
        assert rig.word.mode is Mode.ARMED
        assert wire.plant.angles[1] == pytest.approx(START_POSE[1], abs=0.05)


@pytest.mark.parametrize("lead_rad", [0.03, 0.06])
def test_arms_at_rest_do_not_sink_however_short_the_lead(lead_rad: float) -> None:
    """A leader's elbow sags by 0.066 rad under its own weight: a goal that yielded to that would let it sink."""
    settings = config.load("sim")
    limits = settings.limits.model_copy(update={"lead_rad": lead_rad})
    rig = VirtualRig(settings.model_copy(update={"limits": limits}), lambda arm: ServoPlant(arm.partition("_")[0]))  # type: ignore[arg-type]
    with rig:
        rig.run(0.3)
        assert rig.ask("arm", "here").ok
        rig.run(0.7)
        before = {arm: list(wire.plant.angles) for arm, wire in rig.wires.items()}
        assert rig.ask("stop").ok
        rig.run(3.0)
        for arm, wire in rig.wires.items():
            assert wire.plant.angles == pytest.approx(before[arm], abs=0.01), arm


@pytest.mark.parametrize("servo", [2, 4, 6])
def test_a_carried_servo_that_was_silent_holds_its_joint_again(servo: int) -> None:
    """It missed the way back from current control, in which goals mean nothing to it."""
    settings = config.load("sim")
    carrying = settings.teleop.model_copy(update={"gravity_compensation": 0.7})
    table = Table(Case("teleop", (), 0.0, 0.0))
    table.rig = VirtualRig(settings.model_copy(update={"teleop": carrying}), table._plant, table._drive)
    with table.rig as rig:
        assert table.enter() == ""
        wire = rig.wires["leader_left"]
        wire.chain.set_faults(Faults(silent=[servo]))
        table.run(0.6)
        wire.chain.set_faults(Faults())
        table.run(1.0)
        wire.plant.falls = True
        assert rig.ask("arm", "here").ok
        table.run(1.0)
        before = list(wire.plant.angles)
        table.run(2.0)
        modes = {each.servo.id: each.mode for each in wire.chain.servos}
        assert set(modes.values()) == {reg.MODE_POSITION}
        fallen = [abs(now - then) for now, then in zip(wire.plant.angles, before, strict=True)]
        assert max(fallen[:-1]) < 0.01
