"""Figures of hand-made logs with known answers, and laws that hold for any log."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import START_NS, followers, heartbeats, log, policy_tick

from aloha_runtime.commands.figures import figures, latency_ms, policy_span, success_stamp_ns
from aloha_runtime.messages import MS, Action, Health, Mode, SimState
from aloha_runtime.robot import DOF, TICK_NS, tick_of

FIRST = tick_of(START_NS) + 2
"""First tick that counts when POLICY is announced at START_NS."""


def action(tick: int, stamp_ns: int, observed_ns: int = 0) -> Action:
    return Action(stamp_ns=stamp_ns, tick=tick, position=[0.0] * DOF, observation_stamp_ns=observed_ns)


def sim(success: list[bool], period_ms: int = 10) -> list[SimState]:
    return [
        SimState(
            stamp_ns=START_NS + index * period_ms * MS, task="transfer_cube", seed=7, qpos=[], environment_state=[],
            stage=4 if solved else 2, success=solved,
        )
        for index, solved in enumerate(success)
    ]  # fmt: skip


def test_policy_span_is_the_whole_ticks_of_policy() -> None:
    span = policy_span(log({"mode": heartbeats(Mode.ARMED, 5, START_NS - 5 * TICK_NS) + heartbeats(Mode.POLICY, 51)}))
    assert (span.first, span.last, span.count) == (FIRST, tick_of(START_NS) + 49, 48)


def test_an_empty_log_measures_nothing_and_can_be_written() -> None:
    found = figures(log({}))
    assert (found["success"], found["ticks"], found["ticks_on_time"], found["arms_hz"]) == (False, 0, None, None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_ticks_that_were_late_missing_or_without_an_action_are_not_on_time() -> None:
    ticks = [policy_tick(FIRST + index) for index in range(48)]
    ticks[3] = policy_tick(FIRST + 3, lateness_ms=23.0)
    ticks[5] = policy_tick(FIRST + 5, chunks=0)
    del ticks[10:12]
    found = figures(
        log({"mode": heartbeats(Mode.POLICY, 51), "policy_tick": [*ticks, ticks[0], policy_tick(FIRST - 1)]})
    )
    assert (found["ticks"], found["ticks_missing"]) == (48, 3)
    assert found["ticks_on_time"] == pytest.approx(44 / 48)


@given(st.lists(st.sampled_from(["good", "late", "silent", "absent"]), min_size=1, max_size=60))
def test_shares_of_any_mixture_of_ticks_add_up(kinds: list[str]) -> None:
    made = {
        "good": lambda tick: [policy_tick(tick)],
        "late": lambda tick: [policy_tick(tick, 25.0)],
        "silent": lambda tick: [policy_tick(tick, chunks=0)],
        "absent": lambda tick: [],
    }
    ticks = [tick for index, kind in enumerate(kinds) for tick in made[kind](FIRST + index)]
    found = figures(log({"mode": heartbeats(Mode.POLICY, len(kinds) + 3), "policy_tick": ticks}))
    assert found["ticks"] == len(kinds)
    assert found["ticks_on_time"] == pytest.approx(kinds.count("good") / len(kinds))
    assert found["ticks_missing"] == kinds.count("silent") + kinds.count("absent")


@given(st.lists(st.floats(0, 40), min_size=1, max_size=48))
def test_lateness_quantiles_are_those_of_the_ticks(late_ms: list[float]) -> None:
    ticks = [policy_tick(FIRST + index, late) for index, late in enumerate(late_ms)]
    found = figures(log({"mode": heartbeats(Mode.POLICY, 51), "policy_tick": ticks}))
    wanted = np.percentile([int(late * MS) / MS for late in late_ms], (50, 99))
    assert [found["tick_lateness_p50_ms"], found["tick_lateness_p99_ms"]] == pytest.approx(wanted)
    assert min(late_ms) - 1e-6 <= float(found["tick_lateness_p50_ms"] or 0) <= float(found["tick_lateness_p99_ms"] or 0)


def test_latency_runs_from_the_observation_to_the_first_cycle_that_obeys() -> None:
    actions = [
        action(tick, START_NS + tick * 20 * MS + 8 * MS, START_NS + tick * 20 * MS - 14 * MS) for tick in range(3)
    ]
    states = followers(12)
    for index, state in enumerate(states[2:10], start=2):  # 10 ms on: action 0; 30 ms: action 1; action 2 never
        state.action_stamp_ns = actions[0 if index < 6 else 1].stamp_ns
    content = {"action_policy": actions, "followers": states}
    assert latency_ms(log(content), Mode.POLICY).tolist() == [24.0, 24.0]
    assert latency_ms(log(content), Mode.TELEOP).size == 0


def test_teleop_latency_runs_from_the_leaders_state() -> None:
    states = followers(4, Mode.TELEOP)
    states[2].action_stamp_ns = states[3].action_stamp_ns = START_NS + 3 * MS
    found = figures(log({"action_teleop": [action(0, START_NS + 3 * MS)], "followers": states}))
    assert found["teleop_latency_p50_ms"] == pytest.approx(7.0)
    assert found["latency_p50_ms"] is None


@given(st.sets(st.integers(1, 98)), st.sets(st.integers(1, 98)))
def test_a_cycle_left_out_is_skipped_and_a_lost_message_is_not(left_out: set[int], lost: set[int]) -> None:
    states = [state for index, state in enumerate(followers(100)) if index not in left_out]
    for number, state in enumerate(states):
        state.seq = number + 1
    heard = [state for index, state in enumerate(states) if index in (0, len(states) - 1) or index not in lost]
    found = figures(log({"followers": heard}))
    assert found["arms_hz"] == pytest.approx(200 * (len(states) - 1) / 99)
    assert found["arms_skipped"] == len(left_out)


def test_success_must_last_and_flicker_does_not_end_it() -> None:
    assert success_stamp_ns(sim([False] * 10 + [True] * 40)) is None
    held = sim([False] * 10 + ([True] * 20 + [False] * 5) * 3)
    assert success_stamp_ns(held) == START_NS + 100 * MS
    assert success_stamp_ns(sim([True] * 30 + [False] * 15 + [True] * 30)) is None


@given(st.lists(st.booleans(), max_size=120))
def test_success_is_never_found_where_less_than_half_a_second_is_left(success: list[bool]) -> None:
    found = success_stamp_ns(sim(success))
    if found is not None:
        index = (found - START_NS) // (10 * MS)
        assert success[index]
        assert len(success) - index > 50
        assert not any(not any(success[start : start + 10]) for start in range(index, index + 41))


def test_outcome_of_an_episode() -> None:
    found = figures(log({"mode": heartbeats(Mode.POLICY, 51), "sim_state": sim([False] * 40 + [True] * 60)}))
    assert (found["success"], found["stage"], found["seed"], found["policy"]) == (True, 4, 7, "demo")
    assert math.isclose(float(found["time_to_success_s"] or 0), 0.4)
    assert found["hold_cause"] == ""


def test_a_hold_says_its_cause() -> None:
    stopped = heartbeats(Mode.POLICY, 20) + heartbeats(Mode.HOLD, 5, START_NS + 20 * TICK_NS)
    stopped[-5].cause = "no action for 512 ms"
    assert figures(log({"mode": stopped}))["hold_cause"] == "no action for 512 ms"


def test_a_squeezing_gripper_and_a_shaped_motion_are_no_joint_held_off() -> None:
    states = followers(10)
    for state in states:
        state.held_off, state.shaped = 1 << 6 | 1 << 13, 1 << 2
    assert figures(log({"followers": states}))["arms_held_off"] == 0.0
    states[0].held_off |= 1 << 2
    assert figures(log({"followers": states}))["arms_held_off"] == pytest.approx(0.1)


def test_goals_outside_the_envelope_are_added_up_over_the_chains() -> None:
    content = {
        f"health.chain@{arm}": [
            Health(stamp_ns=START_NS, process=f"chain@{arm}", pid=1, figures={"goals_outside_envelope": n})
        ]
        for arm, n in (("follower_left", 2.0), ("follower_right", 1.0))
    }
    assert figures(log(content))["goals_outside_envelope"] == 3
    assert figures(log({}))["goals_outside_envelope"] is None
