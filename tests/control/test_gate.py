"""The gate: whatever arrives, goals stay in the envelope; what dies stops; what is healthy moves smoothly."""

import math

import numpy as np
import pytest
from envelope import HIGH, JOINTS, LOW, Judge, Servos
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.control.gate import Gate, GateTiming, Motion, Target
from aloha_runtime.control.limits import default_limits, tightened
from aloha_runtime.robot import START_POSE, pose_vector

MS = 1_000_000
CYCLE = 5 * MS
TICK = 20 * MS
HOME = pose_vector(START_POSE, 0.5)
LIMITS = default_limits()
BRAKING = 300.0


def gate_at(position=HOME, now_ns=0):
    return Gate(LIMITS, np.array(position, dtype=float), now_ns)


def stream(gate, servos, trajectory, until_ns, period_ns=TICK, start_ns=0, die_ns=None, cycle_ns=CYCLE):
    """Run cycles with one action per period from `trajectory(t_s)`; rows of (now, goal, position, output)."""
    gate.follow(start_ns)
    rows, next_ns, position = [], start_ns, servos.position.copy()
    for now in range(start_ns + cycle_ns, until_ns + 1, cycle_ns):
        target = None
        if now >= next_ns and (die_ns is None or now < die_ns):
            target = Target(list(trajectory(now * 1e-9)), now, tick=now // TICK, period_ns=period_ns)
            next_ns += period_ns
        output = gate.step(now, position, target)
        rows.append((now, output.goal, position, output))
        position = servos.move(output.goal, cycle_ns * 1e-9)
    return rows


def waist_at_speed(speed):
    def trajectory(t_s):
        action = HOME.copy()
        action[0] = speed * t_s
        return action

    return trajectory


# --- the envelope, against a hostile world ---------------------------------------------------------------------------

NUMBERS_THAT_ARE_NONE = [
    [math.nan] * 14,
    [0.0] * 13 + [math.inf],
    [-math.inf] + [0.0] * 13,
    [0.0] * 13,
    [0.0] * 15,
    [],
    [[0.0] * 14],
    ["0.1"] * 14,
    [None] * 14,
    None,
    "home",
    {"waist": 1.0},
    [True] * 14,
    [1j] * 14,
    [10**400] * 14,
    [[0.0], [0.0, 1.0]] * 7,
    object(),
]


def hostile_target(rng, now, base):
    """Something that a broken, malicious or merely late sender might put on the wire."""
    kind = rng.integers(0, 12)
    stamp = now - int(rng.integers(0, 3)) * MS
    if kind < 4:
        position = base + rng.normal(0, 0.02, 14)
    elif kind < 6:
        position = rng.uniform(LOW - 1, HIGH + 1)
    elif kind == 6:
        position = rng.uniform(-1, 1, 14) * 10.0 ** rng.integers(-12, 300)
    elif kind == 7:
        position = NUMBERS_THAT_ARE_NONE[rng.integers(0, len(NUMBERS_THAT_ARE_NONE))]
    elif kind == 8:
        position = rng.uniform(LOW, HIGH)
        position[rng.integers(0, 14)] = rng.choice([math.nan, math.inf, -math.inf])
    else:
        position = np.where(rng.random(14) < 0.5, LOW, HIGH)
        stamp = now + int(rng.choice([-10_000, -500, -61, -59, 19, 21, 5000])) * MS if kind == 9 else stamp
    if isinstance(position, np.ndarray) and rng.random() < 0.5:
        position = position.tolist()
    return Target(
        position, stamp, tick=int(rng.integers(0, 5)), period_ns=int(rng.choice([5 * MS, TICK, 0, 1000 * MS]))
    )


def hostile_order(rng, gate, now, position, judge):
    """A change of mode at any moment."""
    order = rng.integers(0, 6)
    if order < 3:
        gate.follow(now)
    elif order == 3:
        gate.hold()
    elif order == 4:
        gate.ramp(now, rng.uniform(LOW - 0.1, HIGH + 0.1), float(rng.uniform(0.05, 5.0)))
    else:
        gate.freeze(position)
        judge.restart(judge.now_ns, gate.goal)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_goal_leaves_the_envelope(seed):
    rng = np.random.default_rng(seed)
    servos = Servos(rng.uniform(LOW, HIGH), lag_s=float(rng.uniform(0.005, 0.1)))
    gate = gate_at(servos.position)
    judge = Judge(0, gate.goal)
    now, base, position = 0, servos.position.copy(), servos.position.copy()
    gate.follow(0)
    ordered = False
    for _ in range(300):
        dt = (
            CYCLE
            if rng.random() < 0.7
            else int(rng.choice([0, 1, 1000, 500_000, 3 * MS, 7 * MS, 11 * MS, 80 * MS, 600 * MS]))
        )
        now += dt
        if rng.random() < 0.02:
            hostile_order(rng, gate, now, position, judge)
            ordered = True
        if rng.random() < 0.02:
            servos.position = servos.position + rng.normal(0, 0.3, 14)
        position = servos.move(gate.goal, dt * 1e-9)
        seen = position if rng.random() > 0.02 else np.full(14, math.nan)
        target = hostile_target(rng, now, base) if rng.random() < 0.5 else None
        before = gate.motion
        output = gate.step(now, seen, target)
        known = gate._present
        stop = ordered or output.motion in (Motion.FROZEN, Motion.PAUSED) or before is not output.motion
        judge.look(now, output.goal, known, stop)
        ordered = ordered and dt == 0
        base = np.clip(base + rng.normal(0, 0.01, 14), LOW, HIGH)
        assert 0 <= output.held_off < 1 << 14
        assert output.held_off & output.shaped == 0
    assert gate.counters.cycles <= 300


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    lag_s=st.floats(0.005, 0.12),
    speed=st.floats(0.05, 6.0),
    period_ns=st.sampled_from([5 * MS, TICK]),
)
def test_after_the_last_action_goals_freeze_and_no_joint_travels_further_than_its_reach(seed, lag_s, speed, period_ns):
    rng = np.random.default_rng(seed)
    servos = Servos(rng.uniform(LOW, HIGH), lag_s)
    gate = gate_at(servos.position)
    gate.follow(0)
    judge = Judge(0, gate.goal)
    die_ns = int(rng.integers(200, 600)) * MS
    direction, action = rng.choice([-1.0, 1.0], 14), gate.goal
    now = next_ns = 0
    position, last_ns, at_last = servos.position.copy(), 0, servos.position.copy()
    frozen: list[np.ndarray] = []
    for _ in range(250):
        cycle = int(rng.choice([4, 5, 5, 5, 6])) * MS
        now += cycle
        position = servos.move(gate.goal, cycle * 1e-9)
        target = None
        if next_ns <= now < die_ns:
            direction = np.where(rng.random(14) < 0.05, -direction, direction)
            action = np.clip(action + direction * speed * period_ns * 1e-9, LOW, HIGH)
            target, next_ns, last_ns, at_last = (
                Target(action, now, period_ns=period_ns),
                next_ns + period_ns,
                now,
                position,
            )
        output = gate.step(now, position, target)
        judge.look(now, output.goal, position, output.motion is not Motion.FOLLOW)
        if now - last_ns >= 65 * MS:
            frozen.append(output.goal)
    assert len(frozen) > 50
    assert all((goal == frozen[0]).all() for goal in frozen)
    # Grippers, index 6 and 13, are bounded in openings.
    travel = np.abs(position - at_last) / np.array([1.125 * joint.lead for joint in JOINTS])
    assert travel.max() <= 1.0 + 1e-9


