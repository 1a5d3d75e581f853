"""Figures of a take, and which of them flag it."""

import numpy as np
import pytest

from aloha_runtime.config import QualityConfig
from aloha_runtime.control.sync import Observation
from aloha_runtime.data import ending, quality, recorded
from aloha_runtime.data.frame_maker import FrameMaker
from aloha_runtime.data.quality import Takes
from aloha_runtime.messages import MS, ArmsState, Mode
from aloha_runtime.robot import DOF, TICK_NS

TICKS = 200


def takes(**changes) -> Takes:
    """Four seconds of a good take of two cameras, all joints in motion."""
    pose = np.linspace(0, 1, TICKS, dtype=np.float32)[:, None] * np.ones(DOF, np.float32)
    good = {
        "ages_ms": [[12.0, 15.0, 4.0]] * TICKS,
        "skew_ms": [3.0] * TICKS,
        "repeated": [[False, False, False]] * TICKS,
        "late_action": [False] * TICKS,
        "lateness_ms": [0.5] * TICKS,
        "position": list(pose),
        "action": list(pose),
        "held_off": [0] * TICKS,
        "effort_ma": list(np.zeros((TICKS, DOF), np.float32)),
    }
    return Takes(["a", "b"], **(good | changes))


def flags(**changes) -> str:
    return "; ".join(quality.report(takes(**changes), TICKS, 0, QualityConfig(), 538.0)["flags"])


def test_a_good_take_is_not_flagged() -> None:
    found = quality.report(takes(), TICKS, 0, QualityConfig(), 538.0)
    assert found["flags"] == []
    assert quality.line(found) == (
        "4.0 s at 50.0 Hz, 0 frames repeated, 0 actions late, age p99 15 ms, skew p99 3 ms, targets clipped in 0%; good"
    )
    assert found["gripper_range"]["left"] == pytest.approx([0.0, 1.0])


def still(ticks: int) -> list[np.ndarray]:
    moving = np.linspace(0, 1, TICKS - ticks, dtype=np.float32)
    return list(np.concatenate([moving, np.full(ticks, 1.0, np.float32)])[:, None] * np.ones(DOF, np.float32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repeated": [[index < 3, False, False] for index in range(TICKS)]}, "a: 3 of 200 frames repeated"),
        ({"late_action": [index < 3 for index in range(TICKS)]}, "3 of 200 actions came too late"),
        ({"skipped": 5}, "5 ticks skipped"),
        ({"skew_ms": [40.0] * TICKS}, "cameras 40 ms apart"),
        ({"held_off": [1 << 2 | 1 << 6] * 20 + [0] * (TICKS - 20)}, "targets clipped in 10% of the ticks (left_elbow)"),
        ({"position": still(170)}, "still for 3.4 s at the end"),
        ({"counts": {"missed servo cycles": 9}}, "9 servo cycles missed"),
    ],
)
def test_what_misses_a_threshold_is_said(changes, words: str) -> None:
    assert words in flags(**changes)


def test_only_the_part_that_is_kept_counts() -> None:
    lost = takes(repeated=[[index >= 150] * 3 for index in range(TICKS)])
    assert quality.report(lost, 150, 0, QualityConfig(), 538.0)["flags"] == []
    assert "only 0.2 s long" in quality.report(lost, 10, 0, QualityConfig(), 538.0)["flags"]


def state(stamp_ns: int, action_tick: int, target: float | None, mode: Mode = Mode.POLICY) -> ArmsState:
    numbers = None if target is None else [target] * DOF
    place = [0.0] * DOF
    return ArmsState(
        stamp_ns=stamp_ns,
        position=place,
        velocity=place,
        effort_ma=place,
        target=numbers,
        goal=place,
        action_tick=action_tick,
        mode=mode,
    )


def observation(tick: int, **stamps_ns: int) -> Observation:
    place = [0.0] * DOF
    now_ns = tick * TICK_NS
    return Observation(now_ns, {}, stamps_ns, place, place, place, state(now_ns, -1, None), now_ns - 5 * MS, 0, 0)


