"""LeRobot's training step, timed. Run by `aloha bench train` with LeRobot's own Python: it imports nothing of ours.

    python lerobot_step.py '{"cameras": 1, "height": 120, "width": 160, "batch": 8, "policy": {"chunk_size": 50}}'

For every number of steps read from standard input it writes a line of JSON, the CPU seconds of each step.
"""

import json
import sys
import time
from typing import Any

import torch


def main() -> None:
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = make_step(sizes)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            started = time.process_time()
            step()
            times.append(time.process_time() - started)
        sys.stdout.write(json.dumps(times) + "\n")
        sys.stdout.flush()


def make_step(sizes: dict[str, Any]) -> Any:
    """Forward, backward, clipping and AdamW as `lerobot/scripts/lerobot_train.py` has them, on one fixed batch."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    batch_size, chunk = sizes["batch"], sizes["policy"].get("chunk_size", 100)
    images = {
        f"observation.images.cam_{index}": (3, sizes["height"], sizes["width"]) for index in range(sizes["cameras"])
    }
    inputs = {name: PolicyFeature(type=FeatureType.VISUAL, shape=shape) for name, shape in images.items()}
    inputs["observation.state"] = PolicyFeature(type=FeatureType.STATE, shape=(14,))
    outputs = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(14,))}
    values = {"n_action_steps": chunk, "pretrained_backbone_weights": None, "device": "cpu", **sizes["policy"]}
    policy = ACTPolicy(ACTConfig(input_features=inputs, output_features=outputs, **values)).train()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-5, weight_decay=1e-4)
    batch = {name: torch.randn(batch_size, *shape) for name, shape in images.items()}
    batch["observation.state"] = torch.randn(batch_size, 14)
    batch["action"] = torch.randn(batch_size, chunk, 14)
    batch["action_is_pad"] = torch.zeros(batch_size, chunk, dtype=torch.bool)

    def step() -> float:
        loss, _ = policy.forward(dict(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.item())

    return step


if __name__ == "__main__":
    main()
