"""The independent goal monitor: reads the bytes on the wire of one arm and records every goal outside the envelope.

It knows nothing of the gate that made the goals, and shares no code with driver and servos but the names of joints and
a library's CRC. The envelope is that of `control.limits`, judged on goals as servos get them: rounded to ticks, stamped
when they arrive. Rounding is worth a tick in a difference; `jitter_s` is how far a stamp may be from the instant for
which the goal was computed (0 in virtual time).

Of a servo with torque it judges each new goal: `position` (the limits), `lead` (distance from where the servo was last
seen), `velocity` and `acceleration` (this not while, or shortly after, a goal is so far away that the servo gives all
it has); `mode`, and `moved in error` of an arm in error. Without torque it judges none.
While torque is switched on (`torque_watch`) it judges the goal that is in the register, also one written long before:

- `leap at torque`: at the first position that the servo reports afterwards, the goal is further away than the lead; and
  `position` of that goal. A goal computed before the position fell back into one turn is a leap of a turn;
- `moved at torque`: from the switch until the first goal behind that position, a goal is more than 0.01 rad (of a
  gripper: what its acceleration allows in 15 ms) from the one that was in the register at the switch or, where none can
  be known, from the first one written. Of a servo that had torque: the first goal, from the one at which it had stood,
  so that an arm which each re-arming lets down is seen.

A servo loses its torque by a packet, or when it says so itself, as after a power cut: then its goal is unknown, too. A
goal that a servo reports counts like one that was written to it: after a power cut or a trip it has put its own there.
"""

from collections import deque
from collections.abc import Mapping

import msgspec

from aloha_runtime.sim.goal_track import RAD_PER_TICK, Bounds, GoalTrack
from aloha_runtime.sim.wire import Host, Tap, reported

GOAL, PRESENT, TORQUE, MODE, WATCHDOG = 116, 132, 64, 11, 98
WATCHDOG_UNIT_NS = 20_000_000
POSITION_MODES_ALLOWED = (3, 5)
"""Position control and current-based position control; extended position ignores the limits."""
SPAN_NS = 50_000_000
"""Speeds are judged over this and over twice this, besides every single step: rounding hides little of 50 ms."""
LEAD_MARGIN_RAD = 0.02
"""The gate measures the lead against a reading up to two cycles old."""
FULL_DRIVE_RAD, FREED_NS = 0.217, 100_000_000
"""A goal this far from its joint drives it no harder than one at that distance; for so long after it the goal may gain
speed quickly."""
BATCH, MOST_HEARD = 24, 200
"""Chunks judged together, eight cycles or more: the judging costs a fifth of what it costs chunk by chunk, because the
processor's caches then hold it. Stamps are those of the arrival."""
STOP_TICKS = 2
"""A goal this near the arm is a stop, which may come as suddenly as it likes: a reading is up to a cycle old."""
ERROR_GRACE_NS = 40_000_000
"""Goals must stand still this long after a servo reported an error."""
KEPT = 100
"""Offences kept in full; all are counted."""
LATELY = 4000
"""Goals and sightings that are remembered one by one: two seconds of nine servos at 200 Hz."""
_ALERT = 0x80
_EVERYBODY = 0xFE


class Offence(msgspec.Struct, frozen=True):
    """One goal outside the envelope. `value` and `bound` are in ticks and seconds; `kind` names the rule."""

    stamp_ns: int
    servo: int
    joint: str
    kind: str
    value: float
    bound: float
    goal: int


class Report(msgspec.Struct):
    """The monitor's account. Times are those of the last goal that differed from the one before, by servo id."""

    goals: int = 0
    packets: int = 0
    counts: dict[str, int] = {}
    offences: list[Offence] = []
    last_goal_ns: dict[int, int] = {}
    last_change_ns: dict[int, int] = {}
    last_goal: dict[int, int] = {}
    present: dict[int, int] = {}
    worst: dict[str, float] = {}
    """Largest share of its bound that a goal inside the envelope used, by rule. Of `position`: ticks beyond the
    range, of which one is rounding."""
    first_error_ns: int = 0
    """When a servo first reported an error (0: none)."""


class Wire(msgspec.Struct):
    """What went over the wire lately, oldest first: (stamp_ns, servo id, ticks)."""

    goals: list[tuple[int, int, int]] = []
    presents: list[tuple[int, int, int]] = []


