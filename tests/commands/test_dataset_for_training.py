"""`aloha dataset check` never says that all is well of what training or deployment refuses; names are read however deep
they are nested."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.commands.dataset_info import check
from aloha_runtime.data import Dataset, DatasetWriter, split_merge
from aloha_runtime.data.units import flat_names
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import NAMES

RIGHT_FIRST = [*NAMES[7:], *NAMES[:7]]


def write(path: Path, names: list[str], fps: float = 50, moves: bool = True, codec: str = "h264") -> Path:
    vectors = {"observation.state": names, "action": names}
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam": (16, 32)}, fps=fps, codec=codec) as writer:
        for step in range(12):
            row = np.full(14, 0.02 * step if moves else 0.1)
            image = np.full((16, 32, 3), 20 * step, np.uint8)
            image[:8] //= 2
            writer.add_frame({"observation.state": row, "action": row, "observation.images.cam": image})
        writer.save_episode("wipe")
    return path


def described(path: Path, change: Any) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    change(info)
    (path / "meta/info.json").write_text(json.dumps(info))


def trains(path: Path, tmp_path: Path) -> None:
    TrainingData(path, None, tmp_path / "cache", lambda _: None)


def test_a_good_one_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(write(tmp_path / "a", list(NAMES)), decode=False)
    assert "all is well" in capsys.readouterr().out
    trains(tmp_path / "a", tmp_path)


UNFIT = [
    (lambda path: write(path, list(NAMES), moves=False), "training: .*action never changes in 12 frames"),
    (lambda path: write(path, list(NAMES), fps=30), "deploying: a policy would act at 30 Hz.*--rate 50"),
    (lambda path: write(path, RIGHT_FIRST), "right_waist where left_waist belongs"),
]


@pytest.mark.parametrize(("made", "words"), UNFIT)
def test_what_training_or_deployment_refuses_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: Any, words: str
) -> None:
    made(tmp_path / "a")
    assert not check(tmp_path / "a", decode=False)
    said = capsys.readouterr().out
    assert "all is well" not in said

    assert re.search(words, said)


def test_a_dataset_without_an_action_is_not_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DatasetWriter.create(tmp_path / "a", vectors={"observation.state": ["x"]}) as writer:
        for step in range(5):
            writer.add_frame({"observation.state": [0.1 * step]})
        writer.save_episode("wipe")
    assert not check(tmp_path / "a", decode=False)
    assert "has no action, which ACT needs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "nest",
    [lambda names: [names], lambda names: {"motors": names}, lambda names: {"motors": {"r": names[:7], "l": names[7:]}},
     lambda names: {name: place for place, name in enumerate(names)}],
)  # fmt: skip
def test_nested_names_do_not_hide_the_order(tmp_path: Path, nest: Any) -> None:
    path = write(tmp_path / "a", RIGHT_FIRST)
    described(
        path,
        lambda info: [info["features"][key].update(names=nest(RIGHT_FIRST)) for key in ("observation.state", "action")],
    )
    assert flat_names(Dataset(path).features["action"].names) == RIGHT_FIRST
    with pytest.raises(DatasetError, match="right_waist where left_waist belongs"):
        trains(path, tmp_path)
    split_merge.convert(path, tmp_path / "out", arm_order=True)
    trains(tmp_path / "out", tmp_path)


def test_names_nested_without_end_are_none() -> None:
    names: list[Any] = []
    for _ in range(5000):
        names = [names]
    assert flat_names(names) == []


def test_mixed_encodings_of_a_camera_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write(tmp_path / "a", list(NAMES)), write(tmp_path / "b", list(NAMES), codec="lossless")
    kind = json.loads((one / "meta/info.json").read_text())["features"]["observation.images.cam"]["info"]
    described(other, lambda info: info["features"]["observation.images.cam"].update(info=kind))
    split_merge.merge([one, other], tmp_path / "both")
    assert not check(tmp_path / "both", decode=False)
    assert "is h264 gbrp, " in (said := " ".join(capsys.readouterr().out.split()))
    assert "encodings are mixed" in said
    assert "aloha dataset reencode" in said


def test_rows_are_judged_before_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that do not count are the finding, not the pictures that then seem to be missing."""
    path = write(tmp_path / "a", list(NAMES))
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    for name, value in (("dataset_from_index", 900), ("dataset_to_index", 912)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([value]))
    pq.write_table(table, file)
    shutil.rmtree(path / "videos")
    assert not check(path, decode=True)
    said = capsys.readouterr().out
    assert "episode 0: covers frames 900 to 912, not 0 to 12" in said
    assert "mp4" not in said
    with pytest.raises(DatasetError, match="covers frames 900 to 912"):
        trains(path, tmp_path)
