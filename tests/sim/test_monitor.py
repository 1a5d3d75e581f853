"""The independent goal monitor: clean streams pass, each offence is found, however the goal was written."""

import math

import pytest
from chain_tools import MS
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.control.limits import default_limits
from aloha_runtime.dynamixel import packets
from aloha_runtime.robot import KITS, RAD_PER_TICK
from aloha_runtime.sim.goal_track import Bounds, envelope
from aloha_runtime.sim.monitor import Monitor

CYCLE_NS = 5 * MS
IDS = range(1, 10)
READ = packets.sync_read(IDS, 126, 10, fast=True)


def rad(angle: float) -> int:
    return round(angle / RAD_PER_TICK)


class Wire:
    """A monitor with torque on every servo, seen at `present` ticks, and a way to send it goals of servo 1."""

    def __init__(self, present: int = 2048, jitter_s: float = 0.0) -> None:
        bounds = envelope("follower", default_limits(), KITS["aloha"].follower_gripper, "left")
        self.bounds: Bounds = bounds[1]
        self.monitor = Monitor(bounds, jitter_s)
        self.now_ns = 10**9
        self.tell(packets.sync_write(64, 1, [(servo, b"\1") for servo in IDS]))
        self.see(present)
        self.tell(packets.sync_write(116, 4, [(servo, present.to_bytes(4, "little", signed=True)) for servo in IDS]))
        self.monitor.reset()

    def tell(self, data: bytes) -> None:
        self.monitor.host(data, self.now_ns)

    def see(self, present: int, error: int = 0) -> None:
        """A reading in which servo 1 stands at `present`."""
        self.tell(READ)
        states = [(servo, error if servo == 1 else 0, state(present)) for servo in IDS]
        self.monitor.servo(packets.fast_status_packet(states), self.now_ns)

    def goal(self, tick: int, servo: int = 1, seen: bool = True) -> None:
        """The next cycle: the servo is where the last goal was, then a goal."""
        self.now_ns += CYCLE_NS
        self.tell(packets.sync_write(116, 4, [(servo, tick.to_bytes(4, "little", signed=True))]))
        if seen:
            self.see(tick)

    def counts(self) -> dict[str, int]:
        return self.monitor.report().counts


def state(present: int) -> bytes:
    return bytes(6) + present.to_bytes(4, "little", signed=True)


def swing(time_s: float) -> float:
    """A motion at the edge of the envelope: 2.4 rad/s and 29 rad/s^2 at most."""
    return 0.2 * (1 - math.cos(12.0 * time_s))


def test_the_envelope_is_that_of_the_limits() -> None:
    bounds = envelope("follower", default_limits(), KITS["aloha"].follower_gripper, "right")
    assert sorted(bounds) == list(IDS)
    assert bounds[2].low == pytest.approx(841 + 13, abs=0.1)  # 0.02 rad
    assert bounds[1].velocity * RAD_PER_TICK == pytest.approx(2.5)
    gripper = KITS["aloha"].follower_gripper
    assert (bounds[9].low - 2048) * RAD_PER_TICK == pytest.approx(gripper.angle_from_action(-0.2))
    assert bounds[9].velocity * RAD_PER_TICK == pytest.approx(5 * (gripper.angle_open - gripper.angle_close))


def test_a_motion_at_the_edge_passes_and_a_tenth_more_does_not() -> None:
    for scale, clean in ((1.0, True), (1.1, False)):
        wire = Wire()
        for cycle in range(600):
            wire.goal(2048 + rad(scale * swing(cycle * CYCLE_NS * 1e-9)))
        assert (wire.counts() == {}) == clean, (scale, wire.counts(), wire.monitor.report().offences[:3])


def test_a_step_is_too_fast_and_a_hurried_start_is_too_sudden() -> None:
    wire = Wire()
    wire.goal(2048)
    wire.goal(2048 + 30)
    assert wire.counts() == {"velocity": 1}
    wire = Wire()
    for _ in range(40):
        wire.goal(2048)
    for cycle in range(20):  # 2 rad/s from rest at once
        wire.goal(2048 + rad(0.010 * cycle))
    assert set(wire.counts()) == {"acceleration"}