@pytest.mark.parametrize("sign", [1, -1])
def test_the_last_action_moves_a_joint_no_further_than_its_reach_however_far_it_points(sign):
    """At speed already, an arm that lags by its lead: the action sets the bound, not the time to the freeze."""

    def trajectory(t_s):
        action = HOME.copy()
        action[0] = sign * (2.0 * t_s if t_s < 0.39 else 1.5)
        return action

    rows = stream(gate_at(), Servos(HOME, lag_s=0.12), trajectory, 1000 * MS, die_ns=401 * MS)
    last = max(index for index, row in enumerate(rows) if row[0] <= 401 * MS and row[3].action_stamp_ns == row[0])
    travel = sign * (rows[-1][2][0] - rows[last][2][0])
    assert 0.2 < travel <= 0.27 + 1e-9


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), lag_s=st.floats(0.002, 0.05))
def test_constant_target_is_reached_without_passing_it(seed, lag_s):
    rng = np.random.default_rng(seed)
    servos = Servos(rng.uniform(LOW, HIGH), lag_s)
    start, target = servos.position.copy(), rng.uniform(LOW, HIGH)
    rows = stream(gate_at(start), servos, lambda _: target, 6000 * MS)
    goals = np.array([goal for _, goal, _, _ in rows])
    assert np.abs(goals[-1] - target).max() < 1e-6
    assert np.abs(servos.position - target).max() < 1e-3
    assert (np.diff(np.abs(goals - target), axis=0) <= 1e-12).all()
    assert ((goals - target) * np.sign(start - target) >= -1e-12).all()


