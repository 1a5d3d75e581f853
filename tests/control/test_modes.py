"""The state machine: every verb in every mode, every event in every mode, and rules that no sequence breaks."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.control.events import ArmsHeard, BlockerChanged, FaultChanged, Heard, HoldAsked
from aloha_runtime.control.modes import HISTORY, ModeMachine
from aloha_runtime.messages import NOT_NAMED_YET, ArmsState, Mode, Request

MS = 1_000_000
ARMS = ("arms@followers", "arms@leaders")
MOVING = {Mode.TELEOP: "teleop", Mode.POLICY: "policy", Mode.REPLAY: "replay"}
N, A, T, P, R, H, K, F = (
    Mode.IDLE,
    Mode.ARMED,
    Mode.TELEOP,
    Mode.POLICY,
    Mode.REPLAY,
    Mode.HOLD,
    Mode.PARK,
    Mode.FAULT,
)

# Rows: verb; columns: mode before; entries: mode after, None where it is refused.
TABLE = {
    #            N     A  T     P     R     H     K     F
    "arm": [A, A, None, None, None, A, None, A],
    "teleop": [None, T, T, None, None, None, None, None],
    "policy": [None, P, None, P, None, None, None, None],
    "replay": [None, R, None, None, R, None, None, None],
    "takeover": [None, None, T, T, None, None, None, None],
    "handback": [None, None, None, P, None, None, None, None],  # from TELEOP: only of a policy, see below
    "stop": [N, H, H, H, H, H, H, F],
    "park": [N, K, None, None, None, K, K, K],
    "shutdown": [N, K, K, K, K, K, K, F],
    "status": [N, A, T, P, R, H, K, F],
    "dance": [None] * 8,
}
COLUMNS = [N, A, T, P, R, H, K, F]


class Bench:
    """A machine with its time, and everybody alive."""

    def __init__(self):
        self.now = 1000 * MS
        self.machine = ModeMachine(self.now)
        self.alive()

    def alive(self, settled=False):
        """Everybody is heard now; the arms obey, and say whether they have settled."""
        self.now += MS
        for driver in MOVING.values():
            self.machine.hear([Heard(driver, self.now)], self.now)
        for source in ARMS:
            self.arms(source, settled=settled)

    def others(self, ms):
        """Time passes in which everybody is heard but the arms and those who drive them."""
        for _ in range(ms // 20):
            self.now += 20 * MS
            self.machine.hear([Heard("camera@cam_high", self.now)], self.now)

    def arms(self, source, order_ns=None, stamp_ns=None, **fields):
        """One pair reports. `order_ns`: what it has taken up; None: the newest."""
        return self.machine.hear([self.report(source, order_ns, stamp_ns, **fields)], self.now)

    def report(self, source, order_ns=None, stamp_ns=None, **fields):
        stamp = self.now if stamp_ns is None else stamp_ns
        order = self.machine.order_ns if order_ns is None else order_ns
        return ArmsHeard(
            source, ArmsState(stamp_ns=stamp, position=[], velocity=[], effort_ma=[], order_ns=order, **fields)
        )

    def hold(self, cause="late ticks"):
        self.now += MS
        return self.machine.hear([HoldAsked(cause, self.now)], self.now)

    def fault(self, source, cause):
        return self.machine.hear([FaultChanged(source, cause, self.now)], self.now)

    def ask(self, verb, operator=True, argument="", stamp_ns=0):
        self.now += MS
        request = Request(verb=verb, argument=argument, sender="test", stamp_ns=stamp_ns)
        return self.machine.ask(request, self.now, operator)

    def to(self, mode):
        if mode is F:
            self.fault("servo", "overload")
            self.fault("servo", "")
        elif mode is not N:
            assert self.ask("arm").ok
            self.alive(settled=True)
            if mode is H:
                assert self.ask("stop").ok
            elif mode is K:
                assert self.ask("park").ok
            elif mode is not A:
                assert self.ask(MOVING[mode]).ok
        assert self.machine.mode is mode
        return self


@pytest.mark.parametrize("verb", TABLE)
@pytest.mark.parametrize("before", COLUMNS)
def test_every_verb_in_every_mode(before, verb):
    bench = Bench().to(before)
    decision = bench.ask(verb)
    after = TABLE[verb][COLUMNS.index(before)]
    assert decision.ok == (after is not None)
    assert decision.mode is bench.machine.mode is (after or before)
    assert decision.text
    if after is not None and after is not before:
        assert decision.changed
        assert bench.machine.cause == f"{verb} by test"
        assert bench.machine.history[-1].before is before


@pytest.mark.parametrize("before", COLUMNS)
@pytest.mark.parametrize("verb", ["arm", "park", "shutdown"])
def test_only_the_operator_arms_parks_and_shuts_down(before, verb):
    bench = Bench().to(before)
    decision = bench.ask(verb, operator=False)
    assert not decision.ok
    assert not decision.changed
    assert not decision.shutdown
    assert decision.text == f"only the operator may {verb}"
    assert bench.ask("stop", operator=False).ok


@pytest.mark.parametrize("before", COLUMNS)
def test_fault_and_hold_from_anywhere(before):
    bench = Bench().to(before)
    bench.hold()
    assert bench.machine.mode is (before if before in (N, H, F) else H)
    assert before in (N, H, F) or bench.machine.cause == "late ticks"
    bench.fault("arms@followers", "left_elbow overload")
    assert bench.machine.mode is F
    if before is not F:
        assert bench.machine.cause == "arms@followers: left_elbow overload"
    assert bench.machine.faults == {"arms@followers": "left_elbow overload"}


def test_a_fault_that_lasts_keeps_the_arms_unarmed():
    bench = Bench().to(T)
    bench.arms("arms@followers", fault=True, hold_cause="left_elbow: overload (bit 5)")
    assert bench.machine.mode is F
    for verb in ("arm", "park"):
        refused = bench.ask(verb)
        assert not refused.ok
        assert refused.text == "arms@followers: left_elbow: overload (bit 5)"
    bench.arms("arms@followers")
    assert bench.machine.mode is F
    assert bench.machine.faults == {}
    assert bench.ask("arm").mode is A


def test_a_fault_without_words_is_a_fault():
    bench = Bench()
    bench.arms("arms@leaders", fault=True)
    assert bench.machine.cause == "arms@leaders: fault without a cause"


def test_blockers_keep_idle_arms_idle():
    bench = Bench()
    bench.machine.hear([BlockerChanged("realtime", "no real-time priority; see `aloha doctor`", bench.now)], bench.now)
    assert bench.ask("arm").text == "realtime: no real-time priority; see `aloha doctor`"
    bench.machine.hear([BlockerChanged("realtime", "", bench.now)], bench.now)
    assert bench.ask("arm").ok


def test_arms_that_are_not_ready_are_not_armed_and_say_why():
    bench = Bench()
    why = "follower_left: temperature, voltage and watchdog of elbow have not been heard for 2.4 s; check the cables"
    bench.arms("arms@followers", unready=why)
    refused = bench.ask("arm")
    assert (refused.ok, refused.mode) == (False, N)
    assert why in refused.text
    bench.arms("arms@followers")
    assert bench.ask("arm").ok


def test_the_name_of_a_silent_servo_replaces_the_cause_that_it_is_being_found_out():
    bench = Bench()
    bench.ask("arm")
    bench.alive()
    bench.arms("arms@followers", hold_cause=f"follower_left: {NOT_NAMED_YET} (103 ms), then `aloha arm`")
    assert bench.machine.mode is H
    assert NOT_NAMED_YET in bench.machine.cause
    bench.arms("arms@leaders", hold_cause="another trouble")
    assert NOT_NAMED_YET in bench.machine.cause
    bench.arms("arms@followers", hold_cause="follower_left: elbow silent for 140 ms")
    assert bench.machine.cause == "arms@followers: follower_left: elbow silent for 140 ms"
    bench.arms("arms@followers", hold_cause="follower_left: elbow silent for 145 ms")
    assert "140 ms" in bench.machine.cause


def test_arms_must_be_heard_before_they_are_armed():
    machine = ModeMachine(0)
    refused = machine.ask(Request(verb="arm"), 0, operator=True)
    assert "arms@followers has not been heard yet" in refused.text
    bench = Bench()
    bench.others(600)
    assert "arms@followers has been silent for 601 ms" in bench.ask("arm").text


def test_a_rig_without_leaders_needs_none():
    machine = ModeMachine(1, arms=("arms@followers",))
    state = ArmsState(stamp_ns=1, position=[], velocity=[], effort_ma=[], order_ns=machine.order_ns)
    machine.hear([ArmsHeard("arms@followers", state)], 1)
    assert machine.ask(Request(verb="arm"), 1, operator=True).ok


@pytest.mark.parametrize("verb", ["teleop", "policy", "replay"])
def test_motion_waits_for_settled_arms_and_a_live_driver(verb):
    bench = Bench()
    bench.ask("arm")
    assert bench.ask(verb).text.startswith("arms@followers and arms@leaders still on the way")
    bench.now += MS
    bench.arms("arms@followers", settled=True)
    assert bench.ask(verb).text.startswith("arms@leaders still on the way")
    bench.arms("arms@leaders", settled=True, order_ns=bench.machine.order_ns - 1)
    assert not bench.ask(verb).ok
    bench.arms("arms@leaders", settled=True)
    assert bench.ask(verb).ok


def test_a_driver_that_was_never_heard_cannot_start():
    machine = ModeMachine(1)
    for now, settled in ((1, False), (3, True)):
        for source in ARMS:
            state = ArmsState(
                stamp_ns=now, position=[], velocity=[], effort_ma=[], order_ns=machine.order_ns, settled=settled
            )
            machine.hear([ArmsHeard(source, state)], now)
        if now == 1:
            machine.ask(Request(verb="arm"), 2, operator=True)
    assert "policy has not been heard yet" in machine.ask(Request(verb="policy"), 4).text


@pytest.mark.parametrize("mode", MOVING)
def test_a_silent_driver_holds_and_silent_arms_fault(mode):
    bench = Bench().to(mode)
    start = bench.now
    for now in range(start, start + 499 * MS, 10 * MS):
        bench.now = now
        for source in ARMS:
            bench.arms(source)
        assert bench.machine.mode is mode
    bench.now = start + 511 * MS
    for source in ARMS:
        bench.arms(source)
    assert bench.machine.mode is H
    assert bench.machine.cause.startswith(f"{MOVING[mode]} has been silent for 5")
    bench.others(500)
    assert bench.machine.mode is H
    bench.machine.hear([], bench.now + MS)
    assert bench.machine.mode is F
    assert "arms@followers has been silent for 501 ms" in bench.machine.cause


STALL = r"this computer stood still for \d+ ms; close other programs, see `aloha bench jitter`"


@pytest.mark.parametrize("mode", MOVING)
def test_when_nobody_at_all_is_heard_the_computer_stood_still(mode):
    bench = Bench().to(mode)
    for now in range(bench.now, bench.now + 500 * MS, 20 * MS):
        bench.machine.hear([], now)
        assert bench.machine.mode is mode
    bench.machine.hear([], now + 30 * MS)
    assert bench.machine.mode is H, "not a fault: the arms are there as soon as anybody is"
    assert re.fullmatch(STALL, bench.machine.cause)
    bench.now = now + 40 * MS
    bench.alive()
    bench.machine.hear([], bench.now)
    assert bench.machine.mode is H


def test_arms_that_stay_silent_when_the_others_are_back_are_named():
    bench = Bench().to(P)
    for _ in range(26):
        bench.now += 20 * MS
        bench.machine.hear([], bench.now)
    assert bench.machine.mode is H
    bench.arms("arms@leaders")
    for _ in range(30):
        bench.arms("arms@leaders")
        bench.others(20)
    assert bench.machine.mode is F
    assert bench.machine.cause.startswith("arms@followers has been silent for")


@pytest.mark.parametrize("mode", [A, *MOVING, K])
def test_a_supervisor_that_stood_still_accuses_nobody(mode):
    """Its turns stop for 0.7 s; of all that waits it reads the followers first."""
    bench = Bench().to(mode)
    bench.machine.hear([], bench.now)
    bench.now += 700 * MS
    bench.arms("arms@followers")
    assert bench.machine.mode is H
    assert re.fullmatch(STALL, bench.machine.cause)
    bench.alive()
    assert bench.machine.mode is H


def test_one_who_is_silent_on_a_computer_that_stands_still_for_a_moment_is_named():
    bench = Bench().to(P)
    bench.machine.hear([], bench.now)
    bench.now += 200 * MS
    for _ in range(20):
        for source in ARMS:
            bench.arms(source)
        bench.others(20)
    assert bench.machine.mode is H
    assert bench.machine.cause.startswith("policy has been silent for 5")


def test_nobody_silent_for_a_second_is_excused_for_ever():
    bench = Bench().to(T)
    for _ in range(80):
        bench.now += 20 * MS
        bench.machine.hear([], bench.now)
    assert bench.machine.mode is F
    assert "arms@followers has been silent for 10" in bench.machine.cause


def test_what_a_stall_is_said_of_names_no_arm_until_a_servo_is_found_dead():
    bench = Bench().to(P)
    bench.arms("arms@followers", hold_cause="this computer stood still for 140 ms; close other programs")
    assert (bench.machine.mode, bench.machine.cause) == (
        H,
        "this computer stood still for 140 ms; close other programs",
    )
    bench.arms("arms@followers", hold_cause="follower_left: elbow silent for 260 ms")
    assert (bench.machine.mode, bench.machine.cause) == (H, "arms@followers: follower_left: elbow silent for 260 ms")
    bench.arms("arms@followers", hold_cause="this computer stood still for 140 ms; close other programs")
    assert bench.machine.cause == "arms@followers: follower_left: elbow silent for 260 ms"


@pytest.mark.parametrize(("argument", "cause"), [("", "stop by test"), ("routine", "routine stop by test")])
def test_a_command_says_that_its_stop_is_a_routine(argument, cause):
    bench = Bench().to(T)
    assert bench.ask("stop", argument=argument).ok
    assert (bench.machine.mode, bench.machine.cause) == (H, cause)


@pytest.mark.parametrize("mode", [N, F])
def test_silence_means_nothing_where_nothing_moves(mode):
    bench = Bench().to(mode)
    bench.machine.hear([], bench.now + 10_000 * MS)
    assert bench.machine.mode is mode


@pytest.mark.parametrize("mode", [A, T, P, R, K])
def test_the_gate_asks_for_hold(mode):
    bench = Bench().to(mode)
    bench.arms("arms@followers", hold_cause="no action for 505 ms")
    assert bench.machine.mode is H
    assert bench.machine.cause == "arms@followers: no action for 505 ms"


def test_what_arms_hold_for_names_the_driver_that_has_not_been_heard():
    bench = Bench()
    bench.to(P)
    bench.now += 400 * MS
    bench.arms("arms@leaders")
    bench.arms("arms@followers", hold_cause="no action for 405 ms")
    assert bench.machine.mode is H
    assert re.fullmatch(
        r"arms@followers: no action for 405 ms \(policy was last heard 40\d ms ago\)", bench.machine.cause
    )


def test_what_arms_say_of_an_earlier_order_is_not_held_against_the_new_one_until_they_should_have_taken_it_up():
    bench = Bench().to(H)
    before = bench.machine.order_ns
    bench.ask("arm")
    bench.arms("arms@followers", order_ns=before, hold_cause="the supervisor is silent")
    assert bench.machine.mode is A
    bench.now = bench.machine.order_ns + 100 * MS
    bench.arms("arms@followers", order_ns=before, hold_cause="the supervisor is silent")
    assert bench.machine.mode is A
    bench.now += MS
    bench.arms("arms@followers", order_ns=before, hold_cause="the supervisor is silent")
    assert bench.machine.mode is H
    assert bench.machine.cause == "arms@followers has not taken up ARMED within 100 ms; the supervisor is silent"


@pytest.mark.parametrize("mode", [A, T, P, R, K])
def test_a_hold_between_two_states_that_arrive_together_is_not_lost(mode):
    bench = Bench().to(mode)
    order, start = bench.machine.order_ns, bench.now
    bench.now += MS
    causes = ("", "left_elbow did not arrive", "")
    states = [bench.report(ARMS[0], order, start + n, hold_cause=cause) for n, cause in enumerate(causes)]
    bench.machine.hear(states, bench.now)
    assert bench.machine.mode is H
    assert bench.machine.cause == "arms@followers: left_elbow did not arrive"


def test_messages_are_taken_in_the_order_of_their_stamps_and_judged_by_them():
    bench = Bench().to(P)
    fault = FaultChanged("servo", "overload", bench.now + 1)
    gone = FaultChanged("servo", "", bench.now + 2)
    bench.machine.hear([gone, fault], bench.now + MS)
    assert bench.machine.faults == {}
    assert bench.machine.mode is F
    bench = Bench().to(P)
    late = Heard("policy", bench.now)  # read now, said long ago
    for _ in range(26):
        bench.now += 20 * MS
        bench.machine.hear([*map(bench.report, ARMS), late], bench.now)
    assert bench.machine.cause.startswith("policy has been silent for 52")


@pytest.mark.parametrize("mode", [A, T, P, R, K])
def test_hold_is_asked_for_what_moves_now_and_not_for_what_moved_before(mode):
    bench = Bench().to(mode)
    bench.machine.hear([HoldAsked("guard: too near", bench.machine.order_ns - 1)], bench.now)
    assert bench.machine.mode is mode
    bench.machine.hear([HoldAsked("guard: too near", bench.machine.order_ns)], bench.now)
    assert bench.machine.mode is H


@pytest.mark.parametrize("mode", [A, T, P, R, K])
@pytest.mark.parametrize("first", ["hear", "ask", "heartbeat"])
def test_a_supervisor_that_stood_still_holds_before_it_says_or_obeys_anything(mode, first):
    bench = Bench().to(mode)
    bench.machine.heartbeat(bench.now, 0)
    bench.now += 200 * MS
    drivers = [Heard(driver, bench.now) for driver in MOVING.values()]
    bench.machine.hear([*map(bench.report, ARMS), *drivers], bench.now)
    assert bench.machine.mode is mode  # the arms have heard all that time
    bench.now += MS
    asked_ns = bench.now - 100 * MS
    if first == "hear":
        bench.machine.hear([], bench.now)
    elif first == "ask":
        assert not bench.ask("arm", stamp_ns=asked_ns).ok
    assert bench.machine.heartbeat(bench.now, 0).mode is H
    assert bench.machine.cause == (
        f"this computer stood still for {202 if first == 'ask' else 201} ms; close other programs, see"
        " `aloha bench jitter`; then arm again"
    )
    assert "asked for before HOLD (this computer stood still" in bench.ask("arm", stamp_ns=asked_ns).text
    assert bench.ask("arm", stamp_ns=bench.now).ok


@pytest.mark.parametrize("verb", ["arm", "park", "shutdown"])
def test_what_was_asked_for_before_a_hold_moves_nothing(verb):
    bench = Bench().to(T)
    asked_ns = bench.now
    bench.hold()
    refused = bench.ask(verb, stamp_ns=asked_ns)
    assert not refused.ok
    assert refused.text == f"{verb} was asked for before HOLD (late ticks); look at the arms, then ask again"
    assert bench.machine.mode is H
    assert bench.ask("stop", stamp_ns=asked_ns).ok
    assert bench.ask(verb, stamp_ns=bench.now).ok


def test_what_was_asked_of_a_supervisor_that_died_is_not_obeyed_by_the_next():
    bench = Bench()
    assert "asked for before the supervisor started" in bench.ask("arm", stamp_ns=bench.now - 10 * MS).text


@pytest.mark.parametrize("verb", ["arm", "park", "shutdown", "stop"])
def test_a_request_that_lay_in_a_queue_for_a_second_starts_no_motion(verb):
    bench = Bench().to(H)
    bench.now += 2000 * MS
    bench.machine.hear(map(bench.report, ARMS), bench.now)
    decision = bench.ask(verb, stamp_ns=bench.now - 1000 * MS)
    assert decision.ok == (verb == "stop")
    if verb != "stop":
        assert decision.text == f"{verb} was asked for 1001 ms ago; look at the arms, then ask again"


@pytest.mark.parametrize("ahead_ns", [1, 3600 * 1000 * MS, 1 << 62])
@pytest.mark.parametrize("verb", ["arm", "park", "shutdown"])
def test_a_request_of_a_clock_that_is_ahead_starts_no_motion(verb, ahead_ns):
    bench = Bench().to(H)
    refused = bench.ask(verb, stamp_ns=bench.now + MS + ahead_ns)
    assert not refused.ok
    assert "comes from a clock" in refused.text
    assert bench.machine.mode is H


def test_a_stop_of_a_clock_that_is_ahead_voids_nothing_of_later():
    bench = Bench().to(T)
    assert bench.ask("stop", stamp_ns=bench.now + 3600 * 1000 * MS).ok
    assert bench.machine.heartbeat(bench.now, 0).asked_ns == bench.now
    assert bench.ask("arm", stamp_ns=bench.now).ok


def test_orders_are_unique_and_increase_and_say_when_they_were_asked_for():
    bench = Bench()
    orders = [bench.machine.heartbeat(bench.now, 0)]
    for verb in ("arm", "stop", "arm", "stop"):  # all of them at one instant
        request = Request(verb=verb, sender="test", stamp_ns=bench.now)
        assert bench.machine.ask(request, bench.now, operator=True).ok
        orders.append(bench.machine.heartbeat(bench.now, 0))
    numbers = [order.order_ns for order in orders]
    assert numbers == sorted(set(numbers))
    assert {order.asked_ns for order in orders[1:]} == {bench.now}


@pytest.mark.parametrize("verb", ["park", "shutdown"])
def test_arms_that_a_restarted_supervisor_finds_with_torque_are_parked(verb):
    """It begins in IDLE, and whoever is told that they are parked cuts their power."""
    bench = Bench()
    bench.arms("arms@followers", goal=[0.0] * 14)
    assert bench.ask(verb).mode is K
    bench.arms("arms@followers", settled=True)
    last = bench.arms("arms@leaders", settled=True)
    assert (last.mode, last.shutdown) == (N, verb == "shutdown")


@pytest.mark.parametrize("verb", ["park", "shutdown"])
def test_arms_without_torque_are_parked_already(verb):
    bench = Bench()
    bench.arms("arms@followers", goal=[0.0] * 14)
    bench.arms("arms@followers")
    assert bench.ask(verb).mode is N


def test_arms_that_were_restarted_are_said_to_be():
    bench = Bench().to(T)
    bench.now += 10_000 * MS
    bench.machine.hear([bench.report("arms@followers", order_ns=0), bench.report("arms@leaders")], bench.now)
    assert "arms@followers was restarted and holds the arms where they are; arm again" in bench.machine.cause


@pytest.mark.parametrize("arms", [ARMS, ARMS[:1]])
def test_dead_arms_are_a_fault_within_a_second_whoever_else_reports(arms):
    """Health reports of the other processes come every 200 ms, all of them at about the same time."""
    bench = Bench().to(P)
    bench.machine._arms = arms
    for turn in range(60):
        bench.now += 20 * MS
        others = [Heard(name, bench.now) for name in ("policy", "teleop", "camera@a")] if turn % 10 == 0 else []
        bench.machine.hear(others, bench.now)
    assert bench.machine.mode is F
    assert bench.machine.cause.startswith("arms@followers has been silent for")


@pytest.mark.parametrize("first", ["arms", "others"])
def test_whoever_wakes_up_first_after_a_stall_of_the_computer_nobody_is_named(first):
    bench = Bench().to(T)
    bench.machine.hear([], bench.now)
    bench.now += 510 * MS
    woken = [
        Heard("camera@a", bench.now - 9 * MS),
        *(bench.report(source, stamp_ns=bench.now - 5 * MS) for source in ARMS),
    ]
    bench.machine.hear(woken[:1] if first == "others" else woken, bench.now)
    assert bench.machine.mode is H
    assert bench.machine.cause.startswith("this computer stood still for 5")


def test_a_stamp_of_the_future_does_not_keep_dead_arms_alive():
    bench = Bench().to(T)
    future = [bench.report(source, stamp_ns=bench.now + 10**12) for source in ARMS]
    bench.machine.hear(future, bench.now)
    for _ in range(80):
        bench.others(20)
    assert bench.machine.mode is F


def test_a_sender_that_would_write_on_the_operators_terminal_is_not_shown():
    bench = Bench().to(A)
    request = Request(verb="stop", sender="evil\x1b[2J")
    bench.machine.ask(request, bench.now)
    assert bench.machine.cause == "stop by unknown"


def test_arms_that_have_not_heard_the_supervisor_are_not_armed():
    bench = Bench()
    bench.arms("arms@leaders", order_ns=0)
    assert bench.ask("arm").text == "no word of the supervisor has reached arms@leaders yet; ask again"
    bench.arms("arms@leaders")
    assert bench.ask("arm").ok


@pytest.mark.parametrize(
    ("before", "argument", "pose"),
    [(N, "", "start"), (A, "", "start"), (H, "", ""), (F, "", ""), (H, "start", "start"), (N, "here", "")],
)
def test_arming_ramps_only_where_it_is_expected(before, argument, pose):
    bench = Bench().to(before)
    assert bench.ask("arm", argument=argument).changed
    assert bench.machine.pose == pose
    beat = bench.machine.heartbeat(bench.now, 7)
    assert (beat.mode, beat.pose, beat.order_ns, beat.seq) == (A, pose, bench.machine.order_ns, 7)
    assert beat.cause == "arm by test"


def test_arming_in_an_unknown_way_is_refused():
    bench = Bench()
    assert "give `start`" in bench.ask("arm", argument="quickly").text
    assert bench.machine.mode is N


@pytest.mark.parametrize("before", [A, T, P, R, H, K])
def test_a_clean_shutdown_parks_first(before):
    bench = Bench().to(before)
    decision = bench.ask("shutdown")
    assert decision.mode is K
    assert not decision.shutdown
    assert bench.machine.pose == "sleep"
    bench.now += MS
    assert not bench.arms("arms@followers", settled=True).shutdown
    last = bench.arms("arms@leaders", settled=True)
    assert last.mode is N
    assert last.shutdown
    assert bench.machine.cause == "parked"


def test_shutdown_without_power_or_after_a_fault_does_not_move():
    assert Bench().ask("shutdown").shutdown
    decision = Bench().to(F).ask("shutdown")
    assert decision.shutdown
    assert decision.mode is F
    assert "torque stays on" in decision.text


@pytest.mark.parametrize("end", ["stop", "hold", "fault"])
def test_a_shutdown_that_is_interrupted_is_called_off(end):
    bench = Bench().to(A)
    bench.ask("shutdown")
    if end == "stop":
        bench.ask("stop", operator=False)
    elif end == "hold":
        bench.arms("arms@followers", hold_cause="left_elbow did not arrive")
    else:
        bench.fault("arms@followers", "overload")
        bench.fault("arms@followers", "")
    assert bench.machine.mode in (H, F)
    bench.ask("park")
    bench.now += MS
    bench.alive(settled=True)
    assert bench.machine.mode is N
    assert not bench.ask("status").shutdown


def test_parking_alone_does_not_shut_down():
    bench = Bench().to(K)
    bench.now += MS
    assert not bench.arms("arms@followers", settled=True).shutdown
    last = bench.arms("arms@leaders", settled=True)
    assert last.mode is N
    assert not last.shutdown


requests = st.builds(
    lambda verb, operator: ("ask", verb, operator), st.sampled_from(sorted(TABLE)), st.booleans() | st.just(True)
)
events = st.one_of(
    st.just(("alive", False)),
    st.just(("alive", True)),
    st.just(("alive", True)),
    st.tuples(st.just("wait"), st.integers(1, 800)),
    st.tuples(st.just("hold")),
    st.tuples(st.just("fault"), st.sampled_from(["a", "b"]), st.sampled_from(["", "overload"])),
    st.tuples(st.just("gate"), st.sampled_from(ARMS), st.sampled_from(["", "no action"]), st.booleans()),
)
EDGES = {
    (N, A), (A, T), (A, P), (A, R), (H, A), (F, A),
    (A, H), (T, H), (P, H), (R, H), (K, H),
    (A, K), (H, K), (F, K), (T, K), (P, K), (R, K), (K, N), (N, K),
    *((mode, F) for mode in Mode if mode is not F),
}  # fmt: skip


def perform(bench, step):
    if step[0] == "ask":
        return bench.ask(step[1], step[2])
    if step[0] == "alive":
        bench.alive(settled=step[1])
    elif step[0] == "wait":
        bench.now += step[1] * MS
        bench.machine.hear([], bench.now)
    elif step[0] == "hold":
        bench.hold()
    elif step[0] == "fault":
        bench.fault(step[1], step[2])
    else:
        bench.arms(step[1], hold_cause=step[2], fault=step[3] and bool(step[2]))
    return None


@settings(max_examples=400)
@given(st.lists(requests | events, max_size=60))
def test_no_sequence_breaks_the_rules(steps):
    bench = Bench()
    machine = bench.machine
    for step in steps:
        before, faults, changes = machine.mode, dict(machine.faults), len(machine.history)
        settled = set(machine._settled)
        decision = perform(bench, step)
        made = list(machine.history)[changes:] if changes < HISTORY else []
        asked = step[1] if step[0] == "ask" and decision.ok else None
        for change in made:
            assert (change.before, change.after) in EDGES or (change.before, change.after) == (A, A)
            assert change.cause
            if change.after in (A, K):
                assert asked in ("arm", "park", "shutdown")
                assert step[2] is True
                assert not faults or change.before is not F
            if change.after in MOVING:
                assert asked == MOVING[change.after]
                assert settled == set(ARMS)
            if change.before is F:
                assert asked in ("arm", "park")
        if machine.faults:
            assert machine.mode is F
        if step[0] == "ask" and step[1] == "stop":
            assert decision.ok
            assert machine.mode in (N, H, F)
        if decision is not None and not decision.ok:
            assert machine.mode is before
            assert not made
            assert decision.text
        if decision is not None and decision.shutdown:
            assert step[1] == "shutdown"
            assert step[2] is True
            assert before in (N, F)
    assert len(machine.history) <= HISTORY


def policy_bench(**settings):
    bench = Bench()
    bench.machine = ModeMachine(bench.now, policy_for_ns=10_000 * MS, **settings)
    bench.alive()
    bench.machine.ask(Request(verb="arm", sender="operator"), bench.now, operator=True)
    for _ in range(3):
        bench.now += 150 * MS
        bench.alive(settled=True)
    return bench


def run_for(bench, seconds):
    for _ in range(round(seconds * 10)):
        bench.now += 99 * MS
        bench.alive(settled=True)
        bench.machine.hear([], bench.now)


def test_a_policy_holds_when_its_time_is_over_and_may_begin_again():
    bench = policy_bench()
    for _ in range(2):
        assert bench.machine.ask(Request(verb="policy", sender="x"), bench.now).ok
        run_for(bench, 9.5)
        assert bench.machine.mode is P
        run_for(bench, 1)
        assert bench.machine.mode is H
        assert "for its time of 10 s (--max-duration)" in bench.machine.cause
        bench.machine.ask(Request(verb="arm", sender="operator"), bench.now, operator=True)
        run_for(bench, 0.3)


def test_a_takeover_neither_ends_at_the_time_nor_gives_the_policy_more_of_it():
    bench = policy_bench()
    bench.machine.ask(Request(verb="policy", sender="x"), bench.now)
    run_for(bench, 1)
    bench.machine.ask(Request(verb="takeover", sender="x"), bench.now)
    run_for(bench, 15)
    assert bench.machine.mode is T
    bench.machine.ask(Request(verb="handback", sender="x"), bench.now)
    run_for(bench, 0.1)
    assert bench.machine.mode is H


def test_nothing_is_handed_back_to_a_policy_that_was_not_started():
    bench = policy_bench()
    assert bench.machine.ask(Request(verb="teleop", sender="x"), bench.now).ok
    decision = bench.machine.ask(Request(verb="handback", sender="operator"), bench.now, operator=True)
    assert not decision.ok
    assert "`aloha start`, which looks whether it fits" in decision.text
    assert bench.machine.mode is T


def test_in_a_shadow_no_request_lets_a_policy_move_the_arms():
    bench = policy_bench(shadow=True)
    for verb in ("policy", "handback"):
        decision = bench.machine.ask(Request(verb=verb, sender="operator"), bench.now, operator=True)
        assert not decision.ok
        assert "only shadows" in decision.text
    assert bench.machine.ask(Request(verb="teleop", sender="x"), bench.now).ok
    assert not bench.machine.ask(Request(verb="handback", sender="operator"), bench.now, operator=True).ok
    assert bench.machine.mode is T