def test_a_sudden_stop_is_no_offence() -> None:
    wire = Wire()
    tick = 2048
    for cycle in range(60):
        tick = 2048 + rad(swing(cycle * CYCLE_NS * 1e-9))
        wire.goal(tick)
    for _ in range(50):
        wire.goal(tick)
    assert wire.counts() == {}


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 30)), min_size=2, max_size=12))
def test_any_motion_within_the_limits_passes(phases: list[tuple[float, int]]) -> None:
    """Speeds of the default limits, growth at most 30 rad/s^2, stops at any moment, turns from rest."""
    wire, angle, speed, dt = Wire(), 0.0, 0.0, CYCLE_NS * 1e-9
    for wish, cycles in phases:
        for _ in range(cycles):
            wanted = 2.5 * wish if wish * speed >= 0 else 0.0
            if abs(wanted) <= abs(speed):
                speed = wanted
            else:
                speed = math.copysign(min(abs(wanted), abs(speed) + 30.0 * dt), wanted)
            if not -2.5 < angle + speed * dt < 2.5:
                speed = 0.0
            angle += speed * dt
            wire.goal(2048 + rad(angle))
    assert wire.counts() == {}, wire.monitor.report().offences[:3]


def test_positions_outside_the_limits() -> None:
    wire = Wire(present=4080)
    wire.goal(4081)
    wire.goal(4084)
    assert wire.counts() == {"position": 1}
    (offence,) = wire.monitor.report().offences
    assert (offence.joint, offence.goal, offence.stamp_ns) == ("waist", 4084, wire.now_ns)


def test_an_arm_outside_its_limits_may_be_held_and_brought_back() -> None:
    wire = Wire(present=4090)
    for tick in (4090, 4090, 4089, 4088):
        wire.goal(tick)
    assert wire.counts() == {}
    for tick in range(4090, 4096):  # creeping out again
        wire.goal(tick)
    assert wire.counts() == {"position": 5}


def test_a_goal_put_where_the_arm_is_is_a_stop() -> None:
    """What a restarted process does with arms that it finds powered: goal to present, from wherever the goal was."""
    wire = Wire()
    for cycle in range(20):
        wire.goal(2048 + 3 * cycle)
    wire.see(2048 + 20)
    wire.goal(2048 + 20)
    assert wire.counts() == {}
    wire.goal(2048 + 57)
    assert wire.counts() == {"velocity": 1}


def test_a_goal_may_not_run_away_from_a_stuck_arm() -> None:
    wire = Wire()
    for cycle in range(70):
        wire.goal(2048 + cycle * 3, seen=False)
    counts = wire.counts()
    assert set(counts) == {"lead"}
    assert counts["lead"] == 70 - math.ceil(0.26 / RAD_PER_TICK / 3)
    wire.monitor.reset()
    for cycle in range(69, 0, -1):  # coming back is no offence, however far it still is
        wire.goal(2048 + cycle * 3, seen=False)
    assert wire.counts() == {}


def test_a_goal_may_follow_an_arm_that_a_blow_has_carried_past_it() -> None:
    """Coming back to where the arm is now leads away from where it was a moment ago."""
    wire = Wire()
    for tick in range(2048, 2048 + 166, 3):
        wire.goal(tick, seen=False)
    wire.see(2048)
    wire.see(2048 + 500)
    for tick in range(2048 + 166, 2048 + 220, 3):
        wire.goal(tick, seen=False)
    assert wire.counts() == {}
    for tick in range(2048 + 217, 2048 - 200, -3):  # away from both
        wire.goal(tick, seen=False)
    assert set(wire.counts()) == {"lead"}


@pytest.mark.parametrize(("far", "offences"), [(0, {"acceleration"}), (150, set())])
def test_a_goal_that_the_servo_no_longer_felt_may_gain_speed(far: int, offences: set[str]) -> None:
    """As `far` ticks from its joint as full drive needs; then it turns and runs."""
    wire = Wire()
    wire.see(2048 - far)
    for _ in range(60):
        wire.goal(2048, seen=False)
    for cycle in range(1, 21):
        wire.goal(2048 - 6 * cycle, seen=False)
    assert set(wire.counts()) == offences


def test_torque_off_frees_the_goal_and_torque_on_starts_over() -> None:
    wire = Wire()
    wire.goal(2048)
    wire.tell(packets.sync_write(64, 1, [(1, b"\0")]))
    wire.goal(3000)
    wire.tell(packets.write(1, 64, b"\1"))
    wire.goal(3000)
    assert wire.counts() == {}


def test_modes_other_than_position_and_current_position() -> None:
    wire = Wire()
    wire.tell(packets.write(1, 11, b"\5"))
    wire.goal(2048)
    assert wire.counts() == {}
    wire.tell(packets.write(1, 11, b"\4"))
    wire.goal(2048)
    assert wire.counts() == {"mode": 1}


def test_goals_must_rest_after_an_error() -> None:
    wire = Wire()
    wire.goal(2048)
    wire.see(2048, error=0x80)
    first = wire.now_ns
    for step in range(1, 20):
        wire.goal(2048 + step, servo=6, seen=False)
    assert wire.counts()["moved in error"] == 19 - 8
    assert wire.monitor.report().first_error_ns == first
    wire.see(2048)
    wire.monitor.reset()
    wire.goal(2070, servo=6, seen=False)
    assert wire.counts() == {}


