"""teleop, turn by turn: when the squeeze asks for TELEOP, and which action a leader state becomes."""

import kit_rigs
import numpy as np
import pytest
from process_fakes import fake_service

from aloha_runtime import messages
from aloha_runtime.config import RigConfig
from aloha_runtime.messages import MS, Mode, ModeHeartbeat, RecorderState
from aloha_runtime.processes.teleop import TeleopLoop
from aloha_runtime.robot import START_POSE, Role, pose_vector

HALF_OPEN = pose_vector(START_POSE, 0.5)
OPEN = pose_vector(START_POSE, 1.0)
SQUEEZED = pose_vector(START_POSE, 0.0)
STEP_NS = 5 * MS


class Scene:
    """Leaders, followers and supervisor as the teleop process hears them."""

    def __init__(self, rig: RigConfig) -> None:
        self.service, self.rig = fake_service("teleop"), rig
        self.service.rig = rig
        self.loop = TeleopLoop(self.service)
        self.bus, self.clock = self.service.bus, self.service.clock

    def turn(
        self,
        mode: Mode,
        leaders: np.ndarray = SQUEEZED,
        followers: np.ndarray = HALF_OPEN,
        settled: bool = True,
        seconds: float = 0.005,
    ) -> None:
        """Let time pass with these states arriving in every arms cycle."""
        for _ in range(round(seconds * 1e9 / STEP_NS)):
            self.clock.now += STEP_NS
            stamp_ns = self.clock.now
            self.bus.put(messages.MODE, ModeHeartbeat(stamp_ns=stamp_ns, mode=mode))
            places: tuple[tuple[Role, messages.Topic, np.ndarray], ...] = (
                ("leader", messages.LEADERS, leaders),
                ("follower", messages.FOLLOWERS, followers),
            )
            for role, topic, position in places:
                more = {"stamp_ns": stamp_ns, "mode": mode, "settled": settled}
                self.bus.put(topic, kit_rigs.arms_state(self.rig, role, position, **more))
            self.loop.cycle(stamp_ns)

    @property
    def actions(self) -> list[messages.Action]:
        return self.bus.publishers["action_teleop"].sent


@pytest.fixture(params=kit_rigs.RIGS)
def rig(request: pytest.FixtureRequest) -> RigConfig:
    return kit_rigs.rig(request.param)


@pytest.fixture
def scene(rig: RigConfig) -> Scene:
    return Scene(rig)


def test_a_squeeze_that_lasts_asks_for_teleop_once(scene: Scene) -> None:
    scene.turn(Mode.ARMED, OPEN)
    scene.turn(Mode.ARMED, seconds=0.195)
    assert scene.bus.requests == []
    scene.turn(Mode.ARMED, seconds=0.2)
    assert [request.verb for request in scene.bus.requests] == ["teleop"]
    assert scene.bus.requests[0].sender != "operator"
    scene.turn(Mode.ARMED, seconds=0.5)  # not answered with TELEOP: asked again, but not in every cycle
    assert len(scene.bus.requests) == 2


def test_a_squeeze_let_go_asks_for_nothing(scene: Scene) -> None:
    scene.turn(Mode.ARMED, OPEN)
    for _ in range(10):
        scene.turn(Mode.ARMED, seconds=0.15)
        scene.turn(Mode.ARMED, HALF_OPEN)
    assert scene.bus.requests == []


def test_one_hand_is_not_enough(scene: Scene) -> None:
    one = SQUEEZED.copy()
    one[13] = 0.5
    scene.turn(Mode.ARMED, OPEN)
    scene.turn(Mode.ARMED, one, seconds=1.0)
    assert scene.bus.requests == []


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.ARMED])
def test_a_squeeze_means_nothing_in_other_modes(scene: Scene, mode: Mode) -> None:
    scene.turn(mode, OPEN)
    scene.turn(mode, seconds=1.0)
    assert scene.bus.requests == []


def test_arms_on_their_way_are_waited_for(scene: Scene) -> None:
    scene.turn(Mode.ARMED, OPEN, settled=False, seconds=1.0)
    scene.turn(Mode.ARMED, settled=False, seconds=1.0)
    scene.turn(Mode.ARMED, seconds=1.0)
    assert scene.bus.requests == [], "what the grippers did on the way is no sign"
    scene.turn(Mode.ARMED, OPEN)
    scene.turn(Mode.ARMED, seconds=0.3)
    assert len(scene.bus.requests) == 1


def test_leaders_elsewhere_than_followers_are_named(scene: Scene) -> None:
    bent = SQUEEZED.copy()
    bent[2] += 0.4
    scene.turn(Mode.ARMED, OPEN)
    scene.turn(Mode.ARMED, bent, seconds=1.0)
    assert scene.bus.requests == []
    assert "left_elbow" in scene.loop.message
    scene.turn(Mode.ARMED)
    assert scene.loop.message == ""
    assert len(scene.bus.requests) == 1