# --- smoothness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("period_ns", "delay_ms"), [(TICK, 20.0), (5 * MS, 5.0)])
@pytest.mark.parametrize("speed", [0.1, 0.3, 0.7, 1.0, 1.2])
def test_constant_velocity_is_followed_smoothly_one_tick_late(speed, period_ns, delay_ms):
    rows = stream(gate_at(), Servos(HOME), waist_at_speed(speed), 1000 * MS, period_ns)
    times = np.array([now for now, *_ in rows]) * 1e-9
    waist = np.array([goal[0] for _, goal, _, _ in rows])
    settled = times > 0.4
    velocity = np.diff(waist)[settled[1:]] / 0.005
    assert np.abs(velocity - speed).max() < 1e-3 * speed
    lag_ms = (speed * times - waist)[settled] / speed * 1e3
    assert np.abs(lag_ms - (delay_ms + speed / (2 * BRAKING) * 1e3)).max() < 0.1
    assert all(output.held_off == output.shaped == 0 for *_, output in rows[-50:])


def test_actions_noticed_up_to_a_cycle_late_do_not_make_it_stutter():
    rng = np.random.default_rng(7)
    gate, servos = gate_at(), Servos(HOME)
    gate.follow(0)
    waist, position = [], HOME.copy()
    for cycle in range(1, 400):
        now = cycle * CYCLE
        due = (now - int(rng.integers(0, 2)) * CYCLE) // TICK
        stamp = max(due, 0) * TICK
        output = gate.step(now, position, Target(waist_at_speed(0.5)(stamp * 1e-9), stamp + 1, tick=due))
        waist.append(output.goal[0])
        position = servos.move(output.goal, 0.005)
    velocity = np.diff(waist)[100:] / 0.005
    assert velocity.min() > 0.35
    assert velocity.max() < 0.75


def test_a_smooth_movement_stays_smooth():
    """A 1 Hz swing of 0.15 rad at 50 Hz: no trace of the ticks in the acceleration of the goals."""

    def swing(t_s):
        action = HOME.copy()
        action[:6] += 0.15 * math.sin(2 * math.pi * t_s) * np.ones(6)
        return action

    rows = stream(gate_at(), Servos(HOME), swing, 3000 * MS)
    goals = np.array([goal[:6] for _, goal, _, _ in rows])[200:]
    acceleration = np.diff(goals, 2, axis=0) / 0.005**2
    true_peak = 0.15 * (2 * math.pi) ** 2
    assert np.abs(acceleration).max() < 5 * true_peak
    assert np.abs(goals).max() < 0.15 + np.abs(HOME[:6]).max() + 1e-3


# --- freshness -------------------------------------------------------------------------------------------------------


def follow_for(gate, servos, until_ns, start_ns=0):
    return stream(gate, servos, waist_at_speed(0.5), until_ns, start_ns=start_ns)


@pytest.mark.parametrize("gap_ms", [60, 100, 300, 495])
def test_short_silence_pauses_and_goes_on_within_the_limits(gap_ms):
    gate, servos = gate_at(), Servos(HOME)
    rows = follow_for(gate, servos, 400 * MS)
    judge = Judge(rows[-1][0], rows[-1][1])
    judge.speed = list((rows[-1][1] - rows[-2][1]) / 0.005)
    last_action = rows[-1][3].action_stamp_ns
    now, position, motions = rows[-1][0], servos.position, []
    while now < last_action + gap_ms * MS:
        now += CYCLE
        output = gate.step(now, position)
        motions.append(output.motion)
        judge.look(now, output.goal, position, stop=output.motion is Motion.PAUSED)
        position = servos.move(output.goal, 0.005)
    assert motions[-1] is Motion.PAUSED
    assert gate.counters.pauses == 1
    still = output.goal
    output = gate.step(now + CYCLE, position, Target(waist_at_speed(0.5)(now * 1e-9), now + CYCLE))
    judge.look(now + CYCLE, output.goal, position, stop=False)
    assert output.motion is Motion.FOLLOW
    assert output.goal[0] > still[0]
    assert gate.counters.resumes == 1
    assert output.hold_cause == ""


