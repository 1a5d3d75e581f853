"""Runs inside the LeRobot environment: opens policies with LeRobot, makes others, and writes the actions of all.

Arguments: a folder and the .npz to write. The folder holds observations.npz, policy directories `ours/NAME` to open,
and wanted.json, `{NAME: ACTConfig fields}` of policies to make in `theirs/NAME`. What comes out is `ours/NAME` and
`theirs/NAME` -> chunks (N, chunk, 14).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.configs.types import FeatureType
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot_config import act_config

root, output = map(Path, sys.argv[1:])
torch.set_num_threads(1)


def actions(policy, processors, inputs):
    """Chunks (N, chunk, 14) in raw units, each observation alone, through LeRobot's own pipelines."""
    before, after = processors
    policy.eval()
    with np.load(root / "observations.npz") as arrays:
        observations = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name in inputs}
    chunks = []
    with torch.no_grad():
        for index in range(len(next(iter(observations.values())))):
            batch = before({name: value[index] for name, value in observations.items()})
            chunks.append(after(policy.predict_action_chunk(batch))[0].numpy())
    return np.stack(chunks)


def opened(directory):
    policy = ACTPolicy.from_pretrained(directory)
    return actions(policy, make_pre_post_processors(policy.config, directory), policy.config.input_features)


def made(directory, fields, seed):
    """A policy with random weights and statistics, saved by LeRobot."""
    config = act_config(fields)
    torch.manual_seed(seed)
    stats = {}
    for name, feature in {**config.input_features, **config.output_features}.items():
        shape = (3, 1, 1) if feature.type is FeatureType.VISUAL else feature.shape
        mean, std = torch.rand(shape) - 0.5, torch.rand(shape) + 0.5
        stats[name] = {"mean": mean, "std": std, "min": mean - std, "max": mean + std}
    policy, processors = ACTPolicy(config), make_pre_post_processors(config, dataset_stats=stats)
    policy.save_pretrained(directory)
    for processor in processors:
        processor.save_pretrained(directory)
    return actions(policy, processors, config.input_features)


results = {f"ours/{path.name}": opened(path) for path in sorted((root / "ours").iterdir())}
for number, (name, fields) in enumerate(json.loads((root / "wanted.json").read_text()).items()):
    results[f"theirs/{name}"] = made(root / "theirs" / name, fields, number)
np.savez(output, **results)