def test_each_leader_state_becomes_one_action_with_its_stamp(scene: Scene) -> None:
    scene.turn(Mode.TELEOP, HALF_OPEN)
    scene.loop.cycle(scene.clock.now + MS)  # the same state once more
    assert len(scene.actions) == 1
    action = scene.actions[0]
    assert action.stamp_ns == scene.clock.now
    assert action.tick == action.stamp_ns // 20_000_000
    assert np.delete(action.position, [6, 13]) == pytest.approx(np.delete(HALF_OPEN, [6, 13]))


def test_no_action_outside_teleop_or_from_stale_leaders(scene: Scene) -> None:
    scene.turn(Mode.HOLD)
    assert scene.actions == []
    ages_ms = {"leaders": 50, "followers": 50, "mode": 210}  # a little older than each may be
    for stale, age_ms in ages_ms.items():
        scene.turn(Mode.TELEOP)
        sent = len(scene.actions)
        now_ns = scene.clock.now + age_ms * MS
        for name in ages_ms.keys() - {stale}:  # the others are heard as ever
            scene.bus.subscribers[name].newest.stamp_ns = now_ns
        scene.bus.subscribers["leaders"].newest.seq += 1
        scene.loop.cycle(now_ns)
        assert len(scene.actions) == sent, stale


def test_an_invalid_leader_state_is_not_passed_on(scene: Scene) -> None:
    scene.turn(Mode.TELEOP)
    sent = len(scene.actions)
    scene.bus.subscribers["leaders"].newest.valid = False
    scene.bus.subscribers["leaders"].newest.seq += 1
    scene.loop.cycle(scene.clock.now + MS)
    assert len(scene.actions) == sent


def test_grippers_that_nobody_opened_start_nothing_and_it_says_what_to_do(scene: Scene) -> None:
    scene.turn(Mode.ARMED, HALF_OPEN, seconds=0.1)
    scene.turn(Mode.ARMED, seconds=2.0)
    assert scene.bus.requests == []
    assert scene.loop.message == "open both leader grippers wide, then squeeze them"
    scene.turn(Mode.ARMED, OPEN)
    scene.turn(Mode.ARMED, seconds=0.3)
    assert len(scene.bus.requests) == 1
    assert scene.loop.message == ""


@pytest.mark.parametrize("between", [Mode.TELEOP, Mode.HOLD])
def test_whoever_led_or_was_held_must_open_the_grippers_again(scene: Scene, between: Mode) -> None:
    scene.turn(Mode.ARMED, OPEN)
    scene.turn(between, seconds=0.1)
    scene.turn(Mode.ARMED, seconds=1.0)
    assert scene.bus.requests == []


@pytest.mark.parametrize("phase", ["taking", "ready", ""])
@pytest.mark.parametrize("rest", [OPEN, SQUEEZED], ids=["open", "holding"])
def test_a_sign_that_ends_a_take_moves_no_follower_gripper(scene: Scene, phase: str, rest: np.ndarray) -> None:
    """... and where nothing is recorded there are no signs: followers follow at once."""
    other = SQUEEZED if rest is OPEN else OPEN

    def turn(leaders: np.ndarray, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            if phase:
                scene.bus.put(messages.RECORDER, RecorderState(stamp_ns=scene.clock.now, phase=phase))
            scene.turn(Mode.TELEOP, leaders, seconds=0.1)

    turn(rest, 0.5)
    for _ in range(2):
        turn(other, 0.2)
        turn(rest, 0.3)
    turn(rest, 0.8)
    told = np.array([action.position for action in scene.actions])[:, [6, 13]]
    assert np.ptp(told, axis=0) == pytest.approx(0.0 if phase == "taking" else 1.0)


@pytest.mark.parametrize("opening", [-0.1, 0.0, 0.3, 1.0, 1.1])
def test_followers_take_the_opening_of_the_leaders_motor(scene: Scene, opening: float) -> None:
    """Squeezed harder is closed harder, with every kit and wherever the grippers are mounted."""
    scene.turn(Mode.TELEOP, pose_vector(START_POSE, opening))
    assert np.array(scene.actions[-1].position)[[6, 13]] == pytest.approx(opening)


def test_a_squeeze_beside_a_policy_takes_over(rig: RigConfig) -> None:
    scene = Scene(rig.model_copy(update={"teleop": rig.teleop.model_copy(update={"takeover": True})}))
    scene.turn(Mode.POLICY, OPEN)
    scene.turn(Mode.POLICY, seconds=0.3)
    assert [request.verb for request in scene.bus.requests] == ["takeover"]


@pytest.mark.parametrize("led", ["left", "right"])
def test_a_side_that_is_not_led_stays_where_its_motor_is(rig: RigConfig, led: str) -> None:
    scene = Scene(rig.model_copy(update={"teleop": rig.teleop.model_copy(update={"sides": (led,)})}))
    scene.turn(Mode.TELEOP, SQUEEZED, followers=pose_vector(START_POSE, 0.8))
    told = np.array(scene.actions[-1].position)[[6, 13]]
    assert told == pytest.approx([0.0, 0.8] if led == "left" else [0.8, 0.0])
