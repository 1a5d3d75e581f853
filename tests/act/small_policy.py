"""Small policies, observations and datasets that the tests of this room share."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aloha_runtime.act import ACTConfig
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, SMALL_POLICY, STATE, aloha_inputs
from aloha_runtime.act.normalize import Stats
from aloha_runtime.data.writer import DatasetWriter

HEIGHT, WIDTH = 48, 64
CAMERA = IMAGE_PREFIX + "cam_high"

TINY: dict[str, Any] = {
    **SMALL_POLICY,
    "chunk_size": 8,
    "dim_model": 32,
    "n_heads": 2,
    "dim_feedforward": 64,
    "n_encoder_layers": 1,
    "small_cnn_width": 8,
    "small_cnn_keypoints": 4,
}


def config(**changes: Any) -> ACTConfig:
    values = {"input_shapes": aloha_inputs({"cam_high": (HEIGHT, WIDTH)}), **TINY, **changes}
    return ACTConfig(**values)


def stats() -> Stats:
    random = np.random.default_rng(3)
    sizes = {STATE: (14,), ACTION: (14,), ENVIRONMENT_STATE: (7,), CAMERA: (3, 1, 1)}
    return {
        name: {
            "mean": torch.tensor(random.uniform(-0.5, 0.5, size), dtype=torch.float32),
            "std": torch.tensor(random.uniform(0.2, 0.5, size), dtype=torch.float32),
        }
        for name, size in sizes.items()
    }


def observation(batch: int | None = None, seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    return {
        CAMERA: random.integers(0, 256, (*lead, HEIGHT, WIDTH, 3), dtype=np.uint8),
        STATE: random.uniform(-1, 1, (*lead, 14)).astype(np.float32),
    }


def scene(x: float, y: float) -> NDArray[np.uint8]:
    """A grey picture with a red square of 8 pixels at (x, y), each 0..1."""
    picture = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    row, column = round(y * (HEIGHT - 8)), round(x * (WIDTH - 8))
    picture[row : row + 8, column : column + 8] = (230, 20, 20)
    return picture


def write_dataset(path: Path, episodes: int = 4, length: int = 12) -> None:
    """Episodes in which the actions are a function of where the red square is."""
    random = np.random.default_rng(0)
    names = [f"joint_{index}" for index in range(14)]
    vectors = {STATE: names, ACTION: names, ENVIRONMENT_STATE: ["x", "y", "z"]}
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam_high": (HEIGHT, WIDTH)}) as writer:
        for _ in range(episodes):
            x, y = random.random(2)
            for step in range(length):
                state = np.linspace(0, 1, 14) * step / length
                action = state + np.resize([x, y], 14)
                place = np.array([x, y, 0.0])
                writer.add_frame({STATE: state, ACTION: action, ENVIRONMENT_STATE: place, CAMERA: scene(x, y)})
            writer.save_episode("find the square")