def test_long_silence_ends_the_motion_until_the_next_order():
    gate, servos = gate_at(), Servos(HOME)
    rows = follow_for(gate, servos, 400 * MS)
    last_action = rows[-1][3].action_stamp_ns
    outputs = [gate.step(now, servos.position) for now in range(405 * MS, 1000 * MS, CYCLE)]
    times = list(range(405 * MS, 1000 * MS, CYCLE))
    ended = next(now for now, output in zip(times, outputs, strict=True) if output.hold_cause)
    assert ended - last_action == 505 * MS
    assert "no action for 505 ms" in outputs[-1].hold_cause
    assert outputs[-1].motion is Motion.FROZEN
    late = gate.step(1000 * MS, servos.position, Target(HOME + 0.05, 1000 * MS))
    assert (late.goal == outputs[-1].goal).all()
    assert gate.counters.ignored == 1
    assert gate.counters.holds == 1
    gate.follow(1000 * MS)
    assert gate.step(1005 * MS, servos.position).hold_cause == ""


def test_first_action_may_take_three_seconds():
    gate = gate_at()
    gate.follow(0)
    assert gate.step(3000 * MS, HOME).motion is Motion.FOLLOW
    assert "no action for 3005 ms" in gate.step(3005 * MS, HOME).hold_cause


@pytest.mark.parametrize("position", NUMBERS_THAT_ARE_NONE)
def test_three_actions_that_are_no_numbers_end_the_motion(position):
    gate, servos = gate_at(), Servos(HOME)
    rows = follow_for(gate, servos, 400 * MS)
    now = rows[-1][0]
    for count in (1, 2):
        now += CYCLE
        output = gate.step(now, servos.position, Target(position, now))
        assert output.motion is Motion.FOLLOW
        assert gate.counters.invalid == count
    output = gate.step(now + CYCLE, servos.position, Target(position, now + CYCLE))
    assert output.motion is Motion.FROZEN
    assert output.hold_cause.startswith("3 actions in a row were refused, the last because")


def test_a_good_action_between_bad_ones_starts_the_count_again():
    gate = gate_at()
    gate.follow(0)
    bad = [math.nan] * 14
    for now, position in enumerate([HOME, bad, bad, HOME, bad, bad, HOME], start=1):
        output = gate.step(now * CYCLE, HOME, Target(position, now * CYCLE))
    assert output.motion is Motion.FOLLOW
    assert (gate.counters.invalid, gate.counters.accepted) == (4, 3)


def test_refusals_name_the_joint():
    gate = gate_at()
    gate.follow(0)
    position = HOME.copy()
    position[8] = math.nan
    for now in (CYCLE, 2 * CYCLE, 3 * CYCLE):
        output = gate.step(now, HOME, Target(position, now))
    assert "right_shoulder is nan" in output.hold_cause


def test_repeated_disordered_stale_and_future_actions_are_counted_and_passed_over():
    gate = gate_at()
    gate.follow(100 * MS)
    far = HOME + 0.05
    gate.step(101 * MS, HOME, Target(far, 99 * MS))
    assert gate.counters.disordered == 1
    gate.step(170 * MS, HOME, Target(far, 105 * MS))
    assert gate.counters.stale == 1
    gate.step(175 * MS, HOME, Target(far, 196 * MS))
    assert gate.counters.from_future == 1
    first = gate.step(180 * MS, HOME, Target(HOME, 180 * MS, tick=9))
    assert first.action_tick == 9
    assert first.action_stamp_ns == 180 * MS
    gate.step(185 * MS, HOME, Target(HOME, 180 * MS, tick=9))
    assert gate.counters.repeated == 1
    gate.step(190 * MS, HOME, Target(far, 180 * MS, tick=8))
    gate.step(195 * MS, HOME, Target(far, 179 * MS, tick=10))
    assert gate.counters.disordered == 3
    assert gate.counters.accepted == 1
    assert (gate.goal == HOME).all()


