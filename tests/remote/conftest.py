"""A policy server in a thread, and a bad network before it; examples of property tests are the same in every run."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import settings
from remote_machines import DIGEST, INPUTS, Machine, echo, free_port, make_keys, stop

from aloha_runtime.remote import gate
from aloha_runtime.remote.server import PolicyServer, Served
from aloha_runtime.sim.network import BadNetwork

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Starts a server with this predict function and digest."""
    machines: list[tuple[Machine, threading.Thread]] = []

    def begin(predict: Callable[..., Any] = echo, digest: str = DIGEST, port: int | None = None) -> Machine:
        if machines:
            known = machines[0][0]
            gpu, robot, stranger = known.keys, known.robot, known.stranger
        else:
            gpu, robot, stranger = make_keys(tmp_path, "gpu", "robot", "stranger")
            gpu.allow(robot.public(), "robot")
            for keys in (robot, stranger):
                keys.allow(gpu.public(), "gpu")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        where = port or free_port()
        sock, keeper = gate.listen(context, gpu, f"tcp://127.0.0.1:{where}", INPUTS.most_bytes)
        server = PolicyServer(sock, Served(digest, {"config.json": b"{}"}, 50), INPUTS, predict)
        machine = Machine(tmp_path, context, server, keeper, where, gpu, robot, stranger)
        machine.running.set()
        thread = threading.Thread(target=machine.run)
        thread.start()
        machines.append((machine, thread))
        return machine

    yield begin
    for machine, thread in machines:
        stop(machine, thread)


@pytest.fixture
def machine(start: Callable[..., Machine]) -> Machine:
    return start()


@pytest.fixture
def network(machine: Machine) -> Iterator[BadNetwork]:
    with BadNetwork(machine.port) as between:
        yield between
