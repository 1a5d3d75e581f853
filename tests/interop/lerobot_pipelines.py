"""Runs inside the LeRobot environment: policies with pipelines of every kind, and what each pipeline makes of numbers.

Arguments: a folder, `make` or `open`, and the .npz to write. The folder holds observations.npz and cases.json,
`{NAME: {config, stats, before, normalizer, unnormalizer, after}}`. `make` writes the policy directories `theirs/NAME`;
`open` opens `ours/NAME`. Both write `NAME/FEATURE` (what goes into the network), `NAME/action` (what the pipelines make
of actions.npy, a chunk of the network's own) and `NAME/chunk` (the policy's actions), one row for each observation.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot_config import act_config

root, mode, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
cases = json.loads((root / "cases.json").read_text())
torch.set_num_threads(1)


def make(directory, case):
    """A policy with random weights and the given statistics; its pipelines are LeRobot's default ones, changed."""
    config = act_config(case["config"])
    torch.manual_seed(0)
    stats = {name: {key: torch.tensor(value) for key, value in kept.items()} for name, kept in case["stats"].items()}
    weights = root / "model.safetensors"
    if weights.exists():  # one network for all: the pipelines are what differs
        directory.mkdir(parents=True)
        config._save_pretrained(directory)
        os.link(weights, directory / weights.name)
    else:
        ACTPolicy(config).save_pretrained(directory)
        os.link(directory / weights.name, weights)
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(directory)
    for name, key in (("preprocessor", "before"), ("postprocessor", "after")):
        path = directory / f"policy_{name}.json"
        content = json.loads(path.read_text())
        for step in content["steps"]:
            step["config"] |= case.get(step["registry_name"], {})
        place = 2 if key == "before" else 1  # raw units: before what normalises, after what undoes it
        content["steps"][place:place] = case.get(key, [])
        path.write_text(json.dumps(content))


def results(directory):
    policy = ACTPolicy.from_pretrained(directory).eval()
    before, after = make_pre_post_processors(policy.config, directory)
    with np.load(root / "observations.npz") as arrays:
        observations = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    normalized = torch.from_numpy(np.load(root / "actions.npy"))
    rows = []
    with torch.no_grad():
        for index in range(len(next(iter(observations.values())))):
            batch = before({name: value[index] for name, value in observations.items()})
            row = {name: batch[name][0].numpy() for name in policy.config.input_features}
            row["action"] = after(normalized.clone())[0].numpy()
            rows.append(row | {"chunk": after(policy.predict_action_chunk(batch))[0].numpy()})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


found = {}
for name, case in cases.items():
    path = root / {"make": "theirs", "open": "ours"}[mode] / name
    if mode == "make":
        make(path, case)
    found |= {f"{name}/{key}": value for key, value in results(path).items()}
np.savez(output, **found)
