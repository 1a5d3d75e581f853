"""Runs inside the LeRobot environment: LeRobot's own `DynamixelMotorsBus` drives two emulated arms.

Arguments: follower port, leader port, output .json. Every `check_` function is one check; the output says which passed
and, if not, why.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable

import dynamixel_sdk.port_handler
from lerobot.motors import Motor, MotorNormMode
from lerobot.motors.dynamixel import DynamixelMotorsBus, OperatingMode

# The SDK waits 34 ms; on a busy machine the chain's process may not run for longer.
dynamixel_sdk.port_handler.LATENCY_TIMER = 300

JOINTS = (
    "waist",
    "shoulder",
    "shoulder_shadow",
    "elbow",
    "elbow_shadow",
    "forearm_roll",
    "wrist_angle",
    "wrist_rotate",
)
MODELS = {
    "follower": ["xm540-w270"] * 7 + ["xm430-w350"] * 2,
    "leader": ["xm430-w350"] * 7 + ["xl430-w250", "xc430-w150"],
}


def motors(role: str) -> dict[str, Motor]:
    mode = MotorNormMode.RANGE_M100_100
    return {
        name: Motor(index, model, mode)
        for index, (name, model) in enumerate(zip((*JOINTS, "gripper"), MODELS[role], strict=True), 1)
    }


def bus_of(port: str, role: str = "follower") -> DynamixelMotorsBus:
    bus = DynamixelMotorsBus(port, motors(role))
    bus.connect()  # its handshake finds every motor with the expected model
    return bus


def check_connect_finds_every_model(follower: str, leader: str) -> None:
    for port, role in ((follower, "follower"), (leader, "leader")):
        bus = bus_of(port, role)
        assert bus.is_connected
        bus.disconnect(disable_torque=False)


def check_connect_refuses_another_model(follower: str, leader: str) -> None:
    refused(lambda: bus_of(leader, "follower"), "1060")


def check_scan_port(follower: str, leader: str) -> None:
    assert DynamixelMotorsBus.scan_port(follower) == {1_000_000: list(range(1, 10))}


def check_broadcast_ping(follower: str, leader: str) -> None:
    bus = bus_of(leader, "leader")
    assert bus.broadcast_ping() == dict.fromkeys(range(1, 8), 1020) | {8: 1060, 9: 1070}
    bus.disconnect(disable_torque=False)


def check_ping_by_name(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    assert bus.ping("gripper") == 1020
    assert bus.ping("waist") == 1120
    bus.disconnect(disable_torque=False)


def check_read_and_write_each_width(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    for name, value in (("LED", 1), ("Position_P_Gain", 640), ("Goal_Current", -150), ("Profile_Velocity", 30_000)):
        before = bus.read(name, "gripper", normalize=False)
        bus.write(name, "gripper", value, normalize=False)
        assert bus.read(name, "gripper", normalize=False) == value, name
        bus.write(name, "gripper", before, normalize=False)
    bus.disconnect(disable_torque=False)


def check_sync_read(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    together = bus.sync_read("Present_Position", normalize=False)
    assert together == {name: bus.read("Present_Position", name, normalize=False) for name in together}
    assert set(bus.sync_read("Present_Temperature").values()) == {30}
    bus.disconnect(disable_torque=False)


def check_sync_write_reaches_shadows(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    bus.sync_write("Position_P_Gain", {"shoulder": 400, "waist": 500})
    assert bus.read("Position_P_Gain", "shoulder_shadow") == 400
    assert bus.read("Position_P_Gain", "waist") == 500
    bus.sync_write("Position_P_Gain", 800)
    assert set(bus.sync_read("Position_P_Gain").values()) == {800}
    bus.disconnect(disable_torque=False)


def check_torque(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    bus.enable_torque()
    assert set(bus.sync_read("Torque_Enable").values()) == {1}
    bus.disable_torque("gripper")
    assert bus.read("Torque_Enable", "gripper") == 0
    with bus.torque_disabled():
        assert set(bus.sync_read("Torque_Enable").values()) == {0}
    assert set(bus.sync_read("Torque_Enable").values()) == {1}
    bus.disconnect()  # torque off, as it does by default
    bus = bus_of(follower)
    assert set(bus.sync_read("Torque_Enable").values()) == {0}
    bus.disconnect(disable_torque=False)


def check_a_goal_is_reached(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    bus.enable_torque("forearm_roll")
    start = bus.read("Present_Position", "forearm_roll", normalize=False)
    bus.write("Goal_Position", "forearm_roll", start + 200, normalize=False)
    give_up = time.monotonic() + 10
    while bus.read("Present_Position", "forearm_roll", normalize=False) != start + 200:
        assert time.monotonic() < give_up
    while bus.read("Present_Velocity", "forearm_roll", normalize=False) != 0:
        assert time.monotonic() < give_up
    bus.disconnect()


def check_eeprom_lock_raises(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    bus.enable_torque("gripper")
    refused(lambda: bus.write("Operating_Mode", "gripper", OperatingMode.CURRENT_POSITION.value), "not available")
    bus.disable_torque("gripper")
    bus.write("Operating_Mode", "gripper", OperatingMode.CURRENT_POSITION.value)
    bus.write("Operating_Mode", "gripper", OperatingMode.POSITION.value)
    bus.disconnect(disable_torque=False)


def check_out_of_range_raises(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    refused(lambda: bus.write("Goal_Position", "shoulder", 100, normalize=False), "exceeds the limit")
    refused(lambda: bus.write("Return_Delay_Time", "shoulder", 255, normalize=False), "out of range")
    bus.disconnect(disable_torque=False)


def check_modes_of_models_without_current(follower: str, leader: str) -> None:
    bus = bus_of(leader, "leader")
    refused(lambda: bus.write("Operating_Mode", "gripper", OperatingMode.CURRENT_POSITION.value), "out of range")
    bus.write("Operating_Mode", "gripper", OperatingMode.PWM.value)
    bus.write("Operating_Mode", "gripper", OperatingMode.POSITION.value)
    bus.disconnect(disable_torque=False)


def check_configure_motors(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    bus.configure_motors(return_delay_time=5)
    assert set(bus.sync_read("Return_Delay_Time").values()) == {5}
    bus.configure_motors()
    assert set(bus.sync_read("Return_Delay_Time").values()) == {0}
    bus.disconnect(disable_torque=False)


def check_half_turn_homings(follower: str, leader: str) -> None:
    """LeRobot computes offsets for Present = Actual + Homing_Offset and must find every motor at half a turn."""
    bus = bus_of(leader, "leader")
    kept = bus.read_calibration()
    alone = [
        name for name in bus.motors if name not in ("shoulder", "elbow")
    ]  # a master's EEPROM writes move its shadow
    offsets = bus.set_half_turn_homings(alone)
    assert any(offset != 0 for offset in offsets.values())
    assert set(bus.sync_read("Present_Position", alone, normalize=False).values()) == {2047}
    restore(bus, kept)
    bus.disconnect(disable_torque=False)


def check_calibration_round_trip(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    kept = bus.read_calibration()
    assert (kept["shoulder"].drive_mode, kept["shoulder_shadow"].drive_mode) == (1, 0)
    assert (kept["shoulder"].range_min, kept["shoulder"].range_max) == (841, 2867)
    bus.reset_calibration()
    assert set(bus.sync_read("Max_Position_Limit", normalize=False).values()) == {4095}
    restore(bus, kept)
    assert bus.read_calibration() == kept
    bus.disconnect(disable_torque=False)


def check_normalised_positions(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    bus.calibration = bus.read_calibration()
    ticks = bus.sync_read("Present_Position", normalize=False)
    for name, value in bus.sync_read("Present_Position").items():
        low, high = bus.calibration[name].range_min, bus.calibration[name].range_max
        wanted = (min(max(ticks[name], low), high) - low) / (high - low) * 200 - 100
        assert abs(value - wanted) < 0.1, name
    bus.disconnect(disable_torque=False)


def check_setup_of_a_new_motor(follower: str, leader: str) -> None:
    """A servo under another id is found by its old one and renamed; its neighbours keep still."""
    bus = bus_of(follower)
    bus.write("ID", "gripper", 21)
    assert 21 in bus.broadcast_ping()
    bus.setup_motor("gripper", initial_baudrate=1_000_000, initial_id=21)
    assert sorted(bus.broadcast_ping()) == list(range(1, 10))
    bus.disconnect(disable_torque=False)


def check_baud_rate_4_000_000(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    for motor in reversed(bus.motors):
        bus.write("Baud_Rate", motor, 6, normalize=False)
    assert bus.broadcast_ping() is None
    bus.set_baudrate(4_000_000)
    assert sorted(bus.broadcast_ping()) == list(range(1, 10))
    assert set(bus.sync_read("Present_Temperature").values()) == {30}
    for motor in reversed(bus.motors):
        bus.write("Baud_Rate", motor, 3, normalize=False)
    bus.set_baudrate(1_000_000)
    assert sorted(bus.broadcast_ping()) == list(range(1, 10))
    bus.disconnect(disable_torque=False)


def check_a_silent_motor_raises(follower: str, leader: str) -> None:
    bus = bus_of(follower)
    bus.write("Baud_Rate", "gripper", 4, normalize=False)
    refused(lambda: bus.read("Present_Position", "gripper", normalize=False), "no status packet")
    refused(lambda: bus.sync_read("Present_Position", normalize=False), "no status packet")
    bus.set_baudrate(2_000_000)
    bus.write("Baud_Rate", "gripper", 3, normalize=False)
    bus.set_baudrate(1_000_000)
    bus.disconnect(disable_torque=False)


def check_hundred_cycles(follower: str, leader: str) -> None:
    """What a teleoperation loop does: state in three reads, goals in one write."""
    bus = bus_of(follower)
    bus.enable_torque()
    masters = [name for name in bus.motors if not name.endswith("_shadow")]
    goals = bus.sync_read("Present_Position", masters, normalize=False)
    for step in range(100):
        for name in ("Present_Position", "Present_Velocity", "Present_Current"):
            assert len(bus.sync_read(name, masters, normalize=False)) == 7
        bus.sync_write("Goal_Position", goals | {"waist": goals["waist"] + step % 50}, normalize=False)
    bus.disconnect()


def refused(action: Callable[[], object], words: str) -> None:
    try:
        action()
        said = "nothing"
    except (RuntimeError, ConnectionError) as error:
        said = str(error)
    assert words in said, said


def restore(bus: DynamixelMotorsBus, calibration: dict) -> None:
    """Masters first: what is written to them reaches their shadows too."""
    for shadow in (False, True):
        bus.write_calibration({n: c for n, c in calibration.items() if n.endswith("_shadow") == shadow}, cache=False)


def main() -> None:
    follower, leader, output = sys.argv[1:]
    outcome = {}
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            try:
                check(follower, leader)
                outcome[name] = ""
            except Exception:
                outcome[name] = traceback.format_exc()
    with open(output, "w") as file:
        json.dump(outcome, file)


main()
