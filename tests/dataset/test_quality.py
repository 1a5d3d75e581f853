"""Figures of a take, and which of them flag it."""

from dataclasses import replace

import numpy as np
import pytest

from aloha_runtime.config import QualityConfig
from aloha_runtime.control.sync import Observation
from aloha_runtime.data import quality, recorded
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
        "4.0 s at 50.0 Hz, 0 frames repeated, age p99 15 ms, skew p99 3 ms, targets clipped in 0%; good"
    )
    assert found["gripper_range"]["left"] == pytest.approx([0.0, 1.0])


def still(ticks: int) -> list[np.ndarray]:
    moving = np.linspace(0, 1, TICKS - ticks, dtype=np.float32)
    return list(np.concatenate([moving, np.full(ticks, 1.0, np.float32)])[:, None] * np.ones(DOF, np.float32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repeated": [[index < 3, False, False] for index in range(TICKS)]}, "a: 3 of 200 frames repeated"),
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


def state(stamp_ns: int, action_tick: int, target: float | None) -> ArmsState:
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
        mode=Mode.POLICY,
    )


def test_the_action_of_a_tick_is_the_first_that_was_taken_up_for_it() -> None:
    now_ns = 100 * TICK_NS
    states = [
        state(now_ns - 5 * MS, 99, 1.0),
        state(now_ns + 5 * MS, 99, 1.0),
        state(now_ns + 10 * MS, 100, 2.0),
        state(now_ns + 15 * MS, 101, 3.0),
    ]
    seen = Observation(now_ns, {}, {}, [0.0] * DOF, [0.0] * DOF, [0.0] * DOF, states[0], now_ns - 5 * MS, 0, 0)
    maker = FrameMaker([], 100, intervenes=True)
    assert maker.row(100, seen, states, (), {}, True, 0)["action"][0] == 2.0
    assert maker.row(100, seen, states[:2], (), {}, False, 0)["action"][0] == 1.0, "none came: the newest one"
    row = maker.row(101, None, states, (), {"temperature_left_elbow_c": 41.0}, True, 0)
    assert row["action"][0] == 1.0, "no joint state: the numbers before stand in"
    assert row["flags"].tolist() == [1.0, 1.0]
    assert row["frame_age_ms"][-1] == 25.0
    assert set(row) == set(recorded.vectors([])), "a rig without cameras"


def test_a_picture_that_stands_in_for_a_missing_one_is_flagged_in_its_row() -> None:
    now_ns = 100 * TICK_NS
    there = {"a": now_ns - 8 * MS, "b": now_ns - 12 * MS}
    seen = Observation(now_ns, {}, there, [0.0] * DOF, [0.0] * DOF, [0.0] * DOF, state(now_ns, 1, 1.0), now_ns, 0, 0)
    maker = FrameMaker(["a", "b"], 100, intervenes=False)
    whole = maker.row(100, seen, [state(now_ns, 1, 1.0)], (), {}, False, 0)
    assert not whole["flags"].any()
    without = replace(seen, frame_stamps_ns={"a": there["a"]})
    row = maker.row(101, without, [state(now_ns, 1, 1.0)], {"b"}, {}, False, 0)
    assert row["flags"].tolist() == [0, 1, 0, 0]
    blind = maker.row(102, None, [], {"a", "b"}, {}, False, 0)
    assert blind["flags"].tolist() == [1, 1, 1, 0]
    assert maker.takes.repeated == [[False, False, False], [False, True, False], [True, True, True]]