def raw(tick: int) -> bytes:
    return tick.to_bytes(4, "little", signed=True)


WAYS = {
    "write": [packets.write(1, 116, raw(5000))],
    "broadcast write": [packets.write(0xFE, 116, raw(5000))],
    "block": [packets.write(1, 108, bytes(8) + raw(5000))],
    "sync write": [packets.sync_write(112, 8, [(1, bytes(4) + raw(5000))])],
    "bulk write": [packets.bulk_write([(6, 65, b"\1"), (1, 116, raw(5000))])],
    "reg write": [packets.reg_write(1, 116, raw(5000)), packets.action()],
    "indirect": [
        packets.write(1, 168, b"".join(address.to_bytes(2, "little") for address in (116, 117, 118, 119))),
        packets.write(1, 224, raw(5000)),
    ],
    "in pieces": [packets.write(1, 116, raw(5000))],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_goal_is_seen_however_it_is_written(way: str) -> None:
    wire = Wire()
    for packet in WAYS[way]:
        assert wire.counts() == {}
        chunks = [packet[:7], packet[7:11], packet[11:]] if way == "in pieces" else [packet]
        for chunk in chunks:
            wire.tell(chunk)
    assert wire.counts(), way


def test_a_registered_write_counts_only_when_it_is_carried_out() -> None:
    wire = Wire()
    wire.tell(packets.reg_write(1, 116, raw(5000)))
    assert wire.counts() == {}


def test_changes_of_the_goal_are_stamped() -> None:
    wire = Wire()
    for tick in (2048, 2049, 2050, 2050, 2050):
        wire.goal(tick)
    report = wire.monitor.report()
    assert report.goals == 5
    assert wire.now_ns - report.last_change_ns[1] == 2 * CYCLE_NS
    assert report.last_goal_ns[1] == wire.now_ns
    assert report.last_goal == {1: 2050}


@settings(derandomize=True, deadline=None, max_examples=100)
@given(noise=st.binary(max_size=120), tick=st.integers(3000, 4000))
def test_noise_hides_no_goal(noise: bytes, tick: int) -> None:
    """Noise of its own chunk; a header in it that promises more than comes must not swallow the goal behind it."""
    wire = Wire()
    wire.tell(noise)
    wire.goal(tick, seen=False)
    assert wire.monitor.report().last_goal == {1: tick}


def test_jitter_of_the_stamps_is_allowed_for() -> None:
    """Two goals that arrive in one chunk after a stall: 10 ms of motion at one stamp."""
    for jitter_s, clean in ((0.02, True), (0.0, False)):
        wire = Wire(jitter_s=jitter_s)
        for cycle in range(40):
            if cycle != 30:
                wire.now_ns += CYCLE_NS
            wire.tell(packets.sync_write(116, 4, [(1, raw(2048 + rad(0.010 * cycle)))]))
            wire.see(2048 + rad(0.010 * cycle))
        counts = {kind: count for kind, count in wire.counts().items() if kind == "velocity"}
        assert (counts == {}) == clean


def test_a_late_fast_reply_is_not_read_as_the_answer_to_a_later_question() -> None:
    """It would raise alerts of servos that do not exist, which nobody would ever take back."""
    wire = Wire()
    wire.tell(packets.sync_read(IDS, 120, 21))
    parts = b"".join(bytes([0, servo]) + bytes([0x80] * 12) for servo in (1, 2, 4, 6, 7, 8, 9))
    wire.monitor.servo(packets.frame(packets.BROADCAST_ID, b"\x55" + parts[:-2]), wire.now_ns)
    assert wire.monitor.report().first_error_ns == 0


def test_a_late_answer_to_a_longer_question_is_no_sighting_although_its_length_divides() -> None:
    """Seven parts of 16 bytes are as long as eight of 14: taken for those, servos would stand anywhere."""
    wire = Wire(2048)
    masters = [servo for servo in IDS if servo not in (3, 5)]
    wire.tell(packets.sync_read(masters, 124, 12, fast=True))
    late = packets.fast_status_packet([(servo, 0, bytes(2) + state(1500)) for servo in masters])
    wire.tell(packets.sync_read(masters, 126, 10, fast=True))  # the driver has given up and asks again
    wire.now_ns += CYCLE_NS
    wire.monitor.servo(late, wire.now_ns)
    assert set(wire.monitor.report().present.values()) == {2048}
    assert not [tick for _, _, tick in wire.monitor.wire(wire.now_ns).presents]
    wire.monitor.servo(packets.fast_status_packet([(servo, 0, state(2049)) for servo in masters]), wire.now_ns)
    assert wire.monitor.wire(wire.now_ns).presents == [(wire.now_ns, servo, 2049) for servo in masters]
