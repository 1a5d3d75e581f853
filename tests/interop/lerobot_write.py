"""Runs inside the LeRobot environment: records two datasets with LeRobot, and what went into them.

Argument: a folder. `video/` has seven episodes of three tasks, one file an episode and camera and two files a chunk;
`image/` has one whose pictures are single images. `raw.npz` holds the numbers and pictures of `video/`.
"""

import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

LENGTHS, TASKS = (12, 9, 20, 11, 8, 15, 10), ("lift", "insert", "lift", "wave", "insert", "lift", "wave")
NAMES = [f"joint_{index}" for index in range(14)]
out, random = Path(sys.argv[1]), np.random.default_rng(5)


def record(name: str, dtype: str, episodes: int) -> dict[str, list]:
    camera = {"dtype": dtype, "shape": (64, 80, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (14,), "names": NAMES}
    features = {"observation.state": vector, "action": vector, "observation.images.cam_high": camera}
    dataset = LeRobotDataset.create(
        f"local/{name}", fps=50, features=features, root=out / name, robot_type="aloha", use_videos=dtype == "video"
    )
    dataset.meta.update_chunk_settings(chunks_size=2, data_files_size_in_mb=0.0001, video_files_size_in_mb=0.0001)
    raw: dict[str, list] = {key: [] for key in features}
    for length, task in zip(LENGTHS[:episodes], TASKS, strict=False):
        for index in range(length):
            rows, columns = np.mgrid[0:64, 0:80]
            picture = np.stack([2 * rows + index, 3 * columns, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
            frame = {key: random.normal(size=14).astype(np.float32) for key in ("observation.state", "action")}
            frame["observation.images.cam_high"] = picture
            for key, value in frame.items():
                raw[key].append(value)
            dataset.add_frame({**frame, "task": task})
        dataset.save_episode()
    dataset.finalize()
    return raw


np.savez(out / "raw.npz", **record("video", "video", 7))
record("image", "image", 1)
