"""LeRobot 0.6.1 as judge of edited datasets, and we of those that its own commands made of ours."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_lerobot_dataset import image, lerobot_python, psnr, read_with_lerobot  # noqa: F401 — a fixture

from aloha_runtime.data import Dataset, DatasetWriter, edit, statistics
from aloha_runtime.data.check import check

LENGTHS, TASKS = (12, 30, 21, 25), ("lift", "insert", "lift", "insert")
NAMES = [f"joint_{index}" for index in range(14)]
VECTORS = {"observation.state": NAMES, "action": NAMES, "goal": NAMES, "flags": ["repeated_cam_high", "intervention"]}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four episodes of two tasks, with features that LeRobot does not know."""
    path, random = tmp_path / "dataset", np.random.default_rng(3)
    with DatasetWriter.create(path, vectors=VECTORS, cameras={"cam_high": (48, 64)}) as writer:
        for length, task in zip(LENGTHS, TASKS, strict=True):
            for index in range(length):
                row = {key: random.normal(size=len(names)).astype(np.float32) for key, names in VECTORS.items()}
                writer.add_frame({**row, "observation.images.cam_high": image(index)})
            writer.save_episode(task, report={"outcome": "success"})
    return path


EDITS = {
    "delete": lambda path: edit.delete(path, ["1"]),
    "trim": lambda path: edit.trim(path, 1, 0.1, 0.4, still=False),
    "relabel": lambda path: edit.relabel(path, ["0"], "fold", None),
    "compact": edit.compact,
    "compact, then delete": lambda path: (edit.compact(path), edit.delete(path, ["0"])),
    "reencode": lambda path: edit.reencode(path, "av1"),
    "stats": edit.restat,
}


@pytest.mark.parametrize("name", EDITS)
def test_lerobot_reads_what_we_edited(lerobot_python, dataset, tmp_path, name):  # noqa: F811
    EDITS[name](dataset)
    judge(dataset, read_with_lerobot(lerobot_python, dataset, tmp_path))


def judge(path: Path, seen) -> None:
    """LeRobot saw the same numbers, pictures, tasks and statistics as we do."""
    ours = Dataset(path)
    assert json.loads(str(seen["meta"]))["episodes"] == len(ours.episodes)
    for key in VECTORS:
        if key != "action":  # read with future actions
            assert np.array_equal(seen[key], ours.vectors(key)), key
    assert np.array_equal(seen["action"][:, 0], ours.vectors("action"))
    assert list(seen["task"]) == [task for e in ours.episodes for task in e.tasks * e.length]
    images = 255 * seen["observation.images.cam_high"].transpose(0, 2, 3, 1)
    expected = np.concatenate([ours.images("cam_high", e.index) for e in ours.episodes])
    assert psnr(images, expected) > 40, "decoded by another FFmpeg"
    for key in VECTORS:
        for name in ("mean", "std", "min", "max"):
            assert np.allclose(seen[f"stats/{key}/{name}"], ours.stats[key][name], atol=1e-6)


