"""Scored evaluation: the blinded order, what is on disk when, and what an operator's orders come to."""

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import kit_rigs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from power_cut import watch

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus
from aloha_runtime.commands import score as command
from aloha_runtime.commands.score import Scoring, Wishes, score
from aloha_runtime.commands.score_scene import Scenes
from aloha_runtime.commands.score_trials import TRIALS, Plan, Scored, Trials
from aloha_runtime.errors import AlohaError, ArmsStopped, ConfigError
from aloha_runtime.messages import Mode, ModeHeartbeat, Topic
from aloha_runtime.processes.table import Process
from aloha_runtime.realtime import WallClock
from aloha_runtime.rings import FramePublisher
from aloha_runtime.robot import START_POSE, pose_vector
from aloha_runtime.run_directory import RunDirectory

POLICIES = ("a", "b", "c")


@given(
    policies=st.lists(st.text("abcdef", min_size=1), min_size=1, max_size=4, unique=True), seed=st.integers(0, 2**31)
)
def test_every_policy_meets_every_scene_once_and_scene_by_scene(policies: list[str], seed: int) -> None:
    order = Plan(tuple(policies), 6, "t", seed).order()
    assert [scene for scene, _ in order] == [scene for scene in range(6) for _ in policies]
    assert len(set(order)) == len(order) == 6 * len(policies)
    assert order == Plan(tuple(policies), 6, "t", seed).order()


def test_every_place_in_the_order_comes_to_every_policy() -> None:
    order = Plan(POLICIES, 200, "t", 3).order()
    first = [policy for _, policy in order[:: len(POLICIES)]]
    assert min(first.count(policy) for policy in POLICIES) > 40


def scored(trials: Trials, success: bool) -> None:
    scene, policy = trials.left()[0]
    trials.add(Scored(scene, policy, success, 1.5, "operator"))


def test_a_session_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    plan = Plan(POLICIES, 4, "t", 7)
    trials = Trials.open(tmp_path / "out", plan, resume=False)
    for success in (True, False, True, True):
        scored(trials, success)
    with (tmp_path / "out" / TRIALS).open("a") as file:
        file.write('{"scene": 1, "poli')  # killed in the middle of a line
    again = Trials.open(tmp_path / "out", Plan(POLICIES, 4, "t", 8), resume=True)
    assert again.done == trials.done
    assert again.left() == plan.order()[4:]  # the order that was drawn then
    scored(again, False)
    assert len(Trials.open(tmp_path / "out", plan, resume=True).done) == 5


def test_an_outcome_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = watch(tmp_path, monkeypatch)
    plan = Plan(POLICIES, 4, "t", 7)
    trials = Trials.open(tmp_path / "new" / "out", plan, resume=False)
    for done in range(4):
        after = Trials.open(cut.rebuild(tmp_path / ".after") / "new/out", plan, resume=True)
        assert len(after.done) == done
        scored(trials, True)


def test_what_it_would_spoil_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    scored(Trials.open(out, Plan(POLICIES, 4, "t", 7), resume=False), True)
    with pytest.raises(AlohaError, match="holds 1 of 12 trials: add --resume"):
        Trials.open(out, Plan(POLICIES, 4, "t", 7), resume=False)
    with pytest.raises(AlohaError, match="scenes was 4, is 5; task was t, is u"):
        Trials.open(out, Plan(POLICIES, 5, "u", 7), resume=True)
    (out / TRIALS).write_text('{"scene": 1}\n')
    with pytest.raises(AlohaError, match="cannot be continued"):
        Trials.open(out, Plan(POLICIES, 4, "t", 7), resume=True)
    with pytest.raises(AlohaError, match="is not empty"):
        Trials.open(tmp_path, Plan(POLICIES, 4, "t", 7), resume=False)


def test_only_scenes_that_both_have_met_are_compared(tmp_path: Path) -> None:
    trials = Trials.open(tmp_path / "out", Plan(("a", "b"), 3, "t", 7), resume=False)
    for scene, policy, success in ((0, "a", True), (0, "b", False), (1, "b", True), (1, "a", True), (2, "a", True)):
        trials.add(Scored(scene, policy, success, 1.0, "operator"))
    (pair,) = trials.pairs()
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (1, 1, 0, 0)
    first, second = trials.as_json()["policies"]
    assert (first["solved"], first["trials"], second["solved"], second["trials"]) == (3, 3, 1, 2)


