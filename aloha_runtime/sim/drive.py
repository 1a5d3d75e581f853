"""From goal registers to motors: what each joint of an emulated arm is told at every instant.

Position modes follow Goal_Position along the profile registers (0: at once), velocity mode moves the goal, current
mode pushes; in PWM mode a joint counts as free. A master speaks for its joint, its shadow only while the master has no
torque.
"""

import math
from collections.abc import Sequence

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import HardwareErrorBit
from aloha_runtime.robot import JOINTS, MA_PER_UNIT
from aloha_runtime.sim.firmware import Firmware
from aloha_runtime.sim.servo import STALL_MA, STANDARD_LOOPS, Loop, Plant

PROFILE_PERIOD_NS = 5_000_000
"""How often a profile moves on when no packet comes."""
FIGHT_RAD = 0.05
"""A shadow whose goal is this far from its master's pulls against it ..."""
FIGHT_NS = 2_000_000_000
"""... and after this long both report overload."""
LOOP_HZ = 1000
"""How often a servo adds its error to the integral; an assumption, no source says."""
LEAST_GAIN = 0.01
"""Share of the standard P gain that a joint has at least: with none at all it would be free."""
_POSITIONED = (*reg.POSITION_MODES, reg.MODE_VELOCITY)


class _Joint:
    """One joint: its master, perhaps a shadow, and the profile between goal register and motor."""

    def __init__(self, master: Firmware, shadow: Firmware | None) -> None:
        self.master = master
        self.shadow = shadow
        self.motors = (master,) if shadow is None else (master, shadow)
        self.angle = self.speed = 0.0
        self.goal = self.cruise = math.inf
        self.source = master
        """The servo whose goal moves the joint."""
        self.direct = True
        """No profile and not velocity mode: the goal register is what the motor is told."""
        self.torque = False
        self.push_ma = 0.0
        """What the motors push with in current mode, both of a pair together."""
        self.limit_ma = STALL_MA
        self.loop = Loop()
        self.fighting_since_ns: int | None = None

    def leader(self) -> Firmware:
        """The servo whose goal moves the joint."""
        if self.shadow is not None and self.shadow.torque and not self.master.torque:
            return self.shadow
        return self.master

    def update(self, present: float) -> None:
        """Take over torque and limits after a write."""
        self.source = servo = self.leader()
        self.direct = servo.mode != reg.MODE_VELOCITY and servo.direct
        torque = servo.torque and servo.mode in _POSITIONED
        if torque and not self.torque:
            self.angle, self.speed = present, 0.0
        self.torque = torque
        motors = self.motors
        self.push_ma = sum(motor.push_ma for motor in motors)
        if self.direct or not torque:
            for motor in motors:
                motor.followed = None
        self.limit_ma = STALL_MA
        if servo.mode == reg.MODE_CURRENT_POSITION:
            self.limit_ma = abs(servo.get(reg.GOAL_CURRENT)) * MA_PER_UNIT
        self.loop = _loop(servo, motors)

    def move(self, step_s: float) -> bool:
        """Move the motor's goal on along the profile; False when it has arrived."""
        servo = self.source
        if servo.mode == reg.MODE_VELOCITY:
            speed = servo.get(reg.GOAL_VELOCITY) / servo.units_per_rad_s
            self.angle += speed * step_s
            return speed != 0
        goal, growth = servo.goal_rad, servo.acceleration
        gap = goal - self.angle
        if goal != self.goal:
            self.goal, self.cruise = goal, servo.cruise(abs(gap))
        most = self.cruise
        if growth == math.inf and abs(gap) <= most * step_s:
            self.angle, self.speed = goal, 0.0
            return False
        if most == math.inf:
            most = math.sqrt(growth * abs(gap)) + growth * step_s
        if growth < math.inf:  # no faster than can still be braked away
            most = min(most, math.sqrt(2 * growth * abs(gap)), abs(self.speed) + growth * step_s)
        step = min(abs(gap), most * step_s)
        self.angle += math.copysign(step, gap)
        self.speed = step / step_s if step_s else self.speed
        return abs(gap) > step


def _loop(source: Firmware, motors: Sequence[Firmware]) -> Loop:
    """Position control of a joint: motors of a pair that have no torque do not help to hold it.

    E-manual, items 80 to 84: output = P/128 * error + I/65536 * sum of errors, in PWM units, at most Goal_PWM.
    """
    if source.mode not in reg.POSITION_MODES:
        return Loop()
    holding = [motor for motor in motors if motor.torque and motor.mode in reg.POSITION_MODES] or [source]
    share = sum(motor.get(reg.POSITION_P_GAIN) for motor in holding) / len(motors) / reg.POSITION_P_GAIN.initial
    gain, wound = source.get(reg.POSITION_P_GAIN) / 128, source.get(reg.POSITION_I_GAIN) / 65536
    output = abs(source.get(reg.GOAL_PWM)) / reg.GOAL_PWM.high
    return Loop(max(LEAST_GAIN, share), LOOP_HZ * wound / gain if gain else 0.0, output)


