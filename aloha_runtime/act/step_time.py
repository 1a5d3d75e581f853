"""Our training step, timed as `lerobot_step.py` times LeRobot's: the same sizes, random pixels, one CPU thread."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from aloha_runtime.act.config import ACTION, IMAGE_PREFIX, STATE, ACTConfig
from aloha_runtime.act.distributed import Processes
from aloha_runtime.act.model import IS_PAD
from aloha_runtime.act.optimize import Stepper
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.act.train_config import TrainConfig


def make_timer(sizes: Mapping[str, Any]) -> Callable[[int], list[float]]:
    """A function that makes so many steps and returns the CPU seconds of each. Everything a step of `aloha train` does
    is in it, from uint8 pixels on: normalisation too, which LeRobot has before its step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = {f"{IMAGE_PREFIX}cam_{i}": (3, sizes["height"], sizes["width"]) for i in range(sizes["cameras"])}
    policy = ACTPolicy(ACTConfig(input_shapes={**shapes, STATE: (14,)}, pretrained_backbone=False, **sizes["policy"]))
    config = TrainConfig(Path("none"), Path("none"), batch_size=sizes["batch"], device="cpu")
    stepper = Stepper(config, policy, Processes(config))
    chunk = policy.config.chunk_size
    batch = {name: torch.randint(256, (config.batch_size, *s[1:], 3), dtype=torch.uint8) for name, s in shapes.items()}
    batch[STATE] = torch.randn(config.batch_size, 14)
    batch[ACTION] = torch.randn(config.batch_size, chunk, 14)
    batch[IS_PAD] = torch.zeros(config.batch_size, chunk, dtype=torch.bool)

    def run(count: int) -> list[float]:
        times = []
        for step in range(count):
            started = time.process_time()
            stepper.step(batch, step)
            times.append(time.process_time() - started)
        return times

    return run
