"""Small good inputs of every kind that this program reads. Hostile ones are made from them."""

import json
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pyarrow.parquet as pq

from aloha_runtime import config
from aloha_runtime.act import ACTPolicy
from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.data.pieces import link
from aloha_runtime.remote.keys import Keys
from aloha_runtime.robot import NAMES

TESTS = Path(__file__).parents[1]
CAMERA = "observation.images.cam_high"
HEIGHT, WIDTH = 48, 64


def make_all(folder: Path) -> None:
    """One folder for each kind: v3, v2, hdf5, checkpoint, log, rig, keys."""
    sys.path[:0] = [str(TESTS / "act"), str(TESTS / "flight")]
    import made_logs
    import small_policy

    _v3(folder / "v3")
    _v2(folder / "v3", folder / "v2")
    _hdf5(folder / "hdf5")
    ACTPolicy(small_policy.config(), small_policy.stats()).save_pretrained(folder / "checkpoint")
    (folder / "log").mkdir()
    made_logs.make(folder / "log/hold.mcap", seconds=5)
    (folder / "rig").mkdir()
    for name in ("sim", "aloha"):
        (folder / f"rig/{name}.yaml").write_bytes((config.CONFIG_DIR / f"{name}.yaml").read_bytes())
    ours, other = Keys(folder / "keys"), Keys(folder / "other")
    ours.create()
    ours.allow(other.create(), "gpu")


def _v3(path: Path) -> None:
    vectors = {"observation.state": list(NAMES), "action": list(NAMES)}
    random = np.random.default_rng(0)
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam_high": (HEIGHT, WIDTH)}) as writer:
        for episode, length in enumerate((6, 9)):
            for index in range(length):
                image = np.full((HEIGHT, WIDTH, 3), 100 * episode + 3 * index, np.uint8)
                both = {name: random.uniform(0, 0.9, 14) for name in vectors}
                writer.add_frame({**both, CAMERA: image})
            writer.save_episode(f"task {episode}")


def _v2(newer: Path, path: Path) -> None:
    """As LeRobot at v2.1 lays it out."""
    dataset = Dataset(newer)
    info = json.loads((newer / "meta/info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    for inside in ("meta", "data/chunk-000", f"videos/chunk-000/{CAMERA}"):
        (path / inside).mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    lines = [{"episode_index": e.index, "tasks": list(e.tasks), "length": e.length} for e in dataset.episodes]
    (path / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = [{"task_index": index, "task": task} for index, task in enumerate(dataset.tasks)]
    (path / "meta/tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tasks))
    for episode in dataset.episodes:
        name = f"episode_{episode.index:06d}"
        pq.write_table(pq.read_table(episode.data_path), path / f"data/chunk-000/{name}.parquet")
        link(episode.videos["cam_high"].path, path / f"videos/chunk-000/{CAMERA}/{name}.mp4")


def _hdf5(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, compress in enumerate((True, False)):
        (folder / str(number)).mkdir()
        with h5py.File(folder / str(number) / "episode_0.hdf5", "w") as file:
            file.attrs["compress"] = compress
            for inside in ("observations/qpos", "observations/qvel", "observations/effort", "action"):
                file[inside] = random.uniform(-1, 1, (4, 14)).astype(np.float32)
            images = np.full((4, HEIGHT, WIDTH, 3), 90, np.uint8)
            encoded = np.stack([cv2.imencode(".jpg", image)[1].ravel() for image in images])
            file["observations/images/cam_high"] = encoded if compress else images
