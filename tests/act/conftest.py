"""A policy directory that most tests here begin with."""

from pathlib import Path

import pytest
import small_policy as small
import torch

from aloha_runtime.act import ACTPolicy


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small policy with random weights, as `save_pretrained` writes it."""
    torch.manual_seed(0)
    directory = tmp_path / "policy"
    ACTPolicy(small.config(), small.stats()).save_pretrained(directory)
    return directory
