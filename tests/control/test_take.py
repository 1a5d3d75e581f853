"""When a take begins and ends, and the signs that the leader grippers give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.control.take import SQUEEZE_NS, Ending, Phase, SignDetector, Take, TakeLimits
from aloha_runtime.control.teleop import SqueezeDetector
from aloha_runtime.messages import MS, Mode
from aloha_runtime.robot import DOF, KITS

KIT = KITS["aloha"]
STEP_NS = 5 * MS


def leaders(left: bool, right: bool) -> np.ndarray:
    angles = np.full(DOF, 0.8)
    angles[6], angles[13] = (0.0 if left else 0.8), (0.0 if right else 0.8)
    return angles


def signs(*parts: tuple[int, bool, bool]) -> list[tuple[int, int]]:
    """What a detector says of parts (duration in ms, left squeezed, right squeezed): (squeezes, began ms)."""
    detector = SignDetector(SqueezeDetector())
    found, now_ns = [], 10_000 * MS
    start_ns = now_ns
    for duration_ms, left, right in parts:
        for _ in range(duration_ms * MS // STEP_NS):
            said = detector.update(now_ns, leaders(left, right))
            now_ns += STEP_NS
            if said:
                found.append((said[0], (said[1] - start_ns) // MS))
    return found


OPEN, BOTH, LEFT = (False, False), (True, True), (True, False)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_quick_squeezes_of_both_grippers_are_a_sign(count):
    squeezes = [(200, *BOTH), (300, *OPEN)] * count
    assert signs((1000, *OPEN), *squeezes, (1000, *OPEN)) == [(count, 700)]


@pytest.mark.parametrize(
    "parts",
    [
        [(200, *BOTH), (2000, *OPEN)],  # one squeeze
        [(1500, *BOTH), (300, *OPEN), (200, *BOTH), (1000, *OPEN)],  # an object was held, then one squeeze
        [(200, *LEFT), (300, *OPEN), (200, *LEFT), (1000, *OPEN)],  # one gripper alone
        [(200, *BOTH), (1000, *OPEN), (200, *BOTH), (1000, *OPEN)],  # too slow
    ],
)
def test_work_is_no_sign(parts):
    assert signs((1000, *OPEN), *parts) == []


def test_the_squeeze_that_started_the_arms_does_not_count():
    assert signs((100, *BOTH), (200, *OPEN), (200, *BOTH), (300, *OPEN), (1000, *OPEN)) == []


def test_a_sign_after_holding_something_counts_from_its_own_beginning():
    assert signs((3000, *BOTH), (900, *OPEN), *[(200, *BOTH), (300, *OPEN)] * 2, (800, *OPEN)) == [(2, 3600)]


def run(take: Take, ticks: int, mode: Mode = Mode.TELEOP, missing: str = "") -> Ending | None:
    for _ in range(ticks):
        ending = take.tick(mode, "because", missing)
        if ending:
            return ending
    return None


def test_a_take_begins_with_motion_after_it_was_asked_for():
    take = Take(TakeLimits())
    run(take, 5)
    assert take.phase is Phase.IDLE
    take.next()
    run(take, 5, Mode.ARMED)
    assert take.phase is Phase.READY
    run(take, 5, Mode.TELEOP, missing="cam_high: no valid frame yet")
    assert take.phase is Phase.READY
    run(take, 7)
    assert (take.phase, take.frames) == (Phase.TAKING, 7)
    assert take.end(Ending(True, "asked")) == ""
    assert run(take, 1) == Ending(True, "asked")
    assert (take.phase, take.frames) == (Phase.IDLE, 7)
    assert "nothing is being recorded" in take.end(Ending(True, "asked"))


def test_arms_that_stop_end_the_take_with_their_reason():
    take = Take(TakeLimits())
    take.next()
    run(take, 10)
    ending = run(take, 1, Mode.HOLD)
    assert ending is not None
    assert ending.keep
    assert "hold: because" in ending.cause


def test_a_second_without_anything_to_record_ends_the_take_and_is_left_out():
    take = Take(TakeLimits())
    take.next()
    run(take, 10)
    run(take, 49, missing="cam_high: gone")
    run(take, 3)
    assert run(take, 50, missing="cam_high: gone") is None
    ending = run(take, 1, missing="cam_high: gone")
    assert ending is not None
    assert (ending.keep, ending.drop, take.frames) == (True, 50, 10 + 49 + 3 + 50)
    assert "1.0 s: cam_high: gone" in ending.cause


def test_the_longest_take_and_what_follows_it():
    take = Take(TakeLimits(max_ticks=20), continuous=True)  # nobody says `next` where systemd runs the recorder
    ending = run(take, 100)
    assert ending is not None
    assert (take.frames, take.phase) == (20, Phase.READY)
    run(take, 4)
    assert (take.frames, take.phase) == (4, Phase.TAKING)


@given(st.lists(st.tuples(st.sampled_from(list(Mode)), st.booleans(), st.sampled_from(["", "next", "end", "cancel"]))))
def test_frames_are_only_taken_while_the_arms_move_and_every_take_ends_once(events):
    take, open_take = Take(TakeLimits(lost_ticks=3, max_ticks=10)), False
    for mode, missing, order in events:
        if order == "end":
            take.end(Ending(True, "asked"))
        elif order:
            getattr(take, order)()
        before = take.frames
        ending = take.tick(mode, "", "gone" if missing else "")
        if ending:
            assert open_take
            assert 0 <= ending.drop <= before
        open_take = take.phase is Phase.TAKING
        assert not open_take or mode in (Mode.TELEOP, Mode.POLICY, Mode.REPLAY)
        assert take.frames <= 10


def test_a_squeeze_longer_than_a_sign_allows_is_work():
    held = SQUEEZE_NS // MS + 10
    assert signs((1000, *OPEN), (held, *BOTH), (100, *OPEN), (held, *BOTH), (1000, *OPEN)) == []
