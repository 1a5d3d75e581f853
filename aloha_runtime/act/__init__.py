"""ACT: the policy, its training and its checkpoints. The only room that imports torch.

The names below are loaded on first use, so that a process without torch can import `aloha_runtime.act.ensemble`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aloha_runtime.act.config import ACT_ALOHA_PRESET, ACTConfig
    from aloha_runtime.act.ensemble import TemporalEnsemble
    from aloha_runtime.act.policy import ACTPolicy
    from aloha_runtime.act.samples import LeRobotDataset

__all__ = ["ACT_ALOHA_PRESET", "ACTConfig", "ACTPolicy", "LeRobotDataset", "TemporalEnsemble"]

_HOME = {
    "ACTConfig": "config",
    "ACT_ALOHA_PRESET": "config",
    "ACTPolicy": "policy",
    "LeRobotDataset": "samples",
    "TemporalEnsemble": "ensemble",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
