"""How a checkpoint will be run on this rig: what becomes of its chunks, and on which device its network computes."""

from collections.abc import Iterator

from aloha_runtime.act.card import is_card
from aloha_runtime.act.device import choose_device
from aloha_runtime.act.execution import execution_of
from aloha_runtime.commands.findings import Finding, fail, ok, warn
from aloha_runtime.commands.preflight_checks import Checkpoint
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError


def examine(loaded: Checkpoint, rig: RigConfig) -> list[Finding]:
    """Every finding."""
    return [*execution(loaded, rig), *device(loaded, rig)]


def execution(loaded: Checkpoint, rig: RigConfig) -> Iterator[Finding]:
    """How its chunks are carried out: for people to know."""
    asked = rig.policy
    yield ok("execution", str(execution_of(loaded.config, asked.ensemble, asked.ensemble_m, asked.n_action_steps)))


def device(loaded: Checkpoint, rig: RigConfig) -> Iterator[Finding]:
    """Where the network runs, and why there."""
    if is_card(loaded.directory):
        yield ok("device", "the policy server's")
        return
    virtual = rig.sim is not None and rig.sim.clock == "virtual"
    try:
        found = choose_device(rig.policy.device, rig.policy.engine, virtual)
    except AlohaError as error:
        yield fail("device", str(error), "change `policy: {device: ...}` in the rig file")
        return
    if found.doubt:
        yield warn("device", found.doubt, "accept when this policy is fast enough on the CPU")
    else:
        yield ok("device", str(found))
