"""ACT: the policy, its training and its checkpoints. The only room that imports torch.

The names below are loaded on first use, so that a process without torch can import `aloha_runtime.act.ensemble`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aloha_runtime.act.config import ACTConfig, Feature
    from aloha_runtime.act.ensemble import TemporalEnsemble
    from aloha_runtime.act.policy import ACTPolicy

__all__ = ["ACTConfig", "ACTPolicy", "Feature", "TemporalEnsemble"]

_HOME = {"ACTConfig": "config", "Feature": "config", "ACTPolicy": "policy", "TemporalEnsemble": "ensemble"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
