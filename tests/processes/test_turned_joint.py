"""A joint that a hand has turned beyond half a turn, on the real loops in virtual time: torque, and no leap."""

from aloha_runtime import config
from aloha_runtime.commands.faults.power import Case, Table
from aloha_runtime.commands.faults.virtual_rig import VirtualRig
from aloha_runtime.messages import Mode
from aloha_runtime.robot import RAD_PER_TICK, START_POSE
from aloha_runtime.sim.servo import ServoPlant

TURNED_RAD = (4135 - 2048) * RAD_PER_TICK
STILL_RAD = 0.01


def test_a_waist_turned_beyond_half_a_turn_is_held_and_not_led_by_arming() -> None:
    def plant(arm: str) -> ServoPlant:
        return ServoPlant("follower" if arm.startswith("follower") else "leader", (*START_POSE, 0.1))

    with VirtualRig(config.load("sim"), plant) as rig:
        rig.run(0.1)
        turned = rig.wires["follower_left"]
        turned.plant.angles[0] = TURNED_RAD
        rig.run(0.2)
        rig.ask("arm", "start")
        rig.run(3.0)
        assert abs(turned.plant.angles[0] - TURNED_RAD) <= STILL_RAD
        assert all(servo.torque for servo in turned.chain.servos)
        assert rig.word.mode is Mode.HOLD
        assert "follower_left: waist was turned by +1 turn" in rig.word.cause
        rig.ask("arm", "start")
        rig.run(1.0)
        assert abs(turned.plant.angles[0] - TURNED_RAD) <= STILL_RAD
        assert not turned.monitor.report().counts


def test_a_leader_in_a_hand_beyond_half_a_turn_is_held_where_it_is_let_go() -> None:
    table = Table(Case("teleop", (), 0.0, 0.0))
    with table.rig as rig:
        assert table.enter() == ""
        leader = rig.wires["leader_left"]
        leader.plant.hand = lambda: [*START_POSE[:3], TURNED_RAD, *START_POSE[4:], 0.1]
        table.run(2.0)
        assert rig.word.mode is Mode.TELEOP
        assert abs(leader.plant.angles[3] - TURNED_RAD) <= STILL_RAD
        rig.ask("stop")
        table.run(0.1)
        assert all(servo.torque for servo in leader.chain.servos)
        leader.plant.hand = lambda: None
        table.run(3.0)
        assert abs(leader.plant.angles[3] - TURNED_RAD) <= STILL_RAD
        said = rig.ask("arm").text
        table.run(0.5)
        assert "leader_left: forearm_roll was turned by +1 turn" in said + rig.word.cause
        assert abs(leader.plant.angles[3] - TURNED_RAD) <= STILL_RAD
