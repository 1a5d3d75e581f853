"""Recording through every process in virtual time: hands on the emulated leaders begin, end and throw away takes."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import kit_rigs
import numpy as np
import pytest
from process_fakes import FakeServer, fake_service

from aloha_runtime import messages
from aloha_runtime.bus import RECORDER
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.data import Dataset, recorded, reports
from aloha_runtime.data.session import Session
from aloha_runtime.messages import Mode, Reply, Request
from aloha_runtime.processes.recorder import RecorderLoop
from aloha_runtime.processes.table import Job
from aloha_runtime.realtime import Beat
from aloha_runtime.robot import IS_GRIPPER, SIDE_SLICE, SIDES, START_POSE, TICK_NS, pose_vector
from aloha_runtime.sim.chain_control import Plug, Unplug, ask
from aloha_runtime.sim.correction import with_grippers
from aloha_runtime.sim.link import Link

TASK = "wave with both arms"
SLOW = 0.06
"""Openings in 20 ms: a gripper that its follower can keep up with."""


class Hands:
    """A person at the emulated leaders."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.grippers = stack.rig.grippers("leader")
        self.link = Link.attach(stack.run_dir)
        self.recorder = stack.bus.subscribe(messages.RECORDER)
        self.client = stack.bus.client(RECORDER)
        self.opening = 0.5

    def hold(self, opening: float, seconds: float, offset_rad: float = 0.0) -> None:
        """Both arms `offset_rad` beside the start pose for so long, grippers on their way to `opening` (0..1)."""
        end_ns = self.stack.clock.now_ns() + int(seconds * 1e9)
        while self.stack.clock.now_ns() < end_ns:
            step = opening - self.opening
            self.opening += float(np.clip(step, -SLOW, SLOW))
            angles = pose_vector(START_POSE, 0.0) + np.where(IS_GRIPPER, 0.0, offset_rad)
            angles = with_grippers(angles, self.grippers, self.opening)
            for side in SIDES:
                self.link.write_hand(f"leader_{side}", angles[SIDE_SLICE[side]].tolist())
            self.stack.watch()
            self.recorder.latest()
            self.stack.pause(0.02)

    def squeeze(self, times: int) -> None:
        for _ in range(times):
            self.hold(0.0, 0.35)
            self.hold(1.0, 0.35)

    def let_go(self) -> None:
        for side in SIDES:
            self.link.write_hand(f"leader_{side}", None)

    def start(self) -> None:
        """From the start pose to TELEOP, the next take asked for."""
        assert self.ask("next").ok
        operate.raise_arms(self.stack)
        self.hold(1.0, 0.3)
        self.hold(0.0, 0.7)
        assert operate.mode_of(self.stack) is Mode.TELEOP
        self.hold(1.0, 0.5)

    def stop(self) -> None:
        self.stack.ask("stop")
        self.let_go()
        self.stack.pause(0.1)

    def ask(self, verb: str) -> Reply:
        return self.client.request(Request(verb=verb, sender="operator"))

    @property
    def said(self) -> messages.RecorderState:
        self.stack.pause(0.1)
        return self.recorder.latest()


@dataclass
class Run:
    """What a recording session left behind, and what the recorder said after each take."""

    dataset: Path
    said: dict[str, messages.RecorderState] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    followers: list[messages.ArmsState] = field(default_factory=list)
    torn: tuple[Mode, str] = (Mode.IDLE, "")
    """Mode and cause a second after a leader was unplugged, and how far a follower's goal has moved since."""
    torn_travel_rad: float = 0.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("record")
    rig = operate.with_task(kit_rigs.rig("aloha2, mounted"), 3, "transfer_cube", "virtual")
    patient = rig.recording.model_copy(update={"lost_after_s": 2.0})  # a camera comes back within 1.2 s
    rig = rig.model_copy(update={"recording": patient})
    run = Run(folder / "dataset")
    recorded.create(run.dataset, rig)
    arguments = ("--dataset", str(run.dataset), "--task", TASK)
    with Stack(rig, Job.TELEOP, folder / "run", recording=arguments) as stack:
        states = stack.bus.subscribe(messages.FOLLOWERS, depth=10_000)
        hands = Hands(stack)
        run.replies["early"] = hands.ask("success")
        run.replies["unknown"] = hands.ask("sing")

        hands.start()  # the sign that ends a take, while its arms move
        for step in range(20):
            hands.hold(1.0, 0.04, offset_rad=0.1 * np.sin(step / 3))
        hands.hold(1.0, 0.5)
        hands.squeeze(2)
        hands.hold(1.0, 0.9)
        run.said["sign"] = hands.said
        hands.stop()

        hands.start()  # three squeezes: not this one
        hands.squeeze(3)
        hands.hold(1.0, 0.9)
        run.said["again"] = hands.said
        hands.stop()

        hands.start()  # the camera dies in the middle and comes back
        os.kill(stack.pid("camera@cam_high"), signal.SIGKILL)
        hands.hold(1.0, 1.5)
        run.replies["failure"] = hands.ask("failure")
        run.said["camera"] = hands.said
        hands.stop()

        hands.start()  # taken back
        run.replies["stop"] = hands.ask("undo")
        run.said["undo"] = hands.said
        run.replies["mark"] = hands.ask("success")

        hands.stop()
        hands.start()  # STOP in the middle of a take
        stack.ask("stop")
        run.said["stop"] = hands.said
        run.followers = states.drain()

        hands.stop()
        hands.start()  # a leader is torn off while it moves
        for step in range(10):
            hands.hold(1.0, 0.04, offset_rad=0.02 * step)
        run.followers += states.drain()
        before = np.array(run.followers[-1].goal)
        ask(stack.run_dir, "leader_left", Unplug())
        hands.stack.pause(1.0)
        heartbeat = stack.mode.latest()
        run.torn = (heartbeat.mode, heartbeat.cause)
        run.followers += states.drain()
        run.torn_travel_rad = float(np.abs(np.array(run.followers[-1].goal) - before)[~IS_GRIPPER].max())
        run.said["torn"] = hands.said
        ask(stack.run_dir, "leader_left", Plug())
        hands.let_go()
        stack.pause(1.5)
    return run


