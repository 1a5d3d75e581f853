"""Opens what the policy process runs: a checkpoint on this machine, or the link to a policy server."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aloha_runtime.act.card import remote_config
from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.device import AUTO, Device, choose_device
from aloha_runtime.act.engine_choice import Choice, choose
from aloha_runtime.act.engines import EAGER, Engine
from aloha_runtime.act.observe import refuse_inputs, refuse_unfit
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.config import SHIPPED_POLICIES, RigConfig, policy_path
from aloha_runtime.errors import CheckpointError, ConfigError
from aloha_runtime.remote.address import Address, is_remote
from aloha_runtime.remote.keys import Keys, default_keys_dir
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.robot import CONTROL_HZ

LINK_PATIENCE_S = 15.0
"""A server that is not there within this ends the process, which is then started again."""
ENOUGH_SHARE = 0.5
"""Of the deadline for a tick's own chunk: what needs no more is fast enough even when the machine is busy."""


@dataclass(frozen=True)
class Opened:
    """A policy that is ready to predict. `device`: where its network runs; None where that is another machine."""

    config: ACTConfig
    engine: Engine | PolicyLink
    device: Device | None = None

    @property
    def link(self) -> PolicyLink | None:
        return self.engine if isinstance(self.engine, PolicyLink) else None

    @property
    def where(self) -> str:
        """Engine and place, for people."""
        return self.engine.name if self.device is None else f"engine {self.engine.name} on {self.device}"

    def failed(self, error: Exception) -> str:
        """What to tell the operator when the network fails in the middle, and what to do."""
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if self.device is None or not self.device.is_gpu:
            todo = "see the policy's log, then start it again"
        else:
            todo = (
                "see what `nvidia-smi` and `dmesg` say of the GPU, then start the policy again; "
                "`policy: {device: cpu}` in the rig file does without it"
            )
        return f"inference failed, {self.where}: {first}; {todo}"


def absolute(name: str) -> str:
    """The name of a checkpoint as others find it: shipped ones and addresses as they are, else the whole path."""
    return name if is_remote(name) or name in SHIPPED_POLICIES else str(policy_path(name).resolve())


def open_policy(name: str, rig: RigConfig, virtual: bool, log: logging.Logger) -> Opened:
    """A checkpoint of this machine or a server's address, which fits this rig. Raises AlohaError."""
    return _open_link(name, rig, virtual, log) if is_remote(name) else _open_here(name, rig, virtual, log)


def _open_link(name: str, rig: RigConfig, virtual: bool, log: logging.Logger) -> Opened:
    """The server's checkpoint must be the one that the address says."""
    if virtual:
        raise ConfigError(f"{name} answers in real time: set `sim: {{clock: wall}}`")
    link = PolicyLink(Address.parse(name), Keys(default_keys_dir()), CONTROL_HZ)
    config, path = remote_config(link.open(LINK_PATIENCE_S))
    refuse_inputs(config, path, rig)
    log.info("policy of %s, checkpoint %s", link.name, path.name[:12])
    return Opened(config, link)


def _open_here(name: str, rig: RigConfig, virtual: bool, log: logging.Logger) -> Opened:
    path = policy_path(name)
    refuse_unfit(path, rig)
    settings = rig.policy
    # In virtual time `auto` is eager: the same actions on any machine.
    wanted = EAGER if settings.engine == AUTO and virtual else settings.engine
    device = choose_device(settings.device, wanted, virtual)
    if device.doubt:
        log.warning("%s", device.doubt)
    enough_ms = settings.chunk_deadline_ms * ENOUGH_SHARE
    config, choice = open_engine(path, wanted, device, settings.threads, enough_ms, log.warning)
    log.info("%s, on %s", choice, device)
    return Opened(config, choice.engine, device)


def open_engine(
    path: Path, wanted: str, device: Device, threads: int, enough_ms: float, report: Callable[[str], None]
) -> tuple[ACTConfig, Choice]:
    """The engine of a checkpoint on a device, warmed up. Raises CheckpointError, also for a GPU that is there and does
    not compute: nobody is to believe that it does."""
    try:
        policy = ACTPolicy.from_pretrained(path, device=device.name)
        choice = choose(wanted, policy, path, threads, enough_ms, report)
    except RuntimeError as error:
        if not device.is_gpu:
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot run on {device}: {first}; see what `nvidia-smi` says, or set `policy: {{device: cpu}}`"
        ) from error
    return policy.config, choice
