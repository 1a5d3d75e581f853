"""guard: alone, turn by turn; its word in the supervisor; and a replay that would drive the arms into each other."""

from pathlib import Path

import numpy as np
import pytest
from process_fakes import fake_service

from aloha_runtime import config, messages
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.control.shape import scene_of
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.messages import ArmsState, GuardState, Mode, Request
from aloha_runtime.processes.guard import GuardLoop
from aloha_runtime.processes.supervisor import SupervisorLoop
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import CONTROL_HZ, NAMES, START_POSE, TICK_NS, pose_vector

HOME = pose_vector(START_POSE, 0.2)
SPEED_RAD_S = 1.0


class Scene:
    """A guard, and followers whose shoulders lean forward at a speed."""

    def __init__(self) -> None:
        self.service = fake_service("guard")
        self.loop = GuardLoop(self.service)
        self.goal = HOME.copy()

    def turn(self, shoulders_rad_s: float = 0.0, torque: bool = True) -> GuardState | None:
        sent = self.service.bus.publishers["guard"].sent
        before, clock = len(sent), self.service.clock
        clock.now += TICK_NS
        self.goal[[1, 8]] += shoulders_rad_s * TICK_NS * 1e-9
        state = ArmsState(
            stamp_ns=clock.now,
            position=self.goal.tolist(),
            velocity=[0.0] * 14,
            effort_ma=[0.0] * 14,
            goal=self.goal.tolist() if torque else None,
        )
        self.service.bus.put(messages.FOLLOWERS, state)
        self.loop.look(clock.now)
        return sent[-1] if len(sent) > before else None


def test_arms_that_come_too_near_are_held_in_time_and_may_leave() -> None:
    scene = Scene()
    for _ in range(150):
        state = scene.turn(SPEED_RAD_S)
        assert state is not None
        if state.cause:
            break
    else:
        pytest.fail("the arms went through the table")
    assert "gripper comes within" in state.cause
    assert "of table (at least 20 mm)" in state.cause
    assert 0.02 < state.distance_m < 0.08, "neither too late nor at every motion"
    scene.turn()
    assert scene.turn().cause == ""  # stands
    assert scene.turn(-SPEED_RAD_S).cause == ""  # leaves
    assert scene.loop.figures() == {"least_distance_m": pytest.approx(state.distance_m, abs=0.05)}


def test_arms_without_torque_or_unheard_are_not_judged() -> None:
    scene = Scene()
    assert scene.turn(torque=False) is None
    assert scene.loop.figures() == {}
    assert scene.turn() is not None
    scene.service.clock.now += 1_000_000_000
    scene.loop.look(scene.service.clock.now)
    assert len(scene.service.bus.publishers["guard"].sent) == 1


def test_the_guards_word_is_hold_and_its_silence_too() -> None:
    service = fake_service("supervisor")
    loop = SupervisorLoop(service)

    def turn(cause: str = "", silent: bool = False) -> Mode:
        service.clock.now += TICK_NS
        now = service.clock.now
        for topic in (messages.FOLLOWERS, messages.LEADERS):
            still = [0.0] * 14
            state = ArmsState(
                stamp_ns=now, position=still, velocity=still, effort_ma=still, order_ns=loop.machine.order_ns
            )
            state.settled = True
            service.bus.put(topic, state)
        for name in loop.health:
            if not (silent and name == "guard"):
                service.bus.put(messages.health_topic(name), messages.Health(stamp_ns=now, process=name, pid=1))
        service.bus.put(messages.GUARD, GuardState(stamp_ns=now, distance_m=0.1, cause=cause))
        loop.cycle()
        return service.bus.publishers["mode"].sent[-1].mode

    def go() -> None:
        for verb in ("arm", "teleop"):
            turn()
            service.bus.served.requests.append(Request(verb=verb, argument="", sender="operator"))
            turn()
        assert turn() is Mode.TELEOP

    turn(silent=True)
    service.bus.served.requests.append(Request(verb="arm", argument="", sender="operator"))
    assert turn(silent=True) is Mode.IDLE
    assert "guard has not been heard" in service.bus.served.replies[-1].text
    go()
    assert turn("left wrist comes within 4 mm of table") is Mode.HOLD
    assert loop.machine.cause == "guard: left wrist comes within 4 mm of table"
    go()
    for _ in range(40):
        mode = turn(silent=True)
    assert mode is Mode.HOLD
    assert "guard has been silent" in loop.machine.cause


def test_a_rig_without_a_guard_asks_for_none() -> None:
    service = fake_service("supervisor", "aloha")
    assert "guard" not in SupervisorLoop(service).health


def test_a_replay_into_each_other_ends_before_they_meet(tmp_path: Path) -> None:
    """Through every process in virtual time: both hands, turned up, back into each other."""
    path = tmp_path / "meeting"
    lean = np.zeros(14)
    lean[[1, 2, 4, 8, 9, 11]] = (1.56, -1.76, -1.2) * 2
    with DatasetWriter.create(path, vectors={"action": NAMES, "observation.state": NAMES}) as writer:
        for share in np.linspace(0, 1, 3 * CONTROL_HZ // 2):
            action = HOME + share * lean
            writer.add_frame({"action": action, "observation.state": action})
        writer.save_episode("meeting")
    model = scene_of(config.load("sim"), "follower")
    assert model.nearest(HOME + lean).distance_m < 0, "the recorded way ends in a collision"
    rig = operate.with_task(config.load("sim"), 3, "transfer_cube", "virtual")
    with Stack(rig, Job.REPLAY, tmp_path / "run", episode=(str(path), 0)) as stack:
        states = stack.bus.subscribe(messages.FOLLOWERS, depth=10_000)
        mode = stack.bus.subscribe(messages.MODE)
        operate.raise_arms(stack)
        stack.ask("replay")
        stack.wait(lambda: mode.latest().mode is Mode.HOLD, 20.0, "HOLD")
        cause = mode.latest().cause
        stack.pause(0.5)  # until they stand
        distances = [model.nearest(np.array(state.position)).distance_m for state in states.drain()]
    assert cause.startswith("guard: ")
    assert 0.02 <= min(distances) < 0.10, "both hands come at 0.5 m/s: held in time, and not for a mere approach"
