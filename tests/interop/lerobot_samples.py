"""Runs inside the LeRobot environment: samples of a dataset as `LeRobotDataset.__getitem__` gives them.

Arguments: dataset directory, delta_timestamps as JSON, sample numbers as JSON, output .npz with `{number}/{key}`.
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, deltas, samples, output = sys.argv[1:]
dataset = LeRobotDataset("local/test", root=root, delta_timestamps=json.loads(deltas) or None, video_backend="pyav")
seen = {}
for sample in json.loads(samples):
    for key, value in dataset[sample].items():
        seen[f"{sample}/{key}"] = np.array(value) if key == "task" else value.numpy()
np.savez(output, **seen)
