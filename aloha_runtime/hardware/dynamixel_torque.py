"""Switching torque of a whole arm with a few block writes, each read back, between two cycles.

A tripped watchdog makes goals read-only, and a servo that gets torque runs to whatever goal it has. So the watchdog is
cleared first, then every goal becomes what `dynamixel_stance` says, then the watchdog is set, and torque comes last;
then the position is read again, since torque itself may change what it says. A servo that is as it should be is not
written to. Servos that are silent, in error or out of their range are left out and named; the others get their torque.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import Register, describe_hardware_error
from aloha_runtime.hardware.dynamixel_blocks import rebooting
from aloha_runtime.hardware.dynamixel_health import Health
from aloha_runtime.hardware.dynamixel_stance import (
    LIMIT_SLACK_TICKS,
    SAG_TICKS,
    STILL_TICKS,
    Hold,
    State,
    hold_driven,
    hold_limp,
    within,
)
from aloha_runtime.hardware.dynamixel_tables import ATTEMPTS, ServoTables, Wrong
from aloha_runtime.hardware.goal_memory import GoalMemory
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.hardware.steps import Steps
from aloha_runtime.robot import MA_PER_UNIT, RAD_PER_TICK, TICKS_PER_TURN, Role, Servo

WATCHDOG = 5
"""Bus_Watchdog: a servo stops by itself when it hears nothing for 100 ms."""
WATCHDOG_NS = WATCHDOG * registers.WATCHDOG_UNIT_MS * 1_000_000
STANDARD_P_GAIN = 800
"""Position gain of the kits (with I = 0); a controller used before may have left a soft one, which sags."""
PATIENCE_NS = 40_000_000
"""So long an exchange with an arm may last: eight cycles, well within the watchdog of servos that wait meanwhile."""
REST_LOOKS = 40
"""Looks of 8 ms, five times the lag of a joint under load."""
MOVED_TICKS = SAG_TICKS + round(0.02 / RAD_PER_TICK)
"""A joint further than this from where it was expected when it got torque has been moved, or was folded otherwise: more
than a sag and what a hand does between two packets."""


class Outcome(NamedTuple):
    """What came of a switch. `ticks`: by id of a master (of its shadow, where the master is silent), the goal that it
    holds, or its position where it has no torque. `silent`: ids that did not answer. `troubles`: what else is wrong."""

    ticks: Mapping[int, int]
    silent: Sequence[int]
    troubles: Sequence[str]
    certain: bool = True
    """Whether those that are `silent` are dead; False: answers come late, so that some of them may live."""
    lost: bool = False
    """Nothing was switched, because servos have lost what torque they had: their power was away."""


NO_ERROR = "the gripper reports no error, so it is not restarted"


@dataclass
class _Joint:
    """One joint that is to have torque: its servos that answer, those of them that can have it, and its goal."""

    servos: list[Servo]
    able: list[Servo] = field(default_factory=list)
    hold: Hold | None = None
    fresh: bool = False
    """Some servo gets its torque by this switch."""
    troubles: list[str] = field(default_factory=list)


class TorqueSwitch:
    """Torque of one arm. Steps raise PortLostError."""

    def __init__(
        self,
        port: SerialPort,
        role: Role,
        servos: Sequence[Servo],
        gripper_current_ma: float,
        lead_rad: float,
        patience_ns: int,
        goals: GoalMemory,
    ) -> None:
        """`lead_rad`: the most that a goal leads a joint that holds. `patience_ns`: how long an exchange may last.
        `goals`: what the masters were told last."""
        self._goals = goals
        self.turns: dict[int, int] = {}
        """Id of a master -> whole turns that a hand has turned it by, and that its position no longer tells."""
        self._lead_ticks = round(lead_rad / RAD_PER_TICK)
        self._servos = {servo.id: servo for servo in servos}
        self._all = list(self._servos)
        self._tables = ServoTables(port, self._all, patience_ns)
        self._master = {servo.id: servo.id if servo.shadow_of is None else servo.shadow_of for servo in servos}
        self._gripper = [servo.id for servo in servos if servo.shadow_of is None][-1]
        self._grips = role == "follower"
        self._held: dict[int, bool] = {}
        self._carrying: list[int] = []
        """Servos in current control."""
        self._ram: dict[Register, dict[int, int]] = {
            registers.PROFILE_ACCELERATION: dict.fromkeys(self._all, 0),
            registers.PROFILE_VELOCITY: dict.fromkeys(self._all, 0),
        }
        if role == "follower":
            self._ram[registers.POSITION_P_GAIN] = dict.fromkeys(self._all, STANDARD_P_GAIN)
            self._ram[registers.POSITION_I_GAIN] = dict.fromkeys(self._all, 0)
            self._ram[registers.GOAL_CURRENT] = {self._gripper: round(gripper_current_ma / MA_PER_UNIT)}

    def use(self, port: SerialPort) -> None:
        """Another port, after unplugging."""
        self._tables.port = port

    def hold(self) -> Steps[Outcome]:
        """Watchdog and RAM of every servo set, torque as it is: for an arm that another program may have left."""
        yield from self._tables.begin(())
        yield from self._come_to_rest()
        return (yield from self._switch({servo_id: state.torque for servo_id, state in self._tables.states.items()}))

    def switch(self, joints: bool, gripper: bool, silent: Iterable[int] = (), again: bool = False) -> Steps[Outcome]:
        """Torque of the joints (shadows included) and of the gripper. `silent`: servos that need not be asked. `again`:
        by an order that has been tried before, so that a servo which has lost its torque since stays without."""
        yield from self._tables.begin(silent)
        if again and (joints or gripper) and (lost := self._lost()):
            return lost
        yield from self._come_to_rest()
        troubles = yield from self._end_carrying()
        if not (joints or gripper):
            troubles += yield from self._tables.apply({registers.TORQUE_ENABLE: dict.fromkeys(self._all, 0)})
            return self._outcome(troubles)
        wanted = {servo_id: gripper if servo_id == self._gripper else joints for servo_id in self._all}
        return (yield from self._switch(wanted))

    def reset_gripper(self) -> Steps[Outcome]:
        """Restart the gripper's servo, where it reports an error, and give it the torque that the joints have."""
        yield from self._tables.begin(())
        state = self._tables.states.get(self._gripper)
        if state is None or not state[registers.HARDWARE_ERROR_STATUS]:
            return self._outcome((), [NO_ERROR])
        yield from rebooting(self._tables.port, self._gripper)
        yield from self._tables.begin(())
        wanted = {servo_id: state.torque for servo_id, state in self._tables.states.items()}
        wanted[self._gripper] = any(wanted.values())
        return (yield from self._switch(wanted))

    def carry(self, goal_currents: Mapping[int, int]) -> Steps[Outcome]:
        """Current control with these currents (Goal_Current by id of the master, obeyed by its shadow); torque off
        elsewhere. Nothing holds the arm while the modes are written: some milliseconds, in a person's hands."""
        yield from self._tables.begin(())
        self._carrying = [servo_id for servo_id in self._all if self._master[servo_id] in goal_currents]
        currents = {servo_id: goal_currents[self._master[servo_id]] for servo_id in self._carrying}
        for wanted in (
            {registers.TORQUE_ENABLE: dict.fromkeys(self._all, 0)},
            {registers.OPERATING_MODE: dict.fromkeys(self._carrying, registers.MODE_CURRENT)},
            {registers.GOAL_CURRENT: currents, registers.BUS_WATCHDOG: dict.fromkeys(self._all, WATCHDOG)},
            {registers.TORQUE_ENABLE: {servo_id: int(servo_id in currents) for servo_id in self._all}},
        ):
            troubles = yield from self._tables.apply(wanted)
            if troubles or self._tables.silent:
                break
        return self._outcome(troubles)

    def _come_to_rest(self) -> Steps[None]:
        """Wait until a joint whose watchdog has tripped has sagged to its end: then its drive tells its load."""
        for _ in range(REST_LOOKS):
            states = self._tables.states.values()
            if not any(state.torque and state.tripped and state[registers.PRESENT_VELOCITY] for state in states):
                break
            yield from self._tables.look()

    def _end_carrying(self) -> Steps[list[Wrong]]:
        """Back to position control, in which a servo can hold."""
        if not self._carrying:
            return []
        wrong = yield from self._tables.apply({registers.TORQUE_ENABLE: dict.fromkeys(self._carrying, 0)})
        wrong += yield from self._tables.apply(
            {registers.OPERATING_MODE: dict.fromkeys(self._carrying, registers.MODE_POSITION)}
        )
        states = self._tables.states
        self._carrying = [  # who is silent now is put right when it answers again
            servo_id
            for servo_id in self._carrying
            if servo_id not in states or states[servo_id][registers.OPERATING_MODE] != registers.MODE_POSITION
        ]
        return wrong

    def _lost(self) -> Outcome | None:
        """Servos that had torque after the last switch and have none now, though they report no error."""
        states, held = self._tables.states, self._held
        lost = [
            f"servo {servo_id} ({self._servos[servo_id].joint})"
            for servo_id, state in states.items()
            if held.get(servo_id) and not state.torque and not state[registers.HARDWARE_ERROR_STATUS]
        ]
        if not lost:
            return None
        why = f"{lost[0]} has lost its torque (a power cut?); `aloha arm`, when its power is steady"
        outcome = self._outcome((), [why])
        self._held = held
        return outcome._replace(lost=True)

    def _switch(self, wanted: Mapping[int, bool]) -> Steps[Outcome]:
        """Torque of the servos that answer as `wanted`; those that have it keep their goal."""
        if any(wanted.values()):
            yield from self._tables.look_at_eeprom()
        joints: dict[int, _Joint] = {}
        for servo_id in self._tables.states:
            if wanted.get(servo_id):
                joints.setdefault(self._master[servo_id], _Joint([])).servos.append(self._servos[servo_id])
        for joint in joints.values():
            joint.fresh = not all(self._tables.states[servo.id].torque for servo in joint.servos)
            self._decide(joint)
        wrong = yield from self._prepare(joints.values())
        spoilt = {servo_id for servo_id, _, _, _ in wrong}
        sound = [joint for joint in joints.values() if not any(servo.id in spoilt for servo in joint.able)]
        wrong += yield from self._give(sound, [servo_id for servo_id in self._all if not wanted.get(servo_id)])
        yield from self._settle(sound)
        return self._outcome(wrong, [trouble for joint in joints.values() for trouble in joint.troubles])

    def _decide(self, joint: _Joint) -> None:
        """Set the goal that a joint is to hold. Of a pair, a servo with torque knows; without, the master."""
        here = [servo for servo in joint.servos if servo.id in self._tables.states]  # others died since
        able = [servo for servo in here if not self._shut_down(servo.id) and not self._deaf(servo.id)]
        driven = [servo for servo in able if self._tables.states[servo.id].torque]
        joint.able, joint.hold, joint.troubles = able, None, []
        for servo in here:
            if self._shut_down(servo.id):
                joint.troubles.append(self._not_taken(servo.id, registers.TORQUE_ENABLE, 1, 0))
            elif servo not in able:
                joint.troubles.append(
                    f"servo {servo.id} ({servo.joint}) has torque in a mode in which it holds no position; "
                    "support the arm, switch its power off and on, then start again"
                )
        if driven:
            joint.hold = self._hold_driven(driven[0])
        elif able:
            joint.hold = hold_limp(able[0], self._tables.states[able[0].id])
            for servo in able:
                own = hold_limp(servo, self._tables.states[servo.id])
                if own.outside or abs(own.expected - joint.hold.expected) > LIMIT_SLACK_TICKS:
                    tick = self._tables.states[servo.id].present
                    joint.troubles.append(
                        f"servo {servo.id} ({servo.joint}) is at tick {tick}, outside its limits {servo.min_tick}.."
                        f"{servo.max_tick}; move that joint by hand into its range, then `aloha arm`"
                    )
                    joint.able, joint.hold = [], None
                    return

    def _hold_driven(self, servo: Servo) -> Hold:
        state, master = self._tables.states[servo.id], self._master[servo.id]
        p_gain = self._ram.get(registers.POSITION_P_GAIN, {}).get(servo.id, state[registers.POSITION_P_GAIN])
        known = [] if (tick := self._goals.get(master)) is None else [tick]
        grips = self._grips and servo.id == self._gripper
        return hold_driven(servo, state, p_gain, self._lead_ticks, known, grips)

    def _shut_down(self, servo_id: int) -> bool:
        """An error has switched its torque off; only a reboot brings it back."""
        state = self._tables.states[servo_id]
        return bool(state[registers.HARDWARE_ERROR_STATUS]) and not state.torque

    def _deaf(self, servo_id: int) -> bool:
        """It has torque, and goals mean nothing to it."""
        state = self._tables.states[servo_id]
        return state.torque and state[registers.OPERATING_MODE] not in registers.POSITION_MODES

    def _prepare(self, joints: Iterable[_Joint]) -> Steps[list[Wrong]]:
        """Goals, RAM and watchdog of every servo that answers, as they must be before torque goes on."""
        held = [(joint.able, joint.hold.goal) for joint in joints if joint.hold]
        told = {servo.id: goal for able, goal in held for servo in able[:1]}  # a shadow hears what its master is told
        watched = dict.fromkeys(self._all, WATCHDOG)
        wrong = yield from self._tables.apply(
            {registers.GOAL_POSITION: told, **self._ram, registers.BUS_WATCHDOG: watched}
        )
        goals = {servo.id: goal for able, goal in held for servo in able}
        return [*wrong, *(yield from self._tables.apply({registers.GOAL_POSITION: goals}))]

    def _give(self, joints: Sequence[_Joint], off: Iterable[int]) -> Steps[list[Wrong]]:
        """Torque on and off. A hand may move a joint until then, so its goal is renewed with the same packets."""
        wrong: list[Wrong] = []
        for _ in range(ATTEMPTS):
            goals: dict[int, int] = {}
            torque = {servo_id: 0 for servo_id in off if servo_id in self._tables.states}
            for joint in joints:
                if joint.fresh and not any(self._tables.states[servo.id].torque for servo in self._answering(joint)):
                    self._decide(joint)
                    goals |= {servo.id: joint.hold.goal for servo in joint.able[:1] if joint.hold}
                torque |= {servo.id: 1 for servo in self._answering(joint) if joint.hold}
            wrong = self._tables.wrong({registers.TORQUE_ENABLE: torque})
            if not wrong:
                break
            torque = {servo_id: value for servo_id, _, value, _ in wrong}
            goals = {servo_id: goal for servo_id, goal in goals.items() if self._tables.states[servo_id].goal != goal}
            before = self._tables.states
            yield from self._tables.write([(registers.GOAL_POSITION, goals), (registers.TORQUE_ENABLE, torque)])
            self._count_turns(before)
            wrong = self._tables.wrong({registers.TORQUE_ENABLE: torque})
        return wrong

    def _answering(self, joint: _Joint) -> list[Servo]:
        return [servo for servo in joint.able if servo.id in self._tables.states]

    def _count_turns(self, before: Mapping[int, State]) -> None:
        """Remember the turns that a master's position forgot when it got its torque."""
        for servo_id, state in self._tables.states.items():
            if self._master[servo_id] == servo_id and state.torque and not before[servo_id].torque:
                lost = round((before[servo_id].present - state.present) / TICKS_PER_TURN)
                self.turns[servo_id] = self.turns.get(servo_id, 0) + lost

    def _settle(self, joints: Iterable[_Joint]) -> Steps[None]:
        """What got torque is held where it is, should that be elsewhere than was expected; pairs have one goal."""
        goals: dict[int, int] = {}
        off: dict[int, int] = {}
        for joint in joints:
            servo, hold = next(iter(self._answering(joint)), None), joint.hold
            if not joint.fresh or servo is None or hold is None:
                continue
            state = self._tables.states[servo.id]
            if not state.torque:
                continue
            if abs(state.present - hold.expected) <= MOVED_TICKS:
                apart = [s.id for s in self._answering(joint) if abs(self._goal(s) - state.goal) > STILL_TICKS]
                goals |= dict.fromkeys(apart, state.goal)
                continue
            goal = within(servo, state.present)
            if abs(goal - state.present) <= LIMIT_SLACK_TICKS:
                goals |= dict.fromkeys((other.id for other in joint.able), goal)
                continue
            off |= dict.fromkeys((other.id for other in joint.able), 0)
            joint.troubles.append(
                f"servo {servo.id} ({servo.joint}) stood at tick {hold.expected} without torque and says "
                f"{state.present} with it; see its Homing_Offset with `aloha doctor`, then `aloha arm`"
            )
        if goals or off:
            yield from self._tables.apply({registers.TORQUE_ENABLE: off, registers.GOAL_POSITION: goals})

    def _goal(self, servo: Servo) -> int:
        return self._tables.states[servo.id].goal

    def _outcome(self, wrong: Iterable[Wrong], troubles: Iterable[str] = ()) -> Outcome:
        """What the servos hold now, and what went wrong."""
        ticks: dict[int, int] = {}
        goals: dict[int, int] = {}
        for servo_id, state in reversed(self._tables.states.items()):  # a master counts more than its shadow
            master = self._master[servo_id]
            if state.torque:
                ticks[master] = goals[master] = state.goal
            else:
                ticks.setdefault(master, state.present)
        self._goals.keep(goals)
        self._held = {servo_id: state.torque for servo_id, state in self._tables.states.items()}
        told = [*troubles, *(self._not_taken(*item) for item in wrong)]
        return Outcome(ticks, self._tables.silent, told, self._tables.certain)

    def complaint(self, heard: Mapping[int, Health], since_ns: int) -> str:
        """Which servo has lost what `switch` gave it, by what it said after `since_ns`; empty when all is well."""
        for servo_id, health in heard.items():
            who = f"servo {servo_id} ({self._servos[servo_id].joint})"
            if health.stamp_ns < since_ns or health.hardware_error:
                continue  # an error is reported as such, and is why torque is off
            if self._held.get(servo_id) and not health.torque:
                return f"{who} has lost its torque (a power cut?); `aloha arm`, when its power is steady"
            if health.watchdog != WATCHDOG:
                what = "a tripped" if health.watchdog < 0 else "lost its"
                return f"{who} has {what} watchdog ({health.watchdog}); `aloha arm` sets it again"
        return ""

    def _not_taken(self, servo_id: int, register: Register, value: int, found: int) -> str:
        bits = self._tables.states[servo_id][registers.HARDWARE_ERROR_STATUS] if servo_id in self._tables.states else 0
        why = f"it reports {describe_hardware_error(bits)}" if bits else "it reports no error"
        return (
            f"servo {servo_id} ({self._servos[servo_id].joint}) does not take {register.name} {value}: it stays "
            f"{found}, and {why}; support the arm, switch its power off and on, then start again"
        )
