"""The physical stop on the whole simulated rig, in virtual time: whatever moves the arms, a press stops them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stop_tools import Pedal
from test_kills import random_policy

from aloha_runtime import config
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import StopInputConfig
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import MS, Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.sim.chain_control import GetReport, Peek, ask

pytestmark = pytest.mark.long

FOLLOWERS = ("follower_left", "follower_right")
STILL_WITHIN_NS = 40 * MS
"""Two turns of the supervisor; the arms obey in their next cycle."""
WATCHED_S = 0.6


class Scene:
    """A running rig with a pedal."""

    def __init__(self, stack: Stack, pedal: Pedal) -> None:
        self.stack, self.pedal = stack, pedal

    @property
    def mode(self) -> Mode:
        return Mode(self.stack.mode.latest().mode)

    def until(self, mode: Mode) -> None:
        self.stack.wait(lambda: self.mode is mode, 20.0, f"mode {mode}")

    def goals_changed_ns(self) -> int:
        """When a follower's goal last changed, by its wire; 0: there was none yet."""
        reports = [ask(self.stack.run_dir, arm, GetReport()).report for arm in FOLLOWERS]
        return max((stamp for report in reports if report for stamp in report.last_change_ns.values()), default=0)

    def press(self) -> None:
        """While something moves the followers; they stand still then, torque on, and stay."""
        now_ns = self.stack.clock.now_ns()
        assert now_ns - self.goals_changed_ns() < 30 * MS, "nothing moved, so nothing was tried"
        self.hold()
        assert self.goals_changed_ns() - now_ns <= STILL_WITHIN_NS

    def hold(self) -> None:
        """Press and release; every servo keeps its torque."""
        self.pedal.press()
        self.pedal.release()
        self.stack.pause(WATCHED_S)
        assert self.mode is Mode.HOLD
        assert self.stack.mode.latest().cause == "stop by stop input"
        assert all(ask(self.stack.run_dir, arm, Peek(1, "Torque_Enable")).value for arm in FOLLOWERS)


@contextmanager
def running(folder: Path, job: Job, checkpoint: str = "") -> Iterator[Scene]:
    pedal = Pedal(folder / "pedal")
    rig = operate.with_task(config.load("sim"), 3, "transfer_cube", "virtual")
    rig = rig.model_copy(update={"stop_input": StopInputConfig(device=str(pedal.path))})
    with Stack(rig, job, folder / "run", checkpoint) as stack:
        yield Scene(stack, pedal)
        pedal.release()


def once_moving(scene: Scene) -> Callable[[], bool]:
    return lambda: scene.stack.clock.now_ns() - scene.goals_changed_ns() < 10 * MS


@pytest.mark.timeout(600)
def test_a_press_stops_the_ramp_teleoperation_and_parking(tmp_path: Path) -> None:
    with running(tmp_path, Job.DEMONSTRATE) as scene:
        scene.stack.ask("arm", "start")
        scene.stack.wait(once_moving(scene), 5.0, "the ramp")
        scene.press()

        scene.pedal.press()
        scene.stack.pause(0.1)
        with pytest.raises(AlohaError, match=r"stop input: any key of .*pedal is pressed"):
            scene.stack.ask("arm", "start")
        scene.pedal.release()
        scene.stack.pause(0.1)

        scene.stack.ask("arm", "start")
        scene.until(Mode.TELEOP)  # the demonstrator squeezes
        scene.stack.pause(1.0)
        scene.press()

        scene.stack.ask("arm", "here")
        scene.stack.pause(0.1)
        assert scene.mode is Mode.ARMED
        scene.hold()

        scene.stack.ask("park")
        scene.stack.wait(once_moving(scene), 5.0, "parking")
        scene.press()

        scene.pedal.unplug()
        scene.stack.pause(0.1)
        with pytest.raises(AlohaError, match=r"stop input: .*pedal"):
            scene.stack.ask("arm", "here")
        scene.stack.ask("park")
        scene.until(Mode.IDLE)
        scene.pedal.plug()


@pytest.mark.timeout(600)
def test_a_press_stops_a_policy(tmp_path: Path) -> None:
    with running(tmp_path, Job.DEPLOY, str(random_policy(tmp_path / "policy"))) as scene:
        scene.stack.ask("arm", "start")
        scene.stack.wait(lambda: _started(scene), 20.0, "the policy")
        scene.stack.pause(0.5)
        scene.press()


def _started(scene: Scene) -> bool:
    try:
        scene.stack.ask("policy")
    except AlohaError:
        return False
    return True
