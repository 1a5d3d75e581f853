"""Training: our loader against decoding the same video for every sample, and against LeRobot's own dataset class.

Four 480x640 cameras, samples in random order, batches of eight with chunks of 100 actions. LeRobot runs in an
environment of its own (`make interop` sets it up); without it those peers are left out.
"""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.act.augment import Augmentation
from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.commands.bench import Row
from aloha_runtime.data import DatasetWriter
from aloha_runtime.robot import NAMES

CAMERAS = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
HEIGHT, WIDTH = 480, 640
EPISODES, LENGTH = 4, 100
"""1.5 GB of decoded frames: more than any processor caches, less than any machine's memory."""
BATCH, CHUNK = 8, 100
DIRECT_SAMPLES, LEROBOT_SAMPLES, CACHED_SAMPLES = 64, 96, 2400
INTEROP = Path(__file__).parents[2] / ".venv-interop/bin/python"
LEROBOTS_LOADER = Path(__file__).parents[1] / "act/lerobot_loader.py"


def loader_rows(directory: Path | None = None) -> list[Row]:
    """Samples a second of each way to read the same dataset, made in a temporary directory or `directory`."""
    with TemporaryDirectory(prefix="aloha-bench-", dir=directory) as made:
        path = Path(made) / "dataset"
        write_dataset(path)
        cached = TrainingData(path, None, Path(made) / "frames", _ignore)
        direct = TrainingData(path, None, Path(made) / "none", _ignore, cache_gb=0)
        rate(direct, BATCH)
        rate(cached, len(cached.vectors["action"]))  # every page mapped once, as after the first epoch
        before = rate(direct, DIRECT_SAMPLES)
        ours = rate(cached, CACHED_SAMPLES)
        decoding = (before + rate(direct, DIRECT_SAMPLES)) / 2  # both sides of ours, as other load comes and goes
        rows = [_row("loader, frames cached, against own direct decoding", ours, decoding)]
        for workers in (0, 2):
            for backend, theirs in lerobots_rates(path, workers).items():
                named = f"LeRobot ({backend}, {workers} workers)"
                rows += [
                    _row(f"loader, frames cached, against {named}", ours, theirs),
                    _row(f"loader, direct decoding, against {named}", decoding, theirs),
                ]
    return rows


def _row(name: str, value: float, peer: float) -> Row:
    return Row(name, value, "samples/s", peer=peer, goal=peer, met=value >= peer)


def _ignore(_line: str) -> None:
    """What the cache tells of itself."""


def write_dataset(path: Path) -> None:
    """Smooth pictures that move by a few pixels a frame, as a camera's do: noise would be no video."""
    random = np.random.default_rng(0)
    names: Mapping[str, Sequence[str]] = {"observation.state": NAMES, "action": NAMES}
    backgrounds = {camera: _landscape(random) for camera in CAMERAS}
    with DatasetWriter.create(path, vectors=names, cameras=dict.fromkeys(CAMERAS, (HEIGHT, WIDTH))) as writer:
        for episode in range(EPISODES):
            for step in range(LENGTH):
                top, left = 2 * step % 80, (3 * step + 11 * episode) % 80
                images = {
                    f"observation.images.{camera}": picture[top : top + HEIGHT, left : left + WIDTH]
                    for camera, picture in backgrounds.items()
                }
                vector = 0.5 + 0.4 * np.sin(np.arange(14) + step / 20 + episode)
                writer.add_frame({"observation.state": vector, "action": vector, **images})
            writer.save_episode("bench")


def _landscape(random: np.random.Generator) -> NDArray[np.uint8]:
    """(560, 720, 3): coarse random colours, blurred by repeated averaging."""
    picture = np.kron(random.uniform(0, 255, (35, 45, 3)), np.ones((16, 16, 1)))
    for _ in range(8):
        for axis in (0, 1):
            picture = (np.roll(picture, 3, axis) + picture + np.roll(picture, -3, axis)) / 3
    return picture.astype(np.uint8)


def rate(data: TrainingData, samples: int) -> float:
    """Samples a second of `TrainingData.batch` in random order."""
    random = np.random.default_rng(0)
    batches = max(1, samples // BATCH)
    picks = random.integers(0, len(data.vectors["action"]), (batches, BATCH))
    started = time.perf_counter()
    for frames in picks:
        data.batch(frames, CHUNK, Augmentation(), random)
    return batches * BATCH / (time.perf_counter() - started)


def lerobots_rates(path: Path, workers: int) -> dict[str, float]:
    """Samples a second by video backend; nothing where LeRobot is not installed."""
    if not INTEROP.exists():
        return {}
    command = [str(INTEROP), str(LEROBOTS_LOADER), str(path), str(LEROBOT_SAMPLES), str(BATCH), str(workers)]
    environment = {"HF_HOME": str(path.parent / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if finished.returncode:
        return {}
    rates: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return rates