def command(python: Path, scratch: Path, name: str, *words: str) -> None:
    environment = {**os.environ, "HF_HOME": str(scratch / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [python.parent / name, *words], capture_output=True, text=True, check=False, env=environment, cwd=scratch
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_we_read_what_lerobots_edit_command_made_of_ours(lerobot_python, dataset, tmp_path):  # noqa: F811
    made = tmp_path / "theirs"
    ours = Dataset(dataset)
    head = ["--repo_id", "local/ours", "--root", str(dataset)]
    out = ["--new_repo_id", "local/theirs", "--new_root", str(made)]
    delete = ["--operation.type", "delete_episodes", "--operation.episode_indices", "[1]"]
    command(lerobot_python, tmp_path, "lerobot-edit-dataset", *head, *out, *delete)
    theirs = Dataset(made)
    assert [episode.length for episode in theirs.episodes] == [12, 21, 25]
    kept = ours.column("episode_index") != 1
    for key in VECTORS:
        assert np.array_equal(theirs.vectors(key), ours.vectors(key)[kept]), key
    assert np.abs(theirs.images("cam_high", 1).astype(int) - ours.images("cam_high", 2)).mean() < 3
    assert [finding.what for finding in check(made, decode=True)] == []

    splits = ["--operation.type", "split", "--operation.splits", '{"a": [0, 2], "b": [1, 3]}']
    command(lerobot_python, tmp_path, "lerobot-edit-dataset", *head, "--new_root", str(tmp_path / "split"), *splits)
    assert [episode.length for episode in Dataset(tmp_path / "split/a").episodes] == [12, 21]
    roots = json.dumps([str(tmp_path / "split/a"), str(tmp_path / "split/b")])
    merge = ["--operation.type", "merge", "--operation.repo_ids", '["local/a", "local/b"]', "--operation.roots", roots]
    merged = ["--new_repo_id", "local/merged", "--new_root", str(tmp_path / "merged")]
    command(lerobot_python, tmp_path, "lerobot-edit-dataset", *merged, *merge)
    both = Dataset(tmp_path / "merged")
    assert [episode.length for episode in both.episodes] == [12, 21, 30, 25]
    assert [episode.tasks for episode in both.episodes] == [("lift",), ("lift",), ("insert",), ("insert",)]
    edit.delete(tmp_path / "merged", ["0"])
    assert check(tmp_path / "merged") == [], "we edit what LeRobot merged"


def test_statistics_are_those_that_lerobot_computes(lerobot_python, dataset, tmp_path):  # noqa: F811
    """Its histograms have 5000 bins between the extremes of an episode; ours are exact."""
    head = ["--repo_id", "local/ours", "--root", str(dataset)]
    out = ["--new_repo_id", "local/theirs", "--new_root", str(tmp_path / "theirs")]
    command(lerobot_python, tmp_path, "lerobot-edit-dataset", *head, *out, "--operation.type", "recompute_stats")
    ours, theirs = Dataset(dataset), Dataset(tmp_path / "theirs")
    for key in VECTORS:
        for name in ("min", "max", "mean", "std", "count"):
            assert np.allclose(theirs.stats[key][name], ours.stats[key][name], atol=1e-6), (key, name)
        spans = [np.ptp(ours.vectors(key)[e.from_index : e.to_index], axis=0) for e in ours.episodes]
        for name in statistics.QUANTILES:
            off = np.abs(theirs.stats[key][name] - ours.stats[key][name])
            assert (off <= np.max(spans, axis=0) / 5000 + 1e-9).all(), (key, name, off.max())


def test_we_read_what_else_lerobot_does_to_ours(lerobot_python, dataset, tmp_path):  # noqa: F811
    before = Dataset(dataset)
    head = ["--repo_id", "local/ours", "--root", str(dataset)]

    def edited(name: str, kind: str, *words: str) -> Path:
        out = ["--new_repo_id", f"local/{name}", "--new_root", str(tmp_path / name), "--operation.type", kind]
        command(lerobot_python, tmp_path, "lerobot-edit-dataset", *head, *out, *words)
        assert check(tmp_path / name, decode=True) == []
        return tmp_path / name

    fewer = Dataset(edited("fewer", "remove_feature", "--operation.feature_names", '["flags"]'))
    assert set(before.info.vectors) - set(fewer.info.vectors) == {"flags"}
    assert np.array_equal(fewer.vectors("goal"), before.vectors("goal"))
    smaller = edited("smaller", "reencode_videos", "--operation.rgb_encoder.vcodec", "libsvtav1")
    assert psnr(Dataset(smaller).images("cam_high", 2), before.images("cam_high", 2)) > 30
    edit.trim(smaller, 1, 0.1, 0.5, still=False)
    assert check(smaller, decode=True) == []
    command(
        lerobot_python,
        tmp_path,
        "lerobot-edit-dataset",
        *head,
        "--operation.type",
        "modify_tasks",
        "--operation.episode_tasks",
        '{"0": "fold"}',
    )
    assert [episode.tasks for episode in Dataset(dataset).episodes] == [("fold",), ("insert",), ("lift",), ("insert",)]
    assert check(dataset) == []


def test_lerobots_visualisation_takes_ours(lerobot_python, dataset, tmp_path):  # noqa: F811
    words = ["--repo-id", "local/ours", "--root", str(dataset), "--episode-index", "2", "--save", "1"]
    command(
        lerobot_python,
        tmp_path,
        "lerobot-dataset-viz",
        *words,
        "--output-dir",
        str(tmp_path / "viz"),
        "--num-workers",
        "0",
    )
    (made,) = (tmp_path / "viz").glob("*.rrd")
    printed = subprocess.run(
        [lerobot_python, "-m", "rerun", "rrd", "print", made], capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    for entity in ("/observation.images.cam_high", "/action", "/state"):
        assert entity in printed.stdout.replace("\\", ""), entity
