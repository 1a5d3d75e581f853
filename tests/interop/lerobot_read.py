"""Runs inside the LeRobot environment: opens a dataset with LeRobot and writes what it saw.

Arguments: dataset directory, output .npz. Every frame is read through `LeRobotDataset.__getitem__` with three future
actions per frame.
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, output = sys.argv[1:]
offsets = [0.0, 0.02, 0.04]
dataset = LeRobotDataset("local/test", root=root, delta_timestamps={"action": offsets}, video_backend="pyav")
items = [dataset[index] for index in range(len(dataset))]
seen = {
    "meta": np.array(json.dumps({"fps": dataset.fps, "episodes": dataset.num_episodes, "frames": dataset.num_frames}))
}
for key in dataset.meta.features:
    seen[key] = np.stack([item[key].numpy() for item in items])
    for name, value in dataset.meta.stats[key].items():
        seen[f"stats/{key}/{name}"] = np.asarray(value)
seen["action_is_pad"] = np.stack([item["action_is_pad"].numpy() for item in items])
seen["task"] = np.array([item["task"] for item in items])
np.savez(output, **seen)
