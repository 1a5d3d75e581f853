"""Preflight: each thing that can be wrong with a checkpoint for a rig is named with its value, and refused; what a
person may judge can be accepted by name, and nothing else can."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from aloha_runtime import config
from aloha_runtime.act import device, provenance
from aloha_runtime.act.config import ACTION, STATE
from aloha_runtime.commands import preflight_checks, preflight_live, preflight_run
from aloha_runtime.commands.findings import Finding, Level, fail, ok, warn
from aloha_runtime.commands.preflight import refusal
from aloha_runtime.commands.preflight_checks import Checkpoint
from aloha_runtime.commands.preflight_live import Look, examine
from aloha_runtime.commands.preflight_page import page
from aloha_runtime.config import RigConfig
from aloha_runtime.config_parts import GripperRange, PolicyConfig
from aloha_runtime.data.recorded import described
from aloha_runtime.errors import CheckpointError
from aloha_runtime.messages import Health
from aloha_runtime.processes.table import Job, processes
from aloha_runtime.robot import NAMES, START_POSE, pose_vector

RIG = config.load("sim")
START = pose_vector(START_POSE, 0.0)


def origin(rig: RigConfig = RIG, **dataset: Any) -> dict[str, Any]:
    """What training on data of this rig writes."""
    parts = msgspec.json.decode(msgspec.json.encode(described(rig)))
    calibration = {key: parts.pop(key) for key in preflight_checks.CALIBRATION}
    names = {STATE: list(NAMES), ACTION: list(NAMES)}
    return {"dataset": {"fps": 50, "names": names, **dataset}, "rig": parts, "calibration": calibration}


@pytest.fixture(scope="module")
def good() -> Checkpoint:
    loaded, _ = preflight_checks.examine(config.policy_path("demo"), RIG)
    assert loaded is not None
    return replace(loaded, origin=origin())


def with_stats(loaded: Checkpoint, feature: str, key: str, joint: int, value: float) -> Checkpoint:
    stats = {name: {key: values.numpy().copy() for key, values in kept.items()} for name, kept in loaded.stats.items()}
    stats[feature][key].reshape(-1)[joint] = value
    return replace(loaded, stats=stats)


def checks(loaded: Checkpoint, rig: RigConfig = RIG) -> dict[str, Finding]:
    """What is wrong, by name."""
    parts = preflight_checks
    found = [*parts.cameras(loaded, rig), *parts.sizes(loaded, rig), *parts.names(loaded), *parts.rate(loaded)]
    found += [*parts.statistics(loaded), *parts.start_pose(loaded, rig), *parts.training_rig(loaded, rig)]
    return {finding.check: finding for finding in found if finding.level is not Level.OK}


def test_a_policy_of_this_rig_has_nothing_against_it(good: Checkpoint) -> None:
    assert checks(good) == {}


@pytest.mark.parametrize("name", ["demo", "insertion"])
def test_an_older_checkpoint_is_let_through_and_what_it_does_not_say_is_said(name: str) -> None:
    loaded, found = preflight_checks.examine(config.policy_path(name), RIG)
    assert loaded is not None
    assert {finding.level for finding in found} == {Level.OK}
    unknown = {finding.check for finding in found if finding.value.startswith("unknown")}
    assert unknown >= {"state.names", "action.names", "rig", "calibration"}


def test_a_rate_that_the_checkpoint_does_not_say_is_for_a_person_to_judge(good: Checkpoint) -> None:
    found = checks(replace(good, origin={}))
    assert found["rate"].level is Level.WARN
    assert "does not say; its actions go out at 50 Hz" in found["rate"].value
    assert "30 Hz would move 1.67 times as fast" in found["rate"].fix
    with pytest.raises(CheckpointError, match=r"rate: unknown.*--accept rate"):
        refusal("p", list(found.values()), [])
    refusal("p", list(found.values()), ["rate"])


def run_findings(loaded: Checkpoint, **policy: Any) -> dict[str, Finding]:
    rig = RIG.model_copy(update={"policy": PolicyConfig(**policy)})
    return {finding.check: finding for finding in preflight_run.examine(loaded, rig)}


def test_what_becomes_of_the_chunks_and_where_the_network_runs_is_said(good: Checkpoint) -> None:
    found = run_findings(good)
    assert found["execution"].value == (
        "temporal ensembling, coefficient 0.01, the oldest chunk first (as the checkpoint says)"
    )
    assert found["device"].level is Level.OK
    chosen = run_findings(good, ensemble="off", n_action_steps=10)["execution"].value
    assert chosen.startswith("10 actions of each chunk, no ensembling (the operator's choice; the checkpoint says ")


def test_a_gpu_that_is_named_and_missing_is_refused_and_one_that_is_not_used_is_for_a_person_to_judge(
    good: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    missing = run_findings(good, device="cuda")["device"]
    assert missing.level is Level.FAIL
    assert "PyTorch finds no GPU here" in missing.value
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setattr(device, "DRIVER", tmp_path)
    unused = run_findings(good)["device"]
    assert unused.level is Level.WARN
    assert "although this machine has an NVIDIA GPU" in unused.value


IMAGE = "observation.images.cam_high"
STATISTICS: list[tuple[str, str, int, float, str, Level, str]] = [
    (STATE, "mean", 3, np.nan, "statistics.state", Level.FAIL, "mean of number 3 is not finite"),
    (ACTION, "std", 2, 0.0, "statistics.action", Level.FAIL, "std of number 2 is 0"),
    (STATE, "std", 0, 1e-5, "statistics.state", Level.WARN, "left_waist hardly moved in training (std 1e-05)"),
    (ACTION, "max", 1, 57.0, "statistics.action", Level.FAIL, "left_shoulder reaches 57.0, which cannot be radians"),
    (STATE, "min", 6, -2.0, "statistics.state", Level.FAIL, "left_gripper goes from -2.00 to 1.00"),
    (IMAGE, "mean", 0, 127.0, "statistics.images.cam_high", Level.FAIL, "pixels reach 127"),
]


@pytest.mark.parametrize(("feature", "key", "joint", "value", "check", "level", "said"), STATISTICS)
def test_statistics_that_are_not_sane(
    good: Checkpoint, feature: str, key: str, joint: int, value: float, check: str, level: Level, said: str
) -> None:
    found = checks(with_stats(good, feature, key, joint, value))
    assert found[check].level is level
    assert said in found[check].value


def test_statistics_that_are_missing(good: Checkpoint) -> None:
    found = checks(replace(good, stats={name: kept for name, kept in good.stats.items() if name != ACTION}))
    assert found["statistics.action"].level is Level.FAIL
    assert found["statistics.action"].value == "there is no mean"


def swapped_names() -> dict[str, list[str]]:
    return {STATE: [*NAMES[7:], *NAMES[:7]], ACTION: list(NAMES)}


@pytest.mark.parametrize(
    ("dataset", "check", "said"),
    [
        ({"fps": 30}, "rate", "trained at 30 Hz; at 50 Hz it would move 1.7 times as fast"),
        ({"names": swapped_names()}, "state.names", "number 0 is right_waist, where this rig has left_waist"),
        ({"names": {STATE: list(NAMES[:6])}}, "state.names", "number 6 is missing, where this rig has left_gripper"),
        ({"names": {STATE: [*NAMES, "base"]}}, "state.names", "number 14 is base, where this rig has no more"),
    ],
)
def test_other_data_cannot_be_accepted(good: Checkpoint, dataset: dict[str, Any], check: str, said: str) -> None:
    found = checks(replace(good, origin=origin(**dataset)))
    assert found[check].level is Level.FAIL
    assert said in found[check].value
    with pytest.raises(CheckpointError, match=rf"{check} cannot be accepted"):
        refusal("p", list(found.values()), [check])


def test_cameras(good: Checkpoint) -> None:
    smaller = RIG.cameras["cam_high"].model_copy(update={"width": 320})
    found = checks(good, RIG.model_copy(update={"cameras": {"cam_high": smaller}}))
    assert found["cameras.cam_high"].level is Level.FAIL
    assert found["cameras.cam_high"].value == "trained on 160x120, cam_high of the rig gives 320x120"
    found = checks(good, RIG.model_copy(update={"cameras": {"cam_low": RIG.cameras["cam_high"]}}))
    assert found["cameras.cam_high"].value == "the policy looks through it, the rig has cam_low"


def test_two_cameras_of_the_policy_through_one_of_the_rig(good: Checkpoint) -> None:
    shapes = {**good.config.input_shapes, "observation.images.top": good.config.images[IMAGE]}
    both = replace(good, config=replace(good.config, input_shapes=shapes))
    rig = RIG.model_copy(update={"policy": RIG.policy.model_copy(update={"cameras": {"top": "cam_high"}})})
    found = checks(both, rig)["cameras.order"]
    assert found.level is Level.WARN
    assert "cam_high of the rig stands for 2 cameras of the policy" in found.value


def test_numbers_of_other_arms(good: Checkpoint) -> None:
    shapes = {**good.config.input_shapes, STATE: (7,)}
    other = replace(good, config=replace(good.config, input_shapes=shapes, output_shapes={ACTION: (7,)}))
    found = checks(other)
    assert found["state.size"].value == found["action.size"].value == "7 numbers, these arms have 14"
    assert {found["state.size"].level, found["action.size"].level} == {Level.FAIL}


def test_calibration_and_rig_of_the_training(good: Checkpoint) -> None:
    arm = RIG.arms["follower_left"]
    arm = arm.model_copy(update={"gripper": GripperRange(angle_open=1.5, angle_close=-0.6213)})
    found = checks(good, RIG.model_copy(update={"arms": {**RIG.arms, "follower_left": arm}}))
    name = "calibration.grippers.follower_left.angle_open"
    assert all(key.startswith("calibration.grippers.follower_left.") for key in found)
    assert found[name].level is Level.WARN
    assert "is 1.5 since the recordings" in found[name].value
    slower = RIG.cameras["cam_high"].model_copy(update={"fps": 30})
    found = checks(good, RIG.model_copy(update={"cameras": {"cam_high": slower}, "name": "another"}))
    assert list(found) == ["rig.cameras.cam_high.fps"], "the name is no matter"
    assert found["rig.cameras.cam_high.fps"].value == "cameras.cam_high.fps was 50, is 30 since the recordings"


def test_a_start_pose_where_the_policy_has_never_been(good: Checkpoint) -> None:
    found = checks(good, RIG.model_copy(update={"start_pose": (0.0, -0.96, 0.2, 0.0, -0.3, 0.0)}))
    assert found["start_pose.left_elbow"].level is Level.WARN
    assert "left_elbow stands at 0.20 rad, training saw 0.65 to 1.23" in found["start_pose.left_elbow"].value


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(small, np.ones((20, 20, 1), dtype=np.uint8))


def test_live_pictures_beside_training_frames(good: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    then = {"cam_high": [picture(1)], "top": [picture(2)]}
    monkeypatch.setattr(preflight_live.training_frames, "read", lambda _: then)
    rig = RIG.model_copy(update={"policy": RIG.policy.model_copy(update={"cameras": {"top": "cam_low"}})})

    def warned(high: np.ndarray, low: np.ndarray) -> dict[str, Finding]:
        found, frames = examine(good, Look(START, {"cam_high": high, "cam_low": low}), True, rig)
        assert set(frames) == {"cam_high", "cam_low"}
        assert not any(finding.level is Level.FAIL for finding in found), "a person may know better"
        return {finding.check: finding for finding in found if finding.level is Level.WARN}

    assert warned(picture(1), picture(2)) == {}
    exchanged = warned(picture(2), picture(1))
    assert "looks like cam_low of the training" in exchanged["cameras.cam_high.training"].value
    dark = warned(picture(1), np.zeros_like(picture(2)))
    assert set(dark) == {"cameras.cam_low.live", "cameras.cam_low.training"}


def test_a_camera_that_delivers_less_than_it_is_set_to(good: Checkpoint) -> None:
    halved, none = ([index * step for index in range(count)] for step, count in ((40_000_000, 13), (0, 1)))
    assert preflight_live.rate_hz(halved) == pytest.approx(25.0)
    assert preflight_live.rate_hz(none) == preflight_live.rate_hz([]) == 0.0
    for rate_hz, level in ((25.0, Level.WARN), (0.0, Level.WARN), (49.0, Level.OK)):
        (found,) = preflight_live.rates(Look(START, {}, rates_hz={"cam_high": rate_hz}), RIG)
        assert found.check == "cameras.cam_high.rate"
        assert found.level is level


def test_live_position(good: Checkpoint) -> None:
    def warned(joint: int, value: float, at_start: bool = True) -> dict[str, str]:
        position = START.copy()
        position[joint] = value
        found = preflight_live.positions(good, position, at_start)
        return {finding.check: finding.value for finding in found if finding.level is not Level.OK}

    assert warned(0, 0.0) == {}
    assert "stands at 0.60 rad, training saw -0.04 to 0.04" in warned(0, 0.6)["start_pose.left_waist"]
    assert warned(0, 0.6, at_start=False) == {}
    assert "reads 1.60" in warned(13, 1.6, at_start=False)["gripper.right_gripper"]


def test_no_observation_is_refused_with_the_reason(good: Checkpoint) -> None:
    (found,), _ = examine(good, Look(None, {}, "cam_high: newest frame is 240 ms old"), True, RIG)
    assert found.level is Level.FAIL
    assert "cam_high: newest frame is 240 ms old" in found.value


@pytest.mark.parametrize(("inference_ms", "level"), [(8.0, Level.OK), (600.0, Level.FAIL)])
def test_an_engine_that_is_too_slow(good: Checkpoint, inference_ms: float, level: Level) -> None:
    health = Health(stamp_ns=0, process="policy", pid=1, figures={"inference_ms": inference_ms})
    (found,) = preflight_live.speed(good, health)
    assert found.level is level


def test_a_network_that_has_failed_is_refused_with_its_reason(good: Checkpoint) -> None:
    (found,) = preflight_live.speed(good, Health(stamp_ns=0, process="policy", pid=1, ok=False, message="GPU is lost"))
    assert (found.level, found.value) == (Level.FAIL, "GPU is lost")


def test_nothing_that_could_command_runs_in_a_preflight() -> None:
    names = {process.name for process in processes(RIG, Job.LOOK)}
    assert names >= {"supervisor", "arms@followers", "camera@cam_high"}
    assert not names & {"policy", "teleop", "replay", "demonstrator"}


def test_only_warnings_can_be_accepted_each_by_its_name() -> None:
    found = [ok("a", "fine"), warn("b.c", "odd", "look"), warn("d", "strange", "mend")]
    with pytest.raises(CheckpointError, match=r"b.c: odd \(look\); d: strange .* --accept b.c --accept d$"):
        refusal("p", found, [])
    with pytest.raises(CheckpointError, match=r"--accept d$"):
        refusal("p", found, ["b.c", "other"])
    refusal("p", found, ["b.c", "d"])
    with pytest.raises(CheckpointError, match=r"does not fit: e: wrong \(replace\) \(e cannot be accepted\)"):
        refusal("p", [*found, fail("e", "wrong", "replace")], ["b.c", "d", "e"])


def test_the_page_shows_every_camera_and_finding_and_nothing_is_run_from_a_name() -> None:
    text = page("<b>p", "r", [warn("x", "<script>", "do")], {"cam_high": picture(1)}, {"cam_high": [picture(2)] * 3})
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<script>" not in text
    assert "<b>p" not in text
    assert "no training frames" in page("p", "r", [], {"cam_high": picture(1)}, {})


def lists_a_file_elsewhere(directory: Path) -> None:
    content = json.loads((directory / provenance.PROVENANCE).read_text())
    content["frames"] = {"cam_high": ["../../secret.jpg"]}
    (directory / provenance.PROVENANCE).write_text(json.dumps(content))


def broken_statistics(directory: Path) -> None:
    (directory / "policy_preprocessor.json").unlink()


@pytest.mark.parametrize(("damage", "check"), [(broken_statistics, "checkpoint")])
def test_files_that_are_damaged(tmp_path: Path, damage: Callable[[Path], None], check: str) -> None:
    shutil.copytree(config.policy_path("demo"), tmp_path / "p")
    damage(tmp_path / "p")
    loaded, (found,) = preflight_checks.examine(tmp_path / "p", RIG)
    assert loaded is None
    assert (found.check, found.level) == (check, Level.FAIL)


def test_training_frames_of_a_hostile_checkpoint_are_a_warning(tmp_path: Path, good: Checkpoint) -> None:
    shutil.copytree(config.policy_path("demo"), tmp_path / "p")
    lists_a_file_elsewhere(tmp_path / "p")
    bad = replace(good, directory=tmp_path / "p")
    found, frames = examine(bad, Look(START, {"cam_high": picture(1)}), True, RIG)
    assert frames == {}
    assert (
        "'../../secret.jpg' is no picture in training_frames/" in {f.check: f.value for f in found}["cameras.training"]
    )
