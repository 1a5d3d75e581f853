"""A script for LeRobot's own environment, for `aloha bench train`: samples a second of its dataset and DataLoader.

Arguments: dataset directory, samples, batch size, workers. Prints one JSON object.
"""

import json
import sys
import time

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, count, batch_size, workers = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
deltas = {"observation.state": [0.0], "action": [step / 50 for step in range(100)]}


def measured(backend: str | None) -> float:
    dataset = LeRobotDataset(
        "local/bench", root=root, delta_timestamps=deltas, video_backend=backend, return_uint8=True
    )  # bytes, as ours, which is its faster way
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[: count + batch_size].tolist()
    subset = torch.utils.data.Subset(dataset, order)
    loader = iter(torch.utils.data.DataLoader(subset, batch_size=batch_size, num_workers=workers))
    next(loader)  # workers have started
    started = time.perf_counter()
    samples = sum(len(batch["action"]) for batch in loader)
    return samples / (time.perf_counter() - started)


found: dict[str, float] = {}
for name in ("torchcodec", "pyav"):
    try:
        found[name] = measured(name)
    except Exception as error:  # torchcodec cannot be loaded without a system FFmpeg
        sys.stderr.write(f"{name}: {type(error).__name__}\n")
sys.stdout.write(json.dumps(found) + "\n")
