"""A policy that only shadows, and one that is run with care, through every process in virtual time. The judge of what
the arms were told is the independent monitor in each emulated chain, which reads the bytes on the wire."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_kills import random_policy

from aloha_runtime import config, messages
from aloha_runtime.commands import deploy, operate, shadow
from aloha_runtime.commands.findings import Finding, Level
from aloha_runtime.commands.preflight import PAGE, Preflight
from aloha_runtime.commands.shadow_log import ShadowLog
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import DeployConfig, RigConfig
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import Action, ArmsState, Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import IS_GRIPPER
from aloha_runtime.run_directory import lock_holder
from aloha_runtime.sim.chain_control import GetReport, ask

pytestmark = pytest.mark.long

VELOCITY = 0.8


@dataclass
class Run:
    """What was seen of one system."""

    still: np.ndarray = field(default_factory=lambda: np.empty((0, 3, 14)))
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 3, 14)))
    idle: list[ArmsState] = field(default_factory=list)
    followers: list[ArmsState] = field(default_factory=list)
    teleop: list[Action] = field(default_factory=list)
    holders: dict[str, int | None] = field(default_factory=dict)
    """Which process publishes each topic of a policy's actions."""
    goals: dict[str, int] = field(default_factory=dict)
    """Goals on the wire while nobody moved the arms, by follower."""
    offences: dict[str, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    findings: dict[str, Finding] = field(default_factory=dict)
    page: str = ""
    policy_s: float = 0.0
    cause: str = ""


def rig_with(care: DeployConfig) -> RigConfig:
    return deploy.with_care(operate.with_task(config.load("sim"), 3, "transfer_cube", "virtual"), care)


def look_at_wire(run: Run, stack: Stack) -> dict[str, int]:
    """Goals on the wire so far, by follower."""
    goals = {}
    for arm in ("follower_left", "follower_right"):
        report = ask(stack.run_dir, arm, GetReport()).report
        assert report is not None
        goals[arm] = report.goals
        run.offences |= report.counts
    return goals


def refusal(stack: Stack) -> str:
    with pytest.raises(AlohaError) as caught:
        stack.ask("policy")
    return str(caught.value)


def shadowed(folder: Path, policy: str) -> Run:
    """At first nobody moves the arms, then a person does (the demonstrator)."""
    run, still, log = Run(), ShadowLog(folder / "still.csv"), ShadowLog(folder / "actions.csv")
    rig = rig_with(DeployConfig(shadow=True, max_duration_s=0.6))
    with Stack(rig, Job.DEMONSTRATE, folder / "run", policy) as stack:
        followers = stack.bus.subscribe(messages.FOLLOWERS, depth=10_000)
        teleop = stack.bus.subscribe(messages.ACTION_TELEOP, depth=10_000)
        before = look_at_wire(run, stack)
        shadow.watch(stack, Job.DEPLOY, still)
        run.refusals.append(refusal(stack))
        stack.pause(0.2)
        run.goals = {arm: count - before[arm] for arm, count in look_at_wire(run, stack).items()}
        run.still, run.idle = still.rows, followers.drain()
        shadow.watch(stack, Job.DEMONSTRATE, log)
        run.refusals.append(refusal(stack))
        run.followers, run.teleop = followers.drain(), teleop.drain()
        look_at_wire(run, stack)
        for topic in (messages.ACTION_POLICY, messages.SHADOW_POLICY):
            run.holders[topic.name] = lock_holder(stack.run_dir / f"{topic.name}.lock")
    still.close()
    log.close()
    run.rows = log.rows
    return run


def careful(folder: Path, policy: str) -> Run:
    run = Run()
    care = deploy.care_from(speed=0.5, max_duration_s=1.5, limits=None, velocity=VELOCITY)
    rig = rig_with(care)
    alone = {name: arm for name, arm in rig.arms.items() if name.startswith("follower")}
    rig = rig.model_copy(update={"arms": alone})  # three processes less to start
    with Stack(rig, Job.DEPLOY, folder / "careful", policy) as stack:
        followers = stack.bus.subscribe(messages.FOLLOWERS, depth=10_000)
        operate.raise_arms(stack)
        flight = Preflight(policy, stack.rig, (), Console(quiet=True))
        flight.files()
        flight.live(stack, folder / "out", at_start=True)
        run.findings = {finding.check: finding for finding in flight.found}
        run.page = (folder / "out" / PAGE).read_text()
        stack.ask("policy")
        began_ns = stack.clock.now_ns()
        operate.watch_until_interrupted(stack, 5.0, deploys=True)
        heartbeat = stack.mode.latest()
        run.cause, run.policy_s = heartbeat.cause, (heartbeat.order_ns - began_ns) / 1e9
        run.followers = followers.drain()
        look_at_wire(run, stack)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    folder = tmp_path_factory.mktemp("deploy")
    policy = str(random_policy(folder / "policy"))
    with ThreadPoolExecutor(2) as pool:
        jobs = {"shadow": pool.submit(shadowed, folder, policy), "careful": pool.submit(careful, folder, policy)}
        yield {name: job.result() for name, job in jobs.items()}


@pytest.mark.timeout(600)
def test_arms_that_a_policy_shadows_get_no_goal_at_all(runs: dict[str, Run]) -> None:
    run = runs["shadow"]
    assert run.goals == {"follower_left": 0, "follower_right": 0}
    assert all(state.goal is None and state.target is None for state in run.idle)
    assert len(run.still) > 20, "the policy did predict"
    assert np.isfinite(run.still[:, 0]).all()
    assert np.isnan(run.still[:, 1]).all(), "nobody moved the arms"


def test_a_shadow_has_no_publisher_of_actions_and_no_request_gives_it_the_arms(runs: dict[str, Run]) -> None:
    run = runs["shadow"]
    assert run.holders["action_policy"] is None
    assert run.holders["shadow_policy"] is not None
    assert len(run.refusals) == 2
    assert all("only shadows" in said for said in run.refusals)


def test_while_a_person_moves_the_arms_every_target_is_the_persons(runs: dict[str, Run]) -> None:
    run = runs["shadow"]
    said = {(action.stamp_ns, tuple(action.position)) for action in run.teleop}
    targets = [(state.action_stamp_ns, tuple(state.target)) for state in run.followers if state.target]
    assert len(targets) > 90
    assert set(targets) <= said
    assert run.offences == {}


def test_predicted_and_commanded_are_side_by_side(runs: dict[str, Run]) -> None:
    rows = runs["shadow"].rows
    both = rows[np.isfinite(rows[:, 1]).all(axis=1)]
    assert len(both) > 20
    assert np.abs(both[:, 0] - both[:, 1]).max() > 0.1, "an untrained policy does something else"
    said = {tuple(np.float32(action.position).tolist()) for action in runs["shadow"].teleop}
    assert {tuple(row.tolist()) for row in both[:, 1]} <= said


def test_care_holds_on_the_wire_and_time_ends_in_hold(runs: dict[str, Run]) -> None:
    run = runs["careful"]
    assert run.offences == {}, "the monitor judges by the tightened envelope"
    goals = np.array([state.goal for state in run.followers if state.goal])
    speeds = np.abs(np.diff(goals[:, ~IS_GRIPPER], axis=0)) / 0.005
    assert 0.5 * VELOCITY < speeds.max() <= 2 * VELOCITY + 1e-6, "in one or two cycles of 5 ms"
    assert run.cause == "the policy has moved the arms for its time of 1.5 s (--max-duration)"
    assert run.policy_s == pytest.approx(1.5, abs=0.1)
    assert Mode.POLICY in {state.mode for state in run.followers}


def test_before_it_moves_the_rig_is_looked_at_through_the_policys_eyes(runs: dict[str, Run]) -> None:
    found = runs["careful"].findings
    assert found["observation"].value == "complete: 1 cameras and the arms"
    assert found["inference"].level is Level.OK
    assert found["cameras.cam_high.rate"].value == "50 frames/s"
    # Its made-up statistics are about the start pose, in the file and under the cameras alike.
    assert {name for name, finding in found.items() if finding.level is not Level.OK} == set()
    assert runs["careful"].page.count("data:image/jpeg;base64,") == 1
