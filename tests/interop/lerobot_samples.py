"""Runs inside the LeRobot environment: samples of a dataset as `LeRobotDataset.__getitem__` gives them.

Arguments: dataset directory, a list of delta_timestamps as JSON, sample numbers as JSON, output .npz with
`{number of the delta_timestamps}/{sample}/{key}`.
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, cases, samples, output = sys.argv[1:]
seen = {}
for case, deltas in enumerate(json.loads(cases)):
    dataset = LeRobotDataset("local/test", root=root, delta_timestamps=deltas or None, video_backend="pyav")
    for sample in json.loads(samples):
        for key, value in dataset[sample].items():
            seen[f"{case}/{sample}/{key}"] = np.array(value) if key == "task" else value.numpy()
np.savez(output, **seen)