def wishes(tmp_path: Path, policies: list[str], **more) -> Wishes:
    return Wishes(tuple(policies), 1, "hand the cube over", tmp_path / "out", 1.0, **more)


def test_names_are_checked_before_anything_moves(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="named twice"):
        score(wishes(tmp_path, ["demo", "demo"]), "sim", tmp_path / "run")
    with pytest.raises(AlohaError, match="nowhere"):
        score(wishes(tmp_path, ["demo", "nowhere"]), "sim", tmp_path / "run")
    with pytest.raises(ConfigError, match="is a real rig"):
        score(wishes(tmp_path, ["demo"], scripted=True), "aloha", tmp_path / "run")
    assert not (tmp_path / "out").exists()


class Desk:
    """A stack in whose place the test moves the modes; an order of the operator comes at every look."""

    def __init__(self, orders: list[str], stops: str = "") -> None:
        self.rig = config.load("sim")
        self.clock = self.bus = self.mode = self
        self.orders, self.stops = iter(orders), stops
        self.did: list[str] = []
        self.said: list[str] = []
        self.now, self.now_mode, self.cause = 10**12, Mode.IDLE, ""

    def now_ns(self) -> int:
        return self.now

    def subscribe(self, topic: Topic) -> "Desk | None":
        return None

    def latest(self) -> ModeHeartbeat:
        return ModeHeartbeat(stamp_ns=self.now, mode=self.now_mode, cause=self.cause)

    def ask(self, verb: str, argument: str = "") -> None:
        self.did.append(" ".join([verb, argument]).strip())
        self.now_mode = {"policy": Mode.POLICY, "stop": Mode.HOLD}.get(verb, self.now_mode)
        self.cause = f"{verb} by operator"

    def exchange(self, process: Process) -> None:
        self.did.append(f"run {process.arguments[1]}")

    def wait(self, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        while not until():
            self.pause()

    def watch(self) -> None: ...

    def pause(self) -> None:
        self.now += 20_000_000
        if self.stops and self.now_mode is Mode.POLICY:
            self.now_mode, self.cause = Mode.HOLD, self.stops

    def take(self) -> list[str]:
        return [order] if (order := next(self.orders, "")) else []

    def say(self, text: str, spoken: str = "") -> None:
        self.said.append(text)


class Pictures:
    """In place of the cameras."""

    complete = True

    def __init__(self, *_: object) -> None:
        self.kept: list[int] = []

    def look(self) -> None: ...

    def show(self, scene: int) -> None: ...

    def keep(self, scene: int) -> None:
        self.kept.append(scene)

    def is_known(self, scene: int) -> bool:
        return scene in self.kept


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: list[str], stops: str = "", scripted: bool = False
) -> tuple[Desk, Trials]:
    """Two policies on two scenes under these orders."""
    monkeypatch.setattr(command, "Scenes", Pictures)
    monkeypatch.setattr(command.operate, "raise_arms", lambda desk: setattr(desk, "now_mode", Mode.ARMED))
    trials = Trials.open(tmp_path / "out", Plan(("alpha", "beta"), 2, "t", 7), resume=False)
    desk = Desk(orders, stops)
    asked = Wishes(("alpha", "beta"), 2, "t", tmp_path / "out", 1.0, scripted=scripted)
    Scoring(desk, asked, trials, desk, desk).run()  # type: ignore[arg-type]
    return desk, trials


