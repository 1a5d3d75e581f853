"""A person takes over from a policy and hands back, through every process in virtual time."""

from dataclasses import dataclass, field
from pathlib import Path

import kit_rigs
import numpy as np
import pytest
from test_kills import random_policy
from test_recorder_process import Hands

from aloha_runtime import messages
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.data import Dataset, recorded
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import ArmsState, Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import IS_GRIPPER, SIDE_SLICE, SIDES
from aloha_runtime.sim.chain_control import GetReport, ask
from aloha_runtime.sim.correction import with_grippers

pytestmark = pytest.mark.long


@dataclass
class Run:
    """What was seen of one session."""

    dataset: Path
    modes: list[Mode] = field(default_factory=list)
    followers: list[ArmsState] = field(default_factory=list)
    gap_rad: float = 0.0
    """Largest distance of leaders and followers after a second of the policy."""
    refusal: str = ""
    offences: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("takeover")
    rig = operate.with_takeover(operate.with_task(kit_rigs.rig("aloha2, mounted"), 3, "transfer_cube", "virtual"), True)
    run = Run(folder / "dataset")
    recorded.create(run.dataset, rig)
    arguments = ("--dataset", str(run.dataset), "--task", "whatever", "--intervenes")
    policy = str(random_policy(folder / "policy"))
    with Stack(rig, Job.DEPLOY, folder / "run", policy, recording=arguments) as stack:
        hands = Hands(stack)
        leaders = stack.bus.subscribe(messages.LEADERS)
        followers = stack.bus.subscribe(messages.FOLLOWERS, depth=10_000)
        hands.ask("next")
        operate.raise_arms(stack)
        try:
            stack.ask("takeover")
        except AlohaError as error:
            run.refusal = str(error)
        followers.drain()
        stack.ask("policy")
        stack.pause(1.0)
        gap = np.array(leaders.latest().position) - np.array(followers.latest().position)
        run.gap_rad = float(np.abs(gap[~IS_GRIPPER]).max())

        def hold(squeezed: bool, lift: float, seconds: float) -> None:
            """A person at the leaders where they stand now, and from there `lift` rad further."""
            angles = np.array(leaders.latest().position) + np.where(IS_GRIPPER, 0.0, lift)
            angles = with_grippers(angles, hands.grippers, 0.0 if squeezed else 1.0)
            for side in SIDES:
                hands.link.write_hand(f"leader_{side}", angles[SIDE_SLICE[side]].tolist())
            stack.pause(seconds)

        hold(False, 0.0, 0.2)
        hold(True, 0.0, 0.4)
        run.modes.append(Mode(stack.mode.latest().mode))
        for _ in range(10):
            hold(True, 0.01, 0.02)
        hold(True, 0.0, 0.3)
        hands.let_go()
        stack.ask("handback")
        stack.pause(0.5)
        run.modes.append(Mode(stack.mode.latest().mode))
        run.followers = followers.drain()
        hands.ask("success")
        stack.pause(0.2)
        for side in SIDES:
            report = ask(stack.run_dir, f"follower_{side}", GetReport()).report
            assert report is not None
            assert report.goals > 0
            run.offences |= report.counts
    return run


@pytest.mark.timeout(600)
def test_a_squeeze_takes_over_and_the_operator_hands_back(run: Run) -> None:
    assert run.modes == [Mode.TELEOP, Mode.POLICY]
    assert "takeover is not possible in armed" in run.refusal


def test_leaders_follow_the_policy(run: Run) -> None:
    assert run.gap_rad < 0.15


def test_followers_never_jump(run: Run) -> None:
    goals = np.array([state.goal for state in run.followers if state.goal])
    steps = np.abs(np.diff(goals[:, ~IS_GRIPPER], axis=0))
    assert steps.max() <= 2 * 2.5 * 0.005 + 1e-9, "2.5 rad/s, in one or two cycles of 5 ms"
    assert run.offences == {}


def test_the_recording_marks_what_the_person_did(run: Run) -> None:
    dataset = Dataset(run.dataset)
    flags = dataset.column(recorded.INTERVENTION)
    assert flags.dtype == bool
    (episode,) = dataset.episodes
    assert episode.length > 80
    begin, end = np.flatnonzero(flags)[[0, -1]]
    assert 50 < begin < end < episode.length - 1
    assert flags[begin : end + 1].all(), "one stretch"
    assert 15 < end - begin < 60