def test_the_action_of_a_tick_is_the_first_that_was_taken_up_for_it() -> None:
    now_ns = 100 * TICK_NS
    states = [
        state(now_ns - 5 * MS, 99, 1.0),
        state(now_ns + 5 * MS, 99, 1.0),
        state(now_ns + 10 * MS, 100, 2.0, Mode.TELEOP),
        state(now_ns + 25 * MS, 101, 3.0),
    ]
    maker = FrameMaker([], 100, intervenes=True)
    row = maker.row(100, observation(100), states, (), {}, 0)
    assert row["action"][0] == 2.0
    assert row["flags"].tolist() == [0.0, 0.0]
    assert row["intervention"].tolist() == [True], "by the mode in which the arms followed that very action"
    row = maker.row(101, None, states, (), {}, 0)
    assert row["action"][0] == 3.0, "the joints did not come, the action did"
    assert row["flags"].tolist() == [1.0, 0.0]
    assert row["frame_age_ms"][-1] == 25.0
    assert row["intervention"].tolist() == [False]
    assert set(row) == {*recorded.vectors([]), recorded.INTERVENTION, *ending.COLUMNS}, "a rig without cameras"


def test_an_action_that_came_too_late_is_marked_and_counted() -> None:
    """Neither the action before nor the one after passes for it."""
    now_ns = 100 * TICK_NS
    states = [state(now_ns - 5 * MS, 99, 1.0), state(now_ns + 15 * MS, 99, 1.0), state(now_ns + 45 * MS, 102, 3.0)]
    maker = FrameMaker([], 100, intervenes=False)
    for tick in (100, 101):
        row = maker.row(tick, observation(tick), states, (), {}, 0)
        assert row["action"][0] == 1.0, "what the arms still followed"
        assert row["flags"].tolist() == [0.0, 1.0]
    assert maker.row(102, observation(102), states, (), {}, 0)["flags"].tolist() == [0.0, 0.0]
    nothing = FrameMaker([], 100, intervenes=False).row(100, observation(100), [], (), {}, 0)
    assert (nothing["action"][0], nothing["flags"].tolist()) == (0.0, [0.0, 1.0]), "they stand"
    assert maker.takes.late_action == [True, True, False]
    figures = quality.report(maker.takes, 3, 0, QualityConfig(shortest_s=0), 538.0)
    assert figures["late_actions"] == 2
    assert figures["flags"][0] == "2 of 3 actions came too late"
    assert "2 actions late" in quality.line(figures)


def test_a_dataset_of_an_older_version_keeps_its_flags() -> None:
    states = [state(100 * TICK_NS + 5 * MS, 100, 2.0, Mode.TELEOP)]
    maker = FrameMaker([], 100, True, ["repeated_joints", "intervention"])
    assert maker.row(100, observation(100), states, (), {}, 0)["flags"].tolist() == [0.0, 1.0]


def test_a_picture_that_stands_in_for_a_missing_one_is_flagged_in_its_row() -> None:
    now_ns = 100 * TICK_NS
    there = {"a": now_ns - 8 * MS, "b": now_ns - 12 * MS}
    states = [state(now_ns + 5 * MS + index * TICK_NS, 100 + index, 1.0) for index in range(2)]
    maker = FrameMaker(["a", "b"], 100, intervenes=False)
    assert not maker.row(100, observation(100, **there), states, (), {}, 0)["flags"].any()
    row = maker.row(101, observation(101, a=there["a"]), states, {"b"}, {}, 0)
    assert row["flags"].tolist() == [0, 1, 0, 0]
    blind = maker.row(102, None, [], {"a", "b"}, {}, 0)
    assert blind["flags"].tolist() == [1, 1, 1, 1]
    assert maker.takes.repeated == [[False, False, False], [False, True, False], [True, True, True]]
