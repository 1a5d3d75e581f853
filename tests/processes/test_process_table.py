"""The table of processes: what it names exists, and every topic and health report has its publisher in it."""

import importlib
from pathlib import Path

import pytest

from aloha_runtime import config, messages, processes
from aloha_runtime.processes.table import DEPLOYED, Job, Process, every_process
from aloha_runtime.processes.table import processes as table

RIGS = ("sim", "aloha", "aloha2")


@pytest.mark.parametrize("rig", RIGS)
@pytest.mark.parametrize("job", list(Job))
def test_every_process_has_a_module_with_a_main(rig: str, job: Job) -> None:
    for process in table(config.load(rig), job):
        assert callable(importlib.import_module(process.module).main)


def test_every_module_is_in_the_table() -> None:
    files = {path.stem for path in Path(processes.__path__[0]).glob("*.py")} - {"__init__", "table"}
    rig = config.load("sim").model_copy(update={"metrics_port": 9110})
    assert files == {name.partition("@")[0] for name in every_process(rig)}


@pytest.mark.parametrize("job", list(Job))
def test_names_are_unique_and_started_in_order(job: Job) -> None:
    names = [process.name for process in table(config.load("sim"), job)]
    assert len(names) == len(set(names))
    stages = {process.name: process.stage for process in table(config.load("sim"), job)}
    assert stages["world"] < stages["chain@follower_left"] < stages["arms@followers"]


def test_every_topic_has_its_publisher_in_the_table() -> None:
    rig = config.load("sim")
    named = set(every_process(rig))
    assert {topic.publisher for topic in messages.TOPICS} <= named
    assert {messages.camera_topic(camera).publisher for camera in rig.cameras} <= named
    assert {messages.health_topic(name).publisher for name in named} == named
    assert len({topic.name for topic in messages.TOPICS}) == len(messages.TOPICS)


def test_a_real_rig_runs_nothing_simulated() -> None:
    for name in RIGS[1:]:
        kinds = {process.partition("@")[0] for process in every_process(config.load(name))}
        assert kinds == {"supervisor", "camera", "arms", "teleop", "policy", "replay", "recorder", "flight"}


def test_a_recorder_listens_on_every_rig_in_wall_time_that_does_not_refuse_it() -> None:
    rig = config.load("sim")
    assert rig.sim is not None
    virtual = rig.model_copy(update={"sim": rig.sim.model_copy(update={"clock": "virtual"})})
    assert "flight" in every_process(rig)
    assert "flight" not in every_process(virtual)
    assert "flight" not in every_process(rig.model_copy(update={"flight": None}))


def test_one_camera_process_for_each_camera() -> None:
    rig = config.load("aloha")
    cameras = [process.name for process in table(rig, Job.TELEOP) if process.name.startswith("camera@")]
    assert cameras == [f"camera@{name}" for name in rig.cameras]


def test_the_policy_gets_its_checkpoint() -> None:
    policy = next(process for process in table(config.load("sim"), Job.DEPLOY, "my_policy") if process.name == "policy")
    assert policy == Process("policy", DEPLOYED, arguments=("--checkpoint", "my_policy"))


def test_a_replay_gets_its_episode() -> None:
    replay = next(p for p in table(config.load("sim"), Job.REPLAY, episode=("folder", 3)) if p.name == "replay")
    assert replay.arguments == ("--dataset", "folder", "--episode", "3")
