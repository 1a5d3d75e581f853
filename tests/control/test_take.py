"""When a take begins and ends."""

from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.control.take import Ending, Phase, Take, TakeLimits
from aloha_runtime.messages import Mode


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
