"""Other names and other numbers for the same dataset, and merges that go by meaning."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import unknown_features as unknown

from aloha_runtime.data import Dataset, DatasetWriter, edit, split_merge
from aloha_runtime.data.check import check
from aloha_runtime.data.rename import Names, pairs, rename
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, IS_GRIPPER, NAMES

RIGHT_FIRST = [*NAMES[7:], *NAMES[:7]]
LENGTH = 12


def pose(step: int, names: list[str]) -> np.ndarray:
    """Every joint moves by a slope of its own; grippers between 0 and 1."""
    values = {name: 0.01 * (NAMES.index(name) + 1) * step / LENGTH for name in NAMES}
    return np.array([values[name] for name in names])


def write(path: Path, names: list[str] | tuple[str, ...] = NAMES, fps: float = 50, turned: bool = False) -> Path:
    vectors = {"observation.state": list(names), "action": list(names)}
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam": (16, 32)}, fps=fps) as writer:
        for step in range(LENGTH):
            row = pose(step, list(names))
            row = np.where([name.endswith("gripper") for name in names], row, np.rad2deg(row)) if turned else row
            image = np.full((16, 32, 3), 20 * step, np.uint8)
            writer.add_frame({"observation.state": row, "action": row, "observation.images.cam": image})
        writer.save_episode("wipe", report={"outcome": "success"})
    return path


def description(path: Path, change: Any) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    change(info)
    (path / "meta/info.json").write_text(json.dumps(info))


def test_names_of_the_same_meaning_merge(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")

    def nest(info: dict[str, Any]) -> None:
        info["fps"] = 50.0
        info["features"]["action"]["names"] = {"motors": [list(NAMES)]}
        camera = info["features"]["observation.images.cam"]
        camera["shape"], camera["names"] = [3, 16, 32], ["channels", "height", "width"]

    description(second, nest)
    split_merge.merge([first, second], tmp_path / "both")
    assert check(tmp_path / "both", decode=True) == []
    assert len(Dataset(tmp_path / "both").episodes) == 2
    edit.compact(tmp_path / "both")


DIFFERENCES = [
    (lambda info: info.update(robot_type="mobile"), "robot_type was aloha, is mobile", "rename .* --robot-type aloha"),
    (lambda info: info["features"]["action"].update(names=RIGHT_FIRST), "action.names was", "convert --arm-order"),
    (lambda info: info.update(fps=30), "fps was 50, is 30", "convert .* --rate 50"),
    (
        lambda info: info["features"]["observation.images.cam"]["info"].update({"video.codec": "av1"}),
        "codec was h264, is av1",
        "reencode",
    ),
]


@pytest.mark.parametrize(("change", "said", "remedy"), DIFFERENCES)
def test_each_difference_is_named_with_what_removes_it(tmp_path: Path, change: Any, said: str, remedy: str) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    description(second, change)
    with pytest.raises(DatasetError, match=f"{said}.*{remedy}"):
        split_merge.merge([first, second], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_rename_changes_names_and_nothing_else(tmp_path: Path) -> None:
    path = unknown.write(tmp_path / "others")
    before = shutil.copytree(path, tmp_path / "before")
    names = Names({"cam": "cam_high", "stored": "cam_low"}, {"x": "lift_m"}, {"turn": "twist it"}, "stationary")
    said = rename(path, names)
    assert "camera cam is cam_high" in said
    now, was = Dataset(path), Dataset(before)
    assert check(path, decode=True) == []
    assert set(now.cameras) == {"cam_high", "cam_low"}
    assert now.info.robot_type == "stationary"
    assert now.features["action"].names == ["lift_m", "y"]
    assert now.tasks == ("lift", "twist it")
    assert [episode.tasks for episode in now.episodes] == [("lift",), ("twist it",), ("lift",)]
    assert now.fps == was.fps
    for index in range(len(was)):
        assert np.array_equal(now.frame("cam_high", index), was.frame("cam", index))
        assert np.array_equal(now.frame("cam_low", index), was.frame("stored", index))
    for key in (*unknown.KINDS.keys() - {unknown.STORED, "language_events"}, "action"):
        assert np.array_equal(now.column(key), was.column(key)), key
    assert now.stats.keys() == was.stats.keys()
    edit.undo(path)
    assert set(Dataset(path).cameras) == {"cam", "stored"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (Names(cameras={"top": "cam_high"}), "no camera 'top'"),
        (Names(cameras={"cam": "stored"}), "two features would have one name"),
        (Names(cameras={"cam": "../../x"}), "outside the dataset"),
        (Names(joints={"x": "y"}), "two of its numbers would have one name"),
        (Names(tasks={"turn": "lift"}), "`aloha dataset relabel` joins them"),
        (Names(tasks={"turns": "lift"}), "no task 'turns'"),
        (Names(), "say what is to be renamed"),
    ],
)
def test_names_that_cannot_be_are_refused(tmp_path: Path, names: Names, words: str) -> None:
    path = unknown.write(tmp_path / "others")
    with pytest.raises(DatasetError, match=words):
        rename(path, names)
    assert len(Dataset(path).vectors("action")) == sum(unknown.LENGTHS)


@pytest.mark.parametrize("words", [["cam"], ["=x"], ["x="], [""], ["a=b", "a=c"], ["a=c", "b=c"]])
def test_pairs_are_old_and_new(words: list[str]) -> None:
    with pytest.raises(DatasetError, match="write each name once, as OLD=NEW"):
        pairs(words)
    assert pairs(["a=b", "c = d e"]) == {"a": "b", "c": "d e"}


def test_degrees_and_arm_order_become_those_of_the_rig(tmp_path: Path) -> None:
    path = write(tmp_path / "a", RIGHT_FIRST, turned=True)
    said = split_merge.convert(path, tmp_path / "out", degrees=True, arm_order=True)
    assert "joints reordered in observation.state, action" in said
    made = Dataset(tmp_path / "out")
    assert made.features["action"].names == list(NAMES)
    wanted = np.array([pose(step, list(NAMES)) for step in range(LENGTH)])
    np.testing.assert_allclose(made.vectors("action"), wanted, atol=1e-6)
    np.testing.assert_allclose(made.vectors("observation.state"), wanted, atol=1e-6)
    assert IS_GRIPPER.sum() == DOF - 12
    assert check(tmp_path / "out") == []
    assert Dataset(path).features["action"].names == RIGHT_FIRST, "the first stays as it is"


@pytest.mark.parametrize(("before", "after"), [(50, 25), (25, 50), (29.97, 50), (50, 29.97)])
def test_another_rate_interpolates_numbers_and_takes_the_nearest_picture(
    tmp_path: Path, before: float, after: float
) -> None:
    path = write(tmp_path / "a", fps=before)
    split_merge.convert(path, tmp_path / "out", rate=after)
    made = Dataset(tmp_path / "out")
    assert made.fps == after
    assert check(tmp_path / "out", decode=True) == []
    count = int((LENGTH - 1) / before * after) + 1
    assert len(made) == count
    steps = np.minimum(np.arange(count) * before / after, LENGTH - 1)
    wanted = np.array([pose(step, list(NAMES)) for step in steps])
    np.testing.assert_allclose(made.vectors("action"), wanted, atol=1e-6)
    for index, step in enumerate(steps):
        assert abs(made.frame("cam", index).mean() - 20 * np.rint(step)) < 8


def test_unknown_features_go_through_a_conversion_by_the_nearest_frame(tmp_path: Path) -> None:
    path = unknown.write(tmp_path / "others")
    split_merge.convert(path, tmp_path / "out", rate=15)
    made = Dataset(tmp_path / "out")
    assert check(tmp_path / "out", decode=True) == []
    picked = [round(step * 29.97 / 15) for step in range(made.episodes[0].length)]
    assert made.column("instruction")[: len(picked)].tolist() == [unknown.cell("instruction", 0, p) for p in picked]
    depth = unknown.read_depth(made.episodes[0].videos["cam_depth"].path)
    assert all(np.array_equal(depth[step], unknown.depth(0, pick)) for step, pick in enumerate(picked))


def test_nothing_to_convert_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    with pytest.raises(DatasetError, match="nothing to convert"):
        split_merge.convert(path, tmp_path / "out", rate=50.0)
    with pytest.raises(DatasetError, match=r"no vector has the joints .* in another order.*--joint OLD=NEW"):
        split_merge.convert(path, tmp_path / "out", arm_order=True)
