"""The whole system in virtual time: the real processes, driver, sockets and emulated chains, one at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aloha_command import nothing_left

from aloha_runtime import config, messages
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.errors import ShutDown
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.run_directory import lock_holder
from aloha_runtime.sim.chain_control import GetReport, ask

pytestmark = pytest.mark.long

WHOLE_S, PART_S = 6.5, 1.0
"""Virtual time in TELEOP: a demonstration takes 5.4 s."""


@dataclass
class Run:
    """What one demonstration looked like from outside."""

    run_dir: Path
    worlds: list[bytes] = field(default_factory=list)
    """Every state of the world that was published."""
    stage: int = 0
    offences: dict[str, int] = field(default_factory=dict)
    wrong_publishers: list[str] = field(default_factory=list)
    after_shutdown: Mode | None = None


def demonstrate(run_dir: Path, seconds: float) -> Run:
    """One scripted demonstration of seed 3, ended as `aloha down` does."""
    rig = operate.with_task(config.load("sim"), 3, "transfer_cube", "virtual")
    run = Run(run_dir)
    with Stack(rig, Job.DEMONSTRATE, run_dir) as stack:
        states = stack.bus.subscribe(messages.SIM_STATE, depth=10_000)
        run.wrong_publishers = wrong_publishers(stack)
        operate.raise_arms(stack)
        stack.wait(lambda: operate.mode_of(stack) is Mode.TELEOP, 5.0, "the squeeze")
        end_ns = stack.clock.now_ns() + int(seconds * 1e9)
        while stack.clock.now_ns() < end_ns:
            stack.watch()
            stack.pause()
            for state in states.drain():
                run.stage = max(run.stage, state.stage)
                run.worlds.append(messages.encode(state))
        operate.mode_of(stack)  # raises when something stopped the arms
        for arm in rig.arms:
            report = ask(run_dir, arm, GetReport()).report
            assert report is not None
            assert report.goals > 0
            run.offences.update({f"{arm} {kind}": count for kind, count in report.counts.items()})
        stack.ask("shutdown")
        with pytest.raises(ShutDown):
            stack.wait(lambda: False, 10.0, "the end")
        run.after_shutdown = Mode(stack.mode.latest().mode)
    return run


def wrong_publishers(stack: Stack) -> list[str]:
    """Topics of the running processes that another than the process of the table publishes."""
    names = {process.name for process in stack.table}
    topics = [*messages.TOPICS, *(messages.health_topic(name) for name in names)]
    topics += [messages.camera_topic(camera) for camera in stack.rig.cameras]
    return [
        topic.name
        for topic in topics
        if topic.publisher in names and lock_holder(stack.run_dir / f"{topic.name}.lock") != stack.pid(topic.publisher)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Run]]:
    """A whole demonstration and the beginning of the same one, at the same time."""
    folder = tmp_path_factory.mktemp("lock_step")
    with ThreadPoolExecutor() as pool:
        yield list(pool.map(demonstrate, [folder / "whole", folder / "part"], [WHOLE_S, PART_S]))


@pytest.mark.timeout(600)
def test_a_demonstration_through_every_process_transfers_the_cube(runs: list[Run]) -> None:
    assert runs[0].stage == 4


def test_two_runs_are_the_same_to_the_byte(runs: list[Run]) -> None:
    whole, part = (run.worlds for run in runs)
    assert len(part) > 200
    assert whole[: len(part)] == part


def test_no_goal_leaves_the_envelope(runs: list[Run]) -> None:
    assert runs[0].offences == {}


def test_every_topic_is_published_by_the_process_of_the_table(runs: list[Run]) -> None:
    assert runs[0].wrong_publishers == []


def test_a_shutdown_parks_and_ends_and_leaves_nothing(runs: list[Run]) -> None:
    for run in runs:
        assert run.after_shutdown is Mode.IDLE
        assert not nothing_left(run.run_dir, killed=False)