def test_an_action_from_just_now_is_fresh_at_every_edge():
    gate = gate_at()
    gate.follow(0)
    assert gate.step(59 * MS, HOME, Target(HOME, 0)).motion is Motion.FOLLOW
    assert gate.step(60 * MS, HOME).motion is Motion.PAUSED
    assert gate.step(65 * MS, HOME, Target(HOME, 85 * MS)).motion is Motion.FOLLOW
    assert gate.counters.accepted == 2


def test_actions_without_an_order_to_follow_move_nothing():
    gate = gate_at()
    output = gate.step(CYCLE, HOME, Target(HOME + 0.05, CYCLE))
    assert (output.goal == HOME).all()
    assert output.target is None
    assert (output.action_tick, output.action_stamp_ns) == (-1, 0)
    assert gate.counters.ignored == 1


def test_the_action_is_reported_as_commanded_and_by_bit_what_was_held_off_and_what_shaped():
    gate = gate_at()
    gate.follow(0)
    action = HOME.copy()
    action[2], action[13] = 9.0, 1.7
    action[3] += 0.2
    output = gate.step(CYCLE, HOME, Target(action.tolist(), CYCLE))
    assert (output.target == action).all()
    assert output.held_off == 1 << 2 | 1 << 13
    assert output.shaped == 1 << 3
    assert (gate.counters.held_off_cycles, gate.counters.shaped_cycles) == (1, 1)


# --- standing still --------------------------------------------------------------------------------------------------


def test_hold_stops_the_goal_in_the_same_cycle():
    gate, servos = gate_at(), Servos(HOME)
    rows = stream(gate, servos, waist_at_speed(1.2), 500 * MS)
    gate.hold()
    outputs = [gate.step(now, servos.move(gate.goal, 0.005)) for now in range(505 * MS, 900 * MS, CYCLE)]
    assert all((output.goal == rows[-1][1]).all() for output in outputs)
    assert outputs[0].motion is Motion.FROZEN


def test_a_pushed_joint_is_yielded_to_and_does_not_snap_back():
    gate = gate_at()
    judge = Judge(0, gate.goal)
    pushed = HOME.copy()
    for now in range(CYCLE, 1000 * MS, CYCLE):
        pushed[1] = min(pushed[1] + 0.004, HOME[1] + 0.5)
        output = gate.step(now, pushed)
        judge.look(now, output.goal, pushed, stop=False)
    assert output.goal[1] == pytest.approx(HOME[1] + 0.26, abs=1e-3)
    assert (np.delete(output.goal, 1) == np.delete(HOME, 1)).all()
    released = gate.step(1000 * MS, output.goal)
    assert (released.goal == output.goal).all()


def test_freeze_takes_a_present_position_no_further_outside_than_the_servos_own_limits():
    gate = gate_at()
    hanging = HOME.copy()
    hanging[1], hanging[6] = -1.9, -0.3
    gate.freeze(hanging)
    assert gate.goal[1] == pytest.approx(LOW[1] - 0.02)
    assert gate.goal[6] == pytest.approx(-0.2)
    assert (np.delete(gate.goal, [1, 6]) == np.delete(HOME, [1, 6])).all()
    gate.freeze(np.full(14, math.nan))
    assert (gate.goal == HOME).all()


def test_a_goal_found_outside_its_limits_stays_there_and_only_comes_in():
    gate = gate_at()
    hanging = HOME.copy()
    hanging[1] = LOW[1] - 0.015
    gate.freeze(hanging)
    for cycle in range(1, 201):
        assert (gate.step(cycle * CYCLE, hanging).goal == hanging).all()
    gate.ramp(200 * CYCLE, HOME)
    before = hanging[1]
    for cycle in range(201, 400):
        goal = gate.step(cycle * CYCLE, hanging).goal[1]
        assert before <= goal <= HOME[1]
        hanging[1] = before = goal
    assert before > LOW[1] + 0.1
    gate.follow(400 * CYCLE)
    out = HOME.copy()
    out[1] = LOW[1] - 0.015
    for cycle in range(401, 900):
        goal = gate.step(cycle * CYCLE, hanging, Target(out, cycle * CYCLE)).goal[1]
        assert goal >= LOW[1]
        hanging[1] = goal
    assert hanging[1] == pytest.approx(LOW[1])


