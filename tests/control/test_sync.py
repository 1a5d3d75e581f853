"""The observation of a moment, against brute force over everything that was ever added."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.control.sync import FRAMES_KEPT, STATES_KEPT, Missing, Observation, Synchroniser
from aloha_runtime.messages import ArmsState

MS = 1_000_000
AGES = {"cam_high": 100, "cam_low": 50}


def state(stamp_ns, value=0.0, valid=True):
    return ArmsState(
        stamp_ns=stamp_ns, position=[value] * 14, velocity=[2 * value] * 14, effort_ma=[3 * value] * 14, valid=valid
    )


stamps = st.integers(0, 300 * MS)
additions = st.lists(
    st.tuples(st.sampled_from(["cam_high", "cam_low", "state"]), stamps, st.booleans() | st.just(True)), max_size=60
)


def newest(history, source, kept, moment):
    """Newest valid one not after the moment among the `kept` newest valid ones of the source, by a full search."""
    mine = sorted((stamp for name, stamp, valid in history if name == source and valid))[-kept:]
    return max((stamp for stamp in mine if stamp <= moment), default=None)


@given(history=additions, moment=stamps)
def test_equals_brute_force_for_any_order_of_arrival(history, moment):
    sync = Synchroniser(AGES, 40)
    for name, stamp, valid in history:
        if name == "state":
            sync.add_state(state(stamp, float(stamp), valid))
        else:
            sync.add_frame(name, stamp, valid, (name, stamp))
    found = sync.observation(moment)
    frames = {camera: newest(history, camera, FRAMES_KEPT, moment) for camera in AGES}
    joints = newest(history, "state", STATES_KEPT, moment)
    ages = {**{camera: (stamp, AGES[camera]) for camera, stamp in frames.items()}, "followers": (joints, 40)}
    bad = [name for name, (stamp, age) in ages.items() if stamp is None or moment - stamp > age * MS]
    if bad:
        assert isinstance(found, Missing)
        assert found.source == bad[0]
        stamp, allowed = ages[bad[0]]
        assert found.age_ms == (None if stamp is None else (moment - stamp) / MS)
        assert found.reason.startswith(bad[0])
        assert stamp is None or f"{(moment - stamp) / MS:.0f} ms old, allowed are {allowed} ms" in found.reason
        return
    assert isinstance(found, Observation)
    assert found.frames == {camera: (camera, stamp) for camera, stamp in frames.items()}
    assert found.frame_stamps_ns == frames
    assert found.state_stamp_ns == joints
    assert found.position == [joints] * 14
    assert found.velocity == [2 * joints] * 14
    assert found.effort_ma == [3 * joints] * 14
    assert found.camera_skew_ns == abs(frames["cam_high"] - frames["cam_low"])
    assert found.joint_skew_ns == abs(joints - max(frames.values()))
    assert found.frame_age_ns == moment - min(frames.values())
    assert found.oldest_stamp_ns == min(joints, *frames.values())
    assert found.stamp_ns == moment
    assert found.tick == moment // (20 * MS)
    assert sync.invalid == {
        name: sum(1 for source, _, valid in history if source == key and not valid)
        for name, key in (("cam_high", "cam_high"), ("cam_low", "cam_low"), ("followers", "state"))
    }


def test_a_moment_between_two_frames_takes_the_earlier_one():
    sync = Synchroniser({"cam_high": 100})
    sync.add_state(state(100 * MS))
    for stamp in (90 * MS, 100 * MS, 101 * MS):
        sync.add_frame("cam_high", stamp, True, stamp)
    assert sync.observation(100 * MS).frames["cam_high"] == 100 * MS
    assert sync.observation(100 * MS - 1).reason.startswith("followers: no valid joint state")
    sync.add_state(state(95 * MS))
    assert sync.observation(100 * MS - 1).frames["cam_high"] == 90 * MS


def test_invalid_frames_never_stand_in():
    sync = Synchroniser({"cam_high": 100})
    sync.add_state(state(0))
    sync.add_frame("cam_high", 0, False, "bad")
    assert sync.observation(0).reason == "cam_high: no valid frame yet"
    assert sync.invalid["cam_high"] == 1


@given(st.integers(0, 40 * MS), st.integers(1, 40 * MS), st.integers(0, 100))
def test_interpolation_is_on_the_line_between_the_two_around(first, gap, share):
    sync = Synchroniser({}, 40, interpolate=True)
    sync.add_state(state(first, 1.0))
    sync.add_state(state(first + gap, 3.0))
    moment = first + gap * share // 100
    found = sync.observation(moment)
    exact = 1.0 + 2.0 * (moment - first) / gap
    assert found.position == pytest.approx([exact] * 14)
    assert found.velocity == pytest.approx([2 * exact] * 14)
    assert found.effort_ma == pytest.approx([3 * exact] * 14)


def test_interpolation_does_not_bridge_a_gap_nor_look_where_nothing_is():
    sync = Synchroniser({}, 40, interpolate=True)
    sync.add_state(state(0, 1.0))
    assert sync.observation(10 * MS).position == [1.0] * 14
    sync.add_state(state(60 * MS, 3.0))
    assert sync.observation(10 * MS).position == [1.0] * 14
    assert sync.observation(10 * MS).state_stamp_ns == 0
    assert sync.observation(20 * MS).state_stamp_ns == 20 * MS


def test_without_interpolation_the_future_is_not_looked_at():
    sync = Synchroniser({}, 40)
    sync.add_state(state(0, 1.0))
    sync.add_state(state(10 * MS, 3.0))
    found = sync.observation(9 * MS)
    assert found.position == [1.0] * 14
    assert (found.camera_skew_ns, found.joint_skew_ns, found.frame_age_ns) == (0, 0, 0)


def test_buffers_are_bounded():
    sync = Synchroniser({"cam_high": 100})
    for index in range(10_000):
        sync.add_frame("cam_high", index * MS, True, index)
        sync.add_state(state(index * MS))
    assert len(sync._frames["cam_high"]) == FRAMES_KEPT
    assert len(sync._states) == STATES_KEPT


def test_an_unknown_camera_is_an_error():
    with pytest.raises(KeyError):
        Synchroniser({"cam_high": 100}).add_frame("cam_low", 0, True, None)
