"""Small good inputs of every kind that this program reads. Hostile ones are made from them."""

import sys
from pathlib import Path

import cv2
import h5py
import numpy as np

from aloha_runtime import config
from aloha_runtime.act import ACTPolicy
from aloha_runtime.data import DatasetWriter
from aloha_runtime.remote.keys import Keys
from aloha_runtime.robot import NAMES

TESTS = Path(__file__).parents[1]
CAMERA = "observation.images.cam_high"
HEIGHT, WIDTH = 48, 64


def make_all(folder: Path) -> None:
    """One folder for each kind: v3, v2, hdf5, checkpoint, log, rig, keys."""
    sys.path[:0] = [str(TESTS / name) for name in ("act", "dataset", "flight")]
    import made_logs
    import older_layout
    import small_policy

    _v3(folder / "v3")
    older_layout.write_older(folder / "v3", folder / "v2")
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