@pytest.mark.parametrize("present", [np.full(14, math.nan), np.zeros(7), np.array([math.inf] + [0.0] * 13)])
def test_a_gate_needs_a_position_to_start_from(present):
    with pytest.raises(ValueError, match="check their servos"):
        Gate(LIMITS, present, 0)


def test_blind_arms_end_the_motion_after_100_ms():
    gate = gate_at()
    blind = np.full(14, math.nan)
    gate.ramp(0, HOME + 0.3)
    gate.step(CYCLE, HOME)
    assert gate.step(105 * MS, blind).motion is Motion.RAMP
    output = gate.step(110 * MS, blind)
    assert "no finite joint position for 105 ms" in output.hold_cause
    assert gate.counters.bad_present == 2
    assert gate.step(500 * MS, blind).hold_cause == output.hold_cause


def test_time_that_stands_still_or_goes_back_moves_nothing():
    gate = gate_at()
    gate.follow(0)
    output = gate.step(CYCLE, HOME, Target(HOME + 0.05, CYCLE))
    for now in (CYCLE, CYCLE - 1, 0):
        assert (gate.step(now, HOME, Target(HOME - 0.05, CYCLE + 1)).goal == output.goal).all()
    assert gate.counters.cycles == 1


def test_a_stall_is_not_made_up_in_one_jump():
    gate, servos = gate_at(), Servos(HOME)
    rows = stream(gate, servos, waist_at_speed(1.0), 500 * MS)
    now = 550 * MS
    output = gate.step(now, servos.position, Target(waist_at_speed(1.0)(0.55), now))
    assert 0 < output.goal[0] - rows[-1][1][0] <= (1.0 + 30 * 0.01) * 0.01 + 1e-9
    assert gate.counters.late_cycles == 1


# --- ramps -----------------------------------------------------------------------------------------------------------


