"""The wire of both follower arms without a port: goals as the driver encodes them, readings, and a monitor on each."""

import struct

from fastcrc import crc16

from aloha_runtime.control.limits import default_limits
from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.hardware.dynamixel_frames import GoalWrite, StateRead
from aloha_runtime.hardware.dynamixel_units import ArmUnits
from aloha_runtime.robot import GRIPPER_INDEX, KITS, RAD_PER_TICK, SERVOS, SIDE_SLICE, SIDES, Vector, ticks_to_rad
from aloha_runtime.sim.goal_track import envelope
from aloha_runtime.sim.monitor import Monitor, Report

GRIPPER = KITS["aloha"].follower_gripper


class _Arm:
    """One chain: the driver's packets in, the monitor's account out."""

    def __init__(self, side: int) -> None:
        masters = [servo for servo in SERVOS["follower"] if servo.shadow_of is None]
        ids = [servo.id for servo in masters]
        self.units = ArmUnits("follower", masters)
        self.monitor = Monitor(envelope("follower", default_limits(), GRIPPER, SIDES[side]))
        self.goals = GoalWrite(ids)
        self.question = StateRead(ids).question(sync=False, block=0)
        self.everyone = [servo.id for servo in SERVOS["follower"]]
        self._ids = ids
        self._reply = struct.Struct("<" + "BB6xi2x" * len(ids))

    def reply(self, ticks: list[int]) -> bytes:
        """A Fast Sync Read's answer with these positions."""
        numbers = [number for servo_id, tick in zip(self._ids, ticks, strict=True) for number in (0, servo_id, tick)]
        body = self._reply.pack(*numbers)[:-2]
        head = packets.HEADER + bytes((packets.BROADCAST_ID,)) + (len(body) + 3).to_bytes(2, "little") + b"\x55"
        return head + body + crc16.umts(head + body).to_bytes(2, "little")


class Wire:
    """Both arms."""

    def __init__(self) -> None:
        self._arms = [_Arm(0), _Arm(1)]

    def goals(self, goal: Vector, now_ns: int) -> bool:
        """Send goals (14,); False when an arm's driver would not."""
        sent = True
        for part, arm in zip(SIDE_SLICE.values(), self._arms, strict=True):
            angles = goal[part].copy()
            angles[-1] = GRIPPER.angle_from_action(float(angles[-1]))
            ticks = arm.units.ticks(angles)
            sent = sent and ticks is not None
            packet = b"" if ticks is None else arm.goals.packet(ticks)
            arm.monitor.host(packet + arm.question, now_ns)
        return sent

    def see(self, position: Vector, now_ns: int) -> Vector:
        """Joints at (14,), action convention, as a reading on the wire; returns what the driver makes of it."""
        seen = position.copy()
        for part, arm in zip(SIDE_SLICE.values(), self._arms, strict=True):
            angles = seen[part]
            angles[-1] = GRIPPER.angle_from_action(float(angles[-1]))
            ticks = [round(angle / RAD_PER_TICK) + 2048 for angle in angles.tolist()]
            angles[:] = [ticks_to_rad(tick) for tick in ticks]
            arm.monitor.host(arm.question, now_ns)
            arm.monitor.servo(arm.reply(ticks), now_ns)
        for index in GRIPPER_INDEX:
            seen[index] = GRIPPER.action_from_angle(float(seen[index]))
        return seen

    def torque(self, on: bool, now_ns: int) -> None:
        """Torque off, then perhaps on, as a switch does that first puts every goal where its joint is."""
        for arm in self._arms:
            for value in (b"\0", b"\1")[: 1 + on]:
                blocks = [(servo_id, value) for servo_id in arm.everyone]
                arm.monitor.host(packets.sync_write(registers.TORQUE_ENABLE.address, 1, blocks), now_ns)

    def reports(self) -> list[Report]:
        """What the monitors saw."""
        return [arm.monitor.report() for arm in self._arms]
