"""A policy server in a thread, robots with keys, and a bad network between them."""

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from aloha_runtime.remote.address import Address
from aloha_runtime.remote.frames import Inputs
from aloha_runtime.remote.gate import Gatekeeper
from aloha_runtime.remote.keys import Keys
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.remote.server import PolicyServer

STATE, CAMERA = "observation.state", "observation.images.cam_high"
INPUTS = Inputs({CAMERA: (24, 32)}, {STATE: 14})
DIGEST = "ab" * 32


def observation(value: float = 0.0) -> dict[str, NDArray[Any]]:
    return {STATE: np.full(14, value, np.float32), CAMERA: np.full((24, 32, 3), 7, np.uint8)}


def echo(seen: Mapping[str, Any]) -> NDArray[np.float32]:
    """A chunk that tells which observation it answers."""
    return np.full((5, 14), seen[STATE][0], np.float32)


@dataclass
class Machine:
    """The server's side, turning in a thread. `robot` and `stranger`: keys of two clients, one of them allowed."""

    folder: Path
    context: "zmq.Context[zmq.Socket[bytes]]"
    server: PolicyServer
    keeper: Gatekeeper
    port: int
    keys: Keys
    robot: Keys
    stranger: Keys
    links: list[PolicyLink] = field(default_factory=list)
    running: threading.Event = field(default_factory=threading.Event)
    idle: threading.Event = field(default_factory=threading.Event)
    ended: bool = False
    ended_by: BaseException | None = None
    """What the server died of: an error is no refusal."""

    def link(self, keys: Keys | None = None, port: int | None = None, digest: str = "") -> PolicyLink:
        address = Address.parse(f"tcp://127.0.0.1:{port or self.port}" + (f"#{digest}" if digest else ""))
        found = PolicyLink(address, keys or self.robot, 50)
        self.links.append(found)
        return found

    def pause(self) -> None:
        """The server takes no message until `running` is set again."""
        self.running.clear()
        assert self.idle.wait(10)

    def run(self) -> None:
        try:
            while not self.ended:
                if self.running.is_set():
                    self.idle.clear()
                    self.server.turn(20)
                else:
                    self.idle.set()
                    self.running.wait(0.05)
        except zmq.ZMQError as error:
            if not self.ended:  # a test may close the socket of a server that it has ended
                self.ended_by = error
        except BaseException as error:
            self.ended_by = error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_keys(folder: Path, *names: str) -> list[Keys]:
    """Keys of machines that do not know each other yet."""
    found = [Keys(folder / name) for name in names]
    for keys in found:
        keys.create()
    return found


def stop(machine: Machine, thread: threading.Thread) -> None:
    """End a server and its links; twice is harmless. Raises what the server died of."""
    machine.ended = True
    thread.join(10)
    for link in machine.links:
        link.close()
    machine.links.clear()
    if not machine.context.closed:
        machine.server.close()
        machine.keeper.close()
        machine.context.term()
    if machine.ended_by is not None:
        raise machine.ended_by


TRIES = 2000
"""Observations, 10 ms apart, within which a link must be back; it takes a few dozen."""


def until_answered(link: PolicyLink, value: float) -> int:
    """Observations until one was answered, with its own answer."""
    for tried in range(1, TRIES):
        chunk = link.predict(observation(value))
        if chunk is not None:
            assert (chunk == value).all()
            return tried
        time.sleep(0.01)
    raise AssertionError(f"no answer any more: {link.trouble}, {link.counts}")
