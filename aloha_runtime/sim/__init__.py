"""The simulated rig: MuJoCo world, off-screen cameras, tasks, scripted demonstrators; and gym-aloha's environments.

`make_env` is loaded on first use: emulated servo chains need no MuJoCo.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aloha_runtime.sim.env import make_env

__all__ = ["make_env"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("aloha_runtime.sim.env"), name)
