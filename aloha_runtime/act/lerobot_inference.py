"""A script for LeRobot's own environment, for `aloha bench inference`: durations of its `predict_action_chunk`.

Arguments: height, width, cameras, threads. Prints "ready"; then, for each line it reads, the milliseconds of one
inference on observations that are normalised floats already (what its own preprocessing takes does not count).
"""

import sys
import time

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy

height, width, cameras, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
inputs = {
    f"observation.images.cam_{index}": PolicyFeature(FeatureType.VISUAL, (3, height, width)) for index in range(cameras)
}
inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (14,))
policy = ACTPolicy(
    ACTConfig(
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (14,))},
        pretrained_backbone_weights=None,
        device="cpu",
    )
).eval()
observation = {name: torch.rand(1, *feature.shape) for name, feature in inputs.items()}
for _ in range(3):
    policy.predict_action_chunk(observation)
print("ready", flush=True)  # noqa: T201
for _line in sys.stdin:
    begun = time.perf_counter()
    policy.predict_action_chunk(observation)
    print(1000 * (time.perf_counter() - begun), flush=True)  # noqa: T201