def run_ramp(gate, servos, pose, speed, until_ns=20_000 * MS, blocked=None):
    gate.ramp(0, pose, speed)
    judge, position, rows = Judge(0, gate.goal), servos.position.copy(), []
    for now in range(CYCLE, until_ns, CYCLE):
        output = gate.step(now, position)
        judge.look(now, output.goal, position, stop=output.motion is Motion.FROZEN)
        rows.append((now, output.goal, output))
        if output.motion is Motion.FROZEN:
            break
        position = servos.move(output.goal, 0.005)
        if blocked is not None:
            servos.position[blocked] = position[blocked] = HOME[blocked]
    return rows


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), speed=st.floats(0.2, 2.0))
def test_a_ramp_arrives_settled_at_bounded_speed_with_all_joints_together(seed, speed):
    rng = np.random.default_rng(seed)
    servos = Servos(rng.uniform(LOW, HIGH), 0.03)
    start, pose = servos.position.copy(), rng.uniform(LOW, HIGH)
    rows = run_ramp(gate_at(start), servos, pose, speed, until_ns=60_000 * MS)
    assert rows[-1][2].settled
    assert rows[-1][2].hold_cause == ""
    goals = np.array([start] + [goal for _, goal, _ in rows])
    assert np.abs(goals[-1] - pose).max() <= 1e-3
    fastest = np.abs(np.diff(goals, axis=0)).max(axis=0) / 0.005
    allowed = np.where(np.arange(14) % 7 == 6, speed / 0.6, speed)
    assert (fastest <= np.minimum(allowed, [joint.velocity for joint in JOINTS]) + 1e-9).all()
    if speed <= 0.6:
        # Half way in time is half way in every joint, but for the start of the slowest to gain speed.
        shares = (goals[len(goals) // 2] - start) / (pose - start)
        assert shares.max() - shares.min() < 0.2


def test_a_ramp_to_where_the_arms_are_settles_at_once():
    rows = run_ramp(gate_at(), Servos(HOME), HOME, 0.6)
    assert len(rows) == 1
    assert rows[0][2].settled


def test_the_stages_of_a_ramp_wait_for_the_arms():
    """A shoulder that is held back in the first stage: the waist of the second does not set out."""
    raised, end = HOME.copy(), HOME.copy()
    raised[1] += 0.095  # within the lead, so that the goal arrives and the shoulder does not
    end[[0, 1]] += (0.5, 0.095)
    gate, servos = gate_at(), Servos(HOME)
    gate.ramp(0, end, via=[raised])
    released_ns = 2000 * MS
    for now in range(CYCLE, 8000 * MS, CYCLE):
        output = gate.step(now, servos.position)
        servos.move(output.goal, 0.005)
        if now < released_ns:
            servos.position[1] = HOME[1]
            assert output.goal[0] == HOME[0]
            assert not output.settled
        if output.settled:
            break
    assert output.settled
    assert servos.position[[0, 1]] == pytest.approx(end[[0, 1]], abs=0.03)


def test_a_blocked_ramp_stops_at_the_lead_and_names_the_joint():
    pose = HOME.copy()
    pose[10] += 0.6
    rows = run_ramp(gate_at(), Servos(HOME), pose, 0.6, blocked=10)
    assert max(abs(goal[10] - HOME[10]) for _, goal, _ in rows) <= 0.24 + 1e-9
    assert all(output.held_off == 1 << 10 for _, _, output in rows[200:-1])
    assert not rows[-1][2].settled
    assert "right_forearm_roll did not arrive" in rows[-1][2].hold_cause
    assert rows[-1][0] == pytest.approx((2 * 1.0 + 2.0) * 1e9, abs=2 * CYCLE)


def test_a_gripper_that_holds_something_does_not_keep_a_ramp_from_settling():
    start, pose = HOME.copy(), HOME.copy()
    start[6], pose[6], pose[0] = 0.9, 0.0, 0.3
    servos = Servos(start)
    gate = gate_at(start)
    gate.ramp(0, pose)
    for now in range(CYCLE, 3000 * MS, CYCLE):
        output = gate.step(now, servos.position)
        servos.move(output.goal, 0.005)
        servos.position[6] = 0.9
        if output.settled:
            break
    assert output.settled
    assert output.goal[6] == pytest.approx(0.4)


def test_a_ramp_goes_no_further_than_the_limits():
    pose = HOME.copy()
    pose[1] = -3.0
    rows = run_ramp(gate_at(), Servos(HOME), pose, 1.0)
    assert rows[-1][2].settled
    assert rows[-1][1][1] == pytest.approx(LOW[1], abs=1e-3)


@pytest.mark.parametrize(("pose", "speed"), [([math.nan] * 14, 0.6), ([0.0] * 7, 0.6), (HOME, 0.0), (HOME, math.nan)])
def test_a_ramp_needs_a_pose_and_a_speed(pose, speed):
    with pytest.raises(ValueError, match="ramp"):
        gate_at().ramp(0, pose, speed)


def test_timing_can_be_set():
    gate = Gate(LIMITS, HOME, 0, GateTiming(hold_after_ns=100 * MS))
    gate.follow(0)
    gate.step(CYCLE, HOME, Target(HOME, CYCLE))
    assert gate.step(100 * MS, HOME).motion is Motion.FOLLOW
    assert gate.step(105 * MS, HOME).motion is Motion.PAUSED


@settings(max_examples=60)
@given(speed=st.floats(0.1, 1), velocity=st.floats(0.2, 2.5), wanted=st.floats(0.5, 6))
def test_tightened_limits_hold_in_every_motion(speed, velocity, wanted):
    limits = tightened(LIMITS, {"velocity_rad_s": velocity}, speed)
    gate, servos = Gate(limits, HOME.copy(), 0), Servos(HOME)
    rows = stream(gate, servos, waist_at_speed(wanted), 600 * MS)
    goals = np.array([goal for _, goal, _, _ in rows])
    fastest = np.abs(np.diff(goals[:, 0])).max() / (CYCLE * 1e-9)
    assert fastest <= limits.velocity[0] + 1e-9
    assert fastest > 0.5 * min(wanted, limits.velocity[0]), "it does move"


def test_a_ramp_under_a_low_velocity_limit_takes_its_time_and_arrives():
    limits = tightened(LIMITS, {"velocity_rad_s": 0.2})
    end = HOME.copy()
    end[0] = 1.5
    gate, servos, now = Gate(limits, HOME.copy(), 0), Servos(HOME), 0
    gate.ramp(0, end)
    output = None
    while now < 20_000 * MS and not (output and (output.settled or output.hold_cause)):
        now += CYCLE
        output = gate.step(now, servos.position, None)
        servos.move(output.goal, CYCLE * 1e-9)
    assert output.hold_cause == ""
    assert output.settled
    assert now >= 1.5 / 0.2 * 1000 * MS