class Monitor:
    """Feed it both directions of the wire: `host` and `servo`."""

    def __init__(self, bounds: Mapping[int, Bounds], jitter_s: float = 0.0) -> None:
        self._jitter_s = jitter_s
        self._host, self._servo = Tap(), Tap()
        self._reading = Host()
        self._heard: list[tuple[bool, bytes, int]] = []
        self._alerts: dict[int, int] = {}
        self._tracks = {servo: GoalTrack(bound) for servo, bound in bounds.items()}
        self._goals: deque[tuple[int, int, int]] = deque(maxlen=LATELY)
        self._presents: deque[tuple[int, int, int]] = deque(maxlen=LATELY)
        self._host_ns = 0
        """When the host last sent a packet."""
        self.reset()

    def reset(self) -> None:
        """Forget offences and counts; what is known of the servos (torque, mode, goals) stays."""
        self._judge_heard()
        self._report = Report()
        self._kept: deque[Offence] = deque(maxlen=KEPT)

    def report(self) -> Report:
        """The account so far."""
        self._judge_heard()
        self._report.offences = list(self._kept)
        self._report.present = {key: track.presents[-1] for key, track in self._tracks.items() if track.presents}
        return self._report

    def wire(self, since_ns: int) -> Wire:
        """Goals and positions on the wire from an instant on, of the last two seconds."""
        self._judge_heard()
        goals, presents = ([item for item in kept if item[0] >= since_ns] for kept in (self._goals, self._presents))
        return Wire(goals, presents)

    def host(self, chunk: bytes, stamp_ns: int) -> None:
        """Bytes that the host sent, when they arrived."""
        self._heard.append((True, chunk, stamp_ns))
        if len(self._heard) >= MOST_HEARD:
            self._judge_heard()

    def servo(self, chunk: bytes, stamp_ns: int) -> None:
        """Bytes that the servos sent. Now and then all that was heard is judged: now, because the host is busy next."""
        self._heard.append((False, chunk, stamp_ns))
        if len(self._heard) >= BATCH:
            self._judge_heard()

    def _judge_heard(self) -> None:
        heard, self._heard = self._heard, []
        for from_host, chunk, stamp_ns in heard:
            if from_host:
                self._take_host(chunk, stamp_ns)
            else:
                self._take_servo(chunk, stamp_ns)

    def _take_host(self, chunk: bytes, stamp_ns: int) -> None:
        for frame in self._host.frames(chunk):
            self._report.packets += 1
            self._notice_silence(stamp_ns)
            for servo, address, data in self._reading.writes(frame):
                if address == GOAL and len(data) == 4 and servo in self._tracks:
                    self._goal(servo, self._tracks[servo], int.from_bytes(data, "little", signed=True), stamp_ns)
                else:
                    self._take(servo, address, data, stamp_ns)
            if self._reading.rebooted:
                self._forget_torque()

    def _take_servo(self, chunk: bytes, stamp_ns: int) -> None:
        asked = self._reading.asked
        for frame in self._servo.frames(chunk):
            for servo, error, data in reported(frame, asked, self._reading.asked_ids):
                if servo not in self._tracks:
                    continue
                if error & _ALERT or servo in self._alerts:
                    self._note_alert(servo, bool(error & _ALERT), stamp_ns)
                if asked is None or len(data) != asked[1]:
                    continue
                self._take_state(self._tracks[servo], data, asked, stamp_ns)
                at = PRESENT - asked[0]
                if 0 <= at <= asked[1] - 4:
                    tick = int.from_bytes(data[at : at + 4], "little", signed=True)
                    self._tracks[servo].presents.append(tick)
                    self._presents.append((stamp_ns, servo, tick))
                    if self._tracks[servo].switch.unseen:
                        self._judge_switch(servo, self._tracks[servo], stamp_ns)

    def _take_state(self, track: GoalTrack, data: bytes, asked: tuple[int, int], stamp_ns: int) -> None:
        """What a servo says of its torque and of its goal, where that was asked."""
        at = TORQUE - asked[0]
        if 0 <= at < asked[1] and not data[at] and track.torque:
            track.lose_torque()
        at = GOAL - asked[0]
        if 0 <= at <= asked[1] - 4:
            track.switch.learn(stamp_ns, int.from_bytes(data[at : at + 4], "little", signed=True))

    def _note_alert(self, servo: int, alert: bool, stamp_ns: int) -> None:
        if not alert:
            self._alerts.pop(servo, None)
        elif servo not in self._alerts:
            self._alerts[servo] = stamp_ns
            self._report.first_error_ns = self._report.first_error_ns or stamp_ns

    def _notice_silence(self, stamp_ns: int) -> None:
        """A servo whose watchdog has tripped in a silence may have replaced its goal."""
        quiet_ns, self._host_ns = stamp_ns - self._host_ns, stamp_ns
        if quiet_ns <= WATCHDOG_UNIT_NS:
            return
        for track in self._tracks.values():
            if track.torque and 0 < track.watchdog * WATCHDOG_UNIT_NS < quiet_ns:
                track.switch.forget()

    def _forget_torque(self) -> None:
        for servo in self._reading.rebooted:
            for key, track in self._tracks.items():
                if servo in (key, _EVERYBODY):
                    track.lose_torque()
        self._reading.rebooted.clear()

    def _take(self, servo: int, address: int, data: bytes, stamp_ns: int) -> None:
        """A write of whatever block, to one servo or to all."""
        end = address + len(data)
        for key in self._tracks if servo == _EVERYBODY else (servo,):
            track = self._tracks.get(key)
            if track is None:
                continue
            if address <= MODE < end:
                track.mode = data[MODE - address]
            if address <= TORQUE < end:
                self._switch(track, bool(data[TORQUE - address]), stamp_ns)
            if address <= WATCHDOG < end:
                track.watchdog = data[WATCHDOG - address]
            if address <= GOAL and end >= GOAL + 4:
                at = GOAL - address
                self._goal(key, track, int.from_bytes(data[at : at + 4], "little", signed=True), stamp_ns)
            elif address < GOAL + 4 and end > GOAL:
                self._offend(key, track, "part of a goal", stamp_ns, address, GOAL, 0)

    def _switch(self, track: GoalTrack, on: bool, stamp_ns: int) -> None:
        if on:
            if not track.torque:
                track.restart()
                track.turn()
            track.switch.on(stamp_ns, not track.torque)
        else:
            track.switch.off()
        track.torque = on

    def _judge_switch(self, servo: int, track: GoalTrack, stamp_ns: int) -> None:
        """The goal in the register against the first position behind the switch."""
        track.switch.unseen = False
        tick, bound = track.switch.goal, track.bounds.lead + LEAD_MARGIN_RAD / RAD_PER_TICK
        if tick is None:
            return
        away = abs(tick - track.presents[-1])
        if away > bound:
            self._offend(servo, track, "leap at torque", stamp_ns, away, bound, tick)
        else:
            self._note("leap at torque", away, bound)
        if away > STOP_TICKS:
            self._judge_position(servo, track, None, stamp_ns, tick)

    def _goal(self, servo: int, track: GoalTrack, tick: int, stamp_ns: int) -> None:
        report = self._report
        report.goals += 1
        self._goals.append((stamp_ns, servo, tick))
        report.last_goal_ns[servo] = stamp_ns
        moved = report.last_goal.get(servo) != tick
        if moved:
            report.last_goal[servo] = tick
            report.last_change_ns[servo] = stamp_ns
        if track.mode not in POSITION_MODES_ALLOWED:
            self._offend(servo, track, "mode", stamp_ns, track.mode, POSITION_MODES_ALLOWED[0], tick)
        if moved and self._alerts and stamp_ns - min(self._alerts.values()) > ERROR_GRACE_NS:
            self._offend(servo, track, "moved in error", stamp_ns, tick, tick, tick)
        away, most = track.switch.write(stamp_ns, tick), track.bounds.first_step + 1
        if not track.torque:
            return  # without torque a goal moves nothing
        if away > most:
            self._offend(servo, track, "moved at torque", stamp_ns, away, most, tick)
        last = track.last()
        if moved or last is None:
            self._judge_position(servo, track, last, stamp_ns, tick)
            if track.switch.unseen:
                self._judge_unseen(servo, track, stamp_ns, tick)
            else:
                self._judge_lead(servo, track, stamp_ns, tick)
        track.add(stamp_ns, tick)
        if moved and last is not None:
            self._judge_speed(servo, track, last, stamp_ns, tick)

    def _judge_position(
        self, servo: int, track: GoalTrack, last: tuple[int, int] | None, stamp_ns: int, tick: int
    ) -> None:
        """A servo that stands outside its limits may be held there and brought back, but not led further out."""
        bounds = track.bounds
        if bounds.low - 1 <= tick <= bounds.high + 1:
            self._note("position", max(bounds.low - tick, tick - bounds.high), 1)
            return
        stands = [*track.presents, *track.turned[:2], *(last[1:] if last else ())]
        if not min([bounds.low, *stands]) <= tick <= max([bounds.high, *stands]):
            nearest = bounds.low if tick < bounds.low else bounds.high
            self._offend(servo, track, "position", stamp_ns, tick, nearest, tick)

    def _judge_lead(self, servo: int, track: GoalTrack, stamp_ns: int, tick: int) -> None:
        """A goal further from the arm than the lead may stand or come back, but not move away."""
        bound = track.bounds.lead + LEAD_MARGIN_RAD / RAD_PER_TICK
        if not track.presents:
            return
        nearest = abs(tick - track.presents[-1])
        if nearest >= (FULL_DRIVE_RAD - LEAD_MARGIN_RAD) / RAD_PER_TICK:
            track.far_ns = stamp_ns
        if nearest <= bound:
            self._note("lead", nearest, bound)
            return
        if track.runs_away(tick, bound):
            self._offend(servo, track, "lead", stamp_ns, nearest, bound, tick)

    def _judge_unseen(self, servo: int, track: GoalTrack, stamp_ns: int, tick: int) -> None:
        """A goal behind the switch, before the servo has said where it is: by whichever turn it may be in."""
        bound = track.bounds.lead + LEAD_MARGIN_RAD / RAD_PER_TICK
        away = min([abs(tick - present) for present in track.turned], default=0)
        if away > bound:
            self._offend(servo, track, "lead", stamp_ns, away, bound, tick)

    def _judge_speed(self, servo: int, track: GoalTrack, last: tuple[int, int], stamp_ns: int, tick: int) -> None:
        """Speed of the last step and over one and two spans; then how it grew from the one span to the other."""
        middle = track.before(stamp_ns - SPAN_NS)
        first = None if middle is None else track.before(middle[0] - SPAN_NS)
        kind, value, bound = "velocity", 0.0, 0.0
        freed = track.bounds.joint != "gripper" and stamp_ns - FREED_NS - 2 * SPAN_NS < track.far_ns
        for start in (last, middle, first):
            if start is None:
                return
            value = abs(tick - start[1])
            bound = track.bounds.velocity * ((stamp_ns - start[0]) * 1e-9 + self._jitter_s) + 1
            if value > bound:
                break
            self._note(kind, value, bound)
        else:
            if freed:
                return
            kind, (value, bound) = "acceleration", self._growth(track, stamp_ns, tick)
        if value <= bound:
            self._note(kind, value, bound)
        elif track.presents and abs(tick - track.presents[-1]) <= STOP_TICKS:
            track.restart()  # the goal was put where the arm is: a stop, however far the goal had been
            track.add(stamp_ns, tick)
        else:
            self._offend(servo, track, kind, stamp_ns, value, bound, tick)

    def _growth(self, track: GoalTrack, stamp_ns: int, tick: int) -> tuple[float, float]:
        """Mean speed over the last span, and the most that it may be after the span before."""
        middle = track.before(stamp_ns - SPAN_NS)
        assert middle is not None
        first = track.before(middle[0] - SPAN_NS)
        assert first is not None
        new_s, old_s = (stamp_ns - middle[0]) * 1e-9, (middle[0] - first[0]) * 1e-9
        new, old = abs(tick - middle[1]) / new_s, abs(middle[1] - first[1]) / old_s
        slack = (2 + track.bounds.velocity * self._jitter_s) * (1 / new_s + 1 / old_s)
        if track.turned_ns > first[0]:  # from rest within these spans
            return new, track.bounds.acceleration * (new_s / 2 + old_s) + slack
        return new, old + track.bounds.acceleration * (new_s + old_s) / 2 + slack

    def _note(self, kind: str, value: float, bound: float) -> None:
        worst = self._report.worst
        if value > bound * worst.get(kind, -1e9):
            worst[kind] = value / bound

    def _offend(
        self, servo: int, track: GoalTrack, kind: str, stamp_ns: int, value: float, bound: float, goal: int
    ) -> None:
        counts = self._report.counts
        counts[kind] = counts.get(kind, 0) + 1
        self._kept.append(Offence(stamp_ns, servo, track.bounds.joint, kind, value, bound, goal))