@pytest.mark.timeout(600)
def test_takes_become_episodes(run: Run) -> None:
    dataset = Dataset(run.dataset)
    assert [episode.tasks for episode in dataset.episodes] == [(TASK,)] * 4
    assert [run.said[name].kept for name in ("sign", "again", "camera", "undo", "stop")] == [
        True,
        False,
        True,
        False,
        True,
    ]
    ended = [reports.read(run.dataset, index)["ended"] for index in range(3)]
    assert ended[:2] == ["two squeezes", "failure"]
    assert "hold: stop by operator" in ended[2]


def test_a_leader_that_is_torn_off_ends_the_motion_and_the_take(run: Run) -> None:
    mode, cause = run.torn
    assert mode in (Mode.HOLD, Mode.FAULT)
    assert "leader_left" in cause
    assert run.torn_travel_rad < 0.10
    assert run.said["torn"].kept


def test_a_sign_is_not_part_of_its_episode(run: Run) -> None:
    grippers = Dataset(run.dataset).vectors("action")[: Dataset(run.dataset).episodes[0].length, IS_GRIPPER]
    assert (grippers[-10:] > 0.9).all(), "the grippers were open until the first squeeze of the sign"
    assert Dataset(run.dataset).episodes[0].length == pytest.approx(50 * (0.5 + 0.8 + 0.5), abs=15)


def test_numbers_are_what_the_arms_published(run: Run) -> None:
    dataset = Dataset(run.dataset)
    published = {tuple(np.float32(state.position)) for state in run.followers}
    goals = {tuple(np.float32(state.goal)) for state in run.followers if state.goal}
    state, goal, action = (dataset.vectors(key) for key in ("observation.state", "goal", "action"))
    assert all(tuple(row) in published for row in state)
    assert all(tuple(row) in goals for row in goal)
    assert np.abs(action - goal)[:, ~IS_GRIPPER].max() < 0.1
    assert (dataset.vectors("temperature_c") > 20).all()
    assert (dataset.vectors("servo_error") == 0).all()


def test_frames_that_did_not_come_are_flagged_and_the_take_goes_on(run: Run) -> None:
    dataset = Dataset(run.dataset)
    episode = dataset.episodes[1]
    names = dataset.features["flags"].names
    assert not dataset.vectors("flags")[:, names.index("late_action")].any()
    assert dataset.column("next.done").nonzero()[0].tolist() == [each.to_index - 1 for each in dataset.episodes]
    assert dataset.column("next.success").nonzero()[0].tolist() == [episode.to_index - 1], "marked as one afterwards"
    flags = dataset.vectors("flags")[episode.from_index : episode.to_index]
    gone = flags[:, names.index("repeated_cam_high")].astype(bool)
    assert 40 < gone.sum() < 70, "from the death of the camera until it is back"
    assert not gone[:20].any()
    assert not gone[-5:].any()
    ages = dataset.vectors("frame_age_ms")[episode.from_index : episode.to_index, 0]
    assert ages[gone].min() > 100
    assert ages[~gone].max() <= 100
    assert run.said["camera"].flagged
    assert "cam_high" in " ".join(reports.read(run.dataset, 1)["flags"])
    assert not run.said["sign"].flagged


def test_orders_are_answered(run: Run) -> None:
    assert not run.replies["early"].ok
    assert "no episode to mark" in run.replies["early"].text
    assert not run.replies["unknown"].ok
    assert "discard" in run.replies["unknown"].text
    assert run.replies["stop"].ok, "undo during a take throws that one away"
    assert run.replies["mark"].text == "episode 1: success"
    assert reports.read(run.dataset, 1)["outcome"] == "success"
    assert reports.read(run.dataset, 0)["outcome"] == ""


def test_ticks_that_a_stall_cost_are_counted(tmp_path: Path) -> None:
    """The recorder makes up what its buffers still hold, and counts the rest."""
    service = fake_service("recorder")
    service.rig = service.rig.model_copy(update={"cameras": {}})
    recorded.create(tmp_path / "cups", service.rig)
    session = Session(tmp_path / "cups", TASK, keep_all=True)
    service.bus.server = lambda _: FakeServer()
    loop = RecorderLoop(service, session, continuous=True, intervenes=False)
    looked_at: list[int] = []
    loop._record = lambda tick, _: looked_at.append(tick)  # type: ignore[method-assign]
    loop.tick(Beat(100, 100 * TICK_NS, 0, 0))
    before = loop.frames.takes.skipped
    for index in (101, 102, 200, 201):
        loop.tick(Beat(index, index * TICK_NS, 0, 0))
    assert looked_at == [98, 99, 100, *range(190, 199), 199], "each when it has been over for a tick"
    assert loop.frames.takes.skipped - before == 200 - 102 - 9
    loop.finish()
