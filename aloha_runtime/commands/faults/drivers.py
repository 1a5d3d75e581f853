"""The policy process with a network made up for a fault: the real loop, ticks, worker thread, ensemble and bus.

It runs in children of a server that has everything loaded (`multiprocessing`'s fork server), so that hundreds of them
start in a few hundredths of a second each and are killed at random instants.
"""

import argparse
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from aloha_runtime import config
from aloha_runtime.act.config import STATE, ACTConfig
from aloha_runtime.act.opening import LINK_PATIENCE_S
from aloha_runtime.processes.policy import PolicyLoop
from aloha_runtime.realtime import NS_PER_S, Beat, Pacer, WallClock
from aloha_runtime.remote.address import Address
from aloha_runtime.remote.keys import Keys
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.robot import CONTROL_HZ, START_POSE, TICK_NS, pose_vector
from aloha_runtime.service import Service

Fault = Literal["none", "hang", "nan", "late", "busy"]
StartMethod = Literal["forkserver", "spawn"]
"""From the loaded server, or as a fresh process."""
LENGTH = 50
"""Actions of a chunk: a second."""
SWING_RAD, SWING_HZ = 0.3, 1.1
"""Every joint swings about the start pose, at most at 2.1 rad/s: near the limit of 2.5, and the lead limit acts."""
FAULT_AFTER_S = 0.5
LATE_S, LATE_EVERY = 0.025, 3
"""One tick in three is late by more than its period: success falls below 0.80 within two seconds."""


@dataclass(frozen=True)
class Sees:
    """What the loop asks of a policy's configuration: its cameras, as (height, width) by name, and no more."""

    cameras: Mapping[str, tuple[int, int]]
    n_action_steps: int = 1
    temporal_ensemble_coeff: float | None = 0.01
    chunk_size: int = LENGTH

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return {STATE: (14,)}


def chunk() -> NDArray[np.float32]:
    """(LENGTH, 14): where the swing is at this tick and the next ones."""
    ticks = time.monotonic_ns() // TICK_NS + np.arange(LENGTH)
    phase = 2 * np.pi * SWING_HZ * ticks * TICK_NS / NS_PER_S
    swing = SWING_RAD * np.sin(phase[:, None] + np.arange(14) / 3)
    return (pose_vector(START_POSE, 0.5) + swing).astype(np.float32)


class Network:
    """Stands in for the network. From `fail_from_s` (monotonic) on it does what the fault says."""

    def __init__(self, fault: Fault, failed_ns: Any) -> None:
        """`failed_ns`: shared with the bench, set when the fault begins."""
        self.fault = fault
        self.fail_from_s = float("inf")
        self._failed_ns = failed_ns

    def fails(self, fault: Fault) -> bool:
        """Whether this fault is to be shown now."""
        if fault != self.fault or time.monotonic() < self.fail_from_s:
            return False
        self._failed_ns.value = self._failed_ns.value or time.monotonic_ns()
        return True

    def __call__(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        if self.fails("hang"):
            threading.Event().wait()
        return chunk()


Server = tuple[str, str]
"""Address of a policy server, and the folder of the keys."""


def drive(
    rig_file: str,
    run_dir: str,
    cameras: Mapping[str, tuple[int, int]],
    server: Server | None,
    fault: Fault,
    failed_ns: Any,
) -> None:
    """The child: the policy process until it is killed; its network runs at `server`, where there is one."""
    arguments = argparse.Namespace(checkpoint="made up")
    service = Service("policy", config.load(rig_file), Path(run_dir), WallClock(), arguments)
    network = Network(fault, failed_ns)
    link = None
    if server is not None:
        link = PolicyLink(Address.parse(server[0]), Keys(Path(server[1])), CONTROL_HZ)
        link.open(LINK_PATIENCE_S)
    loop = PolicyLoop(service, cast(ACTConfig, Sees(cameras)), link.predict if link else network, link)
    loop.actions.send = _spoilt(loop.actions.send, network)  # type: ignore[method-assign]
    realtime = service.prepare_realtime([])
    pacer = Pacer(service.clock, TICK_NS)
    while True:
        beat = pacer.wait()
        _tick(loop, beat, network)
        if loop.running and network.fail_from_s == float("inf"):
            network.fail_from_s = time.monotonic() + FAULT_AFTER_S
        service.report(lambda: {"realtime_priority": realtime.priority or 0, **pacer.figures()}, message=loop.stuck())


def _tick(loop: PolicyLoop, beat: Beat, network: Network) -> None:
    if network.fails("late") and not beat.index % LATE_EVERY:
        time.sleep(LATE_S)
    if network.fails("busy") and not any(thread.name == "busy" for thread in threading.enumerate()):
        threading.Thread(target=_spin, name="busy", daemon=True).start()
    loop.tick(beat)


def _spoilt(send: Callable[..., None], network: Network) -> Callable[..., None]:
    """What the policy sends, with a number that is none where the fault says so."""

    def spoil(action: Any) -> None:
        if network.fails("nan"):
            action.position[action.tick % 14] = float("nan")
        send(action)

    return spoil


def _spin() -> None:
    """A thread that somebody put into a controller and that never waits."""
    while True:
        pass


class Drivers:
    """Children of one server that has the policy process loaded."""

    def __init__(
        self,
        rig_file: Path,
        run_dir: Path,
        cameras: Mapping[str, tuple[int, int]],
        method: StartMethod,
        server: Server | None = None,
    ) -> None:
        self._asked = (str(rig_file), str(run_dir), dict(cameras), server)
        self._context: Any = multiprocessing.get_context(method)
        self._context.set_forkserver_preload([__name__])
        self.failed_ns = self._context.Value("q", 0)

    def start(self, fault: Fault) -> BaseProcess:
        self.failed_ns.value = 0
        arguments = (*self._asked, fault, self.failed_ns)
        child: BaseProcess = self._context.Process(target=drive, args=arguments, daemon=True)
        child.start()
        return child