def test_a_session_of_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = ["pause", "next", "", "discard", "next", "keep", "success", "next", "failure", "next", *[""] * 60, "quit"]
    desk, trials = run(tmp_path, monkeypatch, orders)
    assert [(one.success, one.cause) for one in trials.done] == [
        (True, "operator"),
        (False, "operator"),
        (False, "not done in 1 s"),
    ]
    order = [policy for _, policy in trials.plan.order()]
    assert [did for did in desk.did if did.startswith("run")] == [f"run {who}" for who in (order[0], *order[:4])]
    assert desk.did[:4] == [f"run {order[0]}", "reset 0", "policy", "stop routine"]
    assert [did for did in desk.did if did.startswith("reset")] == ["reset 0"] * 3 + ["reset 1"] * 2
    assert not any(name in line for line in desk.said for name in ("alpha", "beta"))  # blinded
    assert any("trial 2 of 4, scene 1: set the scene up (as before" in line for line in desk.said)


def test_arms_that_stop_by_themselves_are_judged_by_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = ["next", "", "", "discard", "next", "", "", "", "failure", "quit"]
    desk, trials = run(tmp_path, monkeypatch, orders, stops="left_elbow is hot")
    assert [(one.success, one.cause) for one in trials.done] == [(False, "HOLD: left_elbow is hot")]
    assert sum("Does this trial count?" in line for line in desk.said) == 2


def test_a_trial_in_which_the_computer_stood_still_is_no_failure_of_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArmsStopped, match="HOLD: this computer stood still for 140 ms"):
        run(
            tmp_path, monkeypatch, [], stops="this computer stood still for 140 ms; close other programs", scripted=True
        )
    assert Trials.open(tmp_path / "out", Plan(("alpha", "beta"), 2, "t", 7), resume=True).done == []
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(command, "NEXT_TIMEOUT_S", 0)
    _, trials = run(other, monkeypatch, [], stops="left_elbow is hot", scripted=True)
    assert [one.success for one in trials.done] == [False] * 4


def test_the_start_of_a_scene_is_kept_and_shown_over_what_is_there_now(tmp_path: Path) -> None:
    rig = config.load("sim")
    with RunDirectory(tmp_path / "run") as _, Bus(tmp_path / "run", WallClock()) as bus:
        camera = FramePublisher(bus, messages.camera_topic("cam_high", rig.cameras["cam_high"].fps), (120, 160, 3))
        scenes = Scenes(bus, rig, tmp_path)
        before, now = (np.full((120, 160, 3), level, np.uint8) for level in (40, 200))
        for picture in (before, now):
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and not np.array_equal(scenes.newest.get("cam_high"), picture):
                camera.send(picture, time.monotonic_ns())
                scenes.look()
            if picture is before:
                scenes.keep(0)
        scenes.keep(0)  # the first beginning stays
        scenes.show(0)
        left, middle, right = np.split(cv2.imread(str(tmp_path / "scene.jpg")), 3, axis=1)
        assert [round(float(part.mean())) for part in (left, middle, right)] == pytest.approx([200, 40, 120], abs=2)
        assert scenes.is_known(0)
        assert not scenes.is_known(1)


class Leaders:
    """Leaders in the hands of a person who gives a sign, whatever else happens."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.began_ns = desk, desk.now

    def latest(self) -> messages.ArmsState:
        ms = (self.desk.now - self.began_ns) // 1_000_000
        squeezed = any(start <= ms < start + 250 for start in (500, 1000))
        angles = pose_vector(START_POSE, 0.0 if squeezed else 1.0)
        return kit_rigs.arms_state(self.desk.rig, "leader", angles, stamp_ns=self.desk.now)

    def close(self) -> None: ...


@pytest.mark.parametrize("name", kit_rigs.RIGS)
def test_two_squeezes_are_an_order_with_every_kit_and_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(command, "Scenes", Pictures)
    desk = Desk([])
    desk.rig = kit_rigs.rig(name)
    leaders = Leaders(desk)
    monkeypatch.setattr(desk, "subscribe", lambda topic: leaders if topic is messages.LEADERS else None)
    trials = Trials.open(tmp_path / "out", Plan(("alpha",), 1, "t", 7), resume=False)
    scoring = Scoring(desk, wishes(tmp_path, ["alpha"]), trials, desk, desk)  # type: ignore[arg-type]
    heard = []
    for _ in range(150):
        desk.pause()
        heard.append(scoring._order())
    assert [order for order in heard if order] == [command.SIGNS[2]]