class Drive:
    """All joints of one arm, between the control tables and the plant."""

    def __init__(self, servos: Sequence[Firmware], plant: Plant) -> None:
        self.plant = plant
        self.watchdog_ns = 0
        """Shortest Bus_Watchdog of the servos with torque; 0: none."""
        shadows = {servo.servo.shadow_of: servo for servo in servos}
        masters = [servo for servo in servos if servo.servo.shadow_of is None]
        self._servos = servos
        self._joints = [_Joint(master, shadows.get(master.servo.id)) for master in masters]
        if [joint.master.servo.joint for joint in self._joints] != list(JOINTS):
            raise ValueError("a chain needs one master per joint, in the order of robot.JOINTS")
        self._pairs = [joint for joint in self._joints if joint.shadow]
        self._moved: list[_Joint] = []
        self._torque = [False] * len(self._joints)
        self._limits_ma = [STALL_MA] * len(self._joints)
        self._push_ma = [0.0] * len(self._joints)
        self._loops: Sequence[Loop] = STANDARD_LOOPS
        self._pairs_driven = False
        self._time_ns: int | None = None
        self._settings_changed = self._goals_changed = False

    def changed(self) -> None:
        """Something other than goals was written: torque, modes, limits, profile."""
        self._settings_changed = True

    def goals_changed(self) -> None:
        """Goal positions were written."""
        self._goals_changed = True

    def advance(self, now_ns: int) -> int | None:
        """Command the plant when there is something new; returns when to call again, None: not before a packet."""
        if self._time_ns is None:
            self._time_ns = now_ns
        if not (self._settings_changed or self._goals_changed):
            self._time_ns = now_ns
            return None
        if self._settings_changed:
            self._take_settings(now_ns)
        step_s, self._time_ns = (now_ns - self._time_ns) * 1e-9, now_ns
        moving = False
        for joint in self._moved:
            if joint.direct:
                source = joint.source
                joint.angle = (source.goal_tick - source.zero_tick) / source.ticks_per_rad
            else:
                before = joint.angle
                ongoing = joint.move(step_s)
                moving |= ongoing
                if step_s > 0 or not ongoing:
                    followed = (joint.angle, (joint.angle - before) / step_s if ongoing else 0.0)
                    for motor in joint.motors:
                        motor.followed, motor.ongoing = followed, ongoing
        angles = [joint.angle for joint in self._joints]
        self.plant.command(now_ns, angles, self._torque, self._limits_ma, self._push_ma, self._loops)
        fighting = self._pairs_driven and self._judge_pairs(now_ns)
        self._goals_changed = moving or fighting
        return now_ns + PROFILE_PERIOD_NS if self._goals_changed else None

    def _take_settings(self, now_ns: int) -> None:
        self._settings_changed = False
        angles = self.plant.read(now_ns).angles
        for joint, angle in zip(self._joints, angles, strict=True):
            joint.update(angle)
        self._moved = [joint for joint in self._joints if joint.torque]
        self._torque = [joint.torque for joint in self._joints]
        self._limits_ma = [joint.limit_ma for joint in self._joints]
        self._push_ma = [joint.push_ma for joint in self._joints]
        self._loops = [joint.loop for joint in self._joints]
        self._pairs_driven = any(joint.torque for joint in self._pairs)
        limits = [servo.watchdog for servo in self._servos if servo.torque and servo.watchdog > 0]
        self.watchdog_ns = min(limits, default=0) * reg.WATCHDOG_UNIT_MS * 1_000_000

    def _judge_pairs(self, now_ns: int) -> bool:
        """Whether a master and its shadow pull against each other; after a while both report overload."""
        fighting = False
        for joint in self._pairs:
            master, shadow = joint.master, joint.shadow
            assert shadow is not None
            if not (master.torque and shadow.torque) or abs(master.goal_rad - shadow.goal_rad) < FIGHT_RAD:
                joint.fighting_since_ns = None
                continue
            fighting = True
            if joint.fighting_since_ns is None:
                joint.fighting_since_ns = now_ns
            elif now_ns - joint.fighting_since_ns > FIGHT_NS:
                for servo in (master, shadow):
                    servo.raise_error(HardwareErrorBit.OVERLOAD)
                self._settings_changed = True
        return fighting
