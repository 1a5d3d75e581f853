"""supervisor, turn by turn: requests, reports and ticks in, heartbeats and replies out."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from process_fakes import fake_service
from stop_tools import Pedal

from aloha_runtime import messages
from aloha_runtime.config import StopInputConfig
from aloha_runtime.messages import MS, ArmsState, GuardState, Health, Mode, PolicyTick, Reply, Request
from aloha_runtime.processes.supervisor import NO_ACTION_TICKS, REQUESTS_A_TURN, SupervisorLoop
from aloha_runtime.robot import TICK_NS

ARMS = {"arms@followers": messages.FOLLOWERS, "arms@leaders": messages.LEADERS}


class Scene:
    """A supervisor among processes that report in every turn, unless they are in `silent`."""

    def __init__(self, rig: str = "sim", stop: StopInputConfig | None = None) -> None:
        self.service = fake_service("supervisor", rig)
        self.service.rig = self.service.rig.model_copy(update={"stop_input": stop})
        self.service.clock.virtual = True
        self.bus, self.clock = self.service.bus, self.service.clock
        self.loop = SupervisorLoop(self.service)
        self.silent: set[str] = set()
        self.trouble: dict[str, str] = {}
        self.figures = {"realtime_priority": 50.0}

    @property
    def mode(self) -> Mode:
        return self.bus.publishers["mode"].sent[-1].mode

    def turn(self, count: int = 1, settled: bool = True) -> None:
        for _ in range(count):
            self.clock.now += TICK_NS
            for name, topic in ARMS.items():
                if name not in self.silent:
                    self.bus.put(topic, self._state(name, settled))
            for name in self.loop.health:
                if name not in self.silent:
                    report = Health(stamp_ns=self.clock.now, process=name, pid=1, figures=dict(self.figures))
                    self.bus.put(messages.health_topic(name), report)
            self.loop.cycle()

    def _state(self, name: str, settled: bool) -> ArmsState:
        return ArmsState(
            stamp_ns=self.clock.now,
            position=[0.0] * 14,
            velocity=[0.0] * 14,
            effort_ma=[0.0] * 14,
            order_ns=self.loop.machine.order_ns,
            settled=settled,
            hold_cause=self.trouble.get(name, ""),
        )

    def ask(self, verb: str, argument: str = "", sender: str = "operator", settled: bool = True) -> Reply:
        self.bus.served.requests.append(Request(verb=verb, argument=argument, sender=sender))
        self.turn(settled=settled)
        return self.bus.served.replies[-1]

    def move(self, mode: Mode) -> None:
        self.turn()
        assert self.ask("arm").ok
        self.turn()
        assert self.ask(mode.value).ok


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_every_turn_says_the_mode_once(scene: Scene) -> None:
    scene.turn(10)
    heartbeats = scene.bus.publishers["mode"].sent
    assert [heartbeat.stamp_ns for heartbeat in heartbeats] == [
        scene.clock.now - (9 - index) * TICK_NS for index in range(10)
    ]
    assert {heartbeat.mode for heartbeat in heartbeats} == {Mode.IDLE}


def test_a_reply_tells_the_mode_that_the_next_heartbeat_has(scene: Scene) -> None:
    scene.turn()
    reply = scene.ask("arm")
    assert reply.ok
    assert reply.mode is scene.mode is Mode.ARMED


def test_only_an_operator_arms_and_anybody_stops(scene: Scene) -> None:
    scene.turn()
    assert not scene.ask("arm", sender="squeeze of both leader grippers").ok
    assert scene.mode is Mode.IDLE
    scene.move(Mode.TELEOP)
    assert scene.ask("stop", sender="").ok
    assert scene.mode is Mode.HOLD


def test_a_shutdown_parks_first_and_then_ends(scene: Scene) -> None:
    scene.move(Mode.TELEOP)
    reply = scene.ask("shutdown", settled=False)
    assert reply.mode is Mode.PARK
    scene.turn(10, settled=False)
    assert not scene.service.stopping
    scene.turn()
    assert scene.mode is Mode.IDLE
    assert scene.service.stopping


def test_a_shutdown_with_nothing_to_park_ends_at_once(scene: Scene) -> None:
    scene.turn()
    assert scene.ask("shutdown").ok
    assert scene.service.stopping


def test_a_shutdown_that_ends_in_hold_does_not_end(scene: Scene) -> None:
    scene.move(Mode.TELEOP)
    scene.ask("shutdown", settled=False)
    scene.trouble["arms@followers"] = "left_elbow did not arrive"
    scene.turn()
    scene.trouble.clear()
    scene.turn(20)
    assert scene.mode is Mode.HOLD
    assert not scene.service.stopping


def test_what_arms_say_becomes_the_cause_of_the_hold(scene: Scene) -> None:
    scene.move(Mode.TELEOP)
    scene.trouble["arms@leaders"] = "leader_left: /dev/ttyDXL_leader_left was unplugged; plug it in again"
    scene.turn()
    heartbeat = scene.bus.publishers["mode"].sent[-1]
    assert heartbeat.mode is Mode.HOLD
    assert "leader_left" in heartbeat.cause


@pytest.mark.parametrize("mode", [Mode.TELEOP, Mode.POLICY, Mode.REPLAY])
def test_a_hold_between_two_states_of_one_turn_is_not_lost(scene: Scene, mode: Mode) -> None:
    scene.move(mode)
    scene.trouble["arms@followers"] = "left_elbow silent for 101 ms"
    scene.bus.put(messages.FOLLOWERS, scene._state("arms@followers", False))
    scene.trouble.clear()
    scene.turn()  # the state of this turn says that all is well
    assert scene.mode is Mode.HOLD
    assert "left_elbow silent for 101 ms" in scene.bus.publishers["mode"].sent[-1].cause


def test_the_guards_word_counts_by_its_stamp_however_late_it_is_read(scene: Scene) -> None:
    scene.move(Mode.TELEOP)
    before = GuardState(
        stamp_ns=scene.loop.machine.order_ns - 1, distance_m=0.01, cause="left_wrist is 10 mm from the table"
    )
    scene.bus.put(messages.GUARD, before)
    scene.turn()
    assert scene.mode is Mode.TELEOP
    scene.bus.put(messages.GUARD, GuardState(stamp_ns=before.stamp_ns + 1, distance_m=0.01, cause=before.cause))
    scene.turn(8)
    assert scene.mode is Mode.HOLD
    assert scene.loop.machine.cause == "guard: left_wrist is 10 mm from the table"


def test_a_supervisor_that_was_paused_holds_whatever_waits_for_it(scene: Scene) -> None:
    scene.move(Mode.TELEOP)
    asked_ns = scene.clock.now + 10 * MS
    scene.clock.now += 230 * MS
    scene.bus.served.requests.append(Request(verb="arm", sender="operator", stamp_ns=asked_ns))
    scene.turn()
    assert scene.mode is Mode.HOLD
    assert not scene.bus.served.replies[-1].ok
    assert scene.bus.publishers["mode"].sent[-1].cause.startswith("this computer stood still for 250 ms")


def test_a_supervisor_that_is_paused_while_it_answers_holds_before_it_speaks(scene: Scene) -> None:
    """SIGSTOP between any two lines: the heartbeat that follows has a new stamp, and must not have an old order."""
    scene.move(Mode.TELEOP)
    answer = scene.bus.served.reply

    def slow(reply: Reply) -> None:
        answer(reply)
        scene.clock.now += 300 * MS

    scene.bus.served.reply = slow
    scene.ask("status")
    heartbeat = scene.bus.publishers["mode"].sent[-1]
    assert (heartbeat.mode, heartbeat.stamp_ns) == (Mode.HOLD, scene.clock.now)


def test_a_flood_of_requests_does_not_keep_the_mode_from_being_said(scene: Scene) -> None:
    scene.turn()
    scene.bus.served.requests.extend(Request(verb="status", sender="flood") for _ in range(1000))
    said = len(scene.bus.publishers["mode"].sent)
    scene.turn(5)
    assert len(scene.bus.publishers["mode"].sent) == said + 5
    assert len(scene.bus.served.replies) == 5 * REQUESTS_A_TURN


def test_silent_arms_are_a_fault_and_a_silent_driver_a_hold(scene: Scene) -> None:
    scene.move(Mode.TELEOP)
    scene.silent.add("teleop")
    scene.turn(30)
    assert scene.mode is Mode.HOLD
    scene.silent.add("arms@followers")
    scene.turn(30)
    assert scene.mode is Mode.FAULT
    assert not scene.ask("arm").ok
    scene.silent.clear()
    scene.turn(2)
    assert scene.mode is Mode.FAULT  # left only when a person says so
    assert scene.ask("arm").ok


def test_ten_ticks_without_an_action_end_in_hold_with_the_policys_reason(scene: Scene) -> None:
    scene.move(Mode.POLICY)
    for tick in range(NO_ACTION_TICKS + 1):
        assert scene.mode is Mode.POLICY
        report = PolicyTick(
            stamp_ns=scene.clock.now + 1, tick=tick, lateness_ns=0, on_time=True, reason="cam_high: frozen"
        )
        scene.bus.put(messages.POLICY_TICK, report)
        scene.turn()
        if scene.mode is Mode.HOLD:
            break
    assert tick == NO_ACTION_TICKS - 1
    assert "cam_high: frozen" in scene.bus.publishers["mode"].sent[-1].cause


def test_an_inference_that_hangs_ends_in_hold_at_its_first_report(scene: Scene) -> None:
    scene.move(Mode.POLICY)
    hanging = PolicyTick(
        stamp_ns=scene.clock.now + 1, tick=1, lateness_ns=0, on_time=True, reason="it hangs", stuck=True
    )
    scene.bus.put(messages.POLICY_TICK, hanging)
    scene.turn()
    assert scene.mode is Mode.HOLD
    assert "it hangs" in scene.bus.publishers["mode"].sent[-1].cause


def test_late_ticks_are_degraded_health_before_they_are_a_hold(scene: Scene) -> None:
    scene.move(Mode.POLICY)
    for tick in range(20):
        assert scene.loop.trouble(scene.clock.now) == "" or tick > 5
        report = PolicyTick(stamp_ns=scene.clock.now + 1, tick=tick, lateness_ns=0, on_time=tick >= 6)
        scene.bus.put(messages.POLICY_TICK, report)
        scene.turn()
    assert scene.mode is Mode.POLICY
    assert "degraded: policy: only 94% of the last 100 ticks" in scene.loop.trouble(scene.clock.now)


def test_a_policy_whose_ticks_are_heard_is_not_silent(scene: Scene) -> None:
    """Health comes five times a second: a stop of 300 ms must not look like one of 500."""
    scene.move(Mode.POLICY)
    scene.silent.add("policy")
    for tick in range(60):
        report = PolicyTick(stamp_ns=scene.clock.now + 1, tick=tick, lateness_ns=0, on_time=True)
        scene.bus.put(messages.POLICY_TICK, report)
        scene.turn()
    assert scene.mode is Mode.POLICY


def test_late_ticks_end_in_hold(scene: Scene) -> None:
    scene.move(Mode.POLICY)
    for tick in range(100):
        on_time = tick % 3 != 0
        report = PolicyTick(stamp_ns=scene.clock.now + 1, tick=tick, lateness_ns=0, on_time=on_time)
        scene.bus.put(messages.POLICY_TICK, report)
        scene.turn()
        if scene.mode is not Mode.POLICY:
            break
    assert scene.mode is Mode.HOLD
    assert "on time" in scene.bus.publishers["mode"].sent[-1].cause


def test_a_rig_that_requires_it_is_not_armed_without_real_time_priority() -> None:
    scene = Scene("aloha")
    scene.figures = {"realtime_priority": 0.0}
    scene.turn()
    reply = scene.ask("arm")
    assert not reply.ok
    assert "no real-time priority" in reply.text
    scene.figures = {"realtime_priority": 50.0}
    scene.turn()
    assert scene.ask("arm").ok


def test_a_reset_has_a_higher_number_than_any_before_it_even_after_a_restart(scene: Scene) -> None:
    scene.turn()
    assert scene.ask("reset", "7").ok
    order = scene.bus.publishers["sim_reset"].sent[-1]
    assert order.task_seed == 7
    again = Scene()
    again.clock.now = scene.clock.now + 10 * MS
    again.turn()
    assert again.bus.publishers["sim_reset"].sent[-1].episode == 0  # no order: the world stays as it is
    assert again.ask("reset", "8").ok
    assert again.bus.publishers["sim_reset"].sent[-1].episode > order.episode


@pytest.mark.parametrize(
    ("rig", "argument"), [("aloha", "3"), ("sim", ""), ("sim", "x"), ("sim", "²"), ("sim", "9" * 19)]
)
def test_a_reset_is_refused_on_a_real_rig_and_without_a_seed(rig: str, argument: str) -> None:
    scene = Scene(rig)
    scene.turn()
    assert not scene.ask("reset", argument).ok


def test_a_long_seed_fits_into_the_order(scene: Scene) -> None:
    scene.turn()
    assert scene.ask("reset", "9" * 18).ok
    assert messages.encode(scene.bus.publishers["sim_reset"].sent[-1])


def test_nothing_is_reset_while_arms_move(scene: Scene) -> None:
    scene.move(Mode.TELEOP)
    assert not scene.ask("reset", "3").ok


def test_a_process_gone_silent_is_named_in_the_health_report(scene: Scene) -> None:
    scene.turn(60)
    assert scene.loop.trouble(scene.clock.now) == ""
    scene.silent.add("camera@cam_high")
    scene.turn(60)
    assert scene.loop.trouble(scene.clock.now) == "silent: camera@cam_high"


@pytest.fixture
def pedal(tmp_path: Path) -> Pedal:
    return Pedal(tmp_path / "pedal")


def with_stop(pedal: Pedal) -> Scene:
    scene = Scene(stop=StopInputConfig(device=str(pedal.path)))
    scene.turn()
    return scene


@pytest.mark.parametrize("mode", [Mode.ARMED, Mode.TELEOP, Mode.POLICY, Mode.REPLAY, Mode.PARK])
def test_a_press_of_the_physical_stop_is_heard_in_the_next_heartbeat(pedal: Pedal, mode: Mode) -> None:
    scene = with_stop(pedal)
    if mode in (Mode.ARMED, Mode.PARK):
        assert scene.ask("arm").ok
        assert mode is Mode.ARMED or scene.ask("park", settled=False).ok
    else:
        scene.move(mode)
    assert scene.mode is mode
    pedal.press()
    scene.turn(settled=False)
    assert scene.mode is Mode.HOLD
    assert scene.bus.publishers["mode"].sent[-1].cause == "stop by stop input"


def test_while_the_physical_stop_is_held_nothing_is_armed_and_parking_is_stopped(pedal: Pedal) -> None:
    scene = with_stop(pedal)
    scene.ask("arm")
    pedal.press()
    scene.turn(100)
    reply = scene.ask("arm")
    assert not reply.ok
    assert f"stop input: any key of {pedal.path} is pressed" in reply.text
    scene.ask("park", settled=False)
    assert scene.mode is Mode.HOLD
    assert scene.loop.figures()["stop_input_ready"] == 0
    pedal.release()
    scene.turn()
    assert scene.ask("arm").ok
    assert scene.loop.figures()["stop_input_ready"] == 1


def test_a_stop_and_an_order_in_one_turn_are_a_stop(pedal: Pedal) -> None:
    scene = with_stop(pedal)
    pedal.press()
    pedal.release()
    assert scene.ask("arm").ok
    assert scene.mode is Mode.HOLD


def test_without_its_physical_stop_a_rig_is_not_armed_and_says_what_to_do(tmp_path: Path) -> None:
    pedal = Pedal(tmp_path / "pedal", plugged=False)
    scene = with_stop(pedal)
    reply = scene.ask("arm")
    assert not reply.ok
    assert f"stop input: {pedal.path} does not exist; plug it in" in reply.text
    assert str(pedal.path) in scene.loop.trouble(scene.clock.now)


def test_a_physical_stop_that_vanishes_holds_and_the_arms_may_be_parked(pedal: Pedal) -> None:
    scene = with_stop(pedal)
    scene.move(Mode.TELEOP)
    pedal.unplug()
    scene.turn()
    assert scene.mode is Mode.HOLD
    assert f"stop input: {pedal.path} is gone" in scene.bus.publishers["mode"].sent[-1].cause
    assert not scene.ask("arm").ok
    scene.ask("park")
    scene.turn(2)
    assert scene.mode is Mode.IDLE


def test_a_policy_without_an_observation_on_a_computer_that_stood_still_is_not_accused(scene: Scene) -> None:
    scene.move(Mode.POLICY)
    scene.turn(20)
    scene.clock.now += 150 * MS
    report = PolicyTick(stamp_ns=scene.clock.now, tick=1, lateness_ns=0, on_time=True, reason="it hangs", stuck=True)
    scene.bus.put(messages.POLICY_TICK, report)
    scene.turn()
    assert scene.mode is Mode.HOLD
    assert scene.loop.machine.cause.startswith("this computer stood still for 1")


def test_an_echo_that_stays_away_is_a_computer_that_stands_still(scene: Scene) -> None:
    scene.move(Mode.POLICY)
    for away, accused in ((0, True), (12, False)):
        scene.loop.echo = SimpleNamespace(came_back=lambda: True)  # type: ignore[assignment]
        scene.turn(30)
        scene.loop.echo = SimpleNamespace(came_back=lambda: False)  # type: ignore[assignment]
        scene.turn(away)
        cause = scene.loop.machine.hearing.excused("policy: camera cam_high is 160 ms old", scene.clock.now)
        assert cause.startswith("policy: camera") == accused
