"""Faults of the network between a robot PC and its policy's server: the real link and server, a proxy between them."""

import contextlib
import tempfile
import threading
import time
from pathlib import Path
from random import Random

import zmq

from aloha_runtime.act.config import STATE
from aloha_runtime.commands.faults.drivers import chunk
from aloha_runtime.commands.faults.motion import Motion, scenario
from aloha_runtime.commands.faults.policies import STILL_S, moved_since
from aloha_runtime.commands.faults.rig import FaultRig, Look
from aloha_runtime.commands.faults.scenario import Family, Scenario
from aloha_runtime.config_parts import PolicyConfig
from aloha_runtime.remote import gate
from aloha_runtime.remote.frames import Inputs
from aloha_runtime.remote.keys import Keys
from aloha_runtime.remote.server import PolicyServer, Served
from aloha_runtime.robot import CONTROL_HZ
from aloha_runtime.sim.network import BadNetwork

INPUTS = Inputs({}, {STATE: 14})
LOOKED_S = 1.5
"""So long a motion that is to go on is looked at: nearly four times what an answer may be old."""
HOLD_MS = PolicyConfig().remote_max_age_ms + 100
"""The age that is allowed, and five ticks: policy, supervisor, arms, and how young the last answer was."""
TURN_MS = 20


class RemoteRig(FaultRig):
    """The rig of faults, whose policy asks a server in this process, through a network that can be made bad."""

    def __init__(self) -> None:
        super().__init__()
        self._end = threading.Event()

    def __enter__(self) -> "RemoteRig":
        with contextlib.ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="aloha-link-")))
            gpu, robot = Keys(folder / "gpu"), Keys(folder / "robot")
            gpu.create()
            gpu.allow(robot.create(), "robot")
            robot.allow(gpu.public(), "gpu")
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            held.callback(context.term)
            ours, keeper = gate.listen(context, gpu, "tcp://127.0.0.1:*", INPUTS.most_bytes)
            held.callback(keeper.close)
            port = int(ours.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
            self.policy = PolicyServer(ours, Served("0" * 64, {}, CONTROL_HZ), INPUTS, lambda _: chunk())
            held.callback(self.policy.close)
            thread = threading.Thread(target=self._serve, name="server")
            thread.start()
            held.callback(thread.join)
            held.callback(self._end.set)
            self.network = held.enter_context(BadNetwork(port))
            self._server = (f"tcp://127.0.0.1:{self.network.port}", str(robot.directory))
            super().__enter__()
            self._remote = held.pop_all()
        return self

    def _serve(self) -> None:
        while not self._end.is_set():
            self.policy.turn(TURN_MS)

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._remote.close()

    def heal(self) -> None:
        """The network is good again; what was under way on it is lost."""
        network = self.network
        network.delay_s = network.jitter_s = 0.0
        network.bytes_s = network.cut_after = None
        network.refuses = network.stalled = False
        network.cut()


def delayed(delay_s: float, jitter_s: float = 0.0, cause: str = "") -> Motion:
    """More delay each way; `cause`: of the HOLD that it leads to, empty where it leads to none."""

    def inject(rig: RemoteRig, _chance: Random) -> tuple[int, str]:
        rig.network.delay_s, rig.network.jitter_s = delay_s, jitter_s
        return time.monotonic_ns(), cause

    return _motion(inject, bool(cause))


def throttled(rig: RemoteRig, _chance: Random) -> tuple[int, str]:
    rig.network.bytes_s = 300
    return time.monotonic_ns(), OLD


def cut(rig: RemoteRig, _chance: Random) -> tuple[int, str]:
    rig.network.refuses = True
    rig.network.cut()
    return time.monotonic_ns(), OLD


def cut_in_a_message(rig: RemoteRig, chance: Random) -> tuple[int, str]:
    rig.network.refuses = True
    rig.network.cut_after = chance.randrange(1, 100)
    return time.monotonic_ns(), OLD


def cut_shortly(rig: RemoteRig, _chance: Random) -> tuple[int, str]:
    rig.network.cut()
    return time.monotonic_ns(), ""


def half_open(rig: RemoteRig, _chance: Random) -> tuple[int, str]:
    rig.network.stalled = True
    return time.monotonic_ns(), OLD


def healed(rig: RemoteRig, look: Look) -> str:
    """The network comes back, the link by itself; after a HOLD nobody moves before the operator has armed."""
    rig.heal()
    if look.driven:
        return ""
    rig.pause(STILL_S)
    return moved_since(rig, int(STILL_S * 1e9))


OLD = "policy: remote policy: (its newest answer is for an observation|no answer within)"


def _motion(inject: object, stops: bool) -> Motion:
    if stops:
        return Motion(inject, figure=lambda look: look.hold_ms, after=healed)  # type: ignore[arg-type]
    return Motion(inject, stops=False, figure=lambda _: None, look_s=LOOKED_S, after=healed)  # type: ignore[arg-type]


def _holds(name: str, motion: Motion) -> Scenario:
    promise = "HOLD by the age of what was answered; back by itself; the operator goes on"
    return scenario(name, promise, "ms to HOLD", HOLD_MS, motion, count=3, soak=30)


def _goes_on(name: str, motion: Motion) -> Scenario:
    return scenario(name, "the motion goes on", "", None, motion, count=3, soak=30)


REMOTE_LINK = Family(
    "remote link",
    RemoteRig,
    (
        _goes_on("link delayed by 50 ms", delayed(0.05)),
        _goes_on("link with jitter of 80 ms", delayed(0.01, 0.08)),
        _goes_on("link cut, back at once", _motion(cut_shortly, stops=False)),
        _holds("link delayed by 200 ms", delayed(0.2, cause=OLD)),
        _holds("link delayed by 500 ms", delayed(0.5, cause=OLD)),
        _holds("link throttled to 300 bytes/s", _motion(throttled, stops=True)),
        _holds("link cut", _motion(cut, stops=True)),
        _holds("link cut within a message", _motion(cut_in_a_message, stops=True)),
        _holds("link half open", _motion(half_open, stops=True)),
    ),
)
